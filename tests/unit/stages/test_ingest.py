from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
import yaml
from pydantic import SecretStr

from roiflow.data import lake
from roiflow.data.pulled import Pulled, read_pulled
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek
from roiflow.params import SourceName, load_params
from roiflow.settings import Settings
from roiflow.stages.ingest import VOCABULARY, main, open_source
from tests.unit.data import worlds
from tests.unit.data.worlds import SECOND, WEEKS
from tests.worlds import SHIPPED as PLANTED

SHIPPED = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    content = yaml.safe_load(SHIPPED.read_text())
    content["ingest"] |= {"source": "files", "week": str(SECOND), "files": {"weeks": 2}}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ROIFLOW_DATA_FOLDER", str(tmp_path / "source"))
    worlds.write(tmp_path / "source")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_window_is_pulled_with_its_description(tmp_path: Path, params: Path) -> None:
    raw = tmp_path / "raw"
    main(raw, params)
    assert read_pulled(raw) == Pulled("files", WEEKS, SECOND.end)
    for week in WEEKS:
        for name, rows in worlds.tables(week).items():
            found = lake.read_parquet(lake.partition(raw, name, week))
            assert found.to_pylist() == rows.to_pylist()
    vocabulary = lake.read_parquet(raw / "vocabulary.parquet")
    assert (vocabulary.num_rows, vocabulary.schema) == (0, VOCABULARY)


def test_the_same_pull_gives_the_same_bytes(tmp_path: Path, params: Path) -> None:
    main(tmp_path / "one", params)
    main(tmp_path / "two", params)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_newest_vocabulary_of_an_earlier_week_comes_along(tmp_path: Path, params: Path) -> None:
    folder = tmp_path / "home" / "lake" / "files" / "vocabulary"
    for week in ("2025-W52", "2026-W03", "2026-W04", "2026-W10"):
        rows = pa.table([["ad"], [week], [1]], schema=VOCABULARY)
        lake.write_parquet(folder / f"week={week}.parquet", rows)
    main(tmp_path / "raw", params)
    found = lake.read_parquet(tmp_path / "raw" / "vocabulary.parquet")
    assert found["id"].to_pylist() == ["2026-W03"]


def test_a_failed_pull_leaves_the_earlier_one(tmp_path: Path, params: Path) -> None:
    raw = tmp_path / "raw"
    main(raw, params)
    before = contents(raw)
    lake.partition(tmp_path / "source", "behaviours", SECOND).unlink()
    with pytest.raises(UnknownWeek, match=r"behaviours/week=2026-W04"):
        main(raw, params)
    assert contents(raw) == before
    assert sorted(path.name for path in tmp_path.iterdir() if ".part" in path.name) == []


def test_a_window_that_is_longer_than_what_is_held_says_so(tmp_path: Path, params: Path) -> None:
    params.write_text(params.read_text().replace("weeks: 2", "weeks: 3", 1))
    with pytest.raises(
        UnknownWeek, match=r"2026-W02/.*ends with 2026-W04 has 3 weeks \(ingest.file"
    ):
        main(tmp_path / "raw", params)


def test_a_week_that_does_not_exist_is_named(tmp_path: Path, params: Path) -> None:
    params.write_text(params.read_text().replace("2026-W04", "2026-W54"))
    with pytest.raises(UnknownWeek, match="2026-W54"):
        main(tmp_path / "raw", params)


@pytest.mark.parametrize("source", ["kuairand", "open_bandit", "files", "stream"])
def test_a_folder_that_is_not_named_tells_which_variable_to_set(source: str) -> None:
    config = load_params(SHIPPED).ingest.model_copy(update={"source": source})
    with pytest.raises(SourceError, match=f"source {source}: set.*ROIFLOW_DATA_FOLDER"):
        open_source(config, Settings(data_folder=None))


def test_a_database_that_is_not_named_tells_which_variable_to_set() -> None:
    config = load_params(SHIPPED).ingest.model_copy(update={"source": "sql"})
    with pytest.raises(SourceError, match=r"source sql: set.*ROIFLOW_SQL"):
        open_source(config, Settings(sql=None))


@pytest.mark.parametrize("source", ["kuairand", "open_bandit", "files", "stream"])
def test_a_folder_that_is_not_there_is_named(source: str, tmp_path: Path) -> None:
    config = load_params(SHIPPED).ingest.model_copy(update={"source": source})
    with pytest.raises(SourceError, match=f"{tmp_path}/absent: no such folder.*ROIFLOW_DATA_FOLD"):
        open_source(config, Settings(data_folder=str(tmp_path / "absent")))


def test_every_source_of_the_parameters_opens(tmp_path: Path) -> None:
    shipped = load_params(SHIPPED).ingest
    settings = Settings(data_folder=str(tmp_path), sql=SecretStr("postgresql://nowhere/none"))
    for name in get_args(SourceName):
        config = shipped.model_copy(update={"source": name})
        assert open_source(config, settings).name == name


def test_served_weeks_lie_under_the_sources_name(tmp_path: Path) -> None:
    config = load_params(SHIPPED).ingest.model_copy(
        update={"source": "simulator", "simulator": PLANTED}
    )
    settings = Settings(home=tmp_path)
    folder = settings.lake / "simulator" / "impressions" / "week=2026-W04"
    folder.mkdir(parents=True)
    (folder / "part-0.parquet").write_bytes(b"not parquet")
    with pytest.raises(SourceError, match=r"lake/simulator/"):
        open_source(config, settings).pull(Week(2026, 4), Week(2026, 4).end)
