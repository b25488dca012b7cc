"""The source `files` over a real S3 server, through the real stages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from roiflow.data import lake
from roiflow.data.sources.files import Files
from roiflow.data.sources.protocol import Source
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek
from roiflow.settings import absolute
from roiflow.weekly import run
from tests.brokers import ObjectStore
from tests.integration.conftest import NewBucket
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND

ROOT = Path(__file__).parents[2]
PREFIX = "lake [2026] it's 100%/ads é"
STAGES = {
    "look": "data/held.json params.yaml",
    "ingest": "data/raw params.yaml",
    "validate": "data/raw data/validated data/quarantine metrics/validate.json params.yaml",
}


@pytest.fixture
def bucket(new_bucket: NewBucket, tmp_path: Path) -> str:
    """The URL of a small shop's folder in a bucket of its own."""
    url = f"s3://{new_bucket()}/{PREFIX}"
    worlds.write(tmp_path / "shop")
    for path in sorted((tmp_path / "shop").rglob("*.parquet")):
        put(url, str(path.relative_to(tmp_path / "shop")), path.read_bytes())
    return url


def put(url: str, path: str, content: bytes) -> None:
    folder = Files(url).folder
    with folder.files.open_output_stream(f"{folder.root}/{path}") as stream:
        stream.write(content)


def test_a_week_lies_in_a_bucket_as_in_a_folder(bucket: str, tmp_path: Path) -> None:
    there, here = Files(bucket), Files(str(tmp_path / "shop"))
    assert there.weeks() == here.weeks() == [FIRST, SECOND]
    for name, rows in there.pull(SECOND, SECOND.end).items():
        assert rows.equals(here.pull(SECOND, SECOND.end)[name])
    with pytest.raises(
        UnknownWeek, match=r"s3://.*impressions/week=2026-W09/part-0.*W03, 2026-W04"
    ):
        there.pull(Week(2026, 9), Week(2026, 9).end)


def test_its_state_is_that_of_the_windows_objects(bucket: str, tmp_path: Path) -> None:
    def content(name: str, count: int) -> bytes:
        path = tmp_path / "part.parquet"
        lake.write_parquet(path, worlds.table(name, worlds.week_rows(name, SECOND)[:count]))
        return path.read_bytes()

    source: Source = Files(bucket)
    before = source.state([SECOND])
    put(bucket, "conversions/week=2026-W03/part-0.parquet", content("conversions", 1))
    assert source.state([SECOND]) == before
    put(bucket, "conversions/week=2026-W04/part-0.parquet", content("conversions", 2))
    assert source.state([SECOND]) != before
    put(bucket, "conversions/week=2026-W04/part-0.parquet", content("conversions", 4))
    assert source.state([SECOND]) == before


def test_the_stages_read_a_bucket(bucket: str, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["ingest"] |= {"source": "files", "week": str(SECOND), "files": {"weeks": 2}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "ROIFLOW_DATA_FOLDER": bucket,
        "ROIFLOW_HOME": str(tmp_path / "home"),
    }
    for stage, arguments in STAGES.items():
        command = [sys.executable, "-m", f"roiflow.stages.{stage}", *arguments.split()]
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "metrics" / "validate.json").read_text())["rows"]
    assert rows == {"ads": 4, "users": 6, "impressions": 20, "behaviours": 12, "conversions": 8}


def test_a_run_hands_a_url_on_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert absolute("s3://lake/ads") == "s3://lake/ads"
    assert absolute("file:///x y") == "file:///x y"
    monkeypatch.chdir(tmp_path)
    assert absolute("own/it's [a]") == f"{tmp_path}/own/it's [a]"
    monkeypatch.setattr(run, "code_of", lambda *_: tmp_path)
    monkeypatch.setenv("ROIFLOW_DATA_FOLDER", "s3://lake/ads")
    assert run.environment(tmp_path, tmp_path)["ROIFLOW_DATA_FOLDER"] == "s3://lake/ads"


class TestWhatIsWrongIsOneLine:
    def refused(self, url: str, words: str) -> str:
        with pytest.raises(SourceError, match=words) as caught:
            Files(url).pull(SECOND, SECOND.end)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_no_such_bucket(self, bucket: str) -> None:
        said = self.refused("s3://no-such-bucket/ads", r"^s3://no-such-bucket/ads: no such folder")
        assert "ROIFLOW_DATA_FOLDER" in said

    def test_no_such_folder_in_the_bucket(self, bucket: str) -> None:
        place = bucket.replace("ads", "adds")
        self.refused(place, r"^s3://.*/adds é: no such folder, or empty: .*ROIFLOW_DATA_FOLDER")

    def test_no_server(self, monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        self.refused(bucket, r"^s3://.*no server answers: check AWS_ENDPOINT_URL")

    def test_wrong_keys(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", "1")
        store = ObjectStore(tmp_path)
        try:
            store.use(monkeypatch)
            name = store.new_bucket()
            self.refused(
                f"s3://{name}/ads", rf"^s3://{name}/ads.*set AWS_ACCESS_KEY_ID and AWS_SEC"
            )
        finally:
            store.stop()

    def test_keys_in_the_url_are_not_repeated(self) -> None:
        with pytest.raises(SourceError, match="AWS_ACCESS_KEY_ID") as caught:
            Files("s3://key:hush@lake/ads")
        assert "hush" not in str(caught.value)

    def test_a_url_that_nothing_reads(self) -> None:
        with pytest.raises(SourceError, match=r"^swarm://lake: nothing here reads such a URL"):
            Files("swarm://lake")
