"""Spending limits: the day and the month that an amount counts against, in the programme's time zone. Pure."""

import msgspec

from guerdon.calendar import Calendar
from guerdon.clock import rfc3339
from guerdon.errors import LimitReached
from guerdon.ledger.models import Account, Spent
from guerdon.money import AmountText

_NAMES = {"day": "daily", "month": "monthly"}


def spent_in_periods(account: Account, calendar: Calendar, now_ms: int) -> Spent:
    """Return the counters of the day and the month of `now_ms`."""
    day, month = calendar.names(now_ms)
    spent = account.spent
    if spent is None:
        return Spent(day, month)
    return Spent(day, month, spent.in_day if spent.day == day else 0, spent.in_month if spent.month == month else 0)


def require_within(account: Account, amount: int, calendar: Calendar, now_ms: int) -> None:
    """Check that spending `amount` stays within the limits.

    Raises:
        LimitReached: The amount exceeds the rest of the daily or monthly limit.
    """
    limits = account.limits
    if limits is None:
        return
    spent = spent_in_periods(account, calendar, now_ms)
    for period, limit, used in (("day", limits.day, spent.in_day), ("month", limits.month, spent.in_month)):
        if limit is not None and used + amount > limit:
            year, month = int(spent.month[:4]), int(spent.month[5:])
            resets_at = calendar.end_of_day(now_ms) if period == "day" else calendar.month_bounds(year, month)[1]
            raise LimitReached(
                AmountText(
                    f"the {_NAMES[period]} limit is {{limit}}: {{spent}} spent, {{needed}} needed",
                    account.asset,
                    limit=limit,
                    spent=used,
                    needed=amount,
                ),
                asset=account.asset,
                period=period,
                limit=limit,
                spent=used,
                needed=amount,
                resets_at=rfc3339(resets_at),
            )


def counted(account: Account, change: tuple[int, int], calendar: Calendar, now_ms: int) -> Spent:
    """Return the counters after `change` (day, month); they do not fall below zero."""
    spent = spent_in_periods(account, calendar, now_ms)
    return msgspec.structs.replace(spent, in_day=max(0, spent.in_day + change[0]), in_month=max(0, spent.in_month + change[1]))


def restored_by(amount: int, spent_at_ms: int, calendar: Calendar, now_ms: int) -> tuple[int, int]:
    """Return the reduction of the (day, month) counters when `amount`, spent at `spent_at_ms`, is returned at `now_ms`.

    A counter is reduced only if both times are in its period.
    """
    spent_names, now = calendar.names(spent_at_ms), calendar.names(now_ms)
    return (amount if spent_names[0] == now[0] else 0, amount if spent_names[1] == now[1] else 0)
