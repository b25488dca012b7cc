"""A window with weeks before it, so that its last week is counted as serving counted it.

Serving starts from the snapshot of the run before, which knows of a week that this run's window has
dropped. Counters of eight weeks and histories without an end differ by it, and with them every
propensity: what is replayed has to know what was known.
"""

from pathlib import Path

import numpy as np

from roiflow.data.schemas import SCHEMAS
from roiflow.data.split import TEST
from roiflow.errors import GateError
from roiflow.features.rows import Window
from roiflow.features.table import Features, Longs
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import Built, build
from roiflow.params import FeaturesParams


def lengthened(
    before: Path, own: Path, vocabulary: Vocabulary, params: FeaturesParams, folder: Path
) -> Built:
    """Features of the validated weeks `own` after those of `before` that it has dropped.

    They are written into `folder`; ids have the numbers that `vocabulary` gives.
    """
    weeks = {f"week={week}" for week in Window(own).weeks}
    for table in SCHEMAS:
        place = folder / "validated" / table
        place.mkdir(parents=True)
        for root in (own, before):
            for partition in sorted((root / table).glob("week=*")):
                if root == own or partition.name not in weeks:
                    (place / partition.name).symlink_to(partition.absolute())
    return build(Window(folder / "validated"), vocabulary, params, folder / "features")


def same_rows(own: Features, longer: Features, rows: Longs) -> Longs:
    """Rows (n,) of `own`'s test week, as `longer` numbers them.

    Raises GateError where the two do not hold the same impressions of that week.
    """
    here, there = (one.rows(TEST)[_order(one)] for one in (own, longer))
    if not np.array_equal(_keys(own, here), _keys(longer, there)):
        raise GateError("the window and the one with weeks before it hold other test rows")
    number = np.full(own.impressions.ad.size, -1, np.int64)
    number[here] = there
    return number[rows]


def _order(features: Features) -> Longs:
    return np.lexsort(_keys(features, features.rows(TEST)))


def _keys(features: Features, rows: Longs) -> Longs:
    log = features.impressions
    return np.stack(
        [log.position[rows], log.ad[rows], log.user[rows], log.event_time[rows]]
    ).astype(np.int64)
