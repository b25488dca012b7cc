"""What every command needs: where it is called from, and a bar of its progress."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from roiflow.settings import Settings


@contextmanager
def progress(console: "Console", what: str) -> Iterator[Callable[[float, str], None]]:
    """A bar; yields a callback of the done fraction and what is being done."""
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0)

        def show(done: float, text: str) -> None:
            bar.update(task, completed=done, description=text)

        yield show


def here() -> tuple[Path, "Settings", "Console"]:
    """The repository that holds the current folder, the environment's settings, the terminal.

    Raises RunError outside the repository.
    """
    from rich.console import Console

    from roiflow.run import repository_of
    from roiflow.settings import Settings

    return repository_of(Path.cwd()), Settings(), Console()


def finished(checkout: Path) -> Path:
    """A run's checkout. Raises RunError where the run did not get to a decision."""
    if not (checkout / "data" / "promoted.json").exists():
        from roiflow.errors import RunError

        raise RunError(f"{checkout}: no finished run; run the week first, such as roiflow demo")
    return checkout
