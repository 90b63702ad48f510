"""Spending limits: what counts against which day and month. Pure; the time zone is the programme's."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from guerdon.clock import rfc3339, to_datetime, to_ms
from guerdon.errors import LimitReached
from guerdon.ledger.models import Account, Spent

QUARTERS_MAX = 4096


class Calendar:
    """Days and months of one time zone."""

    def __init__(self, zone: str = "UTC") -> None:
        self.zone = ZoneInfo(zone)
        self._names: dict[int, tuple[str, str]] = {}

    def local(self, at_ms: int) -> datetime:
        """What the clocks of the zone show; at the very ends of the calendar, where they show nothing, those of UTC."""
        moment = to_datetime(at_ms)
        try:
            return moment.astimezone(self.zone)
        except OverflowError:
            return moment.replace(tzinfo=self.zone)

    def names(self, now_ms: int) -> tuple[str, str]:
        """Return (day, month), as `2026-11-22` and `2026-11`."""
        quarter = now_ms // 900_000  # No time zone changes its offset within a quarter of an hour of UTC.
        names = self._names.get(quarter)
        if names is None:
            day = self.local(now_ms).date().isoformat()
            if len(self._names) >= QUARTERS_MAX:
                self._names.clear()
            names = self._names[quarter] = (day, day[:7])
        return names

    def month_bounds(self, year: int, month: int) -> tuple[int, int]:
        """Return the first millisecond of a month and that of the next one."""
        first = datetime(year, month, 1, tzinfo=self.zone)
        after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=self.zone)
        return to_ms(first.astimezone(UTC)), to_ms(after.astimezone(UTC))

    def end_of_day(self, now_ms: int, days: int = 0) -> int:
        """Return the midnight at which this day ends, or the one so many days later."""
        today = to_datetime(now_ms).astimezone(self.zone).date()
        return to_ms(datetime.combine(today + timedelta(days=days + 1), datetime.min.time(), self.zone).astimezone(UTC))

    def month_ends_at(self, now_ms: int) -> int:
        """Return the first millisecond of the next month."""
        month = self.names(now_ms)[1]
        return self.month_bounds(int(month[:4]), int(month[5:]))[1]


def counters(account: Account, calendar: Calendar, now_ms: int) -> Spent:
    """What has been counted in the day and the month of `now_ms`."""
    day, month = calendar.names(now_ms)
    spent = account.spent
    if spent is None:
        return Spent(day, month)
    return Spent(day, month, spent.in_day if spent.day == day else 0, spent.in_month if spent.month == month else 0)


def require_within(account: Account, amount: int, calendar: Calendar, now_ms: int) -> None:
    """
    Raises:
        LimitReached: the day's or the month's limit would be passed.
    """
    limits = account.limits
    if limits is None:
        return
    spent = counters(account, calendar, now_ms)
    for period, limit, used in (("day", limits.day, spent.in_day), ("month", limits.month, spent.in_month)):
        if limit is not None and used + amount > limit:
            year, month = int(spent.month[:4]), int(spent.month[5:])
            resets_at = calendar.end_of_day(now_ms) if period == "day" else calendar.month_bounds(year, month)[1]
            raise LimitReached(
                f"{used} of {limit} {account.asset} are spent this {period}; {amount} more are not allowed",
                asset=account.asset,
                period=period,
                limit=limit,
                spent=used,
                needed=amount,
                resets_at=rfc3339(resets_at),
            )


def counted(account: Account, change: tuple[int, int], calendar: Calendar, now_ms: int) -> Spent:
    """Return the counters after `change` (of the day, of the month); they do not fall below zero."""
    spent = counters(account, calendar, now_ms)
    return msgspec.structs.replace(spent, in_day=max(0, spent.in_day + change[0]), in_month=max(0, spent.in_month + change[1]))


def gives_back(amount: int, spent_at_ms: int, calendar: Calendar, now_ms: int) -> tuple[int, int]:
    """By how much the counters fall when what was spent at `spent_at_ms` comes back: only those of the same day and month do."""
    then, now = calendar.names(spent_at_ms), calendar.names(now_ms)
    return (amount if then[0] == now[0] else 0, amount if then[1] == now[1] else 0)
