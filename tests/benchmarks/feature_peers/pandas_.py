"""pandas: as-of merges on cumulative sums.

Rows are numbered by the time they became known, and (key, number) is one integer, so that a merge
needs no groups; the difference of two sums of the same key is a window's count.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features.plan import Plan
from roiflow.features.spec import ATTRIBUTION_DAYS, INTENT_ACTIONS, USER_ENTITIES, FeatureSpec
from tests.benchmarks.feature_peers.aggregates import (
    COUNTS,
    NEEDS,
    all_counts,
    by_entity,
    counts_of,
    windows,
)

IDS = {
    "user_id": "user", "ad_id": "ad", "campaign_id": "campaign", "advertiser_id": "advertiser",
    "category_id": "category", "placement": "placement",
}  # fmt: skip
TICKS = 1 << 26
"""More than there are rows, and than hours since the epoch."""

Clock = Callable[[pd.Series], pd.Series]


def run(folder: Path, plan: Plan, out: Path) -> None:
    """features.parquet and events.parquet (CSR histories) into `out`."""
    shown, behaved, rows = _tables(folder)
    asked = shown[["impression_id", *IDS.values(), "event_time"]]
    asked = asked.rename(columns={"event_time": "t"})
    features = [asked[["impression_id"]], _history(asked, behaved, plan.history_length, out)]
    number = pd.Series(range(len(rows)), index=rows.index)
    times = rows["known_time"]
    for entity, specs in by_entity(plan):
        if entity in USER_ENTITIES:
            features.append(_entity(rows, asked, specs, plan, number, times.searchsorted))
        else:
            items = rows[rows["behaviours"] == 0]
            hour = items["known_time"] // MICROS_PER_HOUR
            features.append(
                _entity(items, asked, specs, plan, hour, lambda time: time // MICROS_PER_HOUR)
            )
    pd.concat(features, axis=1).to_parquet(out / "features.parquet", compression=None)


def _read(folder: Path, table: str, names: list[str]) -> pd.DataFrame:
    paths = sorted((folder / table).glob("*/*.parquet"))
    frame = pd.concat([pd.read_parquet(path, columns=names) for path in paths], ignore_index=True)
    for name in ("event_time", "known_time", "click_known_time"):
        if name in frame:
            known = frame[name].astype("datetime64[us, UTC]")
            frame[name] = known.fillna(pd.Timestamp(0, tz="UTC")).astype("int64")
    return frame


def _tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Impressions and behaviours with codes, and the counted rows as they became known."""
    names = ["event_time", "known_time", "user_id", "ad_id"]
    attributes = ["ad_id", "campaign_id", "advertiser_id", "category_id"]
    ads = _read(folder, "ads", attributes).drop_duplicates("ad_id")
    more = ["impression_id", "placement", "clicked", "click_known_time"]
    shown = _read(folder, "impressions", [*names, *more]).merge(ads, on="ad_id", how="left")
    behaved = _read(folder, "behaviours", [*names, "category_id", "action"]).merge(
        ads.drop(columns="category_id"), on="ad_id", how="left"
    )
    for name, code in IDS.items():
        both = pd.concat([shown[name], behaved[name]] if name in behaved else [shown[name]])
        codes = pd.factorize(both)[0]
        shown[code] = codes[: len(shown)]
        behaved[code] = codes[len(shown) :] if name in behaved else 0
    converted = _read(folder, "conversions", ["known_time", "impression_id", "revenue_micros"])
    return shown, behaved, _counted(shown, behaved, converted)


def _counted(shown: pd.DataFrame, behaved: pd.DataFrame, converted: pd.DataFrame) -> pd.DataFrame:
    keys = [*IDS.values(), "known_time"]
    apart = shown["clicked"] & (shown["click_known_time"] > shown["known_time"])
    clicks = shown[apart].drop(columns="known_time")
    bought = converted.merge(
        shown[["impression_id", *keys]], on="impression_id", suffixes=("", "_shown")
    )
    late = bought[["known_time", "known_time_shown"]].max(axis=1)
    in_time = late - bought["known_time_shown"] <= ATTRIBUTION_DAYS * MICROS_PER_DAY
    parts = [
        shown[keys].assign(impressions=1, clicks=(shown["clicked"] & ~apart).astype("int64")),
        clicks.rename(columns={"click_known_time": "known_time"})[keys].assign(clicks=1),
        bought.assign(known_time=late, conversions=1, revenue=bought["revenue_micros"])[in_time][
            [*keys, "conversions", "revenue"]
        ],
        behaved[keys].assign(
            behaviours=1, intents=behaved["action"].isin(INTENT_ACTIONS).astype("int64")
        ),
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows[list(COUNTS)] = rows[list(COUNTS)].fillna(0).astype("int64")
    return rows.sort_values("known_time", ignore_index=True)


def _history(asked: pd.DataFrame, behaved: pd.DataFrame, length: int, out: Path) -> pd.DataFrame:
    """Start and end of each request's history in the events, which are written beside."""
    order = ["user", "known_time", "event_time", "ad"]
    events = behaved.sort_values(order, ignore_index=True)
    names = ["user", "ad", "category", "action", "event_time", "known_time"]
    events[names].to_parquet(out / "events.parquet", compression=None)
    times = events["known_time"].sort_values(ignore_index=True)
    place = events["user"] * TICKS + times.searchsorted(events["known_time"])
    first = place.searchsorted(asked["user"] * TICKS)
    end = place.searchsorted(asked["user"] * TICKS + times.searchsorted(asked["t"]))
    found = pd.DataFrame({"first": first, "history_end": end}, index=asked.index)
    found["history_start"] = found["first"].clip(lower=found["history_end"] - length)
    return found[["history_start", "history_end"]]


def _key(rows: pd.DataFrame, entity: str, widths: dict[str, int]) -> pd.Series:
    key = pd.Series(0, index=rows.index)
    for name in entity.split("_"):
        key = key * widths[name] + rows[name]
    return key


def _entity(
    rows: pd.DataFrame,
    asked: pd.DataFrame,
    specs: list[FeatureSpec],
    plan: Plan,
    tick: pd.Series,
    clock_of: Clock,
) -> pd.DataFrame:
    """The features of one entity; `tick` numbers the rows as `clock_of` does times."""
    entity, counts = specs[0].entity, all_counts(specs)
    widths = {name: int(rows[name].max()) + 1 for name in entity.split("_")}
    table = rows[counts].assign(at=_key(rows, entity, widths) * TICKS + tick).sort_values("at")
    table[counts] = table[counts].cumsum()
    key = _key(asked, entity, widths) * TICKS

    def before(time: pd.Series) -> pd.DataFrame:
        asking = pd.DataFrame({"at": key + clock_of(time)}).sort_values("at")
        found = pd.merge_asof(asking, table, on="at", allow_exact_matches=False)
        found.index = asking.index
        return found[counts].fillna(0).sort_index()

    total = before(asked["t"])
    features = {}
    for days in windows(specs):
        opening = asked["t"] // MICROS_PER_DAY * MICROS_PER_DAY - days * MICROS_PER_DAY
        window = total - before(opening)
        for spec in specs:
            if spec.window_days == days:
                features[spec.name] = _feature(spec, window, plan)
    return pd.DataFrame(features)


def _feature(spec: FeatureSpec, window: pd.DataFrame, plan: Plan) -> pd.Series:
    if spec.aggregate not in NEEDS:
        return _log1p(window[spec.aggregate])
    hits, tries = (window[name] for name in counts_of(spec))
    strength, prior = plan.prior_strength, getattr(plan, spec.aggregate)
    rate = (hits + strength * prior) / (tries + strength)
    return _log1p(rate / 1e6) if spec.aggregate == "value" else rate.astype("float32")


def _log1p(values: pd.Series) -> pd.Series:
    import numpy as np

    return np.log1p(values).astype("float32")
