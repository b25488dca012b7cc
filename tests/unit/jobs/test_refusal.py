from roiflow.artefacts.decision import Decision
from roiflow.evaluation.screen import Subject, decide
from roiflow.jobs.refusal import faults, nothing_to_serve
from tests.records import NOT_SERVED, A, agreement, metrics, report
from tests.unit.evaluation.weeks import PARAMS


def decision(**values: float) -> Decision:
    """A first model's, without propensities, whose click metrics are these."""
    return decide(
        report(propensities_logged=False, models={"rosa": metrics(**values)}),
        PARAMS.screen,
        Subject(A, None, None, NOT_SERVED, agreement()),
    )


GOOD = {"auc": 0.7, "auc_low": 0.6, "auc_high": 0.8}


def test_the_failed_check_its_value_and_its_limit_are_named_and_what_to_do() -> None:
    text = nothing_to_serve(
        "ad_ranker_files", 3, "files", decision(auc=0.5, auc_low=0.45, auc_high=0.54)
    )
    assert "\n" not in text
    for part in (
        "version 3 was not promoted and there is no champion to serve: the screen says fail",
        "test_full_click_auc 0.54 is under 0.55 (screen.min_click_auc of params.yaml)",
        "bring more weeks",
        'roiflow approve 3 --source files --by "YOUR NAME" --why "REASON"',
    ):
        assert part in text
    assert "value_lift" not in text


def test_every_check_that_failed_is_there_and_none_that_passed() -> None:
    found = faults(decision(auc=0.5, auc_low=0.45, auc_high=0.54))
    assert [fault.split()[0] for fault in found] == ["test_full_click_auc"]
    (lift,) = faults(decision(**GOOD))
    assert lift.startswith(
        "value_lift_over_logged_switch_dr no logged propensities (screen.min_value_lift"
    )
