"""The chances of a log whose policy cannot be asked again, from its propensities alone.

A Plackett-Luce policy's propensities down a slate give the odds of the ads shown, and of all others
together. How those others share theirs moves a shown ad's chance at a lower position only where one
of them is likely; they are taken for alike. A package that can be replayed needs none of this.
"""

import numpy as np

from roiflow.evaluation.estimators.chances import Chances
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import TargetOnLog, position_marginals
from roiflow.features.table import Floats, Longs
from roiflow.labels.examination import odds_of

MOST = 24
"""Other ads at most: what more of them leave a shown ad differs by less than it is guessed at."""
SEED = 0


def chances_of_log(slates: Slates, target: TargetOnLog, draws: int) -> Chances:
    """Of the ads shown; positions are looked at as `target` has it. NaN without propensities.

    `draws` as `position_marginals` takes them.
    """
    if not slates.logged.all():
        unknown = np.full(slates.propensity.shape, np.nan)
        return Chances(unknown, unknown, unknown, unknown)
    shown = np.where(slates.present, odds_of(slates.propensity), 0.0)
    rest = np.maximum(1.0 - shown.sum(axis=1, keepdims=True), 0.0)
    # As many as the log shows at all, less those of the slate: a package may know of fewer.
    others = np.clip(target.ads - slates.present.sum(axis=1), 1, MOST)[:, None]
    one = np.arange(others.max(initial=1)) < others
    odds = np.hstack([shown, np.where(one, rest / others, 0.0)])
    with np.errstate(divide="ignore"):
        logits = np.log(odds)
    slots = shown.shape[1]
    marginals = position_marginals(logits, slots, draws, np.random.default_rng(SEED))
    own = marginals[:, :, :slots]
    exposure = np.einsum("bs,bsk->bk", target.looks, own)
    return Chances(
        marginal=np.where(slates.present, np.einsum("bss->bs", own), 0.0),
        exposure=exposure,
        presence=np.einsum("bs,bsk->bk", target.due, own),
        kind=exposure,
    )


def matching(slates: Slates, policy: TargetOnLog, tolerance: float) -> Longs:
    """Slates (m,) whose propensities are those of a replayed package."""
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.abs(policy.propensity / slates.propensity - 1.0) <= tolerance
    return np.flatnonzero((near | ~slates.present).all(axis=1))


def replayed(chances: Chances, policy: TargetOnLog, rows: Longs) -> Chances:
    """With those of the package in the slates `rows` (m,) that it filled."""

    def filled(name: str) -> Floats:
        out: Floats = getattr(chances, name).copy()
        out[rows] = getattr(policy.chances, name)[rows]
        return out

    return Chances(*(filled(name) for name in ("marginal", "exposure", "presence", "kind")))
