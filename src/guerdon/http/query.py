"""Query parameters and the Idempotency-Key header."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from falcon import Request as SyncRequest
from msgspec import Struct
from msgspec.inspect import IntType, Metadata, StructType, Type, UnionType, type_info

from guerdon.http.validation import raise_query_validation
from guerdon.types import nfc

T = TypeVar("T")


def read_query(request: SyncRequest, kind: type[T]) -> T:
    """Return the query string as a struct.

    Raises:
        Validation: a parameter is unknown, repeated or not acceptable.
    """
    return query_of(request.params, kind)


def query_of(parameters: Mapping[str, Any], kind: type[T]) -> T:
    """Return texts by name, such as those of a query string, as a struct.

    Raises:
        Validation: a parameter is unknown, repeated or not acceptable.
    """
    given: dict[str, Any] = {name: nfc(value) if isinstance(value, str) else value for name, value in parameters.items()}
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
    return frozenset(field.encode_name for field in cast(StructType, type_info(kind)).fields if _is_number(field.type))


def _is_number(kind: Type) -> bool:
    """Return True for an integer, also if it may be left out."""
    if isinstance(kind, Metadata):
        return _is_number(kind.type)
    return any(map(_is_number, kind.types)) if isinstance(kind, UnionType) else isinstance(kind, IntType)


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""
