"""Clients that take their time: many sockets at once that send or read next to nothing, and one that watches what it does to the others."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx

CONNECTING_AT_ONCE = 100
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Outcome(NamedTuple):
    """`closed_after` is None for a connection that the server has left open. `said` is the first line that it sent."""

    closed_after: float | None
    said: str


async def crowd(port: int, count: int, behave: Behaviour, *, seconds: float, reads: int = 65_536) -> list[Outcome]:
    """So many connections behave like this until they are closed, or the time is over. `reads`: bytes that each takes in a second."""
    gate = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def one() -> Outcome:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        began = time.monotonic()
        listening = asyncio.create_task(_listen(reader, reads))
        behaving = asyncio.ensure_future(behave(reader, writer))
        done, _ = await asyncio.wait([listening], timeout=seconds)
        behaving.cancel()
        writer.transport.abort()
        if not done:
            listening.cancel()
            return Outcome(None, "")
        return Outcome(time.monotonic() - began, listening.result())

    return await asyncio.gather(*(one() for _ in range(count)))


async def _listen(reader: asyncio.StreamReader, reads: int) -> str:
    """Return the first line, once the connection has ended."""
    heard = b""
    try:
        while piece := await reader.read(reads):
            heard = (heard + piece)[:200]
            if reads < 4096:
                await asyncio.sleep(1)
    except ConnectionError:
        pass
    return heard.partition(b"\r\n")[0].decode("latin-1")


def drip(first: bytes, drop: bytes, every_seconds: float) -> Behaviour:
    """Send the beginning, and then drop by drop."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            await asyncio.sleep(every_seconds)
            writer.write(drop)

    return behave


def say(first: bytes, *, half_close: bool = False) -> Behaviour:
    """Send this and nothing more."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        if half_close:
            writer.write_eof()

    return behave


class Healthy:
    """Somebody who only wants to be served, again and again."""

    def __init__(self, client: httpx.AsyncClient, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> None:
        self._client = client
        self._ask = ask
        self._task: asyncio.Task[None] | None = None
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_raised: object) -> None:
        assert self._task is not None
        assert not self._task.done(), self._task.exception()
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            answer = await self._ask(self._client)
            self.seconds.append(time.monotonic() - began)
            self.statuses[answer.status_code] += 1
            await asyncio.sleep(0.02)

    def percentile(self, share: int) -> float:
        ordered = sorted(self.seconds)
        return ordered[max(math.ceil(share / 100 * len(ordered)) - 1, 0)]


class Memory:
    """The most that processes have held, against what they held before (VmHWM is not reset, so VmRSS is sampled)."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self.before = self.peak = self._mib()

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._mib())
            await asyncio.sleep(0.2)

    def _mib(self) -> float:
        total = 0
        for pid in self._pids:
            lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        return total / 1024

    @property
    def growth(self) -> float:
        return self.peak - self.before


@contextmanager
def watched(pids: Sequence[int]) -> Iterator[Memory]:
    memory = Memory(pids)
    task = asyncio.ensure_future(memory.watch())
    try:
        yield memory
    finally:
        task.cancel()


def facts(outcomes: Sequence[Outcome], healthy: Healthy, memory: Memory) -> dict[str, Any]:
    closed = [each.closed_after for each in outcomes if each.closed_after is not None]
    return {
        "sockets": len(outcomes),
        "closed": len(closed),
        "closed_after_seconds": [round(min(closed, default=0), 1), round(max(closed, default=0), 1)],
        "said": dict(Counter(each.said for each in outcomes)),
        "healthy": dict(healthy.statuses),
        "p50_ms": round(healthy.percentile(50) * 1000),
        "p99_ms": round(healthy.percentile(99) * 1000),
        "rss_mib": [round(memory.before), round(memory.peak)],
    }
