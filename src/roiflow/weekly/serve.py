"""The simulated world's next week: the champion of the run before fills its slates."""

from pathlib import Path

from roiflow import columns as c
from roiflow.artefacts.run import Promoted
from roiflow.data import served_features
from roiflow.data.weeks import Week
from roiflow.registry import package_folder
from roiflow.weekly.checkout import checkout_of, is_finished
from roiflow.weekly.choice import SIMULATOR
from roiflow.weekly.places import LABELS, ONLINE
from roiflow.weekly.run import Show, job


def serve_week(home: Path, week: Week, show: Show) -> str | None:
    """Let the policy that the run of the week before left as champion serve `week`, once.

    Its version; None where no finished run left one: the week is the logging policy's then.
    """
    before = checkout_of(home, SIMULATOR, str(week.plus(-1)))
    if not is_finished(before):
        return None
    digest = Promoted.of(before).champion
    if digest is None:
        return None
    version, lake = digest[:12], home.absolute() / "lake"
    kept = served_features.path_of(lake, SIMULATOR, week)
    # Both: a serving that was cut off between the two left slates whose features nobody could
    # compare.
    if served_by(lake, week) != version or not kept.exists():
        arguments = [
            str(package_folder(home.absolute(), digest)),
            str(ONLINE),
            str(LABELS),
            "params.yaml",
        ]
        job(before, home, "simulate_week", arguments, show)
    return version


def served_by(lake: Path, week: Week) -> str | None:
    """The policy version of a simulated week's own impressions, or None where none served it."""
    from roiflow.simulator.served import shown

    rows = shown(lake / SIMULATOR, week)
    return str(rows[c.POLICY_VERSION][0]) if rows is not None and rows.num_rows else None
