"""Bentos behind the edge on one machine: started, filled, switched to, and only then the old ended.

What runs is written in <home>/deployment.json; starting it again from there gives the same split.
"""

import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from roiflow.artefacts.run import Deployed, Placed
from roiflow.bundle import Bento, find_bento
from roiflow.deployment import edge, local, processes, start_page
from roiflow.deployment.placed import STATE, current, keep_limits, limits_file, remember
from roiflow.deployment.processes import Running
from roiflow.errors import ServiceError
from roiflow.experiment.assignment import SALT
from roiflow.features.plan import Plan
from roiflow.features.vocabulary import Vocabulary
from roiflow.files import write_directory, write_file
from roiflow.online.redis_store import BATCH_SECONDS, RedisStore
from roiflow.online.snapshot import SNAPSHOT, load_snapshot
from roiflow.serving.package import PLAN, VOCABULARY, Package
from roiflow.serving.service import namespace
from roiflow.stream.checks import Limits

EDGE_PORT, RANKER_PORT, REDIS_PORT = 8088, 3001, 6390
"""Preferred ports; a taken one gives way to a free one."""

RELOAD_SECONDS = 10.0
DRAIN_SECONDS = 1.0


def deploy(
    home: Path, bento: Bento, snapshot: Path, limits: Limits, redis_url: str | None
) -> Deployed:
    """Serve a Bento to all users, or to those whom a canary leaves; both doors take `limits`.

    A canary that serves keeps its share and so its users, for its experiment goes on beside the
    new stable arm; where it is the canary that is deployed, it takes all. Else as `canary`.
    """
    name = keep_limits(home, limits)
    return _release(home, bento, snapshot, redis_url, _promoted(current(home), bento.tag, name))


def canary(
    home: Path,
    bento: Bento,
    snapshot: Path,
    limits: Limits,
    redis_url: str | None,
    percent: float,
) -> Deployed:
    """Serve a Bento to `percent` of the users; what was stable keeps the rest.

    The new instance has the online features of `snapshot` and is warm before the edge sends it
    anyone, and what nobody is sent to is ended last; so a failure leaves what was there. Doing it
    twice changes nothing. Raises ServiceError where a server does not start, or nothing is stable.
    """
    arms = _tried(current(home), bento.tag, keep_limits(home, limits), percent)
    return _release(home, bento, snapshot, redis_url, arms)


def _release(
    home: Path, bento: Bento, snapshot: Path, redis_url: str | None, arms: tuple[Placed, ...]
) -> Deployed:
    # In this order because each step needs only what is before it, and until `serve` nothing that a
    # user sees has changed: store filled, instance warm, edge switched, noted, the old ended. A
    # kill anywhere leaves what a second call goes on from.
    old = current(home)
    url = ensure_redis(home, redis_url)
    load_online(bento, snapshot, url)
    _keep_snapshot(home, bento, snapshot)
    deployed = serve(home, arms, url)
    remember(home, arms)
    _end(home, {arm.server for arm in old} - {arm.server for arm in arms})
    _forget_snapshots(home, arms)
    return deployed


def snapshot_of(home: Path, bento: Bento) -> Path:
    """The online features that a deployed Bento's store begins with, should it be emptied."""
    return home / "online" / bento.digest[:12]


def _keep_snapshot(home: Path, bento: Bento, snapshot: Path) -> None:
    kept = snapshot_of(home, bento)
    about = kept / SNAPSHOT
    if not about.exists() or about.read_bytes() != (snapshot / SNAPSHOT).read_bytes():
        with write_directory(kept) as aside:
            shutil.copytree(snapshot, aside, dirs_exist_ok=True)


def _forget_snapshots(home: Path, arms: Sequence[Placed]) -> None:
    kept = {snapshot_of(home, find_bento(arm.tag, home)) for arm in arms}
    for folder in (home / "online").iterdir():
        if folder not in kept:
            shutil.rmtree(folder)


def _end(home: Path, servers: Collection[str]) -> None:
    """End instances that get no new request, once they have answered the last."""
    # nginx has sent the last request by now; the instance may not have answered it.
    if servers:
        time.sleep(DRAIN_SECONDS)
    for server in sorted(servers):
        processes.stop(server, home)


def _promoted(old: Sequence[Placed], tag: str, limits: str) -> tuple[Placed, ...]:
    """The arms where `tag` is the stable one."""
    others = tuple(replace(arm, limits=limits) for arm in old[:-1] if arm.tag != tag)
    rest = 100 - sum(arm.percent for arm in others)
    return (*others, Placed("stable", rest, tag, limits))


def _tried(old: Sequence[Placed], tag: str, limits: str, percent: float) -> tuple[Placed, ...]:
    """The arms where `tag` is the canary of `percent`."""
    if not old:
        raise ServiceError(f"a canary of {percent:g} percent needs a stable deployment beside it")
    if percent == 100 or old[-1].tag == tag:
        return (Placed("stable", 100.0, tag, limits),)
    return (
        Placed("canary", percent, tag, limits),
        Placed("stable", 100 - percent, old[-1].tag, limits),
    )


def roll_back(home: Path, redis_url: str | None) -> Deployed:
    """Send every user to the stable arm, then end the canary. Raises ServiceError without one."""
    old = current(home)
    if not old:
        raise ServiceError(f"{home / STATE}: nothing is deployed")
    arms = (replace(old[-1], percent=100.0),)
    deployed = serve(home, arms, ensure_redis(home, redis_url))
    remember(home, arms)
    _end(home, {arm.server for arm in old} - {arm.server for arm in arms})
    return deployed


def serve(home: Path, arms: Sequence[Placed], redis_url: str) -> Deployed:
    """Run the arms' instances and the edge in front of them; what runs already is left.

    Without an arm the edge has the start page alone, and refuses slates.
    """
    instances = [processes.start([_instance(home, arm, redis_url)], home)[0] for arm in arms]
    address = _point_edge(home, arms, instances)
    return Deployed(address, tuple(arms))


def _instance(home: Path, arm: Placed, redis_url: str) -> processes.Server:
    bento = find_bento(arm.tag, home)
    port = processes.port_of(arm.server, home, RANKER_PORT)
    environment = {
        "ROIFLOW_HOME": str(home.absolute()),
        "ROIFLOW_LIMITS": str(limits_file(home, arm.limits)),
        "ROIFLOW_REDIS_URL": redis_url,
    }
    return local.ranker(arm.server, bento.folder, port, environment)


def _point_edge(home: Path, arms: Sequence[Placed], instances: Sequence[Running]) -> str:
    """Write nginx.conf for the arms, then start nginx or let it change over; its address."""
    folder = home.absolute() / "edge"
    folder.mkdir(parents=True, exist_ok=True)
    there = processes.running(home).get("nginx")
    port = processes.port_of("nginx", home, EDGE_PORT)
    shares = [
        edge.Arm(arm.arm, arm.percent, instance.address.removeprefix("http://"))
        for arm, instance in zip(arms, instances, strict=True)
    ]
    listen, pages = f"{local.HOST}:{port}", start_page.pages(home)
    text = edge.render(shares, SALT, listen, str(folder), pages=pages)
    configuration = folder / "nginx.conf"
    changed = not configuration.exists() or configuration.read_text() != text
    if changed:
        # Checked before it is put in place: nginx that is started again by anybody, at any time,
        # would not come up with a wrong one.
        with write_file(configuration) as aside:
            aside.write_text(text)
            local.check_nginx(folder, aside)
    (nginx,) = processes.start([local.nginx(folder, port)], home)
    if there and changed:
        processes.reload("nginx", home)
        _await_revision(nginx.address, edge.revision(text))
    return nginx.address


def _await_revision(address: str, revision: str) -> None:
    """Until the edge answers with a configuration; the old one serves what it had accepted."""
    ready = processes.http_ready(f"{address}/edge", lambda body: revision in body.decode())
    # Old workers accept for a moment beside new ones and may answer a look: three answers in a row
    # of the new revision, before the old upstream may be ended.
    limit = time.monotonic() + RELOAD_SECONDS
    seen = 0
    while seen < 3:
        seen = seen + 1 if ready() else 0
        if time.monotonic() > limit:
            raise ServiceError(f"nginx: did not take configuration {revision} over")
        time.sleep(0.02)


def ensure_redis(home: Path, redis_url: str | None) -> str:
    """The named Redis, or else the embedded one, started where it does not run."""
    if redis_url:
        return redis_url
    port = processes.port_of("redis", home, REDIS_PORT)
    return processes.start([local.redis(home, port)], home)[0].address


def load_online(bento: Bento, snapshot: Path, redis_url: str) -> bool:
    """Load a run's online features for the Bento's package; False where the store is as new.

    Every package has keys of its own, so that no index of one is read by another. Raises
    ContractError on a snapshot that cannot be read, ServiceError without Redis.
    """
    store = online_store(bento, redis_url)
    try:
        return load_snapshot(store, snapshot)
    finally:
        store.close()


def online_store(bento: Bento, redis_url: str) -> RedisStore:
    """The store of the Bento's package, to write to and to be closed."""
    package = Package.load(bento.package)
    return RedisStore(
        Plan.read(package.folder / PLAN),
        Vocabulary.read(package.folder / VOCABULARY),
        package.description.encode_length,
        redis_url,
        namespace(bento.digest),
        BATCH_SECONDS,
    )
