"""What every command needs: where it is called from, and what a run left there."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from roiflow.settings import Settings


def here() -> tuple[Path, "Settings", "Console"]:
    """The repository that holds the current folder, the environment's settings, the terminal.

    A home that is not absolute is meant from the main checkout on, wherever inside it or inside a
    run's checkout the command is called. Raises RunError outside the repository.
    """
    # Inside, as in every command: help does not wait for what commands need.
    from rich.console import Console

    from roiflow.settings import Settings
    from roiflow.weekly.checkout import main_checkout, repository_of

    repository, settings = repository_of(Path.cwd()), Settings()
    # An absolute home stays as it is: what is on the left of it is dropped.
    home = main_checkout(repository) / settings.home
    return repository, settings.model_copy(update={"home": home}), Console()


def finished(checkout: Path) -> Path:
    """A run's checkout. Raises RunError where the run did not get to a decision."""
    from roiflow.errors import RunError
    from roiflow.weekly.checkout import is_finished

    if not is_finished(checkout):
        raise RunError(f"{checkout}: no finished run; run the week first, such as roiflow demo")
    return checkout
