"""The first week that a package serves: its probabilities hold from the second day on.

It was calibrated on what the logging policy showed and shows other ads itself.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from roiflow import columns as c
from roiflow.data import served_features
from roiflow.data.events import P_CLICK
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.evaluation.ranking import calibration_curve, ece
from roiflow.features.table import Flags, Floats, Longs
from roiflow.jobs.simulate_week import Recalibrating, simulate
from roiflow.labels.model import Labels
from roiflow.params import Params, load_params
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import kept
from roiflow.simulator.served import shown
from roiflow.simulator.source import SimulatorSource
from roiflow.weekly.places import ONLINE, PACKAGE
from roiflow.weekly.steps import needed, read_stages
from tests.conftest import Record
from tests.needs import full_size

ROOT = Path(__file__).parents[2]
SEEDS = (7, 8, 9, 10, 11)
pytestmark = [pytest.mark.timeout(7200), pytest.mark.proof]


def content_of(seed: int) -> dict[str, Any]:
    """params.yaml of the shipped world with another seed."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["ingest"]["simulator"]["seed"] = seed
    return content


def ran(folder: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Params:
    """A run's stages up to the package, in a folder."""
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ROIFLOW_HOME", str(folder / "home"))
    for stage in needed(read_stages(ROOT / "dvc.yaml"), "ship"):
        paths = map(Path, stage.command.split()[3:])
        import_module(f"roiflow.stages.{stage.name}").main(*paths)
    return load_params(folder / "params.yaml")


@dataclass(frozen=True)
class Clicks:
    """Of a served week's impressions."""

    day: Longs
    predicted: Floats
    """At the position where it was shown."""
    clicked: Flags

    @classmethod
    def of(cls, lake: Path, week: Week, labels: Labels) -> "Clicks":
        slates, rows = (
            served_features.read(lake, "simulator", week),
            shown(lake / "simulator", week),
        )
        assert slates is not None
        assert rows is not None
        told = dict(zip(slates[c.REQUEST].to_pylist(), slates[P_CLICK].to_pylist(), strict=True))
        position = rows[c.POSITION].to_numpy()
        first = [told[request] for request in rows[c.REQUEST].to_pylist()]
        predicted = [each[place - 1] for each, place in zip(first, position, strict=True)]
        time = rows[c.EVENT_TIME].cast("int64").to_numpy()
        return cls(
            (time - week.start) // MICROS_PER_DAY,
            np.array(predicted) * labels.examined(position),
            rows[c.CLICKED].to_numpy(),
        )

    def error(self, days: Flags, bins: int) -> float:
        return ece(calibration_curve(self.predicted[days], self.clicked[days], bins))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_served_week_is_calibrated_from_its_second_day(
    seed: int, tmp_path: Path, full: bool, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_size(full, "a run of the shipped world, in small in unit/serving/test_recalibrate.py")
    config = ran(tmp_path / "run", content_of(seed), monkeypatch)
    folder, week = tmp_path / "run", Week.parse(config.ingest.week).plus(1)
    labels = Labels.read(folder / Labels.place)
    errors: dict[str, float] = {}
    for name, learning in (
        ("alone", None),
        ("recalibrated", Recalibrating(labels, config.recalibrate)),
    ):
        source = SimulatorSource(config.ingest.simulator, folder / name)
        simulate(folder / PACKAGE, folder / ONLINE, source, week, learning)
        clicks = Clicks.of(folder / name, week, labels)
        errors[name] = clicks.error(clicks.day >= 1, config.evaluate.calibration_bins)
    digest = Package.load(folder / PACKAGE).digest
    learned = kept(folder / "recalibrated", "simulator", digest).each[-1].learned
    record(
        f"seed {seed}, {week}, the first served: click ECE from the second day, at most 0.03",
        f"{errors['recalibrated']:.4f}; without recalibration {errors['alone']:.4f}; "
        f"last maps from {learned.clicks:,} clicks, {100 * learned.maturity:.0f} % mature",
    )
    assert errors["recalibrated"] <= 0.03
