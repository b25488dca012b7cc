"""The order of dvc.yaml, as the DAG takes it."""

from graphlib import CycleError
from pathlib import Path

import pytest

from _dvc import Stage, read_stages

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
    assert {stage.name: set(stage.after) for stage in stages} == {
        "first": set(),
        "middle": {"first"},
        "plot": {"first"},
        "last": {"middle", "plot"},
    }
    assert [stage.name for stage in stages].index("first") == 0
    assert stages[-1] == Stage("last", "c", ("middle", "plot"))


def test_a_common_beginning_of_two_names_is_no_dependency(tmp_path: Path) -> None:
    path = write(
        tmp_path / "dvc.yaml",
        "stages: {a: {cmd: a, outs: [data/raw]}, b: {cmd: b, deps: [data/raw_other]}}",
    )
    assert [stage.after for stage in read_stages(path)] == [(), ()]


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
            "train_candidates",
            "train_ranker",
            "finetune_policy",
            "evaluate",
            "export",
        ]
    )
    assert all(place[before] < place[after] for before, after in FLOW)
