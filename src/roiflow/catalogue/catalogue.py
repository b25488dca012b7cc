"""The catalogue as of a time: a value that an update makes another one of."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.catalogue.eligibility import UNLIMITED, Longs, Terms
from roiflow.catalogue.updates import CHANGE, END, ENDS_AT, TEXTS, UPDATE, UPDATES, UPSERT, standing
from roiflow.catalogue.updates import faults as faults_of
from roiflow.data.events import complete
from roiflow.data.schemas import ADS, TIME
from roiflow.data.weeks import Week
from roiflow.errors import CatalogueError

NEVER = np.iinfo(np.int64).max
"""The end of an ad that has none."""


@dataclass(frozen=True)
class Catalogue:
    """Ads (A,) in order of their ids, and the changes that made them what they are."""

    updates: pa.Table
    """Rows of UPDATES of which each still says something, in one order."""
    known_time: int
    """The newest change that was taken in, microseconds; -1 before the first."""
    ad_id: pa.StringArray
    texts: dict[str, pa.StringArray]
    """By name of TEXTS."""
    price: Longs  # micros
    bid: Longs  # micros
    budget: Longs  # micros a day; UNLIMITED
    start: Longs  # microseconds, UTC
    end: Longs  # NEVER

    @classmethod
    def of(cls, updates: pa.Table) -> "Catalogue":
        """What changes of the catalogue come to, in any order and however often they are there.

        What is said of an ad that no `upsert` has described yet waits for it. Raises
        CatalogueError, naming the ad and the value, where a row is none.
        """
        _refuse(updates)
        return cls.of_sound(updates)

    @classmethod
    def of_sound(cls, updates: pa.Table) -> "Catalogue":
        """As `of`, where no row needs to be looked at again."""
        rows, last = standing(updates)
        there = last["ad"] >= 0
        at = {thing: place[there] for thing, place in last.items()}

        def column(thing: str, name: str) -> pa.Array:
            return _array(rows[name]).take(pa.array(at[thing]))

        def longs(thing: str, name: str, missing: int) -> Longs:
            return np.asarray(pc.fill_null(column(thing, name).cast(pa.int64()), missing))

        happened = longs("ad", c.EVENT_TIME, 0)
        created = longs("ad", c.CREATED_AT, -1)
        return cls(
            updates=rows,
            known_time=_newest(rows),
            ad_id=column("ad", c.AD),
            texts={name: column("ad", name) for name in TEXTS},
            price=longs("price", c.PRICE, 0),
            bid=longs("bid", c.BID, 0),
            budget=longs("budget", c.DAILY_BUDGET, UNLIMITED),
            start=np.where(created >= 0, created, happened),
            end=_ends(rows, at["end"]),
        )

    @classmethod
    def empty(cls) -> "Catalogue":
        """Before the first change."""
        return cls.of(UPDATES.empty_table())

    @classmethod
    def of_ads(cls, ads: pa.Table) -> "Catalogue":
        """A valid snapshot of the data contract's `ads`."""
        return cls.of_sound(upserts(ads))

    def changed(self, updates: pa.Table) -> "Catalogue":
        """With further changes.

        Raises CatalogueError, naming the value, where a row is no change, or where nothing that can
        be shown now or later would be left: then this one stays.
        """
        _refuse(updates)
        after = Catalogue.of_sound(pa.concat_tables([self.updates, updates.cast(UPDATES)]))
        # By when the changes happened and not by a clock: the same changes give the same answer
        # whenever they are looked at.
        at = _newest(updates, c.EVENT_TIME)
        if self.left(at) and not after.left(at):
            ended = ", ".join(sorted(set(updates[c.AD].to_pylist()))[:3])
            raise CatalogueError(
                f"catalogue: {updates.num_rows} changes (of {ended}) would leave none of "
                f"{self.left(at)} ads: the catalogue stays as it is"
            )
        return after

    def left(self, at: int) -> int:
        """How many have not ended at a time."""
        return int(np.count_nonzero(self.end > at))

    @property
    def size(self) -> int:
        """How many there are, with those that have ended."""
        return len(self.ad_id)

    @cached_property
    def terms(self) -> Terms:
        """What `eligible` asks for."""
        return Terms(self.start, self.end, self.budget)

    def ads(self, at: int) -> pa.Table:
        """The data contract's `ads` at a time: those that have not ended."""
        here = np.flatnonzero(self.end > at)
        rows = pa.array(here)
        moment = pa.array(np.full(here.size, at)).cast(TIME)
        budget, end = self.budget[here], self.end[here]
        values = {
            c.EVENT_TIME: moment,
            c.KNOWN_TIME: moment,
            c.AD: self.ad_id.take(rows),
            **{name: texts.take(rows) for name, texts in self.texts.items()},
            c.PRICE: self.price[here],
            c.BID: self.bid[here],
            c.DAILY_BUDGET: pa.array(budget, mask=budget == UNLIMITED),
            c.CREATED_AT: pa.array(self.start[here]).cast(TIME),
            ENDS_AT: pa.array(end, mask=end == NEVER).cast(TIME),
        }
        return pa.table([values[name] for name in ADS.names], schema=ADS)


def with_changes(ads: pa.Table, changes: pa.Table, week: Week) -> pa.Table:
    """A week's `ads`: a snapshot of them and what is known of their changes at the week's end.

    An ad that came in the week is known when it began, and one that ended in it has its end.
    """
    if not changes.num_rows:
        return ads
    whole = Catalogue.of_sound(pa.concat_tables([upserts(ads), changes.cast(UPDATES)]))
    rows = whole.ads(week.start)
    start = np.asarray(rows[c.CREATED_AT].cast(pa.int64()))
    here = rows.filter(pa.array(start < week.end))
    moment = pa.array(np.maximum(start[start < week.end], week.start)).cast(TIME)
    for name in (c.EVENT_TIME, c.KNOWN_TIME):
        here = here.set_column(here.schema.get_field_index(name), ADS.field(name), moment)
    return here.sort_by([(c.KNOWN_TIME, "ascending"), (c.AD, "ascending")])


def succession(catalogue: Catalogue, ads: pa.Table, at: int) -> pa.Table:
    """The changes that make the snapshot `ads` of a catalogue: what is not in it ends at `at`.

    An empty snapshot changes nothing.
    """
    gone = catalogue.ad_id.filter(pc.invert(pc.is_in(catalogue.ad_id, value_set=_array(ads[c.AD]))))
    gone = gone if ads.num_rows else gone[:0]
    size, moment = len(gone), pa.scalar(at, pa.int64()).cast(TIME)
    ends = {
        CHANGE: pa.repeat(END, size),
        UPDATE: pc.binary_join_element_wise("ads", gone, ":"),
        c.AD: gone,
        c.EVENT_TIME: pa.repeat(moment, size),
        c.KNOWN_TIME: pa.repeat(moment, size),
    }
    return pa.concat_tables([upserts(ads), complete(pa.table(ends), UPDATES)])


def _refuse(updates: pa.Table) -> None:
    for _, fault in faults_of(updates):
        raise CatalogueError(f"catalogue: {fault}")


def upserts(ads: pa.Table) -> pa.Table:
    """The data contract's `ads` as changes, one an ad."""
    size = ads.num_rows
    of = {
        CHANGE: pa.repeat(UPSERT, size),
        UPDATE: pc.binary_join_element_wise("ads", ads[c.AD], ":"),
    }
    values = {name: of[name] if name in of else ads[name] for name in UPDATES.names}
    # A source's snapshot may say 0 for none.
    budget = ads[c.DAILY_BUDGET]
    values[c.DAILY_BUDGET] = pc.if_else(pc.greater(budget, 0), budget, pa.scalar(None, pa.int64()))
    return pa.table(values).cast(UPDATES)


def known(updates: pa.Table) -> Longs:
    """When each change became known (n,), microseconds."""
    return np.asarray(updates[c.KNOWN_TIME].cast(pa.int64()))


def _ends(rows: pa.Table, at: NDArray[np.int64]) -> Longs:
    taken = rows.select([CHANGE, c.EVENT_TIME, ENDS_AT]).take(pa.array(at))
    said = np.asarray(pc.fill_null(taken[ENDS_AT].cast(pa.int64()), -1))
    happened = np.asarray(taken[c.EVENT_TIME].cast(pa.int64()))
    without = np.where(np.asarray(pc.equal(taken[CHANGE], UPSERT)), NEVER, happened)
    return np.where(said >= 0, said, without)


def _newest(rows: pa.Table, name: str = c.KNOWN_TIME) -> int:
    newest = pc.max(rows[name].cast(pa.int64())).as_py()
    return -1 if newest is None else int(newest)


def _array(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)
