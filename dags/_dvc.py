"""dvc.yaml as Airflow tasks, so that the order of the stages is written once, there."""

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml; `after` names the stages whose outputs it reads."""

    name: str
    command: str
    after: tuple[str, ...]


def read_stages(path: Path) -> list[Stage]:
    """The stages of a dvc.yaml, each after the stages it reads from.

    Raises ValueError where two stages depend on each other, KeyError where a stage has no `cmd`.
    """
    content = yaml.safe_load(path.read_text())["stages"]
    owner = {out: name for name, stage in content.items() for out in _outputs(stage)}
    after = {
        name: tuple(
            dict.fromkeys(
                owner[out] for dep in stage.get("deps", ()) for out in owner.keys() & _up(dep)
            )
        )
        for name, stage in content.items()
    }
    return [
        Stage(name, content[name]["cmd"], after[name])
        for name in TopologicalSorter(after).static_order()
    ]


def _outputs(stage: dict[str, Any]) -> Iterator[str]:
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind, ()):
            yield next(iter(out)) if isinstance(out, dict) else out


def _up(dep: str) -> set[str]:
    """The path itself and every folder that holds it."""
    return {dep, *map(str, PurePosixPath(dep).parents)}
