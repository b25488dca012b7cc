"""Slowly changing values: attributes of ads and users, and each week's catalogue."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.weeks import Week
from roiflow.features.rows import Window, micros, numbers
from roiflow.features.table import AD_ATTRIBUTES, Catalogue, Ints, Longs
from roiflow.features.vocabulary import Vocabulary

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


def catalogues_of(window: Window, vocabulary: Vocabulary) -> Iterable[Catalogue]:
    """One per week; a week without a snapshot has the one before."""
    latest = Catalogue("", np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64))
    for week in window.weeks:
        table = window.read("ads", week, [c.AD, c.PRICE, c.BID, c.KNOWN_TIME])
        if table.num_rows:
            table = _settled(table, c.AD, week.end)
            ad = vocabulary.index("ad", table[c.AD])
            order = np.argsort(ad, kind="stable")
            latest = Catalogue(
                str(week),
                ad[order],
                numbers(table[c.PRICE])[order],
                numbers(table[c.BID])[order],
            )
        yield replace(latest, week=str(week))


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
