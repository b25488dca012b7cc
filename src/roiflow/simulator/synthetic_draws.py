"""Who lives in the synthetic world and what is advertised: drawn once, each by its own address.

A user's or an ad's values are functions of the seed and of his or its number, so a part of the
population is drawn like the whole, and a later week only appends.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.params import SimulatorParams
from roiflow.simulator import auction
from roiflow.simulator import population as people
from roiflow.simulator.noise import (
    Floats,
    Longs,
    Singles,
    Stream,
    coarse_normals,
    generator,
    key,
    normals,
    uniforms,
)
from roiflow.simulator.population import Ads, Ints, names
from roiflow.simulator.scenarios.effects import Effects, ends

AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
AGE_SHARES = (0.16, 0.28, 0.24, 0.18, 0.14)
MEMBERSHIPS = ("none", "plus", "prime")
MEMBERSHIP_SHARES = (0.55, 0.3, 0.15)
MEMBERSHIP_EFFECT = np.array([-0.2, 0.2, 0.6])
"""Log odds of a conversion."""
REGIONS = ("north", "east", "south", "west")
AGE_INTEREST = 0.5
"""Share of the variance of interests that the age band explains is its square."""


@dataclass(frozen=True)
class Users:
    """The hidden state of U users and C categories."""

    activity: Singles  # (U,) factor on the mean rates, mean 1
    joined: Longs  # (U,) microseconds
    left: Longs  # (U,) microseconds
    common: Singles  # (U, C) part of the interests that stays
    east: Singles  # (U, C) the part that turns is cos(angle) east + sin(angle) north
    north: Singles  # (U, C)
    click: Floats  # (U,) log odds
    conversion: Floats  # (U,) log odds
    device: Ints  # (U,) the usual one
    age: Ints  # (U,)
    membership: Ints  # (U,)
    region: Ints  # (U,)


def draw_users(params: SimulatorParams, part: range, first_week: Week) -> Users:
    """The hidden state of the users whose numbers are in `part`."""
    synthetic, seed = params.synthetic, params.seed
    numbers = np.arange(part.start, part.stop)
    categories = synthetic.categories

    def draw(what: int) -> Floats:
        return uniforms(key(seed, Stream.USERS, what), numbers)

    def pick(what: int, shares: tuple[float, ...]) -> Ints:
        return np.searchsorted(np.cumsum(shares)[:-1], draw(what), "right").astype(np.int32)

    age, membership = pick(0, AGE_SHARES), pick(1, MEMBERSHIP_SHARES)
    # Drawn as one block for all, not by user; scaled with `own`, an interest has variance 1.
    by_age = generator(seed, Stream.USERS, 99).standard_normal((len(AGES), categories))
    own = np.float32(np.sqrt(1 - AGE_INTEREST**2))
    turning = (
        coarse_normals(key(seed, Stream.INTERESTS), part.start, len(part), 2 * categories) * own
    )
    joined = _joined_week(synthetic.users, synthetic.newcomers, numbers)
    if synthetic.churn:
        # A geometric number of weeks by inversion. Cut, as a tiny churn makes it larger than 64
        # bits of microseconds hold.
        tenure = np.log(uniforms(key(seed, Stream.TENURE), numbers)) / np.log1p(-synthetic.churn)
        left = np.maximum(joined, 0) + 1 + np.minimum(tenure, 10_000).astype(np.int64)
    else:
        left = np.full(numbers.size, 100_000)
    width = MICROS_PER_WEEK
    return Users(
        activity=_gamma(synthetic.activity_shape, draw(2)),
        joined=first_week.start + joined * width,
        left=first_week.start + left * width,
        common=(AGE_INTEREST * by_age).astype(np.float32)[age],
        east=np.ascontiguousarray(turning[:, :categories]),
        north=np.ascontiguousarray(turning[:, categories:]),
        click=0.3 * normals(key(seed, Stream.USERS, 3), numbers),
        conversion=MEMBERSHIP_EFFECT[membership]
        + 0.3 * normals(key(seed, Stream.USERS, 4), numbers),
        device=pick(5, people.DEVICE_SHARES),
        age=age,
        membership=membership,
        region=(draw(6) * len(REGIONS)).astype(np.int32),
    )


def _joined_week(at_first: int, share: float, numbers: Longs) -> Longs:
    """Weeks after the first at which users (n,) join; -53 for those who are there before."""
    a_week = max(1, round(share * at_first))
    # Long before the first week, as the week before it, which warms up intent, has them as well.
    return np.where(numbers < at_first, -53, 1 + (numbers - at_first) // a_week)


def _gamma(shape: float, uniform: Floats) -> Singles:
    """Gamma quantiles of mean 1, from a table of 65,536."""
    table = _gamma_quantiles(shape)
    out: Singles = table[(uniform * table.size).astype(np.int64)]
    return out


@lru_cache(maxsize=8)
def _gamma_quantiles(shape: float) -> Singles:
    from scipy.special import gammaincinv

    middles = (np.arange(1 << 16) + 0.5) / (1 << 16)
    table: Singles = (gammaincinv(shape, middles) / shape).astype(np.float32)
    return table


def draw_ads(params: SimulatorParams, week: Week, effects: Effects, share: float) -> Ads:
    """Ads are numbered as they come, so a later week only appends; budgets are of a share."""
    synthetic, seed = params.synthetic, params.seed
    start = Week.parse(params.first_week)
    passed = max(0, (week.start - start.start) // MICROS_PER_WEEK)
    count = synthetic.ads + passed * synthetic.new_ads_per_week
    number, categories = np.arange(count), synthetic.categories

    def normal(what: int) -> Floats:
        return normals(key(seed, Stream.ADS, what), number)

    def draw(what: int) -> Floats:
        return uniforms(key(seed, Stream.ADS, what), number)

    # A category's and a brand's values come from one generator, in this order for ever: an ad's
    # own draws are addressed by its number, these by their turn.
    rng = generator(seed, Stream.CATEGORIES)
    level = np.exp(rng.permutation(np.linspace(-1.0, 1.0, categories)))
    category_conversion = 0.35 * rng.standard_normal(categories)
    shortest, longest = params.delay_hours
    delay = rng.permutation(np.geomspace(shortest, longest, categories))
    ranks = rng.permutation(categories)
    # In turn, so that every category has as many ads as any other, give or take one.
    category = ranks[number % categories]
    brand = 3 * category + (draw(0) * 3).astype(np.int64)
    brand_click = 0.2 * rng.standard_normal(3 * categories)
    advertisers = max(1, synthetic.ads // 5)
    advertiser = (draw(1) * advertisers).astype(np.int64)
    campaign = 2 * advertiser + (draw(2) * 2).astype(np.int64)
    price = synthetic.price_median * level[category] * np.exp(synthetic.price_sigma * normal(3))
    price = people.micros(price)
    odds = params.conversion_rate / (1 - params.conversion_rate)
    expected = price / (1 + np.exp(-category_conversion[category]) / odds)
    born = np.where(
        number < synthetic.ads,
        0,
        1 + (number - synthetic.ads) // max(1, synthetic.new_ads_per_week),
    )
    first = start.start + born * MICROS_PER_WEEK
    # At full hours, when who may be shown is looked at: an ad is there from its first hour on.
    hour = (24 * synthetic.arrival_days * draw(11)).astype(np.int64)
    first += np.where(born > 0, hour * MICROS_PER_HOUR, 0)
    age_days = 7 + (draw(4) * 358).astype(np.int64)
    lifetime = np.ceil(-synthetic.ad_weeks * np.log(draw(5))).astype(np.int64)
    last = first + np.minimum(lifetime, 100_000) * MICROS_PER_WEEK
    # As many ads as a slate has places never end, so that a slate can always be filled.
    house = number < min(synthetic.ads, params.slate_size)
    last = np.where(house, np.iinfo(np.int64).max, last)
    last = ends(effects, advertiser, first, last)
    # A creative wears out with its age and is replaced, so an ad's click odds saw up and down.
    creative = passed - born + age_days // 7
    worn = np.log2(1 + creative % synthetic.creative_weeks)
    # Zipf's law inside a category, by the rank in which its ads came.
    popularity = (1 + number // categories) ** -synthetic.popularity_exponent
    bid = auction.bids(params.auction, params.click_rate, expected, normal(6))
    shows = synthetic.users * synthetic.requests_per_user_day * params.slate_size / synthetic.ads
    return Ads(
        ids=names("a", count, width=6),
        campaign=names("k", 2 * advertisers)[campaign],
        advertiser=names("v", advertisers)[advertiser],
        brand=names("b", 3 * categories)[brand],
        category=category.astype(np.int32),
        ad_type=np.searchsorted((0.6, 0.85), draw(7), "right").astype(np.int32),
        price=people.micros(price * effects.price / 1e6),
        bid=bid,
        budget=auction.budgets(
            params.auction,
            bid,
            params.click_rate,
            shows * effects.budget * share,
            normal(8),
            house,
        ),
        market=auction.market(params.auction, params.click_rate, expected),
        created_at=first - np.where(born == 0, age_days, 0) * MICROS_PER_DAY,
        first=first,
        last=last,
        click=brand_click[brand] + 0.35 * normal(9) - synthetic.fatigue * worn,
        conversion=category_conversion[category] + 0.35 * normal(10),
        delay=delay[category],
        weight=np.asarray(popularity, np.float64),
    )
