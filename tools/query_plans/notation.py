"""Notation of the queries of the catalogue: the command that is sent, with `:names` in place of values."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from guerdon.database import Document
from tools.query_plans.shapes import AGGREGATE, DELETE, FIND, KINDS, UPDATE, shapes_of

Path = Literal["request", "job", "terminal", "server"]
"""Sender of a query: a request, a background job, a command at a terminal, or MongoDB itself."""


class Query(Struct, frozen=True):
    """Query of the product."""

    name: str
    path: Path
    callers: str
    """Routes, jobs or commands that send the query."""
    command: Document
    bound: int = 0
    """Number of documents or keys that the query may examine in any case; 0 for the general rule only."""
    seeks: int = 1
    """Number of keys that the query may examine for one value. docs/indexes.md explains values other than 1."""
    explained: bool = True
    """False for a change stream, which reads the oplog and no collection."""

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if kind in self.command)

    @property
    def collection(self) -> str:
        return str(self.command[self.kind])

    @property
    def shape(self) -> str:
        [shape] = shapes_of(self.command)
        return shape


# --- commands -----------------------------------------------------------------------------------------------------------


def find(
    collection: str, where: Document, *, sort: Document | None = None, limit: bool = False, fields: Sequence[str] = ()
) -> Document:
    command: Document = {FIND: collection, "filter": where}
    if sort is not None:
        command["sort"] = sort
    if limit:
        command["limit"] = ":limit"
    if fields:
        command["projection"] = dict.fromkeys(fields, 1)
    return command


def one(collection: str, where: Document, **more: Any) -> Document:
    return {**find(collection, where, **more), "limit": 1}


def read(collection: str, where: Document) -> Document:
    """Return one part of the combined read of a batch. The parts are joined by `$unionWith`, and each is planned separately."""
    return {AGGREGATE: collection, "pipeline": [{"$match": where}], "cursor": {}}


def update(collection: str, where: Document, *, upsert: bool = False) -> Document:
    return {UPDATE: collection, "updates": [{"q": where, "u": {"$set": {"touched": True}}, "upsert": upsert}]}


def delete(collection: str, where: Document) -> Document:
    return {DELETE: collection, "deletes": [{"q": where, "limit": 1}]}


ID: Document = {"_id": ":id"}
IDS: Document = {"_id": {"$in": ":ids"}}
OWN: Document = {"_id": ":id", "owner": ":owner"}
AFTER: Document = {"_id": {"$gt": ":after"}}
SPAN: Document = {"_id": {"$gte": ":first", "$lte": ":last"}, "owner": ":owner"}
RANGE: Document = {"_id": {"$gte": ":first", "$lt": ":last"}}
UNIQUE_KEYS: Document = {"owner": {"$in": ":owners"}, "once": {"$in": ":unique_keys"}}
UP, DOWN = {"_id": 1}, {"_id": -1}
