"""The calendar of the programme: days and months in its time zone."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from guerdon.clock import to_datetime, to_ms


class Calendar:
    """Days and months of one time zone. Times are milliseconds since the epoch."""

    def __init__(self, zone: str = "UTC") -> None:
        self.zone = ZoneInfo(zone)
        self._names: dict[int, tuple[str, str]] = {}

    def local(self, at_ms: int) -> datetime:
        """Return the local time of the zone, or the same digits as in UTC where the local time is outside the years 1 to 9999."""
        moment = to_datetime(at_ms)
        try:
            return moment.astimezone(self.zone)
        except OverflowError:
            return moment.replace(tzinfo=self.zone)

    def names(self, now_ms: int) -> tuple[str, str]:
        """Return (day, month), such as (`2026-11-22`, `2026-11`)."""
        quarter_hour = now_ms // 900_000  # No time zone changes its offset within a quarter of an hour of UTC.
        names = self._names.get(quarter_hour)
        if names is None:
            day = self.local(now_ms).date().isoformat()
            if len(self._names) >= QUARTERS_MAX:
                self._names.clear()
            names = self._names[quarter_hour] = (day, day[:7])
        return names

    def month_bounds(self, year: int, month: int) -> tuple[int, int]:
        """Return the first milliseconds of a month and of the next one."""
        first = datetime(year, month, 1, tzinfo=self.zone)
        after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=self.zone)
        return to_ms(first.astimezone(UTC)), to_ms(after.astimezone(UTC))

    def midnight(self, day: date) -> int:
        """Return the midnight at which a day begins."""
        return to_ms(datetime.combine(day, time.min, self.zone).astimezone(UTC))

    def end_of_day(self, now_ms: int, days: int = 0) -> int:
        """Return the midnight at which the day of `now_ms` ends, or the midnight `days` days later."""
        today = to_datetime(now_ms).astimezone(self.zone).date()
        return self.midnight(today + timedelta(days=days + 1))

    def month_ends_at(self, now_ms: int) -> int:
        """Return the first millisecond of the next month."""
        month = self.names(now_ms)[1]
        return self.month_bounds(int(month[:4]), int(month[5:]))[1]


def first_of_month(day: date, months: int) -> date:
    """Return the first day of the month `months` after the month of `day`."""
    count = day.year * 12 + day.month - 1 + months
    return date(count // 12, count % 12 + 1, 1)


def years_before(at_ms: int, years: int) -> int:
    """Return the same time of the same day in UTC `years` years earlier; 28 February for 29 February in a year without it."""
    moment = to_datetime(at_ms)
    day = add_months(moment.date(), -12 * years)
    return to_ms(datetime.combine(day, moment.timetz()))


def add_months(day: date, months: int) -> date:
    """Return the same day of the month `months` later, or the last day of that month if it is shorter."""
    first = first_of_month(day, months)
    return first.replace(day=min(day.day, (first_of_month(first, 1) - first).days))


QUARTERS_MAX = 4096
"""Maximum number of quarters of an hour whose names are cached."""
