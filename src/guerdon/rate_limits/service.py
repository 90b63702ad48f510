"""Rate limits of callers, and the behaviour when the shared counters are unavailable."""

from collections.abc import Sequence
from typing import Literal

from guerdon.clock import Clock
from guerdon.errors import StoreUnavailable, TooManyRequests
from guerdon.rate_limits.rules import Quota, QuotaCounter, QuotaStatus, advance, header_fields, quota_status, used
from guerdon.rate_limits.shared import UNAVAILABLE, SharedCounters

WithoutStore = Literal["local", "open", "closed"]
"""Behaviour when the shared store is unavailable: count in this process only, grant every request, or refuse with 503."""
PAUSE_SECONDS = 1.0
"""Time for which a process does not query a store that has failed."""
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
        """Drop up to two counters that have expired, so that their number follows the number of recent callers. At the maximum, drop the oldest."""
        for _ in range(2):
            oldest = next(iter(counters), None)
            if oldest is None or (counters[oldest].index > index - 2 and len(counters) < COUNTERS_MAX):
                return
            del counters[oldest]


class RateLimiter:
    """Counts the requests of callers against their quotas."""

    def __init__(self, clock: Clock, quotas: Sequence[Quota], store: SharedCounters | None = None, *, on: bool = True) -> None:
        self._clock = clock
        self._quotas = {quota.name: quota for quota in quotas}
        self._local = LocalCounters(clock)
        self._store = store
        self.is_shared = store is not None
        """True if counters are in a shared store, so that counting needs a request to it."""
        self._on = on
        self._paused_until = 0.0

    async def spend(self, name: str, key: str, *, cost: int = 1, without_store: WithoutStore = "local") -> QuotaStatus | None:
        """Take `cost` from the quota `name` of the caller `key`. A cost of 0 takes nothing and is refused when nothing is left.

        Return None if requests are not counted: rate limits are off, or the store is unavailable and `without_store` is `open`.

        Raises:
            TooManyRequests: nothing is left.
            StoreUnavailable: the store is unavailable and `without_store` is `closed`.
        """
        if not self._on:
            return None
        quota = self._quotas[name]
        if self._store is None:
            return _granted(self._local.spend(quota, key, cost))
        try:
            return _granted(await self._spend_shared(self._store, quota, key, cost))
        except StoreUnavailable:
            if without_store == "closed":
                raise
        return _granted(self._local.spend(quota, key, cost)) if without_store == "local" else None

    async def give_back(self, name: str, key: str) -> None:
        """Return one unit that was taken for a request that does not count. Without the store the unit expires with its window."""
        if not self._on:
            return
        if self._store is None:
            self._local.spend(self._quotas[name], key, -1)
            return
        try:
            await self._spend_shared(self._store, self._quotas[name], key, -1)
        except StoreUnavailable:
            return

    def spend_here(self, name: str, key: str) -> QuotaStatus | None:
        """Take 1 from the quota `name` of the caller `key`, with the counters of this process.

        Raises:
            TooManyRequests: nothing is left.
        """
        return _granted(self._local.spend(self._quotas[name], key)) if self._on else None

    def count_here(self, name: str, key: str) -> None:
        """Count in this process only, also with a shared store, so that refusing a request costs less than sending it."""
        if self._on:
            self._local.spend(self._quotas[name], key)

    def require_credit_here(self, name: str, key: str) -> None:
        """Check that the quota of this process has units left.

        Raises:
            TooManyRequests: `count_here` has used up the quota.
        """
        exhausted = self._local.is_spent(self._quotas[name], key) if self._on else None
        if exhausted is not None:
            raise refusal(exhausted)

    async def close(self) -> None:
        """Close the connection to the shared store, if there is one."""
        if self._store is not None:
            await self._store.close()

    async def _spend_shared(self, store: SharedCounters, quota: Quota, key: str, cost: int) -> QuotaStatus:
        if self._clock.monotonic() < self._paused_until:
            raise StoreUnavailable(UNAVAILABLE, retry_after_seconds=1)
        try:
            return await store.spend(quota, key, cost)
        except StoreUnavailable:
            self._paused_until = self._clock.monotonic() + PAUSE_SECONDS
            raise


def parse_quota(name: str, text: str) -> Quota:
    """Return the quota of a setting in the form `requests/seconds`, which the settings have checked."""
    amount, seconds = text.split("/")
    return Quota(name, int(amount), int(seconds))


def refusal(status: QuotaStatus) -> TooManyRequests:
    """Return the error for a caller whose quota is exhausted (draft-ietf-httpapi-ratelimit-headers, problem types)."""
    quota = status.quota
    seconds = -(-status.wait_ms // 1000)
    error = TooManyRequests.of(
        quota.name,
        f"the limit `{quota.name}` is {quota.amount} requests in {quota.window_seconds} s; try again in {seconds} s",
        retry_after_seconds=max(seconds, 1),
    )
    error.headers = header_fields(status)
    return error


def _granted(status: QuotaStatus) -> QuotaStatus:
    if not status.granted:
        raise refusal(status)
    return status
