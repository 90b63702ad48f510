"""A real `guerdon up` in processes of its own, and ways to hurt it."""

import asyncio
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


def free_port() -> int:
    """A port below those that the kernel hands to outgoing connections: while nobody listens there, a client must not take it."""
    for port in range(14_000 + os.getpid() % 1000, 18_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


class Deployment:
    """One data directory, one port, and at most one running `guerdon up`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir.parent / "up.log"
        self.refusals = 0
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
                [
                    sys.executable, "-m", "guerdon", "up", "--no-demo",
                    "--port", str(self.port), "--data-dir", str(self.data_dir),
                ],
                env=environment(GUERDON_ACCESS_LOG="false"), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        offset = self.log.stat().st_size
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            # The old worker may still answer on the port, so the new process has to say itself that it is ready.
            if b"\nready " in self.log.read_bytes()[offset:]:
                await self.ready()
                return True
            if self._process.poll() is not None:
                assert self._process.returncode == 2, f"`guerdon up` ended; see {self.log}"
                self.refusals += 1
                return False
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(f"not ready within {READY_SECONDS} s; see {self.log}")

    async def ready(self, *, within_seconds: float = READY_SECONDS) -> None:
        deadline = time.monotonic() + within_seconds
        async with httpx.AsyncClient(timeout=2) as client:
            while time.monotonic() < deadline:
                assert self._process is not None
                assert self._process.poll() is None, f"`guerdon up` ended; see {self.log}"
                try:
                    if (await client.get(f"{self.url}/health/ready")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(f"not ready within {within_seconds} s; see {self.log}")

    async def command(self, *arguments: str) -> Run:
        return await guerdon(*arguments, "--data-dir", str(self.data_dir), seconds=120)

    def mongodb_url(self) -> str:
        facts = embedded.holder(self.data_dir)
        assert facts is not None
        return str(facts["mongodb_url"])

    def kill_worker(self) -> int:
        """kill -9 one API process; return its pid."""
        [pid, *_] = self._workers()
        os.kill(pid, signal.SIGKILL)
        return pid

    async def new_worker(self, killed: int) -> None:
        """Return when another API process has taken the killed one's place and answers."""
        deadline = time.monotonic() + READY_SECONDS
        while not set(self._workers()) - {killed}:
            assert time.monotonic() < deadline, "no new worker was started"
            await asyncio.sleep(POLL_SECONDS)
        await self.ready()

    def _workers(self) -> list[int]:
        """They are forks of `guerdon up`, so their command line is the same."""
        return self._children(f"--port\0{self.port}\0--data-dir\0{self.data_dir}")

    def kill_mongod(self) -> None:
        [pid] = self._children("--dbpath")
        os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """kill -9 `guerdon up` itself; its children are its own business."""
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

    def _children(self, word: str) -> list[int]:
        """Pids of the direct children whose command line holds `word`."""
        assert self._process is not None
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                command = entry.joinpath("cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if parent == self._process.pid and word in command:
                found.append(int(entry.name))
        return found
