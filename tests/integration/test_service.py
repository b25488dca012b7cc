"""A Bento behind the edge, on real servers: deploy, serve, log, lose Redis, switch, roll back."""

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from typer.testing import CliRunner

from roiflow.artefacts import run as artefacts
from roiflow.artefacts.run import Deployed, Placed
from roiflow.bundle import Bento, build_bento, find_bento
from roiflow.cli import main as cli
from roiflow.deployment import processes, release
from roiflow.deployment.placed import current
from roiflow.deployment.release import (
    canary,
    deploy,
    ensure_redis,
    online_store,
    roll_back,
    snapshot_of,
)
from roiflow.errors import ArtefactError, ServiceError
from roiflow.experiment.assignment import SALT
from roiflow.jobs import deploy as deploy_job
from roiflow.params import load_params
from roiflow.stream import served_log
from roiflow.stream.checks import Limits
from tests.conftest import Record
from tests.split import arm
from tests.unit.serving.packages import TinyWorld, tiny_world, write_package

SERVICE = Path(__file__).parents[2] / "bentos" / "ad_ranker"
PARAMS = Path(__file__).parents[2] / "params.yaml"
SHIPPED = load_params(PARAMS)
LIMITS = Limits.of(SHIPPED.stream, SHIPPED.validate_)
FOREVER = 1 << 60


@dataclass(frozen=True)
class Place:
    home: Path
    world: TinyWorld
    bento: Bento
    other: Bento
    third: Bento

    @property
    def online(self) -> Path:
        return self.world.features / "online"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("platform")
    world = tiny_world(folder)
    bentos = [
        build_bento(
            write_package(folder / f"package-{version}", world, temperature=version).folder,
            str(version),
            SERVICE,
            folder / "home",
            {"source": "simulator"},
        )
        for version in (1, 2, 3)
    ]
    home = folder / "home"
    yield Place(home, world, *bentos)
    for record in processes.recorded(home):
        processes.stop(record.name, home)
    assert processes.running(home) == {}


@pytest.fixture(scope="module")
def address(place: Place) -> str:
    return deploy(place.home, place.bento, place.online, LIMITS, None).address


def placed(name: str, percent: float, bento: Bento, limits: Limits = LIMITS) -> Placed:
    return Placed(name, percent, bento.tag, hashlib.sha256(limits.content).hexdigest()[:8])


def body(number: int, user: str = "u00") -> dict[str, object]:
    return {
        "request_id": f"r{number}",
        "user_id": user,
        "placement": "home_top",
        "device": "phone",
    }


def slate(client: httpx.Client, number: int, user: str = "u00") -> httpx.Response:
    return client.post("/v1/slate", json=body(number, user), headers={"X-User-Id": user})


def logged_rows(place: Place, count: int) -> list[dict[str, object]]:
    """Rows of the served-event log once `count` slates are flushed."""
    for _ in range(200):
        rows = served_log.read(place.home / "served", 0, FOREVER)["impressions"].to_pylist()
        if len({row["request_id"] for row in rows}) >= count:
            return rows
        time.sleep(0.05)
    raise AssertionError(f"{len(rows)} rows, expected {count} slates")


def test_slates_through_the_edge_are_logged_with_their_propensities(
    place: Place, address: str, record: Record
) -> None:
    latencies = []
    answers = {}
    with httpx.Client(base_url=address) as client:
        for number in range(300):
            started = time.perf_counter()
            answer = slate(client, number, f"u{number % 60:02d}")
            latencies.append(time.perf_counter() - started)
            assert answer.status_code == 200
            assert answer.headers["X-Arm"] == "stable"
            answers[f"r{number}"] = answer.json()
    p50, p99 = np.percentile(np.array(latencies[50:]) * 1000, [50, 99])
    record("slate through nginx and Redis, one client", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    assert p50 < 100
    logged = {}
    for row in logged_rows(place, 300):
        logged[row["impression_id"]] = row
    for answer_body in answers.values():
        assert not answer_body["degraded"]
        assert answer_body["policy_version"] == place.bento.digest[:12]
        for ad in answer_body["ads"]:
            row = logged[ad["impression_id"]]
            assert (row["ad_id"], row["propensity"]) == (ad["ad_id"], ad["propensity"])
            assert row["arm"] == "stable"


def test_a_known_user_is_known(place: Place, address: str) -> None:
    """The online features came from the snapshot: users with and without history differ."""
    with httpx.Client(base_url=address) as client:
        users = [f"u{number:02d}" for number in range(20)]
        known = {slate(client, 1000, user).json()["ads"][0]["p_click"] for user in users}
        unknown = {
            ad["ad_id"]: ad["p_click"]
            for user in ("x1", "x2", "x3", "x4", "x5", "x6")
            for ad in slate(client, 1001, user).json()["ads"]
        }
    assert len(known) >= 10
    assert len(unknown) <= 12


def test_a_retry_gets_the_slate_that_it_missed(place: Place, address: str) -> None:
    with httpx.Client(base_url=address) as client:
        known = {"event_time": time.time_ns() // 1000}
        bodies = [body(1100 + number, f"u{number:02d}") | known for number in range(20)]
        first, again = (
            [client.post("/v1/slate", json=one).json() for one in bodies] for _ in range(2)
        )
    assert first == again
    assert len({tuple(ad["ad_id"] for ad in one["ads"]) for one in first}) > 5


def test_a_reported_behaviour_reaches_the_deployed_store(
    place: Place, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", str(place.home))
    assert (snapshot_of(place.home, place.bento) / "snapshot.json").exists()
    event = {"kind": "behaviour", "event_id": "b1", "user_id": "newcomer", "ad_id": "a1"}
    reported = [event | {"category_id": "c", "action": "cart"}, event]
    answer = httpx.post(f"{address}/v1/events", json={"events": reported}).json()
    assert (answer["accepted"], answer["refused"][0]["reason"]) == (1, "schema")
    done = CliRunner().invoke(cli.app, ["stream", "consume", "--until-idle", "1"])
    assert done.exit_code == 0, done.output
    (redis,) = [record for record in processes.recorded(place.home) if record.name == "redis"]
    store = online_store(place.bento, redis.address)
    try:
        now = time.time_ns() // 1000
        assert store.read(["newcomer"], now).history_length.tolist() == [1]
    finally:
        store.close()


def test_deploying_the_same_again_changes_nothing(place: Place, address: str) -> None:
    before = processes.running(place.home)
    again = deploy(place.home, place.bento, place.online, LIMITS, None)
    assert again.address == address
    assert processes.running(place.home) == before


def named(bento: Bento, beside: Bento | None = None) -> artefacts.Bentos:
    stable = artefacts.Built(bento.tag, bento.digest, 1)
    canary = artefacts.Built(beside.tag, beside.digest, 2) if beside else None
    return artefacts.Bentos("ad_ranker_simulator", stable, canary)


def test_the_job_deploys_what_the_file_names(
    place: Place, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", str(place.home))
    named(place.bento).write(tmp_path / "bento.json")
    deploy_job.main(tmp_path / "bento.json", place.online, PARAMS, tmp_path / "deployed.json")
    assert Deployed.read(tmp_path / "deployed.json").address == address
    with pytest.raises(ArtefactError, match=r"none\.json"):
        deploy_job.main(tmp_path / "none.json", place.online, PARAMS, tmp_path / "deployed.json")
    with pytest.raises(ServiceError, match="no Bento 'ad_ranker:zzz'"):
        find_bento("ad_ranker:zzz", place.home)


def test_other_limits_are_another_instance_of_the_same_bento(
    place: Place, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", str(place.home))
    named(place.bento).write(tmp_path / "bento.json")
    (tmp_path / "params.yaml").write_text(
        PARAMS.read_text().replace("future_tolerance_seconds: 60", "future_tolerance_seconds: 7200")
    )
    hour = {"event_time": time.time_ns() // 1000 + 3_600_000_000}
    found = []
    with httpx.Client(base_url=address) as client:
        for params in (PARAMS, tmp_path / "params.yaml", PARAMS):
            deploy_job.main(
                tmp_path / "bento.json", place.online, params, tmp_path / "deployed.json"
            )
            version = client.get("/v1/version").json()["digest"]
            answer = client.post("/v1/slate", json=body(5, "u00") | hour)
            found.append((answer.status_code, version))
    digest = place.bento.digest
    assert found == [(400, digest), (200, digest), (400, digest)]
    names = {name for name in processes.running(place.home) if name.startswith("ranker")}
    assert names == {placed("stable", 100.0, place.bento).server}


def test_without_redis_slates_are_degraded_and_come_back(place: Place, address: str) -> None:
    with httpx.Client(base_url=address) as client:
        (redis,) = [record for record in processes.recorded(place.home) if record.name == "redis"]
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            started = time.perf_counter()
            answer = slate(client, 2000).json()
            assert time.perf_counter() - started < 5
            assert answer["degraded"]
            assert len(answer["ads"]) == 3
        finally:
            os.kill(redis.pid, signal.SIGCONT)
        assert whole_again(client, 2001)


def whole_again(client: httpx.Client, first: int) -> bool:
    """Whether slates have their online features within 5 s."""
    for number in range(50):
        if not slate(client, first + number).json()["degraded"]:
            return True
        time.sleep(0.1)
    return False


def test_a_redis_that_was_killed_comes_back_where_it_was(
    place: Place, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "REDIS_PORT", processes.free_port())  # it got another one then
    (redis,) = [record for record in processes.recorded(place.home) if record.name == "redis"]
    os.kill(redis.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(redis.pid)], timeout=10.0)
    with httpx.Client(base_url=address) as client:
        assert slate(client, 2100).json()["degraded"]
        assert ensure_redis(place.home, None) == redis.address
        assert whole_again(client, 2101)


def test_a_canary_takes_its_users_and_is_rolled_back(place: Place, address: str) -> None:
    canary(place.home, place.other, place.online, LIMITS, None, percent=25)
    users = [f"u{number:02d}" for number in range(60)]
    percents = {"canary": 25.0, "stable": 75.0}
    versions = {"canary": place.other.digest[:12], "stable": place.bento.digest[:12]}
    with httpx.Client(base_url=address) as client:
        for number, user in enumerate(users):
            answer = slate(client, 3000 + number, user)
            mine = arm(user, SALT, percents)
            assert answer.headers["X-Arm"] == mine
            assert answer.json()["policy_version"] == versions[mine]
    assert {one.arm for one in current(place.home)} == {"canary", "stable"}
    roll_back(place.home, None)
    assert current(place.home) == (placed("stable", 100.0, place.bento),)
    with httpx.Client(base_url=address) as client:
        found = {slate(client, 4000, user).json()["policy_version"] for user in users}
    assert found == {place.bento.digest[:12]}


def test_champion_and_challenger_are_deployed_and_a_canary_keeps_its_users(
    place: Place, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the job, behind the real edge; each step twice, since a retry changes nothing."""
    monkeypatch.setenv("ROIFLOW_HOME", str(place.home))
    users = [f"u{number:02d}" for number in range(60)]

    def arms_of_users() -> dict[str, tuple[str, str]]:
        with httpx.Client(base_url=address) as client:
            answers = {user: slate(client, 5000, user) for user in users}
        return {
            user: (answer.headers["X-Arm"], answer.json()["policy_version"])
            for user, answer in answers.items()
        }

    def job(bento: Bento, beside: Bento | None = None) -> tuple[Placed, ...]:
        named(bento, beside).write(tmp_path / "bento.json")
        for _ in range(2):
            deploy_job.main(
                tmp_path / "bento.json", place.online, PARAMS, tmp_path / "deployed.json"
            )
        return current(place.home)

    canary(place.home, place.other, place.online, LIMITS, None, percent=25)
    before = arms_of_users()
    kept = (placed("canary", 25.0, place.other), placed("stable", 75.0, place.third))
    assert job(place.third, place.other) == kept
    after = arms_of_users()
    assert {user: name for user, (name, _) in after.items()} == {
        user: name for user, (name, _) in before.items()
    }
    versions = {"canary": place.other.digest[:12], "stable": place.third.digest[:12]}
    assert all(version == versions[name] for name, version in after.values())
    assert {name for name, _ in after.values()} == {"canary", "stable"}
    running = {name for name in processes.running(place.home) if name.startswith("ranker")}
    assert running == {one.server for one in kept}
    assert job(place.other) == (placed("stable", 100.0, place.other),)
    assert {version for _, version in arms_of_users().values()} == {place.other.digest[:12]}
    # A challenger that is new begins with a small share; one that is on trial no more has none.
    small = 100 * SHIPPED.canary.start_share
    assert job(place.bento, place.third) == (
        placed("canary", small, place.third),
        placed("stable", 100 - small, place.bento),
    )
    assert job(place.bento) == (placed("stable", 100.0, place.bento),)


def test_a_switch_loses_no_slate_and_ends_the_old_instance(place: Place, address: str) -> None:
    import threading

    faults: list[str] = []
    done = threading.Event()

    def load() -> None:
        number = 10_000
        while not done.is_set():
            number += 1
            transport = httpx.HTTPTransport(retries=2)
            with httpx.Client(base_url=address, transport=transport) as client:
                answer = slate(client, number)
                if answer.status_code != 200:
                    faults.append(answer.text)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        deploy(place.home, place.other, place.online, LIMITS, None)
    finally:
        done.set()
        thread.join()
    assert not faults
    names = {name for name in processes.running(place.home) if name.startswith("ranker")}
    assert names == {placed("stable", 100.0, place.other).server}
    assert httpx.get(f"{address}/v1/version").json()["digest"] == place.other.digest


def test_the_old_instance_sealed_its_log(place: Place) -> None:
    """After the switch above; only the running instance's segment is open."""
    paths = served_log.segments(place.home / "served")
    assert [path.suffix for path in paths].count(".open") == 1
