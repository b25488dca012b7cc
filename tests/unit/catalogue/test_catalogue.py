"""Changes of the catalogue: in any order the same, and refused by name where they are none."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roiflow import columns as c
from roiflow.catalogue.catalogue import NEVER, Catalogue
from roiflow.catalogue.updates import CHANGE, TEXTS, UPDATE, UPDATES
from roiflow.data.schemas import ADS
from roiflow.errors import CatalogueError

Row = dict[str, Any]


def row(change: str, ad: str, at: int, known: int | None = None, **values: Any) -> Row:
    said = {
        CHANGE: change,
        UPDATE: f"{change}-{ad}-{at}-{known}",
        c.EVENT_TIME: at,
        c.KNOWN_TIME: at if known is None else known,
        c.AD: ad,
    }
    return said | values


def upsert(ad: str, at: int, known: int | None = None, **values: Any) -> Row:
    whole = {name: f"{name} of {ad}" for name in TEXTS} | {c.PRICE: 100, c.BID: 10}
    return row("upsert", ad, at, known, **(whole | values))


def table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=UPDATES)


def catalogue(*rows: Row) -> Catalogue:
    return Catalogue.of(table(rows))


def same(one: Catalogue, other: Catalogue) -> bool:
    arrays = ("price", "bid", "budget", "start", "end")
    return (
        one.updates.equals(other.updates)
        and one.ad_id.equals(other.ad_id)
        and all(one.texts[name].equals(other.texts[name]) for name in TEXTS)
        and all((getattr(one, name) == getattr(other, name)).all() for name in arrays)
    )


def test_an_ad_is_what_was_last_said_of_each_thing() -> None:
    found = catalogue(
        upsert("a", 10, price_micros=100, bid_micros=7, daily_budget_micros=50),
        row("price", "a", 30, price_micros=300),
        row("price", "a", 20, price_micros=200),
        row("bid", "a", 20, bid_micros=8),
        row("budget", "a", 40),
        upsert("b", 5),
        row("end", "b", 60),
    )
    assert found.ad_id.to_pylist() == ["a", "b"]
    assert found.texts[c.CATEGORY].to_pylist() == ["category_id of a", "category_id of b"]
    assert found.price.tolist() == [300, 100]
    assert found.bid.tolist() == [8, 10]
    assert found.budget.tolist() == [0, 0]
    assert found.start.tolist() == [10, 5]
    assert found.end.tolist() == [NEVER, 60]
    assert found.known_time == 60


def test_a_later_upsert_says_all_anew_and_an_earlier_one_nothing() -> None:
    first, price, last = (
        upsert("a", 10),
        row("price", "a", 20, price_micros=5),
        upsert("a", 30, price_micros=9, ends_at=77),
    )
    found = catalogue(last, first, price)
    assert (found.price.tolist(), found.end.tolist()) == ([9], [77])
    assert found.updates.num_rows == 1


def test_an_ad_that_came_back_has_no_end() -> None:
    found = catalogue(upsert("a", 10), row("end", "a", 20), upsert("a", 30))
    assert found.end.tolist() == [NEVER]
    again = found.changed(table([row("end", "a", 25)]))
    assert again.end.tolist() == [NEVER]


def test_what_is_said_of_an_ad_before_it_is_described_waits() -> None:
    early = catalogue(upsert("b", 1), row("bid", "a", 20, bid_micros=99))
    assert early.ad_id.to_pylist() == ["b"]
    assert early.changed(table([upsert("a", 10)])).bid.tolist() == [99, 10]


def test_of_equal_times_the_later_known_then_the_greater_id_counts() -> None:
    found = catalogue(
        upsert("a", 10, known=12, bid_micros=1),
        row("bid", "a", 10, known=13, bid_micros=2),
        row("price", "a", 10, known=14, price_micros=1, event_id="x"),
        row("price", "a", 10, known=14, price_micros=2, event_id="y"),
    )
    assert (found.bid.tolist(), found.price.tolist()) == ([2], [2])


TIMES = st.integers(1, 6)
CHANGED = st.one_of(
    st.builds(
        lambda ad, at, late, bid, budget: upsert(
            ad, at, at + late, bid_micros=bid, daily_budget_micros=budget
        ),
        st.sampled_from("abc"), TIMES, st.integers(0, 3), st.integers(0, 3),
        st.one_of(st.none(), st.integers(1, 3)),
    ),
    st.builds(
        lambda ad, at, late, price: row("price", ad, at, at + late, price_micros=price),
        st.sampled_from("abc"), TIMES, st.integers(0, 3), st.integers(0, 3),
    ),
    st.builds(
        lambda ad, at, late: row("end", ad, at, at + late),
        st.sampled_from("ab"), TIMES, st.integers(0, 3),
    ),
)  # fmt: skip


@given(st.lists(CHANGED, max_size=12), st.data())
def test_late_doubled_and_out_of_order_changes_give_the_same_catalogue(
    rows: list[Row], data: st.DataObject
) -> None:
    rows = [upsert("z", 1), *rows]  # never ended, so that nothing is refused
    expected = catalogue(*rows)
    shuffled = data.draw(st.permutations(rows + data.draw(st.lists(st.sampled_from(rows)))))
    assert same(catalogue(*shuffled), expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=3)))
    step = catalogue(upsert("z", 1))
    for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True):
        step = step.changed(table(shuffled[start:end]))
    assert same(step, expected)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (upsert("a", 1, category_id=None), "ad 'a': no category_id"),
        (upsert("a", 1, category_id=""), "ad 'a': no category_id"),
        (upsert("a", 1, price_micros=-1), "ad 'a': price_micros -1"),
        (row("price", "a", 1), "ad 'a': price_micros None"),
        (row("bid", "a", 1, bid_micros=-5), "ad 'a': bid_micros -5"),
        (upsert("a", 1, daily_budget_micros=0), "ad 'a': daily_budget_micros 0"),
        (row("budget", "a", 1, daily_budget_micros=-3), "ad 'a': daily_budget_micros -3"),
        (row("remove", "a", 1), "ad 'a': change 'remove', expected upsert, end, price, bid, bud"),
    ],
)
def test_what_is_no_change_is_refused_by_name(wrong: Row, said: str) -> None:
    before = catalogue(upsert("z", 1))
    with pytest.raises(CatalogueError, match=said):
        catalogue(wrong)
    with pytest.raises(CatalogueError, match=said):
        before.changed(table([wrong]))


def test_what_would_empty_the_catalogue_is_refused() -> None:
    two = catalogue(upsert("a", 1), upsert("b", 1))
    with pytest.raises(CatalogueError, match=r"2 changes \(of a, b\) would leave none of 2 ads"):
        two.changed(table([row("end", "a", 5), row("end", "b", 5)]))
    one = two.changed(table([row("end", "a", 5)]))
    with pytest.raises(CatalogueError, match="would leave none of 1 ads"):
        one.changed(table([row("end", "b", 6)]))
    assert one.changed(table([row("end", "b", 6), upsert("c", 6)])).left(6) == 1


def test_an_end_that_is_still_to_come_empties_nothing() -> None:
    later = catalogue(upsert("a", 1)).changed(table([row("end", "a", 5, ends_at=100)]))
    assert (later.left(99), later.left(100)) == (1, 0)


def test_the_contracts_ads_and_back() -> None:
    ads = catalogue(
        upsert("b", 5, daily_budget_micros=50), upsert("a", 5), upsert("c", 5), row("end", "c", 7)
    ).ads(9)
    assert ads.schema.equals(ADS)
    assert ads[c.AD].to_pylist() == ["a", "b"]
    assert ads[c.DAILY_BUDGET].to_pylist() == [None, 50]
    assert ads[c.CREATED_AT].cast(pa.int64()).to_pylist() == [5, 5]
    assert Catalogue.of_ads(ads).ads(9).equals(ads)


def test_a_snapshot_may_say_0_for_no_budget() -> None:
    ads = catalogue(upsert("a", 5)).ads(9)
    at = ads.schema.get_field_index(c.DAILY_BUDGET)
    zero = ads.set_column(at, ADS.field(c.DAILY_BUDGET), pa.array([0], pa.int64()))
    assert Catalogue.of_ads(zero).budget.tolist() == [0]


def test_an_empty_one() -> None:
    none = Catalogue.empty()
    assert (none.size, none.left(0), none.known_time) == (0, 0, -1)
    assert none.changed(table([upsert("a", 1)])).size == 1
    assert np.array_equal(none.terms.start, [])


def test_a_change_of_twenty_thousand_ads_takes_no_second() -> None:
    rows = table([upsert(f"a{number:05d}", 1) for number in range(20_000)])
    whole = Catalogue.of_sound(rows)
    started = time.perf_counter()
    whole.changed(table([row("price", "a00007", 5, price_micros=1)]))
    assert time.perf_counter() - started < 1.0
