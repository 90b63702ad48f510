"""What every controller shares: how a route is declared, how a body is read, how an answer is written.

A body passes four gates before a handler sees it: media type, size, an unambiguous JSON document (no repeated key, no NaN, at most 32 levels),
and the typed struct of the route, which bounds every value and forbids unknown fields.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from falcon.asgi import Request, Response
from msgspec import Struct

from guerdon.errors import (
    GuerdonError,
)
from guerdon.http.deadline import in_time
from guerdon.http.query import NoQuery, read_query
from guerdon.permissions import Actor, Policy

SAFE_METHODS = frozenset({"GET", "HEAD"})
"""What changes nothing (RFC 9110, 9.2.1)."""


Quotas = Literal["usual", "entry", "none"]
Handler = TypeVar("Handler", bound=Callable[..., Any])


class AnsweredError(Struct, frozen=True):
    """What is known about an error after it has been answered."""

    code: str
    status: int
    incident: tuple[str, str] | None
    quota: object
    """The names of the quotas that are spent."""


class Operation(Struct, frozen=True):
    """What a handler declares about itself: its name, who may call it, what goes in and out. Documentation and guards read it."""

    operation_id: str
    policy: Policy
    tag: str
    answers: dict[int, type[Struct] | None]
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    errors: tuple[type[GuerdonError], ...] = ()
    idempotent: bool = False
    example: dict[str, Any] | str | None = None
    body_optional: bool = False
    """Every field of the body has a default, so that it may be left out."""
    quota: Quotas = "usual"
    """`entry`: where secrets could be guessed. `none`: what a machine asks that looks after this one."""
    media: tuple[str, ...] = ()
    """Media types of a good answer besides JSON."""
    audited: bool = False
    """Written into the audit log although it changes nothing."""
    guesses: bool = False
    """Takes a code that could be guessed: whatever is not found there is counted, and too much of it is refused unseen. What stands in its path
    is not written into the audit log or the other logs."""
    takes: str | None = None
    """The media type of a body that is no JSON."""


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
    media: tuple[str, ...] = (),
    audited: bool = False,
    guesses: bool = False,
    takes: str | None = None,
) -> Callable[[Handler], Handler]:
    """Declare a handler. A responder without a declaration stops the start-up."""

    # Links to pages may carry what the linking site has added; a call of the API says what it means.
    takes_no_query = query is None and (body is not None or not policy.public)

    def attach(handler: Handler) -> Handler:
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
            media,
            audited,
            guesses,
            takes,
        )

        @wraps(handler)
        async def bounded(resource: object, req: Request, resp: Response, **params: Any) -> None:
            if takes_no_query and req.query_string:
                read_query(req, NoQuery)
            await in_time(req, handler(resource, req, resp, **params))

        cast(Any, bounded).operation = declared
        return cast(Handler, bounded)

    return attach


# --- reading --------------------------------------------------------------------------------------------------------


def actor_of(request: Request) -> Actor:
    return cast(Actor, request.context.actor)


def address_of(request: Request) -> str:
    """The address that the request came from; see middlewares/rate_limits.py for whom to believe."""
    return cast(str, request.context.address)


def note(request: Request, **facts: str) -> None:
    """Say what the audit log should know besides the operation and the ids in the path. No personal data."""
    request.context.facts = facts


# --- writing --------------------------------------------------------------------------------------------------------
