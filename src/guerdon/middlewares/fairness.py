"""One wallet that everybody wants at once must not keep the callers of other wallets waiting (ASVS 15.4.4).

A worker handles its requests in the order of their arrival, so a thousand for one wallet would be read, decided and answered before the
one that came after them. Here no wallet has more than a share of a worker: its further requests wait at the door, in their order, where
waiting costs next to nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from guerdon.clock import Clock
from guerdon.errors import Overloaded
from guerdon.http.body import BODY_ENDS_AT
from guerdon.middlewares.arrival import ARRIVED, REFUSED

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
SHARE = 128
"""Requests that move value of one wallet, inside at once. Enough to fill a commit while another one is under way."""
WALLETS = "/v1/wallets/"


class Fairness:
    """The ASGI application behind a door."""

    def __init__(self, app: Asgi, clock: Clock, *, wait_seconds: float, share: int = SHARE) -> None:
        self._app = app
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._share = share
        self._inside: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[bool]]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        # Who has not sent the whole request yet gets no place: the others would wait behind somebody who may never finish.
        if scope["method"] != "POST" or not path.startswith(WALLETS) or BODY_ENDS_AT in scope:
            await self._app(scope, receive, send)
            return
        inside = self._inside.get(path, 0)
        if inside < self._share:
            self._inside[path] = inside + 1
        elif not await self._wait(path, scope):
            detail = "too many requests for this wallet are before this one; nothing was done"
            scope[REFUSED] = Overloaded(detail, retry_after_seconds=1)
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._leave(path)

    async def _wait(self, path: str, scope: Any) -> bool:
        """Return True when a place was handed over, False when the time was over before."""
        scope[ARRIVED] = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        place = loop.create_future()
        self._waiting.setdefault(path, deque()).append(place)
        timer = loop.call_later(self._wait_seconds, lambda: place.done() or place.set_result(False))
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self._leave(path)  # The place was handed over just as the caller gave up.
            raise
        finally:
            timer.cancel()

    def _leave(self, path: str) -> None:
        waiting = self._waiting.get(path)
        while waiting:
            place = waiting.popleft()
            if not place.done():
                place.set_result(True)
                return
        self._waiting.pop(path, None)
        if self._inside[path] > 1:
            self._inside[path] -= 1
        else:
            del self._inside[path]
