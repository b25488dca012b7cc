from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.features.table import Catalogue, Features, Ints, Longs, Requests
from roiflow.policy import candidate_sets
from roiflow.policy.candidate_sets import columns_of, first_rows, score_requests, stack
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.value import CostShares
from tests.unit.policy.worlds import planted

WEEKS = ("2026-W03", "2026-W04")
CATALOGUES = (
    Catalogue.all_week(
        WEEKS[0], np.array([1, 2], np.int32), np.array([10, 20]), np.array([100, 200])
    ),
    Catalogue.all_week(
        WEEKS[1], np.array([2, 3, 4], np.int32), np.array([20, 30, 40]), np.array([200, 300, 400])
    ),
)


@dataclass
class Log:
    """The columns of Impressions that are read here."""

    request: Longs
    event_time: Longs


@dataclass
class Table:
    """The fields of Features that are read here."""

    impressions: Log
    catalogues: tuple[Catalogue, ...] = CATALOGUES
    dense_names: tuple[str, ...] = ("one",)


class WholeCatalogue:
    """Every ad of the catalogue; the dense feature is the impression row."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def requests(self, features: Features, first_rows: Longs, catalogue: Catalogue) -> Requests:
        self.calls.append(first_rows.size)
        shape = (first_rows.size, catalogue.ad.size)
        return Requests(
            request=features.impressions.request[first_rows],
            user=first_rows.astype(np.int32),
            event_time=features.impressions.event_time[first_rows],
            history_start=first_rows,
            history_end=first_rows,
            context=np.zeros((first_rows.size, 4), np.int32),
            ad=np.tile(catalogue.ad, (first_rows.size, 1)),
            price=np.tile(catalogue.price, (first_rows.size, 1)),
            bid=np.tile(catalogue.bid, (first_rows.size, 1)),
            dense=np.broadcast_to(first_rows[:, None, None], (*shape, 1)).astype(np.float32),
        )


class LastAds:
    """The k ads at the end of the catalogue, last first."""

    def top_k(self, requests: Requests, k: int) -> Requests:
        columns = {name: getattr(requests, name)[:, ::-1][:, :k] for name in ("ad", "price", "bid")}
        return replace(requests, **columns, dense=requests.dense[:, ::-1][:, :k])


class ByAd:
    """Click ad / 10, conversion ad / 100, revenue 1000 x ad."""

    name = "by_ad"

    def predict(
        self, features: Features, rows: Longs, *, logged_position: bool = False
    ) -> Predictions:
        raise AssertionError

    def score(self, features: Features, requests: Requests) -> Predictions:
        rates = (requests.ad.astype(np.float32) * np.float32(rate) for rate in (0.1, 0.01, 1000))
        return Predictions(*rates)

    def save(self, folder: Any) -> None:
        raise AssertionError


def table(weeks: list[str]) -> Any:
    times = np.array([Week.parse(week).start + 5 for week in weeks])
    return Table(Log(np.arange(len(weeks)), times))


def scored(weeks: list[str], k: int, engine: WholeCatalogue | None = None) -> Any:
    return score_requests(
        table(weeks),
        engine or WholeCatalogue(),
        LastAds(),
        ByAd(),
        CostShares(impression=0.1, click=0.5, conversion=1.0),
        rows=np.arange(len(weeks)),
        k=k,
    )


def test_each_slate_takes_the_catalogue_of_its_week() -> None:
    sets = scored([WEEKS[1], WEEKS[0], WEEKS[1]], k=3)
    np.testing.assert_array_equal(sets.request, [0, 1, 2])
    np.testing.assert_array_equal(sets.ad, [[4, 3, 2], [2, 1, -1], [4, 3, 2]])
    np.testing.assert_array_equal(sets.bid, [[400, 300, 200], [200, 100, 0], [400, 300, 200]])
    np.testing.assert_allclose(sets.click[1], [0.2, 0.1, 0])


def test_hand_worked_value() -> None:
    sets = scored([WEEKS[0]], k=1)
    # Ad 2: revenue 0.02 x 2000 = 40; cost (0.1 + 0.5 x 0.2 + 0.02) x 200 = 44.
    assert sets.expected_revenue[0, 0] == pytest.approx(40)
    assert sets.expected_cost[0, 0] == pytest.approx(44)
    assert sets.value(0.5)[0, 0] == pytest.approx(18)


def test_a_slate_from_before_the_window_takes_the_first_catalogue() -> None:
    np.testing.assert_array_equal(scored(["2026-W02"], k=2).ad, [[2, 1]])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weeks = [WEEKS[number % 2] for number in range(9)]
    whole = scored(weeks, k=2)
    monkeypatch.setattr(candidate_sets, "CHUNK_BYTES", 2 * 3 * 4)
    engine = WholeCatalogue()
    parts = scored(weeks, k=2, engine=engine)
    assert max(engine.calls) == 3
    for name in ("request", "ad", "click", "expected_cost"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_no_slate_is_an_error() -> None:
    with pytest.raises(ContractError, match="no slate to score"):
        scored([], k=2)


def test_first_row_of_each_slate() -> None:
    features: Any = Table(Log(np.array([3, 3, 1, 3, 1, 0]), np.zeros(6, np.int64)))
    np.testing.assert_array_equal(first_rows(features, np.array([1, 2, 3, 4])), [2, 1])


def test_columns_of() -> None:
    candidates: Ints = np.array([[5, 7, -1], [9, 5, 7]], np.int32)
    shown: Ints = np.array([[7, 9], [-1, 9]], np.int32)
    np.testing.assert_array_equal(columns_of(candidates, shown), [[1, -1], [-1, 0]])


def test_stack_fills_with_no_candidate() -> None:
    both = stack([planted(2, 3), planted(1, 4)])
    np.testing.assert_array_equal(both.ad, [[0, 1, 2, -1], [0, 1, 2, -1], [0, 1, 2, 3]])
    assert both.value(1.0)[0, 3] == 0
