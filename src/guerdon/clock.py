"""The only source of time. Everything that needs "now" is handed a `Clock`."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from guerdon.errors import Validation


class Clock(Protocol):
    """Tells the time; tests hand in one that they move by hand."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z. The ledger stores this form: BSON dates hold no more either."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; for measuring durations only."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class SimulatedClock:
    """Another clock, put forward; only development has one. Durations are real: a deadline does not pass because a date has."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._offset_ms = 0

    def now_ms(self) -> int:
        return self._base.now_ms() + self._offset_ms

    def monotonic(self) -> float:
        return self._base.monotonic()

    def follow(self, offset_ms: int) -> None:
        """Be at least so much ahead: time never runs backwards."""
        self._offset_ms = max(self._offset_ms, offset_ms)


def to_datetime(at_ms: int) -> datetime:
    """Return the aware UTC datetime of `at_ms`."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


def to_ms(moment: datetime) -> int:
    """Return milliseconds since the epoch; exact, because a float would lose the last digit after 2^53 µs."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def rfc3339(at_ms: int) -> str:
    """Return `2026-01-31T12:00:00.000Z`."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(at_seconds: int) -> str:
    """Thousands of answers fall into one second, so its text is made once."""
    return datetime.fromtimestamp(at_seconds, UTC).isoformat()[:19]


def utc_ms(moment: datetime, pointer: str) -> int:
    """Milliseconds of a time that names its offset.

    Raises:
        Validation: the time has no offset.
    """
    if moment.tzinfo is None:
        raise Validation.at(pointer, "a time needs an offset, for example 2026-01-31T12:00:00Z")
    try:
        return to_ms(moment.astimezone(UTC))
    except OverflowError:
        raise Validation.at(pointer, "a time must lie between the years 1 and 9999 in UTC") from None
