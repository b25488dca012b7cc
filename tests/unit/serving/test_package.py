import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roiflow.errors import PackageError
from roiflow.features.table import Statistics
from roiflow.policy.network import FEATURES, Network, SlatePolicy
from roiflow.ranking.value import CostShares
from roiflow.serving import package
from roiflow.serving.package import Description, Package

DESCRIPTION = Description(
    source="simulator",
    week="2026-W04",
    dense_names=("user_ctr", "ad_ctr"),
    profile_names=("age",),
    sizes={"user": 5, "ad": 4},
    history_length=50,
    encode_length=50,
    slate_size=2,
    top_k=3,
    temperature=1.0,
    cost_weight=1.0,
    cost_shares=CostShares(0.0, 0.25, 0.0),
    feature_sample=0.5,
    judged=None,
)
POLICY = SlatePolicy(
    slate_size=2,
    top_k=3,
    cost_weight=1.0,
    selector_share=0.0,
    temperature=1.0,
    residual_bound=2.0,
    value_scale=1e6 / 3,
    mean=np.linspace(0, 1, FEATURES),
    std=np.ones(FEATURES),
    network=Network.start(4, np.random.default_rng(0)),
)


STATISTICS = Statistics(
    *(np.array(pair, np.float32) for pair in ([0.1, 0.2], [1, 1 / 3], [0, 0], [1, 1]))
)


def files() -> dict[str, bytes]:
    return {
        package.USER_ENCODER: b"encoder",
        package.SCORER: b"scorer",
        package.POLICY: POLICY.to_bytes(),
        package.VOCABULARY: b"vocabulary",
        package.PLAN: b"plan",
        package.STATISTICS: package.statistics_json(STATISTICS),
        "candidates/model.json": b"{}",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Package.write(tmp_path / "package", DESCRIPTION, files())
    return tmp_path / "package"


def test_what_was_written_is_read(folder: Path) -> None:
    loaded = Package.load(folder)
    assert loaded.description == DESCRIPTION
    np.testing.assert_array_equal(loaded.statistics.std, np.array([1, 1 / 3], np.float32))
    np.testing.assert_array_equal(loaded.policy.network.input_weight, POLICY.network.input_weight)


def test_the_digest_is_of_the_content_alone(folder: Path, tmp_path: Path) -> None:
    again = Package.write(tmp_path / "elsewhere" / "other", DESCRIPTION, files())
    assert again.digest == Package.load(folder).digest
    assert (folder / package.MANIFEST).read_bytes() == (
        tmp_path / "elsewhere" / "other" / package.MANIFEST
    ).read_bytes()


@pytest.mark.parametrize(
    ("description", "content"),
    [
        (replace(DESCRIPTION, cost_weight=1.5), files()),
        (DESCRIPTION, {**files(), package.SCORER: b"another"}),
        (DESCRIPTION, {**files(), "candidates/second.json": b"{}"}),
    ],
    ids=["a value", "a file", "one file more"],
)
def test_other_content_other_digest(
    folder: Path, tmp_path: Path, description: Description, content: dict[str, bytes]
) -> None:
    other = Package.write(tmp_path / "other", description, content)
    assert other.digest != Package.load(folder).digest


@pytest.mark.parametrize("name", sorted(files()))
def test_an_altered_file_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(PackageError, match=f"{name}: altered"):
        Package.load(folder)


@pytest.mark.parametrize("name", [*sorted(files()), package.MANIFEST])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(PackageError, match=f"{name}: No such file"):
        Package.load(folder)


def edit(folder: Path, **values: object) -> None:
    path = folder / package.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_another_format_is_refused_with_both_versions(folder: Path) -> None:
    edit(folder, format=2)
    with pytest.raises(PackageError, match=r"manifest.json: format 2, .* reads format 4"):
        Package.load(folder)


def test_an_altered_manifest_value_is_found(folder: Path) -> None:
    edit(folder, cost_weight=0.0)
    with pytest.raises(PackageError, match=r"manifest.json: altered: its digest is"):
        Package.load(folder)


def test_unknown_and_missing_keys_are_named(folder: Path) -> None:
    edit(folder, colour="red")
    with pytest.raises(PackageError, match="keys missing or unknown: colour"):
        Package.load(folder)


def test_a_manifest_that_is_not_json_is_named(folder: Path) -> None:
    (folder / package.MANIFEST).write_text("{")
    with pytest.raises(PackageError, match=r"manifest.json: not JSON"):
        Package.load(folder)


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", "manifest.json"])
def test_a_file_outside_the_folder_is_refused(folder: Path, name: str, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="is not the name of a file of a package"):
        Package.write(tmp_path / "other", DESCRIPTION, {**files(), name: b""})
    edit(folder, files={name: "0"})
    with pytest.raises(PackageError, match="is not the name of a file of a package"):
        Package.load(folder)


def test_an_incomplete_package_is_not_written(tmp_path: Path) -> None:
    content = files()
    del content[package.SCORER]
    with pytest.raises(PackageError, match=r"without scorer\.onnx"):
        Package.write(tmp_path / "package", DESCRIPTION, content)
    assert list(tmp_path.iterdir()) == []


def test_loading_needs_no_training_library(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from roiflow.serving.package import Package; "
        "package = Package.load(Path(sys.argv[1])); package.policy, package.statistics; "
        "heavy = {'torch', 'sklearn', 'mlflow', 'xgboost', 'pandas'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
