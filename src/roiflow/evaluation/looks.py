"""The one who looks at a trial while it runs: serving.arms hands on what was served, hour by hour.

At each look the evidence is the week's own (estimators.delta), on what is known by then: a young
click counts with what its category brings. The interval is always valid (experiment.boundaries), so
that looks cost nothing. A loss that it shows stops the trial, a gain that it shows ends the
champion's arm; all else is the week's decision to tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.artefacts.evaluation import TrialEstimate
from roiflow.artefacts.trial import Look, Phase
from roiflow.data.schemas import CONVERSIONS, IMPRESSIONS
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.evaluation.estimators.delta import ArmsOnLog, evidence
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import LoggedWeek, TargetOnLog, in_order, target_on_log
from roiflow.evaluation.trial import half_width, planned_looks, roi_check
from roiflow.features.plan import context
from roiflow.features.table import Flags, Floats, Ints, Longs
from roiflow.labels.delays import hours_between
from roiflow.labels.model import Labels
from roiflow.labels.settled import AsOf, Settled, settle_at
from roiflow.labels.worth import CATEGORY
from roiflow.params import CanaryParams, EvaluateParams
from roiflow.serving.arms import Seen, Weighed
from roiflow.serving.recommender import Models
from roiflow.simulator.tables import request_ids

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Looking:
    """What looks go by."""

    week: Week
    labels: Labels
    params: CanaryParams
    limits: EvaluateParams
    cost_weight: float
    """Lambda."""

    def watch(self, champion: Models | None, challenger: Models) -> "Looks":
        """Of two arms; without a champion the logging policy is the other one."""
        return Looks(champion, challenger, self)


@dataclass(frozen=True)
class _Batch:
    """Slates (B,) that were served together; what came of them is not in them yet."""

    request: pa.Array  # (B,) ids
    segments: Ints  # (B, len(CONTEXT)) as the challenger indexes them
    event_time: Longs  # (B,)
    share: Floats  # (B,)
    slates: Slates
    champion: TargetOnLog | None
    challenger: TargetOnLog


class Looks:
    """See serving.arms.Watch."""

    def __init__(self, champion: Models | None, challenger: Models, looking: Looking) -> None:
        """`champion` is None where the logging policy serves."""
        self._champion, self._challenger, self._by = champion, challenger, looking
        self._batches: list[_Batch] = []
        self._tables: list[Tables] = []
        self._looks: list[Look] = []
        self._due = self._times()
        self._over = False

    @property
    def looks(self) -> Sequence[Look]:
        """Those taken so far."""
        return self._looks

    def awaits(self, now: int) -> bool:
        """Whether a look is to come after `now`, microseconds."""
        return not self._over and any(at > now for at in self._due)

    def see(self, seen: Seen) -> None:
        """What was just served."""
        requests, vocabulary = seen.requests, self._challenger.vocabulary
        slates = _slates(seen, first=sum(len(one.request) for one in self._batches))
        around = context(
            vocabulary.index("placement", pa.array(requests.placement.tolist(), pa.string())),
            vocabulary.index("device", pa.array(requests.device.tolist(), pa.string())),
            requests.event_time,
        )
        self._batches.append(
            _Batch(
                request_ids(self._by.week, requests.number, 1),
                around,
                requests.event_time,
                seen.share,
                slates,
                self._target(self._champion, seen.stable, slates) if seen.stable else None,
                self._target(self._challenger, seen.challenger, slates),
            )
        )

    def observe(self, tables: Tables) -> None:
        """What has just become known, of both arms."""
        if not self._over:
            self._tables.append({name: tables[name] for name in ("impressions", "conversions")})

    def look(self, now: int) -> Phase | None:
        """At a full hour: the share from now on where the looks have shown enough, or None."""
        # Nobody asks in an hour without a request: a look is then taken in the next one.
        due = [at for at in self._due if at <= now]
        if self._over or not due or not self._batches:
            return None
        self._due = self._due[len(due) :]
        found = self._evidence(now)
        if found is None:
            return None
        self._looks.append(look_of(found, now, self._looks, self._by.params))
        phase = verdict(self._looks[-1], found, self._by.params)
        self._over = phase is not None
        return phase

    def _times(self) -> list[int]:
        params, start = self._by.params, self._by.week.start
        return [start + hour * MICROS_PER_HOUR for hour in planned_looks(params)]

    def _target(self, models: Models | None, weighed: Weighed, slates: Slates) -> TargetOnLog:
        assert models is not None  # whoever weighs has models
        limits, sets = self._by.limits, weighed.sets
        # The kind of an ad is MIPS's alone, which is no estimator of a trial.
        kind = np.zeros(1 + max(int(sets.ad.max()), int(slates.ad.max())), np.int32)
        return target_on_log(
            slates,
            sets,
            weighed.logits,
            models.about.cost_shares,
            LoggedWeek.served(self._by.labels.examination, kind),
            limits.draws,
            np.random.default_rng([limits.seed, int(slates.row[0])]),
        )

    def _evidence(self, now: int) -> TrialEstimate | None:
        """What is known of the trial; None where an arm has too few users to tell."""
        whole, by = _joined(self._batches), self._by
        slates, rows = _outcomes(whole, self._tables, self._challenger, by.labels, now)
        arms = ArmsOnLog(
            slates.take(rows),
            whole.share[rows],
            slates.canary[rows],
            whole.champion and whole.champion.take(rows),
            whole.challenger.take(rows),
        )
        each = [np.unique(arms.slates.user[mine]).size for mine in (arms.canary, ~arms.canary)]
        if min(each) < by.params.min_users:
            return None
        return evidence(arms, by.limits, by.cost_weight)


def look_of(found: TrialEstimate, now: int, before: Sequence[Look], params: CanaryParams) -> Look:
    """What evidence says at a look that follows others."""
    delta, champion = found.delta, found.champion.value.value
    half = half_width(found, before, params)
    low, high = delta.value - half, delta.value + half
    return Look(now, found.requests, delta.value, delta.error, low, high, champion)


def verdict(look: Look, found: TrialEstimate, params: CanaryParams) -> Phase | None:
    """Stop where a loss over the harm bound is shown, promote where a gain is, else go on."""
    if min(found.champion.users, found.challenger.users) < params.min_users:
        return None
    scale = abs(look.champion) or 1.0
    said = f"{look.delta / scale:+.1%} ({look.low / scale:+.1%} to {look.high / scale:+.1%})"
    if look.high < -params.harm * scale:
        return Phase(look.at, 0.0, f"stopped: {said} after {look.requests} requests")
    # What the week's decision would not pass, a look does not either: a challenger that has
    # everybody and is not promoted would have to go again. A loss is shown by any log.
    sound = not found.findings and roi_check(found.roi_lift, params).verdict == "pass"
    if look.low > 0 and look.error > 0 and sound:
        return Phase(look.at, 1.0, f"promoted: {said} after {look.requests} requests")
    return None


def _slates(seen: Seen, first: int) -> Slates:
    """What was shown, before anything came of it."""
    shape, nothing = seen.ad.shape, np.zeros(seen.ad.shape)
    return Slates(
        row=first + np.arange(shape[0], dtype=np.int64),
        user=(seen.requests.user_index + 1).astype(np.int32),  # 0 stands for whom nobody knows
        ad=seen.ad,
        position=np.broadcast_to(np.arange(1, shape[1] + 1, dtype=np.int32), shape),
        present=np.ones(shape, bool),
        clicked=np.zeros(shape, bool),
        revenue=nothing,
        cost=nothing,
        propensity=seen.propensity,
        expected=nothing,
        known=nothing,
        canary=seen.canary,
    )


def _joined(batches: Sequence[_Batch]) -> _Batch:
    def column(name: str) -> Any:
        return np.concatenate([getattr(one.slates, name) for one in batches])

    challengers = [one.challenger for one in batches]
    champions = [one.champion for one in batches if one.champion]
    slates = Slates(**{name: column(name) for name in vars(batches[0].slates)})
    return _Batch(
        pa.concat_arrays([one.request for one in batches]),
        np.concatenate([one.segments for one in batches]),
        np.concatenate([one.event_time for one in batches]),
        np.concatenate([one.share for one in batches]),
        slates,
        in_order(champions, slates.row) if champions else None,
        in_order(challengers, slates.row),
    )


def _outcomes(
    batch: _Batch, tables: Sequence[Tables], models: Models, labels: Labels, now: int
) -> tuple[Slates, Longs]:
    """The slates with what is known of them, and those (r,) of which every place is known."""
    shown = pa.concat_tables([IMPRESSIONS.empty_table(), *(one["impressions"] for one in tables)])
    sold = pa.concat_tables([CONVERSIONS.empty_table(), *(one["conversions"] for one in tables)])
    slates = batch.slates
    slate = pc.index_in(shown[c.REQUEST].combine_chunks(), value_set=batch.request)
    mine = pc.is_valid(slate)
    shown, slate = shown.filter(mine), pc.drop_null(slate).to_numpy()
    place = shown[c.POSITION].to_numpy() - 1
    clicked = pc.and_(
        shown[c.CLICKED],
        pc.fill_null(pc.less(shown[c.CLICK_KNOWN_TIME].cast(pa.int64()), now), True),
    )
    click = np.asarray(clicked.to_numpy(), np.bool_)
    settled = _settled(batch, shown, (slate, click), sold, models, labels, now)

    def spread(values: NDArray[T]) -> NDArray[T]:
        matrix: NDArray[T] = np.zeros(slates.ad.shape, values.dtype)
        matrix[slate, place] = values
        return matrix

    found = replace(
        slates,
        clicked=spread(click),
        revenue=spread(settled.revenue),
        cost=spread(shown[c.COST].to_numpy().astype(np.float64)),
        expected=spread(settled.expected),
        known=spread(settled.known),
    )
    whole = np.bincount(slate, minlength=slates.row.size) == slates.ad.shape[1]
    return found, np.flatnonzero(whole)


def _settled(
    batch: _Batch,
    shown: pa.Table,
    clicks: tuple[Longs, Flags],
    sold: pa.Table,
    models: Models,
    labels: Labels,
    now: int,
) -> Settled:
    """Of impressions (n,): what their clicks will have brought, as of now."""
    slate, clicked = clicks
    delays = labels.delays_at(now)
    ad = models.vocabulary.index("ad", shown[c.AD].combine_chunks())
    category = models.plan.attributes[ad, CATEGORY]
    segment = (
        batch.segments[slate, delays.segment] if delays.segment >= 0 else np.zeros_like(category)
    )
    age = hours_between(batch.event_time[slate], now)
    row = pc.index_in(
        sold[c.IMPRESSION].combine_chunks(), value_set=shown[c.IMPRESSION].combine_chunks()
    )
    of_trial = sold.filter(pc.is_valid(row))
    row = pc.drop_null(row).to_numpy()
    money = of_trial[c.REVENUE].to_numpy().astype(np.float64)
    times = of_trial[c.KNOWN_TIME].cast(pa.int64()).to_numpy()
    sale = money >= 0
    first = np.full(slate.size, np.iinfo(np.int64).max)
    np.minimum.at(first, row[sale], times[sale])
    gained, lost = (
        np.bincount(row[some], weights=np.abs(money[some]), minlength=slate.size).astype(np.float64)
        for some in (sale, ~sale)
    )
    return settle_at(
        labels,
        AsOf(
            ad,
            category,
            clicked,
            delays.sales.known(category, segment, age),
            (first < now).astype(np.float64),
            gained,
            lost,
            np.minimum(first, now),
        ),
        now,
    )
