"""Airflow's REST API v2: trigger a run, follow it, read what its tasks said of themselves."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from roiflow.errors import ServiceError

REASON = "reason"
"""XCom in which a task says in one line why it failed or was skipped."""

ENDED = ("success", "failed")
PAUSE = 1.0
"""Seconds between two looks at a run."""

PARSE_SECONDS = 120.0
"""The DAG processor has so long to bring a DAG file in."""


@dataclass(frozen=True)
class TaskState:
    """One task of a run, as it is now."""

    name: str
    state: str
    """Of Airflow's words; empty before it is scheduled."""
    seconds: float
    """Of the last try; 0 where it has not run."""


@dataclass(frozen=True)
class RunState:
    """One run of a DAG, as it is now."""

    run_id: str
    state: str
    seconds: float
    """From its start to its end, or until now."""
    tasks: tuple[TaskState, ...]
    """In the order in which they started; those that did not are last."""

    @property
    def ended(self) -> bool:
        """Whether nothing will run any more."""
        return self.state in ENDED

    def named(self, state: str) -> list[str]:
        """The tasks in a state."""
        return [task.name for task in self.tasks if task.state == state]


class Airflow:
    """One Airflow, as a user of its API. Every method raises ServiceError where it refuses."""

    def __init__(self, address: str, user: str, password: str) -> None:
        self.address = address
        # A proxy of the environment is for the world outside, not for a server of this machine.
        self._client = httpx.Client(base_url=address, timeout=30.0, trust_env=False)
        login = {"username": user, "password": password}
        token = self._call("POST", "/auth/token", login)["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> "Airflow":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def wait_for(self, dag: str, seconds: float = PARSE_SECONDS) -> None:
        """Return once the DAG is known. Raises ServiceError with its import error, or in time."""
        limit = time.monotonic() + seconds
        # A DAG that does not import never becomes known: its error is looked for each time, so that
        # a typo is said at once and not after the whole wait.
        while self._status(f"/api/v2/dags/{dag}") != 200:
            if errors := self._call("GET", "/api/v2/importErrors")["import_errors"]:
                last = errors[0]["stack_trace"].strip().splitlines()[-1]
                raise ServiceError(f"{errors[0]['filename']}: Airflow cannot import it: {last}")
            if time.monotonic() > limit:
                raise ServiceError(f"{self.address}: no DAG {dag} after {seconds:g} s")
            time.sleep(PAUSE)

    def unpause(self, dag: str) -> None:
        """Let the DAG's runs start."""
        self._call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})

    def trigger(self, dag: str, conf: Mapping[str, str]) -> str:
        """Start a run with these values of the form, the others as they stand; its id."""
        # Without a logical date a DAG may be triggered any number of times; the key has to be
        # there.
        body = {"logical_date": None, "conf": dict(conf)}
        run_id: str = self._call("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"]
        return run_id

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """The DAG's runs as the API tells them, newest first."""
        path = f"/api/v2/dags/{dag}/dagRuns?order_by=-run_after"
        found: list[dict[str, Any]] = self._call("GET", path)["dag_runs"]
        return found

    def state(self, dag: str, run_id: str) -> RunState:
        """What a run and its tasks are doing now."""
        run = self._call("GET", _run(dag, run_id))
        listed = self._call("GET", f"{_run(dag, run_id)}/taskInstances")["task_instances"]
        listed.sort(key=lambda task: (task["start_date"] is None, task["start_date"] or ""))
        tasks = tuple(
            TaskState(task["task_id"], task["state"] or "", float(task["duration"] or 0.0))
            for task in listed
        )
        return RunState(run_id, run["state"], _seconds(run["start_date"], run["end_date"]), tasks)

    def reason(self, dag: str, run_id: str, task: str) -> str | None:
        """What a task said why it failed or was skipped; None where it said nothing."""
        path = f"{_run(dag, run_id)}/taskInstances/{task}/xcomEntries/{REASON}"
        return str(self._call("GET", path)["value"]) if self._status(path) == 200 else None

    def log(self, dag: str, run_id: str, task: str) -> list[str]:
        """The events of a task's first try, as its log tells them."""
        answer = self._call("GET", f"{_run(dag, run_id)}/taskInstances/{task}/logs/1")
        return [f"{line['event']}\n" for line in answer["content"] if isinstance(line, dict)]

    def follow(self, dag: str, run_id: str, show: Callable[[RunState], None]) -> RunState:
        """Show a run's state until it has ended; the last one.

        `show` may raise, where it sees that nothing runs tasks any more.
        """
        while True:
            state = self.state(dag, run_id)
            show(state)
            if state.ended:
                return state
            time.sleep(PAUSE)

    def page(self, dag: str, run_id: str, task: str = "") -> str:
        """Where a person sees the run, or the log of one of its tasks."""
        inside = f"/tasks/{task}" if task else ""
        return f"{self.address}/dags/{dag}/runs/{quote(run_id, safe='')}{inside}"

    def _status(self, path: str) -> int:
        return self._request("GET", path, None).status_code

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = self._request(method, path, body)
        if answer.status_code >= 400:
            raise ServiceError(f"{self.address}{path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"{self.address}{path}: Airflow does not answer: {type(error).__name__}: {error}"
            ) from None


def _run(dag: str, run_id: str) -> str:
    return f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}"


def _seconds(start: str | None, end: str | None) -> float:
    if start is None:
        return 0.0
    begun = datetime.fromisoformat(start)
    until = datetime.fromisoformat(end) if end else datetime.now(begun.tzinfo)
    return (until - begun).total_seconds()
