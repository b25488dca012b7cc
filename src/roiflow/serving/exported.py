"""The exported models against the ones that were trained, on the path that serving takes."""

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from roiflow.errors import ParityError
from roiflow.features.table import Features, Flags, Floats, Requests
from roiflow.ranking import serving_form
from roiflow.ranking.protocol import Predictions
from roiflow.serving.recommender import Models, People

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
    return models.predict(
        requests, people(models, features, requests), features.attributes[requests.ad.clip(0)]
    )


def people(models: Models, features: Features, requests: Requests) -> People:
    """The users of the requests, as known at each request."""
    history = serving_form.histories(
        features.events, requests.user, requests.history_end, models.about.encode_length
    )
    return People(requests.user, features.profile[requests.user], history)


def compare(
    trained: Predictions, exported: Predictions, present: Flags, rows: int, tolerance: float
) -> Differences:
    """On the first `rows` candidates that are present, row by row.

    Raises ParityError, naming the output, the row and both values, where a difference is above
    the tolerance or is not a number.
    """
    at = np.argwhere(present)[:rows]
    index = tuple(at.T)
    largest: dict[str, float] = {}
    for name in ("click", "conversion", "revenue"):
        expected: Floats = getattr(trained, name)[index].astype(np.float64)
        found: Floats = getattr(exported, name)[index].astype(np.float64)
        scale = np.maximum(np.abs(expected), 1.0) if name == "revenue" else 1.0
        difference = np.abs(found - expected) / scale
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

    The candidates of the first request are repeated up to that number.
    """
    columns = np.resize(np.arange(requests.ad.shape[1]), LATENCY_CANDIDATES)
    first = np.arange(1)
    one = Requests(
        request=requests.request[first],
        user=requests.user[first],
        event_time=requests.event_time[first],
        history_start=requests.history_start[first],
        history_end=requests.history_end[first],
        context=requests.context[first],
        ad=requests.ad[:1, columns],
        price=requests.price[:1, columns],
        bid=requests.bid[:1, columns],
        dense=requests.dense[:1, columns],
    )
    user, attributes = people(models, features, one), features.attributes[one.ad.clip(0)]
    taken = np.empty(LATENCY_RUNS)
    for number in range(LATENCY_RUNS):
        begin = perf_counter()
        models.predict(one, user, attributes)
        taken[number] = perf_counter() - begin
    return float(np.median(taken) * 1e3)
