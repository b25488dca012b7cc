"""Logs whose looks and delays are planted, larger than any that a simulation makes in time."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import numpy as np

from roiflow.data.split import TEST, Boundaries, split
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features.table import (
    Features,
    Flags,
    Floats,
    Impressions,
    LaterLabels,
    Longs,
    Outcomes,
    Statistics,
)

WEEK = 7 * MICROS_PER_DAY
EXPONENT = 0.7
PLANTED = np.arange(1, 4) ** -EXPONENT


@dataclass(frozen=True)
class Shown:
    """Slates of three, by a Plackett-Luce policy that puts on top what will be clicked."""

    features: Features
    clicked: Flags  # (B, 3)
    propensity: Floats  # (B, 3)

    @property
    def rows(self) -> Longs:
        return np.arange(self.clicked.size)


def shown(slates: int, *, hidden: float = 0.0, seed: int = 3) -> Shown:
    """Of ten candidates each; `hidden` log odds of a click are what no feature tells of an ad."""
    rng = np.random.default_rng(seed)
    size = slates, 10
    seen, unseen = rng.normal(size=(2, *size))
    ad = np.argsort(rng.random((slates, 30)), axis=1)[:, :10].astype(np.int32)
    odds = 0.8 * seen + rng.normal(size=30)[ad] * 0.5 + hidden * unseen
    score = odds / 0.7
    top = np.argsort(-(score + rng.gumbel(size=size)), axis=1)[:, :3]
    chance, left = np.exp(score), np.exp(score).sum(axis=1)
    propensity = np.empty((slates, 3))
    for slot in range(3):
        own = np.take_along_axis(chance, top[:, [slot]], axis=1)[:, 0]
        propensity[:, slot], left = own / left, left - own
    worth = 1 / (1 + np.exp(0.7 - np.take_along_axis(odds, top, axis=1)))
    clicked = rng.random((slates, 3)) < PLANTED * worth
    log = SimpleNamespace(
        dense=np.take_along_axis(seen, top, axis=1).reshape(-1, 1).astype(np.float32),
        ad=np.take_along_axis(ad, top, axis=1).ravel(),
        position=np.tile(np.arange(1, 4, dtype=np.int32), slates),
        slate_size=np.full(3 * slates, 3, np.int32),
        request=np.repeat(np.arange(slates), 3),
        clicked=clicked.ravel(),
        propensity=propensity.ravel(),
    )
    one = np.ones(1, np.float32)
    features = SimpleNamespace(
        impressions=log, sizes={"ad": 30}, statistics=Statistics(0 * one, one, 0 * one, one)
    )
    return Shown(cast("Features", features), clicked, propensity)


@dataclass(frozen=True)
class Brought:
    """Clicks of four weeks with labels as production has them, and what they bring in the end."""

    features: Features
    category: Longs  # (n,)
    converts: Flags  # (n,) in the end
    revenue: Floats  # (n,) micros in the end, returns taken off


def brought(clicks: int, categories: int = 12, seed: int = 5) -> Brought:
    """Mean delays of 2 to 20 h, cut at 6 days; 5 % are returned within 5 days, known by the hour.

    Slow categories convert more often and at higher prices: undervaluing them shows.
    """
    rng = np.random.default_rng(seed)
    end = 4 * WEEK
    time = np.sort((rng.random(clicks) * end).astype(np.int64))
    ad = rng.integers(0, categories, clicks).astype(np.int32)
    slowness = np.linspace(0, 1, categories)
    mean = 2.0 * 10.0**slowness
    converts = rng.random(clicks) < (0.15 + 0.2 * slowness)[ad]
    uniform = rng.random(clicks)
    hours = -mean[ad] * np.log1p(uniform * np.expm1(-144 / mean[ad]))
    price = np.exp(0.4 * rng.normal(size=clicks)) * (1 + slowness[ad]) * 1e7
    sold = _next_hour(time + (hours * MICROS_PER_HOUR).astype(np.int64))
    returned = converts & (rng.random(clicks) < 0.05)
    back = _next_hour(sold + (rng.random(clicks) * 5 * MICROS_PER_DAY).astype(np.int64))
    money = np.rint(price).astype(np.int64)
    row = np.r_[np.flatnonzero(converts), np.flatnonzero(returned)]
    known = np.r_[sold[converts], back[returned]]
    amount = np.r_[money[converts], -money[returned]]
    here = known < end
    order = np.lexsort((known[here], row[here]))
    outcomes = Outcomes(row[here][order], known[here][order], amount[here][order])
    features = _labelled(time, ad, categories, outcomes, end)
    return Brought(
        features, ad.astype(np.int64), converts, np.where(converts & ~returned, money, 0.0)
    )


def _next_hour(time: Longs) -> Longs:
    return -(-(time + 1) // MICROS_PER_HOUR) * MICROS_PER_HOUR


def _labelled(
    time: Longs, ad: np.ndarray, categories: int, outcomes: Outcomes, end: int
) -> Features:
    rows, test = time.size, end - WEEK
    validation = test - 2 * MICROS_PER_DAY
    zeros = np.zeros(rows, np.int32)
    parts = split(time, Boundaries(0, validation, test))

    def labels(usable: Flags) -> tuple[Flags, Longs]:
        converted = np.zeros(rows, np.bool_)
        converted[outcomes.row[usable]] = True
        weights = outcomes.revenue[usable]
        return converted, np.bincount(outcomes.row[usable], weights, rows).astype(np.int64)

    converted, revenue = labels((outcomes.known_time < test) | (parts[outcomes.row] == TEST))
    ended, money = labels(np.ones(outcomes.row.size, np.bool_))
    changed = np.flatnonzero((converted != ended) | (revenue != money))
    log = Impressions(
        request=np.arange(rows),
        user=zeros,
        ad=ad,
        event_time=time,
        history_start=np.zeros(rows, np.int64),
        history_end=np.zeros(rows, np.int64),
        context=np.zeros((rows, 4), np.int32),
        dense=np.zeros((rows, 1), np.float32),
        position=zeros + np.int32(1),
        slate_size=zeros + np.int32(1),
        bid=np.zeros(rows, np.int64),
        cost=np.zeros(rows, np.int64),
        revenue=revenue,
        clicked=np.ones(rows, np.bool_),
        converted=converted,
        propensity=np.full(rows, np.nan),
        canary=np.zeros(rows, np.bool_),
        split=parts,
    )
    attributes = np.zeros((categories, 5), np.int32)
    attributes[:, 2] = np.arange(categories)
    one = np.ones(1, np.float32)
    return Features(
        sizes={"category": categories, "ad": categories, "placement": 1, "device": 1},
        dense_names=("none",),
        profile_names=(),
        history_length=1,
        events=cast("Features", None),  # type: ignore[arg-type]
        impressions=log,
        outcomes=outcomes,
        later_labels=LaterLabels(changed, log.clicked[changed], ended[changed], money[changed]),
        validation_start=validation,
        known_until=(test, test, end, test),
        profile=np.zeros((1, 0), np.int32),
        attributes=attributes,
        catalogues=(),
        statistics=Statistics(0 * one, one, 0 * one, one),
    )
