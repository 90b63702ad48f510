"""Answers of dry runs: what a command would answer, without the ids of what it would write.

A dry run (`?dry_run=true`) makes the decision of the command on the present state and leaves out the commit. Its answer has the status 200, the
fields of the usual answer, and `dry_run`.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

FLAG = "dry_run"
DRY_RUN = "dry_run=true"
"""Query string of a dry run."""
DESCRIPTION = "True: nothing was written."
"""Description of the field `dry_run` of an answer."""


class DryRunQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The parameter of a command that moves value."""

    dry_run: Literal["true", "false"] = "false"
    """`true` to return the decision and write nothing."""


@cache
def dry_run_of(struct: type[Struct], left_out: tuple[str, ...], *, part: bool = False) -> type[Struct]:
    """Return the struct of a dry run's answer, for the documentation.

    `left_out` names fields that only written things have, such as `id` or `transaction.id`. `part` is true for a struct inside an answer, which
    has no `dry_run`.
    """
    below = _below(left_out)
    fields: list[Any] = []
    for field in msgspec.structs.fields(struct):
        if field.encode_name in left_out:
            continue
        inner = below.get(field.encode_name)
        kind = field.type if inner is None else _without(field.type, tuple(inner))
        default: dict[str, Any] = {}
        if field.default is not NODEFAULT:
            default = {"default": field.default}
        elif field.default_factory is not NODEFAULT:
            default = {"default_factory": field.default_factory}
        fields.append((field.name, kind, msgspec.field(name=field.encode_name, **default)))
    if not part:
        fields.append((FLAG, Literal[True]))
    name = struct.__name__.removesuffix("View")
    return msgspec.defstruct(
        f"Unwritten{name}" if part else f"{name}DryRun",
        fields,
        namespace={"__doc__": f"{struct.__doc__} Nothing was written.", "USUAL": struct},
        frozen=True,
        kw_only=True,
        omit_defaults=struct.__struct_config__.omit_defaults,
    )


def usual_of(struct: type[Struct]) -> type[Struct]:
    """Return the struct of the usual answer of a dry run's answer, or the struct itself."""
    return cast(type[Struct], getattr(struct, "USUAL", struct))


def dry_run_answer(answer: Struct, left_out: Iterable[str]) -> dict[str, Any]:
    """Return the answer of a dry run as JSON values."""
    document = msgspec.to_builtins(answer)
    for path in left_out:
        _remove(document, path)
    document[FLAG] = True
    return document


def _below(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the rests of paths with several names, by their first name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        head, _, rest = path.partition(".")
        if rest:
            found[head].append(rest)
    return found


def _without(kind: Any, left_out: tuple[str, ...]) -> Any:
    """Return a type with the fields left out of the struct in it: itself, an alternative, or the item of a list."""
    other: Any = kind
    if isinstance(kind, type) and issubclass(kind, Struct):
        # One struct for all answers that lack the same fields. A key of a mapping is no field.
        mappings = {field.encode_name for field in msgspec.structs.fields(kind) if get_origin(field.type) is dict}
        return dry_run_of(kind, tuple(sorted(path for path in left_out if path.partition(".")[0] not in mappings)), part=True)
    if get_origin(kind) in {Union, UnionType}:
        alternatives = tuple(each if each is NoneType else _without(each, left_out) for each in get_args(kind))
        return Union[alternatives]  # noqa: UP007 - the alternatives are known at run time only, and `|` takes no tuple
    if get_origin(kind) is list:
        return list[_without(get_args(kind)[0], left_out)]
    return other


def _remove(node: Any, path: str) -> None:
    if isinstance(node, list):
        for each in cast(list[Any], node):
            _remove(each, path)
    elif isinstance(node, dict):
        head, _, rest = path.partition(".")
        if rest:
            _remove(cast(dict[str, Any], node).get(head), rest)
        else:
            cast(dict[str, Any], node).pop(head, None)
