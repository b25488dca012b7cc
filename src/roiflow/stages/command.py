"""How a stage or a job is called: `python -m roiflow.stages.NAME ARGUMENT...`."""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from inspect import Parameter, getdoc

from roiflow.arrow import leave_pandas_out
from roiflow.entry import exit_on_expected
from roiflow.stages.arguments import described


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line, each argument made what its parameter's type says.

    An expected failure is one line and exit 1, a command line that does not fit is exit 2.
    """
    arguments = vars(parser(main).parse_args())
    # Before `main` makes its first array, and after its imports, which tell whether pyarrow is
    # there.
    leave_pandas_out()
    with exit_on_expected():
        main(**arguments)


def parser(main: Callable[..., None]) -> ArgumentParser:
    """Positional arguments from the signature of `main`, in its order; --help says what each is."""
    module = sys.modules[main.__module__]
    name = module.__spec__.name if module.__spec__ else main.__module__
    made = ArgumentParser(
        prog=f"python -m {name}",
        description="\n\n".join(filter(None, (getdoc(module), getdoc(main)))),
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for parameter, kind, meaning in described(main):
        optional = parameter.default is not Parameter.empty
        made.add_argument(
            parameter.name,
            type=kind,
            # argparse formats help texts with %.
            help=meaning.replace("%", "%%"),
            metavar=parameter.name.upper(),
            nargs="?" if optional else None,
            default=parameter.default if optional else None,
        )
    return made
