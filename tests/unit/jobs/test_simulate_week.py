"""The job that lets packages serve a week: who serves it, and the world's truth beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from roiflow.errors import RegistryError, SourceError
from roiflow.jobs import simulate_week
from roiflow.labels.model import Labels
from roiflow.simulator.planted import read_planted
from tests.labels import planted_labels
from tests.records import promoted
from tests.worlds import planted_content

ROOT = Path(__file__).parents[3]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    content = planted_content()
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


Serve = Callable[[str | None, str | None], list[Any]]


@pytest.fixture
def serve(params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """What `simulate` is called with where a run left a champion and a challenger."""
    planted_labels((1.0,), (0.0,)).write(tmp_path / "labels" / Labels.place.name)
    asked: list[Any] = []
    monkeypatch.setattr(simulate_week, "simulate", lambda *arguments: asked.extend(arguments))

    def play(champion: str | None, challenger: str | None) -> list[Any]:
        who = promoted(champion=champion, challenger=challenger)
        who.write(tmp_path / "promoted.json")
        simulate_week.main(
            tmp_path / "promoted.json",
            tmp_path / "package",
            tmp_path / "online",
            tmp_path / "labels",
            params,
        )
        return asked

    return play


def test_truth_lies_beside_the_served_week(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "home" / "packages" / "a").mkdir(parents=True)
    serve("a", None)
    found = read_planted(tmp_path / "home" / "lake" / "simulator" / "truth.json")
    assert (found["first_week"], found["week"]) == ("2026-W01", "2026-W05")


def test_the_run_says_who_serves_and_who_is_on_trial(serve: Serve, tmp_path: Path) -> None:
    """A package that was downloaded is taken from there, the run's own from the run."""
    champion = tmp_path / "home" / "packages" / "a"
    champion.mkdir(parents=True)
    own = tmp_path / "package"
    own.mkdir()
    (own / "manifest.json").write_text('{"digest": "b"}')
    stable, *_, on_trial = serve("a", "b")
    assert (stable, on_trial.package) == (champion, own)
    assert on_trial.params.start_share == 0.05
    stable, *_, on_trial = serve(None, "b")[-7:]
    assert (stable, on_trial.package) == (None, own)
    stable, *_, on_trial = serve("a", None)[-7:]
    assert (stable, on_trial) == (champion, None)


class Nothing:
    """A registry without a version."""

    def __init__(self, *_: object) -> None:
        pass

    def find(self, *_: object) -> None:
        return None


def test_a_package_that_nobody_has_is_named(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_week, "Registry", Nothing)
    with pytest.raises(RegistryError, match="no version of package c, which is to serve"):
        serve("c", None)


def test_no_other_source_can_be_served(params: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(params.read_text())
    content["ingest"] |= {"source": "complete_journey", "week": "2017-W44"}
    params.write_text(yaml.safe_dump(content))
    with pytest.raises(SourceError, match="not complete_journey"):
        simulate_week.main(tmp_path, tmp_path, tmp_path, tmp_path, params)
    assert not (tmp_path / "home").exists()
