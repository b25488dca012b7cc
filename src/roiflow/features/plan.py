"""The feature specs with all that fixes their values: priors, sizes, ads' attributes.

Written with the features and shipped with a model, so that the online path computes what the
offline engine did.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.errors import ContractError
from roiflow.features import kernels
from roiflow.features.kernels import Cells
from roiflow.features.spec import (
    AGGREGATES,
    ITEM_ENTITIES,
    NAMES,
    RECENCY_CAP_HOURS,
    SPECS,
    USER_ENTITIES,
    VALUES,
    WINDOW_DAYS,
    FeatureSpec,
)
from roiflow.features.table import AD_ATTRIBUTES, CONTEXT, Ints, Longs, Singles
from roiflow.files import write_file

FORMAT = 3

Scalar = TypeVar("Scalar", bound=np.generic)


def frozen(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """A read-only, contiguous view: every compiled pass then sees one type."""
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


def clock(event_time: Longs) -> tuple[Ints, Ints]:
    """Times (n,) -> hour 0-23 (n,) and weekday 0-6 (n,), Monday 0, in UTC."""
    day = event_time // MICROS_PER_DAY
    hour = (event_time - day * MICROS_PER_DAY) // MICROS_PER_HOUR
    return hour.astype(np.int32), ((day + 3) % 7).astype(np.int32)


def context(placement: Ints, device: Ints, event_time: Longs) -> Ints:
    """Dense indices (n,), times (n,) -> (n, len(CONTEXT))."""
    return np.column_stack([placement, device, *clock(event_time)]).astype(np.int32)


@dataclass(frozen=True)
class Plan:
    """What turns counts into dense features."""

    prior_strength: float
    ctr: float
    """Clicks by impressions before validation."""
    cvr: float
    """Conversions by clicks before validation."""
    value: float
    """Revenue by conversions before validation, in micros."""
    history_length: int
    sizes: dict[str, int]
    profile_names: tuple[str, ...]
    known_before_test: dict[str, int]
    """Rows of each vocabulary, out-of-vocabulary row included, of ids known before the test
    period: a model trained before it has learnt nothing of later rows."""
    attributes: Ints = field(repr=False)  # (ads, len(AD_ATTRIBUTES))

    def with_ads(self, attributes: Ints) -> "Plan":
        """With rows for ads that are newer; `attributes` (n, len(AD_ATTRIBUTES)) are theirs."""
        whole = np.concatenate([self.attributes, attributes]).astype(np.int32)
        return replace(self, sizes={**self.sizes, "ad": whole.shape[0]}, attributes=whole)

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """One per dense feature, in column order."""
        return SPECS

    @property
    def dense_names(self) -> tuple[str, ...]:
        """Names of the dense features, in column order."""
        return NAMES

    def _cells(self, entities: Sequence[str], widths: Sequence[int]) -> Cells:
        """`widths` are the numbers of keys of the entities."""
        counted = [spec for spec in self.specs if spec.entity in entities]
        windows = {days: place for place, days in enumerate(WINDOW_DAYS)}
        # By window first: a window's cells then lie side by side, and a row leaves it in one run. A
        # cell is there once, however many aggregates read it.
        pairs = sorted(
            {(windows[spec.window_days or 0], entities.index(spec.entity)) for spec in counted}
        )
        of = {pair: cell for cell, pair in enumerate(pairs)}
        window = np.array([pair[0] for pair in pairs], np.int64)
        entity = np.array([pair[1] for pair in pairs], np.int64)

        def starts(sizes: NDArray[np.int64]) -> Longs:
            return frozen(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

        return Cells(
            days=frozen(np.array(WINDOW_DAYS, np.int64)),
            of_window=frozen(np.searchsorted(window, np.arange(len(windows) + 1))),
            entity=frozen(entity),
            base=starts(np.array(widths, np.int64)[entity]),
            keys=starts(np.array(widths, np.int64)),
            column=frozen(
                np.array([i for i, s in enumerate(self.specs) if s.entity in entities], np.int64)
            ),
            cell=frozen(
                np.array(
                    [of[windows[s.window_days or 0], entities.index(s.entity)] for s in counted],
                    np.int64,
                )
            ),
            aggregate=frozen(np.array([AGGREGATES.index(s.aggregate) for s in counted], np.int64)),
        )

    @cached_property
    def user_cells(self) -> Cells:
        """USER_ENTITIES in their windows; keys are dense indices."""
        # The user needs one key only: a pass counts one user at a time.
        names = ("category", "campaign", "advertiser", "ad")
        return self._cells(USER_ENTITIES, [1, *(self.sizes[name] for name in names)])

    @cached_property
    def item_cells(self) -> Cells:
        """ITEM_ENTITIES in their windows; keys are dense indices."""
        return self._cells(ITEM_ENTITIES, [self.sizes[name] for name in ITEM_ENTITIES])

    @property
    def max_days(self) -> int:
        """The longest window, in whole days."""
        return max(WINDOW_DAYS)

    @cached_property
    def rates(self) -> NDArray[np.float64]:
        """(4,): prior strength, ctr, cvr, value."""
        return np.array([self.prior_strength, self.ctr, self.cvr, self.value])

    @cached_property
    def ad_attributes(self) -> Ints:
        """`attributes` in the form that the compiled passes take."""
        return frozen(self.attributes)

    def values(
        self, time: Longs, last_time: Longs, *, ad: Ints, price: Longs, bid: Longs, out: Singles
    ) -> None:
        """Fill the columns of `out` (B, K, F) that are no aggregates.

        `last_time` (B,) is the event_time of the last behaviour known, -1 without one; ad, price
        and bid are (B, K).
        """
        kernels.value_pass(
            frozen(time), frozen(last_time), frozen(ad), frozen(price), frozen(bid),
            RECENCY_CAP_HOURS, len(self.specs) - len(VALUES), out,
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """One Parquet file: the attributes, and the rest as metadata."""
        rest = {key: value for key, value in asdict(self).items() if key != "attributes"}
        rest |= {"format": FORMAT, "features": NAMES}
        table = pa.table(
            {name: pa.array(self.attributes[:, i]) for i, name in enumerate(AD_ATTRIBUTES)}
        ).replace_schema_metadata({"plan": json.dumps(rest, sort_keys=True)})
        with write_file(path) as aside:
            pq.write_table(table, aside, compression="zstd", use_dictionary=False)

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Raises ContractError, naming the file, where it is missing, or not of these features."""
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(f"{path}: cannot read the feature plan: {error}") from None
        content = json.loads((table.schema.metadata or {}).get(b"plan", b"{}"))
        if content.pop("format", None) != FORMAT:
            raise ContractError(f"{path}: not a feature plan of format {FORMAT}")
        # A model reads its features by their place: other ones in it are another input.
        features = content.pop("features")
        if differing := sorted(set(features) ^ set(NAMES)) or features != list(NAMES):
            raise ContractError(f"{path}: made of other features than these: {differing}")
        # JSON knows lists only.
        content["profile_names"] = tuple(content["profile_names"])
        attributes = np.column_stack([np.asarray(table[name]) for name in AD_ATTRIBUTES])
        return cls(**content, attributes=attributes.astype(np.int32))


CONTEXT_PLACEMENT = CONTEXT.index("placement")
