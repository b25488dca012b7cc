"""What policies were truly worth in a week: those that served, and those that might have.

What was served is valued by the slates that were shown. A package alone is valued by the slates
that its replay draws on the week's log: stable and canary arm each as if it had served everybody,
the first champion as if it had never been replaced, and the newest package as if every run's had
been promoted. Rankers alone are asked greedily, with the features of each request's own time; they
are fitted anew on all that the run before knew, as what ships is. All are the world's expectations,
so chance in clicks is in none of them.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from roiflow.artefacts.decision import TrialDecision
from roiflow.artefacts.run import Promoted
from roiflow.candidates import selector as candidates
from roiflow.data.split import TEST
from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.evaluation.replay import Addressed, replay
from roiflow.evaluation.slates import logged_slates
from roiflow.evaluation.target import TargetOnLog
from roiflow.features import folder as features
from roiflow.features.engine import Engine, open_engine
from roiflow.features.table import Features, Flags, Floats, Ints, Longs
from roiflow.features.vocabulary import Vocabulary
from roiflow.jobs.screen import target_file
from roiflow.labels.model import Labels
from roiflow.loop.ranker_chooser import KnownWeek, RankerChooser
from roiflow.loop.result import CANARY, FIRST, LOGGING, NEWEST, ORACLE, SERVED, STABLE
from roiflow.params import Params, load_params
from roiflow.policy import plackett_luce
from roiflow.ranking.baselines import popularity
from roiflow.ranking.protocol import Ranker
from roiflow.ranking.value import load_cost_shares
from roiflow.registry import package_folder, read_digest
from roiflow.serving import recalibrate
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models
from roiflow.settings import Settings
from roiflow.simulator.policies import Oracle, logging_policy, random_policy
from roiflow.simulator.population import WorldRequests
from roiflow.simulator.run import SlateChooser
from roiflow.simulator.served import shown
from roiflow.simulator.truth import Truth, expected_value_of, slate_truth, summary
from roiflow.simulator.truth import truth as true_value
from roiflow.simulator.world import World
from roiflow.weekly.places import CANDIDATES, FEATURES, PACKAGE, RANKER, REFIT
from roiflow.weekly.values import PARAMS

SOURCE = "simulator"
CANARY_FOLDER = TrialDecision.place.parent


@dataclass(frozen=True)
class RunWeek:
    """A run's test week, as its finished checkout has it."""

    checkout: Path
    world: World

    @property
    def week(self) -> Week:
        """The week."""
        return Week.parse(self.params.ingest.week)

    @cached_property
    def params(self) -> Params:
        """The run's own."""
        return load_params(self.checkout / PARAMS)

    @cached_property
    def features(self) -> Features:
        """The log with the features that were known."""
        return features.read(self.checkout / FEATURES)

    @cached_property
    def labels(self) -> Labels:
        """The run's own."""
        return Labels.read(self.checkout / Labels.place)

    @cached_property
    def engine(self) -> Engine:
        """Of the features."""
        return open_engine(self.checkout / FEATURES)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of the features."""
        return Vocabulary.read(self.checkout / FEATURES / "vocabulary.parquet")

    @cached_property
    def known(self) -> KnownWeek:
        """The week as one of which any request can be asked."""
        return KnownWeek(self.world, self.features, self.engine, self.vocabulary)


def worth(
    tested: RunWeek, before: Path | None, first: str | None, settings: Settings
) -> dict[str, Truth]:
    """By policy; `before`, the checkout of the run before it, left who served the week.

    `first` is the digest of the first champion there ever was; None where there was none yet.
    """
    world, week = tested.world, tested.week
    known = (logging_policy(world), random_policy(world))
    found = {one.policy_version: expected_value_of(world, week, one)[0] for one in known}
    asked = Asked.of(tested, tested.params.worth.requests)
    found[ORACLE] = asked.oracle
    rows = shown(settings.lake / SOURCE, week)
    found[SERVED] = found[LOGGING] if rows is None else true_value(world, rows)
    if before is None:
        return found
    found |= {one.policy_version: asked.ranked(one) for one in greedy(before, tested.known)}
    of_package: dict[str | None, Truth] = {None: found[LOGGING]}
    names = named(before, first)
    for digest in names.values():
        if digest is not None and digest not in of_package:
            decided = tested.checkout / CANARY_FOLDER / target_file(digest)
            of_package[digest] = (
                # The slates of both arms were drawn when the trial was decided.
                asked.kept(TargetOnLog.read(decided))
                if decided.exists()
                else asked.replayed(models_of(digest, before, week, settings))
            )
    return found | {name: of_package[digest] for name, digest in names.items()}


def named(before: Path, first: str | None) -> dict[str, str | None]:
    """Packages that might have served alone, by their parts; None is the logging policy."""
    who = Promoted.of(before)
    alone = {
        STABLE: who.champion,
        NEWEST: read_digest(before / PACKAGE),
        FIRST: first or who.champion,
    }
    return alone | ({CANARY: who.challenger} if who.challenger else {})


def models_of(digest: str, before: Path, week: Week, settings: Settings) -> Models:
    """A package as it would have served in a week, by what it had learnt until then and in it."""
    own = before / PACKAGE
    folder = own if read_digest(own) == digest else package_folder(settings.home, digest)
    kept = recalibrate.kept(settings.lake, SOURCE, digest, week.end)
    return Models(Package.load(folder), kept)


class _Keeper(Oracle):
    """Answers as the oracle does, and keeps every n-th request, what it could show and did."""

    def __init__(self, world: World, every: int) -> None:
        super().__init__(world)
        self.every = every
        self.kept: list[tuple[WorldRequests, Flags, Ints]] = []

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """See Oracle."""
        slates, propensity = super().choose(requests, eligible, rng)
        some = slice(None, None, self.every)
        self.kept.append((requests.take(some), eligible.copy(), slates[some]))
        return slates, propensity


@dataclass(frozen=True)
class Asked:
    """Some of a week's requests, of which any policy can be asked what it would show."""

    tested: RunWeek
    parts: tuple[tuple[WorldRequests, Flags], ...]  # with the ads that could be shown
    rows: tuple[Longs, ...]  # (B,) of each part: the impression at the top of its slates
    scale: Floats  # (4,) what the oracle has of all the requests, over what it has of these
    oracle: Truth

    @classmethod
    def of(cls, tested: RunWeek, requests: int) -> "Asked":
        """About so many, evenly drawn from those that are in the log."""
        world, week = tested.world, tested.week
        keeper = _Keeper(world, max(1, -(-world.requests(week).number.size // requests)))
        oracle = expected_value_of(world, week, keeper)[0]
        row_of, parts, rows, sums = _rows_by_request(tested), [], [], np.zeros(4)
        for asked, eligible, slates in keeper.kept:
            found = np.array([row_of.get(key, -1) for key in _keys(asked, world)], np.int64)
            here = np.flatnonzero(found >= 0)
            parts.append((asked.take(here), eligible))
            rows.append(found[here])
            sums += slate_truth(world, parts[-1][0], slates[here]).sum(axis=0)
        whole = np.array([oracle[name] for name in ("clicks", "conversions", "revenue", "cost")])
        # Money of slate_truth is in micros. The oracle's own figures of all requests are known:
        # what these requests have more or less of than others is taken off by its ratio.
        whole[2:] *= 1e6
        return cls(tested, tuple(parts), tuple(rows), whole / sums, oracle)

    def _summary(self, sums: Floats) -> Truth:
        return summary(int(self.oracle["impressions"]), sums * self.scale)

    def ranked(self, ranker: SlateChooser) -> Truth:
        """Expected outcome of a ranker's slates."""
        sums = np.zeros(4)
        for asked, eligible in self.parts:
            slates, _ = ranker.choose(asked, eligible, NOTHING)
            sums += slate_truth(self.tested.world, asked, slates).sum(axis=0)
        return self._summary(sums)

    def replayed(self, models: Models) -> Truth:
        """Expected outcome of the slates that a package draws."""
        tested, slots = self.tested, self.tested.world.slate_size
        rows = np.concatenate(self.rows)
        drawn = np.zeros((rows.size, slots), np.int32)
        for part in replay(models, tested.features, tested.engine, rows):
            noise = Addressed.of(tested.params.evaluate.seed, rows[part.at], part.sets.ad)
            best = plackett_luce.best(part.logits + noise.gumbel(size=part.logits.shape), slots)
            ads = np.take_along_axis(part.sets.ad, np.maximum(best, 0), axis=1)
            drawn[part.at] = np.where(best >= 0, ads, -1)
        return self.drawn(drawn)

    def kept(self, target: TargetOnLog) -> Truth:
        """Expected outcome of the slates that a package drew when its trial was decided."""
        place = {row: at for at, row in enumerate(target.row.tolist())}
        rows = np.concatenate(self.rows).tolist()
        return self.drawn(target.drawn[np.array([place[row] for row in rows], np.int64)])

    def drawn(self, ads: Ints) -> Truth:
        """Expected outcome of slates (B, S) of these requests. Raises ContractError on a gap."""
        return self._summary(self.outcomes(ads).sum(axis=0))

    def outcomes(self, ads: Ints) -> Floats:
        """Slates (B, S) by the vocabulary -> what is expected of each (B, 4), see slate_truth.

        Raises ContractError where one has a gap.
        """
        world_row = np.full(self.tested.features.attributes.shape[0], -1, np.int32)
        # The log numbers ads by its vocabulary, the world by its week's catalogue.
        catalogue = self.tested.features.catalogues[-1]
        world_row[catalogue.ad] = self.tested.known.world_rows()
        slates = np.where(ads >= 0, world_row[np.maximum(ads, 0)], np.int32(-1))
        if (slates < 0).any():
            raise ContractError(f"{self.tested.week}: a slate with a gap, or an ad of no name")
        ends = np.cumsum([asked.number.size for asked, _ in self.parts])
        parts = zip(self.parts, np.split(slates, ends[:-1]), strict=True)
        return np.concatenate(
            [slate_truth(self.tested.world, asked, part) for (asked, _), part in parts]
        )


NOTHING = np.random.default_rng(0)
"""No ranker draws from a generator."""


def _keys(asked: WorldRequests, world: World) -> list[tuple[int, str]]:
    """What names a request in the log: of one user at one moment there is one."""
    users = world.user_ids[asked.user_index].tolist()
    return list(zip(asked.event_time.tolist(), users, strict=True))


def _rows_by_request(tested: RunWeek) -> dict[tuple[int, str], int]:
    """The impression at the top of each whole slate of the week's log."""
    log, slots = tested.features.impressions, tested.world.slate_size
    tops = logged_slates(tested.features, tested.labels, tested.features.rows(TEST), slots).row
    users = tested.vocabulary.ids("user").take(pa.array(log.user[tops] - 1)).to_pylist()
    keys = zip(log.event_time[tops].tolist(), users, strict=True)
    return dict(zip(keys, tops.tolist(), strict=True))


def greedy(before: Path, known: KnownWeek) -> list[SlateChooser]:
    """Rankers alone, fitted anew on all that the run before knew at its end, as what ships is.

    An ad's revenue is the share of its price that conversions brought in, as in pre-selection:
    popularity does not tell ads apart by revenue.
    """
    folder, params = before / FEATURES, load_params(before / PARAMS)
    table, labels = features.read(folder).as_of_end(), Labels.read(before / Labels.place)
    selectors = [_refitted(before, kind, table, labels, params) for kind in candidates.KINDS]
    rankers: list[Ranker] = [*selectors, popularity.fit(table, labels)]
    shares = load_cost_shares(before / REFIT / RANKER.name)
    # Trained on the run before, asked about the week after: the log is of now, windows and priors
    # are those that the models know.
    known = known.counted_as(open_engine(folder).plan)
    weight = params.finetune_policy.cost_weight
    return [
        RankerChooser(one, known, shares, revenue=selectors[0].revenue, cost_weight=weight)
        for one in rankers
    ]


def _refitted(
    before: Path, kind: candidates.Kind, table: Features, labels: Labels, params: Params
) -> candidates.Selector:
    """What ships where it is of this kind, else another fitted in the same way."""
    shipped = before / REFIT / CANDIDATES.name
    if (shipped / kind).exists():
        return candidates.load(shipped, kind)
    judged = candidates.load(before / CANDIDATES, kind)
    return candidates.refit(judged, table, labels, params.train_candidates)
