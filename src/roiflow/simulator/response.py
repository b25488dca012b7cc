"""What comes of slates: looks, clicks, cost, conversions, revenue and returns.

Positions are looked at by the position-based model (Richardson et al., 2007) or a cascade that may
go on after a click (the dependent click model, Guo et al., 2009). A look becomes a click, a click a
conversion after an exponential delay, revenue is log-normal around the price, and a share of the
conversions is returned in full.
"""

from dataclasses import dataclass

import numpy as np

from roiflow.compiled import compiled
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.params import ExaminationParams, SimulatorParams
from roiflow.simulator import auction
from roiflow.simulator.noise import Floats, Longs, Stream, bits_of, key, normals, uniform, uniforms
from roiflow.simulator.population import Ads, Flags, Ints


@dataclass(frozen=True)
class Response:
    """The true probabilities of showing ads (B, K) to requests (B,)."""

    click: Floats  # (B, K) P(click | looked at)
    conversion: Floats  # (B, K) P(conversion | click)
    revenue: Floats  # (B, K) E[revenue less returns | conversion], micros
    click_cost: Floats  # (B, K) E[paid per click], micros
    look_cost: Floats  # (B, K) E[paid per look], micros

    @property
    def value(self) -> Floats:
        """(B, K) expected revenue minus cost of a look, micros."""
        return self.click * (self.conversion * self.revenue - self.click_cost) - self.look_cost


@dataclass(frozen=True)
class Outcome:
    """What came of n slates of S ads."""

    clicked: Flags  # (n, S)
    cost: Longs  # (n, S) micros, 0 where nothing is charged
    converted: Longs  # (m,) the cells of (n, S), row by row, that converted
    delay: Longs  # (m,) microseconds from impression to conversion
    revenue: Longs  # (m,) micros
    returned: Longs  # (r,) which of the m are returned
    kept: Longs  # (r,) microseconds from conversion to return


def examine(params: ExaminationParams, click: Floats) -> Floats:
    """P(position is looked at) (B, S) of slates with P(click | look) (B, S)."""
    slots = click.shape[1]
    if params.model == "position_based":
        # A view of one row: nothing of it depends on the slate.
        by_position = np.arange(1, slots + 1, dtype=np.float64) ** -params.exponent
        return np.broadcast_to(by_position, click.shape)
    out = np.ones(click.shape)
    on = goes_on(params, click)
    # The first position is always looked at, another one only if all above it are.
    np.cumprod(on[:, :-1], axis=1, out=out[:, 1:])
    return out


def goes_on(params: ExaminationParams, click: Floats) -> Floats:
    """The cascade's P(the next position is looked at | this one is), in the shape of `click`."""
    return click * params.after_click + (1 - click) * params.after_skip


def happen(
    params: SimulatorParams, week: Week, ads: Ads, truth: Response, slates: Ints, numbers: Longs
) -> Outcome:
    """Draw what comes of slates (B, S) of a week's requests `numbers` (B,).

    Every draw is addressed by week, request and position.
    """
    slots = slates.shape[1]

    def family(stream: Stream) -> np.uint64:
        return key(params.seed, stream, week.start // MICROS_PER_DAY)

    look = params.examination
    based = look.model == "position_based"
    position = np.arange(1, slots + 1, dtype=np.float64) ** -look.exponent
    looked, clicked, won = _respond(
        family(Stream.LOOK), family(Stream.CLICK), family(Stream.CONVERSION), numbers,
        truth.click, truth.conversion, position, based, look.after_click, look.after_skip,
    )  # fmt: skip
    charged = np.flatnonzero(clicked if params.auction.charge == "click" else looked)
    # A cell is a request's position: what addresses every draw of it, whichever ad is there, so
    # that two policies meet the same luck.
    cells = (numbers[:, None] * slots + np.arange(slots)).ravel()
    shown = slates.ravel()
    cost = np.zeros(shown.size, np.int64)
    draw = uniforms(family(Stream.PRICE), cells[charged])
    cost[charged] = auction.paid(params.auction, ads, shown[charged], draw)
    converted = np.flatnonzero(won)
    cell, ad = cells[converted], shown[converted]
    sigma = params.revenue_sigma
    # Less half the variance, so that the mean revenue is the price, as the closed form has it.
    spread = np.exp(sigma * normals(family(Stream.REVENUE), cell) - sigma**2 / 2)
    # Even numbers decide on the return, odd ones on its time: two draws out of one family.
    back = uniforms(family(Stream.RETURN), 2 * cell)
    returned = np.flatnonzero(back < params.return_rate)
    kept = uniforms(family(Stream.RETURN), 2 * cell[returned] + 1) * params.return_days
    delay = _delay(params, ads.delay[ad], uniforms(family(Stream.DELAY), cell))
    return Outcome(
        clicked=clicked,
        cost=cost.reshape(slates.shape),
        converted=converted,
        delay=delay,
        revenue=np.rint(ads.price[ad] * spread).astype(np.int64),
        returned=returned,
        kept=(kept * MICROS_PER_DAY).astype(np.int64) + 1,
    )


def _delay(params: SimulatorParams, mean: Floats, uniform: Floats) -> Longs:
    """Exponential delays of means in hours, cut at the attribution window, microseconds."""
    # Inversion of the exponential law cut at the window's end. log1p and expm1 keep their digits
    # where the window is short beside the mean. One microsecond more, so that no conversion comes
    # together with its impression.
    hours = -mean * np.log1p(uniform * np.expm1(-params.attribution_days * 24.0 / mean))
    return (hours * MICROS_PER_HOUR).astype(np.int64) + 1


@compiled(nogil=True)
def _respond(
    look_family: np.uint64,
    click_family: np.uint64,
    conversion_family: np.uint64,
    numbers: Longs,
    click: Floats,
    conversion: Floats,
    position: Floats,
    based: bool,
    after_click: float,
    after_skip: float,
) -> tuple[Flags, Flags, Flags]:
    # A click is only drawn where there was a look, a conversion only where there was a click: every
    # draw has an address of its own, so those that are left out change no other.
    looked = np.zeros(click.shape, np.bool_)
    clicked, won = np.zeros(click.shape, np.bool_), np.zeros(click.shape, np.bool_)
    slots = click.shape[1]
    for row in range(click.shape[0]):
        chance = 1.0
        for slot in range(slots):
            cell = numbers[row] * slots + slot
            if based:
                chance = position[slot]
            if chance < 1.0 and uniform(bits_of(look_family, cell)) >= chance:
                # A cascade ends with the first position that nobody looks at; otherwise positions
                # are independent.
                if not based:
                    break
                continue
            looked[row, slot] = True
            clicked[row, slot] = uniform(bits_of(click_family, cell)) < click[row, slot]
            if clicked[row, slot]:
                won[row, slot] = uniform(bits_of(conversion_family, cell)) < conversion[row, slot]
            chance = after_click if clicked[row, slot] else after_skip
    return looked, clicked, won
