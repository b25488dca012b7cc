"""The stage on a tiny world's features."""

from pathlib import Path

import pytest

from roiflow.artefacts.labels import LabelsReport
from roiflow.features.folder import read
from roiflow.labels.model import Labels
from roiflow.stages import fit_labels
from tests.unit.serving.packages import ROOT, TinyWorld, tiny_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("world"))


def test_labels_and_what_they_say(world: TinyWorld, tmp_path: Path) -> None:
    written, metrics = tmp_path / "labels", tmp_path / "metrics.json"
    fit_labels.main(world.features, written, metrics, ROOT / "params.yaml")
    labels, report = Labels.read(written / Labels.place.name), LabelsReport.read(metrics)
    assert list(report.examination.used) == ["position_1", "position_2", "position_3"]
    assert report.examination.used["position_1"] == 1.0
    assert list(report.examination.used.values()) == labels.examination.factor.tolist()
    names = set(world.built.vocabulary.ids("category").to_pylist())
    assert set(report.mean_delay_hours) <= names
    train, test = report.maturity["train"], report.maturity["test"]
    assert train is not None
    assert test is not None
    assert test < train <= 1.0
    assert 13 * 24 < report.longest_age_hours <= 14 * 24
    rows = read(world.features).rows(0)
    assert labels.matured(read(world.features), rows).max() == 1.0
