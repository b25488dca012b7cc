"""As-known dense features offline: of every logged impression, and of any candidates.

Both go through the same two compiled passes over the same logs, so a logged pair and the same pair
among a request's candidates have equal features to the bit.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features import kernels
from roiflow.features.folder import read_arrays, write_arrays
from roiflow.features.history import sort_rows
from roiflow.features.plan import CONTEXT_PLACEMENT, Plan, frozen
from roiflow.features.table import (
    Catalogue,
    Events,
    Features,
    Flags,
    Ints,
    Longs,
    Requests,
    Singles,
)

PLAN = "plan.parquet"
USER_LOG, ITEM_LOG = "counters/user", "counters/item"


@dataclass(frozen=True)
class UserLog:
    """Counted rows, CSR by user, each user's ordered by known_time."""

    offsets: Longs  # (users + 1,)
    known_time: Longs  # (m,)
    ad: Ints  # (m,)
    category: Ints  # (m,)
    kind: NDArray[np.uint8]  # (m,) kernels.IMPRESSION, ...

    def categorised(self, attributes: Ints, rows: Flags) -> "UserLog":
        """With the categories that `attributes` (ads, 5) tell of what was shown in `rows` (m,).

        Behaviours keep the category that they came with; an ad without a row has none.
        """
        shown = rows & (self.kind != kernels.BEHAVIOUR) & (self.kind != kernels.INTENT)
        ad = self.ad[shown]
        there = ad < attributes.shape[0]
        category = np.array(self.category)
        category[shown] = np.where(there, attributes[np.where(there, ad, 0), kernels.CATEGORY], 0)
        return replace(self, category=frozen(category))


@dataclass(frozen=True)
class ItemLog:
    """What each ad had in each hour of known_time, ordered by hour."""

    hour: Ints  # (m,) hours since the epoch
    rows: Longs  # (m, 6) ad, placement, impressions, clicks, conversions, revenue (item_rows.py)


@dataclass(frozen=True)
class Engine:
    """The plan and the logs that it counts."""

    plan: Plan
    user_log: UserLog
    item_log: ItemLog

    def dense(
        self,
        user: Ints,
        event_time: Longs,
        placement: Ints,
        last_time: Longs,
        *,
        ad: Ints,
        price: Longs,
        bid: Longs,
        until: Longs | None = None,
    ) -> Singles:
        """Features as known at event_time; (B,), ... and ad, price, bid (B, K) -> (B, K, F).

        `last_time` (B,) is the event_time of the last behaviour known, -1 without one. Where `ad`
        is -1 the features are 0. The user side counts what was known before `until` (B,) only, if
        that is given and earlier.
        """
        plan, log, items = self.plan, self.user_log, self.item_log
        out = np.zeros((*ad.shape, len(plan.specs)), np.float32)
        time, ad = frozen(event_time), frozen(ad)
        hour = frozen((event_time // MICROS_PER_HOUR).astype(np.int32))
        # The passes move on with time and never look back, so each gets its own order of the
        # requests: by user and time here, by hour below. Rows are filled where they are.
        by_user, _ = sort_rows(user, plan.sizes["user"], event_time)
        fill_user_side(plan, log, user, time, ad, out, order=by_user, until=until)
        kernels.item_pass(
            np.argsort(hour, kind="stable"), hour, ad, frozen(placement), items.hour, items.rows,
            plan.ad_attributes, plan.item_cells, plan.rates, kernels.LOGS, out,
        )  # fmt: skip
        plan.values(event_time, last_time, ad=ad, price=price, bid=bid, out=out)
        return out

    def requests(self, features: Features, first_rows: Longs, catalogue: Catalogue) -> Requests:
        """Logged slates, one impression row of each (B,), with the ads that could be shown then.

        The columns are the catalogue's; an ad that could not be shown is no candidate (-1). Work
        through many requests in chunks: the result takes 4 F + 20 bytes per pair.
        """
        log = features.impressions
        start, end = log.history_start[first_rows], log.history_end[first_rows]
        asked = Asked(
            log.request[first_rows],
            log.user[first_rows],
            log.event_time[first_rows],
            start,
            end,
            log.context[first_rows],
        )
        last = last_times(features.events, start, end)
        return self.over(catalogue, asked, last, catalogue.eligible(asked.event_time))

    def over(
        self,
        catalogue: Catalogue,
        asked: "Asked",
        last_time: Longs,
        eligible: Flags | None = None,
    ) -> Requests:
        """Every ad of the catalogue for each request, or those that are `eligible` (B, a).

        `last_time` (B,) is as `dense` takes it.
        """
        shape = (asked.number.size, catalogue.ad.size)
        ad, price, bid = (
            # Copies: the compiled passes take contiguous arrays, and a broadcast view is none.
            np.ascontiguousarray(np.broadcast_to(values, shape))
            for values in (catalogue.ad, catalogue.price, catalogue.bid)
        )
        if eligible is not None:
            ad = np.where(eligible, ad, np.int32(-1))
        return Requests(
            request=asked.number,
            user=asked.user,
            event_time=asked.event_time,
            history_start=asked.history_start,
            history_end=asked.history_end,
            context=asked.context,
            ad=ad,
            price=price,
            bid=bid,
            dense=self.dense(
                asked.user,
                asked.event_time,
                asked.context[:, CONTEXT_PLACEMENT],
                last_time,
                ad=ad,
                price=price,
                bid=bid,
            ),
        )


@dataclass(frozen=True)
class Asked:
    """B requests, before it is known which ads they may show."""

    number: Longs  # (B,)
    user: Ints  # (B,)
    event_time: Longs  # (B,)
    history_start: Longs  # (B,) rows of the events
    history_end: Longs  # (B,)
    context: Ints  # (B, len(CONTEXT))


def fill_user_side(
    plan: Plan,
    log: UserLog,
    user: Ints,
    event_time: Longs,
    ad: Ints,
    out: Singles,
    *,
    order: Longs,
    until: Longs | None = None,
) -> None:
    """The user-side columns of `out` (B, K, F); `order` (B,) is by user, then time."""
    time = frozen(event_time)
    kernels.user_pass(
        order, frozen(user), time, time if until is None else frozen(until), frozen(ad),
        log.offsets, log.known_time, log.ad, log.category, log.kind, plan.ad_attributes,
        plan.user_cells, plan.rates, kernels.LOGS, out,
    )  # fmt: skip


def last_times(events: Events, start: Longs, end: Longs) -> Longs:
    """event_time of the last behaviour of each history slice; (B,), -1 where it is empty."""
    # Without any event there is no row 0 to read for those who have none.
    if not events.event_time.size:
        return np.full(start.size, -1, np.int64)
    # Both sides of a `where` are read, so an empty slice at the start reads row 0 and drops it.
    return np.where(end > start, events.event_time[np.maximum(end - 1, 0)], -1)


def user_log(
    users: int,
    *,
    user: Ints,
    known_time: Longs,
    ad: Ints,
    category: Ints,
    kind: NDArray[np.uint8],
) -> UserLog:
    """Rows in any order (m,) -> the log."""
    order, offsets = sort_rows(user, users, known_time)
    return UserLog(
        frozen(offsets),
        frozen(known_time[order]),
        frozen(ad[order]),
        frozen(category[order]),
        frozen(kind[order]),
    )


def write_item_log(folder: Path, log: ItemLog) -> None:
    """Into the features folder."""
    write_arrays(folder / ITEM_LOG, log)


def open_engine(folder: Path) -> Engine:
    """The engine of a features folder; its logs are memory-mapped. Raises ContractError."""
    return Engine(
        Plan.read(folder / PLAN),
        read_arrays(folder / USER_LOG, UserLog),
        read_arrays(folder / ITEM_LOG, ItemLog),
    )
