"""How a stage or a job is called: `python -m roiflow.stages.NAME PATH...`."""

import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path

from roiflow.errors import RoiflowError


def run(main: Callable[..., None]) -> None:
    """Call `main` with the paths on the command line; an expected failure is one line, exit 1."""
    names = list(signature(main).parameters)
    paths = [Path(argument) for argument in sys.argv[1:]]
    if len(paths) != len(names):
        sys.exit(f"usage: python -m {main.__module__} {' '.join(name.upper() for name in names)}")
    try:
        main(*paths)
    except RoiflowError as error:
        sys.exit(f"{type(error).__name__}: {error}")
