"""Doubly robust over slates that several policies logged at once, pooled over positions.

An ad's click is as likely at position k as at the first times P(k is looked at). So what an ad
brings may be pooled over the positions where it stood, each policy's chance of it being its
exposure e = sum_k P(k is looked at) P(ad at k), and over the policies that showed it (balanced IPS;
Agarwal et al., 2017, "Effective evaluation using logged bandit feedback from multiple loggers"):

    V = sum_d e(d) q(d) + sum over shown d of w(d) (r - q(d)),
    w(d) = e_target(d) / sum_a share_a e_a(d)

What is charged for an impression whether anybody looks or not is weighed by presence, that is
without P(k is looked at). No weight is over 1 / share of the target's own arm.
"""

from dataclasses import dataclass

import numpy as np

from roiflow.evaluation.estimators.chances import Chances, ratio
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import TargetOnLog
from roiflow.features.table import Floats


@dataclass(frozen=True)
class Balanced:
    """Of one policy on B slates of S positions."""

    weight: Floats
    """(B, S) by looks; 0 where absent."""
    revenue: Floats
    """(B,) doubly robust terms, micros."""
    cost: Floats
    """(B,)"""
    model_error: Floats
    """(B, 2) what the model says of the shown ads, weighed, over what it says of the target's slate
    (revenue, cost): its mean is 0."""
    excess: Floats
    """(B,) weighed looks over looks: its mean is 0."""


def balanced_dr(slates: Slates, target: TargetOnLog, logged: Chances) -> Balanced:
    """Terms of `target` where `logged` is the mean of all policies that filled the slates."""
    weight = ratio(target.chances.exposure, logged.exposure)
    return weighed_dr(slates, target, weight, ratio(target.chances.presence, logged.presence))


def weighed_dr(
    slates: Slates, target: TargetOnLog, weight: Floats, by_presence: Floats
) -> Balanced:
    """The same with weights (B, S) as they are given, by looks and by presence."""
    charged = due_at_impression(slates, target)
    revenue, cost, model = target.revenue, target.cost, target.cost.logged - target.charge
    said = np.column_stack(
        [
            np.sum(weight * revenue.logged, axis=1) - revenue.target.sum(axis=1),
            np.sum(weight * model + by_presence * target.charge, axis=1) - cost.target.sum(axis=1),
        ]
    )
    return Balanced(
        weight=weight,
        revenue=np.sum(weight * slates.revenue, axis=1) - said[:, 0],
        cost=np.sum(weight * (slates.cost - charged) + by_presence * charged, axis=1) - said[:, 1],
        model_error=said,
        excess=np.sum((weight - 1.0) * target.looks, axis=1),
    )


def due_at_impression(slates: Slates, target: TargetOnLog) -> Floats:
    """(B, S) micros of the cost that were paid for the impression and not for its click.

    All of it where no click came; of a click's, as much as the model knows to be due.
    """
    return np.where(slates.clicked, np.minimum(slates.cost, target.charge), slates.cost)
