"""Counters in this process, which are exact for one process and the fallback of each process without a shared store."""

from guerdon.clock import Clock
from guerdon.rate_limits.rules import Quota, QuotaCounter, QuotaStatus, advance, quota_status, used

COUNTERS_MAX = 100_000
"""Maximum number of counters of one quota. The least recently used counter is dropped first, so that many addresses cannot fill the memory."""


class LocalCounters:
    """One counter for each caller of each quota."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # By quota and caller, in the order of last use.
        self._counters: dict[str, dict[str, QuotaCounter]] = {}

    def spend(self, quota: Quota, key: str, cost: int = 1) -> QuotaStatus:
        """Take `cost` from the quota of a caller if enough is left. A negative cost returns units. A cost of 0 checks whether 1 is left."""
        now_ms = self._clock.now_ms()
        counters = self._counters.setdefault(quota.name, {})
        if cost == 0 and key not in counters:
            return quota_status(QuotaCounter(now_ms // quota.window_ms), now_ms, quota, granted=True)
        counter = counters.pop(key, None)
        if counter is None:
            counter = QuotaCounter(now_ms // quota.window_ms)
            self._make_room(counters, now_ms // quota.window_ms)
        else:
            advance(counter, now_ms, quota)
        counters[key] = counter
        granted = used(counter, now_ms, quota) + (cost or 1) <= quota.amount
        if granted:
            counter.current = max(counter.current + cost, 0)
        return quota_status(counter, now_ms, quota, granted=granted)

    def is_spent(self, quota: Quota, key: str) -> QuotaStatus | None:
        """Return the status of a caller whose quota is exhausted, and None for any other caller."""
        counter = self._counters.get(quota.name, {}).get(key)
        if counter is None:
            return None
        now_ms = self._clock.now_ms()
        advance(counter, now_ms, quota)
        return quota_status(counter, now_ms, quota, granted=False) if used(counter, now_ms, quota) >= quota.amount else None

    @staticmethod
    def _make_room(counters: dict[str, QuotaCounter], index: int) -> None:
        """Drop up to two counters that have expired, so that the number of counters follows the number of recent callers."""
        for _ in range(2):
            oldest = next(iter(counters), None)
            if oldest is None or (counters[oldest].index > index - 2 and len(counters) < COUNTERS_MAX):
                return
            del counters[oldest]
