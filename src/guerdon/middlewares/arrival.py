"""A request has to arrive before anything is done for it, and it does not get for ever.

The server bounds how long the head may take. Here the body gets its time: what arrives too slowly, or breaks off, is answered and closed
while it holds nothing but its own bytes, no place at a wallet's door and no database session. The application behind sees a request that is
complete, or one so large that the rest is read by its handler under the same deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from structlog.typing import FilteringBoundLogger

from guerdon.clock import Clock
from guerdon.errors import BadRequest, GuerdonError, Overloaded, RequestTimeout
from guerdon.http.body import BODY_ENDS_AT, BROKEN_OFF
from guerdon.http.operation import Request, Response
from guerdon.middlewares.connections import KEPT_MAX, KeptConnections, closing

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
REFUSED = "guerdon.refused"
"""The error that the application answers with at once: the request was judged before it got there."""
ARRIVED = "guerdon.arrived"
"""When a request came that had to wait for something (monotonic seconds)."""
GATHERED_BYTES_MAX = 64 * 1024
"""So much of one body is kept before anybody knows who sends it. More than any command for one wallet needs."""
GATHERED_BYTES_TOTAL_MAX = 32 * 1024 * 1024
"""So much of all the bodies that come in pieces; above it the next one is refused."""
LOOK_SECONDS = 0.5
_BROKEN = "the body breaks off, or its framing is not that of HTTP/1.1"


class Arrival:
    """The outermost layer of the application."""

    def __init__(
        self, app: Asgi, clock: Clock, log: FilteringBoundLogger, *, body_seconds: float, kept_max: int = KEPT_MAX
    ) -> None:
        self._app = app
        self._clock = clock
        self._log = log
        self._body_seconds = body_seconds
        self._gathered_bytes = 0
        self._kept = KeptConnections(kept_max)
        # Whoever waits for bytes, and until when (the loop's time), in that order: they all get the same time. One timer looks after all of
        # them, because a timer of its own would cost each request as much as its routing.
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        if scope["http_version"] == "1":
            scope["http_version"] = "1.0"  # Granian's word for it, which Falcon does not know.
        if scope["method"] == "WEBSOCKET":
            scope["method"] = "UNKNOWN"  # Falcon keeps that word for itself, and would raise before there is a request id.
        began = self._clock.monotonic()
        if not self._kept.may_stay(scope.get("client"), began):
            send = closing(send)
        ends_at = asyncio.get_running_loop().time() + self._body_seconds
        try:
            event = await self._arrive(receive, ends_at)
            if event.get("more_body"):
                scope[BODY_ENDS_AT] = ends_at
        except GuerdonError as error:
            # Without its traceback, which leads back to the scope: the two would keep the connection open until a collection.
            scope[REFUSED], scope[ARRIVED] = error.with_traceback(None), began
            # The application answers it like a request without a body.
            event = {"type": "http.request", "body": b"", "more_body": False}
        try:
            await self._app(scope, _Rest(scope, event, receive), send)
        except Exception as error:  # The server would log what it says, and answers 500 as well when nothing was sent.
            self._log.error("unhandled", exc_info=error)

    async def _arrive(self, receive: Receive, ends_at: float) -> dict[str, Any]:
        """Return the body as one event, whole or up to the limit.

        Raises:
            RequestTimeout: it does not arrive in time.
            BadRequest: it breaks off.
            Overloaded: too much is being gathered already.
        """
        task = cast(asyncio.Task[Any], asyncio.current_task())
        self._waiting[task] = ends_at
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        try:
            event = await receive()
            if event["type"] != "http.request":
                raise BadRequest(_BROKEN)
            return await self._gather(event, receive) if event.get("more_body") else event
        except asyncio.CancelledError:
            if task in self._waiting or task.uncancel() > 0:
                raise  # It was not us.
            raise RequestTimeout(f"the body did not arrive within {self._body_seconds:g} s; nothing was done") from None
        finally:
            self._waiting.pop(task, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for task, ends_at in list(self._waiting.items()):
            if ends_at > loop.time():
                break
            del self._waiting[task]
            task.cancel()
        self._timer = loop.call_later(LOOK_SECONDS, self._look) if self._waiting else None

    async def _gather(self, event: dict[str, Any], receive: Receive) -> dict[str, Any]:
        """Return the body's pieces as one, whole or up to the limit.

        Raises:
            BadRequest: it breaks off.
            Overloaded: too much is being gathered already.
        """
        pieces = [event["body"]]
        size = held = len(event["body"])
        self._gathered_bytes += held
        try:
            while event.get("more_body") and size < GATHERED_BYTES_MAX:
                if self._gathered_bytes > GATHERED_BYTES_TOTAL_MAX:
                    raise Overloaded("too many bodies arrive slowly at the moment; nothing was done", retry_after_seconds=1)
                event = await receive()
                if event["type"] != "http.request":
                    raise BadRequest(_BROKEN)
                pieces.append(event["body"])
                size += len(event["body"])
                self._gathered_bytes += size - held
                held = size
        finally:
            self._gathered_bytes -= held
        return {**event, "body": b"".join(pieces)}


class _Rest:
    """What the application receives: the event that was waited for, and then what follows it."""

    __slots__ = ("_first", "_receive", "_scope")

    def __init__(self, scope: Any, first: dict[str, Any], receive: Receive) -> None:
        self._scope = scope
        self._first: dict[str, Any] | None = first
        self._receive = receive

    async def __call__(self) -> dict[str, Any]:
        first = self._first
        if first is not None:
            self._first = None
            return first
        event = await self._receive()
        if event["type"] != "http.request":
            self._scope[BROKEN_OFF] = True
        return event


class Refusals:
    """Answers, as the first thing in the application, what was refused on the way to it."""

    async def process_request(self, req: Request, resp: Response) -> None:
        if REFUSED in req.scope:
            # Taken out of the scope, and kept in no variable: see `Arrival`.
            raise cast(GuerdonError, req.scope.pop(REFUSED))
