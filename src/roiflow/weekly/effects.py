"""The chain of effects: the jobs after and beside the stages, what each reads and what it leaves.

Written once: the DAG runs all of them as early as their reads allow, the closed loop those that
promotion needs, and a command that repeats one takes its arguments from here.
"""

from roiflow.weekly.steps import Step

# The dvc.lock of a run is whole once its last stages are done.
LOCK = ("dvc.lock", "data/evaluation", "data/package")

EFFECTS = (
    Step(
        "commit",
        "commit params.yaml data/lineage.json",
        reads=LOCK,
        writes=("data/lineage.json",),
        purpose="Commit params.yaml and dvc.lock of the run: the lineage key of its model.",
    ),
    # Serving was given the features of the run before: nothing that this run trains is needed.
    Step(
        "check_parity",
        "check_parity data/validated params.yaml data/parity/report.json",
        reads=("data/validated",),
        writes=("data/parity/report.json",),
        purpose="Compare what serving was given in the week with what the offline engine makes of "
        "its log.",
    ),
    # On trial was what an earlier run made: this, too, needs nothing that this run trains.
    Step(
        "canary",
        "canary data/validated data/features data/labels params.yaml data/canary",
        reads=("data/validated", "data/features", "data/labels"),
        writes=("data/canary",),
        purpose="Decide on what was on trial in the week, by the log of both arms.",
    ),
    Step(
        "screen",
        "screen data/package data/features data/labels data/evaluation data/agreement.json "
        "data/parity/report.json data/canary params.yaml data/screen/decision.json",
        reads=(
            "data/package",
            "data/features",
            "data/labels",
            "data/evaluation",
            "data/agreement.json",
            "data/parity/report.json",
            "data/canary",
        ),
        writes=("data/screen/decision.json",),
        purpose="Hold the new package against the champion's log; refuse it, or let it be tried.",
    ),
    Step(
        "register",
        "register data/package data/features data/evaluation metrics plots "
        "data/screen/decision.json data/lineage.json params.yaml data/registered.json",
        reads=(
            "data/package",
            "data/features",
            "data/evaluation",
            "metrics",
            "plots",
            "data/screen/decision.json",
            "data/lineage.json",
        ),
        writes=("data/registered.json",),
        purpose="Register the package in MLflow with its lineage; publish the vocabulary.",
    ),
    Step(
        "promote",
        "promote data/canary/decision.json data/screen/decision.json data/lineage.json "
        "data/registered.json data/promoted.json",
        reads=(
            "data/canary",
            "data/screen/decision.json",
            "data/lineage.json",
            "data/registered.json",
        ),
        writes=("data/promoted.json",),
        purpose="Move `champion` to what its trial promotes; say who is on trial next.",
    ),
    Step(
        "bundle",
        "bundle data/registered.json data/screen/decision.json data/promoted.json "
        "bentos/ad_ranker data/bento.json",
        reads=("data/registered.json", "data/screen/decision.json", "data/promoted.json"),
        writes=("data/bento.json",),
        purpose="Build the Bentos of champion and challenger, where they are not built yet.",
    ),
    Step(
        "deploy",
        "deploy data/bento.json data/features/online params.yaml data/deployed.json",
        reads=("data/bento.json", "data/features/online"),
        writes=("data/deployed.json",),
        purpose="Load the online features; serve the champion, and the challenger beside it.",
    ),
    Step(
        "report_drift",
        "report_drift data/features data/labels monitoring/drift.yaml data/drift params.yaml",
        reads=("data/features", "data/labels"),
        writes=("data/drift",),
        purpose="Compare the week's data with the training reference (Evidently).",
    ),
    Step(
        "report",
        "report data/lineage.json data/evaluation data/canary data/screen/decision.json "
        "data/parity/report.json "
        "data/promoted.json data/deployed.json metrics plots data/drift/drift.html "
        "data/report/report.html",
        reads=(
            "data/evaluation",
            "metrics",
            "plots",
            "data/lineage.json",
            "data/drift",
            "data/parity/report.json",
            "data/canary",
            "data/screen/decision.json",
            "data/promoted.json",
            "data/deployed.json",
        ),
        writes=("data/report",),
        purpose="Write the weekly report.",
    ),
)
"""Tasks, each the job it calls with its arguments."""

DECIDES = "promote"
"""The effect with which a run is decided; what follows builds, serves and tells."""


def effect(name: str) -> Step:
    """The effect of that name."""
    (found,) = (step for step in EFFECTS if step.name == name)
    return found
