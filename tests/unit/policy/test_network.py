import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from roiflow.errors import PackageError
from roiflow.policy import network, plackett_luce
from roiflow.policy import network as policy
from roiflow.policy.candidate_sets import CandidateSets
from roiflow.policy.environment import slate_rewards
from roiflow.policy.network import Network, SlatePolicy
from tests.unit.policy.worlds import PARAMS, candidate_sets, planted


def start(candidates: CandidateSets, temperature: float = 1.0) -> SlatePolicy:
    return network.start(
        candidates,
        PARAMS.model_copy(update={"temperature": temperature, "residual_bound": 2.0}),
        top_k=4,
        network=Network.start(6, np.random.default_rng(0)),
    )


def trained(candidates: CandidateSets) -> SlatePolicy:
    first = start(candidates)
    weight = np.random.default_rng(1).normal(scale=3, size=6)
    return replace(first, network=replace(first.network, output_weight=weight))


def test_starts_as_the_softmax_of_standardised_value() -> None:
    # Values 1, 2, 3 have mean 2 and deviation sqrt(2/3).
    candidates = candidate_sets(np.array([[0.01, 0.02, 0.03]]))
    z = np.array([[-1, 0, 1]]) / np.sqrt(2 / 3)
    np.testing.assert_allclose(start(candidates).logits(candidates), z, atol=1e-12)
    np.testing.assert_allclose(start(candidates, 0.5).logits(candidates), 2 * z, atol=1e-12)


def test_the_unit_of_money_changes_nothing() -> None:
    candidates = planted(20)
    dearer = replace(candidates, revenue=candidates.revenue * 1000)
    first = trained(candidates)
    second = replace(trained(dearer), network=first.network)
    np.testing.assert_allclose(first.logits(candidates), second.logits(dearer), rtol=1e-9)


def test_equal_values_leave_every_slate_equally_likely() -> None:
    candidates = candidate_sets(np.full((1, 3), 0.1))
    np.testing.assert_array_equal(start(candidates).logits(candidates), [[0, 0, 0]])


def test_order_of_the_candidates_does_not_matter() -> None:
    candidates = planted(10)
    order = np.array([2, 0, 3, 1])
    turned = CandidateSets(
        candidates.request,
        candidates.user,
        *(
            getattr(candidates, name)[:, order]
            for name in ("ad", "click", "conversion", "revenue", "expected_cost", "bid", "price")
        ),
    )
    learned = trained(candidates)
    np.testing.assert_allclose(
        learned.logits(turned), learned.logits(candidates)[:, order], rtol=1e-12
    )


def test_no_candidate_has_no_chance_and_changes_no_other() -> None:
    full = planted(6, candidates=3)
    wide = candidate_sets(np.column_stack([full.click, np.full(6, 0.9)]))
    wide = replace(wide, ad=np.where(np.arange(4) == 3, -1, wide.ad).astype(np.int32))
    learned = trained(full)
    logits = learned.logits(wide)
    assert np.all(np.isneginf(logits[:, 3]))
    np.testing.assert_allclose(logits[:, :3], learned.logits(full), rtol=1e-12)


def test_a_request_without_candidates_gets_an_empty_slate() -> None:
    candidates = replace(planted(3), ad=np.full((3, 4), -1, np.int32))
    choices, propensity = plackett_luce.sample(
        start(planted()).logits(candidates), 2, np.random.default_rng(0)
    )
    np.testing.assert_array_equal(choices, -1)
    np.testing.assert_array_equal(propensity, 1)


def test_propensities_have_a_floor() -> None:
    # One candidate a million times better than 49 others: |z| <= sqrt(K - 1) = 7.
    click = np.full((1, 50), 1e-7)
    click[0, 0] = 0.9
    candidates = candidate_sets(click)
    logits = trained(candidates).logits(candidates)
    spread = np.ptp(logits)
    assert spread <= 50 / 7 + 2 * 2.0 + 1e-9
    assert np.exp(logits - np.logaddexp.reduce(logits, axis=1)).min() > 1e-7


def test_what_was_saved_is_loaded_bit_equal(tmp_path: Path) -> None:
    candidates = planted(10)
    learned = trained(candidates)
    learned.save(tmp_path)
    loaded = policy.load(tmp_path)
    np.testing.assert_array_equal(loaded.logits(candidates), learned.logits(candidates))
    assert loaded.to_bytes() == learned.to_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        (json.dumps({"format": 9}), "format 9, this version reads format 2"),
        (json.dumps({"format": 2}), "not a slate policy"),
        (json.dumps({"format": 2, "network": {"depth": 2}}), "not a slate policy"),
        (json.dumps([1]), "not a slate policy"),
        (json.dumps({"format": 2, "network": {"hidden": [[1], [1, 2]]}}), "not a slate policy"),
        (json.dumps({"format": 2, "network": {"hidden": ["word"]}}), "not a slate policy"),
    ],
    ids=["missing", "cut off", "format", "empty", "another network", "a list", "ragged", "a word"],
)
def test_a_file_that_is_no_policy_is_named(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / network.FILE).write_text(content)
    with pytest.raises(PackageError, match=rf"policy\.json: .*{message}"):
        policy.load(tmp_path)


def test_value_order_earns_more_than_click_order() -> None:
    # The second ad is clicked half as often and sells for ten times as much.
    candidates = replace(
        candidate_sets(np.array([[0.2, 0.1]])),
        revenue=np.array([[1e6, 1e7]]),
        expected_cost=np.array([[4e4, 4e4]]),
    )
    by_value, _ = plackett_luce.greedy(start(candidates).logits(candidates), 1)
    by_click, _ = plackett_luce.greedy(candidates.click, 1)
    revenue, cost = candidates.expected_revenue, candidates.expected_cost

    def roi(choices: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> float:
        spent = slate_rewards(cost, choices)[0]
        return float((slate_rewards(revenue, choices)[0] - spent) / spent)

    assert roi(by_click) == pytest.approx(-0.5)  # 20,000 of revenue for 40,000
    assert roi(by_value) == pytest.approx(1.5)  # 100,000 of revenue for 40,000


def test_expected_reward_over_all_slates_is_largest_for_value_order() -> None:
    candidates = planted(1, candidates=5)
    value = candidates.value(1.0)
    slates = np.array(list(permutations(range(5), 2)))
    reward = slate_rewards(np.tile(value, (len(slates), 1)), slates)
    choices, _ = plackett_luce.greedy(start(candidates).logits(candidates), 2)
    np.testing.assert_array_equal(choices[0], slates[reward.argmax()])
