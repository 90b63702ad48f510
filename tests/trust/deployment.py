"""A real `guerdon serve` or `guerdon up` in processes of its own, and ways to hurt it."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from guerdon import embedded
from tests.invariants.retail import Run, environment, guerdon

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
COMMAND_SECONDS = 240
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = itertools.count(14_000 + 500 * (WORKER % 6) + os.getpid() % 400)
"""Each worker of a run looks in a range of its own: between the look and the server's start another one would take the same port."""


def free_port() -> int:
    """A port below those that the kernel hands to outgoing connections: while nobody listens there, a client must not take it."""
    for port in _ports:
        assert port < 18_000, "no free port"
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError


class Server:
    """One port, and at most one running `guerdon` that serves on it. `prefix` is what runs the command: in a namespace, say."""

    def __init__(
        self, log: Path, arguments: list[str], settings: dict[str, str], *, prefix: list[str] | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.log = log
        self.port = free_port()
        self.url = f"http://{host}:{self.port}"
        self.refusals = 0
        where = ["--host", host, "--port", str(self.port)]
        self._arguments = [*arguments[:1], *where, *arguments[1:]]
        self._command = [*(prefix or []), sys.executable, "-m", "guerdon", *self._arguments]
        self._environment = environment(**{"GUERDON_ACCESS_LOG": "false", **settings})
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, *, within_seconds: float = READY_SECONDS) -> float:
        """Start it and return the seconds until it was ready.

        After a kill -9 it is started again, as a supervisor would, while what is left of the old one refuses it (status 2).
        """
        began = time.monotonic()
        while not await self._started():
            assert time.monotonic() - began < within_seconds, f"it does not start; see {self.log}"
            await asyncio.sleep(POLL_SECONDS)
        return time.monotonic() - began

    async def _started(self) -> bool:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once, and its end is polled for
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        offset = self.log.stat().st_size
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            # The old worker may still answer on the port, so the new process has to say itself that it is ready.
            if b"ready http" in self.log.read_bytes()[offset:]:
                await self.ready()
                return True
            if self._process.poll() is not None:
                assert self._process.returncode == 2, f"it ended; see {self.log}"
                self.refusals += 1
                return False
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(f"not ready within {READY_SECONDS} s; see {self.log}")

    async def ready(self, *, within_seconds: float = READY_SECONDS) -> None:
        deadline = time.monotonic() + within_seconds
        async with httpx.AsyncClient(timeout=2) as client:
            while time.monotonic() < deadline:
                assert self._process is not None
                assert self._process.poll() is None, f"it ended; see {self.log}"
                try:
                    if (await client.get(f"{self.url}/health/ready")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(f"not ready within {within_seconds} s; see {self.log}")

    async def ended(self, *, within_seconds: float = READY_SECONDS) -> int:
        """Wait for it to end by itself; its status."""
        assert self._process is not None
        deadline = time.monotonic() + within_seconds
        while self._process.poll() is None:
            assert time.monotonic() < deadline, "it has not ended"
            await asyncio.sleep(POLL_SECONDS)
        return int(self._process.returncode)

    def _workers(self) -> list[int]:
        """The pids of the API processes. They are forks of the command, so their command line is the same."""
        return self._children("\0".join(self._arguments))

    def workers(self) -> set[int]:
        return set(self._workers())

    def pids(self) -> set[int]:
        return {self._process.pid, *self._workers()} if self._process is not None else set()

    async def new_worker(self, before: set[int]) -> int:
        """Wait for an API process that is none of `before`; it need not answer yet."""
        deadline = time.monotonic() + READY_SECONDS
        while not (new := self.workers() - before):
            assert time.monotonic() < deadline, "no new worker was started"
            await asyncio.sleep(POLL_SECONDS)
        return new.pop()

    def kill(self) -> None:
        """kill -9 the main process; its children are its own business."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """Ask it to end; return its status."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(60)
        finally:
            self.kill()

    async def stopped(self) -> int:
        """`stop` for a test whose own loop carries the server's connections."""
        return await asyncio.to_thread(self.stop)

    def _children(self, word: str) -> list[int]:
        """Pids of the direct children whose command line holds `word`."""
        assert self._process is not None
        found: list[int] = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                command = entry.joinpath("cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if parent == self._process.pid and word in command:
                found.append(int(entry.name))
        return found


class Deployment(Server):
    """`guerdon up` on a data directory, with the mongod that it starts."""

    def __init__(self, data_dir: Path, *, workers: int = 1, settings: dict[str, str] | None = None) -> None:
        arguments = ["up", "--no-demo", "--workers", str(workers), "--data-dir", str(data_dir)]
        super().__init__(data_dir.parent / "up.log", arguments, settings or {})
        self.data_dir = data_dir

    async def command(self, *arguments: str) -> Run:
        return await guerdon(*arguments, "--data-dir", str(self.data_dir), seconds=COMMAND_SECONDS)

    def mongodb_url(self) -> str:
        facts = embedded.holder(self.data_dir)
        assert facts is not None
        return str(facts["mongodb_url"])

    def mongod(self) -> int | None:
        """The pid of its mongod, or None between two of them."""
        return next(iter(self._children("--dbpath")), None)

    def kill_mongod(self, by: signal.Signals = signal.SIGKILL) -> int:
        """Send the signal to its mongod; return the pid."""
        [pid] = self._children("--dbpath")
        os.kill(pid, by)
        return pid

    async def new_mongod(self, before: int) -> None:
        """Wait until another mongod than `before` runs and the service is ready."""
        deadline = time.monotonic() + READY_SECONDS
        while self.mongod() in (None, before):
            assert time.monotonic() < deadline, f"mongod was not restarted; see {self.log}"
            await asyncio.sleep(POLL_SECONDS)
        await self.ready()

    def interrupt(self) -> float:
        """Send Ctrl-C, and return the seconds until it has ended."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._process = None
        return time.monotonic() - began


def kill_worker(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def operator(database_url: str, *arguments: str) -> Run:
    """A command at a terminal, on a database that is running already."""
    return await guerdon(*arguments, seconds=COMMAND_SECONDS, GUERDON_MONGODB_URL=database_url)
