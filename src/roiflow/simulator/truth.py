"""What slates are worth in expectation: the closed form that no log can give."""

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.weeks import Week
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats, Stream, generator
from roiflow.simulator.population import Ints
from roiflow.simulator.run import SlateChooser
from roiflow.simulator.world import World, WorldRequests

Truth = dict[str, float]
"""impressions, clicks, conversions, roi; revenue, cost and value (their difference) in currency."""


def slate_truth(world: World, requests: WorldRequests, slates: Ints) -> Floats:
    """Expected clicks, conversions, revenue and cost (B, 4) of slates (B, S); money in micros."""
    look = world.respond(requests, slates)
    click = world.examination * look.click
    conversion = click * look.conversion
    columns = (click, conversion, conversion * look.revenue, click * look.cost)
    return np.stack([column.sum(axis=1) for column in columns], axis=1)


def _summary(impressions: int, sums: Floats) -> Truth:
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
    """Expected outcome of the impressions shown, given user, time, context, ad and position.

    Raises ContractError naming an ad or user that is not of this world.
    """
    times = impressions[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    position = impressions[c.POSITION].to_numpy()
    requests = WorldRequests(
        number=np.arange(times.size),
        user_ids=_text(impressions, c.USER),
        event_time=times,
        placement=_text(impressions, c.PLACEMENT),
        device=_text(impressions, c.DEVICE),
        user_index=world.user_rows(_text(impressions, c.USER)),
        placement_index=_rows(people.PLACEMENTS, _text(impressions, c.PLACEMENT)),
        device_index=_rows(people.DEVICES, _text(impressions, c.DEVICE)),
    )
    look = world.respond(requests, world.ad_rows(_text(impressions, c.AD))[:, None])
    click = world.examination[position - 1] * look.click[:, 0]
    conversion = click * look.conversion[:, 0]
    columns = (click, conversion, conversion * look.revenue[:, 0], click * look.cost[:, 0])
    return _summary(times.size, np.array([column.sum() for column in columns]))


def expected_value_of(
    world: World, week: Week, chooser: SlateChooser, draws: int = 1
) -> tuple[Truth, Truth]:
    """Expected outcome of a policy on a week's requests, and the standard error of each figure.

    Slates are drawn `draws` times, each drawn slate counts with its closed form. The error is of
    the drawing only (0 for a policy that always decides alike), from the draws (NaN with one).
    """
    requests = world.requests(week)
    outcomes = []
    for draw in range(draws):
        rng = generator(world.params.seed, Stream.CHOOSER, week.start // 3_600_000_000, draw)
        slates, _ = chooser.choose(requests, rng)
        sums = slate_truth(world, requests, slates).sum(axis=0)
        outcomes.append(_summary(slates.size, sums))
    names = list(outcomes[0])
    table = np.array([[outcome[name] for name in names] for outcome in outcomes])
    spread = table.std(axis=0, ddof=1) if draws > 1 else np.full(len(names), np.nan)
    mean, error = table.mean(axis=0), spread / np.sqrt(draws)
    return (
        dict(zip(names, mean.tolist(), strict=True)),
        dict(zip(names, error.tolist(), strict=True)),
    )


def _text(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    return np.array(table[name].to_pylist(), dtype=np.str_)


def _rows(known: tuple[str, ...], values: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Ints:
    order = np.argsort(known)
    return order[np.searchsorted(np.array(known)[order], values)].astype(np.int32)
