from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.rules import Scope, text_keys
from roiflow.data.schemas import SCHEMAS
from roiflow.data.validate import Checked, RawWindow, check, check_types, validate
from roiflow.data.weeks import MICROS_PER_WEEK
from roiflow.errors import ContractError, QuarantineLimit, SourceError
from tests.unit.data import worlds
from tests.unit.data.worlds import BOUNDS, FIRST, SECOND, WEEKS, bounds

AS_OF = SECOND.end
FILE = "raw/table.parquet"
DAY = 86_400_000_000


def checked(root: Path, limit: float = 1.0) -> dict[tuple[str, str], Checked]:
    parts = validate(RawWindow(root, "files"), WEEKS, AS_OF, bounds(limit))
    return {(part.table, str(part.week)): part for part in parts}


def spoiled(tmp_path: Path, name: str, row: int, changes: dict[str, Any]) -> Checked:
    """The second week of table `name`, checked with one of its rows changed."""
    rows = worlds.week_rows(name, SECOND)
    rows[row] |= changes
    root = worlds.write(tmp_path, {(name, SECOND): worlds.table(name, rows)})
    return checked(root)[name, str(SECOND)]


def test_a_sound_window_passes_whole_and_in_order(tmp_path: Path) -> None:
    root = worlds.write(tmp_path)
    for (name, week), part in checked(root, limit=0.0).items():
        assert part.quarantined.num_rows == 0
        expected = lake.read_parquet(root / name / f"week={week}" / "part-0.parquet")
        assert part.clean.to_pylist() == expected.to_pylist()
        assert part.clean.schema == worlds.schema(name)


@pytest.mark.parametrize(
    ("name", "row", "changes", "reason"),
    [
        ("ads", 1, {c.PRICE: -1}, "negative price or bid"),
        ("ads", 1, {c.BID: -1}, "negative price or bid"),
        ("ads", 1, {c.DAILY_BUDGET: -1}, "daily budget of 0 or below"),
        ("ads", 1, {c.DAILY_BUDGET: 0}, "daily budget of 0 or below"),
        ("ads", 1, {c.ENDS_AT: FIRST.start - 9}, "ends before it begins"),
        ("ads", 1, {c.AD: "a0"}, "duplicate ad_id"),
        ("ads", 1, {c.KNOWN_TIME: SECOND.end}, "known after as_of"),
        ("users", 2, {c.USER: "u0"}, "duplicate user_id"),
        ("ads", 1, {c.PRICE: 10**12 + 1}, "price, bid or budget over max_amount_micros"),
        ("ads", 1, {c.DAILY_BUDGET: 2**63 - 1}, "price, bid or budget over max_amount_micros"),
        ("ads", 1, {c.CREATED_AT: -1}, "time outside 1970 to 2100"),
        ("ads", 1, {c.AD_TYPE: "a\nb"}, "no name"),
        ("users", 2, {c.USER: ""}, "no name"),
        ("users", 2, {c.USER: "é" * 129}, "no name"),
        ("users", 2, {"age": "x" * 129}, "no name"),
        ("impressions", 4, {c.USER: None}, "null"),
        ("impressions", 4, {c.CLICKED: None}, "null"),
        ("impressions", 4, {c.USER: ""}, "no name"),
        ("impressions", 4, {c.USER: "u" * 129}, "no name"),
        ("impressions", 4, {c.USER: "u\0"}, "no name"),
        ("impressions", 4, {c.PLACEMENT: "feed\x7f"}, "no name"),
        ("impressions", 4, {c.DEVICE: "\x9f"}, "no name"),
        ("impressions", 4, {c.IMPRESSION: "i" * 137}, "no name"),
        (
            "impressions",
            4,
            {c.EVENT_TIME: SECOND.start - 60 * DAY, c.KNOWN_TIME: SECOND.start + 1},
            "event long before it was known",
        ),
        ("impressions", 4, {c.CLICK_KNOWN_TIME: -1}, "time outside 1970 to 2100"),
        ("impressions", 4, {c.COST: 10**12 + 1}, "bid or cost over max_amount_micros"),
        ("impressions", 4, {c.BID: 2**63 - 1}, "bid or cost over max_amount_micros"),
        ("impressions", 4, {c.SLATE_SIZE: 2**31 - 1}, "slate_size over max_slate_size"),
        ("impressions", 4, {c.SLATE_SIZE: 101}, "slate_size over max_slate_size"),
        ("impressions", 5, {c.AD: "a0"}, "ad again in its slate"),
        ("impressions", 4, {c.KNOWN_TIME: SECOND.start}, "known_time before event_time"),
        ("impressions", 4, {c.KNOWN_TIME: SECOND.end}, "known after as_of"),
        (
            "impressions",
            4,
            {c.EVENT_TIME: FIRST.start, c.KNOWN_TIME: SECOND.start - 1},
            "known outside its week",
        ),
        ("impressions", 4, {c.BID: -1}, "negative bid or cost"),
        ("impressions", 4, {c.COST: -1}, "negative bid or cost"),
        ("impressions", 4, {c.PROPENSITY: 0.0}, "propensity outside (0, 1]"),
        ("impressions", 4, {c.PROPENSITY: -0.1}, "propensity outside (0, 1]"),
        ("impressions", 4, {c.PROPENSITY: 1.001}, "propensity outside (0, 1]"),
        ("impressions", 4, {c.PROPENSITY: float("nan")}, "propensity outside (0, 1]"),
        ("impressions", 4, {c.PROPENSITY: None}, "propensity missing where others are logged"),
        ("impressions", 4, {c.POSITION: 0}, "position outside 1 to slate_size"),
        ("impressions", 4, {c.POSITION: 3}, "position outside 1 to slate_size"),
        ("impressions", 4, {c.AD: "a9"}, "ad not in the catalogue"),
        ("impressions", 4, {c.IMPRESSION: "2026-W04-i3"}, "duplicate impression_id"),
        ("impressions", 4, {c.IMPRESSION: "2026-W03-i3"}, "duplicate impression_id"),
        (
            "impressions",
            4,
            {c.REQUEST: "2026-W04-r1"},
            "duplicate request_id and position",
        ),
        ("behaviours", 1, {c.DWELL_MS: -5}, "negative dwell"),
        ("behaviours", 1, {c.ACTION: "\x1b[2J"}, "no name"),
        ("conversions", 1, {c.REVENUE: 10**12 + 1}, "revenue over max_amount_micros"),
        ("conversions", 1, {c.REVENUE: 2**63 - 1}, "revenue over max_amount_micros"),
        ("conversions", 1, {c.REVENUE: -(2**63)}, "revenue over max_amount_micros"),
        ("behaviours", 1, {c.AD: None}, "null"),
        (
            "conversions",
            1,
            {c.EVENT_TIME: SECOND.start + 1},
            "conversion before its impression",
        ),
    ],
)
def test_one_bad_row_is_set_aside_with_its_reason(
    tmp_path: Path, name: str, row: int, changes: dict[str, Any], reason: str
) -> None:
    part = spoiled(tmp_path, name, row, changes)
    assert part.reasons == {reason: 1}
    bad = part.quarantined.to_pylist()[0]
    wanted = worlds.table(name, [worlds.week_rows(name, SECOND)[row] | changes]).to_pylist()[0]
    assert str(bad) == str(wanted | {c.REASON: reason})
    assert part.clean.num_rows == len(worlds.week_rows(name, SECOND)) - 1


def test_a_conversion_counts_once_and_another_of_the_same_impression_too(tmp_path: Path) -> None:
    rows = worlds.week_rows("conversions", SECOND)
    time = rows[1][c.EVENT_TIME]
    later = {c.EVENT_TIME: time + 1, c.KNOWN_TIME: time + 1}
    more = [rows[1] | later, rows[1] | {c.REVENUE: -1}, rows[1]]
    changed = {("conversions", SECOND): worlds.table("conversions", [*rows, *more])}
    part = checked(worlds.write(tmp_path, changed))["conversions", str(SECOND)]
    assert part.reasons == {"duplicate conversion": 1}
    assert part.clean.num_rows == len(rows) + 2


@pytest.mark.parametrize(
    ("name", "row", "changes"),
    [
        ("impressions", 4, {c.PROPENSITY: 1.0}),
        ("impressions", 4, {c.PROPENSITY: 5e-324}),
        ("impressions", 4, {c.USER: "u" * 128}),
        ("impressions", 4, {c.USER: "Ü€🜁" * 42}),
        ("impressions", 4, {c.IMPRESSION: "i" * 136}),
        ("impressions", 4, {c.COST: 0}),
        ("impressions", 4, {c.COST: 10**12, c.BID: 10**12}),
        ("impressions", 4, {c.SLATE_SIZE: 100, c.POSITION: 100}),
        (
            "impressions",
            4,
            {c.EVENT_TIME: SECOND.start - 60 * DAY, c.KNOWN_TIME: SECOND.start},
        ),
        ("conversions", 1, {c.REVENUE: -(10**12)}),
        ("conversions", 1, {c.REVENUE: -2_000_000}),  # a return
        ("conversions", 1, {c.EVENT_TIME: SECOND.start + 3_600_000_000}),  # at its impression
        ("behaviours", 1, {c.DWELL_MS: 0}),
    ],
)
def test_the_bounds_themselves_are_allowed(
    tmp_path: Path, name: str, row: int, changes: dict[str, Any]
) -> None:
    assert spoiled(tmp_path, name, row, changes).reasons == {}


def test_propensities_may_be_null_everywhere(tmp_path: Path) -> None:
    changed = {
        ("impressions", week): worlds.table(
            "impressions",
            [row | {c.PROPENSITY: None} for row in worlds.week_rows("impressions", week)],
        )
        for week in WEEKS
    }
    root = worlds.write(tmp_path, changed)
    assert all(not part.reasons for part in checked(root).values())


def test_the_ads_of_the_week_before_are_in_the_catalogue(tmp_path: Path) -> None:
    ads = worlds.table("ads", [worlds.ad(SECOND, 0)])
    root = worlds.write(tmp_path, {("ads", SECOND): ads})
    assert checked(root)["impressions", str(SECOND)].reasons == {}


def test_of_two_impressions_the_sound_one_stays_then_the_first_known(tmp_path: Path) -> None:
    rows = worlds.week_rows("impressions", SECOND)
    same = {c.IMPRESSION: "twice"}
    rows[0] |= same | {c.COST: -1}
    rows[5] |= same
    rows[8] |= same
    rows = [*rows[:5], rows[8], *rows[5:8], rows[9]]  # row 5 is known before row 8, listed after
    root = worlds.write(tmp_path, {("impressions", SECOND): worlds.table("impressions", rows)})
    part = checked(root)["impressions", str(SECOND)]
    assert part.reasons == {"negative bid or cost": 1, "duplicate impression_id": 1}
    kept = part.clean.filter(pc.equal(part.clean[c.IMPRESSION], "twice")).to_pylist()
    assert [row[c.USER] for row in kept] == ["u2"]


def test_a_conversion_of_an_earlier_window_is_kept_and_counted(tmp_path: Path) -> None:
    part = spoiled(tmp_path, "conversions", 2, {c.IMPRESSION: "long ago"})
    assert (part.reasons, part.orphans, part.clean.num_rows) == ({}, 1, 4)


def test_a_conversion_may_follow_an_impression_of_the_week_before(tmp_path: Path) -> None:
    part = spoiled(tmp_path, "conversions", 2, {c.IMPRESSION: f"{FIRST}-i9"})
    assert (part.reasons, part.orphans) == ({}, 0)


@pytest.mark.parametrize(
    ("name", "row", "changes", "fault", "right"),
    [
        (
            "ads",
            1,
            {c.DAILY_BUDGET: 10**13},
            {c.DAILY_BUDGET: "10000000000000"},
            "0 to 1,000,000,000,000 mi",
        ),
        ("users", 2, {"age": "\0"}, {"age": r"'\x00'"}, "1 to 128 characters"),
        ("impressions", 4, {c.DEVICE: None}, {c.DEVICE: "null"}, "a value"),
        ("impressions", 4, {c.POSITION: 7}, {c.POSITION: "7", c.SLATE_SIZE: "2"}, "1 for the top"),
        ("impressions", 4, {c.AD: "a9"}, {c.AD: "'a9'"}, "ads of 2026-W04 or of the week before"),
        (
            "conversions",
            1,
            {c.REVENUE: 2**62},
            {c.REVENUE: str(2**62)},
            "-1,000,000,000,000 to 1,000,",
        ),
    ],
)
def test_the_first_row_of_a_reason_says_what_is_wrong_and_what_would_be_right(
    tmp_path: Path, name: str, row: int, changes: dict[str, Any], fault: dict[str, str], right: str
) -> None:
    (example,) = spoiled(tmp_path, name, row, changes).examples.values()
    assert (example.row, example.fault) == (row, fault)
    assert right in example.right


def test_bytes_that_are_no_text_are_set_aside_by_row() -> None:
    rows = worlds.table("users", [worlds.user(FIRST, number) for number in range(3)])
    broken = pa.array([b"u0", b"\xff\xfe", "\u00fc".encode()], pa.binary())
    text = pa.StringArray.from_buffers(3, *broken.buffers()[1:])
    rows = rows.set_column(rows.column_names.index(c.USER), c.USER, text)
    none = np.zeros(0, np.int64)
    scope = Scope(BOUNDS, FIRST, AS_OF, pa.chunked_array([[""]]), True, False, *[none] * 4)
    part = check("users", check_types("users", rows, FILE), scope)
    assert part.reasons == {"no name": 1}
    assert part.examples["no name"].fault == {c.USER: r"b'\xff\xfe'"}
    assert part.clean[c.USER].to_pylist() == ["u0", "\u00fc"]


@pytest.mark.parametrize(
    ("name", "column", "micros"),
    [
        ("impressions", c.EVENT_TIME, -(2**62)),
        ("impressions", c.EVENT_TIME, -(2**63)),
        ("impressions", c.KNOWN_TIME, 2**63 - 1),
        ("impressions", c.CLICK_KNOWN_TIME, -(2**62)),
        ("users", c.EVENT_TIME, -(2**62)),
        ("ads", c.CREATED_AT, 2**62),
        ("conversions", c.EVENT_TIME, -(2**62)),
    ],
)
def test_a_time_of_no_year_is_set_aside(
    tmp_path: Path, name: str, column: str, micros: int
) -> None:
    part = spoiled(tmp_path, name, 1, {column: micros})
    assert part.reasons == {"time outside 1970 to 2100": 1}
    assert part.examples["time outside 1970 to 2100"].fault == {column: str(micros)}


def test_an_ad_is_once_in_a_slate_also_across_weeks(tmp_path: Path) -> None:
    rows = worlds.week_rows("impressions", SECOND)
    rows[0] |= {c.REQUEST: f"{FIRST}-r4", c.POSITION: 3, c.SLATE_SIZE: 3}
    rows[5][c.AD] = rows[4][c.AD]
    changed = {("impressions", SECOND): worlds.table("impressions", rows)}
    part = checked(worlds.write(tmp_path, changed))["impressions", str(SECOND)]
    assert part.reasons == {"ad again in its slate": 2}
    assert sorted(part.quarantined[c.POSITION].to_pylist()) == [2, 3]


def test_an_empty_attribute_is_unknown() -> None:
    rows = worlds.table("users", [worlds.user(FIRST, 0, age=""), worlds.user(FIRST, 1)])
    assert check_types("users", rows, FILE)["age"].to_pylist() == ["unknown", "30-39"]


def test_the_limit_names_table_week_share_reason_and_row(tmp_path: Path) -> None:
    rows = worlds.week_rows("impressions", FIRST)
    rows[3][c.PROPENSITY] = 1.5
    rows[7][c.COST] = -8
    root = worlds.write(tmp_path, {("impressions", FIRST): worlds.table("impressions", rows)})
    checked(root, limit=0.2)
    with pytest.raises(QuarantineLimit) as caught:
        checked(root, limit=0.19)
    text = str(caught.value)
    for part in (
        "source files: impressions/week=2026-W03: 2 of 10 rows of impressions in 2026-W03",
        "(20.00%)",
        "allowed 19.00%",
        "1 propensity outside (0, 1], 1 negative bid or cost",
        "first: propensity outside (0, 1]: ",
        "source files: impressions/week=2026-W03, row 4: impression_id='2026-W03-i3', "
        "propensity=1.5; ",
        "right: over 0 and at most 1",
    ):
        assert part in text


def test_text_where_a_number_belongs_stops_and_names_the_column(tmp_path: Path) -> None:
    rows = worlds.tables(SECOND)["impressions"]
    place = rows.column_names.index(c.BID)
    wrong = rows.set_column(place, c.BID, rows[c.BID].cast(pa.string()))
    root = worlds.write(tmp_path, {("impressions", SECOND): wrong})
    with pytest.raises(ContractError, match=r"2026-W04: column 'bid_micros' is of type str"):
        checked(root)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (c.POSITION, pa.array([1], pa.int64()), "of type int64, expected int32"),
        (c.BID, pa.array([1.5]), "of type double, expected int64"),
        (c.CLICKED, pa.array([1], pa.int8()), "of type int8, expected bool"),
        (c.USER, pa.array([7], pa.int64()), "of type int64, expected string"),
        (c.EVENT_TIME, pa.array([7], pa.int64()), "expected timestamp"),
        (c.EVENT_TIME, pa.array([1], pa.timestamp("us")), "of type timestamp.*expected timestamp"),
    ],
)
def test_another_type_stops(name: str, values: pa.Array, message: str) -> None:
    rows = worlds.table("impressions", [worlds.impression(FIRST, 0)])
    wrong = rows.set_column(rows.column_names.index(name), name, values)
    with pytest.raises(ContractError, match=message):
        check_types("impressions", wrong, FILE)


def test_a_missing_column_stops() -> None:
    rows = worlds.table("ads", [worlds.ad(FIRST, 0)]).drop_columns([c.BID])
    with pytest.raises(ContractError, match=r"raw/table.parquet: no column 'bid_micros'"):
        check_types("ads", rows, FILE)


def test_a_column_that_may_be_null_may_be_absent_and_others_are_left_out() -> None:
    rows = worlds.table("impressions", [worlds.impression(FIRST, 0)])
    other = rows.drop_columns([c.CLICK_KNOWN_TIME]).append_column("more", rows[c.USER])
    assert check_types("impressions", other, FILE) == check_types("impressions", rows, FILE)
    assert check_types("impressions", other, FILE).schema == SCHEMAS["impressions"]


def test_profile_attributes_are_text_without_nulls() -> None:
    rows = worlds.table("users", [worlds.user(FIRST, 0), worlds.user(FIRST, 1, age=None)])
    assert check_types("users", rows, FILE)["age"].to_pylist() == ["30-39", "unknown"]
    with pytest.raises(ContractError, match="column 'score' is of type int64"):
        check_types("users", rows.append_column("score", pa.array([1, 2])), FILE)


def test_a_missing_or_corrupt_partition_is_named(tmp_path: Path) -> None:
    root = worlds.write(tmp_path)
    path = root / "conversions" / "week=2026-W04" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match=r"conversions/week=2026-W04/part-0.*: not readable"):
        checked(root)
    path.unlink()
    with pytest.raises(SourceError, match=r"conversions/week=2026-W04/part-0.*: no such file"):
        checked(root)


def test_text_keys_are_equal_only_for_equal_text() -> None:
    texts = ["", "a", "b", "ab", "ba", "a\0", "\0a", "\0", "é" * 128, "x" * 256, "a"]
    keys = text_keys(pa.chunked_array([texts[:4], [], texts[4:]], pa.string()))
    assert keys.size == len(texts)
    assert keys[1] == keys[10]
    assert len(set(keys.tolist())) == len(texts) - 1
    sliced = pa.chunked_array([pa.array(["skipped", *texts]).slice(1)])
    np.testing.assert_array_equal(text_keys(sliced), keys)


FAULTS: list[dict[str, Any]] = [
    {c.COST: -1},
    {c.PROPENSITY: 0.0},
    {c.PROPENSITY: None},
    {c.USER: ""},
    {c.AD: "nobody's"},
    {c.POSITION: 9},
    {c.KNOWN_TIME: FIRST.start - 1},
    {c.EVENT_TIME: None},
    {c.KNOWN_TIME: FIRST.start + MICROS_PER_WEEK},
    {c.IMPRESSION: "the same"},
    {c.REQUEST: "the same", c.POSITION: 1},
]


@st.composite
def spoiled_weeks(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(2, 30))
    rows = [worlds.impression(FIRST, number) for number in range(count)]
    faults = draw(st.lists(st.tuples(st.integers(0, count - 1), st.sampled_from(FAULTS))))
    for row, fault in faults:
        rows[row] |= fault
    return rows


def first_week(rows: pa.Table, first: bool = False) -> Checked:
    """Impressions held against a scope of their own."""
    none = np.zeros(0, np.int64)
    catalogue = pa.chunked_array([["a0", "a1"]])
    logged = rows[c.PROPENSITY].null_count < rows.num_rows
    scope = Scope(BOUNDS, FIRST, AS_OF, catalogue, first, logged, none, none, none, none)
    return check("impressions", check_types("impressions", rows, FILE), scope)


@pytest.mark.parametrize(
    ("event_time", "first", "reasons"),
    [
        (FIRST.start - 1, True, {}),
        (FIRST.start, True, {"ad not in the catalogue": 1}),
        (FIRST.start - 1, False, {"ad not in the catalogue": 1}),
    ],
)
def test_an_ad_is_not_judged_by_a_catalogue_that_is_not_there(
    event_time: int, first: bool, reasons: dict[str, int]
) -> None:
    """The window's first week holds impressions of the week before, whose ads may have ended."""
    row = worlds.impression(FIRST, 0) | {c.AD: "ended", c.EVENT_TIME: event_time}
    assert first_week(worlds.table("impressions", [row]), first).reasons == reasons


@pytest.mark.parametrize(
    ("clicked", "known", "reasons"),
    [
        (True, FIRST.start + 9, {}),
        (False, FIRST.start + 9, {"click_known_time without a click": 1}),
        (True, AS_OF, {"click known after as_of": 1}),
        (False, None, {}),
    ],
)
def test_a_click_with_a_time_of_its_own_is_checked(
    clicked: bool, known: int | None, reasons: dict[str, int]
) -> None:
    row = worlds.impression(FIRST, 0) | {c.CLICKED: clicked, c.CLICK_KNOWN_TIME: known}
    assert first_week(worlds.table("impressions", [row])).reasons == reasons


def multiset(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(map(str, rows))


BRIEF = settings(max_examples=100, deadline=None)


@BRIEF
@given(rows=spoiled_weeks())
def test_clean_and_quarantined_rows_are_the_input(rows: list[dict[str, Any]]) -> None:
    table = worlds.table("impressions", rows)
    part = first_week(table)
    together = part.clean.to_pylist() + part.quarantined.drop_columns([c.REASON]).to_pylist()
    assert multiset(together) == multiset(table.to_pylist())
    untouched = [worlds.impression(FIRST, number) for number in range(len(rows))]
    assert part.clean.num_rows >= sum(map(dict.__eq__, rows, untouched))


@BRIEF
@given(rows=spoiled_weeks())
def test_clean_rows_are_clean_when_checked_again(rows: list[dict[str, Any]]) -> None:
    clean = first_week(worlds.table("impressions", rows)).clean
    assert first_week(clean).quarantined.num_rows == 0


@BRIEF
@given(rows=spoiled_weeks(), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(rows: list[dict[str, Any]], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(rows))
    straight = first_week(worlds.table("impressions", rows))
    shuffled = first_week(worlds.table("impressions", [rows[row] for row in order]))
    assert multiset(straight.clean.to_pylist()) == multiset(shuffled.clean.to_pylist())
    assert straight.reasons == shuffled.reasons
