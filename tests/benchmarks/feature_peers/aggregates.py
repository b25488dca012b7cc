"""What contenders are told: the counted features, what each needs, and when windows open."""

from collections.abc import Iterator

from roiflow.features.plan import Plan
from roiflow.features.spec import ITEM_ENTITIES, USER_ENTITIES, FeatureSpec

COUNTS = ("impressions", "clicks", "conversions", "revenue", "behaviours", "intents")
ITEM_COUNTS = COUNTS[:4]
NEEDS = {
    "ctr": ("clicks", "impressions"),
    "cvr": ("conversions", "clicks"),
    "value": ("revenue", "conversions"),
}


def by_entity(plan: Plan) -> Iterator[tuple[str, list[FeatureSpec]]]:
    """The counted features of each entity that has some."""
    for entity in (*USER_ENTITIES, *ITEM_ENTITIES):
        if specs := [spec for spec in plan.specs if spec.entity == entity]:
            yield entity, specs


def counts_of(spec: FeatureSpec) -> tuple[str, ...]:
    """The counts that a feature needs."""
    return NEEDS.get(spec.aggregate, (spec.aggregate,))


def all_counts(specs: list[FeatureSpec]) -> list[str]:
    """The counts that some features need, each once."""
    return list(dict.fromkeys(count for spec in specs for count in counts_of(spec)))


def windows(specs: list[FeatureSpec]) -> list[int]:
    """The windows of some features in days, each once."""
    return sorted({spec.window_days for spec in specs if spec.window_days})
