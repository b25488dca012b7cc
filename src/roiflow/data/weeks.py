"""ISO weeks in UTC: the unit in which data arrives, is evaluated and is shipped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from roiflow.errors import UnknownWeek

MICROS_PER_SECOND = 1_000_000
MICROS_PER_HOUR = 3_600 * MICROS_PER_SECOND
MICROS_PER_DAY = 24 * MICROS_PER_HOUR
MICROS_PER_WEEK = 7 * MICROS_PER_DAY

LATEST = 4_102_444_800_000_000
"""2100-01-01 in microseconds: a later time is a mistake of the unit."""

_FORM = re.compile(r"(\d{4})-W(\d{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Week:
    """An ISO week, Monday 00:00 UTC to the next, written `2026-W04`."""

    year: int
    number: int

    @classmethod
    def parse(cls, text: str) -> "Week":
        """Raises UnknownWeek where `text` is not an ISO week that exists."""
        match = _FORM.fullmatch(text)
        if not match:
            raise UnknownWeek(f"week {text!r}: expected the form YYYY-Www, such as 2026-W04")
        week = cls(int(match[1]), int(match[2]))
        try:
            # Only the calendar tells whether a year has a week 53.
            date.fromisocalendar(week.year, week.number, 1)
        except ValueError as error:
            raise UnknownWeek(f"week {text!r}: {error}") from None
        return week

    @classmethod
    def of(cls, micros: int) -> "Week":
        """The week that holds a time in microseconds since the epoch, UTC."""
        # A timedelta of whole microseconds is exact; fromtimestamp would go through a float.
        year, number, _ = (_EPOCH + timedelta(microseconds=micros)).isocalendar()
        return cls(year, number)

    @property
    def start(self) -> int:
        """First microsecond, since the epoch, UTC."""
        return (
            date.fromisocalendar(self.year, self.number, 1) - _EPOCH.date()
        ).days * MICROS_PER_DAY

    @property
    def end(self) -> int:
        """First microsecond after the week."""
        return self.start + MICROS_PER_WEEK

    def plus(self, weeks: int) -> "Week":
        """The week `weeks` later (earlier where negative)."""
        # By time and not by number, as a year has 52 or 53 weeks.
        return Week.of(self.start + weeks * MICROS_PER_WEEK)

    def window(self, weeks: int) -> "list[Week]":
        """The `weeks` weeks that end with this one, oldest first."""
        return [self.plus(back - weeks + 1) for back in range(weeks)]

    def __str__(self) -> str:
        return f"{self.year:04d}-W{self.number:02d}"


def window_ends(weeks: Sequence[Week], length: int) -> list[Week]:
    """Those of the weeks whose window of `length` weeks is among them as a whole."""
    held = set(weeks)
    return [week for week in weeks if held.issuperset(week.window(length))]


def span(first: Week, last: Week) -> list[Week]:
    """Every week from `first` to `last`; none where `last` is earlier."""
    count = (last.start - first.start) // MICROS_PER_WEEK + 1
    return last.window(count) if count > 0 else []
