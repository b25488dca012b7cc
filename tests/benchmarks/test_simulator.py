"""Generation against a loop that makes one row at a time."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from roiflow.data.schemas import BEHAVIOURS, CONVERSIONS, IMPRESSIONS
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.params import load_params
from roiflow.simulator import population as people
from roiflow.simulator.policies import logging_policy
from roiflow.simulator.run import WeekRun, nothing, run_week
from roiflow.simulator.world import World, WorldBehaviours, WorldRequests

ROOT = Path(__file__).parents[2]
WEEK = Week.parse("2026-W02")
ROUNDS = 5
Row = dict[str, object]


def row_by_row(world: World, requests: WorldRequests, past: WorldBehaviours) -> int:
    """The same steps for given visits, a row at a time; the number of events.

    Drawing the visits and the intent are left out, which favours the loop.
    """
    rng = np.random.default_rng(0)
    params, ads, users = world.params, world.ads, world.users
    logits = logging_policy(world).logits
    impressions: list[Row] = []
    conversions: list[Row] = []
    for number in range(requests.number.size):
        user, event_time = int(requests.user_index[number]), int(requests.event_time[number])
        known = event_time // MICROS_PER_HOUR + 1
        angle = params.interest_drift
        interest = (
            users.common[user]
            + np.cos(angle) * users.east[user]
            + np.sin(angle) * users.north[user]
        )
        weight = np.exp(logits)
        for position in range(params.slate_size):
            share = weight / weight.sum()
            ad = int(rng.choice(ads.ids.size, p=share))
            weight[ad] = 0
            taste = interest[ads.category[ad]]
            logit = -3.3 + users.click[user] + ads.click[ad] + params.interest_weight * taste
            click = world.examination[position] / (1 + np.exp(-logit))
            clicked = bool(rng.random() < click)
            key = f"{WEEK}-{number:08d}-{position + 1}"
            impressions.append(
                {
                    "event_time": event_time,
                    "known_time": known * MICROS_PER_HOUR,
                    "request_id": f"{WEEK}-{number:08d}",
                    "impression_id": key,
                    "user_id": str(users.ids[user]),
                    "ad_id": str(ads.ids[ad]),
                    "position": position + 1,
                    "slate_size": params.slate_size,
                    "placement": str(requests.placement[number]),
                    "device": str(requests.device[number]),
                    "bid_micros": int(ads.bid[ad]),
                    "cost_micros": int(params.cost_share * ads.bid[ad]) if clicked else 0,
                    "propensity": float(share[ad]),
                    "policy_version": "logging",
                    "arm": "logging",
                    "clicked": clicked,
                }
            )
            logit = -2.9 + users.conversion[user] + ads.conversion[ad] + 0.3 * taste
            if clicked and rng.random() < 1 / (1 + np.exp(-logit)):
                late = event_time + int(rng.exponential(ads.delay[ad]) * MICROS_PER_HOUR)
                conversions.append(
                    {
                        "event_time": late,
                        "known_time": (late // MICROS_PER_HOUR + 1) * MICROS_PER_HOUR,
                        "impression_id": key,
                        "revenue_micros": int(ads.price[ad] * np.exp(0.4 * rng.normal() - 0.08)),
                    }
                )
    behaviours: list[Row] = [
        {
            "event_time": int(past.event_time[row]),
            "known_time": (int(past.event_time[row]) // MICROS_PER_HOUR + 1) * MICROS_PER_HOUR,
            "user_id": str(users.ids[past.user[row]]),
            "ad_id": str(ads.ids[past.ad[row]]),
            "category_id": f"c{ads.category[past.ad[row]] + 1:02d}",
            "action": people.ACTIONS[past.action[row]],
            "dwell_ms": int(np.exp(8.0 + 0.8 * rng.normal())),
        }
        for row in range(requests.number.size)
    ]
    parts = (
        (impressions, IMPRESSIONS),
        (behaviours, BEHAVIOURS),
        (conversions, CONVERSIONS),
    )
    return sum(pa.Table.from_pylist(rows, schema=schema).num_rows for rows, schema in parts)


def whole_week(world: World) -> WeekRun:
    return run_week(world, WEEK, logging_policy(world), nothing(), chunk_hours=24)


def events(run: WeekRun) -> int:
    tables = [*run.tables.items(), *run.pending.items()]
    return sum(table.num_rows for name, table in tables if name not in ("ads", "users"))


def seconds(work: Callable[[], int]) -> float:
    """CPU seconds per event."""
    start = time.process_time()
    count = work()
    return (time.process_time() - start) / count


def test_generation_against_a_row_loop(record: Callable[[str, str], None]) -> None:
    params = load_params(ROOT / "params.yaml").ingest.simulator
    whole_week(World(params))  # compiles
    world = World(params)
    visits = world.requests(WEEK).take(slice(0, 1000)), world.behaviours(WEEK)
    ours, loop = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: events(whole_week(World(params)))))
        loop.append(seconds(lambda: row_by_row(world, *visits)))
    ratio = statistics.median(loop) / statistics.median(ours)
    record("simulator, events per CPU-second", f"{1 / statistics.median(ours):,.0f}")
    record("simulator, row loop / ours, CPU seconds per event", f"{ratio:.1f}")
    assert ratio > 5


@pytest.mark.parametrize("chunk_hours", [1])
def test_a_served_week_takes_seconds(record: Callable[[str, str], None], chunk_hours: int) -> None:
    world = World(load_params(ROOT / "params.yaml").ingest.simulator)
    start = time.process_time()
    run = run_week(world, WEEK, logging_policy(world), nothing(), chunk_hours=chunk_hours)
    taken = time.process_time() - start
    record("simulator, a week in hourly chunks, CPU seconds", f"{taken:.1f}")
    assert run.tables["impressions"].equals(whole_week(world).tables["impressions"])
