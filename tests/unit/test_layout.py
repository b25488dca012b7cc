"""docs/layout.md is what its generator makes, and every file says what it is."""

from pathlib import Path

import pytest
from docs.layout import PAGE, ROOT, _branch, _comment, _docstring, _files, _place, _tree, page


def test_the_page_is_what_the_generator_makes() -> None:
    assert PAGE.read_text() == page(), "run `python docs/layout.py`"


def test_every_module_is_on_the_page_once() -> None:
    named, folder = [], ""
    for each in _tree(_files()):
        if each.startswith("  "):
            named.append(folder + each.split()[0])
        else:
            folder = each.split()[0]
    shown = ("src/roiflow/", "dags/", "bentos/")
    modules = [name for name in _files() if name.startswith(shown) and name.endswith(".py")]
    assert sorted(name for name in named if name.startswith(shown) and name.endswith(".py")) == [
        name for name in modules if not name.endswith("__init__.py")
    ]


def test_every_remark_is_a_line_of_words() -> None:
    for each in _tree(_files()):
        name, _, remark = each.strip().partition(" ")
        assert 12 <= len(remark.strip()) <= 110, f"{name}: {remark.strip() or 'says nothing'}"


def test_folders_come_in_the_order_of_imports() -> None:
    folders = [
        "src/roiflow/data/sources/",
        "src/roiflow/jobs/",
        "src/roiflow/",
        "src/roiflow/data/",
    ]
    assert sorted(folders, key=_place) == [folders[2], folders[1], folders[3], folders[0]]


def test_only_files_with_a_remark_are_listed() -> None:
    names = ["monitoring/drift.yaml", "monitoring/picture.png"]
    assert [each.split()[0] for each in _branch("monitoring/", "declared", names)] == [
        "monitoring/",
        "drift.yaml",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# Said first.\nkey: 1\n", "Said first."),
        ("{#- A page. -#}\n<p>", "A page."),
        ("key: 1 # too late\n", ""),
    ],
)
def test_a_comment_is_the_first_line_alone(text: str, said: str) -> None:
    assert _comment(text) == said


def test_a_docstring_is_its_first_line() -> None:
    assert _docstring('"""What it is.\n\nAnd more.\n"""\nx = 1\n') == "What it is."
    assert _docstring("x = 1\n") == ""


def test_the_generator_knows_the_tree() -> None:
    assert (ROOT / "pyproject.toml").is_file()
    assert Path("docs/layout.py") in [Path(name) for name in _files()]
