"""A run whose first model was refused ends with the check that refused it, on a real store."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from roiflow.errors import RegistryError
from roiflow.jobs.bundle import main
from roiflow.registry import Registered
from tests.unit.jobs.test_refusal import GOOD, decision

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_without_a_champion_the_last_line_names_the_failed_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("ROIFLOW_MLFLOW_URI", raising=False)
    data = tmp_path / "run/data"
    (data / "gate").mkdir(parents=True)
    (data / "gate/decision.json").write_text(json.dumps(decision(**GOOD, ece=0.0712)))
    tags = {"source": "files", "week": "2026-W33"}
    version = Registered("ad_ranker_files", 1, "a", tags)
    (data / "registered.json").write_text(json.dumps(asdict(version)))
    with pytest.raises(RegistryError) as raised:
        main(data / "registered.json", tmp_path, data / "bento.json")
    for part in ("test_full_click_ece 0.0712 is over 0.05", "roiflow approve 1 --source files"):
        assert part in str(raised.value)
    assert not (data / "bento.json").exists()
