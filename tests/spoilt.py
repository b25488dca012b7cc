"""Challengers that are spoilt on purpose, on trial in a week of a finished loop.

Each takes the place of what the week's run put on trial, beside the same champion, with the same
requests; serving, looks and decision are the loop's own. The loop's home is only read.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from roiflow.artefacts.decision import TrialDecision
from roiflow.artefacts.run import Promoted, Registered
from roiflow.artefacts.trial import Trial
from roiflow.data import lake
from roiflow.data.split import TEST
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.evaluation.looks import Looking
from roiflow.evaluation.slates import logged_slates
from roiflow.evaluation.target import TargetOnLog
from roiflow.experiment import trials
from roiflow.features.rows import Window
from roiflow.features.table import Floats, Ints
from roiflow.features.vocabulary import Vocabulary
from roiflow.jobs.canary import Folders, Ledger, ServedWeek, decide
from roiflow.jobs.screen import target_file
from roiflow.jobs.simulate_week import OnTrial, Recalibrating, simulate
from roiflow.labels.fit import fit as fit_labels
from roiflow.labels.model import Labels
from roiflow.loop.result import LoopResult
from roiflow.loop.worth import SOURCE, Asked, RunWeek
from roiflow.offline.build import build
from roiflow.params import CanaryParams, Params, load_params
from roiflow.registry import package_folder, read_digest
from roiflow.serving.package import SCORER, Package
from roiflow.simulator.source import SimulatorSource
from roiflow.weekly.checkout import checkout_of
from roiflow.weekly.places import FEATURES, ONLINE, PACKAGE, VALIDATED
from roiflow.weekly.values import PARAMS, with_run

STALE_WEEKS = 4
CONVERSION = 1
"""Among what the scorer joins to its output: click, conversion, revenue."""
WEEK_HOURS = 7 * 24


@dataclass(frozen=True)
class Finished:
    """A week of a finished loop, and the package that serves it in the stable arm."""

    home: Path
    week: Week
    champion: Path

    def run_before(self, weeks: int = 1) -> Path:
        """The checkout of an earlier run."""
        return checkout_of(self.home, SOURCE, str(self.week.plus(-weeks)))

    @property
    def params(self) -> Params:
        """Of the run that left who serves."""
        return load_params(self.run_before() / PARAMS)


Spoil = Callable[[Finished, Path], Path]
"""Leaves a spoilt package in a folder, or knows one that is; its folder."""


def weeks_with_a_champion(home: Path) -> list[Finished]:
    """Of a loop's home, in their order."""
    weeks = [Week.parse(one.week) for one in LoopResult.read(home / "loop.json").weeks[1:]]
    found = [(week, Promoted.of(_run_before(home, week)).champion) for week in weeks]
    return [Finished(home, week, _package(home, week, one)) for week, one in found if one]


def _run_before(home: Path, week: Week) -> Path:
    return checkout_of(home, SOURCE, str(week.plus(-1)))


def _package(home: Path, week: Week, digest: str) -> Path:
    own = _run_before(home, week) / PACKAGE
    return own if read_digest(own) == digest else package_folder(home, digest)


def altered(package: Path, out: Path, change: Callable[[onnx.ModelProto, Package], None]) -> Path:
    """A copy whose scorer is changed; a package of its own, with its own digest."""
    found = Package.load(package)
    names = json.loads((package / "manifest.json").read_text())["files"]
    files = {name: (package / name).read_bytes() for name in names}
    model = onnx.load_from_string(files[SCORER])
    change(model, found)
    files[SCORER] = model.SerializeToString()
    return Package.write(out, found.description, files).folder


def head_shuffled(of: Finished, out: Path) -> Path:
    """The conversion head answers for other ads: its candidates come in the opposite order."""

    def change(model: onnx.ModelProto, _package: Package) -> None:
        (joined,) = [node for node in model.graph.node if node.op_type == "Concat"][-1:]
        head = joined.input[CONVERSION]
        ends = {"from": [-1], "to": [np.iinfo(np.int64).min], "of": [1], "by": [-1]}
        for name, values in ends.items():
            tensor = numpy_helper.from_array(np.array(values, np.int64), f"shuffled_{name}")
            model.graph.initializer.append(tensor)
        turned = onnx.helper.make_node(
            "Slice", [head, *(f"shuffled_{name}" for name in ends)], ["shuffled"]
        )
        joined.input[CONVERSION] = "shuffled"
        model.graph.node.insert(list(model.graph.node).index(joined), turned)

    return altered(of.run_before() / PACKAGE, out, change)


def price_scaled(of: Finished, out: Path) -> Path:
    """As if prices came in cents: the ranker's log(1 + price) is log(100) too large."""

    def change(model: onnx.ModelProto, package: Package) -> None:
        shift = np.zeros(len(package.description.dense_names), np.float32)
        shift[package.description.dense_names.index("log_price")] = np.log(100.0)
        for node in model.graph.node:
            for at, name in enumerate(node.input):
                if name == "dense":
                    node.input[at] = "dense_in_cents"
        model.graph.initializer.append(numpy_helper.from_array(shift, "cents"))
        add = onnx.helper.make_node("Add", ["dense", "cents"], ["dense_in_cents"])
        model.graph.node.insert(0, add)

    return altered(of.run_before() / PACKAGE, out, change)


def stale(of: Finished, _out: Path) -> Path:
    """What the run of four weeks before the newest one made."""
    return of.run_before(1 + STALE_WEEKS) / PACKAGE


@dataclass(frozen=True)
class Tried:
    """What became of a spoilt challenger, and what it truly cost; money in currency units."""

    decision: TrialDecision
    true_lift: float
    cost: float
    """Of its slates: what the champion's would have been worth more."""
    bound: float
    """The same had no look stopped it: share x hours x difference, as the params have it."""
    error: float
    """Standard error of `cost` less `bound`: both are of slates that were drawn."""
    share_served: float
    """Of the week's slates."""


def tried(of: Finished, spoil: Spoil, out: Path) -> Tried:
    """Put a spoilt challenger on trial in a copy of the week, and decide on it as the loop would.

    Its recipe counts as the champion's own, of which the least is asked. `out` is made.
    """
    before, params = of.run_before(), of.params
    out.mkdir(parents=True)
    copied = out / "home" / "lake"
    # Linked: whatever is written anew there is put in a file's place, never into it.
    shutil.copytree(of.home / "lake" / SOURCE, copied / SOURCE, copy_function=os.link)
    challenger = spoil(of, out / "spoilt")
    source = SimulatorSource(params.ingest.simulator, copied)
    labels = Labels.read(before / Labels.place)
    looking = Looking(
        of.week, labels, params.canary, params.evaluate, params.finetune_policy.cost_weight
    )
    simulate(
        of.champion,
        before / ONLINE,
        source,
        of.week,
        Recalibrating(labels, params.recalibrate),
        None,
        OnTrial(challenger, params.canary, looking.watch),
    )
    text = with_run((before / PARAMS).read_text(), SOURCE, str(of.week))
    (out / PARAMS).write_text(text)
    _run(of, source, out)
    trial = trials.read(copied, SOURCE, of.week)
    assert trial is not None
    packages = {trial.champion: of.champion, trial.challenger: challenger}
    versions = [
        Registered("spoilt", number, digest or "", {"recipe": "of the champion"})
        for number, digest in enumerate(packages)
    ]
    folders = Folders(
        out / VALIDATED,
        out / FEATURES,
        out / Labels.place.parent,
        before,
        out / "scratch",
    )
    (out / "scratch").mkdir()
    week = ServedWeek(folders, params, copied, trial)
    canary = out / TrialDecision.place.parent
    canary.mkdir(parents=True)
    registry = _Registry(versions, {name or "": folder for name, folder in packages.items()})
    decision = decide(week, registry, Ledger(versions, str(of.week)), canary)  # type: ignore[arg-type]
    return _worth(RunWeek(out, source.world), decision, params.canary)


@dataclass(frozen=True)
class _Registry:
    """Of the two packages alone: the champion is the first."""

    versions: list[Registered]
    folders: dict[str, Path]

    def by_alias(self, _name: str, _alias: str) -> Registered:
        """The champion."""
        return self.versions[0]

    def package(self, version: Registered) -> Path:
        """Its folder."""
        return self.folders[version.digest]


def _run(of: Finished, source: SimulatorSource, out: Path) -> None:
    """Features and labels of the window that ends with the week as it was served now."""
    before, params = of.run_before(), of.params
    window = Week.parse(str(of.week)).window(params.ingest.simulator.weeks)
    for folder in (before / VALIDATED).glob("*/week=*"):
        if Week.parse(folder.name.removeprefix("week=")) in window:
            link = out / VALIDATED / folder.parent.name / folder.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder.absolute())
    for table, rows in source.pull(of.week, of.week.end).items():
        lake.write(out / VALIDATED, table, of.week, rows)
    published = Vocabulary.read(before / FEATURES / "vocabulary.parquet")
    built = build(Window(out / VALIDATED), published, params.build_features, out / FEATURES)
    fit_labels(built.features, params.fit_labels).labels.write(out / Labels.place)


def _worth(tested: RunWeek, decision: TrialDecision, params: CanaryParams) -> Tried:
    asked = Asked.of(tested, 10**9)
    rows, trial = np.concatenate(asked.rows), decision.trial
    assert trial is not None
    assert trial.champion is not None
    slots = tested.world.slate_size
    log = logged_slates(tested.features, tested.labels, tested.features.rows(TEST), slots)
    place = {row: at for at, row in enumerate(log.row.tolist())}
    order = np.array([place[row] for row in rows.tolist()], np.int64)
    shown, canary = log.ad[order], log.canary[order]

    def value(ads: Ints) -> Floats:
        outcome = asked.outcomes(ads)
        return (outcome[:, 2] - outcome[:, 3]) / 1e6

    def drawn(digest: str) -> Floats:
        path = tested.checkout / TrialDecision.place.parent / target_file(digest)
        return value(TargetOnLog.read(path).drawn[order])

    champion, challenger, served = drawn(trial.champion), drawn(trial.challenger), value(shown)
    hours = params.start_share * params.start_hours
    hours += params.share * (WEEK_HOURS - params.start_hours)
    lost = np.where(canary, champion - served, 0.0)
    allowed = hours / WEEK_HOURS * (champion - challenger)
    # The hash draws users, not slates: one who loses much is in one arm with all that he asks.
    by_user = np.bincount(log.user[order], lost - allowed)
    by_user = by_user[np.unique(log.user[order])]
    error = float(np.std(by_user) * np.sqrt(by_user.size))
    lift = float(challenger.sum() / champion.sum() - 1.0)
    cost, bound = float(lost.sum()), float(allowed.sum())
    return Tried(decision, lift, cost, bound, error, float(canary.mean()))


def stopped_after(trial: Trial) -> float | None:
    """Hours of the week after which a look took its users away; None where none did."""
    start = Week.parse(trial.week).start
    ends = [one.since for one in trial.phases if one.share == 0.0]
    return (ends[0] - start) / MICROS_PER_HOUR if ends else None
