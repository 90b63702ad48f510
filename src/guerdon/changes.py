"""Values before and after a change, as facts of an audit record. Pure."""

import hashlib
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

T = TypeVar("T")
FREE_TEXTS = frozenset(
    {"name", "description", "audience", "condition", "eligibility", "expression", "images", "code_pattern", "title", "text"}
)
"""Fields in which people write freely. They could name a person, and a record can never be changed, so it has their digest."""
_encode = msgspec.json.Encoder(order="sorted").encode


class BeforeAfter(NamedTuple, Generic[T]):
    """Something before and after a change. Both are equal if nothing had to change."""

    before: T
    after: T


def changed_fields(
    before: Struct | None, after: Struct, *, left_out: Iterable[str] = (), **also: tuple[Any, Any]
) -> dict[str, str]:
    """Return the fields whose values differ, as the JSON objects `before` and `after`, to be noted in the audit log.

    `left_out` names fields that are not content. `also` has further values by name, each before and after.
    """
    old = {**({} if before is None else _fields_of(before)), **{name: values[0] for name, values in also.items()}}
    new = {**_fields_of(after), **{name: values[1] for name, values in also.items()}}
    skipped = frozenset(left_out)
    names = [name for name in sorted(new) if name not in skipped and (name not in old or old[name] != new[name])]
    return {
        "before": _text({name: old[name] for name in names if name in old}),
        "after": _text({name: new[name] for name in names}),
    }


def _fields_of(value: Struct) -> dict[str, Any]:
    return msgspec.to_builtins(value)


def _text(fields: dict[str, Any]) -> str:
    return _encode(_without_free_texts(fields)).decode()


def _without_free_texts(value: Any, name: str = "") -> Any:
    """Return the value with the digest in place of each free text."""
    if isinstance(value, dict):
        return {key: _without_free_texts(each, key) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [_without_free_texts(each, name) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, str) and name in FREE_TEXTS:
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    return value
