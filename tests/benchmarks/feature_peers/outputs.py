"""What contenders wrote, in one form: by impression_id, features and fingerprints of histories."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from roiflow.features.folder import read
from roiflow.features.hashing import hash_ids
from roiflow.features.plan import Plan
from roiflow.features.rows import Window, micros
from roiflow.features.vocabulary import Vocabulary

Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Output:
    """Rows in any order, with the order by impression_id."""

    order: Longs
    dense: dict[str, NDArray[np.float32]]
    lengths: Longs  # of histories
    times: Longs  # sum of a history's event times, modulo 2 ** 64


def embedded(out: Path, world: Path) -> Output:
    """Of the engine's folder, whose rows are by user, time and request."""
    features, window = read(out), Window(world / "validated")
    vocabulary = Vocabulary.read(world / "built" / "vocabulary.parquet")
    shown = window.all("impressions")
    user = vocabulary.index("user", shown["user_id"])
    by_row = np.lexsort((hash_ids(shown["request_id"]), micros(shown["event_time"]), user))
    log = features.impressions
    assert_array_equal(micros(shown["event_time"])[by_row], log.event_time)
    dense = {name: log.dense[:, i] for i, name in enumerate(features.dense_names)}
    lengths, times = _slices(log.history_start, log.history_end, features.events.event_time)
    return Output(_order(shown["impression_id"].take(pa.array(by_row))), dense, lengths, times)


def peer(out: Path, plan: Plan) -> Output:
    """Of features.parquet; histories are slices of events.parquet, or arrays beside."""
    rows = pq.read_table(out / "features.parquet")
    names = [spec.name for spec in plan.specs if spec.window_days]
    dense = {name: rows[name].to_numpy() for name in names}
    if "history" in rows.column_names:
        arrays = rows["history"].combine_chunks()
        ends = np.cumsum(arrays.value_lengths().to_numpy().astype(np.int64))
        starts = np.concatenate([[0], ends[:-1]])
        times = pc.struct_field(arrays.flatten(), "event_time").to_numpy()
    else:
        starts = rows["history_start"].to_numpy().astype(np.int64)
        ends = rows["history_end"].to_numpy().astype(np.int64)
        times = pq.read_table(out / "events.parquet")["event_time"].to_numpy()
    return Output(_order(rows["impression_id"]), dense, *_slices(starts, ends, times))


def assert_equal(one: Output, other: Output) -> None:
    """Every counted feature to 1e-6, and every history."""
    for name in one.dense.keys() & other.dense.keys():
        assert_allclose(
            one.dense[name][one.order], other.dense[name][other.order], rtol=1e-6, atol=1e-6,
            err_msg=name,
        )  # fmt: skip
    assert_array_equal(one.lengths[one.order], other.lengths[other.order])
    assert_array_equal(one.times[one.order], other.times[other.order])


def _order(ids: pa.ChunkedArray) -> Longs:
    order: Longs = pc.sort_indices(ids).to_numpy().astype(np.int64)
    return order


def _slices(start: Longs, end: Longs, times: Longs) -> tuple[Longs, Longs]:
    sums = np.zeros(times.size + 1, np.uint64)  # may wrap
    np.cumsum(times.astype(np.uint64), out=sums[1:])
    return end - start, (sums[end] - sums[start]).view(np.int64)
