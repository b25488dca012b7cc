"""A catalogue over four weeks of counted purchases."""

import numpy as np
import pytest

from roiflow.data.sources.complete_journey import PANEL_WEEKS
from roiflow.simulator.panel_catalogue import Catalogue, choose_catalogue
from roiflow.simulator.panel_model import Purchases

TYPES = np.array([0, 0, 0, 0, 0, 1, 1, 2, -1])
"""Five products of type 0, two of type 1, one of type 2, one of none."""
END = PANEL_WEEKS + 1


def purchases_of(weeks: list[dict[int, int]]) -> Purchases:
    """From {product: lines} of weeks 1, 2 and so on."""
    product = [code for week in weeks for code, lines in week.items() for _ in range(lines)]
    sizes = [0, *(sum(week.values()) for week in weeks)]
    many = np.array(product, np.int64)
    return Purchases(
        household=np.zeros(many.size, np.int32),
        product=many,
        time=np.zeros(many.size, np.int64),
        sales=np.ones(many.size),
        quantity=np.ones(many.size),
        starts=np.concatenate([[0], np.cumsum(sizes)]),
        product_type=TYPES,
        households=1,
    )


def chosen(weeks: list[dict[int, int]], products: int, allowed: list[int]) -> Catalogue:
    flags = np.isin(np.arange(TYPES.size), allowed)
    return choose_catalogue(purchases_of(weeks), flags, products, 1, range(2, len(weeks) + 1))


def test_the_best_types_come_first_each_with_as_many_ads() -> None:
    week = {0: 3, 1: 5, 2: 1, 5: 20, 6: 1, 7: 2, 8: 99}
    found = chosen([week, week], 8, [*range(8)])
    # Two categories: type 1 sold 21, type 0 sold 9; type 2 sold 2; the last has no type.
    assert found.category.tolist() == [0, 0, 1, 1, 1]
    assert found.product.tolist() == [5, 6, 1, 0, 2]
    assert found.first.tolist() == [2] * 5
    assert found.last.tolist() == [END] * 5


def test_products_that_are_not_allowed_have_no_ad() -> None:
    week = {0: 3, 1: 5, 5: 20, 6: 1}
    found = chosen([week, week], 8, [0, 5])
    assert sorted(found.product.tolist()) == [0, 5]


def test_rooms_are_spread_and_only_the_most_bought_enter() -> None:
    week = {0: 9, 1: 8, 2: 7, 3: 6, 4: 5, 5: 2, 6: 1}
    found = chosen([week, week], 5, [*range(8)])  # 5 ads in 2 categories: 2 and 3
    assert found.product.tolist() == [0, 1, 5, 6]


def test_an_ad_ends_when_its_product_sells_no_more_and_never_comes_back() -> None:
    # One category with a single ad: it may stay while its product is among the two best.
    weeks = [{0: 5, 1: 4}, {1: 5, 0: 4}, {1: 5, 2: 4, 0: 1}, {0: 9}, {0: 9}]
    found = choose_catalogue(
        purchases_of(weeks), np.isin(np.arange(TYPES.size), range(5)), 1, 1, range(2, 7)
    )
    # Seen from week 2 on, a week later: 0 enters, stays as second best, and is third in week 4.
    assert found.product.tolist() == [0, 1]
    assert found.first.tolist() == [2, 4]
    assert found.last.tolist() == [4, 5]
    assert [found.live(week).sum() for week in range(2, 7)] == [1, 1, 1, 0, 0]


def test_what_is_to_come_is_not_known_before() -> None:
    found = Catalogue(
        product=np.array([7, 8]),
        category=np.array([0, 0]),
        first=np.array([2, 5]),
        last=np.array([4, 9]),
    )
    assert found.known(3).first.tolist() == [2, END]
    assert found.known(3).last.tolist() == [END, END]
    assert found.known(4).last.tolist() == [4, END]
    assert found.known(5).first.tolist() == [2, 5]
    for week in range(1, 10):
        assert found.known(week).live(week).tolist() == found.live(week).tolist()


@pytest.mark.parametrize("products", [1, 3, 4, 9])
def test_no_week_has_more_ads_than_asked(products: int) -> None:
    rng = np.random.default_rng(products)
    weeks = [{code: int(rng.integers(0, 9)) for code in range(9)} for _ in range(8)]
    found = chosen(weeks, products, [*range(8)])
    assert all(found.live(week).sum() <= products for week in range(2, 9))
    assert np.unique(found.product).size == found.product.size
    assert (np.diff(found.first) >= 0).all()
