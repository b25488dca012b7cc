"""What compiled functions are kept under: the content of all that they can see, not its place."""

from pathlib import Path
from typing import Any

import pytest

from roiflow import compiled
from roiflow.features import kernels
from roiflow.simulator import synthetic_passes

CODE = {
    "kernels.py": "from roiflow.room import (\n    constants as c,\n    sums,\n)\n",
    "room/constants.py": "HOUR = 3600\n",
    "room/sums.py": "import roiflow.weeks\n",
    "weeks.py": "from roiflow.room.constants import HOUR\n",
    "other.py": "from roiflow import kernels\n",
}


def digest(folder: Path, patch: pytest.MonkeyPatch, **changed: str) -> str:
    for name, text in (CODE | {f"{name}.py": text for name, text in changed.items()}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    patch.setattr(compiled, "PACKAGE", folder)
    return compiled.digest_of(folder / "kernels.py")


def test_copies_of_equal_code_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest(tmp_path / "one", monkeypatch)
    assert digest(tmp_path / "two", monkeypatch) == first
    assert digest(tmp_path / "three", monkeypatch, other="x = 1\n") == first


@pytest.mark.parametrize("name", ["kernels", "room/constants", "room/sums", "weeks"])
def test_all_that_is_imported_counts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digest(tmp_path / "one", monkeypatch)
    text = CODE[f"{name}.py"] + "x = 1\n"
    assert digest(tmp_path / "two", monkeypatch, **{name: text}) != first


def test_the_package_itself_is_seen() -> None:
    seen = compiled._read(Path(kernels.__file__))[1]
    assert {path.stem for path in seen} >= {"compiled", "weeks"}


def test_two_processes_write_no_file_of_the_same_name() -> None:
    function: Any = synthetic_passes._alias
    one, other = (compiled._Cache(function.py_func) for _ in range(2))
    assert one.cache_path == other.cache_path
    names = {cache._cache_file._data_name_pattern.format(number=1) for cache in (one, other)}
    assert len(names) == 2
