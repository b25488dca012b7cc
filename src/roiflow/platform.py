"""The whole platform on this machine: up, down, status."""

import json
from collections.abc import Callable
from pathlib import Path

from roiflow.deployment import local, placed, processes, release
from roiflow.deployment.processes import Running
from roiflow.deployment.start_page import write_start_page
from roiflow.settings import Settings

AIRFLOW_PORT, MLFLOW_PORT, EVIDENTLY_PORT = 8080, 5000, 8000
"""Preferred ports; a taken one gives way to a free one."""

Progress = Callable[[float, str], None]


def up(
    settings: Settings, repository: Path, progress: Progress = lambda _, __: None
) -> dict[str, Running]:
    """Start what does not run: Redis, the deployed service, the stream, MLflow, Evidently, Airflow.

    A second call starts nothing. Before the first deployment the service answers 503. Raises
    ServiceError with the log's tail where a server does not start; what had started stays up, and
    `down` ends it.
    """
    home = settings.home.absolute()
    progress(0.0, "Redis")
    url = release.ensure_redis(home, settings.redis_url)
    progress(0.1, "slate service, start page")
    release.serve(home, placed.current(home), url)
    progress(0.15, "stream")
    _start_stream(settings, home, repository, url)
    there = processes.running(home)
    progress(0.2, "MLflow, Evidently")
    servers = [
        local.mlflow(home, settings.registry_uri, _port(there, "mlflow", MLFLOW_PORT)),
        local.evidently(home / "evidently", _port(there, "evidently", EVIDENTLY_PORT)),
    ]
    processes.start(servers, home)
    progress(0.4, "Airflow")
    _start_airflow(home, repository, _port(there, "airflow-api-server", AIRFLOW_PORT))
    write_start_page(settings)
    progress(1.0, "up")
    return status(settings)


def _start_stream(settings: Settings, home: Path, repository: Path, redis_url: str) -> None:
    """The consumer; where a broker is named, what sends it the served log as well."""
    commands, environment = ["consume"], {"ROIFLOW_REDIS_URL": redis_url}
    if settings.kafka:
        commands, environment["ROIFLOW_KAFKA"] = ["consume", "forward"], settings.kafka
    processes.start(
        [local.stream(home, repository, command, environment) for command in commands], home
    )


def _port(there: dict[str, Running], name: str, preferred: int) -> int:
    if name in there:
        return int(there[name].address.rsplit(":", 1)[1])
    return processes.free_port(preferred)


def _start_airflow(home: Path, repository: Path, port: int) -> None:
    environment = airflow_environment(home, repository, port)
    servers = local.airflow(environment, port)
    if any(server.name not in processes.running(home) for server in servers):
        local.migrate_airflow(environment)
        processes.start(servers, home)


def airflow_environment(home: Path, repository: Path, port: int) -> dict[str, str]:
    """The platform's Airflow: its own home under `home`, the repository's DAGs."""
    places = {"ROIFLOW_HOME": str(home.absolute())}
    return local.airflow_environment(home / "airflow", repository / "dags", port) | places


def airflow_password(home: Path) -> tuple[str, str] | None:
    """User and generated password of the Airflow UI, once it has started."""
    path = home.absolute() / "airflow" / "simple_auth_manager_passwords.json.generated"
    if not path.exists():
        return None
    user, password = next(iter(json.loads(path.read_text()).items()))
    return str(user), str(password)


def status(settings: Settings) -> dict[str, Running]:
    """What runs, by name."""
    return processes.running(settings.home.absolute())


def down(settings: Settings) -> list[str]:
    """End exactly what was started from this home; the names of what ran."""
    return processes.stop_all(settings.home.absolute())
