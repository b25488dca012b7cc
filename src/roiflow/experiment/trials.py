"""Trials in the lake: <lake>/<source>/trials/week=YYYY-Www.json, one of each week with two arms."""

from pathlib import Path

from roiflow.artefacts.trial import Trial
from roiflow.data.weeks import Week


def path_of(lake: Path, source: str, week: Week) -> Path:
    """Where a week's trial is."""
    return lake / source / "trials" / f"week={week}.json"


def read(lake: Path, source: str, week: Week) -> Trial | None:
    """The week's trial; None where there was none. Raises ArtefactError where it is no trial."""
    return Trial.find(path_of(lake, source, week))


def write(lake: Path, source: str, trial: Trial) -> None:
    """Keep a week's trial, whole or not at all."""
    trial.write(path_of(lake, source, Week.parse(trial.week)))


def forget(lake: Path, source: str, week: Week) -> None:
    """Before a week is served again: a trial beside rows that it did not make is none."""
    path_of(lake, source, week).unlink(missing_ok=True)
