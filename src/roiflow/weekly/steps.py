"""What is done and in which order: a step follows those whose outputs it reads.

The DAG draws its arrows from this and imports it when it is parsed, so it imports nothing heavy.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml


@dataclass(frozen=True)
class Step:
    """A stage of dvc.yaml or an effect. Paths are those of a run's checkout."""

    name: str
    command: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    purpose: str = ""


def read_stages(path: Path) -> list[Step]:
    """The stages of a dvc.yaml, each after those it reads from.

    Raises ValueError where two stages depend on each other, KeyError where a stage has no `cmd`.
    """
    content = yaml.safe_load(path.read_text())["stages"]
    return ordered(
        Step(name, stage["cmd"], tuple(stage.get("deps", ())), tuple(_outputs(stage)))
        for name, stage in content.items()
    )


def _outputs(stage: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind, ()):
            # An output with options is a mapping of its path to them.
            yield next(iter(out)) if isinstance(out, dict) else out


def ordered(steps: Iterable[Step]) -> list[Step]:
    """The steps, each after those it reads from. Raises ValueError where two read each other's."""
    by_name = {step.name: step for step in steps}
    return [by_name[name] for name in TopologicalSorter(_sources(by_name.values())).static_order()]


def after(steps: Sequence[Step]) -> dict[str, tuple[str, ...]]:
    """What each step waits for; what a step before it waits for already is not named again.

    Raises ValueError where two steps read each other's outputs.
    """
    direct = _sources(steps)
    before: dict[str, set[str]] = {}
    for name in TopologicalSorter(direct).static_order():
        # In topological order, so that what comes before a step's own predecessors is known by
        # then.
        before[name] = set(direct[name]).union(*(before[one] for one in direct[name]))
    return {
        name: tuple(one for one in some if not any(one in before[other] for other in some))
        for name, some in direct.items()
    }


def needed(steps: Sequence[Step], last: str) -> list[Step]:
    """Those of `steps` that the step `last` follows on, and itself at the end."""
    direct, wanted, todo = _sources(steps), set[str](), [last]
    while todo:
        name = todo.pop()
        wanted.add(name)
        todo.extend(direct[name])
    return ordered(step for step in steps if step.name in wanted)


def _sources(steps: Iterable[Step]) -> dict[str, list[str]]:
    """The other steps whose outputs each step reads, in the order of `steps`."""
    some = list(steps)
    return {
        step.name: [
            other.name
            for other in some
            if other is not step
            and any(_shared(read, made) for read in step.reads for made in other.writes)
        ]
        for step in some
    }


def _shared(read: str, made: str) -> bool:
    """Whether one of two paths is the other or lies in it."""
    one, two = PurePosixPath(read), PurePosixPath(made)
    return one.is_relative_to(two) or two.is_relative_to(one)
