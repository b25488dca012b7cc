"""What users of the synthetic world do and how they answer: compiled passes over visits and slates.

A visit comes with 64 random bits of its own. They are cut into fields (an ad, an alias, an action,
a dwell time) instead of drawing again for each: generating a week is mostly random numbers.
"""

from functools import lru_cache

import numpy as np

from roiflow.compiled import compiled
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats, Longs, Singles, bits_of, normal_quantiles, uniform
from roiflow.simulator.population import Ads, Ints
from roiflow.simulator.visits import Words

ACTION_SHARES = np.array([0.60, 0.22, 0.08, 0.06, 0.04])
INTEREST_ON_CONVERSION = 0.3
INTEREST_ON_ACTION = 0.5

ACTION_BOUNDS = 0.5 + np.log(np.cumsum(ACTION_SHARES)[:-1] / (1 - np.cumsum(ACTION_SHARES)[:-1]))


@lru_cache(maxsize=1)
def logistic_quantiles() -> Singles:
    """The logistic law at the middles of 4,096 equal shares: 12 bits draw one of them."""
    share = (np.arange(4096) + 0.5) / 4096
    table: Singles = np.log(share / (1 - share)).astype(np.float32)
    return table


@lru_cache(maxsize=1)
def dwell_table() -> Longs:
    """Milliseconds (actions, 4096): log-normal, longer for stronger actions."""
    # Every sixteenth quantile: 12 of the 16 bits.
    normal = normal_quantiles()[8::16].astype(np.float64)
    action = np.arange(len(people.ACTIONS))[:, None]
    return np.exp(8.0 + 0.3 * action + 0.8 * normal).astype(np.int64)


def cumulated_shares(interest: Singles) -> Singles:
    """Cumulated shares (U, C) of the categories that users turn to."""
    weight = np.exp(interest)
    total = np.cumsum(weight, axis=1)
    shares: Singles = total / total[:, -1:]
    return shares


def alias_by_category(ads: Ads, at: int, categories: int) -> tuple[Longs, Ints, Singles, Ints]:
    """Alias tables of the ads of each category (Walker, 1977): live ones, or all where none lives.

    Ads `order` of category c are at [first[c], first[c + 1]); entry e stays with probability
    chance[e] and is entry other[e] otherwise.
    """
    # Without the fallback a category that has died out would have no table, and users still turn to
    # it.
    live = (ads.first <= at) & (at < ads.last)
    lively = np.bincount(ads.category[live], minlength=categories) > 0
    rows = np.flatnonzero(live | ~lively[ads.category])
    order = rows[np.argsort(ads.category[rows], kind="stable")].astype(np.int32)
    first = np.searchsorted(ads.category[order], np.arange(categories + 1))
    chance, other = _alias(first, ads.weight[order])
    return first, order, chance, other


@compiled(nogil=True)
def _alias(first: Longs, weight: Floats) -> tuple[Singles, Ints]:
    chance = np.ones(weight.size, np.float32)
    other = np.arange(weight.size).astype(np.int32)
    for block in range(first.size - 1):
        low, high = first[block], first[block + 1]
        count = high - low
        if count == 0:
            continue
        # Every entry gets an equal share of the draws; who weighs less gives the rest of his away.
        share = weight[low:high] / weight[low:high].sum() * count
        small, large = np.empty(count, np.int64), np.empty(count, np.int64)
        smalls, larges = 0, 0
        for row in range(count):
            if share[row] < 1.0:
                small[smalls] = row
                smalls += 1
            else:
                large[larges] = row
                larges += 1
        while smalls and larges:
            smalls -= 1
            less, more = small[smalls], large[larges - 1]
            chance[low + less] = share[less]
            other[low + less] = low + more
            share[more] -= 1.0 - share[less]
            if share[more] < 1.0:
                larges -= 1
                small[smalls] = more
                smalls += 1
    return chance, other


@compiled(nogil=True)
def decide(
    order: Longs,
    user: Ints,
    time: Longs,
    bits: Words,
    session: Words,
    interest: Singles,
    cumulated: Singles,
    stay: float,
    first: Longs,
    ads: Ints,
    chance: Singles,
    other: Ints,
    bounds: Floats,
    logistic: Singles,
    dwell: Longs,
) -> tuple[Ints, Ints, Ints, Longs, Longs]:
    """User, ad, action, time and dwell of visits, in their order."""
    count, categories = order.size, cumulated.shape[1]
    out_user, out_ad = np.empty(count, np.int32), np.empty(count, np.int32)
    out_action, out_time = np.empty(count, np.int32), np.empty(count, np.int64)
    out_dwell = np.empty(count, np.int64)
    for row in range(order.size):
        visit = order[row]
        who, word = user[visit], bits[visit]
        # With chance `stay` the visit is about its session's category; what is left of the same
        # draw, stretched, picks a category of the user's own.
        about = uniform(bits_of(word, 0))
        share = uniform(session[visit]) if about < stay else (about - stay) / (1.0 - stay)
        category = 0
        while category < categories - 1 and share >= cumulated[who, category]:
            category += 1
        # The low 32 bits pick an entry of the alias table, the next 16 whether to stay with it.
        low, size = first[category], first[category + 1] - first[category]
        entry = low + np.int64(((word & np.uint64(0xFFFFFFFF)) * np.uint64(size)) >> np.uint64(32))
        if np.float64((word >> np.uint64(32)) & np.uint64(0xFFFF)) / 65536.0 >= chance[entry]:
            entry = other[entry]
        # Ordered logit: interest plus logistic noise, cut at bounds; 12 more bits are the dwell.
        rest = bits_of(word, 1)
        strength = INTEREST_ON_ACTION * interest[who, category]
        strength += logistic[rest & np.uint64(0xFFF)]
        kind = 0
        while kind < bounds.size and strength > bounds[kind]:
            kind += 1
        out_user[row] = who
        out_ad[row] = ads[entry]
        out_action[row] = kind
        out_time[row] = time[visit]
        out_dwell[row] = dwell[kind, (rest >> np.uint64(12)) & np.uint64(0xFFF)]
    return out_user, out_ad, out_action, out_time, out_dwell


@compiled(nogil=True)
def contexts(bits: Words, user: Ints, usual: Ints) -> tuple[Ints, Ints]:
    """Placement and device (n,) of requests with bits (n,); `usual` is each user's device."""
    placement, device = np.empty(user.size, np.int32), np.empty(user.size, np.int32)
    for row in range(user.size):
        word = bits[row]
        share = np.float64(word & np.uint64(0xFFFF)) / 65536.0
        placement[row] = (share >= PLACED[0]) + (share >= PLACED[1])
        same = np.float64((word >> np.uint64(16)) & np.uint64(0xFFFF)) / 65536.0
        share = np.float64((word >> np.uint64(32)) & np.uint64(0xFFFF)) / 65536.0
        other = (share >= USED[0]) + (share >= USED[1])
        device[row] = usual[user[row]] if same < 0.8 else other
    return placement, device


PLACED = (people.PLACEMENT_SHARES[0], people.PLACEMENT_SHARES[0] + people.PLACEMENT_SHARES[1])
USED = (people.DEVICE_SHARES[0], people.DEVICE_SHARES[0] + people.DEVICE_SHARES[1])


@compiled(nogil=True)
def count_by_user(user: Ints, offsets: Longs) -> None:
    """Add how often each user occurs, one place on."""
    for who in user:
        offsets[who + 1] += 1


@compiled(nogil=True)
def place_by_user(
    user: Ints,
    time: Longs,
    ad: Ints,
    action: Ints,
    category_of: Ints,
    weight_of: Floats,
    rate: float,
    origin: int,
    free: Longs,
    out_time: Longs,
    out_category: Ints,
    out_grown: Floats,
) -> None:
    """Put each user's events where they are free, in the order in which they come."""
    for row in range(user.size):
        place = free[user[row]]
        free[user[row]] = place + 1
        out_time[place] = time[row]
        out_category[place] = category_of[ad[row]]
        out_grown[place] = weight_of[action[row]] * np.exp(rate * (time[row] - origin))


@compiled(nogil=True)
def log_odds_of(
    user: Ints,
    at: Longs,
    device: Ints,
    base: Floats,
    won: Floats,
    interest: Singles,
    interest_weight: float,
    intent_weight: float,
    offsets: Longs,
    time: Longs,
    category: Ints,
    grown: Floats,
    rate: float,
    origin: int,
    reach: int,
    rows: Ints,
    ad_category: Ints,
    ad_type: Ints,
    ad_click: Floats,
    ad_conversion: Floats,
    creative: Floats,
) -> tuple[Floats, Floats]:
    """Log odds of a click and of a conversion (B, K) of ads `rows` shown to users (B,).

    Recent intent is a sum over the user's behaviours of the last days, each of which fades with
    its age. exp(-rate (t - s)) is exp(-rate t) exp(rate s), whose second factor was made when the
    history was put in place: here each behaviour is one addition, and each request one exp.
    """
    click, conversion = np.empty(rows.shape), np.empty(rows.shape)
    recent = np.empty(interest.shape[1])
    for row in range(user.size):
        who = user[row]
        recent[:] = 0.0
        # From the newest back, and no farther than intent reaches.
        for event in range(offsets[who + 1] - 1, offsets[who] - 1, -1):
            age = at[row] - time[event]
            if age > reach:
                break
            if age > 0:
                recent[category[event]] += grown[event]
        fade = np.exp(-rate * (at[row] - origin))
        for place in range(rows.shape[1]):
            ad = rows[row, place]
            about = ad_category[ad]
            intent = np.log1p(fade * recent[about]) if recent[about] > 0.0 else 0.0
            click[row, place] = (
                base[row]
                + interest_weight * interest[who, about]
                + intent_weight * intent
                + creative[ad_type[ad], device[row]]
                + ad_click[ad]
            )
            conversion[row, place] = (
                won[row] + INTEREST_ON_CONVERSION * interest[who, about] + ad_conversion[ad]
            )
    return click, conversion
