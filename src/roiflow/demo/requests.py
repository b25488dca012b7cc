"""Requests to the deployed service, of users of the week that was trained on."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from rich.table import Table

from roiflow import columns as c
from roiflow.artefacts.run import Deployed
from roiflow.data.weeks import Week
from roiflow.demo.weeks import WeekDone
from roiflow.errors import ServiceError
from roiflow.weekly.places import VALIDATED

Body = dict[str, str | int]
"""A request or an event as JSON: names, words and times, nothing nested."""


@dataclass(frozen=True)
class Answered:
    """A request, and of its slate what a user acts on."""

    request_id: str
    user_id: str
    event_time: int
    first: tuple[str, str] | None
    """Impression and ad at the top; None of an empty slate."""


@dataclass(frozen=True)
class RequestsDone:
    """Requests answered by the deployed service."""

    address: str
    answered: int
    degraded: int
    p50_ms: float
    p99_ms: float
    policy_version: str
    slates: list[Answered]


def send_requests(done: WeekDone, count: int) -> RequestsDone:
    """Ask the deployed service for slates for users of the week; raises ServiceError on a refusal.

    The requests are dated just after the week, so the answers use its online features.
    """
    import httpx

    address = done.left(Deployed).address
    # Made before the clock runs, and with new ids each time: a second demo's slates would be
    # duplicates to the stream.
    bodies = [
        body | {"request_id": f"{body['request_id']}-{time.time_ns():x}"}
        for body in request_bodies(done, count)
    ]
    latencies, degraded, version, slates = [], 0, "", []
    # One connection that stays, or each latency would have a handshake in it. A proxy of the
    # environment has no business between this machine and itself.
    with httpx.Client(base_url=address, timeout=10.0, trust_env=False) as client:
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
            slates.append(_answered(body, content["ads"]))
    p50, p99 = 1e3 * np.percentile(latencies, [50, 99])
    return RequestsDone(address, len(bodies), degraded, float(p50), float(p99), version, slates)


def _answered(body: Body, ads: list[dict[str, str]]) -> Answered:
    first = (ads[0]["impression_id"], ads[0]["ad_id"]) if ads else None
    return Answered(str(body["request_id"]), str(body["user_id"]), int(body["event_time"]), first)


def request_bodies(done: WeekDone, count: int) -> Iterator[Body]:
    """Requests of the week's users with their placement and device."""
    week = Week.parse(done.week)
    path = done.checkout / VALIDATED / "impressions" / f"week={week}" / "part-0.parquet"
    rows = pq.read_table(path, partitioning=None, columns=[c.USER, c.PLACEMENT, c.DEVICE])
    # Spread over the week, so that not all of them are of one morning's users.
    step = max(1, rows.num_rows // count)
    for number, row in enumerate(
        rows.take(list(range(0, rows.num_rows, step))[:count]).to_pylist()
    ):
        time = week.end + 1_000_000 * (number + 1)
        dated = {"event_time": time, "known_time": time}
        yield {"request_id": f"demo-{week}-{number}", **row, **dated}


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
