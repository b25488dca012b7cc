from roiflow.features.spec import (
    COUNTS,
    CROSS_HOURS,
    ITEM_ENTITIES,
    RATES,
    USER_ENTITIES,
    WINDOWS,
    specs,
)


def test_every_feature_is_declared_once_with_its_default_unit_and_owner() -> None:
    found = specs(list(WINDOWS))
    names = [spec.name for spec in found]
    assert len(set(names)) == len(names) == 49
    for spec in found:
        counted = spec.entity in (*USER_ENTITIES, *ITEM_ENTITIES)
        assert counted == (spec.window_hours is not None)
        assert all((spec.meaning, spec.default, spec.rows, spec.unit, spec.owner))
        if spec.aggregate in RATES:
            assert (spec.default, spec.unit) == (f"global {spec.aggregate}", "fraction")
        if spec.aggregate in COUNTS:
            assert (spec.default, spec.unit) == ("0", "log(1 + count)")


def test_windows_choose_the_features_and_are_in_their_names() -> None:
    names = {spec.name for spec in specs([24, 672])}
    assert {"user_impressions_1d", "user_ctr_28d", "ad_value_28d", "hour_sin"} <= names
    assert not {name for name in names if name.endswith(("_1h", "_7d"))}


def test_crosses_of_a_user_do_not_reach_further_than_the_store_keeps_them() -> None:
    for spec in specs(list(WINDOWS)):
        if spec.entity in USER_ENTITIES[1:]:
            assert (spec.window_hours or 0) <= CROSS_HOURS
