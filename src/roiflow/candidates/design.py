"""What the pre-selection models read of an impression or of a candidate: numbers, codes, position.

Codes are indices of attributes with at most MAX_CODES values: the context, the ad's attributes and
the user's profile. Ids with more values are left to the ranker.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from roiflow.features.table import AD_ATTRIBUTES, CONTEXT, Features, Ints, Longs, Requests, Singles

MAX_CODES = 64
MAX_POSITION = 20


class SideTables(Protocol):
    """Attributes by ad and profiles by user: `Features` has them, and so has a saved selector."""

    @property
    def attributes(self) -> Ints:
        """(ads, 5)."""
        ...

    @property
    def profile(self) -> Ints:
        """(users, P)."""
        ...


@dataclass(frozen=True)
class Design:
    """Which columns are used; the same at training and at serving."""

    dense_names: tuple[str, ...]
    profile_columns: tuple[int, ...]
    attribute_columns: tuple[int, ...]
    code_names: tuple[str, ...]
    code_sizes: tuple[int, ...]

    @classmethod
    def of(cls, features: Features) -> "Design":
        """Choose the attributes with few values."""
        profile_names = [f"profile:{name}" for name in features.profile_names]
        profile = _small(features.sizes, profile_names)
        attributes = _small(features.sizes, AD_ATTRIBUTES)
        names = [
            *CONTEXT,
            *(AD_ATTRIBUTES[at] for at in attributes),
            *(profile_names[at] for at in profile),
        ]
        return cls(
            tuple(features.dense_names),
            profile,
            attributes,
            tuple(names),
            tuple(features.sizes[name] for name in names),
        )

    def _codes(self, tables: SideTables, context: Ints, user: Ints, ad: Ints) -> Longs:
        """Context (..., 4), user (...), ad (...) -> codes (..., C); unseen ones are 0."""
        person = tables.profile[_inside(user, tables.profile.shape[0])]
        item = tables.attributes[_inside(ad, tables.attributes.shape[0])]
        codes = np.concatenate(
            [
                context,
                item[..., list(self.attribute_columns)],
                person[..., list(self.profile_columns)],
            ],
            axis=-1,
        ).astype(np.int64)
        return np.where(codes < np.array(self.code_sizes), codes, 0)

    def impressions(self, features: Features, rows: Longs) -> tuple[Singles, Longs]:
        """Logged impressions (n,) -> numbers (n, F), codes (n, C)."""
        log = features.impressions
        codes = self._codes(features, log.context[rows], log.user[rows], log.ad[rows])
        return np.asarray(log.dense[rows], np.float32), codes

    def requests(self, tables: SideTables, requests: Requests) -> tuple[Singles, Longs]:
        """Candidates (B, K) -> numbers (B K, F), codes (B K, C)."""
        shape = requests.ad.shape
        context = np.broadcast_to(requests.context[:, None], (*shape, requests.context.shape[1]))
        user = np.broadcast_to(requests.user[:, None], shape)
        codes = self._codes(tables, context, user, requests.ad)
        dense = np.asarray(requests.dense, np.float32)
        return dense.reshape(-1, dense.shape[-1]), codes.reshape(-1, codes.shape[-1])


def shown_at(features: Features, rows: Longs) -> Longs:
    """Logged positions (n,), cut to MAX_POSITION."""
    return np.clip(features.impressions.position[rows], 1, MAX_POSITION).astype(np.int64)


def _small(sizes: dict[str, int], names: list[str] | tuple[str, ...]) -> tuple[int, ...]:
    return tuple(at for at, name in enumerate(names) if sizes[name] <= MAX_CODES)


def _inside(index: Ints, size: int) -> Ints:
    return np.where((index >= 0) & (index < size), index, 0)
