"""Six models on real impressions: KuaiRand's first week trains, its second one tests."""

from pathlib import Path

import pytest
import yaml

from roiflow.data.split import TEST
from roiflow.evaluation.leaderboard import Score, leaderboard
from roiflow.features import folder as features
from roiflow.labels.fit import fit as fit_labels
from roiflow.params import load_params
from roiflow.stages import build_features, ingest, validate
from tests import needs
from tests.conftest import Record

ROOT = Path(__file__).parents[2]
SMALL = {"dim": 8, "epochs": 1, "batch_tokens": 6400}
IMPRESSIONS = 112_755
"""Of the second week by the log's dates; some at its end become known only after it."""

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]


def text(score: Score | None) -> str:
    assert score is not None
    return f"{score.auc:.4f} ({score.low:.4f} to {score.high:.4f})"


def test_kuairand(
    tmp_path: Path,
    full: bool,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROIFLOW_DATA_FOLDER", str(needs.public_data("kuairand")))
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["ingest"] |= {"source": "kuairand", "week": "2022-W18"}
    content["train_ranker"] |= {} if full else SMALL
    params, raw, clean = tmp_path / "params.yaml", tmp_path / "raw", tmp_path / "validated"
    params.write_text(yaml.safe_dump(content))
    ingest.main(raw, params)
    validate.main(raw, clean, tmp_path / "quarantine", tmp_path / "validate.json", params)
    build_features.main(raw, clean, tmp_path / "features", params)
    found = features.read(tmp_path / "features")
    assert 0.995 * IMPRESSIONS < found.rows(TEST).size <= IMPRESSIONS
    config = load_params(params)
    labels = fit_labels(found, config.fit_labels).labels
    lines = {line.model: line for line in leaderboard(found, labels, config)}
    for name, line in lines.items():
        record(
            f"KuaiRand, week 2022-W18, {name}: full AUC of click, of long view (95 %, users)",
            f"{text(line.click)}, {text(line.conversion)}",
        )
    clicks = {name: line.click.auc for name, line in lines.items() if line.click}
    views = {name: line.conversion.auc for name, line in lines.items() if line.conversion}
    assert max(*clicks.values(), *views.values()) < 0.85, "too good to be true: a leak"
    assert min(clicks, key=clicks.__getitem__) in {"popularity", "sasrec"}
    if full:
        assert max(clicks, key=clicks.__getitem__) == "rosa"
        assert max(views, key=views.__getitem__) == "rosa"
