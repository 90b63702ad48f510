"""A client of event streams that speaks ASGI, since httpx's transport for applications waits for the end of an answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from falcon.asgi import App

EVENT_SECONDS = 20.0
LEAVE_SECONDS = 0.5
"""So long an application may take to notice that its client has gone before it is cancelled; it looks with each heartbeat."""


@dataclass(frozen=True)
class Event:
    """One server-sent event; a comment has none of these."""

    name: str
    id: str
    data: dict[str, Any]

    @property
    def seq(self) -> int:
        return int(self.id)


def parse(block: bytes) -> Event | None:
    """One event of a stream, without its empty line; None for a comment."""
    fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if line and not line.startswith(":"))
    return Event(fields["event"], fields["id"], json.loads(fields["data"])) if fields else None


class Stream:
    """An open answer. It takes one message at a time, so an application that sends more has to wait, as on a slow line."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.comments = 0
        self.ended = False
        self._started = asyncio.Event()
        self._gone = asyncio.Event()
        self._asked = False
        self._body: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self._started.set()
        elif not self._gone.is_set():
            if message.get("body"):
                await self._body.put(message["body"])
            if not message.get("more_body"):
                await self._body.put(None)

    async def started(self) -> None:
        async with asyncio.timeout(EVENT_SECONDS):
            await self._started.wait()

    async def next(self) -> Event | None:
        """The next event, past comments; None at the end."""
        async with asyncio.timeout(EVENT_SECONDS):
            while not self.ended:
                block = await self._body.get()
                if block is None:
                    self.ended = True
                elif event := parse(block):
                    return event
                else:
                    self.comments += 1
        return None

    async def take(self, count: int) -> list[Event]:
        found = [await self.next() for _ in range(count)]
        return [event for event in found if event is not None]

    async def pieces(self) -> list[bytes]:
        """The body up to its end, as it was sent."""
        found: list[bytes] = []
        async with asyncio.timeout(EVENT_SECONDS):
            while (piece := await self._body.get()) is not None:
                found.append(piece)
        self.ended = True
        return found

    async def rest(self) -> bytes:
        """The whole body up to its end, comments too."""
        return b"".join(await self.pieces())

    def leave(self) -> None:
        """Hang up."""
        self._gone.set()
        while not self._body.empty():
            self._body.get_nowait()


@asynccontextmanager
async def follow(
    app: App[Any, Any], path: str, token: str | None, last_event_id: int | str | None = None, query: str = ""
) -> AsyncIterator[Stream]:
    """An open stream, from which the client hangs up at the end."""
    headers = [(b"host", b"test")]
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    if last_event_id is not None:
        headers.append((b"last-event-id", str(last_event_id).encode()))
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": headers, "client": ("127.0.0.1", 1),
        "server": ("test", 80), "root_path": "",
    }  # fmt: skip
    stream = Stream()
    task = asyncio.create_task(app(scope, stream.receive, stream.send))
    try:
        await stream.started()
        yield stream
    finally:
        stream.leave()
        await asyncio.wait([task], timeout=LEAVE_SECONDS)
        task.cancel()
        await asyncio.wait([task])
