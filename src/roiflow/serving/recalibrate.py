"""A package's recalibration from the slates that it served, whoever kept them.

It is kept beside the package, as <lake>/<source>/recalibrations/<first 12 of digest>/<since>.json:
what replays a slate finds the one that was in force.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data.events import ADS, FEATURES, P_CLICK, P_CONVERSION, RECALIBRATION
from roiflow.data.schemas import CONVERSIONS, IMPRESSIONS
from roiflow.data.served_features import SERVED
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.errors import ArtefactError
from roiflow.features.plan import context
from roiflow.features.table import AD_ATTRIBUTES, Flags, Floats, Ints, Longs
from roiflow.files import write_file
from roiflow.labels.delays import hours_between
from roiflow.labels.model import Labels
from roiflow.params import RecalibrateParams
from roiflow.ranking import recalibration
from roiflow.ranking.recalibration import (
    IDENTITY,
    Learned,
    Observed,
    Recalibration,
    Recalibrations,
    fit,
    given_click,
)
from roiflow.serving.recommender import Models

CATEGORY = AD_ATTRIBUTES.index("category")


def folder_of(lake: Path, source: str, digest: str) -> Path:
    """Where a package's recalibrations lie."""
    return lake / source / "recalibrations" / digest[:12]


def keep(lake: Path, source: str, one: Recalibration) -> None:
    """Atomically; the same one twice changes nothing."""
    with write_file(folder_of(lake, source, one.package) / f"{one.since}.json") as path:
        path.write_text(json.dumps(one.content(), indent=1) + "\n")


def kept(lake: Path, source: str, digest: str, before: int | None = None) -> Recalibrations:
    """All that a package has, or those in force before a time in microseconds.

    Raises ArtefactError, naming the file, where one is not as it was written.
    """
    paths = folder_of(lake, source, digest).glob("*.json")
    found = Recalibrations.of(tuple(_read(path, digest) for path in paths))
    return Recalibrations(tuple(one for one in found.each if before is None or one.since < before))


def _read(path: Path, digest: str) -> Recalibration:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ArtefactError(f"{path}: not JSON: {error}") from None
    found = Recalibration.of(content, str(path))
    if found.package != digest:
        raise ArtefactError(f"{path}: is of package {found.package}, not of {digest}")
    return found


def forget(lake: Path, source: str, digest: str, since: int) -> None:
    """Those from a time on, microseconds: the week is served again."""
    for path in folder_of(lake, source, digest).glob("*.json"):
        if int(path.stem) >= since:
            path.unlink()


@dataclass(frozen=True)
class Known:
    """What is known of a package's slates: rows of SERVED, IMPRESSIONS and CONVERSIONS."""

    served: pa.Table
    impressions: pa.Table
    conversions: pa.Table

    def joined(self, served: list[pa.Table], tables: list[Tables]) -> "Known":
        """With more rows of each."""
        return Known(
            pa.concat_tables([self.served, *served]),
            pa.concat_tables([self.impressions, *(one["impressions"] for one in tables)]),
            pa.concat_tables([self.conversions, *(one["conversions"] for one in tables)]),
        )


NOTHING = Known(SERVED.empty_table(), IMPRESSIONS.empty_table(), CONVERSIONS.empty_table())


def in_share(users: list[str], share: float) -> Flags:
    """Which users (n,) are of a share of all: the same ones wherever it is asked."""
    # Not the hash that tells arms apart (deployment.edge): a share of each arm is wanted.
    limit = share * 2**32
    return np.array([zlib.crc32(b"recalibrate:" + user.encode()) < limit for user in users], bool)


@dataclass(frozen=True)
class _Shown:
    """Ads of slates, as rows: what the package alone expected of each; n rows."""

    place: pa.Array
    """request:position, which tells an impression whatever its id is made of."""
    user: NDArray[Any]
    event_time: Longs
    position: Ints
    category: Ints
    segments: Ints  # (n, len(CONTEXT))
    click: Floats
    conversion: Floats  # given the click

    @classmethod
    def of(cls, slates: pa.Table, models: Models) -> "_Shown":
        """Raises ArtefactError on slates of a recalibration that is not one of the package's."""
        slates = slates.combine_chunks()
        ads = _chunk(slates[ADS])
        size = np.diff(ads.offsets.to_numpy())
        slate = np.repeat(np.arange(size.size), size)
        position = np.arange(slate.size) - np.repeat(np.cumsum(size) - size, size) + 1
        name = ads.flatten()
        click, conversion = (
            _chunk(slates[column]).flatten().to_numpy(zero_copy_only=False).astype(np.float64)
            for column in (P_CLICK, P_CONVERSION)
        )
        click, given = _own(slates[RECALIBRATION].to_pylist(), slate, click, conversion, models)
        vocabulary = models.vocabulary
        time = slates[c.EVENT_TIME].cast(pa.int64()).to_numpy()
        around = context(
            vocabulary.index("placement", slates[c.PLACEMENT]),
            vocabulary.index("device", slates[c.DEVICE]),
            time,
        )
        return cls(
            _place(slates[c.REQUEST].take(pa.array(slate)), pa.array(position)),
            slates[c.USER].to_numpy()[slate],
            time[slate],
            position.astype(np.int32),
            models.plan.attributes[vocabulary.index("ad", name), CATEGORY],
            around[slate],
            click,
            given,
        ).take(np.flatnonzero(_flags(pc.not_equal(name, "")) & ~np.isnan(given)))

    def take(self, rows: Longs) -> "_Shown":
        """Some of the rows."""
        rest = {name: values[rows] for name, values in vars(self).items() if name != "place"}
        return _Shown(self.place.take(pa.array(rows)), **rest)


def _place(request: pa.ChunkedArray, position: pa.Array | pa.ChunkedArray) -> pa.Array:
    return _chunk(pc.binary_join_element_wise(request, position.cast(pa.string()), ":"))


def _chunk(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _own(
    digests: list[str | None], slate: Longs, click: Floats, conversion: Floats, models: Models
) -> tuple[Floats, Floats]:
    """What the package said before its recalibration: P(click), P(conversion | click), (n,).

    The second is NaN where a service that is older than the column told none.
    """
    each = {one.digest: one for one in models.recalibrations.each}
    click, given = click.copy(), given_click(click, conversion)
    number = {name: at for at, name in enumerate(dict.fromkeys(digests))}
    which = np.array([number[name] for name in digests], np.int64)[slate]
    for name, at in number.items():
        if name is None:
            continue
        if name not in each:
            raise ArtefactError(f"slates were made with recalibration {name}, which is not kept")
        rows = which == at
        click[rows] = each[name].click.undo(click[rows])
        given[rows] = each[name].conversion.undo(given[rows])
    return click, given


def learn(
    models: Models,
    digest: str,
    known: Known,
    labels: Labels,
    until: int,
    params: RecalibrateParams,
) -> Recalibration | None:
    """The package's recalibration from `until` on, microseconds, of what was known before it.

    None where there are fewer clicks than params.yaml wants. Raises ArtefactError on slates that
    were made with a recalibration which is not one of the models'.
    """
    start = until - params.window_hours * MICROS_PER_HOUR
    slates = known.served.filter(
        pc.and_(
            pc.equal(known.served[c.POLICY_VERSION], digest[:12]),
            _between(known.served[c.EVENT_TIME], start, until),
        )
    )
    chosen = in_share(slates[c.USER].to_pylist(), params.user_share)
    # Without a user's features a slate is another model's, as it were.
    chosen &= pc.is_valid(slates[FEATURES]).to_numpy()
    shown = _Shown.of(slates.filter(pa.array(chosen)), models)
    # An impression has its slate's time: the others are most of two weeks, and their names long.
    rows = known.impressions.filter(
        pc.and_(
            _between(known.impressions[c.KNOWN_TIME], 0, until),
            _between(known.impressions[c.EVENT_TIME], start, until),
        )
    )
    at = pc.index_in(shown.place, value_set=_place(rows[c.REQUEST], rows[c.POSITION]))
    here = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False))
    shown, at = shown.take(here), pc.drop_null(at)
    later = rows[c.CLICK_KNOWN_TIME].cast(pa.int64()).take(at)
    in_time = pc.fill_null(pc.less(later, until), True)
    clicked = _flags(pc.and_(rows[c.CLICKED].take(at), in_time))
    if int(clicked.sum()) < params.min_clicks:
        return None
    sold = known.conversions.filter(_between(known.conversions[c.KNOWN_TIME], 0, until))
    converted = _flags(pc.is_in(rows[c.IMPRESSION].take(at), value_set=_chunk(sold[c.IMPRESSION])))
    click = Observed(shown.click, clicked, labels.examined(shown.position).astype(np.float64))
    bought = shown.take(np.flatnonzero(clicked))
    matured = _matured(bought, labels, until)
    conversion = Observed(bought.conversion, converted[clicked], matured)
    return Recalibration(
        digest,
        until,
        fit(click, params),
        fit(conversion, params) if matured.any() else IDENTITY,
        Learned(
            int(shown.event_time.min()),
            until,
            int(np.unique(shown.user).size),
            int(clicked.size),
            int(clicked.sum()),
            int(conversion.happened.sum()),
            float(matured.mean()),
        ),
    )


def _between(column: pa.ChunkedArray, start: int, end: int) -> pa.ChunkedArray:
    time = column.cast(pa.int64())
    return pc.and_(pc.greater_equal(time, start), pc.less(time, end))


def _flags(values: pa.Array | pa.ChunkedArray) -> Flags:
    array = values if isinstance(values, pa.Array) else _chunk(values)
    flags: Flags = array.to_numpy(zero_copy_only=False).astype(np.bool_)
    return flags


def _matured(shown: _Shown, labels: Labels, until: int) -> Floats:
    """P(a conversion of each click would be known by now) (n,)."""
    delays = labels.delays_at(until)
    segment = (
        shown.segments[:, delays.segment] if delays.segment >= 0 else np.zeros_like(shown.category)
    )
    age = hours_between(shown.event_time, until)
    return delays.sales.known(shown.category, segment, age)


class Recalibrator:
    """Recalibrates a package while it serves: often at first, then `later_hours` apart."""

    def __init__(
        self,
        models: Models,
        digest: str,
        labels: Labels,
        params: RecalibrateParams,
        before: Known = NOTHING,
    ) -> None:
        """`before` is what is known of slates that the package itself served earlier."""
        self.fitted: list[Recalibration] = []
        self._models, self._digest, self._labels = models, digest, labels
        self._params, self._known = params, before
        self._served: list[pa.Table] = []
        self._tables: list[Tables] = []
        since = [one.since for one in models.recalibrations.each]
        self._first = _first_hour(before.served)
        self._last: int | None = since[-1] if since else self._first

    def serve(self, served: pa.Table) -> None:
        """Slates that were just made; rows of SERVED."""
        if self._first is None:
            self._first = _first_hour(served)
        if self._last is None:
            self._last = self._first
        self._served.append(served)

    def observe(self, tables: Tables) -> None:
        """Impressions and conversions that have just become known."""
        self._tables.append(tables)

    def renew(self, now: int) -> None:
        """At a full hour, microseconds: put a new one in force where it is time."""
        if self._first is None or self._last is None:
            return
        # By the last time and not by now: the day that ends it is fitted on as well.
        young = self._last - self._first < self._params.young_hours * MICROS_PER_HOUR
        hours = self._params.hours if young else self._params.later_hours
        if now - self._last < hours * MICROS_PER_HOUR:
            return
        self._known = self._known.joined(self._served, self._tables)
        self._served, self._tables = [], []
        found = learn(self._models, self._digest, self._known, self._labels, now, self._params)
        # Too few clicks: an hour later there may be enough.
        if found is not None:
            self._last = now
            self.fitted.append(found)
            each = (*self._models.recalibrations.each, found)
            self._models.recalibrations = recalibration.Recalibrations(each)


def _first_hour(served: pa.Table) -> int | None:
    """The full hour before the first of some slates."""
    first = pc.min(served[c.EVENT_TIME].cast(pa.int64())).as_py()
    return None if first is None else int(first) // MICROS_PER_HOUR * MICROS_PER_HOUR
