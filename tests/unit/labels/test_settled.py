from dataclasses import replace

import numpy as np
import pytest

from roiflow.data.split import TEST, VALIDATION
from roiflow.features.table import Flags
from roiflow.labels.delays import Curves
from roiflow.labels.examination import Examination
from roiflow.labels.fit import described, fit
from roiflow.labels.model import Labels
from roiflow.labels.settled import AsOf, settle, settle_at
from roiflow.labels.worth import Delays
from roiflow.params import load_params
from tests.unit.labels.worlds import Brought, brought
from tests.unit.serving.packages import ROOT

PARAMS = load_params(ROOT / "params.yaml").fit_labels


@pytest.fixture(scope="module")
def world() -> Brought:
    return brought(400_000)


@pytest.fixture(scope="module")
def labels(world: Brought) -> Labels:
    return fit(world.features, PARAMS).labels


@pytest.mark.parametrize("part", [TEST, VALIDATION])
def test_rates_and_revenue_as_production_has_them_are_within_2_percent_of_the_truth(
    world: Brought, labels: Labels, part: int
) -> None:
    """And by category within 5 %, where as known up to half of it is missing."""
    rows = world.features.rows(part)
    found = settle(labels, world.features, rows)
    log = world.features.impressions
    assert found.conversions.sum() == pytest.approx(world.converts[rows].sum(), rel=0.02)
    assert found.revenue.sum() == pytest.approx(world.revenue[rows].sum(), rel=0.02)
    worst = 0.0
    for category in range(12):
        here = world.category[rows] == category
        truth = world.converts[rows[here]].sum()
        assert found.conversions[here].sum() == pytest.approx(truth, rel=0.05), category
        money = world.revenue[rows[here]].sum()
        assert found.revenue[here].sum() == pytest.approx(money, rel=0.05), category
        worst = max(worst, 1 - log.converted[rows[here]].sum() / truth)
    assert worst > (0.1 if part == TEST else 0.4)


def test_maturity_is_the_share_of_the_conversions_that_is_known(
    world: Brought, labels: Labels
) -> None:
    for part in (TEST, VALIDATION):
        rows = world.features.rows(part)
        share = world.features.impressions.converted[rows].sum() / world.converts[rows].sum()
        assert settle(labels, world.features, rows).maturity == pytest.approx(share, abs=0.01)


def test_what_is_old_is_as_it_is(world: Brought, labels: Labels) -> None:
    old = np.arange(1000)
    found = settle(labels, world.features, old)
    np.testing.assert_array_equal(found.conversions, world.converts[old])
    np.testing.assert_allclose(found.revenue, world.revenue[old])
    assert found.maturity == pytest.approx(1.0)


def _only(world: Brought, keep: Flags) -> Brought:
    """Without the conversions of the other rows."""
    outcomes = world.features.outcomes
    here = keep[outcomes.row]
    kept = type(outcomes)(*(value[here] for value in vars(outcomes).values()))
    return replace(world, features=replace(world.features, outcomes=kept))


def test_a_category_without_one_conversion_has_the_delays_of_all_and_is_named() -> None:
    world = brought(20_000)
    world = _only(world, world.category != 5)
    fitted = fit(world.features, PARAMS)
    report = described(world.features, fitted, [f"c{number}" for number in range(12)])
    assert report.without_conversions == ("c5",)
    assert "c5" not in report.mean_delay_hours
    delays = fitted.labels.delays[-1]
    own, age = np.array([5], np.int32), np.array([9])
    place = np.zeros(1, np.int32)
    assert delays.sales.known(own, place, age) == delays.sales.share[0, 9]
    # Its rate is near 0 and not 0: a prior of ten conversions against 1,600 clicks.
    assert 0 < delays.rate[5] < 0.03


def test_a_log_without_one_conversion_has_nothing_to_come() -> None:
    world = brought(5_000)
    world = _only(world, np.zeros(5_000, bool))
    fitted = fit(world.features, PARAMS)
    rows = world.features.rows(TEST)
    none = world.features.impressions.converted & False
    empty = replace(world.features, impressions=replace(world.features.impressions, converted=none))
    found = settle(fitted.labels, empty, rows)
    assert found.conversions.sum() == found.revenue.sum() == 0.0
    assert found.maturity is None
    report = described(world.features, fitted, [""] * 12)
    assert report.mean_delay_hours_of_all is None
    assert report.returned is None


def test_a_delay_beyond_the_longest_is_counted_and_does_not_break_the_curve() -> None:
    """One conversion after 26 days, which only the oldest impressions could have shown."""
    world = brought(20_000)
    late = world.features.outcomes.row[0]
    outcomes = world.features.outcomes
    time = outcomes.known_time.copy()
    time[0] = world.features.impressions.event_time[late] + 26 * 24 * 3_600_000_000
    odd = replace(world.features, outcomes=replace(outcomes, known_time=time))
    before, after = fit(world.features, PARAMS), fit(odd, PARAMS)
    names = [f"c{number}" for number in range(12)]
    assert described(world.features, before, names).left_out == 0
    assert described(odd, after, names).left_out == 1
    rows = odd.rows(TEST)
    np.testing.assert_allclose(
        after.labels.matured(odd, rows), before.labels.matured(world.features, rows), atol=0.01
    )


def test_without_a_segment_and_with_one_of_equal_delays_labels_are_alike(world: Brought) -> None:
    by_device = fit(world.features, PARAMS.model_copy(update={"segment": "device"}))
    rows = world.features.rows(TEST)
    plain = fit(world.features, PARAMS.model_copy(update={"segment": "none"}))
    np.testing.assert_allclose(
        by_device.labels.matured(world.features, rows),
        plain.labels.matured(world.features, rows),
        atol=0.01,
    )


def test_impressions_at_one_moment_by_hand() -> None:
    """Half of the sales are known after an hour, all after two; a tenth comes back."""
    curve = Curves(np.zeros((1, 1), np.int32), np.array([[0.0, 0.5, 1.0]]))
    at_once = Curves(np.zeros((1, 1), np.int32), np.array([[1.0]]))
    returned, rate, worth = np.array([0.1]), np.array([0.4]), np.array([10.0])
    delays = Delays(0, -1, curve, at_once, returned, rate, worth, 0)
    labels = Labels(Examination(np.ones(1)), (delays,), 0.5)
    rows = AsOf(
        ad=np.arange(4, dtype=np.int32),
        category=np.zeros(4, np.int32),
        clicked=np.array([True, True, True, False]),
        # Too young to tell; half known, with a sale; all known, without one; never clicked.
        known=np.array([0.2, 0.5, 1.0, 1.0]),
        converted=np.array([0.0, 1.0, 0.0, 0.0]),
        sold=np.array([0.0, 8.0, 0.0, 0.0]),
        back=np.zeros(4),
        first_sale=np.full(4, 100),
    )
    found = settle_at(labels, rows, 3 * 3_600_000_000)
    # 0.4 sales of 10, of which 0.9 stay; 8 / 0.5, whose return would be known by now.
    assert found.revenue.tolist() == pytest.approx([3.6, 16.0, 0.0, 0.0])
    assert found.conversions.tolist() == pytest.approx([0.4, 2.0, 0.0, 0.0])
    assert found.expected.tolist() == pytest.approx([0.4, 0.4, 0.4, 0.0])
