"""What a model package would have shown on logged slates, by the code that serves it.

Features come from the engine at the request's own time, with the priors and windows of the
package. An id newer than the package counts as out of vocabulary, as it would have in serving.
Every package chooses from the test week's catalogue, so that policies are compared, not catalogues.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from roiflow.artefacts.evaluation import RoiEstimate
from roiflow.candidates.selector import narrow
from roiflow.data.split import TEST
from roiflow.errors import GateError
from roiflow.evaluation import roi
from roiflow.evaluation.slates import Slates, target_on_log
from roiflow.features.engine import Engine
from roiflow.features.table import Catalogue, Features, Floats, Ints, Longs
from roiflow.params import EvaluateParams, GateParams
from roiflow.policy.candidate_sets import CandidateSets, stack
from roiflow.ranking.serving_form import histories, known
from roiflow.serving.recommender import Models, People

CHUNK_BYTES = 4 * 2**20
"""Of one chunk's dense features over the catalogue: small batches keep the scorer in cache."""

_DRAWS, _RESAMPLES = range(2)


def replay(
    models: Models, features: Features, engine: Engine, rows: Longs, catalogue: Catalogue
) -> CandidateSets:
    """The package's candidates of logged slates, given one impression row of each (B,).

    Raises GateError where the package needs longer windows than the features hold.
    """
    theirs, ours = models.plan, engine.plan
    if theirs.max_days > ours.max_days:
        raise GateError(
            f"the package counts over {theirs.max_days} days, the features hold {ours.max_days}"
        )
    plan = replace(
        ours,
        windows_hours=theirs.windows_hours,
        ctr=theirs.ctr,
        cvr=theirs.cvr,
        value=theirs.value,
        prior_strength=theirs.prior_strength,
    )
    engine = replace(engine, plan=plan)
    profile = _profile(features, models.about.profile_names)
    row_bytes = 4 * catalogue.ad.size * len(theirs.dense_names)
    chunk = max(1, CHUNK_BYTES // max(1, row_bytes))
    parts = []
    for start in range(0, rows.size, chunk):
        requests = engine.requests(features, rows[start : start + chunk], catalogue)
        people = People(
            known(requests.user, models.sizes.user).astype(np.int32),
            profile[requests.user],
            histories(
                features.events, requests.user, requests.history_end, models.about.encode_length
            ),
        )
        chosen = narrow(requests, models.select(requests, people, features.attributes))
        predictions = models.predict(chosen, people, features.attributes[chosen.ad])
        parts.append(models.candidate_sets(chosen, predictions))
    return stack(parts)


def _profile(features: Features, names: tuple[str, ...]) -> Ints:
    """Columns of the profile (users, P) by name; one that the features lack is unknown."""
    unknown = np.zeros(features.profile.shape[0], np.int32)
    columns = [
        features.profile[:, features.profile_names.index(name)]
        if name in features.profile_names
        else unknown
        for name in names
    ]
    return np.column_stack([unknown, *columns])[:, 1:].astype(np.int32)


def compare(
    challenger: Models,
    champion: Models,
    features: Features,
    engine: Engine,
    slates: Slates,
    factors: Floats,
    *,
    draws: int,
    params: GateParams,
    limits: EvaluateParams,
) -> dict[str, RoiEstimate]:
    """ROI of the challenger and its lift over the champion, by estimator, on the same slates.

    `factors` are the position factors. Users are resampled for both policies together.
    """
    shown = np.zeros(features.attributes.shape[0], dtype=bool)
    shown[features.impressions.ad[features.rows(TEST)]] = True
    terms: list[Mapping[str, roi.Terms]] = []
    with ThreadPoolExecutor(2) as pool:  # a session computes without Python's lock
        replayed = [
            pool.submit(replay, models, features, engine, slates.row, features.catalogues[-1])
            for models in (challenger, champion)
        ]
    for models, result in zip((challenger, champion), replayed, strict=True):
        sets = result.result()
        target = target_on_log(
            slates,
            sets,
            models.logits(sets),
            models.about.cost_shares,
            factors=factors,
            shown=shown,
            draws=draws,
            rng=np.random.default_rng([params.seed, _DRAWS]),
        )
        terms.append(roi.target_terms(slates, target))
    new, old = terms
    return {
        name: roi.estimate_roi(
            slates.user,
            old[name],
            {name: new[name]},
            resamples=params.resamples,
            confidence=params.confidence,
            limits=limits,
            rng=np.random.default_rng([params.seed, _RESAMPLES]),
        )[name]
        for name in new
    }
