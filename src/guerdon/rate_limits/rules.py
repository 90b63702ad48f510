"""Pure arithmetic of a quota: a sliding window that is approximated by counters of two fixed windows.

The count of the previous window is weighted by the share of it that a sliding window would still cover. A counter is therefore two numbers
for any quota; a burst of a whole quota is granted, and no time span of one window contains two such bursts. The method and its error:
https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
"""

from msgspec import Struct


class Quota(Struct, frozen=True):
    """`amount` requests in `window_seconds`. Callers see the name in `RateLimit-Policy`."""

    name: str
    amount: int
    window_seconds: int

    @property
    def window_ms(self) -> int:
        return self.window_seconds * 1000


class QuotaCounter(Struct):
    """The units that a caller has spent in window number `index` since the epoch, and in the window before it."""

    index: int
    current: int = 0
    previous: int = 0


class QuotaStatus(Struct, frozen=True):
    """The state of a caller's quota after a request."""

    quota: Quota
    granted: bool
    """True if the quota allowed the request."""
    remaining: int
    """Number of requests that are left."""
    wait_ms: int
    """Time until the next request is granted if this one was refused, otherwise until the window ends."""


def advance(counter: QuotaCounter, now_ms: int, quota: Quota) -> None:
    """Advance the counter to the window of `now_ms`. If the clock was set back, the counter keeps its window."""
    index = now_ms // quota.window_ms
    if index > counter.index:
        counter.previous = counter.current if index == counter.index + 1 else 0
        counter.current = 0
        counter.index = index


def used(counter: QuotaCounter, now_ms: int, quota: Quota) -> int:
    """Return the number of units that count at `now_ms`, rounded up."""
    return counter.current - (-counter.previous * _left_ms(counter, now_ms, quota) // quota.window_ms)


def quota_status(counter: QuotaCounter, now_ms: int, quota: Quota, *, granted: bool) -> QuotaStatus:
    """Return the status of a counter after a request."""
    remaining = max(quota.amount - used(counter, now_ms, quota), 0)
    left_ms = _left_ms(counter, now_ms, quota)
    return QuotaStatus(quota, granted, remaining, left_ms if granted else _wait_ms(counter, quota, left_ms))


def header_fields(status: QuotaStatus) -> dict[str, str]:
    """Return the header fields for a status (draft-ietf-httpapi-ratelimit-headers). The names are only here, because it is a draft."""
    quota = status.quota
    return {
        "RateLimit-Policy": f'"{quota.name}";q={quota.amount};w={quota.window_seconds}',
        "RateLimit": f'"{quota.name}";r={status.remaining};t={-(-status.wait_ms // 1000)}',
    }


def _wait_ms(counter: QuotaCounter, quota: Quota, left_ms: int) -> int:
    """Return the time until one more request is granted, in milliseconds."""
    granted_at_left_ms = _left_for(counter.previous, quota.amount - 1 - counter.current, quota)
    if granted_at_left_ms > 0:
        return max(left_ms - granted_at_left_ms, 0)
    # Not in this window. In the next window the count of this one decreases to 0.
    return left_ms + quota.window_ms - _left_for(counter.current, quota.amount - 1, quota)


def _left_for(previous: int, at_most: int, quota: Quota) -> int:
    """Return the longest remaining time of a window, in milliseconds, at which at most `at_most` of `previous` count."""
    if at_most < 0:
        return 0
    return quota.window_ms if previous <= at_most else at_most * quota.window_ms // previous


def _left_ms(counter: QuotaCounter, now_ms: int, quota: Quota) -> int:
    return min(max((counter.index + 1) * quota.window_ms - now_ms, 0), quota.window_ms)
