"""The whole platform on this machine: up, down, status."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from roiflow.deployment import local, placed, processes, release
from roiflow.deployment.airflow import Airflow
from roiflow.deployment.processes import Running, Server
from roiflow.deployment.start_page import write_start_page
from roiflow.deployment.state import airflow_password
from roiflow.errors import ServiceError
from roiflow.settings import Settings

AIRFLOW_PORT, MLFLOW_PORT, EVIDENTLY_PORT = 8080, 5000, 8000
"""Preferred ports; a taken one gives way to a free one."""

API_SERVER, SCHEDULER = "airflow-api-server", "airflow-scheduler"

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
    there = processes.running(home)
    port = processes.port_of(API_SERVER, home, AIRFLOW_PORT)
    environment = airflow_environment(home, repository, port)
    airflow = local.airflow(environment, port)
    # Airflow's database takes longest, and nothing but Airflow needs it: it is made beside Redis
    # and the service. A database that is served already is as new as the code that serves it.
    with ThreadPoolExecutor(1) as aside:
        new = any(server.name not in there for server in airflow)
        migrated = aside.submit(local.migrate_airflow, environment) if new else None
        progress(0.0, "Redis, Airflow's database")
        url = release.ensure_redis(home, settings.redis_url)
        progress(0.1, "slate service, start page")
        release.serve(home, placed.current(home), url)
        write_start_page(settings)
        if migrated:
            migrated.result()
    progress(0.3, "Airflow, MLflow, Evidently, the stream")
    mlflow_port = processes.port_of("mlflow", home, MLFLOW_PORT)
    mlflow = local.mlflow(home, settings.registry_uri, mlflow_port)
    pages = local.evidently(
        home / "evidently", processes.port_of("evidently", home, EVIDENTLY_PORT)
    )
    others = [local.warm(home), *_stream(settings, home, repository, url)]
    processes.start([*airflow, mlflow, pages, *others], home)
    write_start_page(settings)
    progress(1.0, "up")
    return status(settings)


def _stream(settings: Settings, home: Path, repository: Path, redis_url: str) -> list[Server]:
    """The consumer; where a broker is named, what sends it the served log as well."""
    commands, environment = ["consume"], {"ROIFLOW_REDIS_URL": redis_url}
    if settings.kafka:
        commands, environment["ROIFLOW_KAFKA"] = ["consume", "forward"], settings.kafka
    return [local.stream(home, repository, command, environment) for command in commands]


def airflow_environment(home: Path, repository: Path, port: int) -> dict[str, str]:
    """The platform's Airflow: its own home under `home`, the repository's DAGs."""
    places = {"ROIFLOW_HOME": str(home.absolute())}
    return local.airflow_environment(home / "airflow", repository / "dags", port) | places


def open_airflow(settings: Settings) -> Airflow:
    """The running Airflow's API. Raises ServiceError where it does not run."""
    api, login = status(settings).get(API_SERVER), airflow_password(settings.home)
    if api is None or login is None:
        raise ServiceError(f"{settings.home.absolute()}: no Airflow runs here: roiflow up")
    return Airflow(api.address, *login)


def require_same_places(settings: Settings) -> None:
    """Raises ServiceError where a running scheduler has other places than this environment names.

    Its tasks would read another database or registry. A folder is handed to each run instead.
    """
    scheduler = status(settings).get(SCHEDULER)
    if scheduler is None:
        return
    theirs = psutil.Process(scheduler.pid).environ()
    names = {f"ROIFLOW_{name.upper()}" for name in Settings.model_fields}
    own = (names - {"ROIFLOW_HOME", "ROIFLOW_DATA_FOLDER"}) & os.environ.keys()
    if other := sorted(name for name in own if os.environ[name] != theirs.get(name)):
        raise ServiceError(
            f"the running Airflow was started with another {other[0]} than is set now: "
            "roiflow down, then again"
        )


def addresses(settings: Settings) -> dict[str, str]:
    """Name and address of what runs, the user and password of Airflow's UI beside it."""
    found = airflow_password(settings.home)
    notes = {API_SERVER: f"  user {found[0]}, password {found[1]}" if found else ""}
    running = sorted(status(settings).items())
    return {name: f"{one.address}{notes.get(name, '')}" for name, one in running}


def status(settings: Settings) -> dict[str, Running]:
    """What runs, by name."""
    return processes.running(settings.home.absolute())


def down(settings: Settings) -> list[str]:
    """End exactly what was started from this home; the names of what ran."""
    return processes.stop_all(settings.home.absolute())
