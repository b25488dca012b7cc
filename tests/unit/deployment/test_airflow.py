"""Airflow's API as the demo uses it, against a small server of its own."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from roiflow.deployment import airflow
from roiflow.deployment.airflow import Airflow, RunState, TaskState
from roiflow.errors import ServiceError

DAG = "weekly_training"
RUN = "manual__2026-11-28T07:59:06+00:00"
QUOTED = "manual__2026-11-28T07%3A59%3A06%2B00%3A00"
PLACE = f"/api/v2/dags/{DAG}/dagRuns/{QUOTED}"


@dataclass
class Answers:
    """What the server says to a method and path, one after the other; the last again and again."""

    given: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, Any, str]] = field(default_factory=list)

    def take(self, what: str) -> tuple[int, Any]:
        waiting = self.given.get(what, [(404, {"detail": "not there"})])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@pytest.fixture
def answers() -> Answers:
    return Answers({"POST /auth/token": [(201, {"access_token": "abc"})]})


@pytest.fixture
def client(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            size = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(size) or "null")
            what = f"{self.command} {self.path}"
            answers.asked.append((what, body, self.headers.get("authorization", "")))
            status, content = answers.take(what)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "POST", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.answer)
    monkeypatch.setattr(airflow, "PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Airflow(f"http://127.0.0.1:{server.server_port}", "admin", "secret") as opened:
            yield opened
        server.shutdown()
        thread.join()


def task(name: str, state: str | None, start: str | None, duration: float | None) -> dict[str, Any]:
    return {"task_id": name, "state": state, "start_date": start, "duration": duration}


def test_a_run_is_triggered_with_the_form_s_values(client: Airflow, answers: Answers) -> None:
    answers.given[f"POST /api/v2/dags/{DAG}/dagRuns"] = [(200, {"dag_run_id": RUN})]
    assert client.trigger(DAG, {"week": "2026-W04"}) == RUN
    login, (_, body, authorization) = answers.asked
    assert login[1] == {"username": "admin", "password": "secret"}
    assert body == {"logical_date": None, "conf": {"week": "2026-W04"}}
    assert authorization == "Bearer abc"


def test_a_run_is_followed_to_its_end(client: Airflow, answers: Answers) -> None:
    start, end = "2026-11-28T07:59:00Z", "2026-11-28T08:00:30Z"
    behind = task("validate", "upstream_failed", None, None)
    answers.given[f"GET {PLACE}"] = [
        (200, {"state": "queued", "start_date": None, "end_date": None}),
        (200, {"state": "failed", "start_date": start, "end_date": end}),
    ]
    answers.given[f"GET {PLACE}/taskInstances"] = [
        (200, {"task_instances": [task("ingest", None, None, None)]}),
        (200, {"task_instances": [behind, task("ingest", "failed", start, 12.5)]}),
    ]
    seen: list[RunState] = []
    last = client.follow(DAG, RUN, seen.append)
    assert [(run.state, run.seconds) for run in seen] == [("queued", 0.0), ("failed", 90.0)]
    assert last.tasks == (
        TaskState("ingest", "failed", 12.5),
        TaskState("validate", "upstream_failed", 0.0),
    )
    assert last.named("failed") == ["ingest"]
    assert client.page(DAG, RUN, "ingest") == (
        f"{client.address}/dags/{DAG}/runs/{QUOTED}/tasks/ingest"
    )


def test_a_task_s_own_words_are_read_where_it_left_some(client: Airflow, answers: Answers) -> None:
    words = "UnknownWeek: week 2026-W54"
    path = f"GET {PLACE}/taskInstances/prepare/xcomEntries/reason"
    answers.given[path] = [(200, {"value": words})]
    assert client.reason(DAG, RUN, "prepare") == words
    assert client.reason(DAG, RUN, "ingest") is None


def test_a_dag_that_cannot_be_imported_is_said_with_its_error(
    client: Airflow, answers: Answers
) -> None:
    broken = {"filename": "weekly_training.py", "stack_trace": "Traceback\nKeyError: 'ingest'\n"}
    answers.given["GET /api/v2/importErrors"] = [
        (200, {"import_errors": []}),
        (200, {"import_errors": [broken]}),
    ]
    said = r"weekly_training\.py: Airflow cannot import it: KeyError: 'ingest'"
    with pytest.raises(ServiceError, match=said):
        client.wait_for(DAG)
    answers.given["GET /api/v2/importErrors"] = [(200, {"import_errors": []})]
    with pytest.raises(ServiceError, match="no DAG weekly_training after 0 s"):
        client.wait_for(DAG, seconds=0.0)
    answers.given[f"GET /api/v2/dags/{DAG}"] = [(200, {})]
    client.wait_for(DAG)


def test_a_refusal_and_a_server_that_is_gone_are_said(client: Airflow) -> None:
    with pytest.raises(ServiceError, match=r"/api/v2/dags/nowhere: 404 .*not there"):
        client.unpause("nowhere")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9/auth/token: Airflow does not answer"):
        Airflow("http://127.0.0.1:9", "admin", "secret")
