"""The simulated world that features are ablated in: a run's weeks, and the one that judges it.

A run ends with a week W, as params.yaml names it. Its models are worth what their greedy slates of
W + 1 are truly worth, each request with the features that were known then. What a changed policy
does to a feature is told by W + 1, once as the logging policy served it and once as the greedy
policy of the run did: by how far the feature's mean moves over the candidates of the day after.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from roiflow.candidates.selector import Selector, best
from roiflow.data import lake
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.features.rows import Window
from roiflow.features.table import Features, Floats, Requests
from roiflow.features.vocabulary import Vocabulary
from roiflow.labels.fit import fit as fit_labels
from roiflow.labels.model import Labels
from roiflow.loop.ablation import pre_selection, requests_without
from roiflow.loop.ranker_chooser import KnownWeek, RankerChooser
from roiflow.offline.build import Built, build
from roiflow.params import Params
from roiflow.simulator.policies import Oracle, random_policy
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.run import serve
from roiflow.simulator.source import SimulatorSource
from roiflow.simulator.truth import slate_truth
from roiflow.simulator.world import World

BLOCK = 512
"""Requests that are scored at a time, with all their candidates."""


@dataclass(frozen=True)
class Run:
    """What a run has made of its weeks."""

    features: Features
    labels: Labels


@dataclass(frozen=True)
class Asked:
    """Requests of the judged week, with the whole catalogue as candidates."""

    world: WorldRequests
    eligible: Flags  # (A,) rows of the world's catalogue
    candidates: Requests  # (B, a)


@dataclass
class _Keeper(Oracle):
    """Answers as the oracle does, and keeps every n-th request."""

    known: KnownWeek
    every: int
    kept: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.known.world)

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """See Oracle."""
        some = requests.take(slice(None, None, self.every))
        for start in range(0, some.number.size, BLOCK):
            block = some.take(slice(start, start + BLOCK))
            self.kept.append(Asked(block, eligible.copy(), self.known.requests(block)))
        return super().choose(requests, eligible, rng)


class Judge:
    """The week after the run: what models' greedy slates are truly worth there."""

    def __init__(self, known: KnownWeek, week: Week, requests: int) -> None:
        """About so many of its requests, evenly drawn."""
        self._world, self._rows = known.world, known.world_rows()
        count = known.world.requests(week).number.size
        keeper = _Keeper(known, max(1, round(count / requests)))
        for _ in serve(self._world, week, keeper):
            pass
        self._asked = keeper.kept
        self._low, self._high = (
            self._value(chooser.choose(one.world, one.eligible, NOTHING)[0] for one in self._asked)
            for chooser in (random_policy(self._world), Oracle(self._world))
        )

    def points(self, model: Selector, table: Features, left_out: Sequence[str]) -> float:
        """On the way from random (0) to the oracle (100)."""
        value = self._value(self._slates(model, table, left_out))
        return 100 * (value - self._low) / (self._high - self._low)

    def _slates(self, model: Selector, table: Features, left_out: Sequence[str]) -> Iterator[Ints]:
        for one in self._asked:
            scores = model.scores(table, requests_without(one.candidates, left_out))
            # Row -1, an ad without a name of its own, reads the last flag: the first drops it.
            usable = (self._rows >= 0) & one.eligible[self._rows]
            yield self._rows[best(np.where(usable, scores, -np.inf), self._world.slate_size)]

    def _value(self, slates: Iterator[Ints]) -> float:
        """Expected revenue less cost of a slate for each request, micros."""
        sums = np.zeros(4)
        for one, some in zip(self._asked, slates, strict=True):
            sums += slate_truth(self._world, one.world, some).sum(axis=0)
        return float(sums[2] - sums[3])


NOTHING = np.random.default_rng(0)
"""None of the choosers here draws from a generator."""


@dataclass(frozen=True)
class AblatedWorld:
    """A seed's world with its weeks, in a folder that is left to be used again."""

    run: Run
    judge: Judge
    shift: dict[str, float]
    """By dense feature, in standard deviations of the training rows."""


def open_world(folder: Path, params: Params, requests: int) -> AblatedWorld:
    """Generate the weeks, build the features of each side, and let the greedy policy serve."""
    source = SimulatorSource(params.ingest.simulator, folder / "lake")
    last = Week.parse(params.ingest.week)
    window, judged = last.window(params.ingest.simulator.weeks), last.plus(1)
    for week in (*window, judged):
        _pull(source, week, judged, folder / "weeks")
    before = _built(folder, "run", dict.fromkeys(window, folder / "weeks"), params)
    after = dict.fromkeys((*window[1:], judged), folder / "weeks")
    logged = _built(folder, "logged", after, params, before.vocabulary)
    run = Run(before.features, fit_labels(before.features, params.fit_labels).labels)
    known = _known(source.world, logged).counted_as(before.engine.plan)
    greedy = pre_selection(run.features, run.labels, params.train_candidates)
    source.serve_week(judged, RankerChooser(greedy, known, greedy.shares))
    _pull(source, judged, judged, folder / "served-week")
    served = _built(
        folder, "served", after | {judged: folder / "served-week"}, params, before.vocabulary
    )
    other = _known(source.world, served).counted_as(before.engine.plan)
    return AblatedWorld(
        run,
        Judge(known, judged, requests),
        _shift(run.features, (known, other), judged.plus(1), requests),
    )


def _pull(source: SimulatorSource, week: Week, until: Week, folder: Path) -> None:
    for table, rows in source.pull(week, until.end).items():
        lake.write(folder, table, week, rows)


def _built(
    folder: Path,
    name: str,
    weeks: dict[Week, Path],
    params: Params,
    published: Vocabulary | None = None,
) -> Built:
    """Features of weeks that lie in several folders, as if they were one window."""
    window = folder / f"{name}-window"
    for week, place in weeks.items():
        for source in place.glob(f"*/week={week}"):
            link = window / source.parent.name / source.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source.absolute())
    out = folder / f"{name}-features"
    return build(Window(window), published or Vocabulary({}), params.build_features, out)


def _known(world: World, built: Built) -> KnownWeek:
    return KnownWeek(world, built.features, built.engine, built.vocabulary)


def _shift(
    run: Features, sides: tuple[KnownWeek, KnownWeek], week: Week, requests: int
) -> dict[str, float]:
    """How far each mean over the candidates of a week's first day is off under another policy."""
    asked = sides[0].world.requests(week)
    day = asked.take(np.flatnonzero(asked.event_time < week.start + MICROS_PER_DAY))
    some = day.take(slice(None, None, max(1, round(day.number.size / requests))))
    logged, greedy = (_mean(one, some) for one in sides)
    off = (greedy - logged) / run.statistics.std
    return dict(zip(run.dense_names, off.tolist(), strict=True))


def _mean(known: KnownWeek, asked: WorldRequests) -> Floats:
    """(F,) over every candidate of the requests."""
    total, pairs = np.zeros(len(known.features.dense_names)), 0
    for start in range(0, asked.number.size, BLOCK):
        dense = known.requests(asked.take(slice(start, start + BLOCK))).dense
        total += dense.sum(axis=(0, 1), dtype=np.float64)
        pairs += dense.shape[0] * dense.shape[1]
    return total / max(pairs, 1)
