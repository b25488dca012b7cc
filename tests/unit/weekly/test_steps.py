"""The order of stages and effects, as the DAG and the loop take it."""

from graphlib import CycleError
from pathlib import Path

import pytest

from roiflow.weekly.effects import DECIDES, EFFECTS
from roiflow.weekly.steps import Step, after, needed, ordered, read_stages

ROOT = Path(__file__).parents[3]
FLOW = [
    ("look", "ingest"),
    ("ingest", "validate"),
    ("validate", "build_features"),
    ("build_features", "train_candidates"),
    ("build_features", "train_ranker"),
    ("train_candidates", "finetune_policy"),
    ("train_ranker", "finetune_policy"),
    ("finetune_policy", "evaluate"),
    ("finetune_policy", "export"),
]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_stage_follows_those_whose_outputs_or_parts_of_them_it_reads(tmp_path: Path) -> None:
    path = write(
        tmp_path / "dvc.yaml",
        """
        stages:
          last: {cmd: c, deps: [b/out, metrics/m.json, plots/p.csv]}
          middle:
            cmd: b
            deps: [raw/part.parquet, src/code.py]
            outs: [b/out]
            metrics: [metrics/m.json]
          plot: {cmd: p, deps: [raw], plots: [plots/p.csv: {x: a}]}
          first: {cmd: a, outs: [raw: {cache: false}]}
        """,
    )
    stages = read_stages(path)
    assert after(stages) == {
        "first": (),
        "middle": ("first",),
        "plot": ("first",),
        "last": ("middle", "plot"),
    }
    assert [stage.name for stage in stages].index("first") == 0
    assert stages[-1] == Step("last", "c", ("b/out", "metrics/m.json", "plots/p.csv"), ())


def test_a_step_that_reads_a_folder_follows_whoever_writes_into_it() -> None:
    steps = [Step("report", "r", ("metrics",), ()), Step("train", "t", (), ("metrics/t.json",))]
    assert [step.name for step in ordered(steps)] == ["train", "report"]


def test_what_is_waited_for_already_is_not_named_again() -> None:
    steps = [
        Step("a", "a", (), ("a",)),
        Step("b", "b", ("a",), ("b",)),
        Step("c", "c", ("a", "b"), ("c",)),
        Step("d", "d", ("a", "b", "c"), ()),
    ]
    assert after(steps) == {"a": (), "b": ("a",), "c": ("b",), "d": ("c",)}


def test_a_common_beginning_of_two_names_is_no_dependency(tmp_path: Path) -> None:
    path = write(
        tmp_path / "dvc.yaml",
        "stages: {a: {cmd: a, outs: [data/raw]}, b: {cmd: b, deps: [data/raw_other]}}",
    )
    assert after(read_stages(path)) == {"a": (), "b": ()}


def test_a_circle_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "dvc.yaml",
        "stages: {a: {cmd: a, deps: [y], outs: [x]}, b: {cmd: b, deps: [x], outs: [y]}}",
    )
    with pytest.raises(CycleError):
        read_stages(path)


def test_the_weekly_flow_is_the_one_of_the_design() -> None:
    names = [stage.name for stage in read_stages(ROOT / "dvc.yaml")]
    place = {name: index for index, name in enumerate(names)}
    assert sorted(names) == sorted(
        [
            "look",
            "ingest",
            "validate",
            "build_features",
            "fit_labels",
            "train_candidates",
            "train_ranker",
            "finetune_policy",
            "evaluate",
            "export",
            "refit",
            "ship",
        ]
    )
    assert all(place[before] < place[after] for before, after in FLOW)


def before(name: str) -> set[str]:
    """Everything that is done before a step of the weekly run."""
    return {step.name for step in needed([*read_stages(ROOT / "dvc.yaml"), *EFFECTS], name)} - {
        name
    }


def test_the_commit_holds_what_every_stage_left() -> None:
    assert before("commit") == {stage.name for stage in read_stages(ROOT / "dvc.yaml")}


def test_a_version_is_registered_with_its_lineage_and_decision() -> None:
    assert before("register") >= {"commit", "check_parity", "canary", "screen"}
    assert before("bundle") >= {"promote"}


def test_nothing_that_is_decided_waits_for_the_drift_report() -> None:
    waits = after([*read_stages(ROOT / "dvc.yaml"), *EFFECTS])
    assert waits["report_drift"] == ("fit_labels",)
    assert waits["check_parity"] == ("validate",)
    # On trial was what an earlier run made: its trial is decided beside this week's training.
    assert waits["canary"] == ("fit_labels",)
    assert [name for name, some in waits.items() if "report_drift" in some] == ["report"]
    assert set(waits["commit"]) == {"evaluate", "ship"}
    # The refit runs beside the policy, and what ships is made beside the evaluation.
    assert set(waits["refit"]) == {"train_candidates", "train_ranker"}
    assert set(waits["ship"]) == {"export", "refit"}
    assert before("report") == waits.keys() - {"report"}


def test_the_loop_does_what_promotion_needs() -> None:
    names = {step.name for step in needed(EFFECTS, DECIDES)}
    assert names == {"commit", "check_parity", "canary", "screen", "register", "promote"}


def test_an_effect_writes_what_its_command_names() -> None:
    for effect in EFFECTS:
        named = effect.command.split()[1:]
        for path in effect.writes:
            assert any(one == path or one.startswith(f"{path}/") for one in named), effect.name
        read = set(named) - {"params.yaml"}
        for path in (one for one in read if one.startswith(("data/", "metrics", "plots"))):
            related = (*effect.reads, *effect.writes)
            assert any(path == one or path.startswith(f"{one}/") for one in related), effect.name
