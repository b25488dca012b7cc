"""Cascade doubly robust over slates that several policies logged at once.

As `cascade_dr`, with the weight of a slate down to position k against all policies that might have
filled it: w_k = prod P_target(a_j | above) / sum_a share_a prod P_a(a_j | above), j = 1 to k. Right
also where the ads above matter; no weight is over 1 / share of the target's own arm.
"""

import numpy as np

from roiflow.evaluation.estimators.balanced import Balanced
from roiflow.evaluation.estimators.chances import ratio
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import Expectation, TargetOnLog
from roiflow.features.table import Floats


def down_to(policy: TargetOnLog) -> Floats:
    """P(the logged slate down to each position) (B, S)."""
    found: Floats = np.cumprod(policy.propensity, axis=1, dtype=np.float64)
    return found


def mixed_down_to(stable: TargetOnLog, canary: TargetOnLog, share: Floats) -> Floats:
    """Of both together, the canary with `share` (B,); to the last bit theirs where both agree."""
    one = down_to(stable)
    found: Floats = one + share[:, None] * (down_to(canary) - one)
    return found


def balanced_cascade_dr(slates: Slates, target: TargetOnLog, logged: Floats) -> Balanced:
    """Terms of `target` where slates down to a position had chances `logged` (B, S)."""
    weight = np.where(slates.present, ratio(down_to(target), logged), 0.0)
    above = np.column_stack([np.ones(weight.shape[0]), weight[:, :-1]])

    def said(model: Expectation) -> Floats:
        """What the model says of the logged slate over what it says of the redrawn one."""
        return np.sum(weight * model.cascade_logged - above * model.cascade_target, axis=1)

    errors = np.column_stack([said(target.revenue), said(target.cost)])
    return Balanced(
        weight=weight,
        revenue=np.sum(weight * slates.revenue, axis=1) - errors[:, 0],
        cost=np.sum(weight * slates.cost, axis=1) - errors[:, 1],
        model_error=errors,
        excess=np.sum(weight - slates.present, axis=1),
    )
