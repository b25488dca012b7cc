"""Slates against closed forms, the propensity law and the offline engine."""

import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.errors import PackageError
from roiflow.online.store import MemoryStore
from roiflow.policy import plackett_luce
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models, Recommender
from roiflow.serving.slates import RequestContexts, Slates
from tests.unit.serving.packages import HISTORY, SLATE, TOP_K, TinyWorld

MINUTE = 60_000_000


def users(world: TinyWorld, count: int) -> list[str]:
    names: list[str] = world.built.vocabulary.ids("user").to_pylist()
    return names[:count]


def requests(count: int, name: str = "r") -> list[str]:
    return [f"{name}{number}" for number in range(count)]


def batch(world: TinyWorld, count: int, hours: int = 1) -> RequestContexts:
    """Requests of known users, spread over the hours after the snapshot."""
    late = np.arange(count) % hours * MICROS_PER_HOUR + np.arange(count) * 1_000_003 + MINUTE
    placements = [("home_top", "search", "nowhere")[number % 3] for number in range(count)]
    names = users(world, count)
    return RequestContexts(
        requests(count), names, world.built.as_of + late, placements, ["phone"] * count
    )


def recommend(recommender: Recommender, store: MemoryStore, contexts: RequestContexts) -> Slates:
    slates, degraded = recommender.recommend(contexts, store)
    assert not degraded
    return slates


def test_a_retry_gets_the_slate_that_it_missed(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    """Alone or in another batch; another request of the same user gets one of its own."""
    contexts = batch(world, 20, hours=3)
    first, again = (recommend(recommender, store, contexts) for _ in range(2))
    other = recommend(recommender, store, replace(contexts, request_ids=requests(20, "other")))
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, getattr(again, name))
    assert (first.row != other.row).any(axis=1).mean() > 0.7
    for at in range(20):
        alone = recommend(recommender, store, some(contexts, [at]))
        np.testing.assert_array_equal(alone.row[0], first.row[at])
        np.testing.assert_allclose(alone.propensity[0], first.propensity[at], rtol=1e-6)


def test_a_retry_a_second_later_gets_the_same_ads(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    """Its clock features moved a little; noise by rank instead of by ad would reshuffle some."""
    contexts = batch(world, 40)
    later = replace(contexts, event_time=contexts.event_time + 1_000_000)
    first, again = (recommend(recommender, store, one) for one in (contexts, later))
    assert (first.row == again.row).all(axis=1).mean() >= 0.95


def test_another_package_draws_another_slate(
    recommender: Recommender, store: MemoryStore, package: Package, world: TinyWorld
) -> None:
    """Same models, another digest: only the draws differ."""
    contexts = batch(world, 20)
    other = Recommender(Package(package.folder, "ab" * 32, package.description))
    found = [recommend(one, store, contexts) for one in (recommender, other)]
    assert (found[0].row != found[1].row).any(axis=1).mean() > 0.7


def test_slates_hold_different_ads_of_the_catalogue(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    slates = recommend(recommender, store, batch(world, 40, hours=3))
    ads = store.shelf.catalogue
    assert slates.row.shape == (40, SLATE)
    assert (np.diff(np.sort(slates.row, axis=1), axis=1) > 0).all()
    assert (slates.ad_ids == np.array(ads.ad_id.to_pylist(), object)[slates.row]).all()
    assert (slates.bid == ads.bid[slates.row]).all()
    assert ((slates.propensity > 0) & (slates.propensity <= 1)).all()


def test_predictions_are_the_networks_closed_form(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    contexts = batch(world, 1)
    slates = recommend(recommender, store, contexts)
    state = store.read(contexts.user_ids, int(contexts.event_time[0]))
    items = store.ad_states(int(contexts.event_time[0]))
    dense = recommender.requests(contexts, store.shelf, state, items).dense[0, slates.row[0]]
    there = state.history_ad[0] > 0
    memory = float((state.history_action[0][there] + 1)[-HISTORY:].sum())
    ad = store.shelf.ad[slates.row[0]]
    z = 0.1 * dense.mean(axis=1) + 0.01 * ad + 0.02 * memory - 2
    click = 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(slates.click[0], click, rtol=1e-5)
    np.testing.assert_allclose(slates.conversion[0], click / 10, rtol=1e-5)
    np.testing.assert_allclose(slates.revenue[0], 5e6, rtol=1e-6)
    # cost shares: 0.8 of the bid at the click, 0.1 at the conversion
    cost = (0.8 * click + 0.1 * click / 10) * slates.bid[0]
    np.testing.assert_allclose(slates.value[0], click / 10 * 5e6 - cost, rtol=1e-4)


def test_propensities_multiply_to_the_probability_of_the_slate(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    """Over all slates of one request's candidates the products add to 1, and the drawn slates'
    frequencies follow them."""
    contexts = batch(world, 1)
    slates = recommend(
        recommender, store, replace(some(contexts, [0] * 4000), request_ids=requests(4000))
    )
    product = slates.propensity.prod(axis=1)
    seen: dict[tuple[int, ...], float] = {}
    counts: dict[tuple[int, ...], int] = {}
    for row, probability in zip(slates.row.tolist(), product.tolist(), strict=True):
        assert seen.setdefault(tuple(row), probability) == pytest.approx(probability, rel=1e-6)
        counts[tuple(row)] = counts.get(tuple(row), 0) + 1
    assert len(seen) <= len(list(permutations(range(TOP_K), SLATE)))
    assert sum(seen.values()) == pytest.approx(1, abs=0.02)  # the rest was never drawn
    for slate, probability in seen.items():
        spread = 5 * np.sqrt(probability * (1 - probability) / 4000) + 5e-4
        assert counts[slate] / 4000 == pytest.approx(probability, abs=spread)


def logits(
    recommender: Recommender, store: MemoryStore, contexts: RequestContexts
) -> NDArray[np.float64]:
    """Logits (B, A) by row of the catalogue, NaN where pre-selection cut the ad."""
    as_of = int(contexts.event_time[-1])
    users = store.read(contexts.user_ids, as_of)
    found = recommender.expect(contexts, store.shelf, users, store.ad_states(as_of))
    out = np.full((len(contexts.user_ids), store.shelf.size), np.nan)
    np.put_along_axis(out, found.row, found.logits, axis=1)
    return out


def test_one_by_one_is_the_batch(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    contexts = batch(world, 12)
    whole = logits(recommender, store, contexts)
    assert (np.isfinite(whole).sum(axis=1) == TOP_K).all()
    for at in range(12):
        one = some(contexts, [at])
        np.testing.assert_allclose(logits(recommender, store, one)[0], whole[at], rtol=1e-5)


def test_permuting_requests_permutes_their_logits(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    contexts = batch(world, 10)
    order = np.random.default_rng(0).permutation(10)
    np.testing.assert_allclose(
        logits(recommender, store, contexts)[order],
        logits(recommender, store, some(contexts, order.tolist())),
        rtol=1e-5,
    )


def some(contexts: RequestContexts, rows: list[int]) -> RequestContexts:
    return RequestContexts(
        [contexts.request_ids[row] for row in rows],
        [contexts.user_ids[row] for row in rows],
        contexts.event_time[rows],
        [contexts.placement[row] for row in rows],
        [contexts.device[row] for row in rows],
    )


def test_hours_are_read_apart_and_put_back_in_order(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    """The first slot's propensity is the softmax of the request alone."""
    contexts = batch(world, 9, hours=3)
    slates = recommend(recommender, store, contexts)
    for at in range(9):
        one = some(contexts, [at])
        values = logits(recommender, store, one)[0]
        chosen = np.exp(values[slates.row[at, 0]] - np.nanmax(values))
        total = np.nansum(np.exp(values - np.nanmax(values)))
        assert slates.propensity[at, 0] == pytest.approx(chosen / total, rel=1e-5)


def test_an_unknown_user_and_placement_get_a_slate(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    contexts = RequestContexts(
        ["r"], ["nobody"], np.array([world.built.as_of]), ["mars"], ["toaster"]
    )
    slates = recommend(recommender, store, contexts)
    assert (slates.row >= 0).all()


def test_an_ineligible_ad_is_never_shown(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    """Barring the ads that were shown most leaves the others their propensity law."""
    contexts = batch(world, 40, hours=3)
    ads = store.shelf.size
    every, _ = recommender.recommend(contexts, store, np.ones(ads, bool))
    np.testing.assert_array_equal(every.row, recommend(recommender, store, contexts).row)
    favourites = np.argsort(-np.bincount(every.row.ravel(), minlength=ads))[: ads // 2]
    eligible = np.ones(ads, bool)
    eligible[favourites] = False
    slates, degraded = recommender.recommend(contexts, store, eligible)
    assert not degraded
    assert eligible[slates.row].all()
    assert (np.diff(np.sort(slates.row, axis=1), axis=1) > 0).all()
    assert ((slates.propensity > 0) & (slates.propensity <= 1)).all()


def test_a_slate_of_the_last_eligible_ads_is_certain_but_for_its_order(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    eligible = np.zeros(store.shelf.size, bool)
    eligible[[1, 4, 7]] = True
    slates, _ = recommender.recommend(batch(world, 20), store, eligible)
    np.testing.assert_array_equal(np.sort(slates.row, axis=1), np.tile([1, 4, 7], (20, 1)))
    np.testing.assert_allclose(slates.propensity[:, -1], 1.0, rtol=1e-9)


def test_slots_that_no_eligible_ad_can_fill_stay_empty(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    eligible = np.zeros(store.shelf.size, bool)
    eligible[[2, 5]] = True
    slates, _ = recommender.recommend(batch(world, 5), store, eligible)
    np.testing.assert_array_equal(np.sort(slates.row, axis=1), np.tile([-1, 2, 5], (5, 1)))


def test_no_request_gives_no_slate(recommender: Recommender, store: MemoryStore) -> None:
    slates = recommend(recommender, store, RequestContexts([], [], np.array([], np.int64), [], []))
    assert slates.row.shape == (0, SLATE)


def test_states_of_a_newer_vocabulary_are_read_as_unknown(
    recommender: Recommender, store: MemoryStore, world: TinyWorld
) -> None:
    """An older model beside a newer one on the same store: no index leaves its tables."""

    class Newer:
        def read(self, user_ids: list[str], as_of: int) -> object:
            found = store.read(user_ids, as_of)
            return replace(found, bucket_ad=found.bucket_ad + 10_000, user=found.user + 10_000)

        def ad_states(self, as_of: int) -> object:
            return store.ad_states(as_of)

        shelf = store.shelf

    contexts = batch(world, 5)
    slates, _ = recommender.recommend(contexts, Newer())  # type: ignore[arg-type]
    assert (slates.row >= 0).all()
    assert np.isfinite(slates.value).all()


def test_a_package_whose_parts_differ_is_refused(package: Package) -> None:
    about = replace(package.description, dense_names=("x", *package.description.dense_names[1:]))
    wrong = Package(package.folder, package.digest, about)
    with pytest.raises(PackageError, match=r"dense features are .* the manifest says \['x'"):
        Models(wrong)


def test_propensities_are_plackett_luce() -> None:
    """By hand: weights 1, 2, 3 -> P(third first) = 3/6, then P(first) = 1/3."""
    logits = np.log(np.array([[1.0, 2.0, 3.0]]))
    found = plackett_luce.conditional_propensities(logits, np.array([[2, 0]]))
    np.testing.assert_allclose(found, [[0.5, 1 / 3]])


ALONE = """
import sys
from pathlib import Path
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {"torch", "mlflow", "sklearn", "pandas", "xgboost", "bentoml", "airflow"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import numpy as np
import roiflow.serving.service
from roiflow.online.snapshot import load_snapshot
from roiflow.serving.package import Package
from roiflow.serving.recommender import Recommender
from roiflow.serving.slates import RequestContexts
recommender = Recommender(Package.load(Path(sys.argv[1])))
store = recommender.memory_store()
load_snapshot(store, Path(sys.argv[2]))
time = np.array([1_768_176_000_000_000])
contexts = RequestContexts(["r1"], ["u00"], time, ["search"], ["phone"])
slates, degraded = recommender.recommend(contexts, store)
print(len(slates.ad_ids[0]), degraded)
"""


def test_serving_needs_no_training_library(world: TinyWorld, package: Package) -> None:
    command = [sys.executable, "-c", ALONE, str(package.folder), str(world.features / "online")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout.split() == [str(SLATE), "False"], answer.stderr


def test_a_remembered_history_is_what_encoding_it_anew_gives(
    package: Package, store: MemoryStore, world: TinyWorld
) -> None:
    """Each is encoded once, in whatever company it comes, and again once it was forgotten."""
    plain, one = (Recommender(Package.load(package.folder), remembers=r) for r in (False, True))
    encoder, encoded = one.models._encoder, list[int]()

    class Counting:
        def run(self, names: list[str], feed: dict[str, NDArray[np.int64]]) -> list[Any]:
            encoded.append(feed["length"].size)
            found: list[Any] = encoder.run(names, feed)
            return found

    one.models._encoder = Counting()
    contexts = batch(world, 12)
    whole = logits(plain, store, contexts)
    for rows in (range(12), range(12), [3, 4]):
        some_ = some(contexts, list(rows))
        np.testing.assert_allclose(logits(one, store, some_), whole[list(rows)], rtol=1e-6)
    different = sum(encoded)
    assert 2 < different <= 12
    assert one.models._memories is not None
    one.models._memories.most = 12
    logits(one, store, contexts)
    assert sum(encoded) == 2 * different
