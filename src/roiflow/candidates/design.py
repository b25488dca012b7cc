"""What the pre-selection models read of an impression or of a candidate: numbers and codes.

Codes are indices of attributes with few values: the context, the ad's attributes and the user's
profile. Ids with more values are left to the ranker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from roiflow.features.table import (
    AD_ATTRIBUTES,
    CONTEXT,
    Features,
    Ints,
    Longs,
    Requests,
    Singles,
)

CHUNK_ROWS = 1 << 16
"""Logged impressions that are gathered at a time: 17 MB of features."""


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


class Rows(NamedTuple):
    """n rows as the models take them; a named tuple, since compiled code reads it."""

    numbers: Singles  # (n, F) raw
    codes: Ints  # (n, C)


@dataclass(frozen=True)
class Design:
    """Which columns are used; the same at training and at serving."""

    dense_names: tuple[str, ...]
    profile_columns: tuple[int, ...]
    attribute_columns: tuple[int, ...]
    code_names: tuple[str, ...]
    code_sizes: tuple[int, ...]

    @classmethod
    def of(cls, features: Features, max_codes: int) -> "Design":
        """Choose the attributes with at most `max_codes` values."""
        profile_names = [f"profile:{name}" for name in features.profile_names]
        profile = _small(features.sizes, profile_names, max_codes)
        attributes = _small(features.sizes, AD_ATTRIBUTES, max_codes)
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

    def _sides(self, tables: SideTables, context: Ints, user: Ints, ad: Ints) -> tuple[Ints, ...]:
        """Codes of the context, of ads and of users, each (..., c); unseen ones are 0."""
        # Ads and users may be newer than the tables, and their codes than the model: both count as
        # row 0, the out-of-vocabulary one, which every vocabulary has.
        item = tables.attributes[_inside(ad, len(tables.attributes))]
        person = tables.profile[_inside(user, len(tables.profile))]
        sides = (
            context,
            item[..., list(self.attribute_columns)],
            person[..., list(self.profile_columns)],
        )
        edges = np.cumsum([side.shape[-1] for side in sides])[:-1]
        sizes = np.split(np.array(self.code_sizes, np.int32), edges)
        return tuple(
            np.where(side < size, side, np.int32(0))
            for side, size in zip(sides, sizes, strict=True)
        )

    def impressions(self, features: Features, rows: Longs) -> Rows:
        """Logged impressions (n,)."""
        log = features.impressions
        sides = self._sides(features, log.context[rows], log.user[rows], log.ad[rows])
        return Rows(
            np.asarray(log.dense[rows], np.float32),
            np.concatenate(sides, axis=1, dtype=np.int32),
        )

    def requests(self, tables: SideTables, requests: Requests) -> Rows:
        """Candidates (B, K), request by request."""
        count, ads = requests.ad.shape
        context, item, person = self._sides(tables, requests.context, requests.user, requests.ad)
        # Checked once a request and spread here: B rows of the user's side instead of B K.
        codes = np.empty((count, ads, len(self.code_sizes)), np.int32)
        first, last = context.shape[1], codes.shape[2] - person.shape[1]
        codes[:, :, :first], codes[:, :, last:] = context[:, None], person[:, None]
        codes[:, :, first:last] = item
        dense = np.asarray(requests.dense, np.float32)
        return Rows(dense.reshape(-1, dense.shape[-1]), codes.reshape(-1, codes.shape[-1]))


def _small(sizes: dict[str, int], names: Sequence[str], max_codes: int) -> tuple[int, ...]:
    return tuple(at for at, name in enumerate(names) if sizes[name] <= max_codes)


def _inside(index: Ints, size: int) -> Ints:
    return np.where((index >= 0) & (index < size), index, 0)
