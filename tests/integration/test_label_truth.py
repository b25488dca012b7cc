"""What labels say of a simulated world's log, against what is planted and what comes of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow import columns as c
from roiflow.data.split import TEST, VALIDATION
from roiflow.data.weeks import Week
from roiflow.features.table import Features, Floats, Ints
from roiflow.labels.fit import Fitted, fit
from roiflow.labels.settled import settle
from roiflow.labels.worth import CATEGORY
from roiflow.params import load_params
from tests.conftest import Record
from tests.unit.serving.packages import ROOT, WEEKS, TinyWorld, tiny_world

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

PARAMS = load_params(ROOT / "params.yaml").fit_labels.model_copy(update={"iterations": 300})


@dataclass(frozen=True)
class Logged:
    """Two weeks of a world with returns, and what is learnt of its labels."""

    world: TinyWorld
    features: Features
    fitted: Fitted


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, full: bool) -> Logged:
    world = tiny_world(
        tmp_path_factory.mktemp("labels"),
        users=8_000 if full else 500,
        requests_per_user_day=2.5,
        click_rate=0.35,
        return_rate=0.05,
        categories=6,
        ads=24,
    )
    features = world.built.features
    return Logged(world, features, fit(features, PARAMS))


def test_the_planted_looks_come_back(logged: Logged, full: bool, record: Record) -> None:
    """By exchanged positions and by regression alike, from the rows before the test week."""
    far = 0.02 if full else 0.1
    for name, found in (
        ("exchanged positions", logged.fitted.by_swaps.factor),
        ("regression", logged.fitted.by_regression),
    ):
        off = found / np.arange(1, 4) ** -0.7 - 1
        for at in (2, 3):
            record(f"P(look), position {at}, by {name}", f"{off[at - 1]:+.2%}")
        assert (np.abs(off) < far).all(), (name, found)


@dataclass(frozen=True)
class Sums:
    """By category: conversions and net revenue (micros) in the end, and as known."""

    conversions: Floats
    revenue: Floats


def in_the_end(logged: Logged, part: int) -> Sums:
    """From what becomes known in the two weeks after the window as well."""
    test = Week.parse(WEEKS[-1])
    weeks = [test.plus(at) for at in range(-1, 3)]
    tables = {week: logged.world.source.pull(week, week.end) for week in weeks}
    shown = pa.concat_tables([tables[week]["impressions"] for week in weeks[:2]])
    time = shown[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    start = test.start if part == TEST else logged.features.validation_start
    end = test.end if part == TEST else test.start
    here = shown.filter(pa.array((time >= start) & (time < end)))
    sold = pa.concat_tables([tables[week]["conversions"] for week in weeks])
    place = pc.index_in(sold[c.IMPRESSION], value_set=here[c.IMPRESSION].combine_chunks())
    mine = sold.filter(pc.is_valid(place))
    ad = here[c.AD].take(pc.drop_null(place))
    index = logged.world.built.vocabulary.index("ad", ad)
    category = logged.features.attributes[index, CATEGORY]
    money = mine[c.REVENUE].to_numpy()
    size = logged.features.sizes["category"]
    return Sums(summed(category, money >= 0, size), summed(category, money, size))


def summed(group: Ints, value: np.ndarray, groups: int) -> Floats:
    return np.bincount(group, value, groups).astype(np.float64)


def estimates(logged: Logged, part: int) -> Iterator[tuple[str, Floats, Floats, Floats]]:
    """What, as estimated, in the end, and as it is known, by category that has conversions."""
    features, rows = logged.features, logged.features.rows(part)
    found, log = settle(logged.fitted.labels, features, rows), features.impressions
    category, size = features.attributes[log.ad[rows], CATEGORY], features.sizes["category"]
    truth = in_the_end(logged, part)
    some = truth.conversions > 0
    for what, estimated, end, known in (
        ("conversions", found.conversions, truth.conversions, log.converted[rows]),
        ("revenue", found.revenue, truth.revenue, log.revenue[rows]),
    ):
        ours, young = (summed(category, one, size) for one in (estimated, known))
        yield what, ours[some], end[some], young[some]


@pytest.mark.parametrize(("name", "part"), [("the test week", TEST), ("validation", VALIDATION)])
def test_what_is_estimated_is_what_comes(
    logged: Logged, full: bool, record: Record, name: str, part: int
) -> None:
    """Of the same clicks, so that their own luck is in both: within 2 %, by category within 5 %."""
    far, each_far = (0.02, 0.05) if full else (0.06, 0.25)
    for what, estimated, end, known in estimates(logged, part):
        off = estimated.sum() / end.sum() - 1
        by_category = estimated / end - 1
        worst = float(np.abs(by_category).max())
        missing, most = 1 - known.sum() / end.sum(), float((1 - known / end).max())
        record(
            f"{what} of {name}, {missing:.1%} not known, up to {most:.1%} of a category",
            f"{off:+.2%}, by category at most {worst:.2%} off",
        )
        assert abs(off) < far, what
        assert worst < each_far, (what, by_category)
