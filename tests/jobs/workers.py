"""Workers for tests: some in this process, some in processes of their own that can be killed."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from guerdon.clock import Clock, SystemClock
from guerdon.database import Database
from guerdon.ids import IdSource
from guerdon.logs import make_logger
from guerdon.workers.models import LEASES, Job
from guerdon.workers.service import Runner
from tests.clients import Log
from tests.conftest import DATABASE
from tests.waiting import SECONDS as WAIT_SECONDS

ROOT = Path(__file__).parents[2]
LEASE_MS = 2_000
"""Short, but a busy machine must not take it for lost: a process that stands still for more than a second does lose it."""


async def lease_of(database: Database, name: str) -> dict[str, Any]:
    row = await database.raw[LEASES].find_one({"_id": name})
    assert row is not None
    return row


async def server_ms(database: Database) -> int:
    """The database's time, in milliseconds."""
    hello = await database.client.admin.command("hello")
    return int(hello["localTime"].timestamp() * 1000)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Database]:
    database = Database(url, DATABASE)
    try:
        yield database
    finally:
        await database.close()


class Worker:
    """A runner that a test can stop."""

    def __init__(self, runner: Runner, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self.task = asyncio.create_task(runner.run(stopping))

    async def stop(self) -> float:
        """Stop it; return how many seconds that took."""
        began = asyncio.get_running_loop().time()
        self._stopping.set()
        await self.task
        return asyncio.get_running_loop().time() - began


@asynccontextmanager
async def working(
    database: Database,
    *jobs: Job,
    log: Log | None = None,
    clock: Clock | None = None,
    lease_ms: int = LEASE_MS,
    stop_ms: int = 200,
) -> AsyncIterator[Worker]:
    """A runner at work in this process."""
    clock = clock or SystemClock()
    logger = make_logger(clock, "info", log or Log())
    worker = Worker(Runner(database, IdSource(clock), logger, jobs, lease_ms=lease_ms, stop_ms=stop_ms), asyncio.Event())
    try:
        yield worker
    finally:
        await worker.stop()


class Process:
    """A runner in a process of its own, whose one job says `began` and then hangs, until it is cancelled and says `cut`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self, word: str) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            line = await self._process.stdout.readline()
        assert line.decode().strip() == word

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._process.wait()


@asynccontextmanager
async def process(url: str, name: str, offset_seconds: int) -> AsyncIterator[Process]:
    """Such a process, in which the time of day is wrong by `offset_seconds`."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.jobs.workers", url, name, str(offset_seconds),
        cwd=ROOT, env=dict(os.environ), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Process(child)
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


class Cable:
    """A way to a server that can be cut, and mended: while it is cut nothing is delivered, and connections close at once."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._ends: list[asyncio.StreamWriter] = []
        self._cut = False
        self._joined: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        self._cut = True
        for end in self._ends:
            end.close()
        self._ends.clear()

    def mend(self) -> None:
        self._cut = False

    def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._join(reader, writer))
        self._joined.add(task)
        task.add_done_callback(self._joined.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer):
            if self._cut:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
            async with _closing(far_writer):
                if not self._cut:  # It may have been cut while the far end was opened.
                    self._ends += writer, far_writer
                    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    async def closed(self) -> None:
        """Return when every connection is closed."""
        await asyncio.gather(*self._joined, return_exceptions=True)


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def cable_to(port: int) -> AsyncIterator[tuple[Cable, int]]:
    """A cable to the server on `port`, and the port to dial."""
    cable = Cable(port)
    server = await asyncio.start_server(cable.join, "127.0.0.1", 0)
    try:
        yield cable, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        cable.cut()
        await cable.closed()
        await server.wait_closed()


def hanging(name: str, say: Callable[[str], object], *, every_ms: int = 1) -> Job:
    """A job that says `began`, and `cut` when it is cancelled, which is the only end it has."""

    async def hang() -> int:
        say("began")
        try:
            await asyncio.sleep(600)
        finally:
            say("cut")
        return 1

    return Job(name, every_ms, hang)


def counting(name: str, do: Callable[[], object], *, every_ms: int = 1) -> Job:
    """A job that calls `do` and is done."""

    async def run() -> int:
        do()
        return 1

    return Job(name, every_ms, run)


async def _main(arguments: Sequence[str]) -> None:
    url, job, offset_seconds = arguments
    real = time.time_ns
    time.time_ns = lambda: real() + int(offset_seconds) * 10**9
    time.time = lambda: time.time_ns() / 10**9
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with connected(url) as database, working(database, hanging(job, lambda word: print(word, flush=True))):
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
