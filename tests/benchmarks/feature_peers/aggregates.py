"""What contenders are told: the counted features, what each needs, and when windows open."""

from collections.abc import Iterator

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features.plan import Plan
from roiflow.features.spec import FINE_HOURS, ITEM_ENTITIES, USER_ENTITIES, FeatureSpec

COUNTS = ("impressions", "clicks", "conversions", "revenue", "behaviours", "intents")
ITEM_COUNTS = COUNTS[:4]
NEEDS = {
    "ctr": ("clicks", "impressions"),
    "cvr": ("conversions", "clicks"),
    "value": ("revenue", "conversions"),
}


def by_entity(plan: Plan) -> Iterator[tuple[str, list[FeatureSpec]]]:
    """The counted features of each entity."""
    for entity in (*USER_ENTITIES, *ITEM_ENTITIES):
        yield entity, [spec for spec in plan.specs if spec.entity == entity]


def counts_of(spec: FeatureSpec) -> tuple[str, ...]:
    """The counts that a feature needs."""
    return NEEDS.get(spec.aggregate, (spec.aggregate,))


def all_counts(specs: list[FeatureSpec]) -> list[str]:
    """The counts that some features need, each once."""
    return list(dict.fromkeys(count for spec in specs for count in counts_of(spec)))


def windows(specs: list[FeatureSpec]) -> list[int]:
    """The windows of some features in hours, each once."""
    return sorted({spec.window_hours for spec in specs if spec.window_hours})


def clock(hours: int) -> int:
    """What a window's opening is rounded down to, in microseconds."""
    return MICROS_PER_HOUR if hours <= FINE_HOURS else MICROS_PER_DAY
