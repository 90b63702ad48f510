"""Counters in this process: exact for one process, and what every process falls back on."""

from guerdon.clock import Clock
from guerdon.rate_limits.rules import Quota, QuotaCounter, QuotaStatus, bring_up_to, quota_status, used

COUNTERS_MAX = 100_000
"""Of one quota. The one that was used least recently goes first: a flood of addresses must not take the memory away."""


class LocalCounters:
    """One counter for each caller of each quota."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # By quota and caller, in the order of last use.
        self._counters: dict[str, dict[str, QuotaCounter]] = {}

    def spend(self, quota: Quota, who: str, cost: int = 1) -> QuotaStatus:
        """Take `cost` if the quota grants it; a negative cost gives something back. A cost of 0 takes nothing and asks whether 1 is left."""
        now_ms = self._clock.now_ms()
        counters = self._counters.setdefault(quota.name, {})
        if cost == 0 and who not in counters:
            return quota_status(QuotaCounter(now_ms // quota.window_ms), now_ms, quota, granted=True)
        counter = counters.pop(who, None)
        if counter is None:
            counter = QuotaCounter(now_ms // quota.window_ms)
            self._make_room(counters, now_ms // quota.window_ms)
        else:
            bring_up_to(counter, now_ms, quota)
        counters[who] = counter
        granted = used(counter, now_ms, quota) + (cost or 1) <= quota.amount
        if granted:
            counter.current = max(counter.current + cost, 0)
        return quota_status(counter, now_ms, quota, granted=granted)

    def is_spent(self, quota: Quota, who: str) -> QuotaStatus | None:
        """Return how somebody stands who has nothing left, and None for everybody else."""
        counter = self._counters.get(quota.name, {}).get(who)
        if counter is None:
            return None
        now_ms = self._clock.now_ms()
        bring_up_to(counter, now_ms, quota)
        return quota_status(counter, now_ms, quota, granted=False) if used(counter, now_ms, quota) >= quota.amount else None

    @staticmethod
    def _make_room(counters: dict[str, QuotaCounter], index: int) -> None:
        """Drop up to two that mean nothing any more, so that there are never more than were used lately."""
        for _ in range(2):
            oldest = next(iter(counters), None)
            if oldest is None or (counters[oldest].index > index - 2 and len(counters) < COUNTERS_MAX):
                return
            del counters[oldest]
