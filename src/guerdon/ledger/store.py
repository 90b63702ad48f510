"""Reads and writes of the ledger: one snapshot read per batch, and one transaction for its plan. No decisions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from pymongo import IndexModel
from pymongo.errors import PyMongoError

from guerdon.clock import Clock, to_datetime
from guerdon.database import MAJORITY_JOURNALED, PRIMARY, SNAPSHOT, Database, Document, Session
from guerdon.ledger import references
from guerdon.ledger.contention import CONTENTION_LEASES
from guerdon.ledger.decide import WritePlan
from guerdon.ledger.expiry import HOLD_DOCUMENTS, REVERSALS
from guerdon.ledger.models import Account, Command, DocumentChange, Entry, RecordedRefusal

ACCOUNTS, ENTRIES = "accounts", "entries"
REFUSAL_TTL_DAYS = 30
READ_ROWS_MAX = 100_000
INDEXES: dict[str, list[IndexModel]] = {
    ACCOUNTS: [
        # Only accounts with lots or holds that can expire have the field; the sweeper finds them by it.
        IndexModel([("due_at", 1)], name="due_at", partialFilterExpression={"due_at": {"$exists": True}}),
    ],
    ENTRIES: [
        IndexModel([("owner", 1), ("once", 1)], name="once", unique=True, partialFilterExpression={"once": {"$exists": True}}),
        # Only refusals have the field, so the index costs an entry nothing.
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
"""Accounts by id, entries and refusals by unique key, documents by (collection, id)."""


class WriteRaceLost(Exception):
    """Another process changed an account or used a key after the read; nothing was written."""


class Store:
    """Collections of the ledger in one database."""

    def __init__(self, database: Database, clock: Clock, deadline_seconds: float) -> None:
        self._database = database
        self._clock = clock
        self._deadline_seconds = deadline_seconds

    async def read(self, commands: Sequence[Command[Any]]) -> Found:
        """Return all that the commands name, read in one round trip from one majority-committed snapshot."""
        owners = sorted({owner for command in commands for owner in command.owners})
        account_ids = sorted({account for command in commands for account in command.accounts})
        unique_keys = sorted({unique_key for command in commands for unique_key in command.unique_keys})
        wanted: dict[str, set[str]] = {}
        for command in commands:
            for ref in command.documents:
                wanted.setdefault(ref.collection, set()).add(ref.id)
        pipeline: list[Document] = [{"$match": {"_id": {"$in": account_ids}, "owner": {"$in": owners}}}]
        if unique_keys:
            pipeline.append(_union(ENTRIES, {"owner": {"$in": owners}, "once": {"$in": unique_keys}}))
        pipeline.extend(_union(name, {"_id": {"$in": sorted(ids)}}, tag=name) for name, ids in wanted.items())
        found = _sort_rows(await self._read_rows(pipeline))
        attempts = references.first_attempts(found[1], unique_keys)
        if attempts:
            await self._read_attempts(attempts, found)
        return found

    async def _read_attempts(self, first: Sequence[Entry], found: Found) -> None:
        """Add what shows whether the references of these entries are free again: the later attempts, and whether the newest was undone.

        A later snapshot is sufficient. What was undone stays undone, and the unique index refuses an attempt that another process has made.
        """
        owners = sorted({entry.owner for entry in first})
        keys = sorted({key for entry in first for key in references.further_keys(entry)})
        _, recorded, documents = found
        where = {"owner": {"$in": owners}, "once": {"$in": keys}}
        async for row in self._database.raw[ENTRIES].find(where, hint="once"):
            entry = decode_entry(row)
            recorded.update(dict.fromkeys(entry.unique_keys or (), entry))
        refs = [references.document_of(references.newest_attempt(entry, recorded)) for entry in first]
        for collection in sorted({ref.collection for ref in refs}):
            ids = sorted({ref.id for ref in refs if ref.collection == collection})
            async for row in self._database.raw[collection].find({"_id": {"$in": ids}}):
                documents.setdefault((collection, row["_id"]), row)

    async def _read_rows(self, pipeline: list[Document]) -> list[Document]:
        reply = await self._database.raw.command(
            {
                "aggregate": ACCOUNTS,
                "pipeline": pipeline,
                "cursor": {"batchSize": READ_ROWS_MAX},
                "readConcern": {"level": "snapshot"},
                "maxTimeMS": int(self._deadline_seconds * 1000),
            },
        )
        cursor = reply["cursor"]
        rows: list[Document] = cursor["firstBatch"]
        while cursor["id"]:  # One reply holds at most 16 MiB.
            reply = await self._database.raw.command({"getMore": cursor["id"], "collection": ACCOUNTS})
            cursor = reply["cursor"]
            rows.extend(cursor["nextBatch"])
        return rows

    async def write(self, plan: WritePlan) -> None:
        """Write the plan in one transaction.

        An account is updated by `_id` alone, because the `_id` of the entries guards `seq`: a process that changed the account after the
        read has inserted entry `seq + 1`, so inserting it again aborts this transaction. A conditional update was measured to cost the
        server twice as much.

        Raises:
            WriteRaceLost: Another process wrote first; nothing was written.
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
                await self._update_accounts(moved, session)
                for collection, documents in plan.inserts.items():
                    await self._insert(collection, documents, session)
                if plan.changes:
                    await self._change_documents(plan.changes.values(), session)
            except BaseException:
                await session.abort_transaction()
                raise
            await self._commit_transaction(session)

    async def _commit_transaction(self, session: Session) -> None:
        """Commit, and repeat only the commit if its result is unknown (driver specification, "Convenient API for Transactions")."""
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

    async def _update_accounts(self, accounts: Iterable[Account], session: Session) -> None:
        updates: list[Document] = []
        for account in accounts:
            # Only a sharded cluster needs the owner, for routing; a replica set is faster without it.
            where = {"_id": account.id, "owner": account.owner} if self._database.sharded else {"_id": account.id}
            updates.append({"q": where, "u": _account_update(account)})
        if updates:
            await self._write_command({"update": ACCOUNTS, "updates": updates, "ordered": True}, len(updates), session)

    async def _change_documents(self, changes: Iterable[DocumentChange], session: Session) -> None:
        by_collection: defaultdict[str, list[Document]] = defaultdict(list)
        for change in changes:
            # If the document has changed, the filter does not match, and the upsert fails on its `_id`.
            where: Document = {"_id": change.id, "owner": change.owner}
            if change.counted:
                where["count"] = change.count
            # A new document takes its owner from the equality in the filter.
            by_collection[change.collection].append({"q": where, "u": {"$set": change.fields}, "upsert": True})
        for collection, updates in by_collection.items():
            await self._write_command({"update": collection, "updates": updates, "ordered": True}, len(updates), session)

    async def _write_command(self, command: Document, expected: int, session: Session) -> None:
        reply: dict[str, Any] = await self._database.raw.command(command, session=session)
        if reply.get("writeErrors") or reply["n"] != expected:
            raise WriteRaceLost

    def _encode_refusal(self, refusal: RecordedRefusal) -> Document:
        expires_at = to_datetime(self._clock.now_ms() + REFUSAL_TTL_DAYS * 86_400_000)
        return {**encode(refusal), "expires_at": expires_at}


def encode(value: msgspec.Struct) -> Document:
    """Return the stored form: `_id` for `id`, without fields that are None or an empty object."""
    document: Document = msgspec.to_builtins(value, builtin_types=_BYTES)
    return {name: item for name, item in document.items() if item is not None and item != {}}


def decode_account(document: Document) -> Account:
    return msgspec.convert(document, Account, builtin_types=_BYTES)


def decode_entry(document: Document) -> Entry:
    return msgspec.convert(document, Entry, builtin_types=_BYTES)


def _account_update(account: Account) -> Document:
    """Return the update of a changed account. Without lots, holds and rules of its own, only five fields can change."""
    fields: Document = {
        "balance": account.balance,
        "held": account.held,
        "seq": account.seq,
        "head": account.head,
        "at": account.at,
    }
    if account.lots is None:
        return {"$set": fields}
    document = encode(account)
    for name in ("lots", "holds", "floor", "ceiling", "status", "limits", "spent"):
        fields[name] = document.get(name)
    if account.due_at is None:
        return {"$set": fields, "$unset": {"due_at": ""}}
    return {"$set": {**fields, "due_at": account.due_at}}


def _union(collection: str, match: Document, tag: str | None = None) -> Document:
    stages: list[Document] = [{"$match": match}]
    if tag is not None:
        stages.append({"$addFields": {"_collection": tag}})
    return {"$unionWith": {"coll": collection, "pipeline": stages}}


def _sort_rows(rows: Iterable[Document]) -> Found:
    accounts: dict[str, Account] = {}
    recorded: dict[bytes, Entry | RecordedRefusal] = {}
    documents: dict[tuple[str, str], Document] = {}
    for row in rows:
        if "_collection" in row:
            documents[row.pop("_collection"), row["_id"]] = row
        elif "floor" in row:
            accounts[row["_id"]] = decode_account(row)
        elif "balance_after" in row:
            entry = decode_entry(row)
            for unique_key in entry.unique_keys or ():
                recorded[unique_key] = entry
        else:
            refusal = msgspec.convert(row, RecordedRefusal, builtin_types=_BYTES)
            recorded[refusal.unique_keys[0]] = refusal
    return accounts, recorded, documents
