"""Pure arithmetic of a quota: a counter of two windows, of which the older one fades away.

What was spent in the window before counts in proportion to how much of it a sliding window would still cover. So a counter is two numbers
whatever the quota, a burst of a whole quota is granted, and no span of one window ever sees two of them. The method and its error:
https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
"""

from msgspec import Struct


class Quota(Struct, frozen=True):
    """`amount` requests in `window_seconds`. The name is what callers read in `RateLimit-Policy`."""

    name: str
    amount: int
    window_seconds: int

    @property
    def window_ms(self) -> int:
        return self.window_seconds * 1000


class QuotaCounter(Struct):
    """What one caller has spent: in the window number `index` since the epoch, and in the one before it."""

    index: int
    current: int = 0
    previous: int = 0


class QuotaStatus(Struct, frozen=True):
    """How a caller stands with a quota."""

    quota: Quota
    granted: bool
    remaining: int
    wait_ms: int
    """Refused: until one request would be granted, if nobody spent anything before. Granted: until the window ends."""


def bring_up_to(counter: QuotaCounter, now_ms: int, quota: Quota) -> None:
    """Move the counter into the window of this moment. A clock that was set back keeps the window that it knows."""
    index = now_ms // quota.window_ms
    if index > counter.index:
        counter.previous = counter.current if index == counter.index + 1 else 0
        counter.current = 0
        counter.index = index


def used(counter: QuotaCounter, now_ms: int, quota: Quota) -> int:
    """Return what counts at this moment, rounded up."""
    return counter.current - (-counter.previous * _left_ms(counter, now_ms, quota) // quota.window_ms)


def quota_status(counter: QuotaCounter, now_ms: int, quota: Quota, *, granted: bool) -> QuotaStatus:
    """Describe a counter after it was asked."""
    remaining = max(quota.amount - used(counter, now_ms, quota), 0)
    left_ms = _left_ms(counter, now_ms, quota)
    return QuotaStatus(quota, granted, remaining, left_ms if granted else _wait_ms(counter, quota, left_ms))


def fields(stands: QuotaStatus) -> dict[str, str]:
    """The header fields that tell a caller (draft-ietf-httpapi-ratelimit-headers). It is a draft: the names stand here alone."""
    quota = stands.quota
    return {
        "RateLimit-Policy": f'"{quota.name}";q={quota.amount};w={quota.window_seconds}',
        "RateLimit": f'"{quota.name}";r={stands.remaining};t={-(-stands.wait_ms // 1000)}',
    }


def _wait_ms(counter: QuotaCounter, quota: Quota, left_ms: int) -> int:
    """Return how long it takes until one more request fits."""
    fits_at_left_ms = _fades_to(counter.previous, quota.amount - 1 - counter.current, quota)
    if fits_at_left_ms > 0:
        return max(left_ms - fits_at_left_ms, 0)
    # Not in this window. In the next one, what was spent in this one fades; after that nothing is left of it.
    return left_ms + quota.window_ms - _fades_to(counter.current, quota.amount - 1, quota)


def _fades_to(previous: int, at_most: int, quota: Quota) -> int:
    """Return the largest rest of a window, in milliseconds, in which at most so much of `previous` counts."""
    if at_most < 0:
        return 0
    return quota.window_ms if previous <= at_most else at_most * quota.window_ms // previous


def _left_ms(counter: QuotaCounter, now_ms: int, quota: Quota) -> int:
    return min(max((counter.index + 1) * quota.window_ms - now_ms, 0), quota.window_ms)
