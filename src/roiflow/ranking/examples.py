"""What the models learn from: what happened at logged impressions, and how exposed each was."""

from dataclasses import dataclass

import numpy as np

from roiflow.features.table import Features, Flags, Floats, Longs, Singles
from roiflow.labels.model import Labels
from roiflow.labels.worth import CATEGORY, Known


@dataclass(frozen=True)
class Examples:
    """Logged impressions to learn from, n; their features stay in the log."""

    rows: Longs
    clicked: Flags
    converted: Flags  # by a click, as known
    examined: Singles  # P(looked at) over that of position 1
    matured: Singles  # P(a conversion would be known | the click has one)
    earned: Floats  # micros that the known conversions bring when all that will be is given back

    @classmethod
    def of(cls, features: Features, labels: Labels) -> "Examples":
        """All of a log, in its order."""
        log = features.impressions
        rows = np.arange(log.clicked.size)
        return cls(
            rows,
            np.asarray(log.clicked),
            log.clicked & log.converted,
            labels.examined(log.position),
            labels.matured(features, rows),
            earned(features, labels),
        )

    @property
    def clicks(self) -> "Examples":
        """The clicked ones, which alone say whether a click converts."""
        return self.take(np.flatnonzero(self.clicked))

    def take(self, chosen: Longs) -> "Examples":
        """Some of them (m,), by their place in the arrays."""
        return Examples(**{name: values[chosen] for name, values in vars(self).items()})


def earned(features: Features, labels: Labels) -> Floats:
    """Micros (n,) by impression: known sales, less the share that comes back in the end.

    What came back already is not taken off again: of two equal sales the older one is worth no
    less because its return is known.
    """
    log = features.impressions
    until = labels.until(features, np.arange(log.ad.size))
    category = features.attributes[log.ad, CATEGORY]
    kept = np.ones(log.ad.size)
    for moment in np.unique(until).tolist():
        here = until == moment
        kept[here] -= labels.delays_at(moment).returned[category[here]]
    return Known.of(features, until).sold * kept
