"""What a package learns of itself from the slates that it served."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from roiflow.data import served_features
from roiflow.data.schemas import CONVERSIONS, IMPRESSIONS
from roiflow.data.served_features import SERVED
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import ArtefactError
from roiflow.evaluation.ranking import calibration_curve, ece
from roiflow.evaluation.replay import replay
from roiflow.features.engine import open_engine
from roiflow.features.folder import read
from roiflow.jobs.simulate_week import Recalibrating, simulate
from roiflow.labels.model import Labels
from roiflow.params import RecalibrateParams, load_params
from roiflow.policy.candidate_sets import columns_of
from roiflow.policy.plackett_luce import conditional_propensities
from roiflow.ranking.recalibration import IDENTITY, Platt, Recalibration, Recalibrations
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import (
    Known,
    Recalibrator,
    folder_of,
    forget,
    in_share,
    keep,
    kept,
    learn,
)
from roiflow.serving.recommender import Models
from roiflow.simulator.source import SimulatorSource
from tests.labels import planted_labels
from tests.unit.evaluation.weeks import whole
from tests.unit.ranking.test_recalibration import ONE
from tests.unit.serving.packages import ROOT, SLATE, TinyWorld, rebuilt

WEEK = Week.parse("2026-W03")
HOUR = MICROS_PER_HOUR
PARAMS = load_params(ROOT / "params.yaml").recalibrate.model_copy(
    update={"hours": 24, "window_hours": 168, "user_share": 1.0, "min_clicks": 20}
)


@pytest.fixture
def models(package: Package) -> Models:
    return Models(Package.load(package.folder))


def known(
    models: Models,
    clicked: Sequence[bool],
    converted: Sequence[bool],
    digest: str,
    **columns: object,
) -> Known:
    """Slates of one ad, each of a user of its own: P(click) 0.2, P(conversion | click) 0.25."""
    size, start = len(clicked), WEEK.start
    ad = models.vocabulary.ids("ad")[0].as_py()
    times = pa.array(np.full(size, start))
    request = [f"r{number}" for number in range(size)]
    served = {
        "request_id": request,
        "user_id": [f"u{number}" for number in range(size)],
        "event_time": times,
        "placement": ["p"] * size,
        "device": ["d"] * size,
        "policy_version": [digest[:12]] * size,
        "ads": [[ad]] * size,
        "p_click": [[0.2]] * size,
        "p_conversion": [[0.05]] * size,
        "as_of": pa.nulls(size, pa.int64()),
        "features": ["f"] * size,
        "vector": pa.nulls(size, pa.binary()),
        "recalibration": pa.nulls(size, pa.string()),
    }
    shown = {
        "event_time": times,
        "known_time": times,
        "request_id": request,
        "impression_id": [f"{name}-1" for name in request],
        "position": np.ones(size, np.int32),
        "clicked": clicked,
        "click_known_time": pa.nulls(size, pa.int64()),
    }
    blank = {pa.string(): "", pa.bool_(): False}
    rest = {
        field.name: [blank.get(field.type, 0)] * size
        for field in IMPRESSIONS
        if field.name not in shown
    }
    sold = np.flatnonzero(converted)
    conversions = {
        "event_time": pa.array(np.full(sold.size, start)),
        "known_time": pa.array(np.full(sold.size, start + HOUR)),
        "impression_id": [f"r{row}-1" for row in sold],
        "revenue_micros": np.full(sold.size, 10**6),
    }
    return Known(
        pa.table(served | columns).cast(SERVED),
        pa.table(shown | rest).select(IMPRESSIONS.names).cast(IMPRESSIONS),
        pa.table(conversions).cast(CONVERSIONS),
    )


def labels(theta: Sequence[float] = (1.0,), by_age: Sequence[float] = (0.0, 1.0)) -> Labels:
    """Of one category: looked at by position, known by hours of age."""
    return planted_labels(theta, by_age)


def flags(size: int, *groups: tuple[int, bool]) -> list[bool]:
    found = [value for count, value in groups for _ in range(count)]
    return [*found, *[False] * (size - len(found))]


def test_rates_that_were_seen_are_what_is_predicted(models: Models, package: Package) -> None:
    """100 of 1,000 were clicked where 200 were expected; half of those were sold."""
    all_known = known(models, flags(1000, (100, True)), flags(1000, (50, True)), package.digest)
    weak = PARAMS.model_copy(update={"prior_events": 1e-6})
    found = learn(models, package.digest, all_known, labels(), WEEK.start + 24 * HOUR, weak)
    assert found is not None
    assert found.click.apply(np.array([0.2])) == pytest.approx([0.1], rel=1e-3)
    assert found.conversion.apply(np.array([0.25])) == pytest.approx([0.5], rel=1e-3)
    learned = found.learned
    assert (learned.users, learned.impressions, learned.clicks, learned.conversions) == (
        1000, 1000, 100, 50,
    )  # fmt: skip
    assert (learned.maturity, found.since) == (1.0, WEEK.start + 24 * HOUR)


def test_conversions_that_are_still_to_come_are_no_negatives(
    models: Models, package: Package
) -> None:
    """At an age of 24 hours half are known: 25 of 100 known is 50 of 100 in the end."""
    some = known(models, flags(1000, (200, True)), flags(1000, (50, True)), package.digest)
    weak = PARAMS.model_copy(update={"prior_events": 1e-6})
    half = labels(by_age=[0.0, *[0.5] * 30, 1.0])
    found = learn(models, package.digest, some, half, WEEK.start + 24 * HOUR, weak)
    assert found is not None
    assert found.conversion.apply(np.array([0.25])) == pytest.approx([0.5], rel=1e-3)
    assert found.learned.maturity == pytest.approx(0.5)
    # None can be known yet: nothing is said of conversions.
    none = labels(by_age=[0.0] * 40 + [1.0])
    found = learn(models, package.digest, some, none, WEEK.start + 24 * HOUR, weak)
    assert found is not None
    assert found.conversion == IDENTITY


def test_predictions_are_those_before_the_map_that_changed_them(
    models: Models, package: Package
) -> None:
    half = Recalibration(package.digest, WEEK.start, Platt(-1.0, 2.0), Platt(1.0, 0.5), ONE.learned)
    clicked, converted = flags(1000, (100, True)), flags(1000, (50, True))
    alone = known(models, clicked, converted, package.digest)
    seen = {
        "p_click": [[float(half.click.apply(np.array(0.2)))]] * 1000,
        "p_conversion": [
            [float(half.click.apply(np.array(0.2)) * half.conversion.apply(np.array(0.25)))]
        ] * 1000,
        "recalibration": [half.digest] * 1000,
    }  # fmt: skip
    changed = known(models, clicked, converted, package.digest, **seen)
    until = WEEK.start + 24 * HOUR
    expected = learn(models, package.digest, alone, labels(), until, PARAMS)
    with pytest.raises(ArtefactError, match=f"recalibration {half.digest}, which is not kept"):
        learn(models, package.digest, changed, labels(), until, PARAMS)
    models.recalibrations = Recalibrations((half,))
    found = learn(models, package.digest, changed, labels(), until, PARAMS)
    assert found is not None
    assert expected is not None
    for name in ("click", "conversion"):
        np.testing.assert_allclose(
            list(vars(getattr(found, name)).values()), list(vars(getattr(expected, name)).values())
        )


@pytest.mark.parametrize(
    ("more", "digest"),
    [
        ({"min_clicks": 101}, ""),
        ({"window_hours": 23}, ""),
        ({}, "another package"),
    ],
)
def test_without_enough_of_its_own_clicks_nothing_changes(
    models: Models, package: Package, more: dict[str, object], digest: str
) -> None:
    clicked = flags(1000, (100, True))
    some = known(models, clicked, clicked, digest or package.digest)
    params = PARAMS.model_copy(update=more)
    until = WEEK.start + 24 * HOUR
    assert learn(models, package.digest, some, labels(), until, params) is None


def test_what_is_not_known_yet_does_not_count(models: Models, package: Package) -> None:
    clicked = flags(1000, (100, True))
    some = known(models, clicked, clicked, package.digest)
    early = learn(models, package.digest, some, labels(), WEEK.start + HOUR, PARAMS)
    assert early is not None
    assert early.learned.conversions == 0  # they become known in that hour's last moment
    assert learn(models, package.digest, some, labels(), WEEK.start, PARAMS) is None


def test_a_share_of_users_is_the_same_ones_everywhere() -> None:
    users = [f"u{number}" for number in range(20_000)]
    quarter = in_share(users, 0.25)
    assert quarter.mean() == pytest.approx(0.25, abs=0.02)
    assert not (quarter & ~in_share(users, 0.5)).any()
    assert in_share(users, 1.0).all()


def test_recalibrations_are_kept_beside_the_package(tmp_path: Path) -> None:
    later = replace(ONE, since=200)
    for one in (later, ONE, ONE):
        keep(tmp_path, "simulator", one)
    assert kept(tmp_path, "simulator", ONE.package).each == (ONE, later)
    assert kept(tmp_path, "simulator", ONE.package, before=200).each == (ONE,)
    assert kept(tmp_path, "simulator", "b" * 64).each == ()
    path = folder_of(tmp_path, "simulator", ONE.package) / "100.json"
    with pytest.raises(ArtefactError, match=r"100.json: is of package a{64}, not of a{12}f"):
        kept(tmp_path, "simulator", "a" * 12 + "f" * 52)
    path.write_text("{")
    with pytest.raises(ArtefactError, match=r"100.json: not JSON"):
        kept(tmp_path, "simulator", ONE.package)
    forget(tmp_path, "simulator", ONE.package, 100)
    assert kept(tmp_path, "simulator", ONE.package).each == ()


def clicks(lake: Path, source: SimulatorSource, week: Week) -> tuple[np.ndarray, ...]:
    """Of a served week's impressions: time, what was predicted at the position, clicked."""
    served = served_features.read(lake, "simulator", week)
    assert served is not None
    told = {
        (request, position): value
        for request, row in zip(
            served["request_id"].to_pylist(), served["p_click"].to_pylist(), strict=True
        )
        for position, value in enumerate(row, 1)
    }
    rows = source.pull(week, week.end)["impressions"].to_pylist()
    own = [row for row in rows if (row["request_id"], row["position"]) in told]
    return (
        np.array([row["event_time"].timestamp() * 1e6 for row in own]),
        np.array(
            [told[row["request_id"], row["position"]] * row["position"] ** -0.7 for row in own]
        ),
        np.array([row["clicked"] for row in own]),
    )


def test_a_served_week_is_calibrated_from_the_second_day_on(
    world: TinyWorld, package: Package, tmp_path: Path
) -> None:
    """The package's click is sigmoid(z - 2), and the world's is not."""
    by_age = 1 - np.exp(-np.arange(200) / 10)
    learning = Recalibrating(planted_labels([1, 2**-0.7, 3**-0.7], by_age.tolist()), PARAMS)
    errors = {}
    for name, one in (("alone", None), ("recalibrated", learning)):
        source = SimulatorSource(world.params, tmp_path / name)
        simulate(package.folder, world.features / "online", source, WEEK, one)
        time, predicted, clicked = clicks(tmp_path / name, source, WEEK)
        later = time >= WEEK.start + 24 * HOUR
        errors[name] = ece(calibration_curve(predicted[later], clicked[later], 5))
    assert errors["alone"] > 0.05
    assert errors["recalibrated"] < 0.4 * errors["alone"]


def test_a_recalibrated_week_is_repeatable_goes_on_and_is_replayed(
    world: TinyWorld, package: Package, tmp_path: Path
) -> None:
    """Logged propensities are what replay finds with what was in force at each request."""
    learning = Recalibrating(labels((1.0, 0.62, 0.46), [0.0, *[0.9] * 100, 1.0]), PARAMS)
    online, lake = world.features / "online", tmp_path / "lake"
    source = SimulatorSource(world.params, lake)
    simulate(package.folder, online, source, WEEK, learning)
    found = kept(lake, "simulator", package.digest)
    starts = [one.since - WEEK.start for one in found.each]
    # At the first request of an hour, a day after the one before.
    gaps = np.diff([0, *starts]) / HOUR
    assert len(starts) > 4
    assert (gaps >= 24).all()
    assert (gaps < 36).all()
    served = served_features.path_of(lake, "simulator", WEEK)
    before = served.read_bytes()
    simulate(package.folder, online, source, WEEK, learning)
    assert served.read_bytes() == before
    assert kept(lake, "simulator", package.digest) == found
    # The week after goes on with the last one, a day after it was fitted.
    simulate(package.folder, online, source, WEEK.plus(1), learning)
    later = kept(lake, "simulator", package.digest).each[len(found.each) :]
    table = served_features.read(lake, "simulator", WEEK.plus(1))
    assert table is not None
    assert set(table["recalibration"].to_pylist()) == {
        one.digest for one in (found.each[-1], *later)
    }
    folder = rebuilt(tmp_path, world, lake, ("2026-W01", "2026-W02", "2026-W03"))
    features = read(folder)
    log = features.impressions
    late = np.flatnonzero((log.event_time >= WEEK.start) & (log.position == 1))
    late = late[log.user[late] > 0]
    shown = np.stack([log.ad[late + at] for at in range(SLATE)], axis=1)
    logged = np.stack([log.propensity[late + at] for at in range(SLATE)], axis=1)
    largest = {}
    for name, maps in (("in force", found), ("none", Recalibrations())):
        models = Models(Package.load(package.folder), maps)
        sets, logits = whole(replay(models, features, open_engine(folder), late))
        again = conditional_propensities(logits, columns_of(sets.ad, shown))
        largest[name] = float(np.abs(again / logged - 1).max())
    assert largest["in force"] < 1e-3
    assert largest["none"] > 0.01


def test_too_few_clicks_are_waited_for_by_the_hour(models: Models, package: Package) -> None:
    clicked = flags(1000, (100, True))
    some = known(models, clicked, clicked, package.digest)
    params: RecalibrateParams = PARAMS.model_copy(update={"min_clicks": 100, "hours": 2})
    one = Recalibrator(models, package.digest, labels(), params)
    one.renew(WEEK.start)
    one.serve(some.served)
    one.renew(WEEK.start + 2 * HOUR)
    assert not one.fitted
    one.observe({"impressions": some.impressions, "conversions": some.conversions})
    one.renew(WEEK.start + 3 * HOUR)
    one.renew(WEEK.start + 4 * HOUR)
    assert [found.since for found in one.fitted] == [WEEK.start + 3 * HOUR]
    assert models.recalibrations.each == tuple(one.fitted)


def test_a_package_is_recalibrated_often_while_it_is_young(
    models: Models, package: Package
) -> None:
    """Every 2 hours until 5 hours are over, then every 10; hour 6 still follows 4 by 2."""
    clicked = flags(1000, (100, True))
    some = known(models, clicked, clicked, package.digest)
    often = {"hours": 2, "young_hours": 5, "later_hours": 10, "window_hours": 48}
    one = Recalibrator(models, package.digest, labels(), PARAMS.model_copy(update=often))
    one.serve(some.served)
    one.observe({"impressions": some.impressions, "conversions": some.conversions})
    for hour in range(30):
        one.renew(WEEK.start + hour * HOUR)
    assert [(found.since - WEEK.start) // HOUR for found in one.fitted] == [2, 4, 6, 16, 26]
