"""What every controller shares: how a route is declared, how a body is read, how an answer is written.

A body passes four gates before a handler sees it: media type, size, an unambiguous JSON document (no repeated key, no NaN, at most 32 levels),
and the typed struct of the route, which bounds every value and forbids unknown fields.
"""

import asyncio
import base64
import binascii
import json
import re
from array import array
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import cache, wraps
from itertools import accumulate
from typing import Annotated, Any, Literal, NoReturn, TypeVar, cast

import msgspec
from falcon import Request as SyncRequest
from falcon.asgi import Request, Response
from msgspec import Meta, Struct
from msgspec.inspect import IntType, StructType, type_info

from guerdon.clock import to_ms
from guerdon.errors import (
    BadRequest,
    BodyTooLarge,
    GuerdonError,
    IdempotencyKeyMissing,
    MalformedJson,
    OutcomeUnknown,
    RequestTimeout,
    UnsupportedMediaType,
    Validation,
)
from guerdon.security import Actor, Policy

BODY_BYTES_MAX = 256 * 1024
BULK_BODY_BYTES_MAX = 2 * 1024 * 1024
DEPTH_MAX = 32
BODY_ENDS_AT, BROKEN_OFF = "guerdon.body_ends_at", "guerdon.broken_off"
"""In the scope of a request whose body is still arriving: until when it may (the loop's time), and that it never will."""
DEADLINE_LOOK_SECONDS = 0.1
"""How late a request's deadline may be noticed."""
PAGE_MAX = 100
OBJECT_KEYS_MAX = 200
JSON_TYPE = "application/json"
SAFE_METHODS = frozenset({"GET", "HEAD"})
"""What changes nothing (RFC 9110, 9.2.1)."""
# `$(?!\n)`: Python's `$` would let a last line feed through, and `\Z` is not known to JSON Schema.
# No control characters and no bidirectional overrides: they make two different texts look alike in a console or a log.
_CLEAN = r"^[^\u0000-\u001f\u007f\u202a-\u202e\u2066-\u2069\ud800-\udfff]*$(?!\n)"

Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=_CLEAN)]
LongText = Annotated[str, Meta(min_length=1, max_length=2000, pattern=_CLEAN)]
ExternalId = Annotated[str, Meta(min_length=1, max_length=128, pattern=_CLEAN, examples=["17850"])]
_FOR_EVER = "Kept on the ledger for ever, whatever is erased: nothing personal."
Reason = Annotated[str, Meta(min_length=1, max_length=200, pattern=_CLEAN, description=_FOR_EVER)]
Reference = Annotated[str, Meta(min_length=1, max_length=128, pattern=_CLEAN, examples=["order-1001"], description=_FOR_EVER)]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")],
        Annotated[str, Meta(max_length=200, pattern=_CLEAN)],
    ],
    Meta(max_length=20, description=_FOR_EVER),
]

Quotas = Literal["usual", "entry", "none"]
T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Refusal(Struct, frozen=True):
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
                read_query(req, _NoQuery)
            await in_time(req, handler(resource, req, resp, **params))

        cast(Any, bounded).operation = declared
        return cast(Handler, bounded)

    return attach


class Deadlines:
    """Ends what requests wait for at their own ends. One timer looks after all of them, since one each would cost a request 25 us."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[Any], float] = {}
        """Until when each task may wait, in the loop's time."""
        self._timer: asyncio.TimerHandle | None = None

    async def hold(self, ends_at: float, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` until `ends_at`, or up to `DEADLINE_LOOK_SECONDS` longer.

        Raises:
            TimeoutError: the time is over.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        if task in self._ends:
            return await work  # It is held already.
        self._ends[task] = ends_at
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DEADLINE_LOOK_SECONDS, self._look)
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._ends or task.uncancel() > 0:
                raise  # It was not us.
            raise TimeoutError from None
        finally:
            self._ends.pop(task, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task in [task for task, ends_at in self._ends.items() if ends_at <= now]:
            del self._ends[task]
            task.cancel()
        self._timer = loop.call_later(DEADLINE_LOOK_SECONDS, self._look) if self._ends else None


async def in_time(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Hold whatever a request waits for to the request's own end.

    The ledger holds its commands to their deadline. What a request reads before it gets there (who calls, whether a member exists) has no
    deadline of its own: a connection on which nothing comes back is noticed after 7 s, and a primary is then looked for during 5 s more.

    Raises:
        OutcomeUnknown: the time is over.
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


# --- reading --------------------------------------------------------------------------------------------------------


def actor_of(request: Request) -> Actor:
    return cast(Actor, request.context.actor)


def address_of(request: Request) -> str:
    """The address that the request came from; see middlewares/throttling.py for whom to believe."""
    return cast(str, request.context.address)


def note(request: Request, **facts: str) -> None:
    """Say what the audit log should know besides the operation and the ids in the path. No personal data."""
    request.context.facts = facts


async def read(request: Request, kind: type[T], *, bytes_max: int = BODY_BYTES_MAX) -> tuple[T, bytes]:
    """Read and decode the body; also return its raw bytes, which the idempotency fingerprint covers.

    Raises:
        UnsupportedMediaType, BodyTooLarge, MalformedJson, Validation: one of the four gates.
    """
    raw = await read_bytes(request, bytes_max)
    return decode(raw, kind), raw


async def read_optional(request: Request, kind: type[T]) -> tuple[T, bytes]:
    """Like `read`, for a body whose every field has a default: no body at all says the same as `{}`.

    Raises:
        UnsupportedMediaType, BodyTooLarge, MalformedJson, Validation: one of the four gates.
    """
    if not request.content_length and request.get_header("Transfer-Encoding") is None:
        return decode(b"{}", kind), b""
    return await read(request, kind)


def decode(raw: bytes, kind: type[T]) -> T:
    """Decode one JSON document.

    Raises:
        MalformedJson: it is not JSON that can be read in one way only.
        Validation: it does not fit `kind`.
    """
    _check_document(raw)
    try:
        return _decoder(kind).decode(raw)
    except msgspec.ValidationError as error:
        _raise_validation(error, body=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson(f"the body is not JSON: {error}") from None


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


async def read_bytes(request: Request, bytes_max: int, media: str = JSON_TYPE) -> bytes:
    """Read a body of this media type: the first two gates.

    Raises:
        UnsupportedMediaType, BodyTooLarge: see above.
    """
    content_type = (request.content_type or "").partition(";")[0].strip().lower()
    if content_type != media:
        raise UnsupportedMediaType(f"send Content-Type: {media}, not {content_type[:80] or 'nothing'}")
    if request.get_header("Content-Encoding", default="identity") != "identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")
    if (request.content_length or 0) > bytes_max:
        raise BodyTooLarge(f"the body is larger than {bytes_max} bytes", limit_bytes=bytes_max)
    if request.get_header("Transfer-Encoding", default="chunked").lower() != "chunked":
        raise BadRequest("send the body with Content-Length or Transfer-Encoding: chunked, and nothing else")
    ends_at: float | None = request.scope.get(BODY_ENDS_AT)
    try:
        raw = await request.stream.read(bytes_max + 1) if ends_at is None else await _read_rest(request, bytes_max, ends_at)
    except TimeoutError:
        raise RequestTimeout("the body did not arrive in time; nothing was done") from None
    if len(raw) > bytes_max:
        raise BodyTooLarge(f"the body is larger than {bytes_max} bytes", limit_bytes=bytes_max)
    return raw


async def _read_rest(request: Request, bytes_max: int, ends_at: float) -> bytes:
    async with asyncio.timeout_at(ends_at):
        raw = await request.stream.read(bytes_max + 1)
    if BROKEN_OFF in request.scope:
        # Falcon takes the end of the connection for the end of the body.
        raise BadRequest("the body breaks off; nothing was done")
    return raw


# A text that never ends matches to the end of the body, and nothing is tried twice (`*+`): the cost grows with the length and no faster.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Each bracket as a signed byte: one level down, or one up."""


def _check_document(raw: bytes) -> None:
    """Refuse what two parsers could read differently, and what is too deep to be meant well."""
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX:
        _check_depth(raw)
    try:
        _STRICT.decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise MalformedJson("the body is not UTF-8") from None
    except RecursionError:
        raise MalformedJson(f"the body is nested deeper than {DEPTH_MAX} levels") from None
    except ValueError as error:
        # json's own message names the position; ours name the key. Neither repeats the body.
        raise MalformedJson(f"the body is not acceptable JSON: {str(error)[:200]}") from None


def _check_depth(raw: bytes) -> None:
    """Count the levels. Whether what is opened is closed by its own kind is left to the parser."""
    brackets = _STRINGS.sub(b"", raw).translate(None, _NOT_BRACKETS)
    if max(accumulate(array("b", brackets.translate(_STEPS))), default=0) > DEPTH_MAX:
        raise MalformedJson(f"the body is nested deeper than {DEPTH_MAX} levels")


def _unique_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > OBJECT_KEYS_MAX:
        raise ValueError(f"an object has more than {OBJECT_KEYS_MAX} keys")
    if len({key for key, _ in pairs}) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated[:60]!r} is repeated")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=len, parse_float=len)
"""Only checks: numbers are not converted, since the typed decoder does that (and `int` refuses 4,301 digits by an error of its own)."""

_AT, _KEY_IN = " - at `", "key` in `"
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$", re.DOTALL)
_INDEX = re.compile(r"\[(\d+)\]")


def _raise_validation(error: msgspec.ValidationError, *, body: bool) -> NoReturn:
    """Turn msgspec's sentence ("… - at `$.commands[1].amount`") into a JSON Pointer and a detail."""
    what, at, place = str(error).rpartition(_AT)
    if not at:
        what, place = place, "$`"
    path = place.removesuffix("`").removeprefix(_KEY_IN).removeprefix("$")
    path = _INDEX.sub(r"/\1", path.replace("[...]", "")).replace(".", "/")
    unknown = _UNKNOWN.match(what)
    if unknown:
        path, what = f"{path}/{unknown[1]}", "unknown field"
    elif repr(_CLEAN) in what:
        what = "Expected text without control or direction-override characters"
    elif place.startswith(_KEY_IN):
        what = f"A key is not acceptable: {what}"
    raise Validation.at(path if body else path.removeprefix("/"), what.replace("`", ""))


def read_query(request: SyncRequest, kind: type[T]) -> T:
    """Decode the query string; an unknown or repeated parameter is an error, not a wish that is ignored.

    Raises:
        Validation: a parameter is unknown, repeated or not acceptable.
    """
    given: dict[str, Any] = dict(request.params)
    for name in _numbers_of(kind) & given.keys():
        if isinstance(given[name], str) and _NUMBER.match(given[name]):
            given[name] = int(given[name])
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        _raise_validation(error, body=False)


@cache
def _numbers_of(kind: type[Struct]) -> frozenset[str]:
    """The parameters that are whole numbers. msgspec's own lax reading would also take `1e1` for one, and `null` for a parameter left out."""
    return frozenset(field.encode_name for field in cast(StructType, type_info(kind)).fields if isinstance(field.type, IntType))


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


def idempotency_key(request: Request) -> str:
    """Return the request's key without the optional quotes of the structured-field form (draft-ietf-httpapi-idempotency-key-header).

    Raises:
        IdempotencyKeyMissing: there is none, more than one, or it is not 1 to 255 visible ASCII characters.
    """
    # Not `get_header`: it joins repeated headers into one value.
    values = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if len(values) != 1:
        raise IdempotencyKeyMissing("send one Idempotency-Key header: this request moves value")
    key = values[0].decode("latin-1")
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.match(key):
        raise IdempotencyKeyMissing("the Idempotency-Key must be one value of 1 to 255 visible ASCII characters")
    return key


class _NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """One page of a list, newest first."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50
    cursor: Annotated[str, Meta(max_length=200)] | None = None


def encode_cursor(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, prefix: str = "") -> str:
    """Return the position that `encode_cursor` was given; in this list it begins with `prefix`.

    Raises:
        Validation: the cursor is not one of ours.
    """
    try:
        position = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        position = None
    if position is None or not position.startswith(prefix):
        raise Validation.at("cursor", "not a cursor that this list has given out")
    return position


def utc_ms(moment: datetime, pointer: str) -> int:
    """Milliseconds of a time that names its offset.

    Raises:
        Validation: the time has no offset.
    """
    if moment.tzinfo is None:
        raise Validation.at(pointer, "a time needs an offset, for example 2026-01-31T12:00:00Z")
    try:
        return to_ms(moment.astimezone(UTC))
    except OverflowError:
        raise Validation.at(pointer, "a time must lie between the years 1 and 9999 in UTC") from None


# --- writing --------------------------------------------------------------------------------------------------------

_encode = msgspec.json.Encoder().encode


def send(response: Response, answer: Struct, status: int = 200, *, replayed: bool = False) -> None:
    """Write a JSON answer: a struct, so that nothing leaves that is not declared. `replayed` marks it as the first answer to a key that was used before."""
    response.status = status
    response.content_type = JSON_TYPE
    response.data = _encode(answer)
    if replayed:
        response.set_header("Idempotency-Replayed", "true")


def problem_of(error: GuerdonError) -> dict[str, Any]:
    """Return the members of an error's RFC 9457 document."""
    return {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.members,
    }


def problem_document(error: GuerdonError, request_id: str) -> bytes:
    """Return the RFC 9457 document of an error."""
    return _encode({**problem_of(error), "request_id": request_id})
