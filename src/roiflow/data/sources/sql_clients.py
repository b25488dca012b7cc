"""The database drivers: a query in, Arrow record batches out.

PostgreSQL comes through ADBC, whose driver copies binary rows straight into Arrow, batch by batch,
inside one read-only repeatable-read transaction, so that a week's tables agree with each other.

MySQL comes through connectorx (`return_type="arrow"`), since no package index has an ADBC driver
for it. Each query is a connection of its own there, so a week's tables may differ by what commits
in between, and a result is in memory once before it is cast, column by column. Its driver keeps
trying for 30 seconds before it gives up on a wrong password, and says so on stderr, without it.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pyarrow as pa

from roiflow.data.sources.sql_address import Address
from roiflow.data.sources.sql_columns import Dialect
from roiflow.data.sources.sql_dialects import MySQL, PostgreSQL
from roiflow.errors import SourceError

Read = Callable[[str], Iterator[pa.RecordBatch]]
SECONDS = 10.0
"""How long to wait for a server that does not answer."""


def dialect_of(address: Address) -> Dialect:
    """How to write for this database."""
    return PostgreSQL() if address.dialect == "postgresql" else MySQL()


@contextmanager
def connect(address: Address) -> Iterator[Read]:
    """A read-only session. Raises SourceError, naming the place and the driver's reason."""
    opened = _postgresql if address.dialect == "postgresql" else _mysql
    with opened(address) as read:
        yield read


def _fault(address: Address, error: Exception) -> SourceError:
    return SourceError(f"source sql: {address.where}: {address.clean(str(error))}")


@contextmanager
def _postgresql(address: Address) -> Iterator[Read]:
    import adbc_driver_manager
    from adbc_driver_postgresql import dbapi

    faults = (adbc_driver_manager.Error, pa.ArrowException, OSError)

    def read(query: str) -> Iterator[pa.RecordBatch]:
        try:
            with closing(connection.cursor()) as cursor:
                cursor.execute(query)
                yield from cursor.fetch_record_batch()
        except faults as error:
            raise _fault(address, error) from None

    try:
        connection = dbapi.connect(address.uri)
    except faults as error:
        raise _fault(address, error) from None
    with closing(connection):
        # Before any query, as PostgreSQL wants it. In UTC, because weeks and texts of times follow
        # the session. Literals double their quotes and escape nothing else. `list` runs what a
        # generator would put off.
        list(read("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        list(read("SET TIME ZONE 'UTC'"))
        list(read("SET standard_conforming_strings = on"))
        yield read


@contextmanager
def _mysql(address: Address) -> Iterator[Read]:
    import connectorx

    def read(query: str) -> Iterator[pa.RecordBatch]:
        # With every query, since each is a connection of its own.
        before = ["SET time_zone = '+00:00'", "SET SESSION TRANSACTION READ ONLY"]
        try:
            rows = connectorx.read_sql(
                address.uri, query, return_type="arrow", pre_execution_query=before
            )
        except RuntimeError as error:
            raise _fault(address, error) from None
        yield from rows.to_batches()

    try:  # the driver would try for half a minute
        socket.create_connection((address.host, address.port), SECONDS).close()
    except OSError as error:
        raise _fault(address, error) from None
    yield read
