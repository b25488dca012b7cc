"""Which features differ between what was served and what a replay gives, and by how much."""

from dataclasses import dataclass

import numpy as np

from roiflow.artefacts.parity import Example, FeatureFinding, Figure
from roiflow.features.engine import Engine
from roiflow.features.spec import ITEM_ENTITIES
from roiflow.features.table import Flags, Longs
from roiflow.online.given import HISTORY, Difference, Inputs, differences, hashes, pack, unpack
from roiflow.parity.replay import (
    Replayed,
    Setting,
    Slates,
    as_served,
    engine,
    given,
    stored,
    taken,
)

EXAMPLES = 3
"""Values that are shown of each feature: the largest differences."""


@dataclass(frozen=True)
class Sampled:
    """Slates whose vectors were kept and differ: as served, and as they should have been."""

    rows: Longs  # of the replay's slates
    slates: Slates
    served: Inputs
    expected: Inputs
    compared: Flags  # (n, F) dense features that can be compared


def sampled(replayed: Replayed, counted: Engine | None = None) -> Sampled:
    """The sampled slates whose hash differs. Raises ContractError as `unpack` does."""
    setting, content = replayed.setting, replayed.content
    rows = np.flatnonzero(replayed.slates.sampled & ~replayed.same)
    part = taken(replayed.slates, rows)
    counted = engine(setting, content) if counted is None else counted
    expected = given(setting, counted, stored(content.events, setting), part, as_served(part))
    of_items = np.array([spec.entity in ITEM_ENTITIES for spec in setting.plan.specs])
    return Sampled(
        rows,
        part,
        unpack(part.vector.tolist(), setting.shape),
        expected,
        ~(of_items & ~replayed.final[rows, None]),
    )


def corrupt(replayed: Replayed) -> Longs:
    """Sampled slates whose vector does not have the hash that was logged with it."""
    rows = np.flatnonzero(replayed.slates.sampled)
    part = taken(replayed.slates, rows)
    if not rows.size:
        return rows
    found = hashes(pack(unpack(part.vector.tolist(), replayed.setting.shape)))
    return rows[np.array(found, object) != part.hash]


def unequal(found: Sampled) -> Flags:
    """Whether a sampled slate (n,) differs in something that can be compared."""
    names = [str(column) for column in range(found.compared.shape[1])]
    rows = {one.request for one in differences(found.served, found.expected, names, found.compared)}
    return np.isin(np.arange(found.rows.size), list(rows))


def by_feature(found: Sampled, setting: Setting) -> list[FeatureFinding]:
    """Features that differ, those of most slates first."""
    of: dict[str, list[Difference]] = {}
    names = setting.shape.dense_names
    for one in differences(found.served, found.expected, names, found.compared):
        of.setdefault(one.feature, []).append(one)
    ads: list[str] = ["", *setting.vocabulary.ids("ad").to_pylist()]
    # Sorted while the sizes are numbers: in a finding, an infinite one is a word.
    order = sorted(
        of, key=lambda name: (-_slates(of[name]), -max(one.size for one in of[name]), name)
    )
    return [_finding(name, of[name], found.slates, ads) for name in order]


def _slates(found: list[Difference]) -> int:
    return len({one.request for one in found})


def _finding(name: str, found: list[Difference], slates: Slates, ads: list[str]) -> FeatureFinding:
    largest = sorted(found, key=lambda one: -one.size)[:EXAMPLES]
    not_of_ads = name in HISTORY
    return FeatureFinding(
        feature=name,
        rows=len(found),
        slates=_slates(found),
        largest=_figure(largest[0].size),
        examples=tuple(
            Example(
                str(slates.request[one.request]),
                "" if not_of_ads or one.slot < 0 else ads[slates.ad[one.request, one.slot]],
                one.slot,
                _figure(one.served),
                _figure(one.expected),
            )
            for one in largest
        ),
    )


def _figure(value: float) -> Figure:
    return value if np.isfinite(value) else str(value)
