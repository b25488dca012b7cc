"""Make the next items of an iterator in a thread of their own while the current one is used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Queue
from threading import Event, Thread
from typing import NoReturn, TypeVar

Item = TypeVar("Item")


@contextmanager
def ahead(items: Iterator[Item], depth: int = 2) -> Iterator[Iterator[Item]]:
    """The same items in the same order, at most `depth` of them waiting; errors are raised here."""
    waiting: Queue[Callable[[], Item] | None] = Queue(depth)
    stop = Event()

    def make() -> None:
        try:
            for item in items:
                # A call and not the item: an error travels the same way, and is raised in the
                # caller's thread in its turn. The queue's length bounds what is made ahead.
                waiting.put(lambda item=item: item)  # type: ignore[misc]
                if stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            waiting.put(partial(_raise, error))
        else:
            waiting.put(None)

    thread = Thread(target=make, daemon=True)
    thread.start()
    try:
        yield _taken(waiting)
    finally:
        stop.set()
        # The caller may stop early with the thread waiting for room in a full queue. It gets room
        # until it has seen `stop`, so that no thread outlives the block.
        while thread.is_alive():
            while not waiting.empty():
                waiting.get()
            thread.join(0.01)


def _raise(error: BaseException) -> NoReturn:
    raise error


def _taken(waiting: "Queue[Callable[[], Item] | None]") -> Iterator[Item]:
    while (item := waiting.get()) is not None:
        yield item()
