"""The transaction that moves positions and writes rows, and the take-over of a position."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from pymongo import ReturnDocument
from pymongo.errors import PyMongoError

from guerdon.database import MAJORITY_JOURNALED, PRIMARY, SNAPSHOT, Database, Document, Session
from guerdon.projections.batch import Batch
from guerdon.projections.positions import POSITIONS, ViewPosition, position_id

NOW_MS: Document = {"$toLong": "$$NOW"}
COMMIT_TRIES = 20
_BYTES = (bytes,)


class Fenced(Exception):
    """Another worker has taken a position over; nothing was written."""


async def take_over(database: Database, group: str, version: int, part: int, *, holder: str) -> ViewPosition:
    """Take a position over, or create it: from now on the transactions of its earlier holders write nothing."""
    new = ViewPosition(id=position_id(group, version, part), group=group, version=version, part=part)
    steps: list[Document] = [
        {"$replaceWith": {"$mergeObjects": [encode(new), "$$ROOT"]}},
        {"$set": {"epoch": {"$add": ["$epoch", 1]}, "holder": holder, "heartbeat": NOW_MS}},
    ]
    row: Any = await database.raw[POSITIONS].find_one_and_update(
        {"_id": new.id}, steps, upsert=True, return_document=ReturnDocument.AFTER
    )
    return decode(row)


async def commit(database: Database, batches: Sequence[tuple[Batch, Mapping[str, Any]]]) -> list[ViewPosition]:
    """Write the rows of the batches, and move each position by the given fields, in one transaction. Return the new positions.

    Raises:
        Fenced: a position belongs to another worker, or was moved; nothing was written.
        PyMongoError: nothing was written, or the result is unknown: the positions must be taken over again.
    """
    moved = [_moved(batch, fields) for batch, fields in batches]
    statements = [_move(batch.position, position) for (batch, _), position in zip(batches, moved, strict=True)]
    writes: dict[str, list[Document]] = {}
    for batch, _ in batches:
        for collection, updates in batch.writes().items():
            writes.setdefault(collection, []).extend(updates)
    async with database.client.start_session() as session:
        await session.start_transaction(SNAPSHOT, MAJORITY_JOURNALED, PRIMARY)
        try:
            await _update(database, POSITIONS, statements, session)
            for collection, updates in writes.items():
                await _update(database, collection, updates, session)
        except BaseException:
            await session.abort_transaction()
            raise
        await _commit(session)
    return moved


async def _commit(session: Session) -> None:
    """Commit, and repeat only the commit while its result is unknown."""
    for attempt in range(COMMIT_TRIES):
        try:
            await session.commit_transaction()
            return
        except PyMongoError as error:
            if not error.has_error_label("UnknownTransactionCommitResult") or attempt == COMMIT_TRIES - 1:
                raise


async def _update(database: Database, collection: str, updates: list[Document], session: Session) -> None:
    reply: dict[str, Any] = await database.raw.command({"update": collection, "updates": updates, "ordered": True}, session=session)
    if reply.get("writeErrors") or reply["n"] != len(updates):
        raise Fenced(collection)


def _moved(batch: Batch, fields: Mapping[str, Any]) -> ViewPosition:
    before = batch.position
    return msgspec.structs.replace(
        before,
        writes=before.writes + 1,
        applied=before.applied + batch.applied,
        redelivered=before.redelivered + batch.redelivered,
        repaired=before.repaired + batch.repaired,
        **fields,
    )


def _move(before: ViewPosition, after: ViewPosition) -> Document:
    document = encode(after)
    fields = {name: document[name] for name in document if name not in {"_id", "epoch", "holder", "heartbeat"}}
    # The text of an id or an error could begin with "$", which an update by a pipeline would take for a field.
    step = {"$set": {**{name: {"$literal": value} for name, value in fields.items()}, "heartbeat": NOW_MS}}
    return {"q": {"_id": before.id, "epoch": before.epoch, "writes": before.writes}, "u": [step]}


def encode(value: msgspec.Struct) -> Document:
    document: Document = msgspec.to_builtins(value, builtin_types=_BYTES)
    return document


def decode(document: Document) -> ViewPosition:
    return msgspec.convert(document, ViewPosition)
