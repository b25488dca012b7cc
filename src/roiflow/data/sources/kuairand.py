"""KuaiRand-Pure's standard log: short videos shown to users, with several feedback signals.

Two weeks, 2022-W17 and 2022-W18 (25 April to 8 May 2022): 115,574 and 112,755 impressions. Read
from a folder with `kuairand_pure_standard_20220425_20220508.parquet`, `item_features.parquet`,
`user_features.parquet` and `user_sequences.parquet`. KuaiRand is CC BY-SA 4.0 (Gao et al., 2022).

How the log fills the data contract:

- Times are Beijing wall-clock times written as if they were UTC, so the log's days and weeks are
  whole. A row is known when the video was left (`time_ms` + `play_time_ms`), and not before the
  hour that the log files it under.
- clicked = `is_click`. A conversion is `long_view`, over all impressions: 250 of its 70,963 come
  without a click, so pCTCVR stands for the probability of a long view. Its revenue is one unit of
  the currency: a proxy, since no money changes hands. Cost, bid and price are 0.
- Each impression is a slate of one; no propensity is logged; placement = `tab`. The log has no
  impression id and 5,885 of its rows repeat another: rows are numbered, and all are kept.
- Behaviours of the two weeks are the impressions' own feedback, known when the video was left:
  one of long_view, click or skip (neither), and like, follow, comment, forward, profile_enter,
  hate.
- The earlier histories (8 to 24 April: the last 50 videos seen, liked and viewed long) arrive with
  the first week: known at its start. They carry no times: the last seen video has the time of the
  user's last interaction, the others are spread evenly back to 8 April. A seen video is long_view
  where it is among those viewed long and watch (other feedback unknown) where not. A like falls
  on the time at which the video was last seen, or on 8 April where that was too long ago.
- category = first tag, brand = all tags, campaign = upload type, ad type = video type and length.
- The `*_cnt` and other statistics of item_features are taken over the whole period, these two
  weeks included: they leak, and are never read. The same holds for `counts`.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS, TIME
from roiflow.data.sources import fingerprint
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.errors import UnknownWeek

LOG = "kuairand_pure_standard_20220425_20220508.parquet"
ITEMS = "item_features.parquet"
USERS = "user_features.parquet"
SEQUENCES = "user_sequences.parquet"

FIRST, LAST = Week(2022, 17), Week(2022, 18)
HISTORY_START = FIRST.start - 17 * MICROS_PER_DAY
BEIJING = 8 * MICROS_PER_HOUR
LONG_VIEW_MICROS = 1_000_000
UNKNOWN = "unknown"

FEEDBACK = {
    "is_like": "like",
    "is_follow": "follow",
    "is_comment": "comment",
    "is_forward": "forward",
    "is_profile_enter": "profile_enter",
    "is_hate": "hate",
}
PROFILE = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{number}" for number in range(18)),
)
ITEM_COLUMNS = (
    "video_id",
    "author_id",
    "video_type",
    "upload_dt",
    "upload_type",
    "video_duration",
    "tag",
)
DURATION_SECONDS = (10, 30, 60, 120, 300)
"""Upper bounds of the length classes of a video."""

Longs = NDArray[np.int64]


class KuaiRand:
    """A Source over the folder of the four files; each is read once, when first needed."""

    name = "kuairand"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pull(self, week: Week, as_of: int) -> Tables:
        """See Source.pull: 2022-W17 brings the earlier histories along."""
        if not FIRST <= week <= LAST:
            raise UnknownWeek(f"{self.name} holds {FIRST} and {LAST}, not {week}")
        end = min(week.end, as_of)
        # The first week takes what the log has of before, too: no other week would.
        first = week.start if week > FIRST else np.iinfo(np.int64).min
        rows = self._log.filter(
            pc.and_(
                pc.greater_equal(self._log[c.KNOWN_TIME], first),
                pc.less(self._log[c.KNOWN_TIME], end),
            )
        )
        behaviours = _feedback(rows, self._category)
        if week == FIRST and as_of > FIRST.start:
            behaviours = pa.concat_tables([self._histories, behaviours])
        return {
            "impressions": _impressions(rows),
            "behaviours": behaviours,
            "conversions": _conversions(rows),
            "ads": _snapshot(self._ads, week, as_of),
            "users": _snapshot(self._users, week, as_of),
        }

    def weeks(self) -> list[Week]:
        """See Source.weeks."""
        return [FIRST, LAST]

    def state(self, weeks: Sequence[Week]) -> str:  # noqa: ARG002
        """See Source.state: both weeks are read from the same files."""
        names = (LOG, ITEMS, USERS, SEQUENCES)
        return fingerprint.of_files(self._folder, (self._folder / name for name in names))

    @cached_property
    def _log(self) -> pa.Table:
        """The log in file order, with its row number, event_time and known_time (micros)."""
        names = ["is_click", "long_view", *FEEDBACK]
        log = lake.read_parquet(
            self._folder / LOG,
            ["user_id", "video_id", "date", "hourmin", "time_ms", "play_time_ms", "tab", *names],
        )
        play = log["play_time_ms"].to_numpy().astype(np.int64) * 1_000
        event = log["time_ms"].to_numpy() * 1_000 + BEIJING
        known = np.maximum(event + play, _filed(log))
        return (
            log.append_column("row", pa.array(np.arange(log.num_rows)))
            .append_column(c.EVENT_TIME, pa.array(event))
            .append_column(c.KNOWN_TIME, pa.array(known))
            .append_column(c.DWELL_MS, pa.array(play // 1_000))
        )

    @cached_property
    def _items(self) -> pa.Table:
        return lake.read_parquet(self._folder / ITEMS, ITEM_COLUMNS)

    @cached_property
    def _category(self) -> pa.Array:
        """Category of each video, indexed by video id."""
        video = self._items["video_id"].to_numpy()
        place = np.full(int(video.max()) + 1, -1)
        place[video] = np.arange(video.size)
        known = pa.array(place, mask=place < 0)
        return pc.fill_null(_first_tag(self._items).take(known), UNKNOWN)

    @cached_property
    def _ads(self) -> pa.Table:
        """The contract's ads without the snapshot's times; every video was uploaded by 11 April."""
        items = self._items
        zero = pa.array(np.zeros(items.num_rows, np.int64))
        return pa.table(
            {
                c.AD: _text(items["video_id"]),
                c.CAMPAIGN: _text(items["upload_type"]),
                c.ADVERTISER: _text(items["author_id"]),
                c.CATEGORY: _first_tag(items),
                c.BRAND: _text(items["tag"]),
                c.AD_TYPE: _ad_type(items),
                c.PRICE: zero,
                c.BID: zero,
                c.DAILY_BUDGET: pa.nulls(items.num_rows, pa.int64()),
                c.CREATED_AT: pc.strptime(items["upload_dt"].cast(pa.string()), "%Y-%m-%d", "us")
                .combine_chunks()
                .cast(TIME),
                c.ENDS_AT: pa.nulls(items.num_rows, TIME),
            }
        )

    @cached_property
    def _users(self) -> pa.Table:
        users = lake.read_parquet(self._folder / USERS, ["user_id", *PROFILE])
        return pa.table(
            {c.USER: _text(users["user_id"]), **{name: _text(users[name]) for name in PROFILE}}
        )

    @cached_property
    def _histories(self) -> pa.Table:
        """What users did before the first week, as behaviours known at its start."""
        file = lake.read_parquet(
            self._folder / SEQUENCES,
            ["user_id", "history_len", "last_time_ms", "watch_seq", "like_seq", "long_watch_seq"],
        )
        last = file["last_time_ms"].to_numpy() * 1_000 + BEIJING
        # Interactions are spread evenly over HISTORY_START..last.
        step = (last - HISTORY_START) // np.maximum(file["history_len"].to_numpy(), 1)
        seen_user, seen = _flatten(file["watch_seq"])
        long_user, viewed = _flatten(file["long_watch_seq"])
        like_user, liked = _flatten(file["like_seq"])
        lengths = np.bincount(seen_user, minlength=file.num_rows)
        # How many videos the user saw after each: the last of a list has age 0.
        age = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(seen.size)
        seen_time = last[seen_user] - age * step[seen_user]

        videos = len(self._category)
        # One number for user and video: sets of pairs are then searched as plain arrays.
        seen_key, like_key = seen_user * videos + seen, like_user * videos + liked
        long_key = long_user * videos + viewed
        # Long views among the last 50 seen are marked there; older ones precede all that was seen.
        older = ~_among(long_key, seen_key)
        parts = [
            (np.where(_among(seen_key, long_key), 0, 1), seen_user, seen, seen_time),
            (
                np.full(int(older.sum()), 0),
                long_user[older],
                viewed[older],
                np.full(int(older.sum()), HISTORY_START),
            ),
            (
                np.full(liked.size, 2),
                like_user,
                liked,
                _time_of_last(like_key, seen_key, seen_time, HISTORY_START),
            ),
        ]
        action, user, video, time = map(np.concatenate, zip(*parts, strict=True))
        order = np.lexsort((time, user))
        video = pa.array(video[order])
        return pa.table(
            [
                pa.array(time[order]).cast(TIME),
                pa.array(np.full(order.size, FIRST.start)).cast(TIME),
                _text(file["user_id"]).take(pa.array(user[order])),
                _text(video),
                self._category.take(video),
                pa.array(["long_view", "watch", "like"]).take(pa.array(action[order])),
                pa.nulls(order.size, pa.int64()),
            ],
            schema=SCHEMAS["behaviours"],
        )


def _among(keys: Longs, others: Longs) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(pa.array(keys), value_set=pa.array(others)).to_numpy(
        zero_copy_only=False
    )
    return found


def _filed(log: pa.Table) -> Longs:
    """Micros of the hour under which the log files each row (`date` and `hourmin`)."""
    # By numpy's calendar, from months to days: no datetime is made for each row.
    date = log["date"].to_numpy().astype(np.int64)
    year, month, day = date // 10_000, date // 100 % 100, date % 100
    months = (year - 1970) * 12 + month - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    hour = log["hourmin"].to_numpy().astype(np.int64) // 100
    return (first + day - 1) * MICROS_PER_DAY + hour * MICROS_PER_HOUR


def _text(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """As strings; whole numbers without a decimal point; nulls as `unknown`."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_floating(values.type):
        values = values.cast(pa.int64())
    return pc.fill_null(values.cast(pa.string()), UNKNOWN)


def _first_tag(items: pa.Table) -> pa.Array:
    return pc.fill_null(pc.list_element(pc.split_pattern(_text(items["tag"]), ","), 0), UNKNOWN)


def _ad_type(items: pa.Table) -> pa.Array:
    """Such as `NORMAL-60s`: the video's type and the bound of its length class."""
    seconds = items["video_duration"].to_numpy() / 1_000
    classes = pa.array([f"{bound}s" for bound in DURATION_SECONDS] + ["longer", UNKNOWN])
    place = np.searchsorted(np.array(DURATION_SECONDS), seconds)
    place[np.isnan(seconds)] = len(DURATION_SECONDS) + 1
    return pc.binary_join_element_wise(
        _text(items["video_type"]), classes.take(pa.array(place)), "-"
    )


def _flatten(lists: pa.ChunkedArray) -> tuple[Longs, Longs]:
    """(row of the list, value) of every value."""
    whole = lists.combine_chunks()
    return (
        pc.list_parent_indices(whole).to_numpy().astype(np.int64),
        pc.list_flatten(whole).to_numpy().astype(np.int64),
    )


def _time_of_last(keys: Longs, seen: Longs, times: Longs, otherwise: int) -> Longs:
    """Latest of `times` at which each key was seen (n,); `otherwise` where it never was."""
    # By key and then by time, so that the last place of a key is its latest.
    order = np.lexsort((times, seen))
    place = np.searchsorted(seen[order], keys, side="right") - 1
    found = (place >= 0) & (seen[order][np.maximum(place, 0)] == keys)
    return np.where(found, times[order][np.maximum(place, 0)], otherwise)


def _constant(value: str, rows: pa.Table) -> pa.Array:
    return pa.array([value]).take(pa.array(np.zeros(rows.num_rows, np.int64)))


def _impression_id(rows: pa.Table) -> pa.Array:
    return pc.binary_join_element_wise("k", rows["row"].combine_chunks().cast(pa.string()), "")


def _impressions(rows: pa.Table) -> pa.Table:
    zero = pa.array(np.zeros(rows.num_rows, np.int64))
    one = pa.array(np.ones(rows.num_rows, np.int32))
    identity = _impression_id(rows)
    return pa.table(
        [
            rows[c.EVENT_TIME].cast(TIME),
            rows[c.KNOWN_TIME].cast(TIME),
            identity,
            identity,
            _text(rows["user_id"]),
            _text(rows["video_id"]),
            one,
            one,
            _text(rows["tab"]),
            _constant(UNKNOWN, rows),
            zero,
            zero,
            pa.nulls(rows.num_rows, pa.float64()),
            _constant("kuaishou", rows),
            _constant("standard", rows),
            pc.equal(rows["is_click"], 1),
            pa.nulls(rows.num_rows, TIME),
        ],
        schema=SCHEMAS["impressions"],
    )


def _conversions(rows: pa.Table) -> pa.Table:
    viewed = rows.filter(pc.equal(rows["long_view"], 1))
    event = viewed[c.EVENT_TIME].to_numpy() + viewed[c.DWELL_MS].to_numpy() * 1_000
    return pa.table(
        [
            pa.array(event).cast(TIME),
            viewed[c.KNOWN_TIME].cast(TIME),
            _impression_id(viewed),
            pa.array(np.full(viewed.num_rows, LONG_VIEW_MICROS)),
        ],
        schema=SCHEMAS["conversions"],
    )


def _feedback(rows: pa.Table, category: pa.Array) -> pa.Table:
    """What users did with the impressions, in the order of the log."""
    flags = {name: rows[name].to_numpy().astype(bool) for name in FEEDBACK}
    # 0 long_view, 1 click, 2 skip: the strongest sign is the row's one main action.
    main = np.where(rows["long_view"].to_numpy() == 1, 0, 2 - rows["is_click"].to_numpy())
    names = ["long_view", "click", "skip", *FEEDBACK.values()]
    # Every row once for that, and once more for each further sign it has.
    place = np.concatenate([np.arange(rows.num_rows), *map(np.flatnonzero, flags.values())])
    counts = [int(flag.sum()) for flag in flags.values()]
    action = np.concatenate([main, np.repeat(np.arange(3, 3 + len(flags)), counts)])
    order = np.lexsort((action, place))
    chosen = rows.take(pa.array(place[order]))
    video = chosen["video_id"].combine_chunks()
    event = chosen[c.EVENT_TIME].to_numpy() + chosen[c.DWELL_MS].to_numpy() * 1_000
    return pa.table(
        [
            pa.array(event).cast(TIME),
            chosen[c.KNOWN_TIME].cast(TIME),
            _text(chosen["user_id"]),
            _text(video),
            category.take(video.cast(pa.int64())),
            pa.array(names).take(pa.array(action[order])),
            chosen[c.DWELL_MS],
        ],
        schema=SCHEMAS["behaviours"],
    )


def _snapshot(rows: pa.Table, week: Week, as_of: int) -> pa.Table:
    """A weekly snapshot: known at the start of its week, empty before."""
    rows = rows if week.start < as_of else rows.slice(0, 0)
    start = pa.array(np.full(rows.num_rows, week.start)).cast(TIME)
    return rows.add_column(0, pa.field(c.EVENT_TIME, TIME, False), start).add_column(
        1, pa.field(c.KNOWN_TIME, TIME, False), start
    )
