"""What a package's own first served hours say about its probabilities: two maps, as data.

Platt's map (1999) of the logit for the click, and another for the conversion given the click. A
model is calibrated on what the policy before showed, and shows other ads itself: its features move
with it. The maps lie beside the package and not in it, so that they are renewed without a new
model; each has a digest, which is logged with every slate that was made with it.

Where Platt maximises the likelihood of labels, here the label is exposure x truth: a click needs
the position to be looked at, a conversion has to be known by now.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.errors import ArtefactError
from roiflow.features.table import Flags, Floats, Longs, Singles
from roiflow.params import RecalibrateParams
from roiflow.ranking.protocol import Predictions

FORMAT = 1


@dataclass(frozen=True)
class Platt:
    """logit -> intercept + slope x logit; the slope is positive, so that the order is kept."""

    intercept: float
    slope: float

    def apply(self, probability: NDArray[np.floating]) -> Floats:
        """Recalibrated probabilities, in the shape given; 0 stays 0 and 1 stays 1."""
        return sigmoid(self.intercept + self.slope * logit(probability))

    def undo(self, probability: NDArray[np.floating]) -> Floats:
        """What `apply` was given."""
        return sigmoid((logit(probability) - self.intercept) / self.slope)


IDENTITY = Platt(0.0, 1.0)


def logit(probability: NDArray[np.floating]) -> Floats:
    """log p - log(1 - p); infinite at 0 and at 1."""
    p = np.asarray(probability, np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p) - np.log1p(-p))


def sigmoid(value: Floats) -> Floats:
    """The inverse of `logit`."""
    # Not 1 / (1 + exp(-x)), which overflows, nor by tanh, which loses what is rare.
    return np.asarray(np.exp(-np.logaddexp(0.0, -value)))


@dataclass(frozen=True)
class Learned:
    """The rows that the maps were fitted on, as they were known at `until`."""

    start: int
    """The first slate's time, microseconds."""
    until: int
    users: int
    impressions: int
    clicks: int
    conversions: int
    maturity: float
    """Mean probability that a conversion of one of the clicks would be known by then."""


@dataclass(frozen=True)
class Recalibration:
    """Both maps of one package, in force from `since` on, microseconds."""

    package: str
    since: int
    click: Platt
    conversion: Platt
    """Of P(conversion | click)."""
    learned: Learned

    @cached_property
    def digest(self) -> str:
        """sha256 of its content."""
        text = json.dumps(self.content(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def of(cls, content: Any, where: str) -> "Recalibration":
        """What `content` gave. Raises ArtefactError, naming where it is from."""
        names = {"format", *(field.name for field in fields(cls))}
        if not isinstance(content, dict) or content.keys() != names:
            raise ArtefactError(f"{where}: not a recalibration: keys are not {sorted(names)}")
        if content["format"] != FORMAT:
            raise ArtefactError(f"{where}: format {content['format']!r}, not {FORMAT}")
        try:
            found = cls(
                str(content["package"]),
                int(content["since"]),
                Platt(**content["click"]),
                Platt(**content["conversion"]),
                Learned(**content["learned"]),
            )
        except (TypeError, ValueError) as error:
            raise ArtefactError(f"{where}: not a recalibration: {error}") from None
        for name in ("click", "conversion"):
            map_: Platt = getattr(found, name)
            if not (np.isfinite(map_.intercept) and np.isfinite(map_.slope) and map_.slope > 0):
                raise ArtefactError(f"{where}: {name} is {map_}: no rising line")
        return found

    def apply(self, predictions: Predictions) -> Predictions:
        """Recalibrated predictions; where nothing is predicted nothing changes."""
        given = given_click(predictions.click, predictions.conversion)
        click = self.click.apply(predictions.click)
        conversion = click * self.conversion.apply(given)
        return replace(predictions, click=_singles(click), conversion=_singles(conversion))


def _singles(values: Floats) -> Singles:
    return values.astype(np.float32)


def given_click(click: NDArray[np.floating], conversion: NDArray[np.floating]) -> Floats:
    """P(conversion | click) = P(click and conversion) / P(click); 0 where no click is expected."""
    click = np.asarray(click, np.float64)
    ratio = np.divide(conversion, click, out=np.zeros_like(click), where=click > 0)
    # Both were rounded to 32 bits on their way, and a conversion may come out above its click.
    return np.minimum(ratio, 1.0)


@dataclass(frozen=True)
class Recalibrations:
    """A package's recalibrations in order of time; before the first, its own output stands."""

    each: tuple[Recalibration, ...] = ()

    @classmethod
    def of(cls, some: tuple[Recalibration, ...]) -> "Recalibrations":
        """In order, whatever the order they come in."""
        return cls(tuple(sorted(some, key=lambda one: one.since)))

    def at(self, event_time: Longs) -> Longs:
        """The number of the one in force at each time (B,), -1 where there is none yet."""
        since = np.array([one.since for one in self.each], np.int64)
        return np.searchsorted(since, event_time, "right") - 1

    def apply(self, predictions: Predictions, event_time: Longs) -> Predictions:
        """Predictions (B, K) of requests (B,), each by what is in force at its time."""
        if not self.each:
            return predictions
        number = self.at(event_time)
        for one in np.unique(number[number >= 0]).tolist():
            now = (number == one)[:, None]
            changed = self.each[one].apply(predictions)
            predictions = replace(
                predictions,
                click=np.where(now, changed.click, predictions.click),
                conversion=np.where(now, changed.conversion, predictions.conversion),
            )
        return predictions

    def digests(self, event_time: Longs) -> list[str | None]:
        """Of the one in force at each time (B,); None where there is none yet."""
        names = [*(one.digest for one in self.each), None]
        return [names[number] for number in self.at(event_time).tolist()]


NONE = Recalibrations()


@dataclass(frozen=True)
class Observed:
    """What was predicted, and what has been seen of it; n rows."""

    predicted: Floats  # (n,) P(it happens), by the package alone
    happened: Flags  # (n,) and was seen
    exposure: Floats  # (n,) P(it is seen | it happens)


def fit(observed: Observed, params: RecalibrateParams) -> Platt:
    """The map under which what was seen is likeliest; with nothing seen, the identity.

    P(seen) = exposure x sigmoid(z). `prior_events` events as predicted draw it to the identity.
    """
    from scipy.optimize import minimize

    x, y = logit(np.clip(observed.predicted, 1e-6, 1 - 1e-6)), observed.happened
    exposure = np.clip(observed.exposure, 0.0, 1.0)
    # A row that could not have been seen yet says nothing, and is no plain negative.
    seen = exposure > 1e-6
    if not seen.any():
        return IDENTITY
    x, y, exposure = x[seen], y[seen].astype(np.float64), exposure[seen]
    # From the middle of the rows: intercept and slope then hardly trade for each other.
    middle = float(x.mean())

    def loss(theta: Floats) -> tuple[float, Floats]:
        shift, tilt = theta
        z = x + shift + tilt * (x - middle)
        # log p without underflow, and the probability of having been seen.
        log_p = -np.logaddexp(0.0, -z)
        p = np.exp(log_p)
        unseen = np.maximum(1.0 - exposure * p, 1e-12)
        value = -np.sum(np.where(y > 0, log_p, np.log(unseen)))
        slope = np.where(y > 0, p - 1.0, exposure * p * (1.0 - p) / unseen)
        prior = 0.5 * params.prior_events * (shift**2 + tilt**2)
        gradient = np.array([slope.sum(), slope @ (x - middle)]) + params.prior_events * theta
        return float(value + prior), gradient

    shift, tilt = minimize(
        loss,
        np.zeros(2),
        jac=True,
        method="L-BFGS-B",
        # A rising line: the order of the ads at one request is never turned round.
        bounds=[(None, None), (params.min_slope - 1.0, None)],
        options={"maxiter": 200, "ftol": 1e-12, "gtol": 1e-8},
    ).x
    return Platt(float(shift - tilt * middle), float(1.0 + tilt))
