"""What slates are worth in expectation: the closed form that no log can give."""

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats
from roiflow.simulator.population import Ints, Names, WorldRequests
from roiflow.simulator.run import SlateChooser, serve
from roiflow.simulator.world import World

Truth = dict[str, float]
"""impressions, clicks, conversions, roi; revenue, cost and value (their difference) in currency."""


def slate_truth(world: World, requests: WorldRequests, slates: Ints) -> Floats:
    """Expected clicks, conversions, revenue and cost (B, 4) of slates (B, S); money in micros.

    Revenue is net of returns.
    """
    look = world.respond(requests, slates)
    seen = world.examine(look.click)
    click = seen * look.click
    conversion = click * look.conversion
    cost = click * look.click_cost + seen * look.look_cost
    columns = (click, conversion, conversion * look.revenue, cost)
    return np.stack([column.sum(axis=1) for column in columns], axis=1)


def summary(impressions: int, sums: Floats) -> Truth:
    """Sums (4,) of slate_truth, named."""
    clicks, conversions, revenue, cost = sums.tolist()
    return {
        "impressions": float(impressions),
        "clicks": clicks,
        "conversions": conversions,
        "revenue": revenue / 1e6,
        "cost": cost / 1e6,
        "value": (revenue - cost) / 1e6,
        "roi": (revenue - cost) / cost if cost else float("nan"),
    }


def truth(world: World, impressions: pa.Table) -> Truth:
    """Expected outcome of whole slates of one week, given users, times, contexts and ads.

    Raises ContractError naming an ad, user, placement or device that is not of this world, or a
    slate that is not whole.
    """
    rows = impressions.sort_by(
        [(c.EVENT_TIME, "ascending"), (c.REQUEST, "ascending"), (c.POSITION, "ascending")]
    )
    slots = world.slate_size
    position = rows[c.POSITION].to_numpy()
    if rows.num_rows % slots or (position.reshape(-1, slots) != np.arange(1, slots + 1)).any():
        raise ContractError(f"{rows.num_rows} impressions are not whole slates of {slots}")
    if not rows.num_rows:
        return summary(0, np.zeros(4))
    heads = rows.take(pa.array(np.arange(0, rows.num_rows, slots)))
    times = heads[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    week = Week.of(int(times[0]))
    requests = WorldRequests(
        # Numbers address draws, and nothing is drawn: any will do.
        number=np.arange(times.size),
        event_time=times,
        user_index=world.user_rows(_text(heads, c.USER)),
        placement_index=people.rows_of(
            np.array(people.PLACEMENTS),
            _text(heads, c.PLACEMENT),
            "placement {!r} is not of this world",
        ),
        device_index=people.rows_of(
            np.array(people.DEVICES), _text(heads, c.DEVICE), "device {!r} is not of this world"
        ),
    )
    slates = world.ad_rows(week, _text(rows, c.AD)).reshape(-1, slots)
    return summary(rows.num_rows, slate_truth(world, requests, slates).sum(axis=0))


def expected_value_of(
    world: World, week: Week, chooser: SlateChooser, draws: int = 1
) -> tuple[Truth, Truth]:
    """Expected outcome of a policy on a week's requests, and the standard error of each figure.

    Each drawn slate counts with its closed form. What remains random are the slates, and through
    spent budgets what came of earlier ones: they are drawn `draws` times, and the error is of this
    drawing only (0 for a policy that always decides alike, NaN from one draw).
    """
    outcomes = []
    for draw in range(draws):
        sums, count = np.zeros(4), 0
        for shown in serve(world, week, chooser, draw=draw):
            # The outcome that was drawn matters to budgets alone; counted is the expectation, which
            # has less variance.
            sums += slate_truth(world, shown.requests, shown.slates).sum(axis=0)
            count += shown.slates.size
        outcomes.append(summary(count, sums))
    names = list(outcomes[0])
    table = np.array([[outcome[name] for name in names] for outcome in outcomes])
    spread = table.std(axis=0, ddof=1) if draws > 1 else np.full(len(names), np.nan)
    mean, error = table.mean(axis=0), spread / np.sqrt(draws)
    return (
        dict(zip(names, mean.tolist(), strict=True)),
        dict(zip(names, error.tolist(), strict=True)),
    )


def _text(table: pa.Table, name: str) -> Names:
    return np.array(table[name].to_pylist(), dtype=np.str_)
