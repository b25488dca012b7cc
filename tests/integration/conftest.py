"""Servers that many tests share: each is started once, and a test takes a part of its own."""

from collections.abc import Callable, Iterator

import pytest

from tests.brokers import ObjectStore
from tests.databases import Database, mariadb, postgresql

NewBucket = Callable[[], str]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Database]:
    """Take a schema of your own: `new_schema`."""
    with postgresql() as found:
        yield found


@pytest.fixture(scope="session")
def mysql() -> Iterator[Database]:
    """MariaDB. Take a schema of your own: `new_schema`."""
    with mariadb() as found:
        yield found


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server."""
    store = ObjectStore(tmp_path_factory.mktemp("s3"))
    yield store
    store.stop()


@pytest.fixture
def new_bucket(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> NewBucket:
    """Makes an empty bucket, for which this process has the address and the keys; its name."""
    objects.use(monkeypatch)
    return objects.new_bucket
