"""How much each kind of caller may ask for, and what happens when nobody can count."""

from collections.abc import Sequence
from typing import Literal

from guerdon.clock import Clock
from guerdon.errors import StoreUnavailable, TooManyRequests
from guerdon.rate_limits.counters import LocalCounters
from guerdon.rate_limits.rules import Quota, QuotaStatus, fields
from guerdon.rate_limits.shared import SharedCounters

WithoutStore = Literal["local", "open", "closed"]
"""When the shared store is down: count in this process alone, let everything pass, or refuse with 503."""
PAUSE_SECONDS = 1.0
"""So long nobody asks a store that has just failed."""


class RateLimiter:
    """Counts what callers spend of their quotas."""

    def __init__(self, clock: Clock, quotas: Sequence[Quota], store: SharedCounters | None = None, *, on: bool = True) -> None:
        self._clock = clock
        self._quotas = {quota.name: quota for quota in quotas}
        self._local = LocalCounters(clock)
        self._store = store
        self._on = on
        self._asks_again_at = 0.0

    async def spend(self, name: str, who: str, *, cost: int = 1, without_store: WithoutStore = "local") -> QuotaStatus | None:
        """Take `cost` from a quota; a cost of 0 takes nothing, and is refused when nothing is left. None: nobody counts at the moment, and this kind of request is not to suffer from that.

        Raises:
            TooManyRequests: nothing is left.
            StoreUnavailable: nobody counts at the moment, and this kind of request is not to pass then.
        """
        if not self._on:
            return None
        quota = self._quotas[name]
        if self._store is None:
            return _granted(self._local.spend(quota, who, cost))
        try:
            return _granted(await self._ask(self._store, quota, who, cost))
        except StoreUnavailable:
            if without_store == "closed":
                raise
        return _granted(self._local.spend(quota, who, cost)) if without_store == "local" else None

    async def give_back(self, name: str, who: str) -> None:
        """Return what was taken for something that has turned out to be all right. When nobody counts, it simply fades away."""
        if not self._on:
            return
        if self._store is None:
            self._local.spend(self._quotas[name], who, -1)
            return
        try:
            await self._ask(self._store, self._quotas[name], who, -1)
        except StoreUnavailable:
            return

    @property
    def is_shared(self) -> bool:
        """Whether counting means waiting for somebody else."""
        return self._store is not None

    def spend_here(self, name: str, who: str) -> QuotaStatus | None:
        """Like `spend`, counted in this process.

        Raises:
            TooManyRequests: nothing is left.
        """
        return _granted(self._local.spend(self._quotas[name], who)) if self._on else None

    def count_here(self, name: str, who: str) -> None:
        """Count in this process alone, whatever is configured: to be turned away must cost us less than to try."""
        if self._on:
            self._local.spend(self._quotas[name], who)

    def require_credit_here(self, name: str, who: str) -> None:
        """
        Raises:
            TooManyRequests: `count_here` has counted too many.
        """
        spent = self._local.is_spent(self._quotas[name], who) if self._on else None
        if spent is not None:
            raise refusal(spent)

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def _ask(self, store: SharedCounters, quota: Quota, who: str, cost: int) -> QuotaStatus:
        if self._clock.monotonic() < self._asks_again_at:
            raise StoreUnavailable("the counters of requests cannot be reached; try again", retry_after_seconds=1)
        try:
            return await store.spend(quota, who, cost)
        except StoreUnavailable:
            self._asks_again_at = self._clock.monotonic() + PAUSE_SECONDS
            raise


def quota_of(name: str, text: str) -> Quota:
    """Read `requests/seconds`, whose form the settings have checked."""
    amount, seconds = text.split("/")
    return Quota(name, int(amount), int(seconds))


def refusal(standing: QuotaStatus) -> TooManyRequests:
    """The problem of a caller who has spent the quota (draft-ietf-httpapi-ratelimit-headers, problem types)."""
    quota = standing.quota
    seconds = -(-standing.wait_ms // 1000)
    error = TooManyRequests.of(
        quota.name,
        f"{quota.amount} requests in {quota.window_seconds} s are what `{quota.name}` grants; the next one in {seconds} s",
        retry_after_seconds=max(seconds, 1),
    )
    error.headers = fields(standing)
    return error


def _granted(standing: QuotaStatus) -> QuotaStatus:
    if not standing.granted:
        raise refusal(standing)
    return standing
