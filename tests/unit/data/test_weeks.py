from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roiflow.data.weeks import MICROS_PER_WEEK, Week
from roiflow.errors import UnknownWeek


def micros(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("2022-W17", micros(2022, 4, 25)),
        ("2017-W01", micros(2017, 1, 2)),
        ("2016-W52", micros(2016, 12, 26)),
        ("2020-W53", micros(2020, 12, 28)),  # 2020 is a year of 53 weeks
    ],
)
def test_a_week_starts_on_its_monday(text: str, start: int) -> None:
    week = Week.parse(text)
    assert (week.start, week.end, str(week)) == (start, start + MICROS_PER_WEEK, text)


@pytest.mark.parametrize("text", ["2021-W53", "2026-W00", "2026-W54", "2026W04", "2026-W4", ""])
def test_a_week_that_does_not_exist_is_named(text: str) -> None:
    with pytest.raises(UnknownWeek, match=f"week '{text}'"):
        Week.parse(text)


def test_windows_cross_the_year() -> None:
    names = [str(week) for week in Week(2021, 1).window(3)]
    assert names == ["2020-W52", "2020-W53", "2021-W01"]


@given(time=st.integers(0, 4 * 10**15))
def test_every_time_lies_in_its_week(time: int) -> None:
    week = Week.of(time)
    assert week.start <= time < week.end
    assert Week.parse(str(week)) == week
