"""Checks of decoded JSON against the declared structs, in words for the caller.

msgspec decodes good input and stops at the first fault of other input. Only then is the input walked again here, to list every fault with its
JSON Pointer in plain words. No text repeats a value of the caller, which may be a secret.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Annotated, Any, NoReturn, cast

import msgspec
from msgspec import Meta
from msgspec import inspect as mi

from guerdon.errors import FAULTS_MAX, Validation
from guerdon.types import EXPECTED

NAME_MAX = 128
"""Characters of a caller's key that a pointer repeats."""
_DIGITS_MAX = 30
"""Digits of a number that are read: longer ones are beyond every bound."""
_NOT_ACCEPTABLE = "is not acceptable"
_JSON_TYPES: dict[type[mi.Type], tuple[type[Any], str]] = {
    mi.IntType: (int, "a whole number"),
    mi.StrType: (str, "text"),
    mi.BoolType: (bool, "true or false"),
    mi.NoneType: (type(None), "null"),
    mi.DateTimeType: (str, "a time such as 2026-01-31T12:00:00Z"),
    mi.LiteralType: (str, ""),
    mi.ListType: (list, "a list"),
    mi.DictType: (dict, "an object"),
    mi.StructType: (dict, "an object"),
}
"""JSON type of each kind of declared type, and its name in a sentence."""

Fault = tuple[str, str]
"""JSON Pointer of a value, and a phrase that states what it must be."""


def raise_body_validation(kind: type[Any], raw: bytes) -> NoReturn:
    """Raise the faults of a body that msgspec has refused.

    Raises:
        Validation: always.
    """
    try:
        value = _READER.decode(raw.decode())
    except (ValueError, RecursionError):
        raise Validation.of([("", _NOT_ACCEPTABLE)]) from None
    raise Validation.of(faults_of(kind, value) or [("", _NOT_ACCEPTABLE)])


def raise_query_validation(kind: type[Any], parameters: dict[str, Any]) -> NoReturn:
    """Raise the faults of query parameters that msgspec has refused. Their pointers are the names of the parameters.

    Raises:
        Validation: always.
    """
    faults = [(pointer.removeprefix("/"), words) for pointer, words in faults_of(kind, parameters, query=True)]
    raise Validation.of(faults or [("", _NOT_ACCEPTABLE)])


def faults_of(kind: type[Any], value: Any, *, query: bool = False) -> list[Fault]:
    """Return the first `FAULTS_MAX` faults of a decoded JSON value. There is one exactly if msgspec refuses the value."""
    return list(islice(_Checker(query=query).check(_type_info(kind), value, ""), FAULTS_MAX))


def fits(kind: mi.Type, value: Any) -> bool:
    """True if a decoded JSON value has no fault by this type."""
    return next(_Checker(query=False).check(kind, value, ""), None) is None


@cache
def _type_info(kind: type[Any]) -> mi.Type:
    return mi.type_info(kind)


class _Checker:
    """Walks a value and its declared type together. Its depth is that of the type, and it reads no more items than a list may have."""

    def __init__(self, *, query: bool) -> None:
        self._query = query

    def check(self, kind: mi.Type, value: Any, pointer: str) -> Iterator[Fault]:
        """Yield the faults of one value."""
        alternatives = list(_alternatives(kind))
        fitting = [(each, words) for each, words in alternatives if _is_of(each, value)]
        if not fitting:
            yield pointer, self._wrong_type(alternatives, value)
            return
        chosen, words = fitting[0]
        match chosen:
            case mi.StructType():
                yield from self._check_object([cast(mi.StructType, each) for each, _ in fitting], value, pointer)
            case mi.DictType():
                yield from self._check_mapping(chosen, value, pointer)
            case mi.ListType():
                yield from self._check_list(chosen, value, pointer)
            case _:
                fault = _fault_of_scalar(chosen, value, words)
                if fault is not None:
                    yield pointer, fault

    def _wrong_type(self, alternatives: Sequence[tuple[mi.Type, str | None]], value: Any) -> str:
        if self._query and isinstance(value, list):
            return "must be given once"
        kinds = [kind for kind, _ in alternatives]
        if isinstance(value, float) and any(isinstance(kind, mi.IntType) for kind in kinds):
            # A number with decimals: say in which form the field takes it, if it does.
            texts = [words for kind, words in alternatives if isinstance(kind, mi.StrType) and words is not None]
            if texts:
                return f"must be a whole number, or {texts[0].removeprefix('must be ')}"
        # A parameter is left out or has a value: a caller cannot send null.
        nouns = dict.fromkeys(_noun(kind) for kind in kinds if not (self._query and isinstance(kind, mi.NoneType)))
        return f"must be {_list_words(list(nouns), 'or')}"

    def _check_object(self, kinds: Sequence[mi.StructType], value: dict[str, Any], pointer: str) -> Iterator[Fault]:
        """`kinds` has several structs only where the value of their tag field tells them apart."""
        struct, tag_field = kinds[0], kinds[0].tag_field
        if tag_field is not None and (len(kinds) > 1 or tag_field in value):
            tags = {str(each.tag): each for each in kinds}
            tag = value.get(tag_field)
            if not isinstance(tag, str) or tag not in tags:
                yield _below(pointer, tag_field), _one_of(tags) if tag_field in value else "is required"
                return
            struct = tags[tag]
        known = {tag_field}
        for field in struct.fields:
            known.add(field.encode_name)
            if field.encode_name in value:
                yield from self.check(field.type, value[field.encode_name], _below(pointer, field.encode_name))
            elif field.required:
                yield _below(pointer, field.encode_name), "is required"
        if struct.forbid_unknown_fields:
            thing = "parameter" if self._query else "field"
            yield from ((_below(pointer, name), f"is not a known {thing}") for name in value if name not in known)

    def _check_mapping(self, kind: mi.DictType, value: dict[str, Any], pointer: str) -> Iterator[Fault]:
        yield from _faults_of_size(kind, len(value), pointer, "key")
        for key, each in value.items():
            below = _below(pointer, key)
            for _, words in self.check(kind.key_type, key, below):
                yield below, f"is not a valid key: it {words}"
            yield from self.check(kind.value_type, each, below)

    def _check_list(self, kind: mi.ListType, value: list[Any], pointer: str) -> Iterator[Fault]:
        yield from _faults_of_size(kind, len(value), pointer, "item")
        for index, each in enumerate(value[: kind.max_length]):
            yield from self.check(kind.item_type, each, f"{pointer}/{index}")


# --- types ----------------------------------------------------------------------------------------------------------


def _alternatives(kind: mi.Type, words: str | None = None) -> Iterator[tuple[mi.Type, str | None]]:
    """Yield the members of a union, each with the words for its pattern."""
    if isinstance(kind, mi.Metadata):
        extra = cast(dict[str, str], cast(Any, kind).extra or {})
        yield from _alternatives(kind.type, extra.get(EXPECTED, words))
    elif isinstance(kind, mi.UnionType):
        for each in kind.types:
            yield from _alternatives(each, words)
    else:
        yield kind, words


def _is_of(kind: mi.Type, value: Any) -> bool:
    """True if the value has the JSON type of `kind`. A boolean is no number."""
    return type(value) is _JSON_TYPES[type(kind)][0] if type(kind) in _JSON_TYPES else True


def _noun(kind: mi.Type) -> str:
    if isinstance(kind, mi.LiteralType):
        return f"one of: {', '.join(map(str, kind.values))}"
    return _JSON_TYPES[type(kind)][1]


def _fault_of_scalar(kind: mi.Type, value: Any, words: str | None) -> str | None:
    """Return the fault of a text, number, time or constant of the right JSON type."""
    match kind:
        case mi.IntType():
            return _fault_of_number(kind, value)
        case mi.StrType():
            return _fault_of_text(kind, value, words)
        case mi.LiteralType():
            return None if value in kind.values else _one_of(kind.values)
        case mi.DateTimeType():
            return None if _converts(value, datetime) else f"must be {_noun(kind)}"
        case _:
            return None


def _fault_of_number(kind: mi.IntType, value: int) -> str | None:
    if kind.ge is not None and value < kind.ge:
        return f"must be at least {kind.ge:,}"
    if kind.le is not None and value > kind.le:
        return f"must be at most {kind.le:,}"
    return None


def _fault_of_text(kind: mi.StrType, value: str, words: str | None) -> str | None:
    if kind.min_length is not None and len(value) < kind.min_length:
        return "must not be empty" if kind.min_length == 1 else f"must be at least {kind.min_length:,} characters"
    if kind.max_length is not None and len(value) > kind.max_length:
        return f"must be at most {kind.max_length:,} characters"
    if kind.pattern is not None and not _converts(value, _text_of(kind.pattern)):
        return words or _NOT_ACCEPTABLE
    return None


def _faults_of_size(kind: mi.DictType | mi.ListType, size: int, pointer: str, part: str) -> Iterator[Fault]:
    if kind.min_length is not None and size < kind.min_length:
        yield pointer, f"must have at least {_count(kind.min_length, part)}"
    if kind.max_length is not None and size > kind.max_length:
        yield pointer, f"must have at most {_count(kind.max_length, part)}"


@cache
def _text_of(pattern: str) -> Any:
    return Annotated[str, Meta(pattern=pattern)]


def _converts(value: str, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, UnicodeError):
        return False
    return True


# --- words ----------------------------------------------------------------------------------------------------------


def _count(number: int, part: str) -> str:
    return f"{number:,} {part}" if number == 1 else f"{number:,} {part}s"


def _one_of(values: Iterable[object]) -> str:
    return f"must be one of: {', '.join(map(str, values))}"


def _list_words(words: Sequence[str], conjunction: str) -> str:
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}" if len(words) > 1 else words[0]


def _below(pointer: str, name: str) -> str:
    """Return the pointer of a member (RFC 6901). A long name is cut, and a lone surrogate replaced: JSON in UTF-8 has none."""
    name = name[:NAME_MAX].encode("utf-8", "replace").decode()
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _read_int(digits: str) -> int:
    return int(digits[:_DIGITS_MAX])


_READER = json.JSONDecoder(parse_int=_read_int)
"""Reads every document that the strict reader accepts, also numbers that Python or msgspec refuse to convert."""
