"""How the ledger reads and writes: one snapshot read for a batch, one transaction for its plan. It decides nothing."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from pymongo import IndexModel
from pymongo.errors import PyMongoError

from guerdon.clock import Clock, to_datetime
from guerdon.database import MAJORITY_JOURNALED, PRIMARY, SNAPSHOT, Database, Document, Session
from guerdon.ledger.contention import CONTENTION_LEASES
from guerdon.ledger.decide import WritePlan
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import Account, Command, Entry, RecordedRefusal

ACCOUNTS, ENTRIES, REVERSALS = "accounts", "entries", "reversals"
REFUSAL_TTL_DAYS = 30
READ_ROWS_MAX = 100_000
INDEXES: dict[str, list[IndexModel]] = {
    ACCOUNTS: [
        # Only accounts with lots or holds that can lapse have the field; the sweeper finds them by it.
        IndexModel([("due_at", 1)], name="due_at", partialFilterExpression={"due_at": {"$exists": True}}),
    ],
    ENTRIES: [
        IndexModel([("owner", 1), ("once", 1)], name="once", unique=True, partialFilterExpression={"once": {"$exists": True}}),
        # Only refusals have the field, so an entry pays nothing for this index.
        IndexModel(
            [("expires_at", 1)], name="expiry", expireAfterSeconds=0, partialFilterExpression={"expires_at": {"$exists": True}}
        ),
    ],
    HOLD_DOCUMENTS: [],
    REVERSALS: [],
    CONTENTION_LEASES: [],
}
_BYTES = (bytes,)
Found = tuple[dict[str, Account], dict[bytes, Entry | RecordedRefusal], dict[tuple[str, str], Document]]
"""Accounts by id, earlier facts by mark, documents by collection and id."""


class WriteRaceLost(Exception):
    """Another process has moved an account or used a key since the read; nothing was written."""


class Store:
    """The collections of the ledger in one database."""

    def __init__(self, database: Database, clock: Clock, deadline_seconds: float) -> None:
        self._database = database
        self._clock = clock
        self._deadline_seconds = deadline_seconds

    async def read(self, commands: Sequence[Command[Any]]) -> Found:
        """Fetch everything the batch needs in one round trip, from one majority-committed snapshot."""
        owners = sorted({owner for command in commands for owner in command.owners})
        account_ids = sorted({account for command in commands for account in command.accounts})
        marks = sorted({mark for command in commands for mark in command.unique_keys})
        wanted: dict[str, set[str]] = {}
        for command in commands:
            for ref in command.documents:
                wanted.setdefault(ref.collection, set()).add(ref.id)
        pipeline: list[Document] = [{"$match": {"_id": {"$in": account_ids}, "owner": {"$in": owners}}}]
        if marks:
            pipeline.append(_union(ENTRIES, {"owner": {"$in": owners}, "once": {"$in": marks}}))
        pipeline.extend(_union(name, {"_id": {"$in": sorted(ids)}}, tag=name) for name, ids in wanted.items())
        reply = await self._database.raw.command(
            {
                "aggregate": ACCOUNTS,
                "pipeline": pipeline,
                "cursor": {"batchSize": READ_ROWS_MAX},
                "readConcern": {"level": "snapshot"},
                "maxTimeMS": int(self._deadline_seconds * 1000),
            },
        )
        return _sort_rows(await self._all_rows(reply["cursor"]))

    async def _all_rows(self, cursor: Document) -> list[Document]:
        """A first reply holds 16 MiB; the rest of a larger read has to be asked for."""
        rows: list[Document] = cursor["firstBatch"]
        while cursor["id"]:
            reply = await self._database.raw.command({"getMore": cursor["id"], "collection": ACCOUNTS})
            cursor = reply["cursor"]
            rows.extend(cursor["nextBatch"])
        return rows

    async def write(self, plan: WritePlan) -> None:
        """Write the plan in one transaction.

        An account is updated by `_id` alone: the condition "`seq` is still what was read" is carried by the entries' `_id`. Whoever moved
        the account has inserted entry `seq + 1`, so inserting ours again aborts the whole transaction. Measured: the conditional update
        costs the server twice as much.
        """
        async with self._database.client.start_session() as session:
            await session.start_transaction(SNAPSHOT, MAJORITY_JOURNALED, PRIMARY)
            try:
                rows = [encode(entry) for entry in plan.entries]
                rows += [self._encode_refusal(refusal) for refusal in plan.refusals]
                await self._insert(ENTRIES, rows, session)
                opened = [plan.moved.get(account.id, account) for account in plan.opened.values()]
                await self._insert(ACCOUNTS, [encode(account) for account in opened], session)
                moved = [account for account in plan.moved.values() if account.id not in plan.opened]
                await self._update(moved, session)
                for collection, documents in plan.inserts.items():
                    await self._insert(collection, documents, session)
                for collection in {change.collection for change in plan.changes.values()}:
                    await self._change(collection, plan, session)
            except BaseException:
                await session.abort_transaction()
                raise
            await self._commit_transaction(session)

    async def _commit_transaction(self, session: Session) -> None:
        """Commit; an unknown result repeats the commit and nothing else (driver specification, "Convenient API for transactions")."""
        deadline = self._clock.monotonic() + self._deadline_seconds
        while True:
            try:
                await session.commit_transaction()
                return
            except PyMongoError as error:
                if not error.has_error_label("UnknownTransactionCommitResult") or self._clock.monotonic() > deadline:
                    raise

    async def _insert(self, collection: str, documents: list[Document], session: Session) -> None:
        if documents:
            await self._write_command({"insert": collection, "documents": documents, "ordered": True}, len(documents), session)

    async def _update(self, accounts: Iterable[Account], session: Session) -> None:
        updates = [{"q": self._place(account.id, account.owner), "u": _fields_of(account)} for account in accounts]
        if updates:
            await self._write_command({"update": ACCOUNTS, "updates": updates, "ordered": True}, len(updates), session)

    async def _change(self, collection: str, plan: WritePlan, session: Session) -> None:
        changes = [change for change in plan.changes.values() if change.collection == collection]
        updates = [
            {
                # An upsert that does not find what was read inserts, and meets the `_id` of the document that has moved on.
                "q": {"_id": each.id, "owner": each.owner, **({"count": each.count} if each.counted else {})},
                "u": {"$set": each.fields},
                "upsert": True,  # With the equalities of the condition: the new document gets its owner from there.
            }
            for each in changes
        ]
        await self._write_command({"update": collection, "updates": updates, "ordered": True}, len(updates), session)

    def _place(self, document_id: str, owner: str) -> Document:
        """On a sharded cluster the owner routes the update; on a replica set it would only slow it down."""
        return {"_id": document_id, "owner": owner} if self._database.sharded else {"_id": document_id}

    async def _write_command(self, command: Document, expected: int, session: Session) -> None:
        reply: dict[str, Any] = await self._database.raw.command(command, session=session)
        if reply.get("writeErrors") or reply["n"] != expected:
            raise WriteRaceLost

    def _encode_refusal(self, refusal: RecordedRefusal) -> Document:
        expires_at = to_datetime(self._clock.now_ms() + REFUSAL_TTL_DAYS * 86_400_000)
        return {**encode(refusal), "expires_at": expires_at}


def encode(value: msgspec.Struct) -> Document:
    """Return the stored form: `_id` for `id`, and no fields that say nothing."""
    document: Document = msgspec.to_builtins(value, builtin_types=_BYTES)
    return {name: item for name, item in document.items() if item is not None and item != {}}


def decode_account(document: Document) -> Account:
    return msgspec.convert(document, Account, builtin_types=_BYTES)


def decode_entry(document: Document) -> Entry:
    return msgspec.convert(document, Entry, builtin_types=_BYTES)


def _fields_of(account: Account) -> Document:
    """The update of an account that has moved; one without lots, holds and terms has only five fields that can."""
    moved: Document = {
        "balance": account.balance,
        "held": account.held,
        "seq": account.seq,
        "head": account.head,
        "at": account.at,
    }
    if account.lots is None:
        return {"$set": moved}
    whole = encode(account)
    for name in ("lots", "holds", "floor", "ceiling", "status", "limits", "spent"):
        moved[name] = whole.get(name)
    if account.due_at is None:
        return {"$set": moved, "$unset": {"due_at": ""}}
    return {"$set": {**moved, "due_at": account.due_at}}


def _union(collection: str, match: Document, tag: str | None = None) -> Document:
    stages: list[Document] = [{"$match": match}]
    if tag is not None:
        stages.append({"$addFields": {"_collection": tag}})
    return {"$unionWith": {"coll": collection, "pipeline": stages}}


def _sort_rows(rows: Iterable[Document]) -> Found:
    accounts: dict[str, Account] = {}
    once: dict[bytes, Entry | RecordedRefusal] = {}
    documents: dict[tuple[str, str], Document] = {}
    for row in rows:
        if "_collection" in row:
            documents[row.pop("_collection"), row["_id"]] = row
        elif "floor" in row:
            accounts[row["_id"]] = decode_account(row)
        elif "balance_after" in row:
            entry = decode_entry(row)
            for mark in entry.unique_keys or ():
                once[mark] = entry
        else:
            refusal = msgspec.convert(row, RecordedRefusal, builtin_types=_BYTES)
            once[refusal.unique_keys[0]] = refusal
    return accounts, once, documents
