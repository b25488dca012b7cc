"""finetune_policy and export as DVC calls them, on a tiny world."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from roiflow.artefacts.agreement import Agreement
from roiflow.data.split import TRAIN, VALIDATION
from roiflow.data.weeks import Week
from roiflow.errors import PackageError, ParityError
from roiflow.features.folder import read
from roiflow.online.snapshot import load_snapshot
from roiflow.ranking.rosa import RosaRanker
from roiflow.serving.package import Package
from roiflow.serving.recommender import Recommender
from roiflow.serving.slates import RequestContexts
from roiflow.stages import (
    export,
    finetune_policy,
    fit_labels,
    refit,
    ship,
    train_candidates,
    train_ranker,
)
from tests.unit.serving.packages import TinyWorld, tiny_world

ROOT = Path(__file__).parents[2]
SMALL: dict[str, dict[str, Any]] = {
    "train_candidates": {"kind": "logistic", "top_k": 6},
    "train_ranker": {"dim": 8, "layers": 1, "epochs": 1, "patience": 1},
    "finetune_policy": {
        "requests": 200,
        "iterations": 80,
        "batch_slates": 128,
        "hidden": 8,
        "checkpoint_every": 1,
    },
    "export": {"parity_rows": 500},
    "ship": {"requests": 100},
}


@dataclass(frozen=True)
class Checkout:
    """A folder with the outputs of the stages above."""

    folder: Path
    world: TinyWorld

    @property
    def params(self) -> Path:
        return self.folder / "params.yaml"

    def at(self, name: str) -> Path:
        return self.folder / "data" / name

    def finetune(self, policy: str) -> list[Path]:
        """Arguments of the stage that write to data/<policy>."""
        return [
            self.world.features,
            self.at("candidates"),
            self.at("ranker"),
            self.folder / policy / "policy",
            self.folder / policy / "metrics.json",
            self.folder / policy / "plot.csv",
            self.params,
        ]

    def ship(self, package: str) -> Agreement:
        """Refit, and the package that ships in the place of the judged `package`."""
        out = self.folder / f"{package}-shipped"
        refit.main(
            self.world.features,
            self.at("labels"),
            self.at("candidates"),
            self.at("ranker"),
            out / "refit",
            out / "r.json",
            self.params,
        )
        ship.main(
            self.world.features,
            out / "refit",
            self.folder / "first" / "policy",
            self.folder / package,
            out / "package",
            out / "agreement.json",
            out / "ship.json",
            self.params,
        )
        return Agreement.read(out / "agreement.json")

    def export(self, package: str, ranker: str = "ranker") -> None:
        export.main(
            self.world.features,
            self.at("candidates"),
            self.at(ranker),
            self.folder / "first" / "policy",
            self.folder / package,
            self.folder / f"{package}.json",
            self.params,
        )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("checkout")
    made = Checkout(folder, tiny_world(folder))
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        content[section] |= values
    made.params.write_text(yaml.safe_dump(content))
    fit_labels.main(made.world.features, made.at("labels"), folder / "labels.json", made.params)
    train_candidates.main(
        made.world.features,
        made.at("labels"),
        made.at("candidates"),
        folder / "candidates.json",
        made.params,
    )
    train_ranker.main(
        made.world.features,
        made.at("labels"),
        made.at("ranker"),
        folder / "ranker.json",
        folder / "ranker.csv",
        made.params,
    )
    finetune_policy.main(*made.finetune("first"))
    return made


@pytest.fixture(scope="module")
def package(checkout: Checkout) -> Package:
    checkout.export("package")
    return Package.load(checkout.folder / "package")


def test_metrics_and_plot(checkout: Checkout) -> None:
    metrics = json.loads((checkout.folder / "first" / "metrics.json").read_text())
    assert metrics["reward"] > metrics["start_reward"]
    assert metrics["min_propensity"] > 0
    lines = (checkout.folder / "first" / "plot.csv").read_text().splitlines()
    assert lines[0] == "iteration,reward,kl,entropy"
    assert len(lines) == 1 + 1 + 80
    assert not (checkout.folder / "first" / "checkpoints" / "finetune_policy").exists()


def test_a_killed_stage_leaves_nothing_and_ends_bit_equal(checkout: Checkout) -> None:
    arguments = checkout.finetune("second")
    victim = subprocess.Popen(
        [sys.executable, "-m", "roiflow.stages.finetune_policy", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = checkout.folder / "second"
    deadline = time.monotonic() + 60
    while not list(folder.glob("checkpoints/finetune_policy/*/checkpoint.pt")):
        assert victim.poll() is None, "the stage ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]
    finetune_policy.main(*arguments)
    for name in ("policy/policy.json", "metrics.json", "plot.csv"):
        assert (folder / name).read_bytes() == (checkout.folder / "first" / name).read_bytes()
    assert not list(folder.glob("checkpoints/finetune_policy"))


def test_the_package_is_faithful_and_repeatable(checkout: Checkout, package: Package) -> None:
    metrics = json.loads((checkout.folder / "package.json").read_text())
    assert metrics["parity_rows"] == 500
    assert max(metrics["max_difference"].values()) <= 1e-4
    assert metrics["latency_p50_ms_200_candidates"] > 0
    assert metrics["digest"] == package.digest
    checkout.export("again")
    assert Package.load(checkout.folder / "again").digest == package.digest


def test_what_ships_is_the_recipe_on_all_weeks(checkout: Checkout, package: Package) -> None:
    found = checkout.ship("package")
    folder = checkout.folder / "package-shipped"
    shipped = Package.load(folder / "package")
    assert (found.judged, found.shipped) == (package.digest, shipped.digest)
    assert shipped.digest != package.digest
    assert (package.description.judged, shipped.description.judged) == (None, package.digest)
    assert found.requests == 100
    assert 0.3 < found.overlap <= 1.0
    assert found.value_ratio == pytest.approx(1.0, abs=0.5)
    # The policy is the judged one; what it is given comes from other fits.
    name = "policy.json"
    assert (shipped.folder / name).read_bytes() == (package.folder / name).read_bytes()
    for name in ("scorer.onnx", "candidates/logistic/tables.npz"):
        assert (shipped.folder / name).exists()
    assert (shipped.folder / "scorer.onnx").read_bytes() != (
        package.folder / "scorer.onnx"
    ).read_bytes()
    # It trained on the test week, but for the days on which it stopped.
    table = read(checkout.world.features)
    later = table.as_of_end()
    metrics = json.loads((folder / "r.json").read_text())
    assert metrics["train_rows"] == later.rows(TRAIN).size > table.rows(TRAIN).size
    assert later.impressions.event_time[later.rows(VALIDATION)].min() >= (
        table.known_until[2] - 2 * 24 * 3_600_000_000
    )
    assert checkout.ship("package") == found


def test_the_package_serves(checkout: Checkout, package: Package) -> None:
    recommender = Recommender(package)
    store = recommender.memory_store()
    assert load_snapshot(store, checkout.world.features / "online")
    now = np.full(2, Week.parse(package.description.week).end)
    batch = RequestContexts(["r1", "r2"], ["user-1", "nobody"], now, ["top"] * 2, ["web"] * 2)
    slates, degraded = recommender.recommend(batch, store)
    assert not degraded
    assert slates.ad_ids.shape == (2, package.description.slate_size)
    assert set(slates.ad_ids.ravel()) <= set(store.shelf.catalogue.ad_id.to_pylist())
    assert np.all((slates.propensity > 0) & (slates.propensity <= 1))


def test_no_package_where_the_models_differ(
    checkout: Checkout, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The scorer of another ranker, one that was never trained.
    trained = RosaRanker.load(checkout.at("ranker"))
    with torch.no_grad():
        for weight in trained.net.parameters():
            weight.mul_(1.01)
    trained.save(checkout.at("other"))
    written = tuple(
        (package.folder / name).read_bytes() for name in ("user_encoder.onnx", "scorer.onnx")
    )
    monkeypatch.setattr(export, "to_onnx", lambda _: written)
    (checkout.at("other") / "cost_shares.json").write_bytes(
        (checkout.at("ranker") / "cost_shares.json").read_bytes()
    )
    with pytest.raises(ParityError, match=r"click: \d+ of 500 rows differ by more than 0.0001"):
        checkout.export("refused", ranker="other")
    assert not (checkout.folder / "refused").exists()
    assert not (checkout.folder / "refused.json").exists()


def test_a_missing_input_is_named(checkout: Checkout) -> None:
    arguments = checkout.finetune("third")
    arguments[2] = checkout.at("nowhere")
    with pytest.raises(PackageError, match=r"nowhere"):
        finetune_policy.main(*arguments)
