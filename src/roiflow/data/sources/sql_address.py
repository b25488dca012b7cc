"""Where a database is, without its password.

A URI carries the password, so nothing but this file and the client's file holds one. Errors name
`Address.where`, and what a driver says passes through `Address.clean` first: libpq repeats parts of
a URI that it cannot read.
"""

from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from pydantic import SecretStr

from roiflow.errors import SourceError

DIALECTS = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
"""Scheme of a URI to the protocol; Airflow writes postgres, for one."""
PORTS = {"postgresql": 5432, "mysql": 3306}
AIRFLOW_EXTRA = "__extra__"
HIDDEN = "***"
FORM = (
    "source sql: ROIFLOW_SQL is not of the form postgresql://user:password@host:port/database "
    "(or mysql://...), the password percent-encoded"
)


@dataclass(frozen=True)
class Address:
    """A parsed URI: postgresql://user:password@host:port/database?key=value."""

    dialect: str
    host: str
    """A name, an address or, of PostgreSQL, the folder of a socket."""
    port: int
    database: str
    uri: str = field(repr=False)
    """As the driver wants it, with the password."""
    secrets: tuple[str, ...] = field(repr=False)
    """Texts that no message may hold, longest first."""

    @property
    def where(self) -> str:
        """What errors call it: host:port/database."""
        return f"{self.host}:{self.port}/{self.database}"

    def clean(self, message: str) -> str:
        """The first line of a driver's message, without the password."""
        for secret in self.secrets:
            message = message.replace(secret, HIDDEN)
        return message.strip().splitlines()[0].strip() if message.strip() else "no reason given"


def parse_address(uri: SecretStr) -> Address:
    """Raises SourceError, without any part of the URI, where it is not one of a known database."""
    text = uri.get_secret_value()
    try:
        parts = urlsplit(text)
        dialect, port = DIALECTS[parts.scheme], parts.port
        query = [pair for pair in parse_qsl(parts.query, True, True) if pair[0] != AIRFLOW_EXTRA]
    except (KeyError, ValueError):
        raise SourceError(FORM) from None
    # A password that is not percent-encoded would be read as a host, and named as one.
    if parts.fragment or text.count("@") != parts.netloc.count("@") or text.count("@") > 1:
        raise SourceError(FORM)
    options = dict(query)
    return Address(
        dialect,
        unquote(parts.hostname or "") or options.get("host", "localhost"),
        port or PORTS[dialect],
        unquote(parts.path.removeprefix("/")),
        _driver_uri(parts, dialect, query),
        _secrets(text, parts, options),
    )


def _driver_uri(parts: SplitResult, dialect: str, query: list[tuple[str, str]]) -> str:
    """With the scheme that the driver knows and, for PostgreSQL, an end to waiting."""
    if dialect == "postgresql" and "connect_timeout" not in dict(query):
        query = [*query, ("connect_timeout", "10")]
    encoded = urlencode(query, quote_via=quote)
    return parts._replace(scheme=dialect, query=encoded, fragment="").geturl()


def _secrets(text: str, parts: SplitResult, options: dict[str, str]) -> tuple[str, ...]:
    # As written, decoded and encoded anew: a driver may repeat any of them. Longest first, so that
    # the whole URI goes before the password within it.
    passwords = {parts.password or "", options.get("password", "")}
    found = {
        form for one in passwords for form in (one, unquote(one), quote(unquote(one), "")) if form
    }
    return tuple(sorted({text, *found}, key=len, reverse=True))
