"""Marginalised IPS: weights of kinds of ads instead of ads (MIPS; Saito & Joachims, 2022).

w(e) = P_target(an ad of kind e) / P_logged(an ad of kind e): right where an ad's reward depends on
its kind only, and with far smaller weights where many ads are of a kind.
"""

from roiflow.evaluation.estimators.chances import Chances, ratio
from roiflow.features.table import Floats


def kind_weights(target: Chances, logged: Chances) -> Floats:
    """(B, S) by looks, pooled over positions; 0 where absent."""
    return ratio(target.kind, logged.kind)
