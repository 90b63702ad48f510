"""How many connections are kept for a next request. An idle one costs the server its buffer of 8 KiB, whoever has opened it."""

from collections.abc import Awaitable, Callable
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
IDLE_SECONDS = 10
"""So long the server keeps a connection that says nothing."""
KEPT_MAX = 3_000
"""So many connections of one worker may have asked lately and stay, at 10 KiB each. More than gateways open (2,000 in the examples)."""


class KeptConnections:
    """Tells which connections may stay after their answer: those that are known, and new ones while there is room."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        # By when they asked last: within this span of `IDLE_SECONDS`, or in the one before. Any other one is closed by now, or busy.
        self._now: set[object] = set()
        self._before: set[object] = set()
        self._span_ends_at = 0.0

    def may_stay(self, connection: object, now: float) -> bool:
        """Note that this connection asks (its peer's address and port), at `now` in monotonic seconds."""
        if now >= self._span_ends_at:
            self._before = self._now if now < self._span_ends_at + IDLE_SECONDS else set()
            self._now, self._span_ends_at = set(), now + IDLE_SECONDS
        if connection in self._now:
            return True
        if connection in self._before:
            self._before.discard(connection)
        elif len(self._now) + len(self._before) >= self._kept_max:
            return False
        self._now.add(connection)
        return True


def closing(send: Send) -> Send:
    """Say with the answer that the connection ends with it, which makes the server close it (RFC 9112, 9.6)."""

    async def send_and_close(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], (b"connection", b"close")]}
        await send(event)

    return send_and_close
