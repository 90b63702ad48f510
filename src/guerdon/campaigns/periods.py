"""Days, weeks and months of a campaign, by the clocks of the programme's time zone. Pure.

Dates are taken first and turned into moments last, so that a day of 23 or 25 hours is a day. Awards lapse, and become available, at
midnights: value of one midnight is one lot, and a wallet holds at most `LOTS_MAX` of them.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from guerdon.calendar import Calendar
from guerdon.campaigns.models import (
    WEEKDAYS,
    AfterDays,
    AfterMonths,
    EndOfMonth,
    EndOfYear,
    Expiry,
    Hours,
    NeverExpires,
    Pending,
    PendingDays,
    PendingEvent,
    Period,
)
from guerdon.clock import to_ms
from guerdon.ledger.models import AWAITING_CONFIRMATION

DAYS_TO_THE_DAY = 31
"""An expiry of more days is put off to the end of its week, so that a daily award fits into a wallet's lots."""


def window_name(period: Period, at_ms: int, calendar: Calendar) -> str:
    """Name the calendar period that holds a moment: `2026-11-22`, `2026-W47`, `2026-11`, `2026` or `ever`."""
    if period == "ever":
        return "ever"
    if period == "week":
        year, week, _ = local_date(at_ms, calendar).isocalendar()
        return f"{year:04d}-W{week:02d}"
    day, month = calendar.names(at_ms)
    return {"day": day, "month": month, "year": month[:4]}[period]


def is_open(schedule: Sequence[Hours] | None, at_ms: int, calendar: Calendar) -> bool:
    """Whether a moment lies within the weekly hours; None has no hours and is always open."""
    if schedule is None:
        return True
    local = calendar.local(at_ms)
    clock = f"{local.hour:02d}:{local.minute:02d}"
    today, yesterday = WEEKDAYS[local.weekday()], WEEKDAYS[local.weekday() - 1]
    for hours in schedule:
        over_night = hours.ends <= hours.starts
        if today in hours.days and hours.starts <= clock and (over_night or clock < hours.ends):
            return True
        if over_night and yesterday in hours.days and clock < hours.ends:
            return True
    return False


def dates_of(pending: Pending | None, expiry: Expiry | None, now_ms: int, calendar: Calendar) -> tuple[int | None, int | None]:
    """From when an award of now can be spent, and when it lapses; None is at once, and never.

    One that waits for an event cannot be spent before that has come, whenever that is; how long it lives then is counted from then on.
    """
    match pending:
        case None:
            return None, expires_at(expiry, now_ms, calendar)
        case PendingDays(days):
            there = _midnight(local_date(now_ms, calendar) + timedelta(days=days + 1), calendar)
            return there, expires_at(expiry, now_ms, calendar)
        case PendingEvent(_, within_days):
            return AWAITING_CONFIRMATION, expires_at(AfterDays(within_days), now_ms, calendar)


def expires_at(expiry: Expiry | None, now_ms: int, calendar: Calendar) -> int | None:
    """When an award of now lapses; None is never."""
    today = local_date(now_ms, calendar)
    match expiry:
        case None | NeverExpires():
            return None
        case AfterDays(days):
            last = today + timedelta(days=days)
            return _midnight(last + timedelta(days=1) if days <= DAYS_TO_THE_DAY else _next_monday(last), calendar)
        case AfterMonths(months):
            first = _months_later(today, months)
            days_of_month = (_months_later(first, 1) - first).days
            return _midnight(_next_monday(first.replace(day=min(today.day, days_of_month))), calendar)
        case EndOfMonth(months):
            return _midnight(_months_later(today, months + 1), calendar)
        case EndOfYear(years):
            return _midnight(date(today.year + years + 1, 1, 1), calendar)


def local_date(at_ms: int, calendar: Calendar) -> date:
    """The day of a moment."""
    return calendar.local(at_ms).date()


def _midnight(day: date, calendar: Calendar) -> int:
    return to_ms(datetime.combine(day, time.min, calendar.zone).astimezone(UTC))


def _next_monday(day: date) -> date:
    return day + timedelta(days=7 - day.weekday())


def _months_later(day: date, months: int) -> date:
    """The first of the month that comes so many months later."""
    count = day.year * 12 + day.month - 1 + months
    return date(count // 12, count % 12 + 1, 1)
