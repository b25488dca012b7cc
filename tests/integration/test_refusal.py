"""A run whose first model was refused ends with the check that refused it, on a real store."""

from pathlib import Path

import pytest

from roiflow.artefacts.decision import Decision
from roiflow.artefacts.run import Bento, Registered
from roiflow.errors import RegistryError
from roiflow.jobs.bundle import main
from tests.records import leave
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
    run = tmp_path / "run"
    version = Registered("ad_ranker_files", 1, "a", {"source": "files", "week": "2026-W33"})
    leave(run, decision(**GOOD, ece=0.0712), version)
    with pytest.raises(RegistryError) as raised:
        main(run / Registered.place, run / Decision.place, tmp_path, run / Bento.place)
    for part in ("test_full_click_ece 0.0712 is over 0.05", "roiflow approve 1 --source files"):
        assert part in str(raised.value)
    assert not (run / Bento.place).exists()
