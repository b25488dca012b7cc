import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from roiflow.data.split import TEST, TRAIN, VALIDATION
from roiflow.errors import ContractError
from roiflow.features.hashing import hash_ids
from roiflow.features.kernels import low_hour
from roiflow.features.rows import Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import Built, build
from tests.feature_world import (
    DAY,
    HOUR,
    LAST,
    PARAMS,
    TEST_START,
    WEEKS,
    World,
    at,
    random_world,
    reference,
)

NOON = TEST_START + 2 * DAY + 12 * HOUR
"""A whole hour: the closed hours before it end where the user's own rows do."""


def only_row(built: Built, time: int) -> int:
    (row,) = np.flatnonzero(built.features.impressions.event_time == time)
    return int(row)


def named(built: Built, time: int) -> dict[str, float]:
    dense = built.features.impressions.dense[only_row(built, time)]
    return dict(zip(built.features.dense_names, dense.tolist(), strict=True))


def changed(one: Built, other: Built, time: int = NOON) -> set[str]:
    before, after = named(one, time), named(other, time)
    return {name for name in before if before[name] != after[name]}


@pytest.fixture
def calm() -> World:
    """A clicked impression in training; one that can convert, and the asked one at noon."""
    world = World().show("u1", "a1", at(0, 9), clicked=True).show("u1", "a2", at(0, 9))
    world = world.show("u1", "a1", NOON - HOUR // 2)
    return world.show("u1", "a1", NOON)


def test_every_kind_of_feature_worked_by_hand(tmp_path: Path) -> None:
    world = World()
    for hour in range(4):  # training: 4 shown, 1 clicked, converted: ctr 1/4, cvr 1
        world = world.show("u2", "a3", at(0, hour), clicked=hour == 0)
    world = world.convert("i0", at(0, 5), revenue=6_000_000)
    early, late = NOON - 3 * DAY, NOON - 2 * HOUR
    world = world.show("u1", "a1", early, clicked=True).show("u1", "a3", late, placement="top")
    world = world.convert("i4", late, revenue=5_000_000)
    world = world.behave("u1", "a3", early, action="cart").behave("u1", "a1", late)
    world = world.behave("u1", "a1", NOON - 9 * DAY)
    built = world.show("u1", "a1", NOON).built(tmp_path)
    log = math.log1p

    def rate(hits: int, tries: int, prior: float) -> float:
        return (hits + 20 * prior) / (tries + 20)

    ctr, cvr = 1 / 4, 1.0
    expected = {
        "user_ctr_56d": rate(1, 2, ctr),
        "user_conversions_56d": log(1),
        "user_behaviours_56d": log(3),
        "user_category_clicks_56d": log(1),  # both ads are shoes
        "user_category_ctr_56d": rate(1, 2, ctr),
        "user_category_behaviours_7d": log(2),
        "user_category_behaviours_56d": log(3),
        "user_advertiser_ctr_56d": rate(1, 1, ctr),
        "user_advertiser_behaviours_56d": log(2),
        "user_ad_clicks_56d": log(1),
        "user_ad_ctr_56d": rate(1, 1, ctr),
        "user_ad_behaviours_7d": log(1),
        "user_ad_behaviours_56d": log(2),
        "ad_ctr_56d": rate(1, 1, ctr),
        "ad_cvr_56d": rate(1, 1, cvr),
        "campaign_ctr_56d": rate(1, 1, ctr),
        "campaign_cvr_56d": rate(1, 1, cvr),
        "category_cvr_56d": rate(2, 2, cvr),  # u2's shoes of training too
        "log_price": log(20 + LAST.number / 1e6),
        "log_bid": log(0.5),
        "log_hours_since_behaviour": log(2),
    }
    found = named(built, NOON)
    assert list(found) == list(expected)
    assert_allclose(list(found.values()), list(expected.values()), rtol=1e-6, atol=1e-6)


CONVERSION = {"user_conversions_56d", "ad_cvr_56d", "campaign_cvr_56d", "category_cvr_56d"}
BEHAVIOUR = {
    "user_behaviours_56d",
    "user_category_behaviours_7d",
    "user_category_behaviours_56d",
    "user_advertiser_behaviours_56d",
    "user_ad_behaviours_7d",
    "user_ad_behaviours_56d",
    "log_hours_since_behaviour",
}
CLICK = {
    "user_ctr_56d",
    "user_category_clicks_56d",
    "user_category_ctr_56d",
    "user_advertiser_ctr_56d",
    "user_ad_clicks_56d",
    "user_ad_ctr_56d",
    "ad_ctr_56d",
    "ad_cvr_56d",
    "campaign_ctr_56d",
    "campaign_cvr_56d",
    "category_cvr_56d",
}
"""A rate changes with an impression as with a click."""


def with_conversion(world: World, known: int) -> World:
    return world.convert("i2", NOON - HOUR, known)


def with_behaviour(world: World, known: int) -> World:
    return world.behave("u1", "a1", NOON - HOUR, known)


def with_intent(world: World, known: int) -> World:
    return world.behave("u1", "a1", NOON - HOUR, known, action="purchase")


def with_clicked_impression(world: World, known: int) -> World:
    return world.show("u1", "a1", NOON - HOUR, known, clicked=True)


def with_click_apart(world: World, known: int) -> World:
    """The click of the impression shown a while before the asked one."""
    rows = [dict(row) for row in world.impressions]
    rows[2] |= {"clicked": True, "click_known_time": known}
    return replace(world, impressions=rows)


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (with_conversion, CONVERSION),
        (with_behaviour, BEHAVIOUR),
        (with_intent, BEHAVIOUR),
        (with_clicked_impression, CLICK),
        (with_click_apart, CLICK),
    ],
)
def test_a_row_counts_from_the_microsecond_in_which_it_was_known(  # type: ignore[no-untyped-def]
    tmp_path: Path, calm: World, add, expected: set[str]
) -> None:
    calm = calm.convert("i0", at(0, 10), revenue=5_000_000)
    base = calm.built(tmp_path / "base")
    late = add(calm, NOON).built(tmp_path / "late")
    early = add(calm, NOON - 1).built(tmp_path / "early")
    assert changed(base, late) == set()
    assert changed(base, early) == expected
    histories = [
        built.features.impressions.history_end[only_row(built, NOON)]
        - built.features.impressions.history_start[only_row(built, NOON)]
        for built in (base, late, early)
    ]
    assert histories == [0, 0, int(add in (with_behaviour, with_intent))]


def test_an_item_counts_closed_hours_only(tmp_path: Path, calm: World) -> None:
    asked = NOON + HOUR // 2
    calm = calm.convert("i0", at(0, 10)).show("u2", "a3", asked)
    base = calm.built(tmp_path / "base")
    open_hour = calm.show("u3", "a3", NOON, clicked=True).built(tmp_path / "open")
    closed = calm.show("u3", "a3", NOON - 1, clicked=True).built(tmp_path / "closed")
    assert changed(base, open_hour, asked) == set()
    assert changed(base, closed, asked) == {name for name in CLICK if not name.startswith("user")}


def test_windows_open_at_a_day(tmp_path: Path, calm: World) -> None:
    base, opens = calm.built(tmp_path / "without"), NOON // DAY * DAY - 7 * DAY
    inside, outside = (
        changed(base, calm.behave("u1", "a1", known).built(tmp_path / str(known)))
        for known in (opens, opens - 1)
    )
    assert inside == BEHAVIOUR
    assert outside == {name for name in BEHAVIOUR if not name.endswith("_7d")}
    assert [low_hour(24 * 100 + hour, 56) for hour in (0, 5, 23)] == [24 * 44] * 3


def test_a_conversion_after_the_attribution_days_is_a_label_but_no_counter(tmp_path: Path) -> None:
    shown = at(6)
    world = World().show("u1", "a1", at(0), clicked=True).show("u1", "a1", shown, clicked=True)
    world = world.show("u1", "a1", shown + 8 * DAY)
    within = world.convert("i1", shown + 7 * DAY).built(tmp_path / "within")
    beyond = world.convert("i1", shown + 7 * DAY + 1).built(tmp_path / "beyond")
    for built, counted in ((within, 1), (beyond, 0)):
        assert named(built, shown + 8 * DAY)["user_conversions_56d"] == np.float32(
            math.log1p(counted)
        )
        row = only_row(built, shown)
        assert built.features.impressions.converted[row]
        assert built.features.impressions.revenue[row] == 7


def test_labels_sum_the_revenue_of_every_conversion(tmp_path: Path, calm: World) -> None:
    world = calm.convert("i1", at(1), revenue=5).convert("i1", at(2), revenue=6)
    log = world.convert("missing", at(2), revenue=9).built(tmp_path).features.impressions
    assert sorted(log.revenue) == [0, 0, 0, 11]
    assert log.converted.sum() == 1
    assert log.clicked.sum() == 1


def test_splits_are_by_global_time(tmp_path: Path) -> None:
    world, validation = World().show("u1", "a1", at(0)), TEST_START - 2 * DAY
    for time in (validation - 1, validation, TEST_START - 1, TEST_START):
        world = world.show("u1", "a1", time)
    log = world.built(tmp_path).features.impressions
    assert log.split.tolist() == [TRAIN, TRAIN, VALIDATION, VALIDATION, TEST]


def test_what_the_test_week_told_labels_only_its_own_rows(tmp_path: Path) -> None:
    world = World().show("u1", "a1", at(0)).show("u1", "a1", TEST_START - DAY, clicked=True)
    world = world.show("u1", "a1", TEST_START, clicked=True).convert("i2", TEST_START + DAY)
    known, late = (
        world.convert("i1", moment).built(tmp_path / str(moment)).features.impressions
        for moment in (TEST_START - 1, TEST_START)
    )
    assert known.converted.tolist() == [False, True, True]
    assert late.converted.tolist() == [False, False, True]
    assert late.revenue[1] == 0


def test_slates_are_numbered_and_their_rows_are_side_by_side(tmp_path: Path) -> None:
    world = World()
    for user, request, position in (("u2", "x", 2), ("u1", "y", 1), ("u2", "x", 1), ("u2", "z", 1)):
        world = world.show(user, "a1", at(1), request_id=request, position=position)
    log = world.built(tmp_path).features.impressions
    assert log.request.tolist() in ([0, 1, 1, 2], [0, 1, 2, 2])
    assert log.user.tolist() == [1, 2, 2, 2]
    assert sorted(log.position.tolist()) == [1, 1, 1, 2]


def test_histories_are_ordered_by_known_time_and_cut(tmp_path: Path) -> None:
    world = World().show("u1", "a1", at(0)).show("u1", "a1", at(9))
    for hour, ad in enumerate(("a1", "a2", "a3", "a4")):
        world = world.behave("u1", ad, at(1, hour), at(2, -hour))
    features = world.built(tmp_path).features
    log, ads = features.impressions, features.events.ad
    assert ads[log.history_start[1] : log.history_end[1]].tolist() == [3, 2, 1]
    assert log.history_end[0] == log.history_start[0] == 0


def test_index_rows_attributes_and_catalogues(tmp_path: Path, calm: World) -> None:
    built = calm.built(tmp_path)
    features = built.features
    assert features.sizes["ad"] == 5
    assert features.sizes["hour"] == 24
    assert features.attributes[0].tolist() == [0] * 5
    assert features.attributes[:, 2].tolist() == [0, 3, 1, 3, 2]  # books, games, shoes
    assert features.profile.tolist() == [[0], [1], [1], [1]]
    assert [catalogue.week for catalogue in features.catalogues] == [str(week) for week in WEEKS]
    assert features.catalogues[-1].ad.tolist() == [1, 2, 3, 4]
    assert features.catalogues[-1].price[0] == 20_000_004
    row = only_row(built, NOON)
    assert features.impressions.context[row].tolist() == [1, 1, 12, 2]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10_000))
def test_all_features_equal_a_row_by_row_reference(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    world = random_world(seed)
    built = world.built(tmp_path_factory.mktemp("world"))
    log, plan = built.features.impressions, built.engine.plan
    names = {
        kind: ["", *built.vocabulary.ids(kind).to_pylist()] for kind in ("user", "ad", "placement")
    }
    for row in range(log.user.size):
        expected = reference(
            world,
            plan,
            names["user"][log.user[row]],
            names["ad"][log.ad[row]],
            int(log.event_time[row]),
            names["placement"][log.context[row, 0]],
        )
        assert_allclose(log.dense[row], expected, rtol=1e-6, atol=1e-6, err_msg=str(row))


def test_requests_equal_logged_features_to_the_bit(tmp_path: Path) -> None:
    built = random_world(5).built(tmp_path)
    features, log = built.features, built.features.impressions
    rows = np.flatnonzero((log.position == 1) & (log.split == TEST))[::-1]
    requests = built.engine.requests(features, rows, features.catalogues[-1])
    assert requests.dense.shape == (rows.size, 4, len(features.dense_names))
    assert_array_equal(requests.ad, np.tile([1, 2, 3, 4], (rows.size, 1)))
    for at_row, row in enumerate(rows):
        assert_array_equal(requests.dense[at_row, log.ad[row] - 1], log.dense[row])
        assert requests.history_end[at_row] == log.history_end[row]


def test_no_candidate_has_no_features(tmp_path: Path) -> None:
    built = random_world(6).built(tmp_path)
    ad, zeros = np.array([[-1, 2]], np.int32), np.zeros((1, 2), np.int64)
    one = np.array([1], np.int32)
    dense = built.engine.dense(
        one, np.array([NOON]), one, np.array([-1]), ad=ad, price=zeros, bid=zeros
    )
    assert not dense[0, 0].any()
    assert dense[0, 1].any()


def test_order_of_rows_in_the_files_does_not_matter(tmp_path: Path) -> None:
    world = random_world(7)
    shuffled = replace(
        world,
        impressions=world.impressions[::-1],
        behaviours=world.behaviours[::-1],
        conversions=world.conversions[::-1],
    )
    one, other = (w.built(tmp_path / n).features for w, n in ((world, "a"), (shuffled, "b")))
    for name in ("user", "ad", "dense", "converted", "history_end", "request"):
        assert_array_equal(getattr(one.impressions, name), getattr(other.impressions, name))
    assert_array_equal(one.events.ad, other.events.ad)


def test_the_next_week_never_renumbers(tmp_path: Path) -> None:
    world = random_world(8)
    first = world.built(tmp_path / "first").vocabulary
    late = replace(world, users=("u0", *world.users)).show("u0", "a1", at(1)).write(tmp_path / "w")
    second = build(Window(late), first, PARAMS, tmp_path / "second").vocabulary
    for kind in first.kinds:
        assert second.ids(kind)[: len(first.ids(kind))].equals(first.ids(kind))
    assert second.ids("user").to_pylist()[-1] == "u0"


def test_sizes_known_before_the_test_week(tmp_path: Path, calm: World) -> None:
    plan = calm.show("u9", "a1", TEST_START + HOUR, device="tv").built(tmp_path).engine.plan
    assert (plan.known_before_test["device"], plan.sizes["device"]) == (2, 3)
    assert (plan.known_before_test["user"], plan.sizes["user"]) == (4, 5)


def test_statistics_are_of_training_rows(tmp_path: Path) -> None:
    features = random_world(9).built(tmp_path).features
    train = features.impressions.dense[features.rows(TRAIN)].astype(np.float64)
    assert_allclose(features.statistics.mean, train.mean(axis=0), rtol=1e-5, atol=1e-6)
    deviation = train.std(axis=0)
    deviation[deviation < 1e-6] = 1
    assert_allclose(features.statistics.std, deviation, rtol=1e-5)
    low, span = features.statistics.scaling("min_max")
    assert_allclose(
        [(train.min(0) - low) / span, (train.max(0) - low) / span],
        [0 * low, 0 * low + (np.ptp(train, axis=0) > 0)],
    )
    mean, std = features.statistics.scaling("z_score")
    assert_allclose(((train - mean) / std).mean(axis=0), 0, atol=1e-4)


def test_a_one_week_window_tests_on_its_last_days(tmp_path: Path) -> None:
    world = World()
    for day in range(7):
        world = world.show("u1", "a1", TEST_START + day * DAY)
    folder = world.write(tmp_path)
    for week in WEEKS[:-1]:
        for path in folder.glob(f"*/week={week}/*"):
            path.unlink()
        for path in folder.glob(f"*/week={week}"):
            path.rmdir()
    log = build(Window(folder), Vocabulary({}), PARAMS, tmp_path / "f").features.impressions
    assert log.split.tolist() == [TRAIN] * 3 + [VALIDATION] * 2 + [TEST] * 2


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no week of impressions"):
        build(Window(tmp_path / "none"), Vocabulary({}), PARAMS, tmp_path / "f")
    with pytest.raises(ContractError, match="no impression in any week"):
        World().built(tmp_path / "empty")
    with pytest.raises(ContractError, match="no impression before the validation days"):
        World().show("u1", "a1", NOON).built(tmp_path / "late")


def test_a_corrupt_file_is_named(tmp_path: Path, calm: World) -> None:
    path = calm.write(tmp_path) / "behaviours" / f"week={LAST}" / "part-0.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ContractError, match=str(path)):
        build(Window(tmp_path), Vocabulary({}), PARAMS, tmp_path / "f")


def test_hashes_are_of_the_text_alone(tmp_path: Path) -> None:
    table = pq.read_table(
        World().show("u1", "a1", at(0)).show("u1", "a1", at(0)).write(tmp_path)
        / "impressions"
        / f"week={WEEKS[0]}"
        / "part-0.parquet"
    )
    ids = table["request_id"]
    assert_array_equal(hash_ids(ids.slice(1)), hash_ids(ids)[1:])
    assert np.unique(hash_ids(ids)).size == 2
