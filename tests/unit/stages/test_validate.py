import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.pulled import Pulled, write_pulled
from roiflow.data.schemas import SCHEMAS
from roiflow.errors import QuarantineLimit, SourceError
from roiflow.stages.validate import main
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND, WEEKS

SHIPPED = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path, Path, Path, Path]:
    raw = worlds.write(tmp_path / "raw")
    write_pulled(raw, Pulled("files", WEEKS, SECOND.end))
    params = tmp_path / "params.yaml"
    shipped = SHIPPED.read_text()
    assert "max_quarantined_fraction: 0.01" in shipped
    params.write_text(
        shipped.replace("max_quarantined_fraction: 0.01", "max_quarantined_fraction: 0.1")
    )
    return raw, tmp_path / "validated", tmp_path / "quarantine", tmp_path / "metrics.json", params


def spoil(raw: Path, rows: int) -> None:
    table = worlds.week_rows("impressions", SECOND)
    for row in table[:rows]:
        row[c.COST] = -1
    lake.write(raw, "impressions", SECOND, worlds.table("impressions", table))


def contents(*folders: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file()}


def test_clean_and_quarantined_rows_are_written_and_counted(
    paths: tuple[Path, Path, Path, Path, Path],
) -> None:
    raw, validated, quarantine, metrics, _ = paths
    spoil(raw, 1)
    main(*paths)
    for week in WEEKS:
        for name in SCHEMAS:
            expected = lake.read_parquet(lake.partition(raw, name, week)).to_pylist()
            bad = lake.read_parquet(lake.partition(quarantine, name, week)).to_pylist()
            clean = lake.read(validated, name, week).to_pylist()
            if (name, week) == ("impressions", SECOND):
                assert bad == [expected[0] | {"reason": "negative bid or cost"}]
                assert clean == expected[1:]
            else:
                assert (bad, clean) == ([], expected)
    assert json.loads(metrics.read_text()) == {
        "rows": {
            "ads": 4,
            "users": 6,
            "impressions": 20,
            "behaviours": 12,
            "conversions": 8,
        },
        "quarantined": {
            "ads": 0,
            "users": 0,
            "impressions": 1,
            "behaviours": 0,
            "conversions": 0,
        },
        "quarantined_share": {
            "ads": 0.0,
            "users": 0.0,
            "impressions": 0.05,
            "behaviours": 0.0,
            "conversions": 0.0,
        },
        "reasons": {"impressions": {"negative bid or cost": 1}},
        "orphan_conversions": 1,  # its impression is the one in quarantine
    }


def test_beyond_the_limit_nothing_changes(paths: tuple[Path, Path, Path, Path, Path]) -> None:
    raw, *outputs, _ = paths
    main(*paths)
    before = contents(outputs[0], outputs[1]), outputs[2].read_bytes()
    spoil(raw, 2)
    with pytest.raises(QuarantineLimit, match="2 of 10 rows of impressions in 2026-W04"):
        main(*paths)
    assert (contents(outputs[0], outputs[1]), outputs[2].read_bytes()) == before
    assert not [path for path in raw.parent.iterdir() if ".part" in path.name]


def test_without_a_pulled_window_there_is_nothing_to_check(
    paths: tuple[Path, Path, Path, Path, Path],
) -> None:
    (paths[0] / "pulled.json").unlink()
    with pytest.raises(SourceError, match=r"raw/pulled.json"):
        main(*paths)


def test_a_killed_run_leaves_no_output_that_looks_whole(
    paths: tuple[Path, Path, Path, Path, Path],
) -> None:
    raw, validated, quarantine, metrics, _ = paths
    # The last partition to be read is a pipe that nobody writes to: the stage waits there.
    pipe = lake.partition(raw, "conversions", SECOND)
    whole = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    process = subprocess.Popen([sys.executable, "-m", "roiflow.stages.validate", *map(str, paths)])
    try:
        with pipe.open("wb"):  # returns once the stage has come to read it
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert not validated.exists()
    assert not quarantine.exists()
    assert not metrics.exists()
    pipe.unlink()
    pipe.write_bytes(whole)
    main(*paths)
    assert lake.read(validated, "impressions", FIRST).num_rows == 10
