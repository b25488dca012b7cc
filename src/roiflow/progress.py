"""How far a long piece of work is: a bar on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        yield Lines(what, console.file, SECONDS, time.monotonic)
        return
    from rich.progress import Progress as Bar

    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda done, text: bar.update(task, completed=done, description=f"{what}: {text}")


class Lines:
    """`train_ranker: epoch 2 of 4 (50 %)`, at most every `seconds` of `clock`."""

    def __init__(self, what: str, out: IO[str], seconds: float, clock: Callable[[], float]) -> None:
        self._what, self._out, self._seconds, self._clock = what, out, seconds, clock
        self._due = clock() + seconds

    def __call__(self, done: float, text: str) -> None:
        """Print where a line is due."""
        if (now := self._clock()) < self._due:
            return
        self._due = now + self._seconds
        print(f"{self._what}: {text} ({100 * done:.0f} %)", file=self._out, flush=True)
