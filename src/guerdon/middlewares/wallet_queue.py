"""Limits the concurrent requests of one wallet, so that a busy wallet does not delay the requests of others (ASVS 15.4.4).

A worker handles requests in the order of their arrival, so without a limit a thousand requests for one wallet would be handled before the
request that follows them. Here each wallet has a limited number of slots in a worker. Its further requests wait in a queue, in their order,
where waiting costs almost nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from guerdon.clock import Clock
from guerdon.errors import Overloaded
from guerdon.http.body import BODY_ENDS_AT
from guerdon.middlewares.request_body import ARRIVED, REFUSED

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
SHARE = 128
"""Number of slots of one wallet for requests that move value. Enough to fill a commit while another one is in progress."""
WALLETS = "/v1/wallets/"


class WalletQueue:
    """An ASGI layer with one queue for each wallet."""

    def __init__(self, app: Asgi, clock: Clock, *, wait_seconds: float, share: int = SHARE) -> None:
        self._app = app
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._share = share
        self._active: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[bool]]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        # A request whose body is incomplete gets no slot: the others would wait for a request that may never finish.
        if scope["method"] != "POST" or not path.startswith(WALLETS) or BODY_ENDS_AT in scope:
            await self._app(scope, receive, send)
            return
        active = self._active.get(path, 0)
        if active < self._share:
            self._active[path] = active + 1
        elif not await self._wait(path, scope):
            detail = "too many requests for this wallet are waiting; nothing was changed"
            scope[REFUSED] = Overloaded(detail, retry_after_seconds=1)
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._release(path)

    async def _wait(self, path: str, scope: Any) -> bool:
        """Wait for a slot. Return False if the time expires first."""
        scope[ARRIVED] = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        slot = loop.create_future()
        self._waiting.setdefault(path, deque()).append(slot)
        timer = loop.call_later(self._wait_seconds, lambda: slot.done() or slot.set_result(False))
        try:
            return await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled() and slot.result():
                self._release(path)  # The slot was assigned just as the caller disconnected.
            raise
        finally:
            timer.cancel()

    def _release(self, path: str) -> None:
        """Pass a slot to the next waiting request, or free it."""
        waiting = self._waiting.get(path)
        while waiting:
            slot = waiting.popleft()
            if not slot.done():
                slot.set_result(True)
                return
        self._waiting.pop(path, None)
        if self._active[path] > 1:
            self._active[path] -= 1
        else:
            del self._active[path]
