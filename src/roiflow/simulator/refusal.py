"""What no world can have, refused before anything is generated.

Types and simple bounds are checked where params.yaml is read (params.py); here is what depends on
several keys, on the calendar or on what the world is made of.
"""

import math
from collections.abc import Iterator
from datetime import date
from functools import reduce

from pydantic import BaseModel

from roiflow.data.sources.complete_journey import FIRST_PANEL_WEEK, PANEL_WEEKS
from roiflow.data.weeks import Week
from roiflow.errors import ParamsError, UnknownWeek
from roiflow.params import SimulatorParams
from roiflow.simulator.population import ACTIONS
from roiflow.simulator.scenarios import SCENARIOS, STEADY
from roiflow.simulator.synthetic import SHARD_REQUESTS, shards

MAX_SIGMAS = 9.0
"""No normal draw of 53 random bits is farther out."""

MAX_DAYS = 11
"""From an impression to a return, so that two weeks after it no outage can hide one."""
NUMBER_DIGITS = 10
"""Of a request's number in its id."""


def refuse_impossible(params: SimulatorParams) -> None:
    """Raises ParamsError naming the key and the value that no world can have."""
    # The first fault is raised: later ones may follow from it.
    for key, why in _faults(params):
        value = reduce(getattr, key.split("."), params)
        raise ParamsError(f"ingest.simulator.{key}: {why} (value {value!r})")


def _faults(params: SimulatorParams) -> Iterator[tuple[str, str]]:
    """Each fault's key and reason; later ones rely on there being no earlier one."""
    yield from _infinite("", params)
    yield from _of_time(params)
    yield from _of_response(params)
    yield from _of_scenario(params)
    if params.world == "synthetic":
        yield from _of_synthetic(params)
    elif params.slate_size > params.panel.products:
        yield "slate_size", f"there are only {params.panel.products} eligible ads (panel.products)"
    yield from _of_auction(params)


def _infinite(prefix: str, section: BaseModel) -> Iterator[tuple[str, str]]:
    for name, value in section:
        numbers = value if isinstance(value, list) else [value]
        numbers = list(value.values()) if isinstance(value, dict) else numbers
        if isinstance(value, BaseModel):
            yield from _infinite(f"{prefix}{name}.", value)
        elif any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            yield f"{prefix}{name}", "must be finite"


def _of_time(params: SimulatorParams) -> Iterator[tuple[str, str]]:
    for key in ("first_week", "shock_week"):
        try:
            Week.parse(getattr(params, key))
        except UnknownWeek as error:
            yield key, str(error)
    if 24 % params.known_lag_hours:
        yield "known_lag_hours", "must divide 24, so that weeks end on a multiple of it"
    if params.attribution_days > 6:
        yield "attribution_days", "must be at most 6, so that the next week knows every conversion"
    elif params.attribution_days + params.return_days > MAX_DAYS:
        longest = MAX_DAYS - params.attribution_days
        yield "return_days", f"must be at most {longest}, so that two weeks later all is known"


def _of_response(params: SimulatorParams) -> Iterator[tuple[str, str]]:
    delays = params.delay_hours
    if len(delays) != 2:
        yield "delay_hours", "must be two numbers, the fastest and the slowest category's"
    elif min(delays) <= 0:
        yield "delay_hours", "a delay must be longer than 0"
    elif delays[0] > delays[1]:
        yield "delay_hours", "the shorter delay must come first"


def _of_scenario(params: SimulatorParams) -> Iterator[tuple[str, str]]:
    if params.scenario not in SCENARIOS:
        yield "scenario", f"there is none of this name; there are {', '.join(SCENARIOS)}"
    if params.scenario == "budget_cut" and not params.auction.budgets:
        yield "scenario", "there are no budgets to cut (auction.budgets false)"
    # A steady world has no shock, so the shock week may lie anywhere.
    if params.scenario in STEADY:
        return
    shock, first, last = Week.parse(params.shock_week), Week.parse(params.first_week), None
    if params.world == "panel":
        first, last = FIRST_PANEL_WEEK, FIRST_PANEL_WEEK.plus(PANEL_WEEKS - 1)
    if shock < first:
        yield "shock_week", f"is before the first week, {first}"
    if last is not None and shock > last:
        yield "shock_week", f"is after the panel's last week, {last}"


def _of_synthetic(params: SimulatorParams) -> Iterator[tuple[str, str]]:
    world = params.synthetic
    if params.slate_size > world.ads:
        yield "slate_size", f"there are only {world.ads} eligible ads (synthetic.ads)"
    if world.categories > world.ads:
        yield (
            "synthetic.categories",
            f"there are only {world.ads} ads, and no category may be empty",
        )
    # Lifetimes are exponential, so a share of exp(-1 / ad_weeks) lives on from week to week.
    left = _left(world.ads, world.new_ads_per_week, math.exp(-1 / world.ad_weeks), params.weeks)
    if left < params.slate_size:
        yield (
            "synthetic.ad_weeks",
            f"on average {left:.1f} ads are left after {params.weeks} weeks, and a slate has "
            f"{params.slate_size}",
        )
    left = _left(world.users, world.newcomers * world.users, 1 - world.churn, params.weeks)
    if left < 1:
        yield "synthetic.churn", f"on average {left:.1f} users are left after {params.weeks} weeks"
    most = 10**NUMBER_DIGITS // SHARD_REQUESTS
    if len(shards(params)) > most:
        yield "synthetic.users", f"their events of a week fill over {most} shards: ids would repeat"
    if set(world.action_importance) != set(ACTIONS):
        yield "synthetic.action_importance", f"must name exactly {', '.join(ACTIONS)}"
    for day in world.holidays:
        if not _is_date(day):
            yield "synthetic.holidays", f"{day!r} is not a day of the year, written MM-DD"
    # Price and revenue are log-normal one around the other: their deviations add as squares.
    spread = MAX_SIGMAS * math.hypot(world.price_sigma, params.revenue_sigma)
    if math.log(world.price_median * 1e6) + spread > math.log(2**63):
        yield "revenue_sigma", "revenue would not fit into 64 bits of micros"


def _left(start: float, joining: float, stay: float, weeks: int) -> float:
    """Mean count after some weeks of which each one keeps a share `stay` and brings `joining`."""
    kept = stay**weeks
    return start * kept + joining * (weeks if stay == 1 else (1 - kept) / (1 - stay))


def _is_date(day: str) -> bool:
    try:
        # In a leap year, as 02-29 is a day that comes.
        found = date.fromisoformat(f"2024-{day}")
    except ValueError:
        return False
    # Back again, since the ISO forms of weeks are as long: W01-1.
    return f"{found:%m-%d}" == day


def _of_auction(params: SimulatorParams) -> Iterator[tuple[str, str]]:
    auction = params.auction
    if auction.pricing == "second" and auction.competition == 0:
        yield "auction.competition", "without competition the second price is 0"
    if params.world == "synthetic" and auction.budgets:
        charges = auction.budget_share * _charges(params)
        if charges < 1:
            yield (
                "auction.budget_share",
                f"a day's budget would pay for {charges:.3f} {auction.charge}s of an average ad, "
                "which must be at least 1",
            )


def _charges(params: SimulatorParams) -> float:
    """An average ad's share of what a synthetic day is charged for: clicks, or impressions."""
    world = params.synthetic
    shows = world.users * world.requests_per_user_day * params.slate_size / world.ads
    return shows * (params.click_rate if params.auction.charge == "click" else 1.0)
