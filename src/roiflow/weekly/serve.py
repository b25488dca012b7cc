"""The simulated world's next week: what the run before left in charge fills its slates."""

from pathlib import Path

from roiflow import columns as c
from roiflow.artefacts.run import Promoted
from roiflow.data import served_features
from roiflow.data.weeks import Week
from roiflow.experiment import trials
from roiflow.weekly.checkout import checkout_of, is_finished
from roiflow.weekly.choice import SIMULATOR
from roiflow.weekly.places import LABELS, ONLINE, PACKAGE
from roiflow.weekly.run import Show, job


def serve_week(home: Path, week: Week, show: Show) -> str | None:
    """Let the champion that the run of the week before left serve `week`, once.

    Where that run put a challenger on trial, it serves beside the champion, or beside the logging
    policy. The versions that serve; None where the week is the logging policy's alone.
    """
    before = checkout_of(home, SIMULATOR, str(week.plus(-1)))
    if not is_finished(before):
        return None
    who = Promoted.of(before)
    if who.champion is None and who.challenger is None:
        return None
    if not _is_served(home.absolute() / "lake", week, who):
        places = (Promoted.place, PACKAGE, ONLINE, LABELS)
        job(before, home, "simulate_week", [*map(str, places), "params.yaml"], show)
    stable = who.champion[:12] if who.champion else "logging"
    return f"{stable} and {who.challenger[:12]}" if who.challenger else stable


def _is_served(lake: Path, week: Week, who: Promoted) -> bool:
    """Whether the week was served so, and all that tells how is there."""
    # Each by what is written last of it: a serving that was cut off left a week that nobody could
    # compare with its features, or judge by its shares.
    if not served_features.path_of(lake, SIMULATOR, week).exists():
        return False
    trial = trials.read(lake, SIMULATOR, week)
    if trial is not None or who.challenger is not None:
        pair = (who.champion, who.challenger)
        return trial is not None and (trial.champion, trial.challenger) == pair
    return who.champion is not None and served_by(lake, week) == {who.champion[:12]}


def served_by(lake: Path, week: Week) -> set[str]:
    """The policy versions of a simulated week's own impressions; empty where none served it."""
    from roiflow.simulator.served import shown

    rows = shown(lake / SIMULATOR, week)
    return set() if rows is None else set(rows[c.POLICY_VERSION].unique().to_pylist())
