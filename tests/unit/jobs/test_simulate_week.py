"""The job that lets a package serve a week leaves the world's truth beside it."""

from pathlib import Path

import pytest
import yaml

from roiflow.errors import SourceError
from roiflow.jobs import simulate_week
from roiflow.labels.model import Labels
from roiflow.simulator.planted import read_planted
from tests.labels import planted_labels
from tests.worlds import planted_content

ROOT = Path(__file__).parents[3]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    content = planted_content()
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_truth_lies_beside_the_served_week(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted_labels((1.0,), (0.0,)).write(tmp_path / "labels" / Labels.place.name)
    monkeypatch.setattr(simulate_week, "simulate", lambda *arguments, **others: 0)
    simulate_week.main(tmp_path / "package", tmp_path / "online", tmp_path / "labels", params)
    found = read_planted(tmp_path / "home" / "lake" / "simulator" / "truth.json")
    assert (found["first_week"], found["week"]) == ("2026-W01", "2026-W05")


def test_no_other_source_can_be_served(params: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(params.read_text())
    content["ingest"] |= {"source": "complete_journey", "week": "2017-W44"}
    params.write_text(yaml.safe_dump(content))
    with pytest.raises(SourceError, match="not complete_journey"):
        simulate_week.main(tmp_path / "package", tmp_path / "online", tmp_path / "labels", params)
    assert not (tmp_path / "home").exists()
