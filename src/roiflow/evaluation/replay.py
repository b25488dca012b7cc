"""What a model package would have done on logged slates, by the code that serves it.

Features come from the engine at the request's own time, with the priors and windows of the
package. An id newer than the package counts as out of vocabulary, as it would have in serving.
Every package chooses from the test week's catalogue, so that policies are compared, not catalogues.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from roiflow.artefacts.evaluation import RoiEstimate
from roiflow.candidates.selector import narrow
from roiflow.data.weeks import Week
from roiflow.errors import GateError
from roiflow.evaluation import roi
from roiflow.evaluation.estimators.logger import chances_of_log, matching, replayed
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.statistics import one_blas_thread
from roiflow.evaluation.target import LoggedWeek, TargetOnLog, in_order, target_on_log
from roiflow.evaluation.terms import target_terms
from roiflow.features.engine import Engine
from roiflow.features.plan import Plan, frozen
from roiflow.features.table import AD_ATTRIBUTES, Features, Floats, Ints, Longs
from roiflow.params import EvaluateParams, ScreenParams
from roiflow.policy.candidate_sets import CandidateSets
from roiflow.ranking.serving_form import People, histories
from roiflow.serving import draws
from roiflow.serving.recommender import Models

CHUNK_BYTES = 16 * 2**20
"""Of one chunk's dense features over the catalogue. The counters are rolled forward anew for each
chunk, so smaller ones cost more there; larger ones fall out of the cache."""

_RESAMPLES = 1
_NEXT = np.uint64(0xD1B54A32D192ED03)
"""From one call's seed to the next: odd, and none of serving's own constants."""


@dataclass(frozen=True)
class Replayed:
    """Some of the requests that were asked for, as a package sees them."""

    at: Longs  # (B,) where they stand among the rows asked for
    sets: CandidateSets  # (B, K)
    logits: Floats  # (B, K)


def replay(
    models: Models, features: Features, engine: Engine, rows: Longs, threads: int = 1
) -> Iterator[Replayed]:
    """Candidates and logits of logged slates, given one impression row of each (B,), in parts.

    A part is of bounded memory, and each slate is in one of them; `threads` of them are worked on
    at a time, and come in one order whatever their number. Raises GateError where the package
    needs longer windows than the features hold.
    """
    theirs, ours = models.plan, engine.plan
    # Their priors over our vocabulary: the counters are of this log, what is made of
    # them is what the package was trained on. So are the attributes of the ads that it knows: in
    # serving they are the package's, though an ad may have shown more of itself since.
    attributes = as_learnt(features.attributes, theirs)
    plan = replace(
        ours,
        attributes=as_learnt(ours.attributes, theirs),
        ctr=theirs.ctr,
        cvr=theirs.cvr,
        value=theirs.value,
        prior_strength=theirs.prior_strength,
    )
    catalogue, log = features.catalogues[-1], features.impressions
    # What was shown before the week has the category that the snapshot gave it, which the engine
    # holds; what was shown in it the one that the package knows.
    late = engine.user_log.known_time >= Week.parse(catalogue.week).start
    user_log = engine.user_log.categorised(plan.attributes, late)
    own = np.where(user_log.category < theirs.sizes["category"], user_log.category, 0)
    user_log = replace(user_log, category=frozen(own.astype(np.int32)))
    engine = replace(engine, plan=plan, user_log=user_log)
    profile = _profile(features, models.about.profile_names)
    row_bytes = 4 * catalogue.ad.size * len(theirs.dense_names)
    chunk = max(1, CHUNK_BYTES // max(1, row_bytes))
    # By user and history: a page view brings several requests with nothing new between them, and
    # a history that several requests of a part share is encoded once.
    order = np.lexsort((log.event_time[rows], log.history_end[rows], log.user[rows]))

    def part(at: Longs) -> Replayed:
        requests = engine.requests(features, rows[at], catalogue)
        people = People(
            requests.user,
            profile[requests.user],
            histories(
                features.events, requests.user, requests.history_end, models.about.encode_length
            ),
        )
        columns, selected = models.select(requests, people, attributes)
        chosen = narrow(requests, columns)
        predictions = models.predict(chosen, people, attributes[chosen.ad], selected)
        sets = models.candidate_sets(chosen, predictions)
        return Replayed(at, sets, models.logits(sets))

    starts = range(0, rows.size, chunk)
    yield from _beside(part, (order[start : start + chunk] for start in starts), threads)


def as_learnt(ours: Ints, learnt: Plan) -> Ints:
    """Attributes (ads, 5) as serving has them: numbers of ids are only appended.

    Of the ads that the package knows its own rows; of newer ones those of our rows that it knows.
    """
    known = min(ours.shape[0], learnt.attributes.shape[0])
    sizes = np.array([learnt.sizes[kind] for kind in AD_ATTRIBUTES])
    newer = np.where(ours[known:] < sizes, ours[known:], 0)
    return np.concatenate([learnt.attributes[:known], newer]).astype(np.int32)


def _beside(
    work: Callable[[Longs], Replayed], parts: Iterator[Longs], threads: int
) -> Iterator[Replayed]:
    """What `work` makes of each part, in order, `threads` at a time and one more waiting."""
    # Most of a part's time is in compiled code and ONNX Runtime, which let other threads run.
    # In the order of submission, not of completion: whoever reads draws random numbers part by
    # part, and must draw them in one order on any number of cores.
    waiting = deque[Future[Replayed]]()
    with ThreadPoolExecutor(threads) as pool:
        for at in parts:
            waiting.append(pool.submit(work, at))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _profile(features: Features, names: tuple[str, ...]) -> Ints:
    """Columns of the profile (users, P) by name; one that the features lack is unknown."""
    unknown = np.zeros(features.profile.shape[0], np.int32)
    columns = [
        features.profile[:, features.profile_names.index(name)]
        if name in features.profile_names
        else unknown
        for name in names
    ]
    # The column in front is taken off again: numpy stacks no empty list, and a package may know no
    # profile.
    return np.column_stack([unknown, *columns])[:, 1:].astype(np.int32)


@dataclass
class Addressed:
    """Noise with an address: a seed, the request and the ad, as in serving.

    A generator's stream would be another one to a package of another width: what two packages draw
    would differ by more than the packages do.
    """

    seeds: draws.Seeds  # (B,)
    ad: Ints  # (B, K)

    @classmethod
    def of(cls, seed: int, row: Longs, ad: Ints) -> "Addressed":
        """Of slates by the impression row at their top."""
        return cls(draws.seeds(f"{seed:064x}", [str(one) for one in row.tolist()]), ad)

    def gumbel(self, *, size: tuple[int, ...]) -> Floats:
        """See target.Noise; every call has other numbers."""
        assert size == self.ad.shape
        found = draws.gumbel(self.seeds, self.ad)
        self.seeds = self.seeds + _NEXT
        return found


@one_blas_thread()
def on_log(
    models: Models,
    features: Features,
    engine: Engine,
    slates: Slates,
    week: LoggedWeek,
    params: EvaluateParams,
    threads: int,
) -> TargetOnLog:
    """What the package would have done and earned on the test week's slates.

    Two packages on the same slates see the same random draws.
    """
    targets, places = [], []
    for part in replay(models, features, engine, slates.row, threads):
        targets.append(
            target_on_log(
                slates.take(part.at),
                part.sets,
                part.logits,
                models.about.cost_shares,
                week,
                params.draws,
                Addressed.of(params.seed, slates.row[part.at], part.sets.ad),
            )
        )
        places.append(part.at)
    return in_order(targets, np.concatenate(places))


@one_blas_thread()
def compare(
    challenger: TargetOnLog,
    champion: TargetOnLog,
    slates: Slates,
    params: ScreenParams,
    limits: EvaluateParams,
    cost_weight: float,
) -> dict[str, RoiEstimate]:
    """Value and ROI of the challenger, and lifts over the champion, on the same slates.

    Users are resampled for both policies together. Raises GateError where one of the two is of
    other slates.
    """
    for name, target in (("challenger", challenger), ("champion", champion)):
        if not np.array_equal(target.row, slates.row):
            raise GateError(f"the {name} was evaluated on other slates: evaluate again")
    # The champion is the base here, not the logging policy; both are weighed against the same log,
    # so what the weights have in common cancels in the paired lift.
    # Where the champion filled the slates, it is asked for its chances and not guessed at.
    logged = replayed(
        chances_of_log(slates, champion, limits.draws),
        champion,
        matching(slates, champion, limits.propensity_tolerance),
    )
    new, old = (target_terms(slates, one, logged, limits) for one in (challenger, champion))
    return {
        name: roi.estimate_roi(
            np.unique(slates.user),
            old[name],
            {name: new[name]},
            slates=slates.row.size,
            resamples=params.resamples,
            confidence=params.confidence,
            limits=limits,
            cost_weight=cost_weight,
            rng=np.random.default_rng([params.seed, _RESAMPLES]),
        )[name]
        for name in new
    }
