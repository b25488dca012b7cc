"""How much less a lower position is looked at: P(looked at k) / P(looked at 1).

A click at position k is as likely as at position 1 times a factor of k (examination hypothesis;
Richardson, Dominowska & Ragno, 2007). The factor multiplies the click's probability, in training,
evaluation and serving alike, and is left out where an ad's own worth is asked for.

Two estimates that share nothing but the log. `regression` fits clicks by what is known of user, ad
and position at once; it uses every row and leans on the model of the first two. `swaps` leans on no
model: a Plackett-Luce policy logs what tells how likely the same slate was with two positions
exchanged, so that chance shows the same two ads both ways (after Wang et al., 2018, who exchange
them on purpose).
"""

from dataclasses import dataclass

import numpy as np

from roiflow.features.table import Features, Flags, Floats, Ints, Longs, Singles

CLIP = 5.0
"""Of normalised features: one outlier must not outweigh all else."""


@dataclass(frozen=True)
class Examination:
    """Factors by position, of which the first is 1."""

    factor: Floats  # (positions,) of position 1, 2, ...

    def at(self, position: Ints) -> Singles:
        """Factors in the shape of `position`, 1-based; beyond the last known one it is that."""
        place = np.clip(position, 1, self.factor.size) - 1
        return self.factor[place].astype(np.float32)


@dataclass(frozen=True)
class Swapped:
    """Factors by position and their standard errors; NaN where chance never exchanged two ads."""

    factor: Floats  # (S,)
    error: Floats  # (S,)
    slates: int
    """Whole slates with propensities."""


def swaps(propensity: Floats, clicked: Flags) -> Swapped:
    """From slates (B, S) with conditional Plackett-Luce propensities, all of S positions.

    A slate in either order of positions 1 and k shows the same ads elsewhere, so of both orders
    together the ads have been at 1 and at k alike once each is weighed by the other's probability.
    Slates whose propensities are of no Plackett-Luce policy are left out.
    """
    share = odds_of(propensity)
    usable = (share > 0).all(axis=1) & (share.sum(axis=1) <= 1 + 1e-9)
    share, hit = share[usable], clicked[usable].astype(np.float64)
    slots = propensity.shape[1]
    factor, error = np.ones(slots), np.zeros(slots)
    own = _probability(share)
    for slot in range(1, slots):
        turned = share.copy()
        turned[:, [0, slot]] = share[:, [slot, 0]]
        other = _probability(turned)
        # Not one over the probability of the order given the pair, which may be large: both orders
        # times the pair's product of the two, which a ratio does not see.
        both = own + other  # 0 where the propensities are as small as numbers are
        weight = np.divide(other, both, out=np.zeros_like(both), where=both > 0)
        top, low = weight * hit[:, 0], weight * hit[:, slot]
        total = float(top.sum())
        if total <= 0:
            factor[slot] = error[slot] = np.nan
            continue
        factor[slot] = float(low.sum()) / total
        error[slot] = float(np.sqrt(np.sum((low - factor[slot] * top) ** 2))) / total
    return Swapped(factor, error, int(usable.sum()))


def odds_of(propensity: Floats) -> Floats:
    """Shares (B, S) of the softmax over all candidates from propensities given the ads above."""
    share = np.empty_like(propensity)
    left = np.ones(propensity.shape[0])
    for slot in range(propensity.shape[1]):
        share[:, slot] = propensity[:, slot] * left
        left = left - share[:, slot]
    return share


def _probability(share: Floats) -> Floats:
    """P(slate) (B,) of shares (B, S) in the order of their positions."""
    above = np.cumsum(share, axis=1) - share
    # What is left may cancel to nothing, where the slate took all that there was.
    found: Floats = np.prod(share / np.maximum(1.0 - above, share), axis=1)
    return found


def logged_whole(features: Features, rows: Longs) -> tuple[Floats, Flags]:
    """Propensities and clicks (B, S) of whole slates of the commonest size over 1 among `rows`."""
    log, place = features.impressions, _whole(features, rows)
    return np.asarray(log.propensity[place]), np.asarray(log.clicked[place])


def logged_charges(features: Features, rows: Longs) -> tuple[Floats, Flags]:
    """As `logged_whole`, with what was charged though it brought no click in the place of clicks.

    What costs nothing without a click tells nothing: NaN follows in `swaps`.
    """
    log, place = features.impressions, _whole(features, rows)
    return np.asarray(log.propensity[place]), (log.cost[place] > 0) & ~log.clicked[place]


def _whole(features: Features, rows: Longs) -> Longs:
    """Rows (B, S) of the slates; (0, 1) where there is none."""
    log = features.impressions
    rows = rows[~np.isnan(log.propensity[rows]) & (log.slate_size[rows] > 1)]
    rows = rows[np.lexsort((log.position[rows], log.request[rows]))]
    if not rows.size:
        return np.empty((0, 1), np.int64)
    slots = int(np.bincount(log.slate_size[rows]).argmax())
    rows = rows[log.slate_size[rows] == slots]
    request = log.request[rows]
    starts = np.flatnonzero(np.r_[True, request[1:] != request[:-1]])
    whole = np.diff(np.r_[starts, rows.size]) == slots
    place = rows[starts[whole][:, None] + np.arange(slots)]
    found: Longs = place[(log.position[place] == np.arange(1, slots + 1)).all(axis=1)]
    return found


@dataclass(frozen=True)
class Regression:
    """How the click model of `regression` is fitted."""

    l2: float
    """Of the coefficients, per row."""
    prior_clicks: float
    """Clicks that draw a position's factor towards the one above it."""
    max_rows: int
    iterations: int


def regression(features: Features, rows: Longs, how: Regression) -> Floats:
    """Factors by position: clicks of `rows` (n,) by dense features, ad and position at once.

    P(click) = factor[position] x sigmoid(x b + ad's own); factors and coefficients by penalised
    maximum likelihood (L-BFGS). Of more than `max_rows` rows every so many-th is taken.
    """
    from scipy.optimize import minimize

    log = features.impressions
    if rows.size > how.max_rows:
        rows = rows[:: -(-rows.size // how.max_rows)]
    positions = int(log.position[rows].max(initial=1))
    hit = np.asarray(log.clicked[rows])
    if not 0 < hit.sum() < hit.size or positions == 1:
        return np.ones(positions)
    data = _Data.of(features, rows, positions)
    rate = float(hit.mean())
    start = np.zeros(data.width)
    start[positions - 1] = np.log(rate / (1 - rate))
    found = minimize(
        lambda weight: data.loss(weight, hit, how),
        start,
        method="L-BFGS-B",
        jac=True,
        options={"maxiter": how.iterations, "gtol": 1e-7, "ftol": 1e-10},
    )
    factors: Floats = np.exp(np.r_[0.0, found.x[: positions - 1]])
    return factors


@dataclass(frozen=True)
class _Data:
    """Rows (n,) as the regression reads them."""

    numbers: Singles  # (n, F) normalised
    ad: Ints  # (n,)
    place: Ints  # (n,) position from 0 on
    positions: int
    ads: int

    @classmethod
    def of(cls, features: Features, rows: Longs, positions: int) -> "_Data":
        log = features.impressions
        centre, scale = features.statistics.scaling("z_score")
        numbers = np.clip((log.dense[rows] - centre) / scale, -CLIP, CLIP)
        return cls(
            numbers.astype(np.float32),
            np.asarray(log.ad[rows]),
            np.asarray(log.position[rows] - 1),
            positions,
            features.sizes["ad"],
        )

    @property
    def width(self) -> int:
        """Log factors from the second position on, intercept, coefficients, ads."""
        return self.positions + self.numbers.shape[1] + self.ads

    def loss(self, weight: Floats, hit: Flags, how: Regression) -> tuple[float, Floats]:
        """Mean loss (nats) and its gradient by the weights."""
        rows, last = hit.size, self.positions - 1
        steps, intercept = np.r_[0.0, weight[:last]], weight[last]
        numbers, ads = np.split(weight[self.positions :], [self.numbers.shape[1]])
        logit = self.numbers @ numbers.astype(np.float32) + ads[self.ad] + intercept
        seen = np.exp(steps)[self.place]
        chance = 0.5 * (1 + np.tanh(0.5 * logit))
        both = np.minimum(seen * chance, 1 - 1e-6)
        total = -np.sum(np.where(hit, np.log(np.maximum(both, 1e-12)), np.log1p(-both)))
        # By the logit and by the log of the factor: a click says as much of both, no click little.
        missed = both / (1 - both)
        by_logit = np.where(hit, -1.0, missed) * (1 - chance)
        by_step = np.where(hit, -1.0, missed)
        gradient = np.concatenate(
            [
                np.bincount(self.place, weights=by_step, minlength=self.positions)[1:],
                [by_logit.sum()],
                self.numbers.T @ by_logit.astype(np.float32),
                np.bincount(self.ad, weights=by_logit, minlength=self.ads),
            ]
        )
        kept = weight[self.positions :]
        total += 0.5 * how.l2 * float(kept @ kept)
        gradient[self.positions :] += how.l2 * kept
        between = np.diff(steps)
        total += 0.5 * how.prior_clicks * float(between @ between)
        pulled = how.prior_clicks * (between - np.append(between[1:], 0.0))
        gradient[:last] += pulled
        return float(total) / rows, gradient / rows
