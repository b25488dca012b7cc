"""Generation against a loop that makes one row at a time."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from roiflow.data.schemas import BEHAVIOURS, CONVERSIONS, IMPRESSIONS
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.simulator import population as people
from roiflow.simulator.policies import logging_policy
from roiflow.simulator.population import WorldBehaviours, WorldRequests
from roiflow.simulator.run import nothing, run_week
from roiflow.simulator.synthetic import SyntheticPopulation
from roiflow.simulator.synthetic_draws import Users
from roiflow.simulator.world import World
from roiflow.simulator.write import write_weeks
from tests.worlds import world_params

WEEK = Week.parse("2026-W02")
ROUNDS = 5
USERS, LOOP_USERS = 20_000, 400
BUSY = world_params(
    users=USERS, ads=200, behaviours_per_user_day=14.0, requests_per_user_day=0.94, slate_size=3
)
"""About 5 behaviours to one impression."""
Row = dict[str, object]


def row_by_row(
    world: World, users: Users, requests: WorldRequests, past: WorldBehaviours, folder: Path
) -> int:
    """The same steps for given visits, a row at a time, and their Parquet; the number of events.

    Drawing the visits, intent, budgets and returns are left out, which favours the loop.
    """
    rng = np.random.default_rng(0)
    params, ads = world.params, world.ads(WEEK)
    logits = logging_policy(world).logits(WEEK)
    impressions: list[Row] = []
    conversions: list[Row] = []
    for number in range(requests.number.size):
        user, event_time = int(requests.user_index[number]), int(requests.event_time[number])
        known = event_time // MICROS_PER_HOUR + 1
        angle = params.synthetic.interest_drift
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
            look = (position + 1) ** -params.examination.exponent
            clicked = bool(rng.random() < look / (1 + np.exp(-logit)))
            key = f"{WEEK}-{number:08d}-{position + 1}"
            impressions.append(
                {
                    "event_time": event_time,
                    "known_time": known * MICROS_PER_HOUR,
                    "request_id": f"{WEEK}-{number:08d}",
                    "impression_id": key,
                    "user_id": str(world.user_ids[user]),
                    "ad_id": str(ads.ids[ad]),
                    "position": position + 1,
                    "slate_size": params.slate_size,
                    "placement": people.PLACEMENTS[requests.placement_index[number]],
                    "device": people.DEVICES[requests.device_index[number]],
                    "bid_micros": int(ads.bid[ad]),
                    "cost_micros": int(ads.bid[ad]) if clicked else 0,
                    "propensity": float(share[ad]),
                    "policy_version": "logging",
                    "arm": "logging",
                    "clicked": clicked,
                }
            )
            logit = -2.0 + users.conversion[user] + ads.conversion[ad] + 0.3 * taste
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
            "user_id": str(world.user_ids[past.user[row]]),
            "ad_id": str(ads.ids[past.ad[row]]),
            "category_id": f"c{ads.category[past.ad[row]] + 1:02d}",
            "action": people.ACTIONS[past.action[row]],
            "dwell_ms": int(np.exp(8.0 + 0.8 * rng.normal())),
        }
        for row in range(past.user.size)
    ]
    parts = (
        ("impressions", impressions, IMPRESSIONS),
        ("behaviours", behaviours, BEHAVIOURS),
        ("conversions", conversions, CONVERSIONS),
    )
    for name, rows, schema in parts:
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    return sum(len(rows) for _, rows, _ in parts)


def seconds(work: Callable[[], int]) -> float:
    """CPU seconds per event."""
    start = time.process_time()
    count = work()
    return (time.process_time() - start) / count


def test_generation_against_a_row_loop(tmp_path: Path, record: Callable[[str, str], None]) -> None:
    """A written week of 20,000 users, and of the first 400 of them a row at a time."""
    write_weeks(BUSY, tmp_path / "ours", [WEEK], threads=1)  # compiles
    few = SyntheticPopulation(BUSY, range(LOOP_USERS))
    world = World(BUSY, few)
    visits = few.state, world.requests(WEEK), world.behaviours(WEEK)
    ours, loop = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: write_weeks(BUSY, tmp_path / "ours", [WEEK], threads=1)))
        loop.append(seconds(lambda: row_by_row(world, *visits, tmp_path)))
    ratio = statistics.median(loop) / statistics.median(ours)
    record("simulator, events per CPU-second, written", f"{1 / statistics.median(ours):,.0f}")
    record("simulator, row loop / ours, CPU seconds per event, written", f"{ratio:.1f}")
    assert ratio > 10


def test_a_served_week_takes_seconds(record: Callable[[str, str], None]) -> None:
    """With budgets each hour is a chunk."""
    world = World(world_params(budgets=True, budget_share=20.0))
    run_week(world, WEEK, logging_policy(world), nothing())  # compiles
    world = World(world.params)
    start = time.process_time()
    run = run_week(world, WEEK, logging_policy(world), nothing())
    taken = time.process_time() - start
    record("simulator, a week in hourly chunks, CPU seconds", f"{taken:.2f}")
    assert run.tables["impressions"].num_rows > 10_000
    assert taken < 5
