"""A package on logged slates: its closed-form networks give the answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roiflow.artefacts.evaluation import RoiEstimate
from roiflow.evaluation import replay as replaying
from roiflow.evaluation.replay import Addressed, as_learnt, compare, on_log, replay
from roiflow.evaluation.target import LoggedWeek, TargetOnLog
from roiflow.evaluation.weekly import test_slates
from roiflow.features.table import AD_ATTRIBUTES
from roiflow.ranking.serving_form import histories
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models
from tests.unit.evaluation.weeks import EVALUATE, PARAMS, Evaluated, whole
from tests.unit.serving.packages import TOP_K, TinyWorld

GATE = PARAMS.screen.model_copy(update={"resamples": 100})


def test_replay_predicts_what_the_package_says(evaluated: Evaluated, package: Package) -> None:
    features, engine = evaluated.features, evaluated.engine
    slates, _ = test_slates(features, evaluated.labels, 3, EVALUATE)
    rows, catalogue = slates.row[:20], features.catalogues[-1]
    models = Models(package)
    sets, _ = whole(replay(models, features, engine, rows))
    assert sets.ad.shape == (20, TOP_K)
    requests = engine.requests(features, rows, catalogue)
    history = histories(
        features.events, requests.user, requests.history_end, models.about.history_length
    )
    memory = np.where(history.ad > 0, history.action + 1, 0).sum(axis=1)
    column = np.array([[list(catalogue.ad).index(ad) for ad in row] for row in sets.ad])
    dense = requests.dense[np.arange(20)[:, None], column]
    z = 0.1 * dense.mean(axis=2) + 0.01 * sets.ad + 0.02 * memory[:, None]
    np.testing.assert_allclose(sets.click, 1 / (1 + np.exp(2 - z)), rtol=1e-4)


def test_parts_change_nothing(
    evaluated: Evaluated, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slate is answered once, in its place, however many are worked on together."""
    slates, _ = test_slates(evaluated.features, evaluated.labels, 3, EVALUATE)
    given = (Models(package), evaluated.features, evaluated.engine, slates.row[:50])
    sets, logits = whole(replay(*given))
    monkeypatch.setattr(replaying, "CHUNK_BYTES", 1)
    parts = list(replay(*given))
    assert len(parts) == 50
    again, logits_again = whole(parts)
    np.testing.assert_array_equal(again.ad, sets.ad)
    np.testing.assert_allclose(again.click, sets.click, rtol=1e-6)
    np.testing.assert_allclose(logits_again, logits, rtol=1e-4, atol=1e-6)


def test_threads_change_no_bit(
    evaluated: Evaluated, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "CHUNK_BYTES", 1 << 14)
    slates, _ = test_slates(evaluated.features, evaluated.labels, 3, EVALUATE)
    given = (Models(package), evaluated.features, evaluated.engine, slates.row)
    alone, beside = (list(replay(*given, threads)) for threads in (1, 3))
    assert len(alone) == len(beside) > 6
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one.at, other.at)
        np.testing.assert_array_equal(one.logits, other.logits)
        np.testing.assert_array_equal(one.sets.click, other.sets.click)


def test_the_kept_target_comes_back(evaluated: Evaluated, tmp_path: Path) -> None:
    kept = evaluated.result.target
    kept.write(tmp_path / "one.npz")
    kept.write(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    back = TargetOnLog.read(tmp_path / "one.npz")
    for name in ("row", "propensity", "looks", "support", "drawn", "charge"):
        np.testing.assert_array_equal(getattr(back, name), getattr(kept, name))
    for name in ("target", "logged", "cascade_target", "cascade_logged"):
        np.testing.assert_array_equal(getattr(back.revenue, name), getattr(kept.revenue, name))
        np.testing.assert_array_equal(getattr(back.cost, name), getattr(kept.cost, name))
    for name in ("marginal", "exposure", "presence", "kind"):
        np.testing.assert_array_equal(getattr(back.chances, name), getattr(kept.chances, name))


def _compare(
    evaluated: Evaluated, challenger: Package, champion: Package
) -> dict[str, RoiEstimate]:
    features, engine = evaluated.features, evaluated.engine
    slates, _ = test_slates(features, evaluated.labels, 3, EVALUATE)
    week = LoggedWeek.of(features, evaluated.labels)
    new, old = (
        on_log(Models(package), features, engine, slates, week, EVALUATE, threads=2)
        for package in (challenger, champion)
    )
    return compare(new, old, slates, GATE, EVALUATE, 1.0)


def test_a_package_has_no_lift_over_itself(evaluated: Evaluated, package: Package) -> None:
    for estimate in _compare(evaluated, package, package).values():
        assert estimate.lift.value == pytest.approx(0.0, abs=1e-12)
        if estimate.lift.low is not None:
            assert estimate.lift.low == pytest.approx(0.0, abs=1e-12)
            assert estimate.lift.high == pytest.approx(0.0, abs=1e-12)


def test_two_packages_are_compared_both_ways(
    evaluated: Evaluated, package: Package, champion: Package
) -> None:
    forth = _compare(evaluated, package, champion)["ips"].lift.value
    back = _compare(evaluated, champion, package)["ips"].lift.value
    assert forth is not None
    assert back is not None
    assert (1 + forth) * (1 + back) == pytest.approx(1.0)
    assert abs(forth) > 1e-6


def test_two_packages_draw_alike_for_the_ads_that_they_share() -> None:
    """By seed, slate and ad, however many candidates each has and wherever they stand."""
    row = np.array([4, 9])
    wide = Addressed.of(7, row, np.array([[1, 2, 3], [5, 6, -1]], np.int32))
    narrow = Addressed.of(7, row, np.array([[3, 1], [6, 5]], np.int32))
    for _ in range(2):
        one, other = wide.gumbel(size=(2, 3)), narrow.gumbel(size=(2, 2))
        np.testing.assert_array_equal(other, [[one[0, 2], one[0, 0]], [one[1, 1], one[1, 0]]])
    again = Addressed.of(7, row, wide.ad)
    first, second = again.gumbel(size=(2, 3)), again.gumbel(size=(2, 3))
    assert (first != second).all()
    assert (Addressed.of(8, row, wide.ad).gumbel(size=(2, 3)) != first).all()
    many = Addressed.of(7, np.arange(200_000), np.ones((200_000, 1), np.int32))
    assert many.gumbel(size=(200_000, 1)).mean() == pytest.approx(np.euler_gamma, abs=0.01)


def test_a_package_s_own_attributes_of_an_ad_stand_before_what_is_known_since(
    world: TinyWorld,
) -> None:
    """Row 1 has shown its category since the package was made; row 2 came later, of a campaign that
    is newer, too.
    """
    ours = np.array([[0] * 5, [5, 1, 1, 1, 1], [2, 9, 1, 1, 1]], np.int32)
    sizes = dict.fromkeys(AD_ATTRIBUTES, 6)
    learnt = replace(world.built.engine.plan, attributes=np.zeros((2, 5), np.int32), sizes=sizes)
    assert as_learnt(ours, learnt).tolist() == [[0] * 5, [0] * 5, [2, 0, 1, 1, 1]]
    assert as_learnt(ours[:1], learnt).tolist() == [[0] * 5]
