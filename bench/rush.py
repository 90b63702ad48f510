"""The members of a flash sale, in a separate process: each sends one request and repeats it with the same key until the response is definite.

It reads a `Rush` from standard input and writes a `Result` to standard output, both as JSON.
"""

import asyncio
import gc
import os
import signal
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

from bench.load import connections_of, cpu_seconds

AGAIN_SECONDS = 0.05
GIVE_UP_SECONDS = 120.0


class Rush(Struct, frozen=True):
    """A rush: the members, the request and the number of connections."""

    port: int
    token: str
    members_file: str
    offer: str
    connections: int
    watch: dict[str, list[int]]
    """Processes whose CPU time is reported, by name; those named `API` serve."""
    kill_after: int = 0
    """Number of responses after which one of the API processes is killed; 0 for never."""


class Result(Struct):
    """Responses, and the time until every member had one."""

    answers: dict[str, int]
    """Number of responses by status and problem code."""
    winners: list[str]
    seconds: float
    attempts: int
    """Number of requests, including repeated ones."""
    killed: int = 0
    latencies_ms: list[int] = []
    cpu: dict[str, float] = {}
    """CPU time in seconds; a killed process counts 0."""


class Caller(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._buffer = bytearray()
        self._member: int | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        """Send the request of the next member, or close the connection after the last one."""
        assert self._transport is not None
        self._member = self._crowd.take()
        if self._member is None:
            self._transport.close()
        else:
            self._transport.write(self._crowd.request_of(self._member))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lowered = bytes(self._buffer[:head]).lower()
        length = int(lowered.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._buffer) < head + 4 + length or self._member is None:
            return
        status, body = int(self._buffer[9:12]), bytes(self._buffer[head + 4 :])
        self._buffer.clear()
        member, self._member = self._member, None
        if self._crowd.answered(member, status, body.partition(b'"code":"')[2].partition(b'"')[0] if status > 299 else b""):
            self.ask()
        else:
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self.ask)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._member is not None:
            self._crowd.broken(self._member)


class Crowd:
    """Members without a response yet."""

    def __init__(self, rush: Rush) -> None:
        self._rush = rush
        self._members = Path(rush.members_file).read_text(encoding="ascii").split()
        self._waiting = deque(range(len(self._members)))
        self._sent_at = [0.0] * len(self._members)
        self._answers: Counter[str] = Counter()
        self._winners: list[str] = []
        self._latencies: list[int] = []
        self._attempts = self._killed = 0
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._head = (
            f"POST /v1/offers/{rush.offer}/redeem HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {rush.token}\r\n"
            "Content-Type: application/json\r\n"
        )

    async def run(self) -> Result:
        """Connect, send all requests, and wait for the last response."""
        callers = [await self._connect() for _ in range(self._rush.connections)]
        before, began = cpu_seconds(self._rush.watch), time.perf_counter()
        for caller in callers:
            caller.ask()
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await self._over.wait()
        seconds = time.perf_counter() - began
        after = cpu_seconds(self._rush.watch)
        cpu = {name: after[name] - before[name] for name in after}
        return Result(dict(self._answers), self._winners, seconds, self._attempts, self._killed, self._latencies, cpu)

    def take(self) -> int | None:
        return self._waiting.popleft() if self._waiting else None

    def request_of(self, member: int) -> bytes:
        self._attempts += 1
        self._sent_at[member] = self._sent_at[member] or time.perf_counter()
        body = f'{{"member_id":"{self._members[member]}"}}'
        key = f"Idempotency-Key: {self._rush.offer}-{member}\r\nContent-Length: {len(body)}\r\n\r\n"
        return f"{self._head}{key}{body}".encode("ascii")

    def answered(self, member: int, status: int, code: bytes) -> bool:
        """Count a definite response and return True; return False for one that must be repeated."""
        if status == 503:
            self._waiting.append(member)
            self._answers["503, asked again"] += 1
            return False
        self._latencies.append(round((time.perf_counter() - self._sent_at[member]) * 1000))
        self._answers[f"{status} {code.decode()}".strip()] += 1
        if status == 201:
            self._winners.append(self._members[member])
        if len(self._latencies) == self._rush.kill_after:
            self._kill()
        if len(self._latencies) == len(self._members):
            self._over.set()
        return True

    def broken(self, member: int) -> None:
        """Reconnect to another process after the peer has ended."""
        self._waiting.append(member)
        self._answers["connection lost, asked again"] += 1
        task = asyncio.get_running_loop().create_task(self._again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again(self) -> None:
        while not self._over.is_set():
            try:
                caller = await self._connect()
            except OSError:
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                caller.ask()
                return

    async def _connect(self) -> Caller:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: Caller(self), "127.0.0.1", self._rush.port))[1]

    def _kill(self) -> None:
        """Kill the process with the most connections with SIGKILL."""
        counts = {pid: connections_of(pid, self._rush.port) for pid in self._rush.watch["API"]}
        self._killed = max(counts, key=lambda pid: counts[pid])
        os.kill(self._killed, signal.SIGKILL)


def main() -> None:
    """Run the rush on standard input."""
    rush = msgspec.json.decode(sys.stdin.buffer.read(), type=Rush)
    gc.disable()

    async def measure() -> Result:
        return await Crowd(rush).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure())
    sys.stdout.buffer.write(msgspec.json.encode(result))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
