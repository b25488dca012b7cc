"""One model of labels: what was observed is the truth times its exposure.

P(clicked at k) = P(k is looked at) P(click | looked at), and P(converted and known by now | click)
= P(known by now) P(conversion | click). Models learn the truth with the exposure given, and sums of
what is known are divided by it.
"""

from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np

from roiflow.errors import ArtefactError
from roiflow.features.table import Features, Floats, Ints, Longs, Singles
from roiflow.files import write_file
from roiflow.labels.delays import Curves, hours_between
from roiflow.labels.examination import Examination
from roiflow.labels.worth import CATEGORY, Delays


@dataclass(frozen=True)
class Labels:
    """Learnt once from a window, for all that reads its labels."""

    place: ClassVar[Path] = Path("data/labels/labels.npz")

    examination: Examination
    delays: tuple[Delays, ...]
    """Oldest first: as of the test week's start and of the window's end."""
    floor: float
    """Where less of what a row brings is known, sums take what is expected (labels.settled)."""

    def examined(self, position: Ints) -> Singles:
        """P(looked at) of logged positions (n,), relative to position 1."""
        return self.examination.at(position)

    def matured(self, features: Features, rows: Longs) -> Singles:
        """P(a conversion of the click on a row is known | it comes), (n,).

        Known before the moment as of which the row's label stands (Features.known_until), by what
        had been learnt of delays by then.
        """
        out = np.zeros(rows.size, np.float32)
        until = self.until(features, rows)
        for moment in np.unique(until).tolist():
            here = until == moment
            out[here] = _known(self.delays_at(moment), features, rows[here], moment)
        return out

    def until(self, features: Features, rows: Longs) -> Longs:
        """The moment (n,), microseconds, as of which the labels of rows stand."""
        by_split = np.array(features.known_until, np.int64)
        found: Longs = by_split[features.impressions.split[rows]]
        return found

    def delays_at(self, moment: int) -> Delays:
        """The newest that knew nothing from then on; the oldest where all knew more."""
        return [one for one in self.delays if one.as_of <= moment or one is self.delays[0]][-1]

    def write(self, path: Path) -> None:
        """One .npz file; equal values give equal bytes."""
        arrays: dict[str, Any] = {"factor": self.examination.factor, "floor": self.floor}
        for number, one in enumerate(self.delays):
            arrays |= {f"{number}.{name}": value for name, value in _flat(one).items()}
        with write_file(path) as aside, aside.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def read(cls, path: Path) -> "Labels":
        """Raises ArtefactError, naming the file, where it is not as `write` leaves it."""
        try:
            with path.open("rb") as file, np.load(file) as found:
                arrays = {name: found[name] for name in found.files}
            count = len({name.partition(".")[0] for name in arrays if "." in name})
            delays = tuple(_delays(arrays, f"{number}.") for number in range(count))
            return cls(Examination(arrays["factor"]), delays, float(arrays["floor"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise ArtefactError(f"{path}: no labels ({error}): run fit_labels again") from None


def _known(delays: Delays, features: Features, rows: Longs, moment: int) -> Floats:
    log = features.impressions
    category = features.attributes[:, CATEGORY][log.ad[rows]]
    segment = log.context[rows, delays.segment] if delays.segment >= 0 else np.zeros_like(category)
    return delays.sales.known(category, segment, hours_between(log.event_time[rows], moment))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Arrays and numbers by name, those of a part as part.name."""
    out: dict[str, Any] = {}
    for field in fields(value):
        one = getattr(value, field.name)
        name = f"{prefix}{field.name}"
        out |= _flat(one, f"{name}.") if is_dataclass(one) else {name: np.asarray(one)}
    return out


def _delays(arrays: dict[str, Any], prefix: str) -> Delays:
    def curves(name: str) -> Curves:
        return Curves(*(arrays[f"{prefix}{name}.{field.name}"] for field in fields(Curves)))

    def by_category(name: str) -> Floats:
        found: Floats = arrays[prefix + name]
        return found

    return Delays(
        as_of=int(arrays[f"{prefix}as_of"]),
        segment=int(arrays[f"{prefix}segment"]),
        sales=curves("sales"),
        returns=curves("returns"),
        returned=by_category("returned"),
        rate=by_category("rate"),
        worth=by_category("worth"),
        left_out=int(arrays[f"{prefix}left_out"]),
    )
