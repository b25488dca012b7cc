"""IPS pooled over positions by how much they are looked at.

Where P(click at k) = P(k is looked at) P(click | looked at), an ad brings the same wherever it
stands but for the looks, so that an ad that the target puts on top and the log below is evidence:

    w(d) = sum_k P(k is looked at) P_target(d at k) / sum_k P(k is looked at) P_logged(d at k)

(the position-based model of Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen, 2018).
"""

from roiflow.evaluation.estimators.chances import Chances, ratio
from roiflow.features.table import Floats


def examination_weights(target: Chances, logged: Chances) -> Floats:
    """(B, S); 0 where absent."""
    return ratio(target.exposure, logged.exposure)
