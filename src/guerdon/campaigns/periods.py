"""Days, weeks and months of a campaign in the programme's time zone. Pure.

Arithmetic is done on dates, which are converted to times last, so that a day of 23 or 25 hours counts as one day. Awards expire and become
available at midnights: value with the same midnight is one lot, and a wallet holds at most `LOTS_MAX` lots.
"""

from collections.abc import Sequence
from datetime import date, timedelta

from guerdon.calendar import Calendar, add_months, first_of_month
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
from guerdon.ledger.models import AWAITING_CONFIRMATION

DAYS_TO_THE_DAY = 31
"""An expiry after more days is extended to the end of its week, so that daily awards fit into the lots of a wallet."""


def window_name(period: Period, at_ms: int, calendar: Calendar) -> str:
    """Return the name of the calendar period of a time: `2026-11-22`, `2026-W47`, `2026-11`, `2026` or `ever`."""
    if period == "ever":
        return "ever"
    if period == "week":
        year, week, _ = local_date(at_ms, calendar).isocalendar()
        return f"{year:04d}-W{week:02d}"
    day, month = calendar.names(at_ms)
    return {"day": day, "month": month, "year": month[:4]}[period]


def window_ends_at(period: Period, at_ms: int, calendar: Calendar) -> int | None:
    """Return the first millisecond after the calendar period of a time, or None for the period `ever`."""
    day = local_date(at_ms, calendar)
    match period:
        case "ever":
            return None
        case "day":
            after = day + timedelta(days=1)
        case "week":
            after = _next_monday(day)
        case "month":
            after = first_of_month(day, 1)
        case "year":
            after = date(day.year + 1, 1, 1)
    return calendar.midnight(after)


def is_open(schedule: Sequence[Hours], at_ms: int, calendar: Calendar) -> bool:
    """Return whether a time is within the weekly hours."""
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
    """Return (available_at, expires_at) of an award that is made now, in milliseconds. None means at once, and never.

    An award that waits for an event has the latest possible `available_at`, and expires at the end of the waiting time. The campaign's
    expiry is counted from its release.
    """
    match pending:
        case None:
            return None, expires_at(expiry, now_ms, calendar)
        case PendingDays(days):
            available_at = calendar.midnight(local_date(now_ms, calendar) + timedelta(days=days + 1))
            return available_at, expires_at(expiry, now_ms, calendar)
        case PendingEvent(_, within_days):
            return AWAITING_CONFIRMATION, expires_at(AfterDays(within_days), now_ms, calendar)


def expires_at(expiry: Expiry | None, now_ms: int, calendar: Calendar) -> int | None:
    """Return when an award that is made now expires, in milliseconds, or None for never."""
    if expiry is None or isinstance(expiry, NeverExpires):
        return None
    today = local_date(now_ms, calendar)
    match expiry:
        case AfterDays(days):
            last = today + timedelta(days=days)
            return calendar.midnight(last + timedelta(days=1) if days <= DAYS_TO_THE_DAY else _next_monday(last))
        case AfterMonths(months):
            return calendar.midnight(_next_monday(add_months(today, months)))
        case EndOfMonth(months):
            return calendar.midnight(first_of_month(today, months + 1))
        case EndOfYear(years):
            return calendar.midnight(date(today.year + years + 1, 1, 1))


def local_date(at_ms: int, calendar: Calendar) -> date:
    """Return the calendar day of a time."""
    return calendar.local(at_ms).date()


def _next_monday(day: date) -> date:
    return day + timedelta(days=7 - day.weekday())
