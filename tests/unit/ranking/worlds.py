"""Small hand-made feature tables whose truth is known."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from roiflow.data.split import TEST, TRAIN, VALIDATION
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features.table import (
    CONTEXT,
    Catalogue,
    Events,
    Features,
    Floats,
    Impressions,
    LaterLabels,
    Longs,
    Outcomes,
    Requests,
    Singles,
    Statistics,
)
from roiflow.labels.examination import Examination
from roiflow.labels.model import Labels
from roiflow.labels.worth import Delays
from roiflow.params import (
    BoostingParams,
    CalibrationParams,
    CandidatesParams,
    LogisticParams,
    LossWeights,
    RankerParams,
    XgboostParams,
)

CALIBRATION = CalibrationParams(
    segments=6, events_per_segment=40, prior_events=50.0, min_slope=0.05, smoothness=5.0
)
PARAMS = RankerParams(
    seed=3,
    dim=8,
    layers=2,
    heads=2,
    bins=4,
    epochs=6,
    patience=3,
    batch_tokens=512,
    max_impressions_per_user_batch=64,
    learning_rate=0.01,
    id_learning_rate=0.003,
    weight_decay=1e-5,
    warm_up=0.1,
    averaging=0.997,
    max_gradient=1.0,
    dropout=0.0,
    loss_weights=LossWeights(click=1.0, conversion=1.0, revenue=0.01),
    calibration=CALIBRATION,
)
BOOSTING = BoostingParams(max_depth=3, learning_rate=0.2, min_child_weight=5.0, l2=1.0)
CANDIDATES = CandidatesParams(
    kind="logistic",
    top_k=3,
    max_codes=64,
    seed=1,
    logistic=LogisticParams(
        normalisation="z_score", click_l2=1.0, conversion_l2=1.0, max_iterations=200, tolerance=1e-3
    ),
    xgboost=XgboostParams(
        rounds=60,
        max_bin=256,
        rows_in_memory=10**6,
        early_stopping_rounds=5,
        click=BOOSTING,
        conversion=BOOSTING,
    ),
    calibration=CALIBRATION,
)
ADS, CATEGORIES, ACTIONS, PLACEMENTS, DEVICES = 12, 4, 4, 3, 3
EXAMINATION = Examination(np.array([1.0, 0.6, 0.4]))


@dataclass(frozen=True)
class World:
    """Features and the probabilities they were drawn from."""

    features: Features
    click_logit: Floats  # (n,) at position 1
    click: Floats  # (n,) at the logged position
    conversion: Floats  # (n,) given a click
    mean_revenue: Floats  # (n,) units of the currency, given a conversion

    @property
    def labels(self) -> Labels:
        """What is planted of positions, and conversions that are known within the hour."""
        return labels_of(self.features)


def labels_of(features: Features) -> Labels:
    """As learnt before the test week, with the planted examination."""
    until = features.known_until[TRAIN]
    delays = Delays.learn(features, until, segment=-1, prior=1.0, longest_hours=200)
    return Labels(EXAMINATION, (delays,), 0.5)


def sigmoid(x: NDArray[np.floating]) -> Floats:
    return 1 / (1 + np.exp(-x))


def entropy(p: Floats) -> float:
    """Mean log loss of the truth itself."""
    return float(-np.mean(p * np.log(p) + (1 - p) * np.log(1 - p)))


def build(
    *,
    users: int = 40,
    per_user: int = 30,
    behaviours: int = 30,
    history_length: int = 8,
    history_effect: float = 0.0,
    seed: int = 0,
) -> World:
    """Users with events and impressions at random hours of 28 days.

    logit P(click) = -1.2 + 0.9 dense_0 + ad effect + position effect + history_effect x affinity,
    where affinity sums, over the last H known events of the candidate's category,
    importance[action] x exp(-hours / 48): action 3 counts, action 1 does not.
    """
    rng = np.random.default_rng(seed)
    horizon = 28 * 24 * MICROS_PER_HOUR
    people = users + 1
    counts = rng.integers(0, 2 * behaviours + 1, users)
    counts[0] = 0
    offsets = np.concatenate([[0, 0], np.cumsum(counts)]).astype(np.int64)
    total = int(offsets[-1])
    owner = np.repeat(np.arange(1, people), counts)
    event_time = rng.integers(0, horizon, total)
    known_time = event_time + rng.integers(0, 2 * MICROS_PER_HOUR, total)
    order = np.lexsort((event_time, known_time, owner))
    event_time, known_time = event_time[order], known_time[order]
    event_ad = rng.integers(1, ADS, total).astype(np.int32)
    attributes = np.column_stack(
        [np.arange(ADS) % size for size in (3, 2, CATEGORIES, 2, 2)]
    ).astype(np.int32)
    attributes[0] = 0
    event_category = attributes[event_ad, 2]
    action = rng.integers(1, ACTIONS, total).astype(np.int32)
    events = Events(offsets, event_ad, event_category, action, event_time, known_time)

    n = users * per_user
    user = np.repeat(np.arange(1, people), per_user).astype(np.int32)
    time = np.sort(rng.integers(0, horizon, (users, per_user)), axis=1).ravel()
    end = np.array(
        [
            offsets[u] + np.searchsorted(known_time[offsets[u] : offsets[u + 1]], t)
            for u, t in zip(user, time, strict=True)
        ],
        np.int64,
    )
    begin = np.maximum(offsets[user], end - history_length)
    ad = rng.integers(1, ADS, n).astype(np.int32)
    position = rng.integers(1, 4, n).astype(np.int32)
    normal = rng.normal(size=(n, 3))
    dense: Singles = (normal * [1, 2, 30] + [0, 5, -7]).astype(np.float32)
    affinity = np.zeros(n)
    for i in range(n):
        seen = slice(begin[i], end[i])
        hours = (time[i] - event_time[seen]) / MICROS_PER_HOUR
        same = event_category[seen] == attributes[ad[i], 2]
        affinity[i] = np.sum(same * (action[seen] == 3) * np.exp(-hours / 48))
    effect = rng.normal(size=ADS) * 0.5
    logit = -1.2 + 0.9 * dense[:, 0] + effect[ad]
    logit = logit + history_effect * affinity
    click = sigmoid(logit) * EXAMINATION.at(position)
    conversion = sigmoid(-1.0 + 0.5 * (ad % 3))
    clicked = rng.random(n) < click
    converted = clicked & (rng.random(n) < conversion)
    log_mean = 1.0 + 0.3 * (ad % 2)
    revenue = np.where(converted, np.exp(log_mean + 0.4 * rng.normal(size=n)) * 1e6, 0)
    split = np.full(n, TRAIN, np.uint8)
    split[time > 0.6 * horizon] = VALIDATION
    split[time > 0.8 * horizon] = TEST
    impressions = Impressions(
        request=np.arange(n),
        user=user,
        ad=ad,
        event_time=time,
        history_start=begin,
        history_end=end,
        context=np.column_stack(
            [
                rng.integers(0, PLACEMENTS, n),
                rng.integers(0, DEVICES, n),
                time // MICROS_PER_HOUR % 24,
                time // (24 * MICROS_PER_HOUR) % 7,
            ]
        ).astype(np.int32),
        dense=dense,
        position=position,
        slate_size=np.full(n, 3, np.int32),
        bid=np.full(n, 1_000_000),
        cost=np.where(clicked, 500_000, 0),
        revenue=revenue.astype(np.int64),
        clicked=clicked,
        converted=converted,
        propensity=np.full(n, 1 / ADS),
        canary=np.zeros(n, np.bool_),
        split=split,
    )
    train = dense[split == TRAIN]
    features = Features(
        sizes={
            "user": people,
            "ad": ADS,
            "action": ACTIONS,
            **dict(zip(CONTEXT, (PLACEMENTS, DEVICES, 24, 7), strict=True)),
            "campaign": 3,
            "advertiser": 2,
            "category": CATEGORIES,
            "brand": 2,
            "ad_type": 2,
            "profile:age": 5,
        },
        dense_names=("quality", "noise", "wide"),
        profile_names=("age",),
        history_length=history_length,
        events=events,
        impressions=impressions,
        outcomes=known_at_once(impressions),
        later_labels=LaterLabels(
            np.empty(0, np.int64), np.empty(0, bool), np.empty(0, bool), np.empty(0, np.int64)
        ),
        validation_start=int(0.6 * horizon) + 1,
        known_until=(int(0.8 * horizon) + 1, int(0.8 * horizon) + 1, horizon, 0),
        profile=rng.integers(0, 5, (people, 1)).astype(np.int32),
        attributes=attributes,
        catalogues=(
            Catalogue.all_week(
                "2026-W04",
                np.arange(1, ADS, dtype=np.int32),
                np.full(ADS - 1, 2_000_000),
                np.full(ADS - 1, 1_000_000),
            ),
        ),
        statistics=Statistics(train.mean(0), train.std(0), train.min(0), np.ptp(train, axis=0)),
    )
    return World(features, logit, click, conversion, np.exp(log_mean + 0.08))


def known_at_once(log: Impressions) -> Outcomes:
    """Conversions without delay."""
    row = np.flatnonzero(log.converted)
    return Outcomes(row, log.event_time[row], log.revenue[row])


def requests_of(features: Features, rows: Longs, candidates: int = 5, seed: int = 1) -> Requests:
    """The logged impressions as requests: candidate 0 is the logged ad, the last one is absent."""
    rng = np.random.default_rng(seed)
    log = features.impressions
    ad = rng.integers(1, ADS, (rows.size, candidates)).astype(np.int32)
    ad[:, 0] = log.ad[rows]
    ad[:, -1] = -1
    dense = rng.normal(size=(*ad.shape, log.dense.shape[1])).astype(np.float32)
    dense[:, 0] = log.dense[rows]
    return Requests(
        log.request[rows],
        log.user[rows],
        log.event_time[rows],
        log.history_start[rows],
        log.history_end[rows],
        log.context[rows],
        ad,
        np.full(ad.shape, 2_000_000),
        np.full(ad.shape, 1_000_000),
        dense,
    )


def permuted(requests: Requests, order: Longs) -> Requests:
    """The candidates of every request in another order."""
    return replace(
        requests,
        ad=requests.ad[:, order],
        price=requests.price[:, order],
        bid=requests.bid[:, order],
        dense=requests.dense[:, order],
    )
