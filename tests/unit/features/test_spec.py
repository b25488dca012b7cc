from roiflow.features.spec import ITEM_ENTITIES, RATES, USER_ENTITIES, specs


def test_every_feature_is_declared_once_with_its_default_and_unit() -> None:
    found = specs([1, 7])
    names = [spec.name for spec in found]
    assert len(set(names)) == len(names) == 35
    for spec in found:
        counted = spec.entity in (*USER_ENTITIES, *ITEM_ENTITIES)
        assert counted == (spec.window_days is not None)
        assert spec.default
        assert spec.rows
        if spec.aggregate in RATES:
            assert (spec.default, spec.unit) == (f"global {spec.aggregate}", "fraction")


def test_windows_are_in_the_names_and_the_longest_alone_counts_the_sparse_crosses() -> None:
    names = {spec.name for spec in specs([1, 3, 28])}
    assert {"user_ctr_1d", "user_ctr_3d", "user_ctr_28d", "user_ad_clicks_28d"} <= names
    assert "user_ad_clicks_3d" not in names
