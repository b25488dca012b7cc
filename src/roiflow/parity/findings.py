"""Which features differ between what was served and what a replay gives, and by how much."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

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
class Example:
    """One value: whose slate, which ad, what was served, what a replay gives."""

    request_id: str
    ad_id: str
    """The shown ad; empty where the value is not an ad's."""
    slot: int
    """0-based place in the slate or in the history; -1 where there is none."""
    served: float
    expected: float


@dataclass(frozen=True)
class FeatureFinding:
    """The differences of one feature."""

    feature: str
    rows: int
    """Values that differ: a slate has one for each ad or behaviour."""
    slates: int
    largest: float
    examples: tuple[Example, ...]


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
    findings = [_finding(name, ones, found.slates, ads) for name, ones in of.items()]
    return sorted(findings, key=lambda one: (-one.slates, -one.largest, one.feature))


def _finding(name: str, found: list[Difference], slates: Slates, ads: list[str]) -> FeatureFinding:
    largest = sorted(found, key=lambda one: -one.size)[:EXAMPLES]
    not_of_ads = name in HISTORY
    return FeatureFinding(
        feature=name,
        rows=len(found),
        slates=len({one.request for one in found}),
        largest=largest[0].size,
        examples=tuple(
            Example(
                str(slates.request[one.request]),
                "" if not_of_ads or one.slot < 0 else ads[slates.ad[one.request, one.slot]],
                one.slot,
                one.served,
                one.expected,
            )
            for one in largest
        ),
    )


def plain(findings: list[FeatureFinding]) -> list[dict[str, Any]]:
    """For JSON, which has no infinity and no NaN."""

    def finite(value: Any) -> Any:
        if isinstance(value, float):
            return value if np.isfinite(value) else str(value)
        if isinstance(value, dict):
            return {key: finite(one) for key, one in value.items()}
        return [finite(one) for one in value] if isinstance(value, list | tuple) else value

    return [finite(asdict(one)) for one in findings]
