"""Search and totals of the history. Pure."""

import re
from collections.abc import Mapping

from guerdon.history.models import KindTotal
from guerdon.ledger.models import Entry

WAYS = 32
"""Number of parts into which one step divides the range: a million entries take 4 steps and 124 reads by `_id`.

Measured: 16 parts take one more step; with 64 and 128 a step takes longer than it saves.
"""
_MONTH = re.compile(r"(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])\Z", re.ASCII)


def probes(low: int, high: int) -> list[int]:
    """Return the numbers of entries to read next between `low` and `high`, both exclusive; all of them if they are few."""
    if high - low <= WAYS:
        return list(range(low + 1, high))
    return [low + (high - low) * part // WAYS for part in range(1, WAYS)]


def narrow(low: int, high: int, times: Mapping[int, int], at_ms: int) -> tuple[int, int]:
    """Return closer bounds of the last entry before `at_ms` and the first one at or after it. `times` never decreases with `seq`."""
    earlier = [seq for seq, time in times.items() if time < at_ms]
    later = [seq for seq, time in times.items() if time >= at_ms]
    return max(earlier, default=low), min(later, default=high)


def parse_month(text: str) -> tuple[int, int] | None:
    """Return (year, month) of a text such as `2026-11`, or None for any other text and for years outside 1970 to 9998."""
    match = _MONTH.match(text)
    if match is None or match[1] == "9999":
        return None
    return int(match[1]), int(match[2])


class Tally:
    """Running totals of entries by kind."""

    def __init__(self) -> None:
        self._sums: dict[str, list[int]] = {}

    def add(self, entry: Entry) -> None:
        sums = self._sums.setdefault(entry.kind, [0, 0, 0])
        sums[0] += 1
        sums[1 if entry.amount > 0 else 2] += abs(entry.amount)

    def totals(self) -> list[KindTotal]:
        return [KindTotal(kind, *sums) for kind, sums in sorted(self._sums.items())]
