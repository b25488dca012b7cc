"""What ads bid and pay, and how long their money lasts.

First price pays the bid. Second price pays the highest bid of an outside market, log-normal around
its median and known to be below the ad's own (Vickrey, 1961): a truncated log-normal, whose mean
has a closed form. A charge is made per click, or per impression that is looked at.

A budget holds for a day (UTC) and is looked at every hour: an ad that has spent it, or with pacing
more of it than the day's traffic up to the end of the hour stands for, is not eligible. As many ads
as a slate has places have none, so that no slate stays empty.
"""

import numpy as np

from roiflow.catalogue.eligibility import UNLIMITED, Pacing, Terms, eligible
from roiflow.data.weeks import MICROS_PER_DAY
from roiflow.params import AuctionParams
from roiflow.simulator.noise import Floats, Longs
from roiflow.simulator.population import HOUR_SHARES, Ads, Flags, Ints, micros

BUDGET_SIGMA = 0.5
"""Of the log budget around its median."""


def _unit(params: AuctionParams, click_rate: float) -> float:
    """What is charged, in clicks: an impression looked at is worth the mean click rate."""
    return 1.0 if params.charge == "click" else click_rate


def market(params: AuctionParams, click_rate: float, expected: Floats) -> Floats:
    """Median outside bids (A,), micros; `expected` (A,) is an average user's revenue per click."""
    return params.competition * params.bid_share * expected * _unit(params, click_rate)


def bids(params: AuctionParams, click_rate: float, expected: Floats, normal: Floats) -> Longs:
    """Bids (A,), micros: a noisy share of what the advertiser expects; never under a cent."""
    noise = np.exp(params.bid_sigma * normal)
    share = params.bid_share * _unit(params, click_rate) / 1e6
    return micros(share * expected * noise)


def budgets(
    params: AuctionParams,
    bid: Longs,
    click_rate: float,
    shows: float,
    normal: Floats,
    house: Flags,
) -> Longs:
    """Daily budgets (A,), micros, of ads that would be shown `shows` times a day on average.

    0 is no limit: that of the `house` ads (A,), and of all where there are no budgets.
    """
    if not params.budgets:
        return np.zeros(bid.size, np.int64)
    charged = shows * (click_rate if params.charge == "click" else 1.0)
    amount = params.budget_share * charged * bid * np.exp(BUDGET_SIGMA * normal)
    # A day pays for one charge at least. A smaller budget would be overspent by its first charge.
    return np.where(house, 0, np.maximum(micros(amount / 1e6), bid))


def expected_price(params: AuctionParams, ads: Ads) -> Floats:
    """Mean micros (A,) paid per charge."""
    bid = ads.bid.astype(np.float64)
    if params.pricing == "first":
        return bid
    sigma = params.competition_sigma
    if sigma == 0:
        return np.minimum(bid, np.rint(ads.market))
    from scipy.special import ndtr  # half a second, and most worlds pay the bid

    # The mean of a log-normal cut off above: its own mean times the share of its weight below the
    # bid, where it is weighted with the price, over the share that lies there.
    height = np.log(bid / ads.market) / sigma
    mean = ads.market * np.exp(sigma**2 / 2)
    price: Floats = mean * ndtr(height - sigma) / ndtr(height)
    return price


def paid(params: AuctionParams, ads: Ads, rows: Ints, uniform: Floats) -> Longs:
    """Micros (n,) paid for charges to ads `rows` (n,)."""
    bid = ads.bid[rows]
    if params.pricing == "first":
        return bid
    sigma = params.competition_sigma
    middle = ads.market[rows]
    if sigma == 0:
        return np.minimum(bid, np.rint(middle).astype(np.int64))
    from scipy.special import ndtr, ndtri

    # By inversion of the truncated law: a uniform share of what lies below the bid. Rounding to
    # micros may lift the highest prices over the bid, so they are cut there.
    below = ndtr(np.log(bid / middle) / sigma)
    price = middle * np.exp(sigma * ndtri(uniform * below))
    return np.minimum(bid, np.rint(price).astype(np.int64))


def pacing(params: AuctionParams) -> Pacing:
    """What part of a day's budget may be spent by each hour."""
    return Pacing.of(HOUR_SHARES) if params.pacing else Pacing.none()


class Pacer:
    """Spend of the day, ad by ad."""

    def __init__(self, params: AuctionParams, ads: Ads) -> None:
        self._terms = Terms(ads.first, ads.last, ads.budget)
        self._pacing = pacing(params)
        self._day, self._spent = -1, np.zeros(ads.bid.size)

    @property
    def hourly(self) -> bool:
        """Whether any ad has a budget to be looked at every hour."""
        return bool((self._terms.budget != UNLIMITED).any())

    def eligible(self, at: int) -> Flags:
        """Which ads (A,) may be shown in the hour of a time."""
        # Hours are asked for in order, so money of the day before is forgotten and never needed
        # again.
        if at // MICROS_PER_DAY != self._day:
            self._day, self._spent = at // MICROS_PER_DAY, np.zeros(self._spent.size)
        return eligible(self._terms, self._spent, at, self._pacing)

    def record(self, rows: Ints, cost: Longs) -> None:
        """Costs (n,) of ads `rows` (n,)."""
        self._spent += np.bincount(rows, weights=cost, minlength=self._spent.size)
