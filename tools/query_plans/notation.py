"""How a query of the catalogue is written down: as the command that is sent, with `:names` where values go."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from guerdon.database import Document
from tools.query_plans.shapes import AGGREGATE, DELETE, FIND, KINDS, UPDATE, shapes_of

Path = Literal["request", "job", "terminal", "server"]
"""Who waits for it: a caller, nobody, somebody at a terminal; or MongoDB sends it itself."""


class Query(Struct, frozen=True):
    """One query of the product."""

    name: str
    path: Path
    callers: str
    """The routes, the job or the command that send it."""
    command: Document
    bound: int = 0
    """So much it may examine, whatever it returns; 0: the rule for requests and nothing else."""
    seeks: int = 1
    """How many keys it may meet on the way to one value; see docs/indexes.md where that is not 1."""
    explained: bool = True
    """False for a change stream, which reads the log of operations and no collection."""

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


# --- how a command is written down --------------------------------------------------------------------------------------


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
    """A part of the one read of a batch; the parts are united by `$unionWith`, and each is planned for itself."""
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
ABOUT: Document = {"_id": {"$gte": ":first", "$lt": ":last"}}
MARKS: Document = {"owner": {"$in": ":owners"}, "once": {"$in": ":marks"}}
UP, DOWN = {"_id": 1}, {"_id": -1}
