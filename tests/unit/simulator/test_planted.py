"""truth.json says what was planted, and no stage of the pipeline knows of it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from roiflow.cli.main import app
from roiflow.data.weeks import Week
from roiflow.errors import SourceError
from roiflow.params import SimulatorParams, load_params
from roiflow.settings import Settings
from roiflow.simulator.planted import FILE, FORMAT, planted, read_planted, write_planted
from roiflow.simulator.scenarios import Effects
from roiflow.simulator.world import World
from roiflow.stages.ingest import main as ingest
from tests.worlds import SHIPPED, planted_content

ROOT = Path(__file__).parents[3]
SMALL = {"users": 100, "ads": 16, "categories": 4}
FIRST = Week.parse(SHIPPED.first_week)
LAST = FIRST.plus(3)


@pytest.fixture(scope="module")
def world() -> World:
    synthetic = SHIPPED.synthetic.model_dump() | SMALL
    keys = {"scenario": "price_shock", "shock_week": str(LAST), "synthetic": synthetic}
    return World(SimulatorParams.model_validate(SHIPPED.model_dump() | keys))


def test_the_file_gives_back_every_parameter(world: World, tmp_path: Path) -> None:
    found = read_planted(write_planted(tmp_path, world, LAST))
    assert found == planted(world, LAST)
    assert SimulatorParams.model_validate(found["parameters"]) == world.params
    assert (found["format"], found["first_week"], found["week"]) == (FORMAT, str(FIRST), str(LAST))


def test_the_world_can_be_told_from_the_file_alone(world: World) -> None:
    found = planted(world, LAST)
    ads = world.population.ads(LAST, Effects())
    for name in ("click", "conversion", "delay", "price", "bid", "budget", "first", "last"):
        assert found["ads"][name] == getattr(ads, name).tolist()
    assert len(found["ads"]["ids"]) == 16 + 3 * SHIPPED.synthetic.new_ads_per_week
    assert found["ads"]["category"] == world.population.categories[ads.category].tolist()
    assert set(found["ads"]["ad_type"]) <= {"image", "video", "text"}
    assert found["examination"] == pytest.approx([1.0, 2**-0.7, 3**-0.7], rel=1e-12)
    assert found["constants"]["placement_click"] == {"feed": 0.0, "detail": 0.15, "search": 0.3}
    assert found["constants"]["hour_click"][21] == 0.15


def test_categories_delay_as_planted(world: World) -> None:
    table = planted(world, LAST)["categories"]
    shortest, longest = SHIPPED.delay_hours
    assert sorted(table["mean_delay_hours"]) == pytest.approx(np.geomspace(shortest, longest, 4))
    assert sum(table["ads"]) == world.ads(LAST).ids.size


def test_effects_are_listed_week_by_week(world: World) -> None:
    weeks = planted(world, LAST)["weeks"]
    assert list(weeks) == [str(FIRST.plus(number)) for number in range(4)]
    assert [effects["price"] for effects in weeks.values()] == [1.0, 1.0, 1.0, 1.5]
    assert weeks[str(LAST)]["conversion"] == pytest.approx([-1.5 * np.log(1.5)] * 7)
    assert weeks[str(FIRST)]["outage"] is None


def test_a_cascade_is_examined_as_an_average_slate() -> None:
    look = {"model": "cascade", "exponent": 0.0, "after_click": 0.5, "after_skip": 1.0}
    keys = {"examination": look, "click_rate": 0.2}
    cascade = World(SimulatorParams.model_validate(SHIPPED.model_dump() | keys))
    assert planted(cascade, FIRST)["examination"] == pytest.approx([1.0, 0.9, 0.81])


def test_the_same_world_writes_the_same_bytes(world: World, tmp_path: Path) -> None:
    one = write_planted(tmp_path / "one", world, LAST)
    two = write_planted(tmp_path / "two", World(world.params), LAST)
    assert one.read_bytes() == two.read_bytes()
    assert [path.name for path in one.parent.iterdir()] == [FILE]


def test_a_broken_write_leaves_the_old_file(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_planted(tmp_path, world, FIRST)
    before = path.read_bytes()

    def full(self: Path, text: str) -> int:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_planted(tmp_path, world, LAST)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps({"format": 99}), "of format 99, this version reads format 1"),
        (json.dumps({"seed": 7}), "of format None"),
        (json.dumps([1]), "of format None"),
        ('{"format": 1', "delimiter"),
        ("\udcff", "utf-8"),
    ],
)
def test_another_format_is_refused_by_name(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SourceError, match=rf"{re.escape(str(path))}: .*{reason}"):
        read_planted(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=re.escape(str(tmp_path / FILE))):
        read_planted(tmp_path / FILE)


def test_no_stage_and_no_dvc_file_names_it() -> None:
    named = re.compile(r"truth\.json|planted|simulator\.truth")
    files = [ROOT / "dvc.yaml", *(ROOT / "src/roiflow/stages").glob("*.py")]
    assert [str(path) for path in files if named.search(path.read_text())] == []


def test_the_lake_is_outside_every_run() -> None:
    settings = Settings()
    assert not settings.lake.is_relative_to(settings.runs)


OPENED: list[str] = []
WATCHED: list[bool] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if WATCHED and event in {"open", "os.listdir", "os.scandir"}:
        OPENED.append(str(arguments[0]))


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every path that Python opens; an audit hook stays, so it is switched on and off."""
    if not hasattr(sys, "_roiflow_watched"):
        sys.addaudithook(_watch)
        sys._roiflow_watched = True  # type: ignore[attr-defined]
    OPENED.clear()
    WATCHED.append(True)
    yield OPENED
    WATCHED.clear()


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_ingest_gives_the_same_bytes_whatever_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    content = planted_content()
    content["ingest"]["source"] = "simulator"
    content["ingest"]["week"] = str(FIRST.plus(1))
    content["ingest"]["simulator"]["weeks"] = 2
    content["ingest"]["simulator"]["synthetic"] |= SMALL
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    folder = Settings().lake / "simulator"
    folder.mkdir(parents=True)

    def unreadable(path: Path) -> None:
        path.write_text("{}")
        path.chmod(0)

    states: dict[str, Callable[[Path], object]] = {
        "absent": lambda path: None,
        "full": lambda path: write_planted(
            path.parent, World(load_params(params).ingest.simulator), FIRST
        ),
        "broken": lambda path: path.write_text("not JSON"),
        "unreadable": unreadable,
        "folder": lambda path: path.mkdir(),
    }
    results = {}
    for name, make in states.items():
        make(folder / FILE)
        opened.clear()
        ingest(tmp_path / name, params)
        assert not [path for path in opened if FILE in path], name
        assert any(path == str(params) for path in opened)
        results[name] = _contents(tmp_path / name)
        if (folder / FILE).is_file():
            (folder / FILE).unlink()
    assert results["absent"]
    assert all(result == results["absent"] for result in results.values())


def test_simulated_weeks_come_with_their_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(planted_content()))
    arguments = ["simulate", str(FIRST), str(tmp_path / "world"), "--weeks", "2"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = read_planted(tmp_path / "world" / FILE)
    assert (found["week"], found["parameters"]) == (str(FIRST.plus(1)), SHIPPED.model_dump())
