"""Where things are, from the environment (prefix ROIFLOW_): places, never numbers."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once at the edge: by `stages/`, `jobs/`, `cli/` and `bentos/` only."""

    model_config = SettingsConfigDict(env_prefix="ROIFLOW_", extra="ignore")

    home: Path = Path(".roiflow")
    """Folder of everything that outlives one run: lake, registry database, run checkouts, logs.

    To a command a relative one is in the repository, whichever folder the command is called from.
    """

    data_folder: str | None = None
    """Path or URL of the folder of a source's own files (kuairand, open_bandit, files, stream)."""

    sql: SecretStr | None = None
    """URI of the source sql's database, password included."""

    redis_url: str | None = None
    """A Redis server; None starts or uses the embedded one."""

    limits: Path | None = None
    """The file of what the slate service's door takes; written and named where it is deployed."""

    kafka: str | None = None
    """Kafka's bootstrap servers, such as 127.0.0.1:9092; None takes events from the served log."""

    spark: str = "local[*]"
    """Spark's master."""

    mlflow_uri: str | None = None
    """The MLflow tracking and registry store; None is a sqlite file under `home`."""

    @property
    def lake(self) -> Path:
        """Published weeks: <lake>/<source>/<table>/week=YYYY-Www/part-0.parquet."""
        # From the root on, here and below: stages and jobs run in a checkout, commands in the
        # repository.
        return self.home.absolute() / "lake"

    @property
    def runs(self) -> Path:
        """One checkout per weekly run."""
        return self.home.absolute() / "runs"

    @property
    def logs(self) -> Path:
        """Logs of local servers."""
        return self.home.absolute() / "logs"

    @property
    def served(self) -> Path:
        """The served-event log."""
        return self.home.absolute() / "served"

    @property
    def stream(self) -> Path:
        """The consumer's journal and dead letters; how far the served log was sent to Kafka."""
        return self.home.absolute() / "stream"

    @property
    def registry_uri(self) -> str:
        """MLflow's store."""
        return self.mlflow_uri or f"sqlite:///{self.home.absolute() / 'mlflow.db'}"


_SECRET = re.compile(r"ROIFLOW_SQL$|_?AIRFLOW_", re.IGNORECASE)
"""Names of variables with a database's password, and with Airflow's connections and keys."""


_LOGIN = re.compile(
    r"(?:ROIFLOW_(?:MLFLOW_URI|REDIS_URL)|AWS_(?:SECRET_ACCESS_KEY|SESSION_TOKEN)"
    r"|MLFLOW_TRACKING_(?:PASSWORD|TOKEN))$",
    re.IGNORECASE,
)
"""Names of variables that say where a server or a bucket is and how one is let in."""


def without_logins(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that reads files and writes files, and asks no server."""
    return {name: value for name, value in variables.items() if not _LOGIN.match(name)}


def without_login(address: str) -> str:
    """A server's or database's address as it may be shown: no user, no password."""
    # Up to the last @: a password may have one in it.
    return re.sub(r"(?<=://).*@", "", address)


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that needs neither the source's database nor Airflow's keys."""
    return {name: value for name, value in variables.items() if not _SECRET.match(name)}


def is_url(place: str) -> bool:
    """Whether a place is a URL, such as s3://bucket/prefix, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def absolute(place: str) -> str:
    """A path from the root on; a URL as it is."""
    return place if is_url(place) else str(Path(place).absolute())
