"""Buffers the body of a request within a deadline, before the application handles it.

The server limits the time for the headers, this layer the time for the body. A request whose body is too slow or incomplete is refused while
it holds only its own bytes: no slot in the queue of a wallet and no database session. The application receives a complete request, or a large
one whose remaining body the handler reads within the same deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from structlog.typing import FilteringBoundLogger

from guerdon.clock import Clock
from guerdon.errors import BadRequest, GuerdonError, Overloaded, RequestTimeout
from guerdon.http.body import BODY_ENDS_AT, BROKEN_OFF
from guerdon.http.operation import Request, Response
from guerdon.middlewares.kept_connections import KEPT_MAX, KeptConnections, closing

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
REFUSED = "guerdon.refused"
"""Scope key of an error with which the application answers at once, because the request was refused before it."""
ARRIVED = "guerdon.arrived"
"""Scope key of the time at which a request that had to wait has arrived, in monotonic seconds."""
BUFFERED_BYTES_MAX = 64 * 1024
"""Maximum number of bytes of one body that are buffered before authentication. Every command for one wallet is smaller."""
BUFFERED_BYTES_TOTAL_MAX = 32 * 1024 * 1024
"""Maximum number of buffered bytes of all bodies that arrive in pieces. Above it, the next body is refused."""
CHECK_SECONDS = 0.5
"""Interval of the check for expired deadlines."""
_INCOMPLETE = "the body is incomplete, or its framing is not valid HTTP/1.1"


class RequestBody:
    """The outermost ASGI layer of the application."""

    def __init__(
        self, app: Asgi, clock: Clock, log: FilteringBoundLogger, *, body_seconds: float, kept_max: int = KEPT_MAX
    ) -> None:
        self._app = app
        self._clock = clock
        self._log = log
        self._body_seconds = body_seconds
        self._gathered_bytes = 0
        self._kept = KeptConnections(kept_max)
        # Each task that waits for bytes, with its deadline in the loop's time. All tasks have the same time, so they are in the order of their
        # deadlines. They share one timer, because a timer per request would cost as much as its routing.
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        if scope["http_version"] == "1":
            scope["http_version"] = "1.0"  # Granian writes "1", which Falcon does not know.
        if scope["method"] == "WEBSOCKET":
            scope["method"] = "UNKNOWN"  # Falcon reserves this method name, and would raise before there is a request id.
        began = self._clock.monotonic()
        if not self._kept.may_stay(scope.get("client"), began):
            send = closing(send)
        ends_at = asyncio.get_running_loop().time() + self._body_seconds
        try:
            event = await self._receive_body(scope, receive, ends_at)
            if event.get("more_body"):
                scope[BODY_ENDS_AT] = ends_at
        except GuerdonError as error:
            # Without its traceback, which refers to the scope: the cycle would keep the connection open until a garbage collection.
            scope[REFUSED], scope[ARRIVED] = error.with_traceback(None), began
            # The application then handles a request without a body.
            event = {"type": "http.request", "body": b"", "more_body": False}
        try:
            await self._app(scope, _BufferedReceive(scope, event, receive), send)
        except Exception as error:  # Logged here, so that the server does not log the message. It answers 500 if nothing was sent.
            self._log.error("unhandled", exc_info=error)

    async def _receive_body(self, scope: Any, receive: Receive, ends_at: float) -> dict[str, Any]:
        """Return the body as one event, completely or up to the limit.

        Raises:
            RequestTimeout: the body does not arrive in time.
            BadRequest: the body is incomplete.
            Overloaded: too many bytes are buffered.
        """
        task = cast(asyncio.Task[Any], asyncio.current_task())
        self._waiting[task] = ends_at
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._cancel_expired)
        try:
            event = await receive()
            if event["type"] != "http.request":
                raise BadRequest(_INCOMPLETE)
            if not event.get("more_body"):
                return event
            if _has_declared_length(scope, event["body"]):
                # The server sends the end of every body as an event of its own, which would cost another turn of the loop.
                return {**event, "more_body": False}
            return await self._gather(event, receive)
        except asyncio.CancelledError:
            if task in self._waiting or task.uncancel() > 0:
                raise  # Not cancelled by the timer.
            raise RequestTimeout(f"the body did not arrive within {self._body_seconds:g} s; nothing was changed") from None
        finally:
            self._waiting.pop(task, None)

    def _cancel_expired(self) -> None:
        loop = asyncio.get_running_loop()
        for task, ends_at in list(self._waiting.items()):
            if ends_at > loop.time():
                break
            del self._waiting[task]
            task.cancel()
        self._timer = loop.call_later(CHECK_SECONDS, self._cancel_expired) if self._waiting else None

    async def _gather(self, event: dict[str, Any], receive: Receive) -> dict[str, Any]:
        """Return the pieces of the body as one event, completely or up to the limit.

        Raises:
            BadRequest: the body is incomplete.
            Overloaded: too many bytes are buffered.
        """
        pieces = [event["body"]]
        size = counted = len(event["body"])
        self._gathered_bytes += counted
        try:
            while event.get("more_body") and size < BUFFERED_BYTES_MAX:
                if self._gathered_bytes > BUFFERED_BYTES_TOTAL_MAX:
                    raise Overloaded("too many slow requests at this moment; nothing was changed", retry_after_seconds=1)
                event = await receive()
                if event["type"] != "http.request":
                    raise BadRequest(_INCOMPLETE)
                pieces.append(event["body"])
                size += len(event["body"])
                self._gathered_bytes += size - counted
                counted = size
        finally:
            self._gathered_bytes -= counted
        return {**event, "body": b"".join(pieces)}


def _has_declared_length(scope: Any, body: bytes) -> bool:
    """Return True if these are all the bytes that the header `Content-Length` announces."""
    length = b""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return False
        if name == b"content-length":
            length = value
    return length == b"%d" % len(body)


class _BufferedReceive:
    """The `receive` of the application: the buffered event first, then the events that follow it."""

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
    """Raises the error of a request that an outer layer has refused, before every middleware but `RequestLog`."""

    async def process_request(self, req: Request, resp: Response) -> None:
        if REFUSED in req.scope:
            # Removed from the scope and kept in no variable; see `RequestBody`.
            raise cast(GuerdonError, req.scope.pop(REFUSED))
