"""Counters in Valkey or Redis, shared by all processes of a deployment."""

import asyncio
from collections import deque
from typing import Any, NamedTuple

from guerdon.errors import StoreUnavailable
from guerdon.rate_limits.rules import Quota, QuotaCounter, QuotaStatus, quota_status
from guerdon.shared_store import Script, open_client, run_script

TIMEOUT_SECONDS = 1.0
"""Longer than any response of a healthy store, also for a busy process."""
COUNTS_MAX = 256
"""Maximum number of counts in one exchange with the store."""
UNAVAILABLE = "the request counters are unavailable; try again"
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local amount, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local index = math.floor(now / window)
local row = redis.call('HMGET', KEYS[1], 'i', 'c', 'p')
local at, current, previous = tonumber(row[1]) or index, tonumber(row[2]) or 0, tonumber(row[3]) or 0
if index > at then
  if index == at + 1 then previous = current else previous = 0 end
  current, at = 0, index
end
local left = math.min(math.max((at + 1) * window - now, 0), window)
local granted = 0
local wanted = cost
if cost == 0 then wanted = 1 end
if current + math.ceil(previous * left / window) + wanted <= amount then granted = 1 end
if granted == 1 and cost ~= 0 then
  current = math.max(current + cost, 0)
  redis.call('HSET', KEYS[1], 'i', at, 'c', current, 'p', previous)
  redis.call('PEXPIRE', KEYS[1], 2 * window)
end
return {granted, at, current, previous, now}
"""
"""`advance` and `used` of rules.py as one atomic step. The time is the store's, so that all processes use the same clock."""
_SCRIPT = Script(SCRIPT)


class _Count(NamedTuple):
    """A count that waits for the store: key, (amount, window, cost), and the result."""

    key: str
    arguments: tuple[int, int, int]
    result: asyncio.Future[list[int]]


class SharedCounters:
    """Counters like `LocalCounters`, shared by all processes that use the store. Belongs to one event loop. Call `close` at the end.

    One exchange with the store is in progress at a time, and includes all counts that arrived during the one before: an exchange costs a
    process much more than a single count in it.
    """

    def __init__(self, url: str, prefix: str) -> None:
        """`prefix` separates two deployments on one store.

        Raises:
            StartupRefused: `url` is not the URL of a store.
        """
        self._client = open_client(url, setting="GUERDON_RATE_LIMIT_STORE", timeout_seconds=TIMEOUT_SECONDS)
        self._prefix = prefix
        self._waiting: deque[_Count] = deque()
        self._exchange: asyncio.Task[None] | None = None

    async def spend(self, quota: Quota, key: str, cost: int = 1) -> QuotaStatus:
        """Take `cost` from the quota of a caller, as `LocalCounters.spend` does.

        Raises:
            StoreUnavailable: the store does not respond.
        """
        loop = asyncio.get_running_loop()
        count = _Count(f"{self._prefix}:{quota.name}:{key}", (quota.amount, quota.window_ms, cost), loop.create_future())
        self._waiting.append(count)
        if self._exchange is None:
            self._exchange = loop.create_task(self._send_all())
        granted, index, current, previous, now_ms = await count.result
        return quota_status(QuotaCounter(index, current, previous), now_ms, quota, granted=bool(granted))

    async def close(self) -> None:
        """Wait for the exchange in progress, and close the connection."""
        if self._exchange is not None:
            await self._exchange
        await self._client.aclose()

    async def _send_all(self) -> None:
        """Send the waiting counts until none is left. A count whose caller gave up meanwhile still counts."""
        try:
            while self._waiting:
                counts = [self._waiting.popleft() for _ in range(min(len(self._waiting), COUNTS_MAX))]
                try:
                    async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                        rows = await self._send(counts)
                except Exception as error:  # After any error, no caller may be left waiting.
                    rows = [error] * len(counts)
                for count, row in zip(counts, rows, strict=True):
                    _resolve(count, row)
        finally:
            self._exchange = None

    async def _send(self, counts: list[_Count]) -> list[Any]:
        """Return the result or the error of each count."""
        return await run_script(self._client, _SCRIPT, [((count.key,), count.arguments) for count in counts])


def _resolve(count: _Count, row: Any) -> None:
    if count.result.done():
        return
    if isinstance(row, Exception):
        error = StoreUnavailable(UNAVAILABLE, retry_after_seconds=1)
        error.__cause__ = row
        count.result.set_exception(error)
    else:
        count.result.set_result([int(number) for number in row])
