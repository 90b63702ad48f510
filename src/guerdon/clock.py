"""The only source of time. Code that needs the current time takes a `Clock`."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from guerdon.errors import Validation, collect


class Clock(Protocol):
    """Source of the current time. Tests pass one that they set."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970-01-01T00:00:00Z, the precision of BSON dates."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back, for durations only."""
        ...


class SystemClock:
    """Clock of the machine."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class DatabaseClock:
    """Clock of the database: its time at the last measurement, plus the time that has passed since on the machine's monotonic clock.

    A change of the machine's time of day therefore has no effect. Before the first measurement this is the clock of the machine.
    """

    STOP_MS_MAX = 5_000
    """Largest correction for which the clock stops instead of going back. A larger one comes from a database whose own time was wrong."""
    _PRECISION_MS = 1

    def __init__(self, machine: Clock) -> None:
        self._machine = machine
        self._difference_ms: int | None = None
        """Time of the database minus the monotonic clock; None before the first measurement."""
        self._latest_ms = 0

    def now_ms(self) -> int:
        if self._difference_ms is None:
            return self._machine.now_ms()
        self._latest_ms = max(self._latest_ms, self._difference_ms + _monotonic_ms(self._machine.monotonic()))
        return self._latest_ms

    def monotonic(self) -> float:
        return self._machine.monotonic()

    @property
    def skew_ms(self) -> int:
        """Time of the machine minus the time of the database, in milliseconds; 0 before the first measurement."""
        return self._machine.now_ms() - self.now_ms()

    def adopt(self, database_ms: int, sent_at: float, received_at: float) -> None:
        """Adopt a time that the database read between two times of `monotonic`.

        The first measurement assumes the middle of the two. A later one changes the clock only as far as it proves the clock wrong, so that slow
        answers do not move it.
        """
        middle_ms = _monotonic_ms((sent_at + received_at) / 2)
        found_ms = database_ms - middle_ms
        if self._difference_ms is None:
            self._difference_ms = found_ms
            return
        doubt_ms = _monotonic_ms((received_at - sent_at) / 2) + self._PRECISION_MS
        before_ms = self._difference_ms
        self._difference_ms = min(max(before_ms, found_ms - doubt_ms), found_ms + doubt_ms)
        if before_ms - self._difference_ms > self.STOP_MS_MAX:
            self._latest_ms = 0


def _monotonic_ms(seconds: float) -> int:
    return int(seconds * 1000)


class SimulatedClock:
    """A clock that is ahead of another one, for development only. `monotonic` is not changed, so that deadlines stay real."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._offset_ms = 0

    def now_ms(self) -> int:
        return self._base.now_ms() + self._offset_ms

    def monotonic(self) -> float:
        return self._base.monotonic()

    def follow(self, offset_ms: int) -> None:
        """Set the offset to at least `offset_ms`; it never decreases, so that time never goes back."""
        self._offset_ms = max(self._offset_ms, offset_ms)


def to_datetime(at_ms: int) -> datetime:
    """Return the aware UTC datetime of `at_ms`."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


def to_ms(moment: datetime) -> int:
    """Return milliseconds since the epoch. Integer arithmetic, because a float is not exact above 2^53 µs."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def rfc3339(at_ms: int) -> str:
    """Return the time in RFC 3339 with milliseconds in UTC, such as `2026-01-31T12:00:00.000Z`."""
    return f"{_whole_seconds(at_ms // 1000)}.{at_ms % 1000:03d}Z"


def optional_rfc3339(at_ms: int | None) -> str | None:
    """Return the time in RFC 3339, or None without a time."""
    return None if at_ms is None else rfc3339(at_ms)


@lru_cache(maxsize=64)
def _whole_seconds(at_seconds: int) -> str:
    """Return the time without fraction. Cached, because thousands of responses fall into one second."""
    return datetime.fromtimestamp(at_seconds, UTC).isoformat()[:19]


def utc_ms(moment: datetime, pointer: str) -> int:
    """Return milliseconds since the epoch of a time with an offset.

    Raises:
        Validation: The time has no offset, or is outside the years 1 to 9999.
    """
    if moment.tzinfo is None:
        raise Validation.at(pointer, "a time needs an offset, for example 2026-01-31T12:00:00Z")
    try:
        return to_ms(moment.astimezone(UTC))
    except OverflowError:
        raise Validation.at(pointer, "a time must lie between the years 1 and 9999 in UTC") from None


def optional_utc_ms(moment: datetime | None, pointer: str, faults: list[Validation]) -> int | None:
    """Return `utc_ms` of a time that may be left out. A fault is added to `faults`, and the time is then None."""
    if moment is not None:
        with collect(faults):
            return utc_ms(moment, pointer)
    return None
