"""Models without a feature, one after the other; what is there already is not done again."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

from roiflow.features import folder as feature_table
from roiflow.features.spec import NAMES
from roiflow.labels.model import Labels
from roiflow.loop.ablated_world import Run, open_world
from roiflow.loop.ablation import Worth, measure, plans
from roiflow.loop.ablation_report import Ablation
from roiflow.params import Params
from roiflow.progress import Progress
from roiflow.weekly.places import FEATURES

RESULT = "ablation.json"


@dataclass(frozen=True)
class Opened:
    """What models are trained on and judged by."""

    run: Run
    worth: Worth | None
    shift: Mapping[str, float]


def ablate_seed(folder: Path, params: Params, seed: int, show: Progress) -> Ablation:
    """The simulated world of a seed. What is kept of another list or other parameters goes."""
    simulator = params.ingest.simulator.model_copy(update={"seed": seed})
    ingest = params.ingest.model_copy(update={"source": "simulator", "simulator": simulator})
    own = params.model_copy(update={"ingest": ingest})
    home = folder / f"seed-{seed}"

    def opened() -> Opened:
        rmtree(home / "world", ignore_errors=True)
        world = open_world(home / "world", own, params.ablate.requests)
        return Opened(world.run, world.judge.points, world.shift)

    found = _ablated(home / RESULT, seed, own, opened, show)
    # Gigabytes, which nothing needs once every model is there.
    rmtree(home / "world", ignore_errors=True)
    return found


def ablate_run(checkout: Path, params: Params, show: Progress) -> Ablation:
    """A finished run of a source whose truth nobody knows. Raises ArtefactError as Labels.read."""
    run = Run(feature_table.read(checkout / FEATURES), Labels.read(checkout / Labels.place))
    return _ablated(
        checkout / RESULT, params.ingest.simulator.seed, params, lambda: Opened(run, None, {}), show
    )


def _ablated(
    path: Path, seed: int, params: Params, opened: Callable[[], Opened], show: Progress
) -> Ablation:
    found, todo = _kept(path, seed, params), plans()
    left = [name for name in todo if name not in found.measured]
    if not left:
        return found
    show(len(found.measured) / len(todo), f"seed {seed}: the world and its weeks")
    there = opened()
    found = replace(found, shift=dict(there.shift))
    for name in left:
        show(len(found.measured) / len(todo), f"seed {seed}: without {name}")
        of = measure(
            there.run.features, there.run.labels, params.train_candidates, todo[name], there.worth
        )
        found = replace(found, measured={**found.measured, name: of})
        # After every model: what is written is what an ablation that was cut off goes on from.
        found.write(path)
    return found


def _kept(path: Path, seed: int, params: Params) -> Ablation:
    """What is there by the same parameters and features, or nothing."""
    about = (
        params.ingest.model_dump_json(by_alias=True),
        params.build_features.model_dump_json(),
        params.train_candidates.model_dump_json(),
        params.ablate.model_dump_json(),
        *NAMES,
    )
    digest = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
    found = Ablation.find(path)
    if found is None or found.digest != digest:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Ablation(seed, digest, {}, {})
    return found
