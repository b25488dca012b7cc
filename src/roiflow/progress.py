"""How far a long piece of work is: a bar on a terminal, elsewhere a line now and then."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import IO

SECONDS = 3.0
"""Lines are so far apart; work that is done before the first is due says nothing."""

Progress = Callable[[float, str], None]
"""Told the done fraction and what is being done."""


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Yields what is to be told; both forms go to the standard error, and so to a task's log."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        with every(SECONDS, lines := Lines(what, console.file)):
            yield lines.tell
        return
    from rich.progress import Progress as Bar

    # What the block prints goes above the bar, or into the file that the output is sent to.
    with Bar(console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda done, text: bar.update(task, completed=done, description=f"{what}: {text}")


class Lines:
    """`train_ranker: epoch 2 of 4 (50 %)`: what was told last, once."""

    def __init__(self, what: str, out: IO[str]) -> None:
        self._what, self._out, self._line = what, out, ""

    def tell(self, done: float, text: str) -> None:
        """What the next line says."""
        self._line = f"{self._what}: {text} ({100 * done:.0f} %)"

    def __call__(self) -> None:
        """Print it, where there is something new."""
        # Told often, printed once in a while: what comes between is of no use in a log.
        line, self._line = self._line, ""
        if line:
            print(line, file=self._out, flush=True)


@contextmanager
def every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Do it again and again beside the block: one long step of the work tells nothing itself."""
    ended = Event()

    def again() -> None:
        while not ended.wait(seconds):
            work()

    thread = Thread(target=again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
