"""An ad world whose truth is known: a population, an auction, a response, a scenario.

What users do of their own accord does not depend on what is shown to them, so the expected value of
a slate has a closed form.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import UnknownWeek
from roiflow.params import SimulatorParams
from roiflow.simulator import auction, response
from roiflow.simulator.noise import Floats, Longs
from roiflow.simulator.population import (
    Ads,
    Flags,
    Ints,
    Names,
    Population,
    WorldBehaviours,
    WorldRequests,
    rows_of,
    sigmoid,
)
from roiflow.simulator.refusal import refuse_impossible
from roiflow.simulator.response import Outcome, Response
from roiflow.simulator.scenarios import SCENARIOS
from roiflow.simulator.scenarios.effects import Effects
from roiflow.simulator.synthetic import SyntheticPopulation, shards

BOT_CLICK, BOT_CONVERSION = 0.9, 1e-9


class World:
    """The world of one set of parameters; every method is a function of them and its arguments.

    Raises ParamsError, naming key and value, where no such world can be.
    """

    def __init__(self, params: SimulatorParams, population: Population | None = None) -> None:
        refuse_impossible(params)
        self.params = params
        self.population = population or populate(params)
        self.first_week = self.population.first_week
        self.slate_size = params.slate_size
        self._lag = params.known_lag_hours * MICROS_PER_HOUR
        # Requests and prices of the latest week only: weeks are played in order.
        self._requests: dict[Week, WorldRequests] = {}
        self._effects: dict[Week, Effects] = {}
        self._price: dict[Week, Floats] = {}

    @property
    def user_ids(self) -> Names:
        """Every user there ever is (U,), sorted."""
        return self.population.user_ids

    def effects(self, week: Week) -> Effects:
        """What the scenario does in a week. Raises UnknownWeek outside the world's weeks."""
        last = self.population.last_week
        if last is not None and week > last:
            raise UnknownWeek(f"week {week}: the {self.params.world} world ends with {last}")
        if week not in self._effects:
            self._effects[week] = SCENARIOS[self.params.scenario].effects(self.params, week)
        return self._effects[week]

    def known_time(self, event_time: Longs) -> Longs:
        """Microseconds: the next multiple of known_lag_hours, or the end of an outage."""
        # Never the event's own time: what happens at a multiple is known at the next.
        known = (event_time // self._lag + 1) * self._lag
        for week in _weeks(event_time):
            outage = self.effects(week).outage
            if outage is not None:
                start, end, until = outage
                known = np.where((start <= event_time) & (event_time < end), until, known)
        return known

    def ads(self, week: Week) -> Ads:
        """Every ad up to a week."""
        return self.population.ads(week, self.effects(week))

    def eligible(self, week: Week) -> Flags:
        """Which ads (A,) may be shown at the week's start, budgets aside."""
        ads = self.ads(week)
        return (ads.first <= week.start) & (week.start < ads.last)

    def pacer(self, week: Week) -> auction.Pacer:
        """What ads may still spend, from the week's start on."""
        return auction.Pacer(self.params.auction, self.ads(week))

    def requests(self, week: Week) -> WorldRequests:
        """Every request of a week."""
        if week not in self._requests:
            self._requests = {week: self.population.requests(week, self.effects(week))}
        return self._requests[week]

    def behaviours(self, week: Week) -> WorldBehaviours:
        """Every organic behaviour of a week."""
        return self.population.behaviours(week, self.effects(week))

    def respond(self, requests: WorldRequests, rows: Ints) -> Response:
        """True probabilities of ads `rows` (B, K) of the catalogue; requests of one week."""
        if not requests.number.size:
            none = np.zeros(rows.shape)
            return Response(none, none, none, none, none)
        # Catalogue and effects are the week's, so all requests are of one; the first tells which.
        week = Week.of(int(requests.event_time[0]))
        ads, effects = self.ads(week), self.effects(week)
        click, conversion = self.population.log_odds(requests, ads, rows, effects)
        if week not in self._price:
            self._price = {week: auction.expected_price(self.params.auction, ads)}
        price = self._price[week][rows]
        free = np.zeros(rows.shape)
        by_click = self.params.auction.charge == "click"
        kept = 1 - self.params.return_rate
        truth = Response(
            click=sigmoid(click),
            conversion=sigmoid(conversion),
            revenue=kept * ads.price[rows].astype(np.float64),
            click_cost=price if by_click else free,
            look_cost=free if by_click else price,
        )
        return self._with_bots(truth, requests, effects)

    def _with_bots(self, truth: Response, requests: WorldRequests, effects: Effects) -> Response:
        if not effects.bots:
            return truth
        bot = self.population.bots(effects.bots)[requests.user_index][:, None]
        return replace(
            truth,
            click=np.where(bot, BOT_CLICK, truth.click),
            conversion=np.where(bot, BOT_CONVERSION, truth.conversion),
        )

    def examine(self, click: Floats) -> Floats:
        """P(position is looked at) (B, S) of slates with P(click | look) (B, S)."""
        return response.examine(self.params.examination, click)

    def happen(self, week: Week, requests: WorldRequests, slates: Ints) -> Outcome:
        """What comes of slates (B, S) of a week's requests; their numbers address the draws."""
        truth = self.respond(requests, slates)
        return response.happen(self.params, week, self.ads(week), truth, slates, requests.number)

    def ad_rows(self, week: Week, ad_ids: Names) -> Ints:
        """Rows of a week's catalogue (n,). Raises ContractError, naming the ad."""
        return rows_of(self.ads(week).ids, ad_ids, "ad {!r} is not in the catalogue")

    def user_rows(self, user_ids: Names) -> Ints:
        """Rows of user_ids (n,). Raises ContractError naming an unknown one."""
        return rows_of(self.user_ids, user_ids, "user {!r} is not in the world")


def populate(params: SimulatorParams) -> Population:
    """The population that the parameters name."""
    if params.world == "synthetic":
        return SyntheticPopulation(params)
    from roiflow.simulator.panel import PanelPopulation

    return PanelPopulation(params)


def parts(params: SimulatorParams) -> list[Callable[[], World]]:
    """The world in parts of its users, each with its share of the budgets, made when called."""
    if params.world != "synthetic":
        return [partial(World, params)]
    return [partial(_part, params, part) for part in shards(params)]


def _part(params: SimulatorParams, part: range) -> World:
    return World(params, SyntheticPopulation(params, part))


def _weeks(times: Longs) -> list[Week]:
    if not times.size:
        return []
    first, last = Week.of(int(times.min())), Week.of(int(times.max()))
    found = [first]
    while found[-1] < last:
        found.append(found[-1].plus(1))
    return found
