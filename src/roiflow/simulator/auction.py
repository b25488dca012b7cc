"""What ads bid and pay, and how long their money lasts.

First price pays the bid. Second price pays the highest bid of an outside market, log-normal around
its median and known to be below the ad's own (Vickrey, 1961): a truncated log-normal, whose mean
has a closed form. A charge is made per click, or per impression that is looked at.

A budget holds for a day (UTC) and is looked at every hour: an ad that has spent it, or with pacing
more of it than the day's traffic up to the end of the hour stands for, is not eligible.
"""

import numpy as np

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
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
    params: AuctionParams, bid: Longs, click_rate: float, shows: float, normal: Floats
) -> Longs:
    """Daily budgets (A,), micros, of ads that would be shown `shows` times a day on average."""
    if not params.budget_share:
        return np.zeros(bid.size, np.int64)
    charged = shows * (click_rate if params.charge == "click" else 1.0)
    amount = params.budget_share * charged * bid * np.exp(BUDGET_SIGMA * normal)
    # A day pays for one charge at least. A smaller budget would be overspent by its first charge.
    return np.maximum(micros(amount / 1e6), bid)


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


class Pacer:
    """Spend of the day, ad by ad."""

    def __init__(self, params: AuctionParams, ads: Ads) -> None:
        self._ads, self._pacing = ads, params.pacing
        self._day, self._spent = -1, np.zeros(ads.bid.size)

    @property
    def hourly(self) -> bool:
        """Whether any ad has a budget to be looked at every hour."""
        return bool(self._ads.budget.any())

    def eligible(self, at: int, slots: int) -> Flags:
        """Which ads (A,) may be shown in the hour of a time.

        Where fewer than `slots` ads have money left, a slate is filled up by those that have spent
        the least of their budget.
        """
        ads = self._ads
        here: Flags = (ads.first <= at) & (at < ads.last)
        if not self.hourly:
            return here
        # Hours are asked for in order, so money of the day before is forgotten and never needed
        # again.
        if at // MICROS_PER_DAY != self._day:
            self._day, self._spent = at // MICROS_PER_DAY, np.zeros(ads.bid.size)
        hour = at // MICROS_PER_HOUR % 24
        share = HOUR_SHARES[: hour + 1].sum() if self._pacing else 1.0
        # No budget is no limit: infinity keeps such ads in the same comparison, and ranks them
        # first below.
        limit = np.where(ads.budget > 0, ads.budget, np.inf) * share
        rich: Flags = here & (self._spent < limit)
        if rich.sum() < slots:
            # Ads that have ended come last, and out again below where even they were needed to fill
            # up.
            rank = np.where(here, self._spent / limit, np.inf)
            rich[np.argsort(rank, kind="stable")[:slots]] = True
            rich &= here
        return rich

    def record(self, rows: Ints, cost: Longs) -> None:
        """Costs (n,) of ads `rows` (n,)."""
        self._spent += np.bincount(rows, weights=cost, minlength=self._spent.size)
