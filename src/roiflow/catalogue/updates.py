"""Changes of the catalogue as rows, and which of them still say something.

A row says all of an ad (`upsert`) or one thing of it. Of the rows that say the same thing of the
same ad the last by event_time, known_time and id counts, however they arrive: late, twice or in
any order. So what stands is a set of rows, and two sets are merged by taking the last ones of both:
last-writer-wins registers (Shapiro et al., 2011, A comprehensive study of CRDTs), one a thing.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data import schemas

CHANGE, UPDATE, ENDS_AT = c.CHANGE, c.CHANGE_ID, c.ENDS_AT
UPSERT, END, PRICE, BID, BUDGET = CHANGES = ("upsert", "end", "price", "bid", "budget")

TEXTS = (c.CAMPAIGN, c.ADVERTISER, c.CATEGORY, c.BRAND, c.AD_TYPE)

UPDATES = schemas.CHANGES
"""An `upsert` begins at `created_at`, or when it happened; an `end` ends at `ends_at`, or likewise.
"""

THINGS: dict[str, tuple[str, ...]] = {
    "ad": (UPSERT,),
    "price": (UPSERT, PRICE),
    "bid": (UPSERT, BID),
    "budget": (UPSERT, BUDGET),
    "end": (UPSERT, END),
}
"""What is said of an ad, and by which changes."""

# All columns decide in the end: rows that share an id and differ are still taken in one order.
_ORDER = [c.AD, c.EVENT_TIME, c.KNOWN_TIME, UPDATE]
_SORT = [(name, "ascending") for name in dict.fromkeys([*_ORDER, *UPDATES.names])]


def faults(updates: pa.Table) -> Iterator[tuple[int, str]]:
    """Rows that are no change of a catalogue, each with what is wrong and the value."""
    for row, one in enumerate(updates.to_pylist()):
        fault = fault_of(one)
        if fault:
            yield row, f"ad {one[c.AD]!r}: {fault}"


def fault_of(one: dict[str, object]) -> str:
    """What is wrong with a row of UPDATES; empty where nothing is."""
    change = one.get(CHANGE)
    if change not in CHANGES:
        return f"change {change!r}, expected {', '.join(CHANGES)}"
    for name in TEXTS if change == UPSERT else ():
        if not one.get(name):
            return f"no {name}"
    money = {UPSERT: (c.PRICE, c.BID), PRICE: (c.PRICE,), BID: (c.BID,)}
    for name in money.get(str(change), ()):
        value = one.get(name)
        if not isinstance(value, int) or value < 0:
            return f"{name} {value!r}, expected 0 or more micros"
    budget = one.get(c.DAILY_BUDGET)
    if budget is not None and (not isinstance(budget, int) or budget <= 0):
        # 0 would be read as none by one and as nothing to spend by another.
        return (
            f"{c.DAILY_BUDGET} {budget!r}: leave it out for none, end the ad for nothing to spend"
        )
    return ""


def standing(updates: pa.Table) -> tuple[pa.Table, dict[str, NDArray[np.int64]]]:
    """The rows that say something nothing later says, and for each thing its row of each ad (A,).

    In order of the ads' ids; ads without an `upsert` among them have -1 under "ad". Whatever the
    order of `updates` and however often a row is there, the answer is the same.
    """
    rows = updates.select(UPDATES.names).cast(UPDATES).sort_by(_SORT).combine_chunks()
    ids = rows[c.AD].combine_chunks()
    ids = ids if isinstance(ids, pa.Array) else pa.concat_arrays(ids.chunks)
    code = pc.rank(ids, tiebreaker="dense").to_numpy().astype(np.int64) - 1
    ads = int(code[-1]) + 1 if code.size else 0
    last = {thing: _last(rows, code, ads, changes) for thing, changes in THINGS.items()}
    # One place more than there are rows: -1 marks that one.
    says = np.zeros(rows.num_rows + 1, np.bool_)
    for found in last.values():
        says[found] = True
    kept = np.flatnonzero(says[:-1])
    place = np.full(rows.num_rows + 1, -1, np.int64)
    place[kept] = np.arange(kept.size)
    return rows.take(pa.array(kept)), {thing: place[found] for thing, found in last.items()}


def _last(
    rows: pa.Table, code: NDArray[np.int64], ads: int, changes: tuple[str, ...]
) -> NDArray[np.int64]:
    """The last row of each ad (A,) that is one of some changes; -1 without one."""
    found = np.full(ads, -1, np.int64)
    said = pc.is_in(rows[CHANGE], value_set=pa.array(changes)).combine_chunks()
    at = np.flatnonzero(np.asarray(said))
    # Rows are in order within each ad: of several assignments to one place the last one stays.
    found[code[at]] = at
    return found
