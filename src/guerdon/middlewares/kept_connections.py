"""Limits the number of connections that stay open for another request. Each idle connection takes a buffer of 8 KiB in the server."""

from collections.abc import Awaitable, Callable
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
IDLE_SECONDS = 10
"""Time for which the server keeps an idle connection."""
KEPT_MAX = 3_000
"""Maximum number of recently used connections of one worker, at 10 KiB each. More than gateways open (2,000 in the examples)."""


class KeptConnections:
    """Decides which connections stay open after a response: known connections, and new ones below the limit."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        # Connections with a request in the current span of `IDLE_SECONDS`, and those with one in the span before. Other connections are closed
        # or busy.
        self._current: set[object] = set()
        self._previous: set[object] = set()
        self._span_ends_at = 0.0

    def may_stay(self, connection: object, now: float) -> bool:
        """Record a request on a connection (the peer's address and port) at `now`, in monotonic seconds. Return False if it must be closed."""
        if now >= self._span_ends_at:
            self._previous = self._current if now < self._span_ends_at + IDLE_SECONDS else set()
            self._current, self._span_ends_at = set(), now + IDLE_SECONDS
        if connection in self._current:
            return True
        if connection in self._previous:
            self._previous.discard(connection)
        elif len(self._current) + len(self._previous) >= self._kept_max:
            return False
        self._current.add(connection)
        return True


def closing(send: Send) -> Send:
    """Return a `send` that adds `Connection: close` to the response, after which the server closes the connection (RFC 9112, 9.6)."""

    async def send_and_close(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], (b"connection", b"close")]}
        await send(event)

    return send_and_close
