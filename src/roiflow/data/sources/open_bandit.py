"""Open Bandit Dataset: a fashion site's uniformly random policy, with its true propensities.

The week of 24 to 30 November 2019 of the "all" campaign (ZOZOTOWN; Saito et al., 2020), read from
a folder with `random_all.parquet` and `item_context_all.csv`. The small version has 10,000 rows
and 38 clicks: enough to run estimators, not to tell policies apart.

How the log fills the data contract:

- The log runs from a Sunday to a Saturday and is one delivery: all of it becomes known in
  2019-W48, the Sunday's rows at that week's start.
- The log does not say which of its rows were shown together. Each is a slate of one; which of the
  three places side by side it took (its `position` 1, 2, 3) is its placement: left, center, right.
- propensity is `propensity_score`, 1/80. clicked = `click`. There are no conversions and no money:
  the table of conversions is empty, bid, cost and price are 0.
- The log has no users. A user is the combination of the four hashed user features, of which there
  are 240: a segment, in truth. The features are also its profile attributes. The user-item
  affinity columns are not read: they belong to a pair, and the contract has no place for them.
- category, brand and campaign are the hashed item features 1, 2 and 3; clicks are the behaviours.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS, TIME
from roiflow.data.sources import fingerprint
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek

LOG = "random_all.parquet"
ITEMS = "item_context_all.csv"
WEEK = Week(2019, 48)
PLACEMENTS = ("left", "center", "right")
USER_FEATURES = tuple(f"user_feature_{number}" for number in range(4))
UNKNOWN = "unknown"
HASH_CHARACTERS = 8
"""Kept of each user feature's 32: still 240 different users."""


class OpenBandit:
    """A Source over the folder of the two files."""

    name = "open_bandit"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pull(self, week: Week, as_of: int) -> Tables:
        """See Source.pull."""
        if week != WEEK:
            raise UnknownWeek(f"{self.name} holds {WEEK}, not {week}")
        rows = self._log.filter(pc.less(self._log[c.KNOWN_TIME].cast(pa.int64()), as_of))
        clicks = rows.filter(rows[c.CLICKED])
        category = self._ads[c.CATEGORY].take(pc.index_in(clicks[c.AD], self._ads[c.AD]))
        return {
            "impressions": rows.select(SCHEMAS["impressions"].names).cast(SCHEMAS["impressions"]),
            "behaviours": pa.table(
                [
                    clicks[c.EVENT_TIME],
                    clicks[c.KNOWN_TIME],
                    clicks[c.USER],
                    clicks[c.AD],
                    category,
                    pa.array(["click"] * clicks.num_rows, pa.string()),
                    pa.nulls(clicks.num_rows, pa.int64()),
                ],
                schema=SCHEMAS["behaviours"],
            ),
            "conversions": SCHEMAS["conversions"].empty_table(),
            "ads": self._ads if WEEK.start < as_of else self._ads.slice(0, 0),
            "users": self._users if WEEK.start < as_of else self._users.slice(0, 0),
        }

    def weeks(self) -> list[Week]:
        """See Source.weeks."""
        return [WEEK]

    def state(self, weeks: Sequence[Week]) -> str:  # noqa: ARG002
        """See Source.state."""
        return fingerprint.of_files(self._folder, (self._folder / LOG, self._folder / ITEMS))

    @cached_property
    def _log(self) -> pa.Table:
        log = lake.read_parquet(
            self._folder / LOG,
            ["timestamp", "item_id", "position", "click", "propensity_score", *USER_FEATURES],
        )
        count = log.num_rows
        # The text ends in +00:00; without it strptime-free casting to a zoneless time is exact.
        text = pc.utf8_slice_codeunits(log["timestamp"].cast(pa.string()), 0, 26)
        event = text.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        one = pa.array(np.ones(count, np.int32))
        zero = pa.array(np.zeros(count, np.int64))
        identity = pc.binary_join_element_wise("o", pa.array(np.arange(count)).cast("string"), "")
        place = pa.array(log["position"].to_numpy() - 1)
        return pa.table(
            {
                c.EVENT_TIME: pa.array(event).cast(TIME),
                c.KNOWN_TIME: pa.array(np.maximum(event, WEEK.start)).cast(TIME),
                c.REQUEST: identity,
                c.IMPRESSION: identity,
                c.USER: _user_id(log),
                c.AD: log["item_id"].cast(pa.string()),
                c.POSITION: one,
                c.SLATE_SIZE: one,
                c.PLACEMENT: pa.array(PLACEMENTS).take(place),
                c.DEVICE: pa.array([UNKNOWN]).take(zero),
                c.BID: zero,
                c.COST: zero,
                c.PROPENSITY: log["propensity_score"],
                c.POLICY_VERSION: pa.array(["random"]).take(zero),
                c.ARM: pa.array(["random"]).take(zero),
                c.CLICKED: pc.equal(log["click"], 1),
                c.CLICK_KNOWN_TIME: pa.nulls(count, TIME),
                **{name: log[name].cast(pa.string()) for name in USER_FEATURES},
            }
        )

    @cached_property
    def _ads(self) -> pa.Table:
        path = self._folder / ITEMS
        try:
            items = pyarrow.csv.read_csv(path)
            chosen = items.select(["item_id", *(f"item_feature_{number}" for number in (1, 2, 3))])
        except (OSError, pa.ArrowException, KeyError) as error:
            raise SourceError(f"{path}: {error}") from None
        count = items.num_rows
        start = pa.array(np.full(count, WEEK.start)).cast(TIME)
        zero = pa.array(np.zeros(count, np.int64))
        unknown = pa.array([UNKNOWN]).take(zero)
        return pa.table(
            [
                start,
                start,
                chosen["item_id"].cast(pa.string()),
                chosen["item_feature_3"],
                unknown,
                chosen["item_feature_1"],
                chosen["item_feature_2"],
                unknown,
                zero,
                zero,
                pa.nulls(count, pa.int64()),
                start,
                pa.nulls(count, TIME),
            ],
            schema=SCHEMAS["ads"],
        )

    @cached_property
    def _users(self) -> pa.Table:
        users = self._log.group_by([c.USER, *USER_FEATURES]).aggregate([]).sort_by(c.USER)
        start = pa.array(np.full(users.num_rows, WEEK.start)).cast(TIME)
        names = [c.USER, *USER_FEATURES]
        fields = [*SCHEMAS["users"], *(pa.field(name, pa.string()) for name in USER_FEATURES)]
        return pa.table([start, start, *(users[name] for name in names)], schema=pa.schema(fields))


def _user_id(log: pa.Table) -> pa.ChunkedArray:
    parts = [
        pc.utf8_slice_codeunits(log[name].cast(pa.string()), 0, HASH_CHARACTERS)
        for name in USER_FEATURES
    ]
    return pc.binary_join_element_wise(*parts, "-")
