"""params.yaml: complete, typed, bounded, with nothing else in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from roiflow.errors import ParamsError
from roiflow.params import Params, Section, load_params

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "params.yaml").read_text()


def sections(model: type[Section]) -> list[type[Section]]:
    inner = [
        field.annotation
        for field in model.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    ]
    return [model, *(deep for section in inner for deep in sections(section))]


def leaves(content: dict[str, Any], *path: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in content.items():
        if isinstance(value, dict):
            found.extend(leaves(value, *path, key))
        else:
            found.append((*path, key))
    return found


def changed(path: tuple[str, ...], value: object, file: Path) -> Path:
    content = yaml.safe_load(TEXT)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "params.yaml"


def test_no_number_hides_in_the_code() -> None:
    for section in sections(Params):
        for name, field in section.model_fields.items():
            assert field.is_required(), f"{section.__name__}.{name} has a default"


TABLE = ("ingest", "simulator", "synthetic", "action_importance")
"""Its keys are the world's actions, not ours."""


@pytest.mark.parametrize(
    "path", [path for path in leaves(yaml.safe_load(TEXT)) if path[:-1] != TABLE], ids=".".join
)
def test_every_key_is_needed(path: tuple[str, ...], file: Path) -> None:
    content = yaml.safe_load(TEXT)
    place = content
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=rf"{'.'.join(path)}: Field required"):
        load_params(file)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("screen", "colour"), "blue", "screen.colour: Extra inputs.*value 'blue'"),
        (("evaluate", "requests"), 0, "evaluate.requests: .*greater than or equal to 1.*value 0"),
        (("evaluate", "requests"), "many", "evaluate.requests: .*value 'many'"),
        (("evaluate", "requests"), 1.5, r"evaluate.requests: .*value 1\.5"),
        (("evaluate", "requests"), True, "evaluate.requests: .*value True"),
        (("evaluate", "confidence"), 1.0, r"evaluate.confidence: .*value 1\.0"),
        (("screen", "confidence"), 1.2, r"screen.confidence: .*value 1\.2"),
        (("ingest", "week"), "2026-4", "ingest.week: .*value '2026-4'"),
        (("ingest", "source"), "warehouse", "ingest.source: .*value 'warehouse'"),
        (("screen", "first_model"), "perhaps", "screen.first_model: .*value 'perhaps'"),
    ],
)
def test_a_wrong_value_is_named(
    path: tuple[str, ...], value: object, words: str, file: Path
) -> None:
    with pytest.raises(ParamsError, match=f"params.yaml: {words}"):
        load_params(changed(path, value, file))


def test_all_faults_are_told_at_once(file: Path) -> None:
    content = yaml.safe_load(TEXT)
    content["screen"]["seed"] = -1
    content["export"]["parity_rows"] = "x"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=r"export\.parity_rows.*; screen\.seed"):
        load_params(file)


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "not valid YAML"), ("", "value None"), ("- 1", r"value \[1\]")]
)
def test_what_is_no_mapping_is_refused(text: str, words: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ParamsError, match=words):
        load_params(file)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml: No such file"):
        load_params(file)
