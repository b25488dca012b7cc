"""Faults of values: indices of another vocabulary, rates or scales of other statistics."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features.plan import Plan
from roiflow.features.spec import RATES, VALUE
from roiflow.features.table import Flags, Floats, Longs, Singles
from roiflow.parity.fault_case import CLOSE, ENOUGH, STATISTICS, VOCABULARY, Case, Explanation
from roiflow.parity.replay import as_served, engine, given, stored


def vocabulary(case: Case) -> Iterator[Explanation]:
    """Served indices of users, ads, categories and actions are a function of the expected ones."""
    served, expected = case.different.served, case.different.expected
    if not case.different.rows.size:
        return
    # Another vocabulary gives every index its image: the one that stands most often beside it. It
    # explains a slate whose every index is the image of what it should be; times, which no
    # vocabulary changes, must be equal as they are.
    rows, moved = np.ones(case.different.rows.size, np.bool_), []
    rows &= (served.history_time == expected.history_time).all(axis=1)
    for kind, name in (
        ("user", "user"),
        ("ad", "history_ad"),
        ("category", "history_category"),
        ("action", "history_action"),
    ):
        one, other = (getattr(part, name).reshape(rows.size, -1) for part in (expected, served))
        there = (
            np.broadcast_to(expected.history_action > 0, one.shape) if kind != "user" else one > 0
        )
        image = _image(one[there], other[there])
        rows &= (np.where(there, image[one], other) == other).all(axis=1)
        changed = np.flatnonzero((image >= 0) & (image != np.arange(image.size)))
        if changed.size:
            moved.append((kind, changed, image[changed] - changed))
    if moved:
        yield Explanation(VOCABULARY, float(rows.mean()), "; ".join(_moved(*one) for one in moved))


def _image(one: NDArray[Any], other: NDArray[Any]) -> Longs:
    """For each index of `one` the index that `other` most often has beside it; -1 for none."""
    image = np.full(int(one.max(initial=0)) + 1, -1, np.int64)
    pairs, counts = np.unique(np.column_stack([one, other]), axis=0, return_counts=True)
    for at in np.argsort(counts, kind="stable"):
        image[pairs[at, 0]] = pairs[at, 1]
    return image


def _moved(kind: str, changed: Longs, by: Longs) -> str:
    if (by == by[0]).all():
        return f"{changed.size:,} indices of kind {kind} are off by {by[0]:+d}"
    return f"{changed.size:,} indices of kind {kind} stand for others"


def statistics(case: Case) -> Iterator[Explanation]:
    """Rates smoothed with other priors, or values scaled with other statistics."""
    if not case.different.rows.size:
        return
    plan = _other_priors(case)
    if plan is not None:
        found = _dense(case, plan).astype(np.float32)
        size = (
            f"prior strength {plan.prior_strength:.4g}, ctr {plan.ctr:.4g}, cvr {plan.cvr:.4g}, "
            f"value {plan.value:.4g}"
        )
        yield Explanation(STATISTICS, _close(found, case.different.served.dense), size)
    yield from _scaled(case, np.zeros(case.different.rows.size, np.int64), "")
    hour = case.different.slates.event_time // MICROS_PER_HOUR
    yield from _scaled(case, hour, " of each hour's batch")


def _close(found: Singles, served: Singles) -> float:
    """The share of slates whose every value is the served one, nearly."""
    near = np.abs(found - served) <= CLOSE * (1 + np.abs(served))
    return float(near.all(axis=(1, 2)).mean())


def _other_priors(case: Case) -> Plan | None:
    """The plan with the priors that served rates show; None where they are its own.

    A rate v = (c + s m) / (n + s) of known counts is linear in s and s m: v n - c = s m - s v.
    """
    plan, unit = case.setting.plan, max(case.setting.plan.value, 1.0)
    # Features under two priors, 0 and 1, give for each value its count and the weight of its prior
    # without looking into the counters: the features are linear in the prior.
    low, high = (_dense(case, replace(plan, ctr=at, cvr=at, value=unit * at)) for at in (0.0, 1.0))
    served = case.different.served.dense.astype(np.float64)
    parts = []
    for number, name in enumerate((*RATES, VALUE)):
        columns = [at for at, spec in enumerate(plan.specs) if spec.aggregate == name]
        none, one, rate = (_rates(part[:, :, columns], name, unit) for part in (low, high, served))
        weight = one - none  # s / (n + s)
        # Where the prior weighs next to nothing a value says nothing of it.
        there = (weight > 0.02) & (case.different.slates.ad >= 0)[:, :, None]
        total = plan.prior_strength / weight[there]  # n + s
        count, rate = none[there] * total, rate[there]
        left = np.zeros((rate.size, 4))
        # One unknown for each rate's s m and one for s, which all rates share; divided by n + s, so
        # that an ad with many tries does not count for more than its error says.
        left[:, number], left[:, 3] = 1.0, -rate
        right = rate * (total - plan.prior_strength) - count
        parts.append((left / total[:, None], right / total))
    left, right = (np.concatenate(each) for each in zip(*parts, strict=True))
    known = np.abs(left).sum(axis=0) > 0
    solved = np.zeros(4)
    solved[known] = np.linalg.lstsq(left[:, known], right, rcond=None)[0]
    strength = float(solved[3])
    if not strength > 0:
        return None
    means = [float(one) / strength for one in solved[:3]]
    own = (plan.prior_strength, plan.ctr, plan.cvr, plan.value / unit)
    found = (strength, *(m if k else o for m, k, o in zip(means, known, own[1:], strict=False)))
    if np.allclose(found, own, rtol=10 * CLOSE, atol=CLOSE):
        return None
    ctr, cvr, value = found[1:]
    return replace(plan, prior_strength=strength, ctr=ctr, cvr=cvr, value=unit * value)


def _dense(case: Case, plan: Plan) -> Floats:
    """Dense features of the sampled slates under another plan."""
    setting, slates = replace(case.setting, plan=plan), case.different.slates
    events = stored(case.content.events, setting)
    inputs = given(setting, engine(setting, case.content), events, slates, as_served(slates))
    return inputs.dense.astype(np.float64)


def _rates(dense: Floats, name: str, unit: float) -> Floats:
    """Features as rates; those of value are logarithms of units of the currency."""
    return np.expm1(dense) * 1e6 / unit if name == VALUE else dense


def _scaled(case: Case, batch: Longs, of: str) -> Iterator[Explanation]:
    """Each dense feature of a batch is a straight line of what it should be."""
    served = case.different.served.dense.astype(np.float64)
    expected = case.different.expected.dense.astype(np.float64)
    slots = case.different.slates.ad >= 0
    good, lines = np.zeros(batch.size, np.bool_), 0
    for one in np.unique(batch):
        rows = np.flatnonzero(batch == one)
        there = slots[rows]
        x, y = expected[rows][there], served[rows][there]
        line, fits = _lines(x, y)
        lines += line
        inside = np.zeros(slots[rows].shape, np.bool_)
        inside[there] = fits
        good[rows] = (inside | ~there).all(axis=1)
    if lines:
        size = f"{lines:,} features scaled by other statistics{of}"
        yield Explanation(STATISTICS, float(good.mean()), size)


def _lines(x: Floats, y: Floats) -> tuple[int, Flags]:
    """(n, F) twice -> how many columns lie on a line other than y = x, and which rows lie on all.

    A column of fewer than 4 different values must have one value for each of them.
    """
    fits, lines = np.ones(x.shape[0], np.bool_), 0
    for column in range(x.shape[1]):
        one, other = x[:, column], y[:, column]
        near = np.abs(one - other) <= CLOSE * (1 + np.abs(other))
        spread = np.unique(one).size
        # A line through fewer points fits whatever they are.
        if not near.all() and spread >= 4:
            slope, shift = np.polyfit(one, other, 1)
            near = np.abs(slope * one + shift - other) <= 10 * CLOSE * (1 + np.abs(other))
            lines += bool(near.mean() >= ENOUGH)
        elif not near.all():
            for value in np.unique(one):
                same = one == value
                near[same] = np.ptp(other[same]) <= CLOSE * (1 + np.abs(other[same]))
        fits &= near
    return lines, fits
