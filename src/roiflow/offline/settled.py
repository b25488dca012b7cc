"""Slowly changing values: attributes of ads and users, and each week's catalogue."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.catalogue.eligibility import UNLIMITED, Pacing
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.features.rows import Window, micros
from roiflow.features.table import AD_ATTRIBUTES, Catalogue, Ints, Longs
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.open_hours import NEVER, Spend, shown_hours, solvent

_ATTRIBUTE_COLUMNS = dict(
    zip(AD_ATTRIBUTES, (c.CAMPAIGN, c.ADVERTISER, c.CATEGORY, c.BRAND, c.AD_TYPE), strict=True)
)


def _settled(table: pa.Table, key: str, test: int) -> pa.Table:
    """One row per id: the newest known before `test`, or else the first known."""
    if not table.num_rows:
        return table
    known = micros(table[c.KNOWN_TIME])
    code = np.asarray(table[key].combine_chunks().dictionary_encode().indices)
    # Those known before `test` come first, newest first, then the others, oldest first: the first
    # row of each id is the one to take.
    late = known >= test
    rank = np.where(late, known, -known)
    order = np.lexsort((rank, late, code))
    first = np.concatenate([[True], code[order][1:] != code[order][:-1]])
    return table.take(np.sort(order[first]))


def attributes_of(ads: pa.Table, vocabulary: Vocabulary, size: int, test: int) -> Ints:
    """Dense indices of the ads' attributes (size, len(AD_ATTRIBUTES)), settled before `test`."""
    table = _settled(ads, c.AD, test)
    attributes = np.zeros((size, len(AD_ATTRIBUTES)), np.int32)
    rows = vocabulary.index("ad", table[c.AD])
    for column, (kind, name) in enumerate(_ATTRIBUTE_COLUMNS.items()):
        attributes[rows, column] = vocabulary.index(kind, table[name])
    # Ads out of vocabulary all wrote into row 0.
    attributes[0] = 0
    return attributes


def profile_of(
    users: pa.Table, names: tuple[str, ...], vocabulary: Vocabulary, size: int, test: int
) -> Ints:
    """Dense indices of the users' attributes (size, len(names)), settled before `test`."""
    table = _settled(users, c.USER, test)
    profile = np.zeros((size, len(names)), np.int32)
    rows = vocabulary.index("user", table[c.USER])
    for column, name in enumerate(names):
        profile[rows, column] = vocabulary.index(f"profile:{name}", table[name])
    # Users out of vocabulary all wrote into row 0.
    profile[0] = 0
    return profile


def catalogues_of(
    window: Window, vocabulary: Vocabulary, shown: Longs, spend: Spend, pacing: Pacing
) -> Iterable[Catalogue]:
    """One per week, with when its ads could be shown; a week without a snapshot has the one before.

    `shown` (m,) are hours since the epoch times ads plus ad of what the log shows, sorted.
    """
    columns = [c.AD, c.PRICE, c.BID, c.KNOWN_TIME, c.DAILY_BUDGET, c.CREATED_AT, c.ENDS_AT]
    latest = window.read("ads", window.weeks[0], columns).slice(0, 0)
    for week in window.weeks:
        table = window.read("ads", week, columns)
        latest = table if table.num_rows else latest
        yield _catalogue(week, _settled(latest, c.AD, week.end), vocabulary, shown, spend, pacing)


def _catalogue(
    week: Week, table: pa.Table, vocabulary: Vocabulary, shown: Longs, spend: Spend, pacing: Pacing
) -> Catalogue:
    ad = vocabulary.index("ad", table[c.AD])
    order = np.argsort(ad, kind="stable")
    ad = ad[order]

    def column(name: str, missing: int) -> Longs:
        values = pc.fill_null(table[name].cast(pa.int64()), missing)
        return np.asarray(values.to_numpy())[order]

    budget = np.where(ad > 0, column(c.DAILY_BUDGET, UNLIMITED), UNLIMITED)
    start, end = column(c.CREATED_AT, 0), column(c.ENDS_AT, NEVER)
    money = solvent(week, ad, budget, spend, pacing)
    hour, at = shown_hours(shown, spend.ads, week, ad)
    # What was shown could be shown, whatever a snapshot says that came late or was corrected.
    time = week.start + MICROS_PER_HOUR * hour
    np.minimum.at(start, at, time)
    np.maximum.at(end, at, time + MICROS_PER_HOUR)
    if money.shape[0] > 1:
        money[hour, at] = True
    return Catalogue(
        str(week), ad, column(c.PRICE, 0), column(c.BID, 0), start, end, np.asarray(money)
    )


def price_and_bid(
    catalogues: tuple[Catalogue, ...], ads: int, ad: Ints, event_time: Longs
) -> tuple[Longs, Longs]:
    """Price and bid of logged ads (n,) in their week's catalogue, else the one before, or 0.

    Ads out of vocabulary, which share index 0, have none.
    """
    starts = np.array([Week.parse(catalogue.week).start for catalogue in catalogues])
    week = np.maximum(np.searchsorted(starts, event_time, side="right") - 1, 0)
    # A row per week, each begun with the one before: an ad that is not in its week's catalogue has
    # the last price that was known.
    price, bid = np.zeros((2, len(catalogues), ads), np.int64)
    for number, catalogue in enumerate(catalogues):
        if number:
            price[number], bid[number] = price[number - 1], bid[number - 1]
        price[number, catalogue.ad], bid[number, catalogue.ad] = catalogue.price, catalogue.bid
        price[number, 0] = bid[number, 0] = 0
    return price[week, ad], bid[week, ad]
