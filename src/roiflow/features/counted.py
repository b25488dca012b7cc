"""Which rows count, as what, and from when: the same offline and online."""

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY
from roiflow.features import kernels
from roiflow.features.kernels import Kinds
from roiflow.features.spec import ATTRIBUTION_DAYS, INTENT_ACTIONS
from roiflow.features.table import Ints, Longs
from roiflow.features.vocabulary import Vocabulary


def behaviour_kinds(vocabulary: Vocabulary, action: Ints) -> Kinds:
    """Dense indices of actions (n,) -> kinds (n,)."""
    lookup = vocabulary.lookup("action")
    # A log need not hold every action; one that is not in the vocabulary has no index to look for.
    intents = [lookup[name] for name in INTENT_ACTIONS if name in lookup]
    return np.where(np.isin(action, intents), kernels.INTENT, kernels.BEHAVIOUR).astype(np.uint8)


def outcome_kinds(revenue: Longs) -> Kinds:
    """Micros (n,) -> kinds (n,): a return gives revenue back and is no conversion."""
    return np.where(revenue < 0, kernels.RETURN, kernels.CONVERSION).astype(np.uint8)


def counts_in_time(kind: Kinds, known: Longs, shown_known: Longs) -> NDArray[np.bool_]:
    """Whether outcomes (n,), of impressions known at `shown_known`, come in time to count."""
    return (kind == kernels.CLICK) | (known - shown_known <= ATTRIBUTION_DAYS * MICROS_PER_DAY)
