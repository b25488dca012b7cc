"""A run whose first model was refused ends with the check that refused it, on a real store."""

from pathlib import Path

import pytest

from roiflow.artefacts.decision import Decision
from roiflow.artefacts.run import Bentos, Promoted, Registered
from roiflow.errors import RegistryError
from roiflow.jobs.bundle import main
from tests.records import leave, promoted
from tests.unit.jobs.test_refusal import decision

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KINDS = (Registered, Decision, Promoted)


def test_without_a_champion_the_last_line_names_the_failed_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("ROIFLOW_MLFLOW_URI", raising=False)
    run = tmp_path / "run"
    version = Registered("ad_ranker_files", 1, "a", {"source": "files", "week": "2026-W33"})
    refused = decision(auc=0.5, auc_low=0.45, auc_high=0.54)
    leave(run, refused, version, promoted(promoted=False, champion=None))
    registered, screen, promotion = (run / kind.place for kind in KINDS)
    with pytest.raises(RegistryError) as raised:
        main(registered, screen, promotion, tmp_path, run / Bentos.place)
    for part in ("test_full_click_auc 0.54 is under 0.55", "roiflow approve 1 --source files"):
        assert part in str(raised.value)
    assert not (run / Bentos.place).exists()
