"""The main job: weeks of data to served slates, by real Airflow, on this machine.

Airflow's home is thrown away; everything else outlives the demo under `home`, so a second run
finds finished stages in DVC's cache, registered packages by digest, and served weeks in the lake.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from roiflow import columns as c
from roiflow.data import served_features
from roiflow.data.weeks import Week
from roiflow.demo_stream import events_table, read_so_far, report_events
from roiflow.deployment import local
from roiflow.errors import RunError, ServiceError
from roiflow.jobs.gate import PARITY
from roiflow.params import Params, load_params
from roiflow.registry import package_folder
from roiflow.run import checkout_of, job
from roiflow.settings import Settings

DAG = "weekly_training"
REQUESTS = 300
SERVED = "data/features/online"

Progress = Callable[[str], None]
Truth = dict[str, float]

_STARTED = re.compile(r"\[DAG TEST\] starting task_id=(\w+)")
_ENDED = re.compile(r"\[DAG TEST\] end task task_id=(\w+)")
_FAULT = re.compile(r"^roiflow\.errors\.\w+: (.+)$")


@dataclass(frozen=True)
class RequestsDone:
    """Requests answered by the deployed service."""

    address: str
    answered: int
    degraded: int
    p50_ms: float
    p99_ms: float
    policy_version: str
    slates: list[dict[str, Any]]
    """Requests with their answers."""


@dataclass(frozen=True)
class WeekDone:
    """One run of the DAG and what it left in its checkout."""

    week: str
    seconds: dict[str, float]
    """By task."""
    checkout: Path

    def json(self, name: str) -> dict[str, Any]:
        """A result file of the run."""
        content: dict[str, Any] = json.loads((self.checkout / name).read_text())
        return content


def demo(
    repository: Path,
    settings: Settings,
    source: str,
    week: str | None,
    further: int,
    console: Console,
) -> None:
    """Run the loop for one week and, in the simulated world, `further` ones; print what came of it.

    Raises ParamsError where the source has no last week and none is given, RunError with the
    failed task's own words, ServiceError where the service does not answer.
    """
    params = load_params(repository / "params.yaml")
    home = settings.home.absolute()
    first = Week.parse(week or last_week(params, source))
    numbers = range(1 + further if source == "simulator" else 1)
    environment = throw_away_airflow(home, repository, settings)
    done: list[WeekDone] = []
    with console.status("Airflow: create its database") as status:

        def show(what: str) -> None:
            status.update(what)

        local.migrate_airflow(environment)
        for number in numbers:
            if done:
                serve_next_week(settings, done[-1], show)
            following = first.plus(number)
            done.append(run_dag(environment, home, source, str(following), show))
            console.print(headline(done[-1]), highlight=False)
        show("requests to the served model")
        before = read_so_far(settings)
        answered = send_requests(done[-1], REQUESTS)
        show("what users did with the slates, to the stream")
        events = report_events(repository, settings, answered.address, answered.slates, before)
    console.print(seconds_table(done))
    console.print(results_table(done))
    if source == "simulator":
        with console.status("the world's own truth of each week"):
            truths = truth_by_week(params, home / "lake", first.window(params.ingest.weeks), done)
        console.print(truth_table(truths))
    console.print(requests_table(answered))
    console.print(events_table(events))
    for what, place in places(settings, done[-1], answered).items():
        console.print(f"{what:<14} {place}", soft_wrap=True, highlight=False)


def last_week(params: Params, source: str) -> str:
    """The week the demo ends with. Raises RunError where the source has none."""
    weeks = params.ingest.last_weeks
    if source not in weeks:
        raise RunError(f"source {source}: say which week to end with: --week YYYY-Www")
    return weeks[source]


def throw_away_airflow(home: Path, repository: Path, settings: Settings) -> dict[str, str]:
    """A fresh AIRFLOW_HOME and the environment of every Airflow call of this demo."""
    folder = home / "airflow-demo"
    shutil.rmtree(folder, ignore_errors=True)
    environment = local.airflow_environment(folder, repository / "dags", port=8080)
    environment |= {"ROIFLOW_HOME": str(home), "AIRFLOW__CORE__UNIT_TEST_MODE": "False"}
    if settings.data_folder:
        environment["ROIFLOW_DATA_FOLDER"] = str(settings.data_folder.absolute())
    return environment


def run_dag(
    environment: dict[str, str], home: Path, source: str, week: str, show: Progress
) -> WeekDone:
    """Run the DAG for one week. Raises RunError with the failed task's own last line."""
    log = home / "logs" / f"demo-{source}-{week}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    conf = json.dumps({"source": source, "week": week})
    command = [sys.executable, "-m", "airflow", "dags", "test", DAG, "--conf", conf]
    variables = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    show(f"{week}: start Airflow")
    seconds: dict[str, float] = {}
    fault = ""
    with (
        log.open("w") as output,
        subprocess.Popen(
            command,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        started = time.monotonic()
        for line in process.stdout or ():
            output.write(line)
            if match := _STARTED.search(line):
                started = time.monotonic()
                show(f"{week}: {match[1]}")
            elif match := _ENDED.search(line):
                spent = time.monotonic() - started
                seconds[match[1]] = seconds.get(match[1], 0.0) + spent
            elif match := _FAULT.match(line):
                fault = match[1]
    if process.returncode != 0:
        raise RunError(f"{DAG} {week}: {fault or 'the DAG run failed'} (log: {log})")
    return WeekDone(week, seconds, checkout_of(home, source, week))


def serve_next_week(settings: Settings, done: WeekDone, show: Progress) -> None:
    """Let the policy that serves after `done` produce the next week's impressions, once."""
    home = settings.home.absolute()
    digest: str = done.json("data/promoted.json")["champion"]
    week = Week.parse(done.week).plus(1)
    kept = served_features.path_of(home / "lake", "simulator", week)
    if served_by(home / "lake", week) == digest[:12] and kept.exists():
        return
    arguments = [str(package_folder(home, digest)), SERVED, "params.yaml"]
    show(f"{week}: served by policy {digest[:12]} of {done.week}")
    job(done.checkout, home, "simulate_week", arguments, lambda _: None)


def served_by(lake: Path, week: Week) -> str | None:
    """The policy version of a simulated week's own impressions, or None where none served it."""
    from roiflow.simulator.source import shown

    rows = shown(lake / "simulator", week)
    return str(rows[c.POLICY_VERSION][0]) if rows is not None and rows.num_rows else None


def send_requests(done: WeekDone, count: int) -> RequestsDone:
    """Ask the deployed service for slates for users of the week; raises ServiceError on a refusal.

    The requests are dated just after the week, so the answers use its online features.
    """
    import httpx

    address = str(done.json("data/deployed.json")["address"])
    bodies = [
        body | {"request_id": f"{body['request_id']}-{time.time_ns():x}"}
        for body in request_bodies(done, count)
    ]
    latencies, degraded, version, slates = [], 0, "", []
    with httpx.Client(base_url=address, timeout=10.0) as client:
        for body in bodies:
            started = time.perf_counter()
            answer = client.post("/v1/slate", json=body)
            latencies.append(time.perf_counter() - started)
            if answer.status_code != 200:
                raise ServiceError(
                    f"{address}/v1/slate: request {body['request_id']}: "
                    f"{answer.status_code} {answer.text}"
                )
            content = answer.json()
            degraded += content["degraded"]
            version = content["policy_version"]
            slates.append({"request": body, "answer": content})
    p50, p99 = 1e3 * np.percentile(latencies, [50, 99])
    return RequestsDone(address, len(bodies), degraded, float(p50), float(p99), version, slates)


def request_bodies(done: WeekDone, count: int) -> Iterator[dict[str, Any]]:
    """Requests of the week's users with their placement and device."""
    week = Week.parse(done.week)
    path = done.checkout / "data/validated/impressions" / f"week={week}" / "part-0.parquet"
    rows = pq.read_table(path, partitioning=None, columns=[c.USER, c.PLACEMENT, c.DEVICE])
    step = max(1, rows.num_rows // count)
    for number, row in enumerate(
        rows.take(list(range(0, rows.num_rows, step))[:count]).to_pylist()
    ):
        yield {
            "request_id": f"demo-{week}-{number}",
            **row,
            "event_time": week.end + 1_000_000 * (number + 1),
        }


def truth_by_week(
    params: Params, lake: Path, window: list[Week], done: list[WeekDone]
) -> dict[str, dict[str, Truth]]:
    """Week -> policy -> what the world says is true; `served` where a model served the week."""
    from roiflow.simulator.policies import Oracle, logging_policy, random_policy
    from roiflow.simulator.run import SlateChooser
    from roiflow.simulator.source import shown
    from roiflow.simulator.truth import expected_value_of, truth
    from roiflow.simulator.world import World

    world = World(params.ingest.simulator)
    others: dict[str, SlateChooser] = {
        "logging": logging_policy(world),
        "random": random_policy(world),
        "oracle": Oracle(world),
    }
    truths: dict[str, dict[str, Truth]] = {}
    for week in [window[-1], *(Week.parse(one.week) for one in done[1:])]:
        found = {name: expected_value_of(world, week, one)[0] for name, one in others.items()}
        rows = shown(lake / "simulator", week)
        truths[str(week)] = found | ({} if rows is None else {"served": truth(world, rows)})
    return truths


def headline(done: WeekDone) -> str:
    """One line about a finished week."""
    decision = done.json("data/gate/decision.json")
    promoted = done.json("data/promoted.json")
    outcome = f"version {promoted['version']} " + (
        f"is champion (rule: {promoted['rule']})" if promoted["promoted"] else "is not promoted"
    )
    reason = f": {decision['reason']}" if decision["reason"] else ""
    total = sum(done.seconds.values())
    return f"{done.week}: gate {decision['verdict']}{reason}; {outcome}; {total:.0f} s"


def seconds_table(done: list[WeekDone]) -> Table:
    """Seconds by task and week."""
    table = Table(title="Seconds by task")
    table.add_column("task")
    for one in done:
        table.add_column(one.week, justify="right")
    for task in done[0].seconds:
        table.add_row(task, *(f"{one.seconds.get(task, 0.0):.1f}" for one in done))
    table.add_section()
    table.add_row("all", *(f"{sum(one.seconds.values()):.1f}" for one in done))
    return table


def interval(values: dict[str, Any], name: str) -> str:
    """`value (low to high)` of a metric and its bounds; a dash where it is undefined."""
    value, low, high = (values.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "-"
    return (
        f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
    )


def results_table(done: list[WeekDone]) -> Table:
    """Prediction, estimated ROI and decision, one column a week."""
    table = Table(title="Test week by test week")
    table.add_column("")
    for one in done:
        table.add_column(one.week)
    columns = [results(one) for one in done]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def results(done: WeekDone) -> dict[str, str]:
    """What one week came to. The direct method stands in where no propensities were logged.

    A source without cost has no ROI; its line shows none.
    """
    metrics = done.json("metrics/evaluate.json")
    ranker, roi = metrics["models"]["rosa"], metrics["roi"]
    estimator = next((name for name in ("dr", "dm") if roi.get(name)), "none: no cost")
    drift = done.json("data/drift/drift.json")
    return {
        "click AUC": interval(ranker, "test_full_click_auc"),
        "conversion AUC": interval(ranker, "test_full_conversion_auc"),
        "ROI as logged": interval(roi.get("logged", {}), "roi"),
        "ROI of the policy": f"{interval(roi.get(estimator, {}), 'roi')} {estimator}",
        "served features": parity(done),
        "gate": done.json("data/gate/decision.json")["verdict"],
        "drifted columns": f"{drift['drifted_share']:.0%} of {len(drift['columns'])}",
    }


def parity(done: WeekDone) -> str:
    """Whether the week's slates were made from the features that training sees."""
    if not (done.checkout / PARITY).exists():
        return "not checked"
    report = done.json(str(PARITY))
    compared = sum(one.get("compared", 0) for one in report["packages"])
    return f"{report['verdict']}, {compared:,} slates" if compared else str(report["verdict"])


def truth_table(truths: dict[str, dict[str, Truth]]) -> Table:
    """True value and ROI by week and policy; the oracle is the best there is in value."""
    table = Table(title="True value (ROI), which only a simulated world can tell")
    policies = ("served", "logging", "random", "oracle")
    for name in ("week", *policies):
        table.add_column(name, justify="right")
    for week, found in truths.items():
        table.add_row(
            week,
            *(
                f"{found[name]['value']:,.0f} ({found[name]['roi']:.2f})" if name in found else "-"
                for name in policies
            ),
        )
    return table


def requests_table(answered: RequestsDone) -> Table:
    """What the service answered."""
    table = Table(title="Requests to the served model")
    for name in ("answered", "without online features", "p50 ms", "p99 ms", "policy"):
        table.add_column(name, justify="right")
    table.add_row(
        str(answered.answered),
        str(answered.degraded),
        f"{answered.p50_ms:.2f}",
        f"{answered.p99_ms:.2f}",
        answered.policy_version,
    )
    return table


def places(settings: Settings, done: WeekDone, answered: RequestsDone) -> dict[str, str]:
    """Where to look."""
    home = settings.home.absolute()
    return {
        "slates": f"POST {answered.address}/v1/slate",
        "weekly report": str(done.checkout / "data/report/report.html"),
        "drift report": str(done.checkout / "data/drift/drift.html"),
        "served log": str(settings.served),
        "stream": str(settings.stream),
        "registry": settings.registry_uri,
        "promotions": str(home / "promotions.jsonl"),
        "the run": str(done.checkout),
        "all the UIs": "make up",
        "end it": "make down",
    }
