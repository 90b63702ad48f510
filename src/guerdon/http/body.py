"""Reading of request bodies."""

import asyncio
import json
import re
from array import array
from functools import cache
from itertools import accumulate
from typing import Any, NoReturn, TypeVar

import msgspec
from falcon.asgi import Request
from msgspec import Struct

from guerdon.errors import BadRequest, BodyTooLarge, MalformedJson, RequestTimeout, UnsupportedMediaType
from guerdon.http.validation import raise_body_validation

T = TypeVar("T")

JSON_TYPE = "application/json"
BODY_BYTES_MAX = 256 * 1024
BULK_BODY_BYTES_MAX = 2 * 1024 * 1024
DEPTH_MAX = 32
BODY_ENDS_AT, BROKEN_OFF = "guerdon.body_ends_at", "guerdon.broken_off"
"""Keys of the scope of a request whose body is still arriving: its deadline in the time of the loop, and a mark that it is incomplete."""
OBJECT_KEYS_MAX = 200


async def read(request: Request, kind: type[T], *, bytes_max: int = BODY_BYTES_MAX) -> tuple[T, bytes]:
    """Return the decoded body and its raw bytes, which the idempotency fingerprint covers.

    Raises:
        UnsupportedMediaType, BodyTooLarge, MalformedJson, Validation: the body is refused by one of the four checks.
    """
    raw = await read_bytes(request, bytes_max)
    return decode(raw, kind), raw


async def read_optional(request: Request, kind: type[T]) -> tuple[T, bytes]:
    """Return the decoded body like `read`. All its fields have defaults, and a missing body is read as `{}`.

    Raises:
        UnsupportedMediaType, BodyTooLarge, MalformedJson, Validation: the body is refused by one of the four checks.
    """
    if _has_no_body(request):
        return decode(b"{}", kind), b""
    return await read(request, kind)


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request that takes none."""


async def read_no_body(request: Request) -> None:
    """Require that the body is missing, empty, or `{}`.

    Raises:
        UnsupportedMediaType, BodyTooLarge, MalformedJson, Validation: the request has another body.
    """
    if _has_no_body(request):
        return
    raw = await _read_raw(request, BODY_BYTES_MAX)
    if raw:
        _require_media_type(request, JSON_TYPE)
        decode(raw, NoBody)


def _has_no_body(request: Request) -> bool:
    return not request.content_length and request.get_header("Transfer-Encoding") is None


def decode(raw: bytes, kind: type[T]) -> T:
    """Return a JSON document as a struct.

    Raises:
        MalformedJson: it is not JSON, or two parsers could read it differently.
        Validation: it does not match `kind`.
    """
    _check_document(raw)
    try:
        return _decoder(kind).decode(raw)
    except msgspec.ValidationError:
        raise_body_validation(kind, raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson(f"the body is not JSON: {error}") from None


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


async def read_bytes(request: Request, bytes_max: int, media: str = JSON_TYPE) -> bytes:
    """Return the bytes of a body of one media type.

    Raises:
        UnsupportedMediaType: the body has another media type or is compressed.
        BodyTooLarge: it has more than `bytes_max` bytes.
        RequestTimeout: it did not arrive in time.
        BadRequest: its length is not declared properly, or it is incomplete.
    """
    _require_media_type(request, media)
    return await _read_raw(request, bytes_max)


def _require_media_type(request: Request, media: str) -> None:
    content_type = (request.content_type or "").partition(";")[0].strip().lower()
    if content_type != media:
        raise UnsupportedMediaType(f"send Content-Type: {media}, not {content_type[:80] or 'none'}")


async def _read_raw(request: Request, bytes_max: int) -> bytes:
    if request.get_header("Content-Encoding", default="identity") != "identity":
        raise UnsupportedMediaType("send the body without Content-Encoding")
    if (request.content_length or 0) > bytes_max:
        raise BodyTooLarge(f"the body is larger than {bytes_max} bytes", limit_bytes=bytes_max)
    if request.get_header("Transfer-Encoding", default="chunked").lower() != "chunked":
        raise BadRequest("send the body with Content-Length or with Transfer-Encoding: chunked")
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
        # Falcon reads the end of the connection as the end of the body.
        raise BadRequest("the body is incomplete; nothing was done")
    return raw


# A text without an end matches to the end of the body. Possessive quantifiers (`*+`) never backtrack, so the cost is linear.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Each bracket as a signed byte: +1 for an opening one, -1 for a closing one."""


def _check_document(raw: bytes) -> None:
    """Refuse a document that two parsers could read differently or that is nested too deeply."""
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX:
        _check_depth(raw)
    try:
        _STRICT.decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise MalformedJson("the body is not UTF-8") from None
    except RecursionError:
        raise MalformedJson(f"the body is nested deeper than {DEPTH_MAX} levels") from None
    except ValueError as error:
        # The message of json names a position and those of this module name a key. Neither repeats other parts of the body.
        raise MalformedJson(f"the body is not acceptable JSON: {str(error)[:200]}") from None


def _check_depth(raw: bytes) -> None:
    """Count the levels of brackets. The parser checks that brackets match."""
    brackets = _STRINGS.sub(b"", raw).translate(None, _NOT_BRACKETS)
    if max(accumulate(array("b", brackets.translate(_STEPS))), default=0) > DEPTH_MAX:
        raise MalformedJson(f"the body is nested deeper than {DEPTH_MAX} levels")


def _unique_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > OBJECT_KEYS_MAX:
        raise ValueError(f"an object has more than {OBJECT_KEYS_MAX} keys")
    if len({key for key, _ in pairs}) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:60]!r} is repeated")
            seen.add(key)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=len, parse_float=len)
"""Checks only. It does not convert numbers: the typed decoder does, and `int` would raise an error of its own at 4,301 digits."""
