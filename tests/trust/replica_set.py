"""Three mongods that elect their primary, and ways to hurt each of them."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from guerdon.embedded import die_with_parent, find_mongod
from tests.trust.networks import MEMBERS, Kind, Network

SET = "trust"
START_SECONDS = 60.0
POLL_SECONDS = 0.05
SETTINGS = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500, "heartbeatTimeoutSecs": 2}
"""A fifth of the defaults, so that a check sees an election within seconds."""
PARAMETERS = (
    "enableTestCommands=1",
    "diagnosticDataCollectionEnabled=false",
    # As docs/operations.md advises for a replica set of one's own.
    "transactionLifetimeLimitSeconds=5",
)


class ReplicaSet:
    """Three mongods on a network that can be cut. Members are numbered from 0."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.network = network
        self.url = f"mongodb://{','.join(map(network.known_as, range(MEMBERS)))}/?replicaSet={SET}"
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._cut: int | None = None
        self._paused: set[int] = set()

    async def start(self) -> None:
        await self.network.open()
        for member in range(MEMBERS):
            (self._folder / str(member)).mkdir(parents=True)
            self.launch(member)
        members = [{"_id": member, "host": self.network.known_as(member)} for member in range(MEMBERS)]
        for member in range(MEMBERS):
            await self._ask(member, "ping", within_seconds=START_SECONDS)
        await asyncio.to_thread(self._tell, 0, {"replSetInitiate": {"_id": SET, "members": members, "settings": SETTINGS}}, 20_000)
        await self.primary()
        for member in range(MEMBERS):
            await self.settled(member)

    def launch(self, member: int) -> None:
        """Start a member's mongod on what its data directory holds."""
        mongod = find_mongod(self._folder)
        folder = self._folder / str(member)
        addresses, port = self.network.listens_on(member)
        command = [
            *self.network.side(member)[0], str(mongod.binary), "--dbpath", str(folder), "--logpath", str(folder / "log"), "--logappend",
            "--port", str(port), "--bind_ip", addresses, "--replSet", SET, "--nounixsocket", "--oplogSize", "256",
            "--wiredTigerCacheSizeGB", "0.25",
        ]  # fmt: skip
        for parameter in PARAMETERS:
            command += ["--setParameter", parameter]
        self._processes[member] = subprocess.Popen(
            command, env=mongod.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            preexec_fn=partial(die_with_parent, os.getpid(), by=signal.SIGKILL), start_new_session=True,
        )  # fmt: skip

    async def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        await self.network.close()

    # --- who is what --------------------------------------------------------------------------------------------------

    def _tell(self, member: int, command: dict[str, Any], patience_ms: int = 1000) -> dict[str, Any]:
        """Over a connection that no cut reaches, of a thread's own: asyncio's client leaks the socket that it is closed with."""
        limits = {"serverSelectionTimeoutMS": patience_ms, "connectTimeoutMS": 1000, "socketTimeoutMS": patience_ms}
        with MongoClient[dict[str, Any]](self.direct_url(member), **limits) as client:
            return client.admin.command(command)

    async def _ask(self, member: int, command: str, *, within_seconds: float = 0.0) -> dict[str, Any]:
        """One member's answer, or nothing when it does not give one in time."""
        deadline = time.monotonic() + within_seconds
        while True:
            try:
                return await asyncio.to_thread(self._tell, member, {command: 1})
            except PyMongoError:
                if time.monotonic() >= deadline:
                    return {}
            assert self._processes[member].poll() is None, f"mongod ended; see {self._folder / str(member) / 'log'}"
            await asyncio.sleep(POLL_SECONDS)

    async def primary(self, *, within_seconds: float = START_SECONDS) -> int:
        """The member that the majority has elected; wait for it. A cut-off or stopped one may believe that it is still the primary."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            for member in set(range(MEMBERS)) - {self._cut} - self._paused:
                if self._processes[member].poll() is None and (await self._ask(member, "hello")).get("isWritablePrimary"):
                    return member
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError("no primary was elected")

    async def settled(self, member: int, *, within_seconds: float = START_SECONDS) -> float:
        """Return the seconds until a member is the primary or follows it."""
        began = time.monotonic()
        while time.monotonic() < began + within_seconds:
            hello = await self._ask(member, "hello")
            if hello.get("isWritablePrimary") or hello.get("secondary"):
                return time.monotonic() - began
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(f"member {member} did not settle; see {self._folder / str(member) / 'log'}")

    async def primary_url(self) -> str:
        """For commands of the operator after the faults: straight to the primary."""
        return self.direct_url(await self.primary())

    def direct_url(self, member: int) -> str:
        """A way to one member that no cut reaches."""
        return f"mongodb://{self.network.reached_by(member)}/?directConnection=true"

    def pids(self, member: int) -> set[int]:
        return {self._processes[member].pid}

    # --- faults -------------------------------------------------------------------------------------------------------

    def kill(self, member: int) -> None:
        """kill -9"""
        self._processes[member].kill()
        self._processes[member].wait()

    def pause(self, member: int) -> None:
        """SIGSTOP: its sockets stay open and nobody reads them."""
        self._paused.add(member)
        self._processes[member].send_signal(signal.SIGSTOP)

    def resume(self, member: int) -> None:
        self._processes[member].send_signal(signal.SIGCONT)
        self._paused.discard(member)

    async def cut(self, member: int | None, friends: Callable[[], set[int]] = set, *, kind: Kind = "silence") -> None:
        """Cut the processes `friends` off from all others, and a member with them, if one is named."""
        self._cut = member
        await self.network.cut(member, lambda: friends() | (set() if member is None else self.pids(member)), kind)

    async def heal(self) -> None:
        await self.network.heal()
        self._cut = None


@asynccontextmanager
async def replica_set(folder: Path, network: Network) -> AsyncIterator[ReplicaSet]:
    members = ReplicaSet(folder, network)
    try:
        await members.start()
        yield members
    finally:
        await members.stop()
