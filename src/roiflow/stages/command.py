"""How a stage or a job is called: `python -m roiflow.stages.NAME ARGUMENT...`."""

import sys
from collections.abc import Callable
from inspect import signature

from roiflow.errors import RoiflowError


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line, each argument made what its parameter's type says.

    An expected failure is one line and exit 1.
    """
    parameters = signature(main).parameters
    arguments = sys.argv[1:]
    if len(arguments) != len(parameters):
        sys.exit(f"usage: {_program(main)} {' '.join(name.upper() for name in parameters)}")
    try:
        main(
            *(
                parameter.annotation(argument)
                for parameter, argument in zip(parameters.values(), arguments, strict=True)
            )
        )
    except RoiflowError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _program(main: Callable[..., None]) -> str:
    spec = sys.modules[main.__module__].__spec__
    return f"python -m {spec.name if spec else main.__module__}"
