from pathlib import Path

import pytest

from roiflow.data.sources.places import local_folder, open_folder
from roiflow.errors import SourceError
from roiflow.settings import absolute, is_url


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://lake/ads", True),
        ("file:///x", True),
        ("gs+https://x", True),
        ("/x/s3://lake", False),
        ("own/lake", False),
        ("s3:/lake", False),
        ("C:/lake", False),
        ("", False),
    ],
)
def test_a_url_is_told_from_a_path(place: str, expected: bool) -> None:
    assert is_url(place) is expected
    assert absolute(place) == (place if expected else str(Path(place).absolute()))


def test_a_file_url_is_a_path_of_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / "100% of it"
    folder.mkdir()
    for place in (str(folder), f"file://{tmp_path}/100%25%20of%20it", f"file://localhost{folder}/"):
        assert local_folder(place) == folder


def test_what_is_elsewhere_is_no_folder_of_this_machine() -> None:
    with pytest.raises(SourceError, match=r"^s3://lake/ads: this source reads a folder of this m"):
        local_folder("s3://lake/ads")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.touch()
    with pytest.raises(SourceError, match=rf"^{path}: not a folder: .*ROIFLOW_DATA_FOLDER"):
        open_folder(str(path)).require()
