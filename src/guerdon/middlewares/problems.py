"""Error handlers: every error of the service, the framework or a fault becomes one problem document (RFC 9457)."""

from collections.abc import Iterable
from typing import Any

from falcon import HTTPError, HTTPMethodNotAllowed, HTTPNotFound
from falcon.asgi import App
from falcon.constants import COMBINED_METHODS
from pymongo.errors import PyMongoError
from structlog.typing import FilteringBoundLogger

from guerdon.errors import (
    BadRequest,
    BodyTooLarge,
    DatabaseUnavailable,
    GuerdonError,
    Internal,
    MethodNotAllowed,
    NotFound,
    OperationsError,
    Unauthenticated,
    UnsupportedMediaType,
)
from guerdon.http.operation import AnsweredError, Request, Response, problem_document
from guerdon.middlewares.request_line import NO_ROUTE

PROBLEM_TYPE = "application/problem+json"
_BY_STATUS: dict[int, type[GuerdonError]] = {413: BodyTooLarge, 415: UnsupportedMediaType}


class Problems:
    """The error handlers of the application."""

    def __init__(self, log: FilteringBoundLogger, routes: Iterable[tuple[str, str]]) -> None:
        """`routes` are the (path, method) pairs of all routes."""
        self._log = log
        self._methods: dict[str, list[str]] = {}
        for path, method in routes:
            self._methods.setdefault(path, ["OPTIONS"]).append(method)

    def install(self, app: App[Any, Any]) -> None:
        app.add_error_handler(Exception, self.on_fault)
        app.add_error_handler(PyMongoError, self.on_database_error)
        app.add_error_handler(HTTPError, self.on_framework_error)
        app.add_error_handler(GuerdonError, self.on_error)

    async def on_error(self, req: Request, resp: Response, error: GuerdonError, _params: dict[str, Any]) -> None:
        if isinstance(error, OperationsError):
            cause = error.__cause__
            self._log.error(
                "operations_error",
                request_id=req.context.request_id,
                code=error.code,
                cause=type(cause).__name__ if cause else None,
                exc_info=cause if isinstance(error, Internal) else None,
            )
        self._send(req, resp, error)

    async def on_framework_error(self, req: Request, resp: Response, error: HTTPError, _params: dict[str, Any]) -> None:
        if isinstance(error, HTTPNotFound):
            problem: GuerdonError = NotFound(NO_ROUTE)
        elif isinstance(error, HTTPMethodNotAllowed) or req.method not in COMBINED_METHODS:
            problem = MethodNotAllowed(f"this route does not support the method {req.method[:20]}; see the Allow header")
            resp.set_header("Allow", ", ".join(self._methods.get(req.uri_template or "", [])))
        else:
            kind = _BY_STATUS.get(error.status_code, BadRequest)
            problem = kind(error.description or error.title or "the request is not valid")
            resp.set_headers(error.headers or {})
        self._send(req, resp, problem)

    async def on_database_error(self, req: Request, resp: Response, error: PyMongoError, params: dict[str, Any]) -> None:
        unavailable = DatabaseUnavailable("the database does not respond; try again", retry_after_seconds=1)
        unavailable.__cause__ = error
        await self.on_error(req, resp, unavailable, params)

    async def on_fault(self, req: Request, resp: Response, error: Exception, _params: dict[str, Any]) -> None:
        self._log.error("unhandled", request_id=req.context.request_id, route=req.uri_template, exc_info=error)
        self._send(req, resp, Internal("an unexpected error; the log contains it under this request id"))

    def _send(self, req: Request, resp: Response, error: GuerdonError) -> None:
        # Not the error itself: its traceback refers to the request, and the cycle would keep the connection open until a garbage collection.
        req.context.refusal = AnsweredError(error.code, error.status, error.incident, error.members.get("violated-policies"))
        resp.status = error.status
        resp.content_type = PROBLEM_TYPE
        resp.data = problem_document(error, req.context.request_id)
        resp.text = None
        resp.set_headers(error.headers)
        if error.retry_after_seconds is not None:
            resp.set_header("Retry-After", str(error.retry_after_seconds))
        if error.replayed:
            resp.set_header("Idempotency-Replayed", "true")
        if isinstance(error, Unauthenticated):
            resp.set_header("WWW-Authenticate", 'Bearer realm="guerdon"')
