"""What the greedy policy of one run is worth in the shipped world, with budgets and without.

A run ends with a week of the logging policy; its models, refitted on all weeks as what ships is,
fill the next week's slates with what they take for the best values, each request with the features
that are known then. Beside them stands the policy that would serve: slates drawn at the shipped
temperature from what two of the models expect together. The oracle does not save a budget for
later, so with budgets on it is no upper bound: it too spends in the morning what would have earned
more in the evening.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import stdtrit

from roiflow.candidates import selector as candidates
from roiflow.data import lake
from roiflow.data.weeks import Week
from roiflow.features.rows import Window
from roiflow.features.table import Floats, Requests
from roiflow.features.vocabulary import Vocabulary
from roiflow.labels.fit import fit as fit_labels
from roiflow.loop.ranker_chooser import KnownWeek, RankerChooser
from roiflow.offline.build import Built, build
from roiflow.params import Params, load_params
from roiflow.policy.candidate_sets import of_predictions
from roiflow.policy.network import standardise
from roiflow.ranking.blend import Blend
from roiflow.ranking.protocol import Ranker
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.train import fit as train
from roiflow.simulator.policies import Oracle, logging_policy, random_policy
from roiflow.simulator.run import SlateChooser
from roiflow.simulator.source import SimulatorSource
from roiflow.simulator.truth import expected_value_of
from tests import needs
from tests.conftest import Record
from tests.worlds import ROOT

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

SEEDS = (7, 8, 9, 10, 11)
MARGIN = 0.005
"""Of the way: so far may a policy that explores be behind the better greedy one of a few seeds."""


class Drawn(RankerChooser):
    """Slates drawn as the served policy draws them, but for what PPO has learnt."""

    def __init__(
        self, ranker: Ranker, selector: candidates.Selector, known: KnownWeek, params: Params
    ) -> None:
        super().__init__(ranker, known, selector.shares)
        self.policy_version = self.arm = "drawn"
        self._selector, self._params = selector, params
        self._mixed = Blend(ranker, selector, params.finetune_policy.selector_share)
        self._noise = np.random.default_rng(1)

    def values(self, requests: Requests) -> Floats:
        """Logits with Gumbel noise, whose largest are a drawn slate; -inf under the top K."""
        policy = self._params.finetune_policy
        scores = self._selector.scores(self._known.features, requests)
        kept = candidates.best(scores, self._params.train_candidates.top_k)
        few = candidates.narrow(requests, kept)
        expected = self._mixed.score(self._known.features, few)
        sets = of_predictions(few, expected, self._shares)
        logits = standardise(sets.value(policy.cost_weight), sets.present) / policy.temperature
        found = np.full(scores.shape, -np.inf)
        np.put_along_axis(found, kept, logits + self._noise.gumbel(size=logits.shape), axis=1)
        return found


@pytest.mark.parametrize("budgets", [False, True], ids=["without-budgets", "with-budgets"])
def test_greedy_policies_of_one_run(
    full: bool, record: Record, tmp_path: Path, budgets: bool
) -> None:
    """Way from random (0) to the oracle (1) in the week after the run."""
    if budgets:
        needs.full_size(full, "two minutes more of the same, hour by hour")
    ways: dict[str, list[float]] = {}
    for seed in SEEDS if full else SEEDS[:1]:
        for name, way in ways_of(shipped(seed, budgets), tmp_path / str(seed), full).items():
            ways.setdefault(name, []).append(way)
    what = f"shipped world, {'with' if budgets else 'without'} budgets"
    for name, found in ways.items():
        policy = {"logging": "logging policy", "drawn": "drawn at the shipped temperature"}.get(
            name, f"greedy by {name}"
        )
        each = " / ".join(f"{way:.1%}" for way in found)
        figure = f"{np.mean(found):.1%}{interval(found)}, seed by seed {each}"
        record(f"{what}, {policy}: way to the oracle", figure)
    logging, drawn = ways.pop("logging"), ways.pop("drawn")
    assert abs(np.mean(logging)) < 0.1
    for found in ways.values():
        assert np.mean(found) > 0.74
    assert max(np.mean(found) for found in ways.values()) > 0.78
    # It explores, and is ahead of either selector refreshed as often and greedy. With budgets what
    # one slate spends is gone for the next, and greedy slates are no measure of drawn ones.
    if not budgets:
        assert np.mean(drawn) > max(np.mean(ways[kind]) for kind in candidates.KINDS) - MARGIN


def interval(found: list[float]) -> str:
    """Student's 95 % interval of the mean over seeds; nothing of a single one."""
    if len(found) < 2:
        return ""
    half = float(stdtrit(len(found) - 1, 0.975)) * np.std(found, ddof=1) / len(found) ** 0.5
    return f" ({np.mean(found) - half:.1%} to {np.mean(found) + half:.1%})"


def shipped(seed: int, budgets: bool) -> Params:
    """params.yaml with another seed, and its budgets switched."""
    params = load_params(ROOT / "params.yaml")
    world = params.ingest.simulator
    auction = world.auction.model_copy(update={"budgets": budgets})
    changed = world.model_copy(update={"seed": seed, "auction": auction})
    return params.model_copy(
        update={"ingest": params.ingest.model_copy(update={"simulator": changed})}
    )


def ways_of(params: Params, folder: Path, full: bool) -> dict[str, float]:
    """By ranker, and of the logging policy, in the week after the first that ends a window."""
    source = SimulatorSource(params.ingest.simulator, folder / "lake")
    last = source.world.first_week.plus(params.ingest.simulator.weeks - 1)
    window, judged = last.window(params.ingest.simulator.weeks), last.plus(1)
    for week in (*window, judged):
        for table, rows in source.pull(week, judged.end).items():
            lake.write(folder / "weeks", table, week, rows)
    run = built(folder, "run", window, params, Vocabulary({}))
    after = built(folder, "after", [*window[1:], judged], params, run.vocabulary)
    known = KnownWeek(source.world, after.features, after.engine, after.vocabulary)
    known = known.counted_as(run.engine.plan)
    policies: list[SlateChooser] = [logging_policy(source.world)]
    labels, refitted = fit_labels(run.features, params.fit_labels).labels, run.features.as_of_end()
    selectors = [
        candidates.fit(refitted, labels, params.train_candidates, kind) for kind in candidates.KINDS
    ]
    rankers: list[Ranker] = [*selectors]
    if full:
        rankers.append(train(RosaRanker, refitted, labels, params.train_ranker)[0])
    policies += [
        RankerChooser(
            ranker, known, selectors[0].shares, cost_weight=params.finetune_policy.cost_weight
        )
        for ranker in rankers
    ]
    # In the small run logistic regression stands in for the ranker, which takes a minute to train.
    logistic, xgboost = selectors
    policies.append(Drawn(rankers[-1] if full else logistic, xgboost, known, params))
    low, high = (
        expected_value_of(source.world, judged, one)[0]["value"]
        for one in (random_policy(source.world), Oracle(source.world))
    )
    return {
        one.policy_version: (
            expected_value_of(source.world, judged, one)[0]["value"] - low
        ) / (high - low)
        for one in policies
    }  # fmt: skip


def built(
    folder: Path, name: str, weeks: list[Week], params: Params, published: Vocabulary
) -> Built:
    """Features of some of the weeks."""
    for week in weeks:
        for table in (folder / "weeks").glob(f"*/week={week}"):
            link = folder / name / table.parent.name / table.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(table)
    return build(Window(folder / name), published, params.build_features, folder / f"{name}-made")
