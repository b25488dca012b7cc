"""Which scenarios the stages before training and the drift report see, end to end."""

from pathlib import Path

import pytest
import yaml

from roiflow.artefacts.monitoring import Drift
from roiflow.errors import QuarantineLimit
from roiflow.features import folder as feature_table
from roiflow.labels.fit import fit
from roiflow.monitoring.drift import count, judge, load_watched
from roiflow.params import load_params
from roiflow.stages.build_features import main as build_features
from roiflow.stages.ingest import main as ingest
from roiflow.stages.validate import main as validate
from tests.worlds import planted_content

ROOT = Path(__file__).parents[2]
WEEK = "2026-W06"

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    return tmp_path


def validated(scenario: str, folder: Path) -> Path:
    """Pull and check four weeks that end with the shock; the params.yaml."""
    content = planted_content()
    content["ingest"] |= {"source": "simulator", "week": WEEK}
    content["ingest"]["simulator"] |= {"scenario": scenario, "shock_week": WEEK}
    folder.mkdir(exist_ok=True)
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(content))
    ingest(folder / "raw", params)
    validate(folder / "raw", folder / "validated", folder / "quarantine", folder / "v.json", params)
    return params


def drift(scenario: str, folder: Path) -> Drift:
    params = validated(scenario, folder)
    build_features(folder / "raw", folder / "validated", folder / "features", params)
    table = feature_table.read(folder / "features")
    config = load_params(params)
    watched = load_watched(ROOT / "monitoring" / "drift.yaml")
    labels = fit(table, config.fit_labels).labels
    found = count(table, labels, watched, config.report_drift.bins)
    return judge(found, config.report_drift, "")


def moved(found: Drift) -> set[str]:
    return {column.column for column in found.columns if column.drifted}


def test_bots_are_seen_in_most_columns_and_a_still_world_in_few(folder: Path) -> None:
    still = drift("stationary", folder / "still")
    bots = drift("bot_traffic", folder / "bots")
    assert (still.drifted, bots.drifted) == (False, True)
    assert {"user_ctr_56d", "user_ad_clicks_56d"} <= moved(bots) - moved(still)


def test_a_price_shock_is_seen_in_the_price_alone(folder: Path) -> None:
    found = drift("price_shock", folder)
    assert not found.drifted
    assert "log_price" in moved(found)


def test_a_late_back_fill_is_seen_in_the_weekdays_it_hides(folder: Path) -> None:
    found = drift("late_backfill", folder)
    assert not found.drifted
    assert "weekday" in moved(found)


def test_a_shifted_clock_stops_the_week(folder: Path) -> None:
    with pytest.raises(QuarantineLimit, match=rf"conversions in {WEEK}.*before its impression"):
        validated("time_zone_shift", folder)
    assert not (folder / "validated").exists()
