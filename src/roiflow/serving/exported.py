"""The exported models against the ones that were trained, on the path that serving takes."""

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from roiflow.candidates.selector import narrow
from roiflow.errors import ParityError
from roiflow.features.table import Features, Flags, Floats, Requests
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.serving_form import people
from roiflow.serving.recommender import Models

LATENCY_CANDIDATES = 200
LATENCY_RUNS = 100


@dataclass(frozen=True)
class Differences:
    """The largest difference of each output: absolute for probabilities, relative for revenue."""

    rows: int
    click: float
    conversion: float
    revenue: float


def served(models: Models, features: Features, requests: Requests) -> Predictions:
    """What a package's models predict for requests with features; (B, K)."""
    users = people(features, requests, models.about.encode_length)
    attributes = features.attributes[requests.ad.clip(0)]
    selected = models.selected(requests, users, attributes)
    return models.predict(requests, users, attributes, selected)


def compare(
    trained: Predictions, exported: Predictions, present: Flags, rows: int, tolerance: float
) -> Differences:
    """On the first `rows` candidates that are present, row by row.

    Raises ParityError, naming the output, the row and both values, where a difference is above
    the tolerance or is not a number.
    """
    # Requests row by row, so that `rows` is what the parameter says however many candidates there
    # are of each.
    at = np.argwhere(present)[:rows]
    index = tuple(at.T)
    largest: dict[str, float] = {}
    for name in ("click", "conversion", "revenue"):
        expected: Floats = getattr(trained, name)[index].astype(np.float64)
        found: Floats = getattr(exported, name)[index].astype(np.float64)
        scale = np.maximum(np.abs(expected), 1.0) if name == "revenue" else 1.0
        difference = np.abs(found - expected) / scale
        # Not `difference > tolerance`: NaN is above no tolerance.
        bad = np.flatnonzero(~(difference <= tolerance))
        if bad.size:
            request, candidate = at[bad[0]]
            raise ParityError(
                f"{name}: {bad.size} of {at.shape[0]} rows differ by more than {tolerance}: first "
                f"is request {request}, candidate {candidate}: {expected[bad[0]]} as trained, "
                f"{found[bad[0]]} as exported"
            )
        largest[name] = float(difference.max(initial=0.0))
    return Differences(rows=int(at.shape[0]), **largest)


def latency_ms(models: Models, features: Features, requests: Requests) -> float:
    """Median milliseconds of the encoder and the scorer for one user and 200 candidates.

    The user with the longest history, and the candidates repeated up to that number.
    """
    # However few candidates the request has: a time is comparable for one size only.
    columns = np.resize(np.arange(requests.ad.shape[1]), LATENCY_CANDIDATES)
    length = requests.history_end - features.events.offsets[requests.user]
    longest = requests.take(np.array([np.argmax(length)]))
    one = narrow(longest, columns[None])
    users = people(features, one, models.about.encode_length)
    attributes = features.attributes[one.ad.clip(0)]
    selected = models.selected(one, users, attributes)
    taken = np.empty(LATENCY_RUNS)
    for number in range(LATENCY_RUNS):
        begin = perf_counter()
        models.predict(one, users, attributes, selected)
        taken[number] = perf_counter() - begin
    return float(np.median(taken) * 1e3)
