"""The rules of the data contract: which rows of a table may not go on, and what would be right.

A rule marks the bad rows of one table; RULES lists each table's, most basic first. Keys of texts
stand for the texts wherever equal ones are looked for: 64 bits, whatever their length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data import ids
from roiflow.data.weeks import LATEST, MICROS_PER_DAY, Week
from roiflow.params import ValidateParams

Flags = NDArray[np.bool_]
Longs = NDArray[np.int64]

_SHOWN = 60
"""Characters of a value that an example shows."""


@dataclass(frozen=True)
class Scope:
    """What a row is held against."""

    bounds: ValidateParams
    week: Week
    as_of: int  # microseconds, UTC
    catalogue: pa.ChunkedArray  # ids of the ads of this week and of the one before
    first: bool  # of the window: the week before it is not there
    propensities_logged: bool  # anywhere in the window
    impressions: Longs  # keys of the clean impressions of the window so far, see text_keys
    impression_times: Longs  # their event_time, micros
    slots: Longs  # keys of their request and position
    slates: Longs  # keys of their request and ad


Marks = Callable[[pa.Table, Scope], Flags]


@dataclass(frozen=True)
class Rule:
    """What a row may not be."""

    reason: str
    right: str
    """What would be right; may name fields of the scope's `bounds` and its `week`."""
    marks: Marks
    columns: Sequence[str] = ()
    """What it looks at; none where it looks at every column, each by itself."""

    def expected(self, scope: Scope) -> str:
        """`right` with its numbers."""
        return self.right.format(**dict(scope.bounds), week=scope.week)

    def fault(self, row: pa.Table, scope: Scope) -> dict[str, str]:
        """The values of a row (a table of one) that broke the rule, by column."""
        # A rule of all columns is asked again of one at a time: the first that breaks it is named.
        names = [name for name in self.columns if name in row.column_names] or next(
            [name] for name in row.column_names if self.marks(row.select([name]), scope)[0]
        )
        return {name: shown(row[name][0]) for name in names}


def shown(value: pa.Scalar) -> str:
    """A value as a person reads it, whatever it is: bytes that are no text, a time of no year."""
    if not value.is_valid:
        return "null"
    try:
        found = value.as_py()
    except (OverflowError, ValueError, UnicodeDecodeError):
        kind = pa.int64() if pa.types.is_timestamp(value.type) else pa.binary()
        found = value.cast(kind).as_py()
    text = repr(found) if isinstance(found, str | bytes) else str(found)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def micros(column: pa.ChunkedArray) -> Longs:
    """Times (n,) in microseconds since the epoch, UTC."""
    return column.cast(pa.int64()).to_numpy()


def _negative(*names: str) -> Marks:
    def marks(rows: pa.Table, _: Scope) -> Flags:
        flags = np.zeros(rows.num_rows, bool)
        for name in _present(names, rows):
            flags |= pc.fill_null(pc.less(rows[name], 0), False).to_numpy()
        return flags

    return marks


def _over(*names: str) -> Marks:
    """Beyond the largest amount, on either side of 0."""

    def marks(rows: pa.Table, scope: Scope) -> Flags:
        flags = np.zeros(rows.num_rows, bool)
        most = scope.bounds.max_amount_micros
        for name in _present(names, rows):
            # Two comparisons and no abs: the least int64 has no positive twin.
            beyond = pc.or_(pc.greater(rows[name], most), pc.less(rows[name], -most))
            flags |= pc.fill_null(beyond, False).to_numpy()
        return flags

    return marks


def _no_money(rows: pa.Table, _: Scope) -> Flags:
    # 0 would be read as none by one and as nothing to spend by another.
    return pc.fill_null(pc.less_equal(rows[c.DAILY_BUDGET], 0), False).to_numpy()


def _ends_early(rows: pa.Table, _: Scope) -> Flags:
    return pc.fill_null(pc.less_equal(rows[c.ENDS_AT], rows[c.CREATED_AT]), False).to_numpy()


def _present(names: Sequence[str], rows: pa.Table) -> list[str]:
    # `fault` asks with one column alone.
    return [name for name in names if name in rows.column_names]


def _null(rows: pa.Table, _: Scope) -> Flags:
    flags = np.zeros(rows.num_rows, bool)
    for column in rows.schema:
        if not column.nullable and rows[column.name].null_count:
            flags |= rows[column.name].is_null().to_numpy()
    return flags


def _no_name(rows: pa.Table, _: Scope) -> Flags:
    flags = np.zeros(rows.num_rows, bool)
    for column in rows.schema:
        if pa.types.is_string(column.type):
            flags |= ids.no_names(rows[column.name], ids.longest(column.name))
    return flags


def _no_time(rows: pa.Table, _: Scope) -> Flags:
    flags = np.zeros(rows.num_rows, bool)
    for column in rows.schema:
        if pa.types.is_timestamp(column.type):
            # As whole numbers: a time of no year is not one that Python could compare. A null
            # passes as 0; where it may not be, an earlier rule has set it aside.
            time = micros(pc.fill_null(rows[column.name].cast(pa.int64()), 0))
            flags |= (time < 0) | (time >= LATEST)
    return flags


def _known_before_event(rows: pa.Table, _: Scope) -> Flags:
    return pc.less(rows[c.KNOWN_TIME], rows[c.EVENT_TIME]).to_numpy()


def _known_after_as_of(rows: pa.Table, scope: Scope) -> Flags:
    return micros(rows[c.KNOWN_TIME]) >= scope.as_of


def _outside_week(rows: pa.Table, scope: Scope) -> Flags:
    known = micros(rows[c.KNOWN_TIME])
    return (known < scope.week.start) | (known >= scope.week.end)


def _long_before(rows: pa.Table, scope: Scope) -> Flags:
    oldest = micros(rows[c.KNOWN_TIME]) - scope.bounds.max_event_age_days * MICROS_PER_DAY
    return micros(rows[c.EVENT_TIME]) < oldest


def _known_after_week(rows: pa.Table, scope: Scope) -> Flags:
    return micros(rows[c.KNOWN_TIME]) >= scope.week.end


def _bad_propensity(rows: pa.Table, _: Scope) -> Flags:
    value = pc.fill_null(rows[c.PROPENSITY], 1.0).to_numpy()
    # Asked the other way round: NaN is neither over 0 nor at most 1, and so bad.
    return ~((value > 0) & (value <= 1))


def _missing_propensity(rows: pa.Table, scope: Scope) -> Flags:
    if not scope.propensities_logged:
        return np.zeros(rows.num_rows, bool)
    return rows[c.PROPENSITY].is_null().to_numpy()


def _click_time_without_click(rows: pa.Table, _: Scope) -> Flags:
    unclicked = pc.fill_null(pc.invert(rows[c.CLICKED]), False)
    flags: Flags = pc.and_(rows[c.CLICK_KNOWN_TIME].is_valid(), unclicked).to_numpy()
    return flags


def _click_known_after_as_of(rows: pa.Table, scope: Scope) -> Flags:
    known = pc.fill_null(rows[c.CLICK_KNOWN_TIME].cast(pa.int64()), 0)
    return known.to_numpy() >= scope.as_of


def _large_slate(rows: pa.Table, scope: Scope) -> Flags:
    return rows[c.SLATE_SIZE].to_numpy() > scope.bounds.max_slate_size


def _bad_position(rows: pa.Table, _: Scope) -> Flags:
    position = rows[c.POSITION].to_numpy()
    return (position < 1) | (position > rows[c.SLATE_SIZE].to_numpy())


def _not_in_catalogue(rows: pa.Table, scope: Scope) -> Flags:
    missing = ~pc.is_in(rows[c.AD], value_set=scope.catalogue.combine_chunks()).to_numpy()
    if scope.first:  # what happened in the week before had a catalogue that is not there
        missing &= micros(rows[c.EVENT_TIME]) >= scope.week.start
    return missing


def text_keys(column: pa.ChunkedArray) -> Longs:
    """64-bit keys of strings of at most ids.MAX_BYTES, (n,); equal strings have equal keys.

    Multilinear hashing, sum of r_i (byte_i + 1) mod 2^64 with fixed random odd r_i (Carter &
    Wegman, 1979): among 10 million ids two would share a key with a probability of 3e-6.
    """
    # A fixed seed, because keys of different tables and weeks are compared with each other. A
    # factor for each byte is enough: longer texts left with `no name`, which comes first.
    factors = np.random.default_rng(0).integers(0, 2**63, ids.MAX_BYTES, np.uint64) * 2 + 1
    keys = [np.zeros(0, np.uint64)]
    for chunk in column.chunks:
        # In pieces: each byte of text becomes several words of eight on the way.
        for start in range(0, len(chunk), 65_536):
            part = chunk.slice(start, 65_536)
            offsets = np.frombuffer(part.buffers()[1], np.int32)[part.offset :][: len(part) + 1]
            offsets = offsets.astype(np.int64)
            length, ends = np.diff(offsets), offsets[1:] - offsets[0]
            text = np.frombuffer(part.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
            place = np.arange(text.size) - np.repeat(ends - length, length)
            terms = factors[place] * (text.astype(np.uint64) + 1)
            # One running sum over all texts of the piece; a text's own is a difference, right mod
            # 2^64 even where the sum has wrapped around.
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
            keys.append(sums[ends] - sums[ends - length])
    return np.concatenate(keys).view(np.int64)


def _later(earlier: Longs, keys: Longs, rows: pa.Table) -> Flags:
    """True where a key is among the earlier ones, or in a row known before or listed before."""
    # A sound table ends here, after one sort. Which of two equals came first is asked only where
    # there are any.
    ordered = np.sort(np.concatenate([earlier, keys]))
    if (ordered[1:] != ordered[:-1]).all():
        return np.zeros(keys.size, bool)
    known = np.argsort(micros(rows[c.KNOWN_TIME]), kind="stable")
    _, first = np.unique(keys[known], return_index=True)
    again = np.ones(keys.size, bool)
    again[known[first]] = False
    return again | np.isin(keys, earlier)


def slot_keys(rows: pa.Table) -> Longs:
    """Keys of (request, position): the request's key, moved by an odd multiple of position."""
    # It wraps around, which is meant: an odd factor moves no two positions alike.
    moved = rows[c.POSITION].to_numpy().astype(np.int64) * np.int64(0x1E3779B97F4A7C15)
    return text_keys(rows[c.REQUEST]) + moved


def shown_keys(rows: pa.Table) -> Longs:
    """Keys of (request, ad): the request's key, and an odd multiple of the ad's."""
    return text_keys(rows[c.REQUEST]) + text_keys(rows[c.AD]) * np.int64(0x3C6EF372FE94F82B)


def _duplicate_impression(rows: pa.Table, scope: Scope) -> Flags:
    return _later(scope.impressions, text_keys(rows[c.IMPRESSION]), rows)


def _duplicate_slot(rows: pa.Table, scope: Scope) -> Flags:
    return _later(scope.slots, slot_keys(rows), rows)


def _shown_before(rows: pa.Table, scope: Scope) -> Flags:
    return _later(scope.slates, shown_keys(rows), rows)


def _duplicate(name: str) -> Marks:
    def marks(rows: pa.Table, _: Scope) -> Flags:
        return _later(np.zeros(0, np.int64), text_keys(rows[name]), rows)

    return marks


def impression_time(rows: pa.Table, scope: Scope) -> tuple[Flags, Longs]:
    """(has an impression in the window, its event_time or 0), per conversion."""
    wanted, place = np.unique(text_keys(rows[c.IMPRESSION]), return_inverse=True)
    # The few conversions are the table that is searched, the many impressions pass by.
    match = pc.index_in(pa.array(scope.impressions), value_set=pa.array(wanted))
    seen = match.is_valid().to_numpy(zero_copy_only=False)
    of = pc.drop_null(match).to_numpy()
    found, times = np.zeros(wanted.size, bool), np.zeros(wanted.size, np.int64)
    found[of], times[of] = True, scope.impression_times[seen]
    return found[place], times[place]


def _twice(rows: pa.Table, _: Scope) -> Flags:
    """The same conversion again: it has no id of its own, but the microsecond tells it apart."""
    values = [text_keys(rows[c.IMPRESSION]), micros(rows[c.EVENT_TIME])]
    values.append(rows[c.REVENUE].to_numpy())
    # A stable sort makes equal rows neighbours in the file's order: the first of them stays.
    order = np.lexsort(values)
    again = np.zeros(rows.num_rows, bool)
    same = [value[order][1:] == value[order][:-1] for value in values]
    again[order[1:]] = np.logical_and.reduce(same)
    return again


def _before_impression(rows: pa.Table, scope: Scope) -> Flags:
    found, times = impression_time(rows, scope)
    return found & (micros(rows[c.EVENT_TIME]) < times)


_WHEN = (c.EVENT_TIME, c.KNOWN_TIME)
_AMOUNT, _OF = "{max_amount_micros:,}", " micros, validate.max_amount_micros of params.yaml"
_MONEY = f"0 to {_AMOUNT}{_OF}"
_CATALOGUE = "an ad_id of the table ads of {week} or of the week before: whole weekly snapshots"

_EVERY = [
    Rule("null", "a value", _null),
    Rule("no name", f"a text of {ids.right()}", _no_name),
    Rule("time outside 1970 to 2100", "a time between, or a null where there is none", _no_time),
    Rule(
        "known_time before event_time",
        "known_time, when it reached you, not before event_time, when it happened",
        _known_before_event,
        _WHEN,
    ),
    Rule(
        "known after as_of",
        "known_time before the end of the last week that is pulled",
        _known_after_as_of,
        [c.KNOWN_TIME],
    ),
]
_OF_EVENTS = [
    Rule("known outside its week", "known_time in {week}, UTC", _outside_week, [c.KNOWN_TIME]),
    Rule(
        "event long before it was known",
        "event_time at most {max_event_age_days} days before known_time, "
        "validate.max_event_age_days of params.yaml",
        _long_before,
        _WHEN,
    ),
]
_OF_SNAPSHOTS = [
    Rule(
        "known after its week",
        "known_time before the end of {week}, UTC",
        _known_after_week,
        [c.KNOWN_TIME],
    )
]


def _no_duplicate(name: str) -> Rule:
    return Rule(f"duplicate {name}", f"each {name} once a week", _duplicate(name), [name])


def _amounts(reason: str, *names: str) -> list[Rule]:
    return [
        Rule(f"negative {reason}", _MONEY, _negative(*names)),
        Rule(f"{reason} over max_amount_micros", _MONEY, _over(*names)),
    ]


RULES: dict[str, list[Rule]] = {
    "ads": [
        *_EVERY,
        *_OF_SNAPSHOTS,
        Rule("negative price or bid", _MONEY, _negative(c.PRICE, c.BID)),
        Rule(
            "daily budget of 0 or below",
            f"over 0, at most {_AMOUNT}, or null for none: an ad that may spend nothing has ended",
            _no_money,
            [c.DAILY_BUDGET],
        ),
        Rule(
            "price, bid or budget over max_amount_micros",
            _MONEY,
            _over(c.PRICE, c.BID, c.DAILY_BUDGET),
        ),
        Rule(
            "ends before it begins",
            "ends_at after created_at, or null where it does not end in {week}",
            _ends_early,
            [c.CREATED_AT, c.ENDS_AT],
        ),
        _no_duplicate(c.AD),
    ],
    "users": [*_EVERY, *_OF_SNAPSHOTS, _no_duplicate(c.USER)],
    "impressions": [
        *_EVERY,
        *_OF_EVENTS,
        *_amounts("bid or cost", c.BID, c.COST),
        Rule(
            "propensity outside (0, 1]",
            "over 0 and at most 1: the probability of this ad given those above it",
            _bad_propensity,
            [c.PROPENSITY],
        ),
        Rule(
            "propensity missing where others are logged",
            "a propensity in every row, or in none",
            _missing_propensity,
            [c.PROPENSITY],
        ),
        Rule(
            "click_known_time without a click",
            "null where clicked is false",
            _click_time_without_click,
            [c.CLICK_KNOWN_TIME],
        ),
        Rule(
            "click known after as_of",
            "before the end of the last week that is pulled",
            _click_known_after_as_of,
            [c.CLICK_KNOWN_TIME],
        ),
        Rule(
            "slate_size over max_slate_size",
            "at most {max_slate_size}, validate.max_slate_size of params.yaml",
            _large_slate,
            [c.SLATE_SIZE],
        ),
        Rule(
            "position outside 1 to slate_size",
            "1 for the top of the slate, slate_size for its end",
            _bad_position,
            [c.POSITION, c.SLATE_SIZE],
        ),
        Rule("ad not in the catalogue", _CATALOGUE, _not_in_catalogue, [c.AD]),
        Rule(
            "duplicate impression_id",
            "each impression_id once",
            _duplicate_impression,
            [c.IMPRESSION],
        ),
        Rule(
            "duplicate request_id and position",
            "one ad at a position of a slate",
            _duplicate_slot,
            [c.REQUEST, c.POSITION],
        ),
        Rule(
            "ad again in its slate",
            "each ad once in a slate, whose impressions share a request_id",
            _shown_before,
            [c.REQUEST, c.AD],
        ),
    ],
    "behaviours": [
        *_EVERY,
        *_OF_EVENTS,
        Rule("negative dwell", "milliseconds, 0 or more", _negative(c.DWELL_MS), [c.DWELL_MS]),
    ],
    "conversions": [
        *_EVERY,
        *_OF_EVENTS,
        Rule("revenue over max_amount_micros", f"-{_AMOUNT} to {_AMOUNT}{_OF}", _over(c.REVENUE)),
        Rule(
            "conversion before its impression",
            "event_time not before that of its impression",
            _before_impression,
            [c.IMPRESSION, c.EVENT_TIME],
        ),
        Rule(
            "duplicate conversion",
            "each conversion once: two at one microsecond with one revenue are the same",
            _twice,
            [c.IMPRESSION, c.EVENT_TIME],
        ),
    ],
}
"""Revenue may be negative: a return arrives as a conversion of its own."""
