"""Copies in the store: reads and writes in batches, each with a short time limit. Nothing waits for a write."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any, NamedTuple, TypeVar

from guerdon.clock import Clock
from guerdon.read_cache.breaker import CircuitBreaker
from guerdon.read_cache.copies import HEAD_BYTES, SHAPE, Copy, pack
from guerdon.shared_store import Script, open_client, run_script

T = TypeVar("T")
TIMEOUT_SECONDS = 0.05
"""Time for one exchange with the store. A store that needs longer is slower than the database."""
BATCH_MAX = 256
"""Maximum number of copies in one exchange."""
QUEUE_MAX = 10_000
"""Maximum number of copies that wait to be written. Further ones are dropped."""
KEEP = Script(f"""
local written = 0
for n, key in ipairs(KEYS) do
  local value, milliseconds = ARGV[2 * n - 1], tonumber(ARGV[2 * n])
  local old = redis.pcall('GETRANGE', key, 0, {HEAD_BYTES - 1})
  if type(old) ~= 'string' or not string.match(old, '^%d+|%d+|$') or string.sub(value, 1, {HEAD_BYTES}) > old then
    redis.call('SET', key, value, 'PX', milliseconds)
    written = written + 1
  end
end
return written
""")
"""Keep each copy only if it is newer than the one in the store. The beginnings have equal lengths, so they compare like numbers. A value that is
not a copy is replaced, of any type."""
DISCARD = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")
"""Remove a value that is not a copy, unless it has been replaced meanwhile."""


class StoreFailed(Exception):
    """The store did not answer in time, or not as it should."""


class _Read(NamedTuple):
    """A read that waits for the store."""

    key: str
    result: asyncio.Future[bytes | None]


class CopyStore:
    """Copies in Valkey or Redis. Belongs to one event loop. Call `close` at the end."""

    def __init__(self, url: str, prefix: str, clock: Clock) -> None:
        """`prefix` separates two deployments on one store.

        Raises:
            StartupRefused: `url` is not the URL of a store.
        """
        self._client = open_client(url, setting="GUERDON_CACHE", timeout_seconds=TIMEOUT_SECONDS)
        self._prefix = f"{prefix}:w{SHAPE}:"
        self._clock = clock
        self.breaker = CircuitBreaker(clock)
        self._reads: deque[_Read] = deque()
        self._reading: asyncio.Task[None] | None = None
        self._copies: dict[str, Copy] = {}
        """Copies that wait to be written, by account, the oldest first."""
        self._writing: asyncio.Task[None] | None = None
        self._discards: set[asyncio.Task[None]] = set()
        self.written = self.dropped = self.errors = 0
        """Number of copies that were sent or dropped, and of exchanges that failed."""

    def key_of(self, account_id: str) -> str:
        return self._prefix + account_id

    async def read(self, account_id: str) -> bytes | None:
        """Return the bytes that are stored for an account, or None.

        Raises:
            StoreFailed: The store does not answer, or has failed too often to be asked.
        """
        if not self.breaker.allows():
            raise StoreFailed
        loop = asyncio.get_running_loop()
        read = _Read(self.key_of(account_id), loop.create_future())
        self._reads.append(read)
        if self._reading is None:
            self._reading = loop.create_task(self._read_all())
        return await read.result

    def offer(self, copy: Copy) -> None:
        """Write a copy some time soon. It is dropped if too many wait, or while the store fails."""
        account = copy.account
        waiting = self._copies.get(account.id)
        if waiting is not None:
            if (account.seq, copy.valid_until) > (waiting.account.seq, waiting.valid_until):
                self._copies[account.id] = copy
            return
        if len(self._copies) >= QUEUE_MAX or not self.breaker.allows():
            self.dropped += 1
            return
        self._copies[account.id] = copy
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    def discard(self, account_id: str, value: bytes) -> None:
        """Remove a value that is not a copy."""
        if self.breaker.state == "closed":
            task = asyncio.get_running_loop().create_task(self._discard(account_id, value))
            self._discards.add(task)
            task.add_done_callback(self._discards.discard)

    async def close(self) -> None:
        """Wait for the exchanges in progress, and close the connections."""
        tasks = [task for task in (self._reading, self._writing, *self._discards) if task is not None]
        if tasks:
            await asyncio.wait(tasks)
        await self._client.aclose()

    async def _read_all(self) -> None:
        """Answer the waiting reads until none is left. After a failure, none of those that wait is kept waiting."""
        try:
            while self._reads:
                reads = [self._reads.popleft() for _ in range(min(len(self._reads), BATCH_MAX))]
                try:
                    rows = await self._exchange(self._fetch([read.key for read in reads]))
                except StoreFailed as error:
                    reads += self._reads
                    self._reads.clear()
                    for read in reads:
                        if not read.result.done():
                            read.result.set_exception(error)
                    return
                for read, row in zip(reads, rows, strict=True):
                    if not read.result.done():
                        read.result.set_result(row)
        finally:
            self._reading = None

    async def _fetch(self, keys: list[str]) -> list[bytes | None]:
        """Return the value of each key."""
        rows: list[bytes | None] = await self._client.mget(keys)
        if len(rows) != len(keys):
            raise StoreFailed
        return rows

    async def _write_all(self) -> None:
        """Write the waiting copies until none is left, or the store fails."""
        try:
            while self._copies:
                chosen = [self._copies.pop(next(iter(self._copies))) for _ in range(min(len(self._copies), BATCH_MAX))]
                keys, arguments = self._packed(chosen)
                if not keys:
                    continue
                try:
                    await self._exchange(_only_result(run_script(self._client, KEEP, [(keys, arguments)])))
                except StoreFailed:
                    self.dropped += len(keys) + len(self._copies)
                    self._copies.clear()
                    return
                self.written += len(keys)
        finally:
            self._writing = None

    def _packed(self, copies: list[Copy]) -> tuple[list[str], list[bytes | int]]:
        """Return keys, and values with their times to live, without copies that are too large or would expire at once."""
        keys: list[str] = []
        arguments: list[bytes | int] = []
        now_ms = self._clock.now_ms()
        for copy in copies:
            value = pack(copy) if copy.valid_until > now_ms else None
            if value is None:
                self.dropped += 1
            else:
                keys.append(self.key_of(copy.account.id))
                arguments += [value, copy.valid_until - now_ms]
        return keys, arguments

    async def _discard(self, account_id: str, value: bytes) -> None:
        try:
            await self._exchange(_only_result(run_script(self._client, DISCARD, [((self.key_of(account_id),), (value,))])))
        except StoreFailed:
            return

    async def _exchange(self, work: Awaitable[T]) -> T:
        """Await an exchange with the store, and tell the breaker how it ended.

        Raises:
            StoreFailed: It failed, or took too long.
        """
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                result = await work
        except Exception as error:  # After any error, readers wait and can turn to the database.
            self.errors += 1
            self.breaker.failed()
            raise StoreFailed from error
        self.breaker.succeeded()
        return result


async def _only_result(rows: Awaitable[list[Any]]) -> Any:
    """Return the result of a script that was run once. An error of the script is raised."""
    [row] = await rows
    if isinstance(row, Exception):
        raise row
    return row
