"""Who lives in the ad world: users and ads with their planted, hidden parameters."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import ParamsError, UnknownWeek
from roiflow.params import SimulatorParams
from roiflow.simulator.noise import Floats, Longs, Stream, generator

Ints = NDArray[np.int32]
Names = NDArray[np.str_]

ACTIONS = ("view", "click", "favourite", "cart", "purchase")
ACTION_SHARES = (0.60, 0.22, 0.08, 0.06, 0.04)
PLACEMENTS = ("feed", "detail", "search")
PLACEMENT_SHARES = (0.6, 0.25, 0.15)
PLACEMENT_EFFECT = np.array([0.0, 0.15, 0.3])
DEVICES = ("mobile", "desktop", "tablet")
DEVICE_SHARES = (0.6, 0.3, 0.1)
AD_TYPES = ("image", "video", "text")
AD_TYPE_ON_DEVICE = np.array([[0.1, 0.1, 0.1], [0.35, 0.0, 0.2], [-0.3, 0.0, -0.2]])
"""Log odds of a click by ad type (rows) and device (columns)."""
AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
AGE_SHARES = (0.16, 0.28, 0.24, 0.18, 0.14)
MEMBERSHIPS = ("none", "plus", "prime")
MEMBERSHIP_SHARES = (0.55, 0.3, 0.15)
MEMBERSHIP_EFFECT = np.array([-0.2, 0.2, 0.6])
"""Log odds of a conversion."""
REGIONS = ("north", "east", "south", "west")
HOUR_EFFECT = 0.15 * np.cos(2 * np.pi * (np.arange(24) - 21) / 24)
"""Log odds of a click by hour of the day, highest at 21:00."""
HOUR_SHARES = np.array(
    [3, 2, 1, 1, 1, 2, 4, 6, 8, 8, 8, 9, 10, 9, 8, 8, 9, 10, 12, 14, 15, 14, 10, 6]
) / np.float64(178)
WEEKDAY_FACTORS = np.array([0.95, 0.95, 0.95, 0.95, 1.0, 1.1, 1.1])
AGE_INTEREST = 0.5
"""Share of the variance of interests that the age band explains is its square."""
NEWCOMERS, NEWCOMER_WEEKS = 0.05, 8
"""Share of users who join in the weeks after the first, and over how many weeks."""


@dataclass(frozen=True)
class Users:
    """The hidden state of U users and C categories."""

    ids: Names  # (U,)
    activity: Floats  # (U,) factor on the mean rates, mean 1
    joined: Longs  # (U,) microseconds
    common: Floats  # (U, C) part of the interests that stays
    east: Floats  # (U, C) the part that turns is cos(angle) east + sin(angle) north
    north: Floats  # (U, C)
    click: Floats  # (U,) log odds
    conversion: Floats  # (U,) log odds
    device: Ints  # (U,) the usual one
    age: Ints  # (U,)
    membership: Ints  # (U,)
    region: Ints  # (U,)


@dataclass(frozen=True)
class Ads:
    """The catalogue of A ads with their hidden quality."""

    ids: Names  # (A,)
    campaign: Names  # (A,)
    advertiser: Names  # (A,)
    category: Ints  # (A,)
    brand: Names  # (A,)
    ad_type: Ints  # (A,)
    price: Longs  # (A,) micros
    bid: Longs  # (A,) micros
    created_at: Longs  # (A,) microseconds
    click: Floats  # (A,) log odds
    conversion: Floats  # (A,) log odds, the category's part included
    delay: Floats  # (A,) mean hours from click to conversion, before attribution ends


def names(prefix: str, count: int) -> Names:
    """`count` ids that sort as they count."""
    width = len(str(count))
    return np.array([f"{prefix}{number:0{width}d}" for number in range(1, count + 1)])


def refuse_impossible(params: SimulatorParams) -> None:
    """Raises ParamsError naming the key and the value that no world can have."""

    def refuse(key: str, why: str) -> None:
        raise ParamsError(f"ingest.simulator.{key}: {why} (value {getattr(params, key)!r})")

    try:
        Week.parse(params.first_week)
    except UnknownWeek as error:
        raise ParamsError(f"ingest.simulator.first_week: {error}") from None
    if params.slate_size > params.ads:
        refuse("slate_size", f"there are only {params.ads} eligible ads")
    if params.categories > params.ads:
        refuse("categories", f"there are only {params.ads} ads, and no category may be empty")
    if 24 % params.known_lag_hours:
        refuse("known_lag_hours", "must divide 24, so that weeks end on a multiple of it")
    if params.attribution_days > 6:
        refuse("attribution_days", "must be at most 6, so that the next week knows everything")
    if set(params.action_importance) != set(ACTIONS):
        refuse("action_importance", f"must name exactly {', '.join(ACTIONS)}")
    if len(params.delay_hours) != 2 or params.delay_hours[0] > params.delay_hours[1]:
        refuse("delay_hours", "must be two numbers, the shorter first")


def draw_users(params: SimulatorParams) -> Users:
    """Users of the seed."""
    rng = generator(params.seed, Stream.USERS)
    count, categories = params.users, params.categories
    age = rng.choice(len(AGES), count, p=AGE_SHARES)
    membership = rng.choice(len(MEMBERSHIPS), count, p=MEMBERSHIP_SHARES)
    common = AGE_INTEREST * rng.standard_normal((len(AGES), categories))[age]
    own = np.sqrt(1 - AGE_INTEREST**2)
    east = own * rng.standard_normal((count, categories))
    north = own * rng.standard_normal((count, categories))
    first = Week.parse(params.first_week)
    late = rng.random(count) < NEWCOMERS
    joined = np.where(late, rng.integers(1, NEWCOMER_WEEKS + 1, count), -53)
    return Users(
        ids=names("u", count),
        activity=rng.gamma(1.5, 1 / 1.5, count),
        joined=first.start + joined * 7 * MICROS_PER_DAY,
        common=common,
        east=east,
        north=north,
        click=0.3 * rng.standard_normal(count),
        conversion=MEMBERSHIP_EFFECT[membership] + 0.3 * rng.standard_normal(count),
        device=rng.choice(len(DEVICES), count, p=DEVICE_SHARES).astype(np.int32),
        age=age.astype(np.int32),
        membership=membership.astype(np.int32),
        region=rng.integers(0, len(REGIONS), count).astype(np.int32),
    )


def draw_ads(params: SimulatorParams) -> Ads:
    """Ads of the seed; a bid is a noisy share of what the advertiser expects from a click."""
    rng = generator(params.seed, Stream.ADS)
    count, categories = params.ads, params.categories
    category = rng.permutation(np.arange(count) % categories)
    brands = names("b", 3 * categories)
    brand = 3 * category + rng.integers(0, 3, count)
    advertisers = names("v", max(1, count // 5))
    advertiser = rng.integers(0, advertisers.size, count)
    campaigns = names("k", 2 * advertisers.size)
    campaign = 2 * advertiser + rng.integers(0, 2, count)
    median_price = rng.permutation(np.geomspace(12.0, 90.0, categories))
    price = median_price[category] * np.exp(0.4 * rng.standard_normal(count))
    category_conversion = 0.35 * rng.standard_normal(categories)
    odds = params.conversion_rate / (1 - params.conversion_rate)
    expected = price / (1 + np.exp(-category_conversion[category]) / odds)
    noise = np.exp(params.bid_sigma * rng.standard_normal(count))
    shortest, longest = params.delay_hours
    delay = rng.permutation(np.geomspace(shortest, longest, categories))
    age_days = rng.integers(7, 365, count)
    return Ads(
        ids=names("a", count),
        campaign=campaigns[campaign],
        advertiser=advertisers[advertiser],
        category=category.astype(np.int32),
        brand=brands[brand],
        ad_type=rng.choice(len(AD_TYPES), count, p=(0.6, 0.25, 0.15)).astype(np.int32),
        price=micros(price),
        bid=micros(params.bid_share * expected * noise),
        created_at=Week.parse(params.first_week).start - age_days * MICROS_PER_DAY,
        click=0.2 * rng.standard_normal(brands.size)[brand] + 0.35 * rng.standard_normal(count),
        conversion=category_conversion[category] + 0.35 * rng.standard_normal(count),
        delay=delay[category],
    )


def micros(amount: Floats) -> Longs:
    """Currency units to whole micros, in whole cents and never under one."""
    return (np.maximum(np.rint(amount * 100), 1) * 10_000).astype(np.int64)
