"""Rows of one user side by side: counting sort by user, then merge sort inside each user.

Data arrives in time order, so most users' rows are in order already and cost one comparison each.
"""

import numpy as np
from numpy.typing import NDArray

from roiflow.compiled import compiled
from roiflow.features.table import Ints, Longs


@compiled()
def _less(keys: NDArray[np.int64], one: int, other: int) -> bool:
    for level in range(keys.shape[0]):
        if keys[level, one] != keys[level, other]:
            return bool(keys[level, one] < keys[level, other])
    return False


@compiled()
def _merge_sort(order: Longs, spare: Longs, start: int, end: int, keys: NDArray[np.int64]) -> None:
    width = 1
    while width < end - start:
        for left in range(start, end, 2 * width):
            middle, right = min(left + width, end), min(left + 2 * width, end)
            i, j = left, middle
            for target in range(left, right):
                # From the left unless the right one is truly less: equal rows keep their order.
                if i < middle and (j >= right or not _less(keys, order[j], order[i])):
                    spare[target] = order[i]
                    i += 1
                else:
                    spare[target] = order[j]
                    j += 1
        for at in range(start, end):  # a slice would compile the words of an error of shapes
            order[at] = spare[at]
        width *= 2


# A counting sort by user and a look whether each user's rows are in order, which they are but for
# late ones, instead of a sort of all rows by all keys: linear, and one comparison a row.


@compiled()
def _sort(group: Ints, groups: int, keys: NDArray[np.int64]) -> tuple[Longs, Longs]:
    offsets = np.zeros(groups + 1, np.int64)
    for row in range(group.size):
        offsets[group[row] + 1] += 1
    for number in range(groups):
        offsets[number + 1] += offsets[number]
    place = offsets[:-1].copy()
    order = np.empty(group.size, np.int64)
    for row in range(group.size):
        order[place[group[row]]] = row
        place[group[row]] += 1
    spare = np.empty(group.size, np.int64)
    for number in range(groups):
        start, end = offsets[number], offsets[number + 1]
        for at in range(start + 1, end):
            if _less(keys, order[at], order[at - 1]):
                _merge_sort(order, spare, start, end, keys)
                break
    return order, offsets


def sort_rows(group: Ints, groups: int, *keys: Longs | Ints) -> tuple[Longs, Longs]:
    """Stable order of rows by group, then by each key; (n,) -> order (n,), offsets (groups + 1,).

    `group` is in [0, groups); group g holds rows order[offsets[g]:offsets[g + 1]].
    """
    return _sort(group, groups, np.stack([np.asarray(key, np.int64) for key in keys]))


@compiled()
def _slices(
    user: Ints, time: Longs, offsets: Longs, known_time: Longs, length: int
) -> tuple[Longs, Longs]:
    start, end = np.empty(user.size, np.int64), np.empty(user.size, np.int64)
    # One pointer moves on with the queries' times; it goes back where a query is earlier.
    at, previous = 0, -1
    for row in range(user.size):
        if user[row] != previous or time[row] < time[row - 1]:
            previous = user[row]
            at = offsets[previous]
        while at < offsets[previous + 1] and known_time[at] < time[row]:
            at += 1
        end[row] = at
        start[row] = max(offsets[previous], at - length)
    return start, end


def history_slices(
    user: Ints, time: Longs, offsets: Longs, known_time: Longs, length: int
) -> tuple[Longs, Longs]:
    """First and one past the last of the `length` newest events known before `time`; (n,), (n,).

    The events of user u are rows offsets[u] to offsets[u + 1], ordered by known_time. Fast where
    the n queries are ordered by user, then time.
    """
    return _slices(user, time, offsets, known_time, length)
