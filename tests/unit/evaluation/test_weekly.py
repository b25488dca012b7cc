"""One week's evaluation, end to end on a tiny world."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roiflow.artefacts.evaluation import Leaks, Metrics, Report
from roiflow.data.split import TEST
from roiflow.errors import ContractError
from roiflow.evaluation.terms import ESTIMATORS
from roiflow.evaluation.weekly import suspected_leaks, test_slates
from roiflow.labels.settled import settle
from roiflow.ranking.metrics import auc
from tests.unit.evaluation.weeks import EVALUATE, Evaluated


def test_metrics_are_of_the_test_week(evaluated: Evaluated) -> None:
    report = evaluated.result.report
    features = evaluated.features
    rows = features.rows(TEST)
    assert report.week == "2026-W02"
    assert report.impressions.test == rows.size
    predicted = evaluated.logistic.predict(features, rows)
    expected = auc(predicted.click, features.impressions.clicked[rows])
    assert report.models["logistic"]["test_full_click_auc"] == pytest.approx(expected)
    assert set(report.models) == {"logistic", "xgboost", "popularity"}


def test_the_logging_policy_earns_what_was_logged(evaluated: Evaluated) -> None:
    slates, counts = test_slates(evaluated.features, evaluated.labels, 3, EVALUATE)
    assert counts.evaluated == min(counts.whole, 300)
    logged = evaluated.result.report.roi["logged"]
    revenue, cost = slates.revenue.sum(), slates.cost.sum()
    assert logged.roi.value == pytest.approx((revenue - cost) / cost)
    assert logged.cost_per_slate_micros == pytest.approx(cost / slates.row.size)


def test_the_logging_policys_earnings_are_what_will_be_known(evaluated: Evaluated) -> None:
    features, report = evaluated.features, evaluated.result.report
    rows = features.rows(TEST)
    young = features.impressions.revenue[rows].sum()
    assert settle(evaluated.labels, features, rows).revenue.sum() > 1.02 * young
    maturity = report.roi["logged"].maturity
    assert maturity is not None
    assert 0.7 < maturity < 0.98
    assert report.maturity == maturity
    whole = settle(evaluated.labels, features, rows).maturity
    for found in report.models.values():
        assert found["test_full_conversion_maturity"] == whole


def test_every_estimator_answers(evaluated: Evaluated) -> None:
    roi = evaluated.result.report.roi
    assert list(roi) == ["logged", *ESTIMATORS]
    for name in ("ips", "rips"):
        found = roi[name].roi.diagnostics
        assert found is not None
        assert found.support == pytest.approx(1.0)
    assert roi["dm"].roi.model_based


def test_the_report_is_written_as_it_is_and_repeats(evaluated: Evaluated, tmp_path: Path) -> None:
    report = evaluated.result.report
    report.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == report
    assert evaluated.again(evaluated.features).report == report


def test_without_propensities_only_the_model_answers(evaluated: Evaluated) -> None:
    log = evaluated.features.impressions
    blind = replace(
        evaluated.features,
        impressions=replace(log, propensity=np.full(log.propensity.size, np.nan)),
    )
    report = evaluated.again(blind).report
    assert report.propensities_logged is False
    assert list(report.roi) == ["logged", "dm"]
    assert report.roi["dm"].roi.verdict == "inconclusive"
    assert report.roi["dm"].roi.model_based


def test_slates_without_propensities_are_left_out_where_others_have_them(
    evaluated: Evaluated,
) -> None:
    log = evaluated.features.impressions
    rows = evaluated.features.rows(TEST)
    propensity = np.array(log.propensity)
    dropped = log.request[rows[0]]
    propensity[rows[0]] = np.nan
    partly = replace(evaluated.features, impressions=replace(log, propensity=propensity))
    slates, counts = test_slates(partly, evaluated.labels, 3, EVALUATE)
    assert counts.with_propensities == counts.whole - 1
    assert dropped not in log.request[slates.row]
    assert slates.logged.all()


@pytest.mark.parametrize("tiny", [1e-110, 5e-324])
def test_a_slate_of_tiny_propensities_is_a_doubt_in_the_estimate(
    evaluated: Evaluated, tiny: float, tmp_path: Path
) -> None:
    """Its weight is 1 / tiny at the top and beyond every number from there on."""
    log = evaluated.features.impressions
    slates, _ = test_slates(evaluated.features, evaluated.labels, 3, EVALUATE)
    propensity = np.array(log.propensity)
    # One that the package could have shown: another's weight is 0 whatever was logged.
    whole = evaluated.result.target.propensity.min(axis=1) > 0
    propensity[log.request == log.request[slates.row[whole][0]]] = tiny
    shown = replace(evaluated.features, impressions=replace(log, propensity=propensity))
    report = evaluated.again(shown).report
    report.write(tmp_path / "report.json")  # every number is one that JSON has
    for name in ("ips", "snips", "dr", "rips", "cascade_dr"):
        found = report.roi[name].roi
        assert found.verdict == "inconclusive"
        assert "largest weight 1000000000.0 over 1000" in found.reason
        assert "effective sample size 1.0 under 20" in found.reason
    assert report.roi["logged"] == evaluated.result.report.roi["logged"]


def test_a_large_catalogue_is_asked_for_fewer_requests(evaluated: Evaluated) -> None:
    ads = evaluated.features.catalogues[-1].ad.size
    params = EVALUATE.model_copy(update={"max_pairs": 7 * ads + 1})
    assert test_slates(evaluated.features, evaluated.labels, 3, params)[1].evaluated == 7


def test_an_empty_test_week_is_an_error(evaluated: Evaluated) -> None:
    log = evaluated.features.impressions
    empty = replace(
        evaluated.features, impressions=replace(log, split=np.zeros(log.split.size, np.uint8))
    )
    with pytest.raises(ContractError, match="no impression"):
        test_slates(empty, evaluated.labels, 3, EVALUATE)


def test_a_perfect_model_is_suspected() -> None:
    models: dict[str, Metrics] = {
        "oracle": {"test_full_click_auc": 0.999},
        "fair": {"test_full_click_auc": 0.7},
    }
    found = suspected_leaks(models, {}, EVALUATE)
    assert found == Leaks(("oracle: test_full_click_auc 0.9990 over 0.99",), ())
