import hashlib
from pathlib import Path

import pytest

from roiflow.errors import ContractError
from roiflow.features.folder import read
from roiflow.features.vocabulary import Vocabulary
from roiflow.stages.build_features import main
from tests.feature_world import LAST, random_world

PARAMS = Path(__file__).parents[3] / "params.yaml"


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    Vocabulary({}).write(tmp_path / "raw" / "vocabulary.parquet")
    return tmp_path / "raw"


def test_the_same_weeks_give_the_same_bytes(tmp_path: Path, raw: Path) -> None:
    validated = random_world(2).write(tmp_path / "validated")
    for name in ("one", "other"):
        main(raw, validated, tmp_path / name, PARAMS)
    assert digests(tmp_path / "one") == digests(tmp_path / "other")
    assert read(tmp_path / "one").impressions.user.size == 80


def test_a_failure_leaves_the_earlier_features(tmp_path: Path, raw: Path) -> None:
    validated, features = random_world(3).write(tmp_path / "validated"), tmp_path / "features"
    main(raw, validated, features, PARAMS)
    before = digests(features)
    broken = validated / "impressions" / f"week={LAST}" / "part-0.parquet"
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(ContractError, match=str(broken)):
        main(raw, validated, features, PARAMS)
    assert digests(features) == before
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "validated", "features"}
