"""Declarations of operations, their answers and their deadlines.

A body passes four checks before a handler sees it: media type, size, an unambiguous JSON document (no repeated key, no NaN, at most 32 levels),
and the struct of the route, which bounds every value and forbids unknown fields.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Literal, TypeVar, cast

import msgspec
from falcon.asgi import Request, Response
from msgspec import Struct

from guerdon.errors import GuerdonError, OutcomeUnknown
from guerdon.http.body import JSON_TYPE, read_no_body
from guerdon.http.dry_run import DryRunQuery, dry_run_answer, dry_run_of
from guerdon.http.paths import SLASH, parameter_of
from guerdon.http.query import NoQuery, read_query
from guerdon.permissions import Actor, Policy

T = TypeVar("T")
CHECK_SECONDS = 0.1
"""Interval at which deadlines are checked: the maximum delay after one."""
_encode = msgspec.json.Encoder().encode
SAFE_METHODS = frozenset({"GET", "HEAD"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""


Quotas = Literal["usual", "entry", "none"]
Handler = TypeVar("Handler", bound=Callable[..., Any])


class AnsweredError(Struct, frozen=True):
    """Facts about an error that are kept after it has been answered."""

    code: str
    status: int
    incident: tuple[str, str] | None
    """Name and subject of the event in the security log, if the error sets them."""
    quota: object
    """Names of the quotas that are used up."""


class Operation(Struct, frozen=True):
    """Declaration of a handler. Middlewares and the OpenAPI document read it."""

    operation_id: str
    """Stable name of the operation in the OpenAPI document and the audit log."""
    policy: Policy
    """Callers who may call it."""
    tag: str
    """Section of the documentation."""
    answers: dict[int, type[Struct] | None]
    """Struct of each successful answer by its status. None: no JSON body."""
    body: type[Struct] | None = None
    """Struct of the JSON body, if it takes one."""
    query: type[Struct] | None = None
    """Struct of the query parameters, if it takes any."""
    errors: tuple[type[GuerdonError], ...] = ()
    """Errors of this operation, besides those that every operation of its kind can answer."""
    idempotent: bool = False
    """True if it needs an `Idempotency-Key`."""
    example: dict[str, Any] | str | None = None
    """Example of the body."""
    body_optional: bool = False
    """True if the body may be left out: all its fields have defaults."""
    quota: Quotas = "usual"
    """`entry`: an operation on which secrets could be guessed. `none`: an operation for health checks."""
    media: dict[str, Any] = {}
    """Media types of a successful answer other than the struct, each with an example."""
    audited: bool = False
    """True if it is written into the audit log although it changes nothing."""
    guesses: bool = False
    """True if its path holds a code that could be guessed. Look-ups that find nothing are counted, and refused when there are too many. The code
    is not written into the audit log or other logs."""
    takes: str | None = None
    """Media type of a body other than JSON."""
    refuses_body: bool = False
    """True if it changes something and takes no body. A body other than `{}` is refused, because the caller expects it to matter."""
    dry_run: type[Struct] | None = None
    """Struct of the answer to a dry run, if it moves value."""
    reads_copies: bool = False
    """True if it may answer from a copy. It then takes `If-Seq-At-Least`."""


def operation(
    operation_id: str,
    policy: Policy,
    *,
    tag: str,
    answers: dict[int, type[Struct] | None],
    body: type[Struct] | None = None,
    query: type[Struct] | None = None,
    errors: tuple[type[GuerdonError], ...] = (),
    idempotent: bool = False,
    example: dict[str, Any] | str | None = None,
    body_optional: bool = False,
    quota: Quotas = "usual",
    media: dict[str, Any] | None = None,
    audited: bool = False,
    guesses: bool = False,
    takes: str | None = None,
    dry_run: tuple[str, ...] | None = None,
    reads_copies: bool = False,
) -> Callable[[Handler], Handler]:
    """Return a decorator that attaches a declaration to a handler. The app refuses to start if a handler has none.

    `dry_run` is given for an operation that moves value: fields that its answer has only if something was written, such as `id`.
    """
    # A link to a public page may carry parameters that the linking site has added.
    takes_no_query = query is None and (body is not None or not policy.public)
    dry_answer = None if dry_run is None else dry_run_of(cast(type[Struct], answers[max(answers)]), dry_run)

    def attach(handler: Handler) -> Handler:
        refuses_body = body is None and takes is None and not handler.__name__.startswith(("on_get", "on_head"))
        declared = Operation(
            operation_id,
            policy,
            tag,
            answers,
            body,
            query,
            errors,
            idempotent,
            example,
            body_optional,
            quota,
            media or {},
            audited,
            guesses,
            takes,
            refuses_body,
            dry_answer,
            reads_copies,
        )

        @wraps(handler)
        async def bounded(resource: object, req: Request, resp: Response, **params: Any) -> None:
            if takes_no_query and req.query_string:
                if dry_run is None:
                    read_query(req, NoQuery)
                elif read_query(req, DryRunQuery).dry_run == "true":
                    req.context.dry_run = True
                    resp.context.left_out = dry_run
            if refuses_body:
                await in_time(req, read_no_body(req))
            for name, value in params.items():
                if SLASH in value:
                    params[name] = parameter_of(value)
            await in_time(req, handler(resource, req, resp, **params))

        cast(Any, bounded).operation = declared
        return cast(Handler, bounded)

    return attach


def actor_of(request: Request) -> Actor:
    """Return the authenticated caller."""
    return cast(Actor, request.context.actor)


def is_dry_run(request: Request) -> bool:
    """Return True if the caller wants the decision and no write."""
    return getattr(request.context, "dry_run", False)


def address_of(request: Request) -> str:
    """Return the client's address, as middlewares/rate_limits.py has determined it."""
    return cast(str, request.context.address)


def note(request: Request, **facts: str) -> None:
    """Add facts to the audit log, besides the operation and the ids in the path. They must not be personal data."""
    request.context.facts = facts


# --- answers --------------------------------------------------------------------------------------------------------


def send(response: Response, answer: Struct, status: int = 200, *, replayed: bool = False) -> None:
    """Write a JSON answer. It is a struct, so that it has declared fields only. `replayed` marks the answer of an earlier run of the request.

    The answer of a dry run has the status 200 and lacks the fields that only written things have.
    """
    left_out: tuple[str, ...] | None = getattr(response.context, "left_out", None)
    response.status = status if left_out is None else 200
    response.content_type = JSON_TYPE
    response.data = _encode(answer if left_out is None else dry_run_answer(answer, left_out))
    if replayed:
        response.set_header("Idempotency-Replayed", "true")


def problem_of(error: GuerdonError) -> dict[str, Any]:
    """Return the members of the problem document of an error (RFC 9457)."""
    return {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.members,
    }


def problem_document(error: GuerdonError, request_id: str) -> bytes:
    """Return the problem document of an error as JSON."""
    return _encode({**problem_of(error), "request_id": request_id})


# --- deadlines ------------------------------------------------------------------------------------------------------


class Deadlines:
    """Cancels requests at their deadlines. One timer serves all of them: a timer for each would cost 25 us a request."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[Any], float] = {}
        """Deadline of each task in the time of the loop."""
        self._timer: asyncio.TimerHandle | None = None

    async def hold(self, ends_at: float, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` until `ends_at`, or at most `CHECK_SECONDS` longer.

        Raises:
            TimeoutError: the deadline has passed.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        if task in self._ends:
            return await work  # The task has a deadline already.
        self._ends[task] = ends_at
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._check)
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._ends or task.uncancel() > 0:
                raise  # Another caller has cancelled the task.
            raise TimeoutError from None
        finally:
            self._ends.pop(task, None)

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task in [task for task, ends_at in self._ends.items() if ends_at <= now]:
            del self._ends[task]
            task.cancel()
        self._timer = loop.call_later(CHECK_SECONDS, self._check) if self._ends else None


async def in_time(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` until the deadline of the request.

    Commands of the ledger have a deadline of their own. Reads before them (the caller, the member) do not: the driver notices a silent
    connection after 7 s and then looks for a primary for up to 5 s.

    Raises:
        OutcomeUnknown: the deadline has passed.
    """
    deadlines: Deadlines = request.context.deadlines
    try:
        return await deadlines.hold(request.context.ends_at, work)
    except TimeoutError:
        if asyncio.get_running_loop().time() < request.context.ends_at:
            raise
        raise OutcomeUnknown(
            "the deadline passed before the database answered; repeat with the same key", retry_after_seconds=1
        ) from None
