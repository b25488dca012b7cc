from roiflow.features.spec import (
    COUNTS,
    ITEM_ENTITIES,
    NAMES,
    RATES,
    SPECS,
    USER_ENTITIES,
    WINDOW_DAYS,
    WINDOWS,
)


def test_every_feature_is_declared_once_with_its_default_unit_and_owner() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(SPECS)
    for spec in SPECS:
        counted = spec.entity in (*USER_ENTITIES, *ITEM_ENTITIES)
        assert counted == (spec.window_days is not None)
        assert all((spec.meaning, spec.default, spec.rows, spec.unit, spec.owner))
        if spec.aggregate in RATES:
            assert (spec.default, spec.unit) == (f"global {spec.aggregate}", "fraction")
        if spec.aggregate in COUNTS:
            assert (spec.default, spec.unit) == ("0", "log(1 + count)")


def test_windows_are_in_their_names() -> None:
    assert set(WINDOW_DAYS) <= set(WINDOWS)
    for spec in SPECS:
        if spec.window_days:
            assert spec.name == f"{spec.entity}_{spec.aggregate}_{spec.window_days}d"
