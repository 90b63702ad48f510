"""Shape of a command: the command without its values. Commands with the same shape are the same query with other parameters."""

from collections.abc import Iterator, Mapping
from typing import Any

from guerdon.database import Document

FIND, AGGREGATE, UPDATE, DELETE, FIND_AND_MODIFY = "find", "aggregate", "update", "delete", "findAndModify"
KINDS = (FIND, AGGREGATE, FIND_AND_MODIFY, UPDATE, DELETE)
"""Kinds of commands. The first match counts, because a findAndModify has an `update` too."""


def shapes_of(command: Mapping[str, Any]) -> Iterator[str]:
    """Yield the shape of every query in a command: one for each update of a batch, and one for each collection of a combined read.

    Commands without a filter (inserts, counts from the metadata of a collection, commits, further batches of a cursor) have no shape.
    """
    if FIND in command:
        yield _find(command)
    elif AGGREGATE in command:
        yield from _aggregate(str(command[AGGREGATE]), command["pipeline"])
    elif FIND_AND_MODIFY in command:
        inserts = " or insert" if command.get("upsert") else ""
        yield f"findAndModify {command[FIND_AND_MODIFY]} {_filter(command['query'])}{inserts}"
    elif UPDATE in command:
        for each in command["updates"]:
            yield f"update {command[UPDATE]} {_filter(each['q'])}{' or insert' if each.get('upsert') else ''}"
    elif DELETE in command:
        for each in command["deletes"]:
            yield f"delete {command[DELETE]} {_filter(each['q'])}"


def _find(command: Mapping[str, Any]) -> str:
    parts = [f"find {command[FIND]} {_filter(command.get('filter', {}))}"]
    if command.get("sort"):
        parts.append("sort {" + ", ".join(f"{name}: {direction}" for name, direction in command["sort"].items()) + "}")
    if command.get("limit"):
        parts.append("limit")
    if command.get("projection"):
        parts.append("fields {" + ", ".join(sorted(command["projection"])) + "}")
    if command.get("hint"):
        parts.append(f"hint {command['hint']}")
    return " ".join(parts)


def _aggregate(collection: str, stages: list[Document]) -> Iterator[str]:
    if "$changeStream" in stages[0]:
        yield f"watch {collection}"
        return
    rest: list[str] = []
    for stage in stages[1:]:
        [(name, body)] = stage.items()
        if name == "$unionWith":
            yield from _aggregate(body["coll"], body["pipeline"])
        elif name != "$addFields":
            rest.append(name)
    yield " ".join([f"aggregate {collection} {_filter(stages[0]['$match'])}", *rest])


def _filter(where: Mapping[str, Any]) -> str:
    return "{" + ", ".join(_condition(name, where[name]) for name in sorted(where)) + "}"


def _condition(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        operators = sorted(str(key) for key in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if operators and all(operator.startswith("$") for operator in operators):
            return f"{name}: {{{', '.join(operators)}}}"
    return name
