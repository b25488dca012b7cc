import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from roiflow.features.history import history_slices, sort_rows
from roiflow.features.table import Longs

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)), max_size=60)


def arrays(rows: list[tuple[int, int, int]]) -> tuple[Longs, Longs, Longs]:
    group, one, other = np.array(rows, np.int64).reshape(-1, 3).T
    return group, one, other


@settings(deadline=None)  # the first call may compile
@given(ROWS)
def test_sort_rows_is_the_stable_sort_by_group_and_keys(rows: list[tuple[int, int, int]]) -> None:
    group, one, other = arrays(rows)
    order, offsets = sort_rows(group.astype(np.int32), 5, one, other)
    assert_array_equal(order, sorted(range(len(rows)), key=rows.__getitem__))
    assert_array_equal(np.diff(offsets), np.bincount(group, minlength=5))


@settings(deadline=None)
@given(ROWS, st.integers(1, 4))
def test_slices_are_the_last_known_events(rows: list[tuple[int, int, int]], length: int) -> None:
    user, known, time = arrays(rows)
    order, offsets = sort_rows(user.astype(np.int32), 5, known)
    asked, _ = sort_rows(user.astype(np.int32), 5, time)
    start, end = history_slices(
        user[asked].astype(np.int32), time[asked], offsets, known[order], length
    )
    for row, (first, last) in enumerate(zip(start, end, strict=True)):
        who, when = user[asked[row]], time[asked[row]]
        past = [at for at in range(offsets[who], offsets[who + 1]) if known[order][at] < when]
        assert list(range(first, last)) == past[-length:]
        assert last == offsets[who] + len(past)


def test_slices_of_queries_in_any_order() -> None:
    offsets, known = np.array([0, 0, 3]), np.array([1, 2, 3])
    start, end = history_slices(
        np.array([1, 1, 1], np.int32), np.array([3, 2, 9]), offsets, known, 2
    )
    assert start.tolist() == [0, 0, 1]
    assert end.tolist() == [2, 1, 3]
