"""Ranges of days and their periods. Pure."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple, Protocol

from guerdon.calendar import Calendar, first_of_month
from guerdon.errors import Validation, collect
from guerdon.history.models import moment_ms
from guerdon.reports.models import Grouping

DAYS_MAX, MONTHS_MAX = 366, 600
"""Maximum number of rows of a report by day, and of one by month."""
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9998, 12, 31)


class HasRange(Protocol):
    """Query with a range of days."""

    @property
    def starts(self) -> str | None: ...
    @property
    def ends(self) -> str | None: ...
    @property
    def group(self) -> Grouping: ...


class DayRange(NamedTuple):
    """Days from `first` to before `after`, and the length of a period."""

    first: date
    after: date
    group: Grouping

    @property
    def periods(self) -> list[str]:
        """Names of the periods, such as `2026-11-22` or `2026-11`. An empty range has one, so that it has one row of zeros."""
        if self.first == self.after:
            return [name_of(self.first, self.group)]
        return list(_names(self))

    @property
    def is_by_day(self) -> bool:
        return self.group == "day"


def name_of(day: date, group: Grouping) -> str:
    """Return the name of the period that a day belongs to."""
    return day.isoformat() if group == "day" else day.isoformat()[:7]


def _names(days: DayRange) -> Iterator[str]:
    day = days.first
    while day < days.after:
        yield name_of(day, days.group)
        day = day + timedelta(days=1) if days.is_by_day else first_of_month(day, 1)


def range_of(query: HasRange, today: date, calendar: Calendar) -> DayRange:
    """Return the range of a query.

    Raises:
        Validation: a date does not exist or is no midnight, the range ends before it begins, or it has too many periods.
    """
    faults: list[Validation] = []
    after, first = today + timedelta(days=1), None
    with collect(faults):
        after = after if query.ends is None else day_of(query.ends, "to", calendar)
    with collect(faults):
        first = None if query.starts is None else day_of(query.starts, "from", calendar)
    if faults:
        raise Validation.all_of(faults)
    if first is None:
        first = (after - timedelta(days=1)).replace(day=1)
    days = DayRange(first, after, query.group)
    if after < first:
        raise Validation.at("to", f"must not be before `from`, which is {first.isoformat()}")
    if days.is_by_day and (after - first).days > DAYS_MAX:
        raise Validation.at("group", f"by day a report has at most {DAYS_MAX} days; use group=month or a shorter range")
    if (after.year - first.year) * 12 + after.month - first.month > MONTHS_MAX:
        raise Validation.at("from", f"a report has at most {MONTHS_MAX} months; use a shorter range")
    return days


def day_of(text: str, name: str, calendar: Calendar) -> date:
    """Return the day of a date, or of the time at which a day begins; `name` is the name of the parameter.

    Raises:
        Validation: the date or time does not exist, is outside the years 1970 to 9998, or is not the beginning of a day.
    """
    if "T" not in text:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise Validation.at(name, "the date does not exist") from None
    else:
        moment = moment_ms(text, name)
        day = calendar.local(moment).date()
        if FIRST_DAY <= day <= LAST_DAY and calendar.midnight(day) != moment:
            begins = calendar.local(calendar.midnight(day)).isoformat()
            raise Validation.at(name, f"a day of {calendar.zone.key} begins at {begins}; send a date or such a midnight")
    if not FIRST_DAY <= day <= LAST_DAY:
        raise Validation.at(name, "must lie in the years 1970 to 9998")
    return day


def begins_ms(day: date, calendar: Calendar) -> int:
    """Return the first millisecond of a day."""
    return calendar.midnight(day)


def month_range(month: str) -> DayRange:
    """Return the days of a month such as `2026-11`."""
    first = date(int(month[:4]), int(month[5:]), 1)
    return DayRange(first, first_of_month(first, 1), "month")
