"""What an ablation says of worlds whose answer is known, and where it keeps and writes it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from roiflow.errors import ContractError
from roiflow.features.spec import NAMES, SPECS
from roiflow.features.table import Features
from roiflow.labels.fit import fit as fit_labels
from roiflow.loop import ablations
from roiflow.loop.ablated_world import AblatedWorld, Run, open_world
from roiflow.loop.ablation import EVERYTHING, Gain, Measured, groups, measure, plans, without
from roiflow.loop.ablation_report import LEAK, Ablation, cells, lines, write_report
from roiflow.loop.ablations import ablate_seed
from roiflow.params import load_params
from tests.unit.loop.test_weeks import ROOT
from tests.unit.ranking import worlds
from tests.worlds import world_params

PARAMS = load_params(ROOT / "params.yaml")
FULL = Measured(0.7, 0.6, 0.1, 0.3, 80.0)


def measured(features: Features, *left_out: str) -> Measured:
    labels = fit_labels(features, PARAMS.fit_labels).labels
    return measure(features, labels, PARAMS.train_candidates, left_out, None)


def test_every_feature_is_in_one_group() -> None:
    members = [name for names in groups().values() for name in names if name in NAMES]
    assert sorted(members) == sorted(NAMES)
    assert groups()["user x ad"] == tuple(spec.name for spec in SPECS if spec.entity == "user_ad")
    made = plans()
    assert next(iter(made)) == EVERYTHING
    assert len(made) == 1 + len(NAMES) + len(groups())


def test_what_is_left_out_is_a_constant() -> None:
    features = worlds.build().features
    bare = without(features, ("noise", "code:context", "code:ad"))
    assert not bare.impressions.dense[:, 1].any()
    assert not bare.impressions.context.any()
    assert not bare.attributes.any()
    assert (bare.statistics.mean[1], bare.statistics.std[1]) == (0, 1)
    assert_array_equal(bare.impressions.dense[:, 0], features.impressions.dense[:, 0])
    assert_array_equal(bare.profile, features.profile)
    assert features.impressions.context.any()


def test_a_feature_that_carries_adds_and_noise_does_not() -> None:
    features = worlds.build().features
    full = measured(features)
    quality, noise = (Gain.of(full, measured(features, name)) for name in ("quality", "noise"))
    assert quality.click_loss > 10 * abs(noise.click_loss)
    assert quality.click_auc > 0.01 > abs(noise.click_auc)
    assert quality.points is None


def test_a_planted_leak_is_marked_and_nothing_else() -> None:
    features = worlds.build().features
    log = features.impressions
    dense = np.array(log.dense)
    dense[:, 1] = log.clicked + np.random.default_rng(1).normal(scale=0.3, size=log.clicked.size)
    about = features.statistics
    mean, std = about.mean.copy(), about.std.copy()
    mean[1], std[1] = dense[:, 1].mean(), dense[:, 1].std()
    leaky = replace(
        features,
        impressions=replace(log, dense=dense.astype(np.float32)),
        statistics=replace(about, mean=mean, std=std),
    )
    full, limit = measured(leaky), PARAMS.ablate.suspicious_auc_gain
    marks = {
        name: Gain.of(full, measured(leaky, name)).suspicious(limit) for name in leaky.dense_names
    }
    assert marks == {"quality": False, "noise": True, "wide": False}


def seed_of(number: int, points: float, leak: bool = False) -> Ablation:
    """Each feature adds `points`; the first one may add too much to the clicks."""
    rest = replace(FULL, points=80.0 - points)
    models = dict.fromkeys(plans(), rest) | {EVERYTHING: FULL}
    if leak:
        models[NAMES[0]] = replace(rest, click_auc=0.6)
    return Ablation(number, "digest", models, dict.fromkeys(NAMES, 0.25))


def test_the_table_is_means_and_spreads_over_seeds() -> None:
    found = lines([seed_of(7, 1.0), seed_of(8, 3.0)], 0.05)
    assert [line.name for line in found] == [
        name
        for group, members in groups().items()
        for name in ([group, *members] if len(members) > 1 else [group])
    ]
    first = cells(found[0])
    assert first[1:] == (
        "+2.00 ± 1.41", "+0.00 ± 0.00", "+0.000 ± 0.000", "+0.00 ± 0.00", "+0.25 ± 0.00", "",
    )  # fmt: skip
    marked = [line.name for line in lines([seed_of(7, 1.0, leak=True)], 0.05) if line.suspicious]
    assert marked == [NAMES[0]]


def test_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "features.md"
    page.write_text("before\n<!-- ablation -->\nold\n<!-- /ablation -->\nafter\n")
    write_report([seed_of(7, 1.0, leak=True)], 0.05, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n<!-- ablation -->\nAll ")
    assert text.endswith("\n<!-- /ablation -->\nafter\n")
    assert "old" not in text
    assert text.count(LEAK) == 1
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    page.write_text("nothing\n")
    with pytest.raises(ContractError, match=r"features\.md: no place between"):
        write_report([seed_of(7, 1.0)], 0.05, tmp_path)


def test_what_is_there_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    asked: list[Sequence[str]] = []
    room = 3

    class Cut(Exception):
        pass

    def world(folder: Path, *_: object) -> AblatedWorld:
        opened.append(folder)
        return AblatedWorld(Run(None, None), SimpleNamespace(points=None), {})  # type: ignore[arg-type]

    def one(
        _features: object, _labels: object, _params: object, left: Sequence[str], _w: object
    ) -> Measured:
        if len(asked) == room:
            raise Cut
        asked.append(left)
        return FULL

    monkeypatch.setattr(ablations, "open_world", world)
    monkeypatch.setattr(ablations, "measure", one)
    with pytest.raises(Cut):
        ablate_seed(tmp_path, PARAMS, 7, lambda _done, _what: None)
    room = 1_000
    found = ablate_seed(tmp_path, PARAMS, 7, lambda _done, _what: None)
    assert [*asked] == [*plans().values()]
    assert set(found.measured) == set(plans())
    assert ablate_seed(tmp_path, PARAMS, 7, lambda _done, _what: None) == found
    assert len(opened) == 2


def test_a_model_is_worth_what_its_slates_are(tmp_path: Path) -> None:
    """A ranker that knows the truth goes the whole way, random goes none, on a small world."""
    simulator = world_params(users=300, ads=24, categories=4, click_rate=0.2, conversion_rate=0.3)
    ingest = PARAMS.ingest.model_copy(update={"simulator": simulator, "week": "2026-W04"})
    world = open_world(tmp_path, PARAMS.model_copy(update={"ingest": ingest}), 500)
    assert set(world.shift) == set(NAMES)
    assert world.shift["log_price"] == pytest.approx(0.0, abs=1e-3)
    assert abs(world.shift["ad_ctr_56d"]) > 0.01
    of = measure(
        world.run.features, world.run.labels, PARAMS.train_candidates, (), world.judge.points
    )
    assert of.points is not None
    assert 10 < of.points < 100
