"""ISO weeks in UTC."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_WEEK, Week, span, window_ends
from roiflow.errors import UnknownWeek


def micros(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "monday"),
    [
        ("2026-W01", (2025, 12, 29)),
        ("2026-W04", (2026, 1, 19)),
        ("2022-W17", (2022, 4, 25)),
        ("2017-W01", (2017, 1, 2)),
        ("2016-W52", (2016, 12, 26)),
        ("2020-W53", (2020, 12, 28)),
        ("2021-W01", (2021, 1, 4)),
        ("1970-W01", (1969, 12, 29)),
    ],
)
def test_a_week_starts_on_its_monday_in_utc(text: str, monday: tuple[int, int, int]) -> None:
    week = Week.parse(text)
    assert week.start == micros(*monday)
    assert week.end == micros(*monday) + 7 * MICROS_PER_DAY
    assert str(week) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-W00",
        "2026-W54",
        "2025-W53",
        "2021-W53",
        "2026W04",
        "2026-4",
        "W04",
        "2026-W4",
        "",
        "2026-W04 ",
    ],
)
def test_what_is_no_week_is_named(text: str) -> None:
    with pytest.raises(UnknownWeek, match=f"week '{text}'"):
        Week.parse(text)


def test_a_window_ends_with_its_week_and_crosses_the_year() -> None:
    assert [str(week) for week in Week.parse("2021-W02").window(4)] == [
        "2020-W52",
        "2020-W53",
        "2021-W01",
        "2021-W02",
    ]


@given(st.dates(min_value=date(1970, 1, 1), max_value=date(2099, 12, 31)), st.integers(-60, 60))
def test_weeks_agree_with_the_calendar(day: date, further: int) -> None:
    time = micros(day.year, day.month, day.day)
    week = Week.of(time)
    assert (week.year, week.number) == day.isocalendar()[:2]
    assert week.start <= time < week.end
    assert Week.of(week.start) == week == Week.of(week.end - 1)
    assert week.plus(further).start - week.start == further * MICROS_PER_WEEK
    assert week.plus(further).plus(-further) == week
    assert (week.plus(further) > week) == (further > 0)


@given(time=st.integers(0, 4 * 10**15))
def test_every_time_lies_in_its_week(time: int) -> None:
    week = Week.of(time)
    assert week.start <= time < week.end
    assert Week.parse(str(week)) == week


def test_a_window_ends_where_all_its_weeks_are_held() -> None:
    held = [Week(2026, number) for number in (1, 2, 3, 5, 6)]
    assert window_ends(held, 1) == held
    assert window_ends(held, 2) == [Week(2026, 2), Week(2026, 3), Week(2026, 6)]
    assert window_ends(held, 3) == [Week(2026, 3)]
    assert window_ends(held, 4) == window_ends([], 1) == []


def test_a_span_has_both_its_ends() -> None:
    assert [str(week) for week in span(Week(2020, 52), Week(2021, 1))] == [
        "2020-W52",
        "2020-W53",
        "2021-W01",
    ]
    assert span(Week(2026, 2), Week(2026, 1)) == []
