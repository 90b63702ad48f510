"""Rate limits of callers, and the behaviour when the shared counters are unavailable."""

from collections.abc import Sequence
from typing import Literal

from guerdon.clock import Clock
from guerdon.errors import StoreUnavailable, TooManyRequests
from guerdon.rate_limits.counters import LocalCounters
from guerdon.rate_limits.rules import Quota, QuotaStatus, header_fields
from guerdon.rate_limits.shared import UNAVAILABLE, SharedCounters

WithoutStore = Literal["local", "open", "closed"]
"""Behaviour when the shared store is unavailable: count in this process only, grant every request, or refuse with 503."""
PAUSE_SECONDS = 1.0
"""Time for which a process does not query a store that has failed."""


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
