"""Counters in Valkey or Redis, for all processes of a deployment."""

import asyncio
import hashlib
from collections import deque
from typing import Any, NamedTuple, cast

from valkey.asyncio import Valkey
from valkey.exceptions import NoScriptError

from guerdon.errors import StartupRefused, StoreUnavailable
from guerdon.rate_limits.rules import Quota, QuotaCounter, QuotaStatus, quota_status

TIMEOUT_SECONDS = 1.0
"""Longer than any healthy answer takes, also to a process that is busy with other things meanwhile."""
QUESTIONS_MAX = 256
"""In one exchange."""
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
"""`bring_up_to` and `used` of rules.py in one step that nobody comes between. The time is the store's, so that all processes share one."""
_SCRIPT_SHA1 = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""The name under which the store knows the script."""


class _Question(NamedTuple):
    key: str
    arguments: tuple[int, int, int]
    answer: asyncio.Future[list[int]]


class SharedCounters:
    """The same as `LocalCounters`, for all who have the store's address. Belongs to one event loop; close it at the end.

    One exchange with the store is under way at a time, and takes along all who came during the one before: a client of the store costs
    a process far more for each exchange than for each question in it.
    """

    def __init__(self, url: str, prefix: str) -> None:
        """`prefix` keeps two deployments on one store apart.

        Raises:
            StartupRefused: this is not the URL of a store.
        """
        try:
            self._client: Any = cast(Any, Valkey).from_url(
                url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
            )
        except ValueError:
            raise StartupRefused("GUERDON_RATE_LIMIT_STORE is no valkey://, redis:// or rediss:// address") from None
        self._prefix = prefix
        self._waiting: deque[_Question] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def spend(self, quota: Quota, who: str, cost: int = 1) -> QuotaStatus:
        """Like `LocalCounters.spend`.

        Raises:
            StoreUnavailable: it does not answer.
        """
        loop = asyncio.get_running_loop()
        question = _Question(f"{self._prefix}:{quota.name}:{who}", (quota.amount, quota.window_ms, cost), loop.create_future())
        self._waiting.append(question)
        if self._asking is None:
            self._asking = loop.create_task(self._ask_all())
        granted, index, current, previous, now_ms = await question.answer
        return quota_status(QuotaCounter(index, current, previous), now_ms, quota, granted=bool(granted))

    async def close(self) -> None:
        if self._asking is not None:
            await self._asking
        await self._client.aclose()

    async def _ask_all(self) -> None:
        """Ask until nobody waits. Whoever gave up meanwhile has been counted; that is all right."""
        try:
            while self._waiting:
                asked = [self._waiting.popleft() for _ in range(min(len(self._waiting), QUESTIONS_MAX))]
                try:
                    async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                        rows = await self._ask(asked)
                except Exception as error:  # Whatever it was, nobody may be left waiting.
                    rows = [error] * len(asked)
                for question, row in zip(asked, rows, strict=True):
                    _settle(question, row)
        finally:
            self._asking = None

    async def _ask(self, asked: list[_Question]) -> list[Any]:
        """Return the answer to each question, or the error in its place."""
        rows = await self._evaluate(asked)
        if any(isinstance(row, NoScriptError) for row in rows):
            # A store that has just started knows no script; so none of these was counted.
            await self._client.script_load(SCRIPT)
            rows = await self._evaluate(asked)
        return rows

    async def _evaluate(self, asked: list[_Question]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for question in asked:
            pipeline.evalsha(_SCRIPT_SHA1, 1, question.key, *question.arguments)
        return cast(list[Any], await pipeline.execute(raise_on_error=False))


def _settle(question: _Question, row: Any) -> None:
    if question.answer.done():
        return
    if isinstance(row, Exception):
        error = StoreUnavailable("the counters of requests cannot be reached; try again", retry_after_seconds=1)
        error.__cause__ = row
        question.answer.set_exception(error)
    else:
        question.answer.set_result([int(number) for number in row])
