"""Requests with the candidates they may show and what the models expect of each.

Pre-selection sees every ad of the week's catalogue, so requests are worked through in chunks of
bounded memory; what is kept is only the top K.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.features.table import Catalogue, Features, Flags, Floats, Ints, Longs, Requests
from roiflow.ranking.protocol import Predictions, Scorer
from roiflow.ranking.value import CostShares, expected_cost

Progress = Callable[[float, str], None]

CHUNK_BYTES = 64 * 2**20
"""Upper bound of one chunk's dense features over the whole catalogue, in bytes."""


class Engine(Protocol):
    """Gives logged slates' requests over a catalogue, features as known at the request."""

    def requests(self, features: Features, first_rows: Longs, catalogue: Catalogue) -> Requests:
        """One impression row of each slate (B,) -> requests with every ad of the catalogue."""
        ...


class Selector(Protocol):
    """Keeps the best candidates."""

    def top_k(self, requests: Requests, k: int) -> Requests:
        """Requests narrowed to the k best candidates, best first."""
        ...


@dataclass(frozen=True)
class CandidateSets:
    """B requests with K candidates each; where `ad` is -1 there is none and the rest is 0."""

    request: Longs  # (B,)
    user: Ints  # (B,)
    ad: Ints  # (B, K)
    click: Floats  # (B, K) P(click | position 1)
    conversion: Floats  # (B, K) P(click and conversion | position 1)
    revenue: Floats  # (B, K) micros, E[revenue | conversion]
    expected_cost: Floats  # (B, K) micros
    bid: Longs  # (B, K) micros
    price: Longs  # (B, K) micros

    @property
    def present(self) -> Flags:
        """(B, K): True where there is a candidate."""
        return self.ad >= 0

    @property
    def expected_revenue(self) -> Floats:
        """pCTCVR x E[revenue | conversion]; (B, K) micros."""
        return self.conversion * self.revenue

    def value(self, cost_weight: float) -> Floats:
        """Expected revenue minus lambda x expected cost; (B, K) micros, 0 without a candidate."""
        return np.where(self.present, self.expected_revenue - cost_weight * self.expected_cost, 0.0)

    def take(self, rows: Longs | slice) -> "CandidateSets":
        """The requests `rows`, in that order."""
        return CandidateSets(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def stack(sets: list[CandidateSets]) -> CandidateSets:
    """Candidate sets one after the other; those with fewer candidates are filled with ad -1."""
    width = max(part.ad.shape[1] for part in sets)

    def column(name: str) -> Any:
        parts = [getattr(part, name) for part in sets]
        if parts[0].ndim == 1:
            return np.concatenate(parts)
        fill = -1 if name == "ad" else 0
        return np.concatenate(
            [
                np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=fill)
                for part in parts
            ]
        )

    return CandidateSets(**{field.name: column(field.name) for field in fields(CandidateSets)})


def columns_of(candidates: Ints, shown: Ints) -> Longs:
    """Where the shown ads are among the candidates; (B, K), (B, S) -> (B, S), -1 where absent."""
    # Slates are short and candidates few: all are compared with all.
    same = (shown[:, :, None] == candidates[:, None, :]) & (shown[:, :, None] >= 0)
    return np.where(same.any(axis=2), same.argmax(axis=2), -1).astype(np.int64)


def first_rows(features: Features, rows: Longs) -> Longs:
    """One impression row (the lowest) of each slate among `rows`, ordered by slate; (n,) -> (B,).

    `rows` ascend.
    """
    _, first = np.unique(features.impressions.request[rows], return_index=True)
    return rows[first]


def of_predictions(
    requests: Requests, predictions: Predictions, shares: CostShares
) -> CandidateSets:
    """What a ranker's predictions (B, K) mean for the candidates of `requests`.

    The one place where predictions become money, for training, service and replay alike.
    """
    present = requests.ad >= 0
    return CandidateSets(
        request=requests.request,
        user=requests.user,
        ad=requests.ad,
        # In double precision from here on: money is summed and subtracted, and a float32 has seven
        # digits.
        click=np.where(present, predictions.click, 0).astype(np.float64),
        conversion=np.where(present, predictions.conversion, 0).astype(np.float64),
        revenue=np.where(present, predictions.revenue, 0).astype(np.float64),
        expected_cost=np.where(present, expected_cost(predictions, requests.bid, shares), 0.0),
        bid=np.where(present, requests.bid, 0),
        price=np.where(present, requests.price, 0),
    )


def score_requests(
    features: Features,
    engine: Engine,
    selector: Selector,
    ranker: Scorer,
    shares: CostShares,
    *,
    rows: Longs,
    k: int,
    progress: Progress = lambda _fraction, _text: None,
) -> CandidateSets:
    """The top k of the catalogue of each slate's own week, with the ranker's expectations.

    `rows` (B,) holds one impression row of each slate; the answer is in its order. Raises
    ContractError where `rows` is empty.
    """
    if rows.size == 0:
        raise ContractError("no slate to score: the features hold no impression of this split")
    parts: list[CandidateSets] = []
    positions: list[Longs] = []
    done = 0
    for here, requests in top_requests(features, engine, selector, rows, k=k):
        parts.append(of_predictions(requests, ranker.score(features, requests), shares))
        positions.append(here)
        done += here.size
        progress(done / rows.size, "score candidates")
    back = np.argsort(np.concatenate(positions), kind="stable")
    return stack(parts).take(back)


def top_requests(
    features: Features, engine: Engine, selector: Selector, rows: Longs, *, k: int
) -> Iterator[tuple[Longs, Requests]]:
    """Positions in `rows` (B,) and their requests with the top k, in chunks of bounded memory.

    A slate from just before the window, that became known in it, takes the first catalogue.
    """
    # By week, since a request may show what its own week's catalogue holds; the parts come in that
    # order, with their places, and the caller puts them back.
    weeks = [Week.parse(catalogue.week).start for catalogue in features.catalogues]
    times = features.impressions.event_time[rows]
    of_row = np.maximum(np.searchsorted(weeks, times, side="right") - 1, 0)
    for number in np.unique(of_row):
        catalogue = features.catalogues[number]
        # 4 bytes a feature: over a whole catalogue nothing else of a request comes near them.
        row_bytes = catalogue.ad.size * max(1, len(features.dense_names)) * 4
        chunk = max(1, CHUNK_BYTES // max(1, row_bytes))
        mine = np.flatnonzero(of_row == number)
        for start in range(0, mine.size, chunk):
            here = mine[start : start + chunk]
            yield here, selector.top_k(engine.requests(features, rows[here], catalogue), k)
