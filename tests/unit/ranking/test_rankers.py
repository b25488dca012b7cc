"""The contract of every ranker."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from roiflow.candidates import selector as candidates
from roiflow.data.split import TEST, TRAIN
from roiflow.errors import PackageError
from roiflow.features.table import Features
from roiflow.labels.model import Labels
from roiflow.ranking.baselines import popularity
from roiflow.ranking.baselines.din import DinRanker
from roiflow.ranking.baselines.sasrec import SasRecRanker
from roiflow.ranking.metrics import auc
from roiflow.ranking.protocol import Predictions, Ranker
from roiflow.ranking.report import metrics
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.train import fit
from roiflow.ranking.value import CostShares, fit_cost_shares
from tests.unit.ranking.worlds import CANDIDATES, PARAMS, World, build, permuted, requests_of

QUICK = PARAMS.model_copy(update={"epochs": 2})

TRAIN_ONE: dict[str, Callable[[Features, Labels], Ranker]] = {
    "popularity": popularity.fit,
    "logistic": lambda features, labels: candidates.fit(features, labels, CANDIDATES, "logistic"),
    "xgboost": lambda features, labels: candidates.fit(features, labels, CANDIDATES, "xgboost"),
    "sasrec": lambda features, labels: fit(SasRecRanker, features, labels, QUICK)[0],
    "din": lambda features, labels: fit(DinRanker, features, labels, QUICK)[0],
    "rosa": lambda features, labels: fit(RosaRanker, features, labels, QUICK)[0],
}
LOAD: dict[str, Callable[[Path], Ranker]] = {
    "popularity": popularity.Popularity.load,
    "logistic": candidates.load,
    "xgboost": candidates.load,
    "sasrec": SasRecRanker.load,
    "din": DinRanker.load,
    "rosa": RosaRanker.load,
}


@cache
def world() -> World:
    return build(users=60, per_user=30, behaviours=20, history_length=6)


@cache
def trained(name: str) -> Ranker:
    return TRAIN_ONE[name](world().features, world().labels)


def arrays(predictions: Predictions) -> list[np.ndarray]:
    return [predictions.click, predictions.conversion, predictions.revenue]


@pytest.mark.parametrize("name", TRAIN_ONE)
class TestEveryRanker:
    def test_it_knows_its_name(self, name: str) -> None:
        assert trained(name).name == name

    def test_logged_impressions_get_probabilities(self, name: str) -> None:
        features = world().features
        rows = features.rows(TEST)
        for logged_position in (False, True):
            found = trained(name).predict(features, rows, logged_position=logged_position)
            for values in arrays(found):
                assert values.shape == rows.shape
                assert values.dtype == np.float32
                assert np.isfinite(values).all()
            assert np.all((found.conversion >= 0) & (found.conversion <= found.click))
            assert np.all((found.click <= 1) & (found.revenue >= 0))

    def test_candidates_get_what_the_logged_impression_got(self, name: str) -> None:
        features = world().features
        rows = features.rows(TEST)[:50]
        logged = trained(name).predict(features, rows)
        scored = trained(name).score(features, requests_of(features, rows))
        np.testing.assert_allclose(scored.click[:, 0], logged.click, atol=1e-5)
        np.testing.assert_allclose(scored.conversion[:, 0], logged.conversion, atol=1e-5)
        if name not in {"logistic", "xgboost"}:  # these take the request's price
            np.testing.assert_allclose(scored.revenue[:, 0], logged.revenue, rtol=1e-4)

    def test_no_candidate_no_score(self, name: str) -> None:
        features = world().features
        requests = requests_of(features, features.rows(TEST)[:10])
        for values in arrays(trained(name).score(features, requests)):
            assert values.shape == requests.ad.shape
            assert values.dtype == np.float32
            assert not values[requests.ad < 0].any()

    def test_scores_move_with_the_candidates(self, name: str) -> None:
        features = world().features
        requests = requests_of(features, features.rows(TEST)[:20])
        order = np.array([2, 4, 1, 0, 3])
        plain = trained(name).score(features, requests)
        moved = trained(name).score(features, permuted(requests, order))
        np.testing.assert_allclose(moved.click, plain.click[:, order], atol=1e-6)

    def test_rows_may_come_in_any_order(self, name: str) -> None:
        features = world().features
        rows = features.rows(TEST)
        shuffled = np.random.default_rng(0).permutation(rows.size)
        plain = trained(name).predict(features, rows)
        moved = trained(name).predict(features, rows[shuffled])
        np.testing.assert_allclose(moved.click, plain.click[shuffled], atol=1e-6)
        assert trained(name).predict(features, rows[:0]).click.shape == (0,)

    def test_the_same_seed_gives_the_same_predictions(self, name: str) -> None:
        features = world().features
        rows = features.rows(TEST)
        again = TRAIN_ONE[name](features, world().labels).predict(features, rows)
        for first, second in zip(
            arrays(trained(name).predict(features, rows)), arrays(again), strict=True
        ):
            np.testing.assert_array_equal(first, second)

    def test_what_is_loaded_predicts_what_was_saved(self, name: str, tmp_path: Path) -> None:
        features = world().features
        rows = features.rows(TEST)
        trained(name).save(tmp_path / "model")
        loaded = LOAD[name](tmp_path / "model")
        assert loaded.name == name
        for logged_position in (False, True):
            first = trained(name).predict(features, rows, logged_position=logged_position)
            second = loaded.predict(features, rows, logged_position=logged_position)
            for left, right in zip(arrays(first), arrays(second), strict=True):
                np.testing.assert_array_equal(left, right)

    def test_saving_twice_writes_the_same_bytes(self, name: str, tmp_path: Path) -> None:
        for folder in ("a", "b"):
            trained(name).save(tmp_path / folder)
        for path in (tmp_path / "a").iterdir():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()

    def test_a_missing_folder_is_named(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(PackageError, match="nowhere"):
            LOAD[name](tmp_path / "nowhere")

    def test_a_broken_file_is_named(self, name: str, tmp_path: Path) -> None:
        trained(name).save(tmp_path / "model")
        for path in (tmp_path / "model").glob("*.json"):
            path.write_text("{")
        with pytest.raises(PackageError, match="model"):
            LOAD[name](tmp_path / "model")

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_a_file_that_was_cut_off_is_named(
        self, name: str, share: float, tmp_path: Path
    ) -> None:
        trained(name).save(tmp_path / "model")
        for path in (tmp_path / "model").glob("*.npz"):
            whole = path.read_bytes()
            path.write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(PackageError, match="model"):
                LOAD[name](tmp_path / "model")
            path.write_bytes(whole)


@pytest.mark.parametrize("name", [name for name in TRAIN_ONE if name != "popularity"])
def test_it_learns_more_than_chance(name: str) -> None:
    features = world().features
    rows = features.rows(TRAIN)
    found = trained(name).predict(features, rows)
    assert auc(found.click, features.impressions.clicked[rows]) > 0.6


def test_popularity_by_hand() -> None:
    # rate 4 / 40: (3 + 20 x 0.1) / (10 + 20) and (1 + 2) / (30 + 20)
    rates = popularity.smoothed(np.array([3.0, 1.0]), np.array([10.0, 30.0]))
    assert rates.tolist() == pytest.approx([5 / 30, 3 / 50])


def test_metrics_name_split_and_protocol() -> None:
    found = metrics(world().features, trained("logistic"))
    assert set(found) == {
        f"{split}_full_{what}_{metric}"
        for split in ("validation", "test")
        for what in ("click", "conversion")
        for metric in ("auc", "log_loss")
    }


def test_cost_shares_of_a_log_that_pays_half_a_bid_for_a_click() -> None:
    features = world().features
    shares = fit_cost_shares(features, features.rows(TRAIN))
    assert shares.click == pytest.approx(0.5)
    assert [shares.impression, shares.conversion] == pytest.approx([0, 0], abs=1e-9)
    assert isinstance(shares, CostShares)
