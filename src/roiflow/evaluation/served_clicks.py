"""How far the probabilities with which slates were served came true."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data.events import ADS, P_CLICK
from roiflow.evaluation.ranking import calibration_curve, ece
from roiflow.features.table import Floats, Longs
from roiflow.labels.model import Labels


def click_ece(served: pa.Table, impressions: pa.Table, labels: Labels, bins: int) -> float | None:
    """Of slates as they were served (rows of SERVED) and what came of them; None without any.

    What was expected is of an ad that is looked at: at its position it is as much less as that is.
    """
    place, expected = _expected(served)
    shown = _place(impressions[c.REQUEST], impressions[c.POSITION])
    at = pc.index_in(shown, value_set=place)
    rows = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False))
    if not rows.size:
        return None
    found = impressions.take(pa.array(rows))
    position = found[c.POSITION].to_numpy().astype(np.int32)
    clicked = found[c.CLICKED].to_numpy(zero_copy_only=False).astype(np.bool_)
    told = expected[pc.drop_null(at).to_numpy()]
    known = ~np.isnan(told)
    if not known.any():
        return None
    predicted = told * labels.examined(position)
    return ece(calibration_curve(predicted[known], clicked[known], bins))


def _expected(served: pa.Table) -> tuple[pa.Array, Floats]:
    """request:position of each served ad, and P(click | looked at); NaN where none was told."""
    told = served.filter(pc.is_valid(served[P_CLICK])).combine_chunks()
    ads = _whole(told[ADS])
    size: Longs = np.diff(ads.offsets.to_numpy())
    slate = np.repeat(np.arange(size.size), size)
    position = np.arange(slate.size) - np.repeat(np.cumsum(size) - size, size) + 1
    expected: Floats = _whole(told[P_CLICK]).flatten().to_numpy(zero_copy_only=False)
    return _place(told[c.REQUEST].take(pa.array(slate)), pa.array(position)), expected


def _place(request: pa.ChunkedArray, position: pa.Array | pa.ChunkedArray) -> pa.Array:
    return _whole(pc.binary_join_element_wise(request, position.cast(pa.string()), ":"))


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return pa.concat_arrays(column.chunks or [pa.array([], column.type)])
    return column
