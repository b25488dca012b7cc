"""A response model over purchases that can be counted by hand, and over planted ones."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from roiflow.simulator import panel_model
from roiflow.simulator.panel_model import FEATURES, Pairs, Purchases

TYPES = np.array([0, 0, 1, -1])  # products 0 and 1 are of type 0, 2 of type 1, 3 of none
LINES = [
    # week, household, product, sales, quantity
    (1, 0, 0, 2.0, 1.0),
    (1, 1, 2, 1.0, 1.0),
    (2, 0, 0, 2.0, 1.0),
    (2, 0, 1, 5.0, 1.0),
    (3, 0, 0, 8.0, 2.0),
    (3, 0, 0, 4.0, 1.0),
    (3, 1, 3, 9.0, 1.0),
    (4, 1, 0, 4.0, 1.0),
    (4, 2, 2, 1.0, 1.0),
]


def purchases_of(
    lines: list[tuple[int, int, int, float, float]],
    households: int,
    types: NDArray[np.int64] = TYPES,
) -> Purchases:
    """Lines by week."""
    week, household, product, sales, quantity = map(np.array, zip(*lines, strict=True))
    return Purchases(
        household=household.astype(np.int32),
        product=product.astype(np.int64),
        time=week.astype(np.int64),
        sales=sales.astype(np.float64),
        quantity=quantity.astype(np.float64),
        starts=np.searchsorted(week, np.arange(week.max() + 2)),
        product_type=types,
        households=households,
    )


@pytest.fixture
def purchases() -> Purchases:
    return purchases_of(LINES, 3)


@pytest.fixture
def known(purchases: Purchases) -> dict[str, NDArray[np.float32]]:
    """Features of week 4 from the three weeks before, of products 0 and 2."""
    values = panel_model.features(purchases, 4, 3, np.array([0, 2]))
    assert values.shape == (3, 2, len(FEATURES))
    return {name: values[:, :, at] for at, name in enumerate(FEATURES)}


def test_who_shops_and_what_is_bought(purchases: Purchases) -> None:
    assert purchases.shoppers(4).tolist() == [False, True, True]
    assert purchases.bought(4, np.array([2, 0])).tolist() == [[0, 0], [0, 1], [1, 0]]


def test_smoothed_rates_are_counted_in_weeks(known: dict[str, NDArray[np.float32]]) -> None:
    # Five household-weeks of shopping; type 0 bought in 3 of them, all by household 0.
    popularity, type_popularity = (3 + 0.5) / (5 + 1), (3 + 0.5) / (5 + 1)
    assert known["popularity"][0, 0] == pytest.approx(math.log(popularity))
    assert known["type_rate"][0, 0] == pytest.approx(math.log((3 + type_popularity) / (3 + 1)))
    assert known["type_rate"][1, 0] == pytest.approx(math.log((0 + type_popularity) / (2 + 1)))
    assert known["type_rate"][2, 0] == pytest.approx(math.log(type_popularity))
    assert known["product_share"][0, 0] == pytest.approx(math.log((3 + 1.0) / (3 + 1)))
    assert known["product_rate"][1, 1] == pytest.approx(math.log((1 + 1.5 / 6) / (2 + 1)))


def test_recency_halves_every_two_weeks(known: dict[str, NDArray[np.float32]]) -> None:
    assert known["product_recent"][0, 0] == pytest.approx(1 + 2**-0.5 + 0.5)
    assert known["product_recent"][1, 1] == pytest.approx(0.5)
    assert known["product_last_week"].tolist() == [[1, 0], [0, 0], [0, 0]]
    assert known["type_last_week"].tolist() == [[1, 0], [0, 0], [0, 0]]


def test_trends_compare_last_week_with_all(known: dict[str, NDArray[np.float32]]) -> None:
    # Product 0: bought by 1 household last week, when 2 shopped, at a mean rate of 3 in 5.
    assert known["product_trend"][0, 0] == pytest.approx(math.log((1 + 5) / (2 * 3 / 5 + 5)))
    # Unit price 12 / 3 last week, 16 / 5 in all three weeks; product 2 has none last week.
    assert known["price_trend"][0].tolist() == pytest.approx([math.log(4 / 3.2), 0.0])


def test_activity_counts_weeks_and_lines(known: dict[str, NDArray[np.float32]]) -> None:
    assert known["visits"][:, 0].tolist() == pytest.approx([math.log(4), math.log(3), 0.0])
    assert known["breadth"][:, 1].tolist() == pytest.approx([math.log(6), math.log(3), 0.0])


def test_similarity_is_a_taste_for_what_alike_households_buy() -> None:
    # Households 0 and 1 buy both types, household 2 type 1 alone: the only way to product 0.
    rows = [(1, 0, 0, 1.0, 1.0), (1, 0, 2, 1.0, 1.0), (1, 1, 0, 1.0, 1.0), (1, 1, 2, 1.0, 1.0)]
    found = purchases_of([*rows, (1, 2, 2, 1.0, 1.0), (2, 2, 2, 1.0, 1.0)], 4)
    value = panel_model.features(found, 2, 1, np.array([0]))[:, 0, FEATURES.index("similarity")]
    cosine = 2 / math.sqrt(2 * 3)  # of the buyers of product 0 and of type 1
    assert value.tolist() == pytest.approx(
        [math.sqrt(cosine / 2), math.sqrt(cosine / 2), math.sqrt(cosine), 0.0]
    )


def test_features_do_not_see_their_own_week(purchases: Purchases) -> None:
    later = [(week, 2 - who, 2, 99.0, 1.0) if week == 4 else (week, who, *rest)
             for week, who, *rest in LINES]  # fmt: skip
    changed = purchases_of(later, 3)  # type: ignore[arg-type]
    products = np.array([0, 1, 2])
    assert np.array_equal(
        panel_model.features(purchases, 4, 3, products),
        panel_model.features(changed, 4, 3, products),
    )


def test_one_binary_feature_gives_the_log_odds_ratio() -> None:
    # 30 of 40 where the feature is set, 10 of 60 where it is not.
    values = np.repeat([1.0, 1.0, 0.0, 0.0], [30, 10, 10, 50])[:, None]
    label = np.repeat([True, False, True, False], [30, 10, 10, 50])
    intercept, slope = panel_model.logistic(values, label, np.ones(100), 1e-9)
    assert intercept == pytest.approx(math.log(10 / 50), abs=1e-6)
    assert slope[0] == pytest.approx(math.log(30 / 10) - math.log(10 / 50), abs=1e-6)


def test_a_weight_counts_like_copies() -> None:
    rng = np.random.default_rng(1)
    values, label = rng.standard_normal((80, 3)), rng.random(80) < 0.3
    copies = rng.integers(1, 4, 80)
    weighted = panel_model.logistic(values, label, copies.astype(np.float64), 2.0)
    copied = panel_model.logistic(
        np.repeat(values, copies, axis=0), np.repeat(label, copies), np.ones(copies.sum()), 2.0
    )
    assert weighted[0] == pytest.approx(copied[0], abs=1e-9)
    assert weighted[1] == pytest.approx(copied[1], abs=1e-9)


def test_the_optimum_is_where_the_gradient_vanishes() -> None:
    rng = np.random.default_rng(2)
    values, label = 5 * rng.standard_normal((500, 4)), rng.random(500) < 0.02
    intercept, slope = panel_model.logistic(values, label, np.ones(500), 1.0)
    p = 1 / (1 + np.exp(-(intercept + values @ slope)))
    assert (p - label).sum() == pytest.approx(0.0, abs=1e-6)
    assert (p - label) @ values + slope == pytest.approx(np.zeros(4), abs=1e-5)


def test_labels_that_are_all_alike_give_half_a_case() -> None:
    intercept, slope = panel_model.logistic(np.ones((9, 2)), np.zeros(9, bool), np.ones(9), 1.0)
    assert intercept == pytest.approx(math.log(0.5 / 9.5))
    assert slope.tolist() == [0.0, 0.0]


def planted(weeks: int, seed: int) -> tuple[Purchases, NDArray[np.float64]]:
    """100 households that buy 24 products with chances of their own, and chances (100, 24)."""
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-(-1.5 + 1.5 * rng.standard_normal((100, 24)))))
    cells = np.argwhere(rng.random((weeks, 100, 24)) < chance)
    lines = [(int(week) + 1, int(who), int(what), 1.0, 1.0) for week, who, what in cells]
    others = [(week + 1, who, 24, 1.0, 1.0) for week in range(weeks) for who in range(100)]
    types = np.append(np.arange(24) // 4, -1)
    return purchases_of(sorted(lines + others), 100, types), chance


def pairs_of(purchases: Purchases, week: int, products: NDArray[np.int64]) -> Pairs:
    values = panel_model.features(purchases, week, 8, products)
    return panel_model.pairs(purchases, week, values, products)


def test_an_ads_features_do_not_depend_on_the_other_ads() -> None:
    purchases, _ = planted(14, 3)
    every, some = np.arange(24), np.array([3, 11, 20])
    of_every = panel_model.features(purchases, 14, 8, every)
    assert np.array_equal(of_every[:, some], panel_model.features(purchases, 14, 8, some))


def test_planted_chances_are_found_and_foretell_a_later_week() -> None:
    purchases, chance = planted(14, 3)
    products = np.arange(24)
    parts = [pairs_of(purchases, week, products) for week in (11, 12, 13)]
    model = panel_model.fit(parts, np.random.default_rng(0))
    week = pairs_of(purchases, 14, products)
    found = panel_model.held_out(model, week)
    counted = np.sum([purchases.bought(week, products) for week in range(6, 14)], axis=0)
    assert found.pairs == 2400
    assert panel_model.area_under_curve(counted.ravel(), week.bought) - 0.01 < found.auc
    assert found.auc < panel_model.area_under_curve(chance.ravel(), week.bought)
    assert found.pcoc == pytest.approx(1.0, abs=0.08)
    p = chance.ravel()
    least = -np.mean(np.where(week.bought, np.log(p), np.log1p(-p)))
    assert least < found.log_loss < least + 0.5 * (found.base_log_loss - least)


def test_sampled_negatives_do_not_shift_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    purchases, _ = planted(14, 4)
    products = np.arange(24)
    parts = [pairs_of(purchases, week, products) for week in (11, 12, 13)]
    whole = panel_model.fit(parts, np.random.default_rng(0))
    monkeypatch.setattr(panel_model, "MAX_NEGATIVES", 2000)
    sampled = panel_model.fit(parts, np.random.default_rng(0))
    assert sampled.base_rate == pytest.approx(whole.base_rate, rel=0.05)
    both = [
        1 / (1 + np.exp(-model.log_odds(np.concatenate([part.features for part in parts]))))
        for model in (whole, sampled)
    ]
    assert both[1].mean() == pytest.approx(both[0].mean(), rel=0.05)
    assert np.corrcoef(both[0], both[1])[0, 1] > 0.98


def test_area_under_curve_counts_pairs_and_half_of_ties() -> None:
    score, label = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True])
    assert panel_model.area_under_curve(score, label) == (1 + 1 + 0.5 + 1) / 4
    assert math.isnan(panel_model.area_under_curve(score, np.zeros(4, bool)))


def test_a_model_that_knows_only_the_rate_is_as_good_as_the_rate() -> None:
    bought = np.array([True, False, False, False])
    nothing = np.zeros((4, len(FEATURES)), np.float32)
    model = panel_model.fit([Pairs(nothing, bought)], np.random.default_rng(0))
    found = panel_model.held_out(model, Pairs(nothing, bought))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found.log_loss == pytest.approx(entropy, abs=1e-6)
    assert found.base_log_loss == pytest.approx(entropy)
    assert found.auc == 0.5
    assert found.pcoc == pytest.approx(1.0, abs=1e-6)
    assert found.purchases == 1
