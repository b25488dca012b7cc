from collections.abc import Iterator
from threading import get_ident

import pytest

from roiflow.offline.ahead import ahead


def test_items_come_in_order_from_another_thread() -> None:
    def made() -> Iterator[tuple[int, int]]:
        for number in range(50):
            yield number, get_ident()

    with ahead(made()) as items:
        found = list(items)
    assert [number for number, _ in found] == list(range(50))
    assert get_ident() not in {thread for _, thread in found}


def test_an_error_is_raised_where_the_items_are_used() -> None:
    def made() -> Iterator[int]:
        yield 1
        raise ValueError("row 2 is broken")

    with ahead(made()) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="row 2 is broken"):
            next(items)


def test_what_is_not_wanted_any_more_is_not_made() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    with ahead(endless()) as items:
        assert next(items) == 0
    assert len(made) < 10
