"""Query parameters and the Idempotency-Key header."""

import re
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from falcon import Request as SyncRequest
from falcon.asgi import Request
from msgspec import Struct
from msgspec.inspect import IntType, StructType, type_info

from guerdon.errors import IdempotencyKeyMissing
from guerdon.http.validation import raise_query_validation

T = TypeVar("T")


def read_query(request: SyncRequest, kind: type[T]) -> T:
    """Return the query string as a struct.

    Raises:
        Validation: a parameter is unknown, repeated or not acceptable.
    """
    given: dict[str, Any] = dict(request.params)
    for name in _numbers_of(kind) & given.keys():
        if isinstance(given[name], str) and _NUMBER.match(given[name]):
            given[name] = int(given[name])
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError:
        raise_query_validation(kind, given)


@cache
def _numbers_of(kind: type[Struct]) -> frozenset[str]:
    """Return the names of the integer parameters. The lax mode of msgspec would also accept `1e1`, and `null` as a missing parameter."""
    return frozenset(field.encode_name for field in cast(StructType, type_info(kind)).fields if isinstance(field.type, IntType))


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


def idempotency_key(request: Request) -> str:
    """Return the idempotency key without its optional quotes (draft-ietf-httpapi-idempotency-key-header).

    Raises:
        IdempotencyKeyMissing: the request has no key or several, or the key is not 1 to 255 visible ASCII characters.
    """
    # `get_header` joins repeated headers into one value.
    values = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if len(values) != 1:
        raise IdempotencyKeyMissing("send one Idempotency-Key header: this request moves value")
    key = values[0].decode("latin-1")
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.match(key):
        raise IdempotencyKeyMissing("the Idempotency-Key must be one value of 1 to 255 visible ASCII characters")
    return key


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""
