"""A mongod that obeys fail points, and a wire that loses replies: faults that are ordered, not hoped for."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import PyMongoError

from guerdon.embedded import find_mongod
from guerdon.embedded.host import choose_port

SET = "faults"
PORT_TRIES = 20
START_SECONDS = 60.0
POLL_SECONDS = 0.02


@contextmanager
def started_mongod(data_dir: Path) -> Iterator[int]:
    """A one-member replica set with test commands; yields its port."""
    (data_dir / "db").mkdir(parents=True)
    mongod = find_mongod(data_dir)
    for _ in range(PORT_TRIES):
        port = choose_port(None)
        process = subprocess.Popen(
            [
                str(mongod.binary), "--dbpath", str(data_dir / "db"), "--port", str(port), "--bind_ip", "127.0.0.1",
                "--replSet", SET, "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--logpath", str(data_dir / "log"),
                "--setParameter", "enableTestCommands=1", "--setParameter", "diagnosticDataCollectionEnabled=false",
            ],
            env=mongod.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            if _became_primary(process, port):
                yield port
                return
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    raise AssertionError(f"no mongod with fail points could be started; see {data_dir / 'log'}")


def _became_primary(process: subprocess.Popen[bytes], port: int) -> bool:
    """False when it ended at once, as it does when the port is taken."""
    member = {"_id": 0, "host": f"127.0.0.1:{port}"}
    deadline = time.monotonic() + START_SECONDS
    with MongoClient[dict[str, Any]]("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=200) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            try:
                if "setName" not in client.admin.command("hello"):
                    client.admin.command("replSetInitiate", {"_id": SET, "members": [member]})
                elif client.admin.command("hello")["isWritablePrimary"]:
                    # Another test process may have been quicker on the port; ours is about to end then.
                    return client.admin.command("serverStatus")["pid"] == process.pid
            except PyMongoError:
                pass
            time.sleep(POLL_SECONDS)
    raise AssertionError("mongod did not become a primary")


class FailPoints:
    """Turns `failCommand` on for the clients of the service; this client's own commands go to `admin` and are not touched."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        self._admin = client.admin
        self._before = 0

    async def fail(self, command: str, *, times: int = 1, **data: Any) -> None:
        mode = {"times": times}
        reply = await self._admin.command(
            {"configureFailPoint": "failCommand", "mode": mode, "data": {"failCommands": [command], "appName": "guerdon", **data}}
        )
        self._before = int(reply["count"])

    async def stop(self) -> int:
        """Turn it off; how often it fired since `fail`."""
        reply = await self._admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        return int(reply["count"]) - self._before

    async def fired(self, count: int, *, within_seconds: float = 30.0) -> None:
        """Return when it has fired so often."""
        await self._admin.command(
            {
                "waitForFailPoint": "failCommand",
                "timesEntered": self._before + count,
                "maxTimeMS": int(within_seconds * 1000),
            }
        )


class LossyWire:
    """A TCP proxy that, when told to, delivers a request whole, and closes the connection instead of bringing the reply."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._word, self._times = b"", 0
        self.lost = 0

    def lose_replies_to(self, word: bytes, *, times: int) -> None:
        """Lose the replies to the next so many messages that hold `word`."""
        self._word, self._times = word, times

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        lost = asyncio.Event()
        pipes = [
            asyncio.ensure_future(self._requests(reader, up_writer, lost)),
            asyncio.ensure_future(self._replies(up_reader, writer, lost)),
        ]
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            for end in (writer, up_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _requests(self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        """Message by message, so that it is known what a reply answers."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(4)
                message = head + await reader.readexactly(int.from_bytes(head, "little") - 4)
                if self._times and self._word in message:
                    self._times -= 1
                    lost.set()
                up.write(message)
                await up.drain()

    async def _replies(self, up: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while part := await up.read(65536):
                if lost.is_set():
                    self.lost += 1
                    return
                writer.write(part)
                await writer.drain()


@asynccontextmanager
async def lossy_wire(port: int) -> AsyncIterator[tuple[LossyWire, int]]:
    """A wire to the mongod on `port`, and the port to dial."""
    wire = LossyWire(port)
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(wire._serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield wire, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()
