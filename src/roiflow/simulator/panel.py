"""The population of the Complete Journey panel: real households, products, prices and purchases.

Real, from the panel: who shops in a week and when, what they buy of the advertised categories (the
behaviours), which products sell and so are advertised (panel_catalogue.py), at what unit price, and
their campaign (product category), advertiser (manufacturer) and brand. Fitted, on weeks before the
simulated one alone: a household's interest in each product (panel_model.py). Planted, as no log has
it: page views around the real baskets (panel_views.py), creatives, what a click and a conversion
depend on besides interest, delays, bids and budgets.

The log odds of a click are those of `click_rate`, plus `interest_weight` times the interest (mean 0
over a household's ads, unit variance over all), plus `intent_weight` times the need: 1 at the
moment of a real purchase of the ad's category, half of that 12 hours ahead of it and so on, and 0
where none comes in the week. The platform never sees the need, as it lies in the future.

Times are the panel's wall clock, written as UTC. Nothing here depends on what is shown.
"""

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.sources.complete_journey import (
    FIRST_PANEL_WEEK,
    PANEL_WEEKS,
    PROFILE,
    UNKNOWN,
    CompleteJourney,
    number_of,
)
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.errors import ParamsError, UnknownWeek
from roiflow.params import SimulatorParams
from roiflow.simulator import auction, panel_model
from roiflow.simulator import population as people
from roiflow.simulator.noise import (
    Floats,
    Longs,
    Singles,
    Stream,
    generator,
    key,
    normals,
    uniforms,
)
from roiflow.simulator.panel_catalogue import Catalogue, choose_catalogue
from roiflow.simulator.panel_model import HeldOutFit, Purchases, ResponseModel
from roiflow.simulator.panel_views import draw_views
from roiflow.simulator.population import (
    Ads,
    Flags,
    Ints,
    Names,
    WorldBehaviours,
    WorldRequests,
    logit,
)
from roiflow.simulator.scenarios.effects import Effects, ends

NOT_ADVERTISED = ("FUEL", "MISCELLANEOUS", "COUPON", UNKNOWN)
"""Departments whose lines are not products with a price per unit."""
NEED_HOURS = 12.0
"""Time ahead of a real purchase in which the need for it doubles."""
CONVERSION_INTEREST, CONVERSION_NEED = 0.6, 0.5
"""Log odds of a conversion per unit of interest and of need."""
ACTIVITY_CLICK = 0.15
"""Log odds of a click per standard deviation of the log of a household's lines."""
USER_CLICK, USER_CONVERSION = 0.3, 0.3
AD_CLICK, AD_CONVERSION, CATEGORY_CONVERSION = 0.35, 0.35, 0.35
"""Standard deviations of hidden log odds."""
AD_TYPE_SHARES = (0.6, 0.25, 0.15)
BOT_VISITS = 10.0
LOWEST_PRICE = 10_000
"""Micros."""


class _Interests(NamedTuple):
    """What households want in a week."""

    values: Floats  # (U, N) in the catalogue's N ads
    activity: Floats  # (U,) mean 0, variance 1


class PanelPopulation:
    """A Population; every method is a function of the parameters and its arguments.

    Users are households, by id as text. Rows of Ads are the catalogue's ads in the order in which
    they start, then the other products of their categories: those are bought and never shown.

    Raises SourceError where the panel is not installed, and ParamsError, naming key and value,
    where it has not enough weeks or products.
    """

    def __init__(self, params: SimulatorParams, journey: CompleteJourney | None = None) -> None:
        self.params = params
        self._history, self._training = params.panel.history_weeks, params.panel.training_weeks
        self._start = 2 + self._history  # the panel's week 1 is a single Sunday
        most = PANEL_WEEKS - 2 - self._training
        if self._history > most:
            raise ParamsError(
                f"ingest.simulator.panel.history_weeks: at most {most}, as the panel has "
                f"{PANEL_WEEKS} weeks and {self._training} are trained on (value {self._history})"
            )
        self.first_week = FIRST_PANEL_WEEK.plus(self._start + self._training - 1)
        self.last_week = FIRST_PANEL_WEEK.plus(PANEL_WEEKS - 1)
        self._journey = journey or CompleteJourney.installed(self._history)
        # Of one week each, or a few: weeks are asked for one after the other.
        self._latest_ads: dict[Week, Ads] = {}
        self._latest_interests: dict[Week, _Interests] = {}
        self._latest_codes: dict[Week, Longs] = {}
        self._latest_features: dict[int, Singles] = {}

    @cached_property
    def user_ids(self) -> Names:
        """Households (U,), sorted as text."""
        return np.sort(_text(self._journey.households[c.USER]))

    @cached_property
    def purchases(self) -> Purchases:
        """All lines of the panel; households are rows of `user_ids`."""
        lines = self._journey.lines_of(1, PANEL_WEEKS)
        time, number = lines["time"].to_numpy(), lines["household"].to_numpy()
        numbers = np.unique(number)
        # Ids sort as text and the panel's numbers as numbers, so each number is looked up, but once
        # and not once a line.
        row = np.searchsorted(self.user_ids, numbers.astype(np.str_)).astype(np.int32)
        # From the week before the panel's first, so that a week's number is its place among the
        # starts.
        weeks = FIRST_PANEL_WEEK.start + np.arange(-1, PANEL_WEEKS + 1) * MICROS_PER_WEEK
        return Purchases(
            household=row[np.searchsorted(numbers, number)],
            product=lines["product"].to_numpy(),
            time=time,
            sales=lines["sales"].to_numpy(),
            quantity=lines["quantity"].to_numpy().astype(np.float64),
            starts=np.searchsorted(time, weeks),
            product_type=self._journey.product_type,
            households=self.user_ids.size,
        )

    @cached_property
    def catalogue(self) -> Catalogue:
        """The ads of all weeks, from the first one that a model is fitted on."""
        department = _text(self._journey.products["department"])
        weeks = range(self._start, PANEL_WEEKS + 1)
        found = choose_catalogue(
            self.purchases,
            ~np.isin(department, NOT_ADVERTISED),
            self.params.panel.products,
            self._history,
            weeks,
        )
        fewest = min(int(found.live(week).sum()) for week in weeks)
        if fewest < self.params.slate_size:
            raise ParamsError(
                f"ingest.simulator.slate_size: there are only {fewest} eligible ads in a week of "
                f"the panel (value {self.params.slate_size})"
            )
        return found

    @cached_property
    def _products(self) -> tuple[Longs, Longs]:
        """Product code and category (A,) of the rows of Ads."""
        catalogue, product_type = self.catalogue, self._journey.product_type
        of_type = np.full(int(product_type.max()) + 2, -1)  # the last one: no type
        of_type[product_type[catalogue.product]] = catalogue.category
        category = of_type[product_type]
        # Products that somebody bought at all: the behaviours need a row for each.
        other = np.bincount(self.purchases.product, minlength=category.size) > 0
        other &= category >= 0
        other[catalogue.product] = False
        codes = np.concatenate([catalogue.product, np.flatnonzero(other)])
        return codes, category[codes]

    @cached_property
    def _described(self) -> dict[str, Names]:
        """The contract's text columns (A,)."""
        nothing = np.zeros(self._journey.product_type.size, np.int64)
        table = self._journey.ads(self._products[0], nothing, nothing)
        columns = (c.AD, c.CAMPAIGN, c.ADVERTISER, c.BRAND, c.CATEGORY)
        return {name: _text(table[name]) for name in columns}

    @cached_property
    def categories(self) -> Names:
        """Product types that are advertised (C,), those that sell most first."""
        first = np.unique(self._products[1], return_index=True)[1]
        return self._described[c.CATEGORY][first]

    def bots(self, share: float) -> Flags:
        """Which households (U,) are bots where a share of all are."""
        return people.bots(self.params.seed, 0, self.user_ids.size, share)

    def users(self, week: Week) -> tuple[Ints, dict[str, Names]]:
        """Households that have shopped by the week's end, and their demographics."""
        lines = self.purchases.lines(1, self._number(week))
        rows = np.unique(self.purchases.household[lines])
        table = self._journey.households
        # Rows are of the sorted ids, the table is in the panel's own order.
        order = np.argsort(_text(table[c.USER]))[rows]
        return rows, {name: _text(table[name])[order] for name in PROFILE}

    def _number(self, week: Week) -> int:
        """The panel's number of a week. Raises UnknownWeek where it cannot be simulated."""
        if not self.first_week <= week <= self.last_week:
            raise UnknownWeek(
                f"the panel world holds {self.first_week} to {self.last_week} with "
                f"{self._history} weeks of history and {self._training} to train on, not {week}"
            )
        return number_of(week)

    def ads(self, week: Week, effects: Effects) -> Ads:
        """See Population.ads; price is the product's mean unit price in the weeks before."""
        if week not in self._latest_ads:
            self._latest_ads = {week: self._ads(week)}
        return _affected(self._latest_ads[week], effects)

    def _ads(self, week: Week) -> Ads:
        number, params = self._number(week), self.params
        product, category = self._products
        catalogue = self.catalogue.known(number)
        # Products that are not advertised start after the panel's end, and so are never eligible.
        never = np.full(product.size - catalogue.product.size, PANEL_WEEKS + 1)
        first, last = (
            FIRST_PANEL_WEEK.start + (np.concatenate([weeks, never]) - 1) * MICROS_PER_WEEK
            for weeks in (catalogue.first, catalogue.last)
        )

        def normal(what: int) -> Floats:
            return normals(key(params.seed, Stream.ADS, what), product)

        # A category's values are drawn in turn from one generator, an ad's by the product's own
        # code: the catalogue may change and leaves the other ads' draws as they were.
        rng = generator(params.seed, Stream.CATEGORIES)
        easy = CATEGORY_CONVERSION * rng.standard_normal(self.categories.size)
        fastest, slowest = params.delay_hours
        delay = rng.permutation(np.geomspace(fastest, slowest, self.categories.size))
        creative = uniforms(key(params.seed, Stream.ADS, 1), product)
        price = np.maximum(self._journey.price_and_bid(number)[0][product], LOWEST_PRICE)
        expected = price * people.sigmoid(logit(params.conversion_rate) + easy[category])
        bid = auction.bids(params.auction, params.click_rate, expected, normal(0))
        shows = self._views_a_day(number) * params.slate_size / catalogue.live(number).sum()
        before = self.purchases.lines(number - self._history, number - 1)
        bought = np.bincount(self.purchases.product[before], minlength=int(product.max()) + 1)
        # Of the categories that sell most, which come first and keep their ads longest.
        rank = np.where(np.arange(product.size) < catalogue.product.size, category, np.inf)
        live = np.pad(catalogue.live(number), (0, product.size - catalogue.product.size))
        house = np.zeros(product.size, np.bool_)
        house[np.argsort(np.where(live, rank, np.inf), kind="stable")[: params.slate_size]] = True
        return Ads(
            ids=self._described[c.AD],
            campaign=self._described[c.CAMPAIGN],
            advertiser=self._described[c.ADVERTISER],
            brand=self._described[c.BRAND],
            category=category.astype(np.int32),
            ad_type=np.searchsorted(np.cumsum(AD_TYPE_SHARES)[:-1], creative).astype(np.int32),
            price=price,
            bid=bid,
            budget=auction.budgets(params.auction, bid, params.click_rate, shows, normal(2), house),
            market=auction.market(params.auction, params.click_rate, expected),
            created_at=first,
            first=first,
            last=last,
            click=AD_CLICK * normal(3),
            conversion=easy[category] + AD_CONVERSION * normal(4),
            delay=delay[category],
            weight=bought[product].astype(np.float64),
        )

    def _views_a_day(self, number: int) -> float:
        """Expected page views a day, from the baskets of the weeks before."""
        baskets = self._baskets(number - self._history, number - 1)[0].size
        return self.params.panel.requests_per_visit * baskets / (7 * self._history)

    def _baskets(self, first: int, last: int) -> tuple[Ints, Longs]:
        """Household and time of each basket of some panel weeks, in time order."""
        lines = self.purchases.lines(first, last)
        user, time = self.purchases.household[lines], self.purchases.time[lines]
        order = np.lexsort((user, time))
        user, time = user[order], time[order]
        # Lines of one basket share household and time.
        new = np.ones(user.size, bool)
        new[1:] = (np.diff(user) != 0) | (np.diff(time) != 0)
        return user[new], time[new]

    def requests(self, week: Week, effects: Effects) -> WorldRequests:
        """Page views around each real basket of the week."""
        number, seed = self._number(week), self.params.seed
        user, time = self._baskets(number, number)
        mean = self.params.panel.requests_per_visit * effects.traffic[_weekday(time)]
        bot = self.bots(effects.bots)[user]
        return draw_views(seed, week, user, time, np.where(bot, BOT_VISITS * mean, mean))

    def behaviours(self, week: Week, effects: Effects) -> WorldBehaviours:
        """Every real purchase in the week of a product of the advertised categories."""
        del effects  # what was bought was bought
        number = self._number(week)
        lines = self.purchases.lines(number, number)
        # By product code; products of other categories have no row and are left out.
        row = np.full(self._journey.product_type.size, -1, np.int32)
        row[self._products[0]] = np.arange(self._products[0].size, dtype=np.int32)
        ad = row[self.purchases.product[lines]]
        here = ad >= 0
        count = int(here.sum())
        return WorldBehaviours(
            user=self.purchases.household[lines][here],
            ad=ad[here],
            action=np.full(count, people.ACTIONS.index("purchase"), np.int32),
            event_time=self.purchases.time[lines][here],
            dwell_ms=np.zeros(count, np.int64),
        )

    def model(self, week: Week) -> ResponseModel:
        """Fitted on the `training_weeks` weeks before, each with the catalogue of its time."""
        number = self._number(week)
        # Each week's pairs know only the weeks before their own, as the features of the week asked
        # about do: the model is fitted to what it will be asked.
        parts = [self._pairs(number - back) for back in range(self._training, 0, -1)]
        return panel_model.fit(parts, generator(self.params.seed, Stream.INTERESTS, number))

    def held_out_fit(self, week: Week) -> HeldOutFit:
        """How well the week's model foresees its real purchases of live ads' products."""
        return panel_model.held_out(self.model(week), self._pairs(self._number(week)))

    def _pairs(self, number: int) -> panel_model.Pairs:
        live = self.catalogue.live(number)
        values = self._features(number)[:, live]
        return panel_model.pairs(self.purchases, number, values, self.catalogue.product[live])

    def _features(self, number: int) -> Singles:
        """(U, N, F) of every ad of all weeks: a week is asked for by itself and by later ones.

        An ad's do not depend on the other ads. Two more weeks are kept than a fit needs, since a
        source asks for the two weeks before a window newest first.
        """
        if number not in self._latest_features:
            kept = list(self._latest_features.items())[-self._training - 1 :]
            made = panel_model.features(
                self.purchases, number, self._history, self.catalogue.product
            )
            self._latest_features = dict(kept) | {number: made}
        return self._latest_features[number]

    def _interests(self, week: Week) -> _Interests:
        if week not in self._latest_interests:
            self._latest_interests = {week: self._fit_interests(week)}
        return self._latest_interests[week]

    def _fit_interests(self, week: Week) -> _Interests:
        """A household without any line in the weeks before wants what is popular."""
        number = self._number(week)
        live = self.catalogue.live(number)
        wanted = self.model(week).log_odds(self._features(number))
        # What is left is which ads a household prefers, not how much it buys; that is `activity`.
        # The spread is of households with a history, for the others all want the same.
        wanted -= wanted[:, live].mean(1, keepdims=True)
        before = self.purchases.lines(number - self._history, number - 1)
        lines = np.bincount(self.purchases.household[before], minlength=self.user_ids.size)
        active = np.log1p(lines)
        return _Interests(
            values=wanted / (wanted[lines > 0][:, live].std() or 1.0),
            activity=(active - active.mean()) / (active.std() or 1.0),
        )

    def need(self, week: Week, user: Ints, at: Longs) -> Floats:
        """(n, C) 2^(-hours / NEED_HOURS) until the user really buys the category in the week."""
        if week not in self._latest_codes:
            bought = self.behaviours(week, Effects())
            category = self._products[1][bought.ad]
            # The next purchase of a category is found by one bisection over all users' purchases.
            # The last code is larger than any asked for, so there is always a next one, and the
            # comparison of user and category below tells whether it is theirs.
            codes = np.sort(self._code(week, bought.user, category, bought.event_time))
            self._latest_codes = {week: np.append(codes, np.iinfo(np.int64).max)}
        codes = self._latest_codes[week]
        asked = self._code(week, user[:, None], np.arange(self.categories.size), at[:, None])
        coming = codes[np.searchsorted(codes, asked)]
        same = coming // MICROS_PER_WEEK == asked // MICROS_PER_WEEK
        ahead = np.where(same, coming - asked, 0) / (NEED_HOURS * MICROS_PER_HOUR)
        return np.where(same, np.exp2(-ahead), 0.0)

    def _code(self, week: Week, user: Ints, category: Longs, at: Longs) -> Longs:
        """User, category and time in the week in one number that sorts like the three."""
        pair = user.astype(np.int64) * self.categories.size + category
        return pair * MICROS_PER_WEEK + (at - week.start)

    @cached_property
    def _partner(self) -> Longs:
        """Whose interests a household's turn to (U,)."""
        rng = generator(self.params.seed, Stream.INTERESTS)
        return rng.permutation(self.user_ids.size)

    def log_odds(
        self, requests: WorldRequests, ads: Ads, rows: Ints, effects: Effects
    ) -> tuple[Floats, Floats]:
        """See Population.log_odds; `rows` are rows of ads that have been shown."""
        if not requests.number.size:
            return np.zeros(rows.shape), np.zeros(rows.shape)
        params, user, time = self.params, requests.user_index, requests.event_time
        week = Week.of(int(time[0]))
        interests = self._interests(week)
        interest = interests.values[user[:, None], rows]
        if effects.turn:
            other = interests.values[self._partner[user][:, None], rows]
            # A turn and not a blend: interests of two households hardly go together, so the
            # variance stays what it was.
            interest = np.cos(effects.turn) * interest + np.sin(effects.turn) * other
        need = np.take_along_axis(self.need(week, user, time), ads.category[rows], 1)
        click = (
            logit(params.click_rate)
            + self._hidden(1, USER_CLICK)[user]
            + ACTIVITY_CLICK * interests.activity[user]
            + people.PLACEMENT_EFFECT[requests.placement_index]
            + people.HOUR_EFFECT[time // MICROS_PER_HOUR % 24]
        )[:, None] + people.AD_TYPE_ON_DEVICE[ads.ad_type[rows], requests.device_index[:, None]]
        click += params.interest_weight * interest + params.intent_weight * need
        conversion = (
            logit(params.conversion_rate)
            + self._hidden(2, USER_CONVERSION)[user]
            + effects.conversion[_weekday(time)]
        )[:, None] + (CONVERSION_INTEREST * interest + CONVERSION_NEED * need)
        return click + ads.click[rows], conversion + ads.conversion[rows]

    def _hidden(self, what: int, sigma: float) -> Floats:
        """Log odds of each user (U,)."""
        numbers = np.arange(self.user_ids.size)
        return sigma * normals(key(self.params.seed, Stream.USERS, what), numbers)


def _affected(ads: Ads, effects: Effects) -> Ads:
    """The ads as a scenario changes them; bids stay as they were."""
    return replace(
        ads,
        price=np.rint(ads.price * effects.price).astype(np.int64),
        budget=np.rint(ads.budget * effects.budget).astype(np.int64),
        last=ends(effects, ads.advertiser, ads.first, ads.last),
    )


def _text(values: pa.ChunkedArray | pa.Array) -> Names:
    """Text (n,), `unknown` where there is none."""
    known = values.cast(pa.string()).fill_null(UNKNOWN)
    return np.array(known.to_pylist(), np.str_)


def _weekday(at: Longs) -> Longs:
    """0 is Monday."""
    return (at // MICROS_PER_DAY + 3) % 7
