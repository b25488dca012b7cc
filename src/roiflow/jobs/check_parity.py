"""Compare what serving was given in the test week with what the offline engine makes of its log.

Only slates of packages of ours are compared. A week that none served has the verdict `not served`;
a week whose slates or packages cannot be found again fails.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.artefacts.parity import NOT_SERVED, Compared, NotCompared, ParityReport
from roiflow.catalogue.catalogue import Catalogue, known, succession
from roiflow.data import event_lake, served_features
from roiflow.data.events import FEATURES
from roiflow.data.schemas import CHANGES
from roiflow.data.weeks import Week
from roiflow.errors import RoiflowError
from roiflow.features import engine as counters
from roiflow.features import folder as feature_store
from roiflow.features.plan import Plan
from roiflow.features.rows import Window, micros
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import VOCABULARY
from roiflow.online.shelf import Shelf
from roiflow.online.snapshot import first_shelf
from roiflow.params import CheckParityParams, IngestParams, load_params
from roiflow.parity.fault_case import UNEXPLAINED
from roiflow.parity.faults import explain
from roiflow.parity.findings import by_feature, corrupt, sampled, unequal
from roiflow.parity.replay import (
    Content,
    Setting,
    Slates,
    join_weeks,
    replay,
    with_later_users,
)
from roiflow.progress import Progress, progress
from roiflow.registry import Registry, model_name, package_folder, read_digest
from roiflow.serving.package import PLAN, Package
from roiflow.serving.package import VOCABULARY as VOCABULARY_FILE
from roiflow.serving.recommender import vector_shape
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.weekly import places
from roiflow.weekly.checkout import checkout_of

_VERSION = re.compile(r"[0-9a-f]{12}")


def main(validated: Path, params: Path, parity: Written) -> None:
    """Write `parity`; the same inputs give the same report."""
    config = load_params(params)
    with progress("check_parity") as show:
        found = check(validated, config.ingest, config.check_parity, Settings(), show)
    found.write(parity)


def check(
    validated: Path,
    ingest: IngestParams,
    limits: CheckParityParams,
    settings: Settings,
    show: Progress = lambda _, __: None,
) -> ParityReport:
    """The report on the test week: verdict, reason, and what was found for each package."""
    week = Week.parse(ingest.week)
    shown = _shown(validated, week)
    versions = sorted(pc.unique(shown[c.POLICY_VERSION]).to_pylist())
    served = served_features.read(settings.lake, ingest.source, week)
    found = list[Compared | NotCompared]()
    for number, version in enumerate(versions):
        show(number / len(versions), f"slates served by {version}")
        slates = _of(served, version)
        package = _package(settings, ingest.source, version)
        # A version that is no digest of ours and left no vectors with us. One that did leave some
        # counts as ours even where its package is gone, and fails below.
        if package is None and not slates.num_rows:
            continue  # another system's
        requests = pc.unique(_of(shown, version)[c.REQUEST])
        try:
            found.append(_check(validated, package, version, slates, requests, ingest, settings))
        except RoiflowError as error:
            # One package that is gone must not hide what the others were given; it fails the week.
            found.append(NotCompared(version, None, str(error)))
    return verdict(week, found, limits)


def _shown(validated: Path, week: Week) -> pa.Table:
    """Impressions that were shown in the week, not only known in it."""
    names = [c.REQUEST, c.POLICY_VERSION, c.EVENT_TIME]
    rows = Window(validated).read("impressions", week, names)
    time = micros(rows[c.EVENT_TIME])
    # A partition is by when rows became known; the slates that were kept are by their request's own
    # time, and the two are matched below.
    return rows.filter(pa.array((time >= week.start) & (time < week.end)))


def _of(rows: pa.Table | None, version: str) -> pa.Table:
    if rows is None:
        return served_features.SERVED.empty_table()
    return rows.filter(pc.equal(rows[c.POLICY_VERSION], version))


def _package(settings: Settings, source: str, version: str) -> Package | None:
    """The package of ours whose digest begins so, or None."""
    if not _VERSION.fullmatch(version):
        return None
    # Of this machine first: a run's own folder is there before its version is registered.
    local = [
        *package_folder(settings.home, version).parent.glob(f"{version}*"),
        *(
            folder
            for folder in settings.runs.glob(f"{source}-*/{places.PACKAGE}")
            if read_digest(folder).startswith(version)
        ),
    ]
    if local:
        return Package.load(local[0])
    registry = Registry(settings.registry_uri, settings.home)
    name = model_name(source)
    for digest in registry.digests(name):
        if digest.startswith(version) and (known := registry.find(name, digest)):
            return Package.load(registry.package(known))
    return None


def _check(
    validated: Path,
    package: Package | None,
    version: str,
    slates: pa.Table,
    requests: pa.Array,
    ingest: IngestParams,
    settings: Settings,
) -> Compared:
    if package is None:
        raise RoiflowError(f"package {version} served, and is no longer to be found")
    week = Week.parse(ingest.week)
    before = checkout_of(settings.home, ingest.source, str(week.plus(-1)))
    # From the impressions, which the log has in any case, to the vectors: slates whose vectors were
    # lost would otherwise not be missed.
    kept = pc.is_in(requests, value_set=slates[c.REQUEST].combine_chunks())
    # The history of a slate reaches back over the window, into weeks that only the run before has.
    # Weeks that both have are read as they are known now, and once more as they were known then.
    with TemporaryDirectory() as folder:
        joined, former = Path(folder) / "now", Path(folder) / "then"
        own = Window(validated).weeks
        earlier = Window(before / places.VALIDATED).weeks
        join_weeks(joined, {one: before / places.VALIDATED for one in earlier if one not in own})
        join_weeks(joined, dict.fromkeys(own, validated))
        join_weeks(former, dict.fromkeys(earlier, before / places.VALIDATED))
        plan = Plan.read(package.folder / PLAN)
        words = Vocabulary.read(package.folder / VOCABULARY_FILE)
        first = first_shelf(before / places.ONLINE, plan, words)
        changes = changes_of(first.catalogue, validated, week, ingest.source, settings.lake)
        shelves = _shelves(first, changes)
        setting = setting_of(
            package, before / places.FEATURES, shelves, week, slates, Window(joined)
        )
        content = Content.read(joined, setting.vocabulary)
        # What the snapshot was made from: rows that the source has given or taken back since
        # explain some differences, and only both readings show which rows these are.
        pulled_then = Content.read(former, setting.vocabulary)
    rows = Slates.of(slates, setting)
    replayed = replay(setting, content, rows)
    # A hash covers all features and can be compared only where the item counters were final. Of a
    # slate kept whole the others can be in any case: what differs is in either.
    different = sampled(replayed)
    wrong = np.union1d(replayed.differing, different.rows[unequal(different)])
    return Compared(
        policy_version=version,
        digest=package.digest,
        slates=len(requests),
        not_kept=int(pc.sum(pc.invert(kept)).as_py() or 0),
        degraded=int(slates[FEATURES].null_count),
        compared=int(np.count_nonzero(replayed.final)),
        not_final=int(np.count_nonzero(~replayed.final)),
        ahead=int(np.count_nonzero(rows.as_of >= rows.event_time)),
        different=int(wrong.size),
        sampled=int(np.count_nonzero(rows.sampled)),
        corrupt=tuple(str(rows.request[row]) for row in corrupt(replayed)[:10]),
        stale_share=float(np.mean(replayed.stale)) if replayed.stale.size else 0.0,
        features=tuple(by_feature(different, setting)),
        fault=explain(replayed, different, pulled_then) if wrong.size else None,
    )


def changes_of(
    catalogue: Catalogue, validated: Path, week: Week, source: str, lake: Path
) -> pa.Table:
    """What became of a snapshot's catalogue in the week that was served from it.

    What the stream took, or the week's own ads, as the simulated world's chooser takes them.
    """
    if source != event_lake.SOURCE:
        return succession(catalogue, Window(validated).read("ads", week), week.start)
    parts = [part.changes() for part in event_lake.parts(lake) if part.week == week]
    return pa.concat_tables([CHANGES.empty_table(), *parts])


def _shelves(first: Shelf, changes: pa.Table) -> list[tuple[int, Shelf]]:
    """Every catalogue that slates may have been made from, and since when it was known."""
    shelves = [(-1, first)]
    times = known(changes)
    for moment in np.unique(times).tolist():
        now = changes.filter(pa.array(times == moment))
        shelves.append((moment, shelves[-1][1].merged(now)))
    return shelves


def setting_of(
    package: Package,
    features: Path,
    shelves: Sequence[tuple[int, Shelf]],
    week: Week,
    slates: pa.Table,
    window: Window,
) -> Setting:
    """The package with the snapshot in the features of the run before; raises ContractError."""
    plan = Plan.read(package.folder / PLAN)
    then = Plan.read(features / counters.PLAN)
    vocabulary = Vocabulary.read(features / VOCABULARY)
    # Users whom the week itself brought: serving gave them rows after the vocabulary's, and so must
    # a replay, or they would all be one unknown user.
    later = [
        slates[c.USER],
        *(window.all(name, [c.USER])[c.USER] for name in ("impressions", "behaviours")),
    ]
    last = shelves[-1][1]
    price, bid = np.zeros((2, len(shelves), last.plan.sizes["ad"]), np.int64)
    for number, (_, shelf) in enumerate(shelves):
        price[number, shelf.ad] = shelf.catalogue.price
        bid[number, shelf.ad] = shelf.catalogue.bid
    # Ads that came after the snapshot have rows after its vocabulary's, as the store gave them out.
    met = last.vocabulary.ids("ad")[vocabulary.size("ad") - 1 :]
    none = np.zeros((len(met), then.attributes.shape[1]), np.int32)
    return Setting(
        plan=last.plan,
        learnt=plan,
        catalogue_known=np.array([since for since, _ in shelves], np.int64),
        shape=vector_shape(package),
        vocabulary=with_later_users(
            vocabulary.appended("ad", pa.chunked_array([met], pa.string())), later
        ),
        known_users=vocabulary.size("user"),
        attributes=np.concatenate([then.attributes, none]),
        profile=np.asarray(feature_store.read(features).profile),
        start=week.start,
        price=price,
        bid=bid,
    )


def verdict(
    week: Week, found: Sequence[Compared | NotCompared], limits: CheckParityParams
) -> ParityReport:
    """Pass where every package's slates do; fail with the reasons."""
    compared = [one for one in found if isinstance(one, Compared)]
    faults = [fault for one in found if (fault := _fault(one, limits))]
    # No package at all is a verdict of its own: nothing was compared, and nothing can have been
    # wrong.
    passed: Literal["pass", "fail"] = "fail" if faults else "pass"
    return ParityReport(
        week=str(week),
        verdict=passed if found else NOT_SERVED,
        reason="; ".join(faults),
        summary=_summary(compared) if found else "no package of ours served the week",
        different=sum(one.different for one in compared),
        max_different_fraction=limits.max_different_fraction,
        packages=tuple(found),
    )


def _summary(found: Sequence[Compared]) -> str:
    stale = max((one.stale_share for one in found), default=0.0)
    return (
        f"{sum(one.compared for one in found):,} slates compared, "
        f"{sum(one.different for one in found):,} differ, "
        f"{sum(one.not_final for one in found):,} not final, "
        f"{sum(one.degraded for one in found):,} degraded, {100 * stale:.2g} % stale"
    )


def _fault(one: Compared | NotCompared, limits: CheckParityParams) -> str:
    """Why a package's slates do not pass; empty where they do."""
    if isinstance(one, NotCompared):
        return f"cannot be compared: {one.cannot}"
    version = one.policy_version
    # From what makes the comparison worthless to what it found: with slates missing or vectors
    # altered, a share of equal ones says nothing.
    if one.not_kept:
        return f"{one.not_kept:,} of {one.slates:,} slates of {version} were not kept"
    if one.corrupt:
        return f"the vector of {one.corrupt[0]} is not the one that was hashed"
    if not one.compared:
        return f"no slate of {version} can be compared"
    if one.different <= limits.max_different_fraction * one.compared:
        return ""
    worst = one.features[0] if one.features else None
    where = (
        f"most in {worst.feature} (by up to {float(worst.largest):.4g})"
        if worst
        else "none of which was kept whole"
    )
    share = f"{one.different:,} of {one.compared:,} slates differ"
    return f"{share}, {where}: {one.fault.name if one.fault else UNEXPLAINED}"


if __name__ == "__main__":
    run(main)
