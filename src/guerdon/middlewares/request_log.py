"""The request id of every response, and one log line and one measurement of every request."""

import asyncio
import re

from falcon.constants import COMBINED_METHODS
from structlog.typing import FilteringBoundLogger

from guerdon.clock import Clock
from guerdon.http.operation import Deadlines, Request, Response
from guerdon.ids import IdSource
from guerdon.middlewares.request_body import ARRIVED
from guerdon.permissions import ANONYMOUS
from guerdon.system.metrics import Metrics

_GRACE_SECONDS = 0.5
"""Added to the deadline of a command for the whole request, so that the ledger's more specific error comes first."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}\Z")


class RequestLog:
    """Sets the request id before other middlewares run, and measures and logs after them.

    Log lines contain the route template and the id of the actor, and neither the path nor the body.
    """

    def __init__(
        self, clock: Clock, ids: IdSource, metrics: Metrics, log: FilteringBoundLogger, *, access_log: bool, deadline_ms: int
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._log = log
        self._access_log = access_log
        self._seconds = deadline_ms / 1000 + _GRACE_SECONDS
        self._deadlines = Deadlines()

    async def process_request(self, req: Request, resp: Response) -> None:
        context = req.context
        arrived: float | None = req.scope.get(ARRIVED)
        context.started = self._clock.monotonic() if arrived is None else arrived
        context.ends_at = asyncio.get_running_loop().time() + self._seconds
        context.deadlines = self._deadlines
        context.actor = ANONYMOUS
        context.refusal = None
        supplied = req.get_header("X-Request-Id")
        context.request_id = supplied if supplied is not None and _REQUEST_ID.match(supplied) else self._ids.new("req")
        resp.set_header("X-Request-Id", context.request_id)

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        context = req.context
        seconds = self._clock.monotonic() - context.started
        route = req.uri_template or "unmatched"
        method = req.method if req.uri_template and req.method in COMBINED_METHODS else "ANY"
        self._metrics.observe(method, route, resp.status_code, seconds)
        if self._access_log:
            self._log.info(
                "request",
                request_id=context.request_id,
                method=method,
                route=route,
                status=resp.status_code,
                ms=round(seconds * 1000, 2),
                actor=context.actor.id,
            )
