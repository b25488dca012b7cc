"""docs/operations.md explains every error as the code says it, and every page's links lead on."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from docs.layout import ROOT

from roiflow import errors
from roiflow.artefacts.decision import Decision, Override
from roiflow.cli.terminal import finished
from roiflow.errors import RoiflowError
from roiflow.evaluation.screen import Subject, decide
from roiflow.params import load_params, parse_params
from roiflow.weekly.values import PARAMS, with_values
from tests.records import report

PAGE = (ROOT / "docs/operations.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
CLASSES = {
    name
    for name, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, RoiflowError)
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_has_meaning_example_and_remedy(name: str) -> None:
    assert name in SECTIONS, f"docs/operations.md has no section `### {name}`"
    text = SECTIONS[name]
    assert len(text.partition("```")[0].strip()) > 40
    assert re.search(rf"^```\n{name}: \S.*\n```$", text, re.MULTILINE)
    assert re.search(r"^Do: \S", text, re.MULTILINE)


def test_no_error_is_explained_that_is_not_there() -> None:
    explained = {name for name in SECTIONS if re.search("(Error|Limit|Week|New)$", name)}
    assert explained == CLASSES


def wrong_week() -> None:
    text = (ROOT / PARAMS).read_text()
    parse_params(with_values(text, {"ingest.week": "2031-53"}), PARAMS)


def unfinished_run() -> None:
    finished(Path(".roiflow/runs/simulator-2017-W20"))


def unsigned_override() -> None:
    params = load_params(ROOT / PARAMS).screen
    decide(report(), params, Subject("a", None, None, None, None), Override("Ada", ""))


def unwritten_decision() -> None:
    Decision.of(Path(".roiflow/runs/files-2026-W04"))


@pytest.mark.parametrize(
    "fail", [wrong_week, unfinished_run, unsigned_override, unwritten_decision]
)
def test_an_example_is_what_the_code_says(fail: Callable[[], None]) -> None:
    with pytest.raises(RoiflowError) as raised:
        fail()
    assert f"```\n{type(raised.value).__name__}: {raised.value}\n```" in PAGE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        if name.startswith("http"):
            continue
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} links {target}"
        anchors = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in map(_anchor, anchors), f"{page.name} links {target}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
