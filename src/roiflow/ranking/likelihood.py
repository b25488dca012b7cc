"""The one likelihood of every model: what was observed is exposure x truth.

An ad at position k is clicked where it is looked at, theta_k, and liked, p; a click's conversion is
known by now where there is one, p, and where it is ripe, F. So P(observed) = e p with p =
sigmoid(z) and a known exposure e: the position-based model (Craswell et al., 2008), and delayed
conversions (Chapelle, 2014) whose delays were learnt before and apart. A row of exposure 0 says
nothing unless it is observed; with exposures of 1 all this is logistic regression.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.compiled import compiled
from roiflow.features.table import Flags, Singles

LEAST_REST = 1e-6
"""Of 1 - e p: an exposure above 1, of a position that is looked at more than the first, could make
it negative."""

PRIOR_TRIALS = 50.0
"""Of which half a one is observed: what is thought of a log that shows nothing at all."""

MOST_RATE = 0.99


@compiled(nogil=True, error_model="numpy")
def terms(logit: float, exposure: float, observed: bool) -> Any:
    """-log P(observed) less its constant -log e, its slope in z, and what a row tells of z.

    The last is Fisher's information, the mean curvature, which is never negative: where nothing was
    observed and p is large the curvature itself is. Both are p (1 - p) for exposures of 1.
    """
    # exp of a negative number only: nothing overflows.
    tail = np.exp(-abs(logit))
    odds, against = (1.0, tail) if logit >= 0 else (tail, 1.0)
    p, rest = odds / (1 + tail), against / (1 + tail)
    hidden = 1 - exposure
    if hidden == 0:  # 1 - p may be 0 in floating point; its share of itself is not
        share, unobserved = 1.0, max(logit, 0.0) + np.log1p(tail)
    else:
        none = max(rest + hidden * p, LEAST_REST)
        share, unobserved = rest / none, -np.log(none)
    information = exposure * p * rest * share
    if observed:
        return max(-logit, 0.0) + np.log1p(tail), -rest, information
    return unobserved, exposure * p * share, information


@compiled(nogil=True, error_model="numpy")
def likelihood(logit: Any, exposure: Singles, observed: Flags) -> Any:
    """Logits (n,) -> sum of the losses (nats), slopes (n,), information (n,)."""
    loss, slope, information = 0.0, np.empty(logit.size), np.empty(logit.size)
    for row in range(logit.size):
        found, slope[row], information[row] = terms(logit[row], exposure[row], observed[row])
        loss += found
    return loss, slope, information


def rate(exposure: Singles, observed: Flags) -> float:
    """P(truth) of a log (n,) by its sums, which PRIOR_TRIALS keep off 0 and 1."""
    trials = float(exposure.sum(dtype=np.float64)) + PRIOR_TRIALS
    # Few that were exposed and by luck all observed could make it more than 1.
    return min((float(observed.sum()) + 0.5) / trials, MOST_RATE)


def logit_of(probability: float) -> float:
    """log(p / (1 - p))."""
    return float(np.log(probability / (1 - probability)))


def sigmoid(logit: NDArray[np.floating]) -> Singles:
    """1 / (1 + exp(-logit)), without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * logit))).astype(np.float32)
