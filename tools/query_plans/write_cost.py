"""Cost that a secondary index adds to a write: the same batches are written alternately into two copies of a collection, one without the index.

The measure is the processor time of the database, not the elapsed time, so other processes on the machine have little influence. Other work of the
server, such as its maintenance, can only add to it. The result is therefore the lower quartile of many rounds; a control with two equal copies shows the
remaining error.
"""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec import Struct
from pymongo import IndexModel, UpdateOne, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES
from guerdon.campaigns.member_segments import MEMBER_SEGMENTS
from guerdon.campaigns.models import CAMPAIGNS
from guerdon.clock import to_datetime
from guerdon.database import Database, Document
from guerdon.errors import StartupRefused
from guerdon.exports.models import EXPORT_JOBS
from guerdon.ledger.models import REFUSAL
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.members.models import CLAIMS
from guerdon.offers.models import OFFER_REFUSALS, OFFERS
from guerdon.outbox import OUTBOX
from guerdon.password_reset.models import RESETS
from guerdon.projections.positions import VIEW_WORKERS
from guerdon.segments.models import RFM_GROUPS, SEGMENT_RUNS, SEGMENTS
from guerdon.sessions.models import SESSIONS
from guerdon.simulations.models import SIMULATIONS
from guerdon.views.models import ACCOUNT_STATES, AGGREGATES, RANKINGS
from guerdon.views.models import MEMBER_STATES as MEMBER_VIEWS
from guerdon.vouchers.codes.models import CODE_BATCHES
from guerdon.vouchers.models import VOUCHER_CODES, VOUCHERS

ROUNDS, WARM_UP, BATCH, KNOWN = 100, 8, 500, 20_000
SEED = 20_261_123
LATER_MS = 4_000_000_000_000
Batch = Sequence[Document]
"""Documents to insert, or `{"q", "u"}` to update."""
Progress = Callable[[int, int], None]


class Cost(Struct, frozen=True):
    """Cost of one index for one kind of write, in microseconds of processor time for each document."""

    index: str
    write: str
    without_us: float
    with_us: float
    ratio: float


@dataclass(frozen=True)
class Write:
    """Kind of write of the product."""

    collection: str
    name: str
    batch: Callable[[random.Random, list[Document]], Batch]
    """Function that makes one batch from documents of the collection."""
    select: Document
    """Filter of these documents."""


def _debits(rng: random.Random, rows: list[Document]) -> Batch:
    account = f"mem_{rng.getrandbits(128):032x}:PTS"
    return [
        {**row, "_id": f"{account}#{n:012}", "owner": row["owner"], "once": [rng.randbytes(20)]}
        for n, row in enumerate(rows, start=1)
    ]


def _refusals(rng: random.Random, rows: list[Document]) -> Batch:
    unique_keys = [rng.randbytes(20) for _ in rows]
    expires_at = _later(rng)
    return [
        {**row, "_id": REFUSAL + key.hex(), "once": [key], "expires_at": expires_at}
        for row, key in zip(rows, unique_keys, strict=True)
    ]


def _new_accounts(rng: random.Random, rows: list[Document]) -> Batch:
    owners = [f"mem_{rng.getrandbits(128):032x}" for _ in rows]
    return [{**row, "_id": f"{owner}:PTS", "owner": owner} for row, owner in zip(rows, owners, strict=True)]


def _moves(rng: random.Random, rows: list[Document]) -> Batch:
    """Update the five fields that an entry changes on an account with an undated balance."""
    return [
        {"q": {"_id": row["_id"]}, "u": {"$set": {"balance": rng.randrange(10**6), "held": 0, "seq": rng.randrange(10**6), "head": rng.randbytes(32), "at": rng.randrange(10**12)}}}
        for row in rows
    ]  # fmt: skip


def _dated_moves(rng: random.Random, rows: list[Document]) -> Batch:
    """Update these fields and the time of the next expiry."""
    return [{"q": move["q"], "u": {"$set": {**move["u"]["$set"], "due_at": rng.randrange(10**12)}}} for move in _moves(rng, rows)]


def _new_sessions(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"mem_{rng.getrandbits(128):032x}:{'s' * 12}", "expires_at": _later(rng)} for row in rows]


def _new_resets(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"mem_{rng.getrandbits(128):032x}", "expires_at": _later(rng)} for row in rows]


def _new_mails(rng: random.Random, rows: list[Document]) -> Batch:
    return [
        {**row, "_id": f"mem_{rng.getrandbits(128):032x}:evt_{rng.getrandbits(128):032x}:mail", "expires_at": _later(rng)}
        for row in rows
    ]


def _later(rng: random.Random) -> datetime:
    return to_datetime(LATER_MS + rng.randrange(10**9))


def _new_claims(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"external_id:{rng.getrandbits(256):064x}"} for row in rows]


def _new_events(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"order-{rng.getrandbits(64):016x}"} for row in rows]


def _simulations(rng: random.Random, rows: list[Document]) -> Batch:
    return [{"q": {"_id": row["_id"]}, "u": {"$set": {"lane": rng.randrange(3), "tries": rng.randrange(3)}}} for row in rows]


def _exports(rng: random.Random, rows: list[Document]) -> Batch:
    return [{"q": {"_id": row["_id"]}, "u": {"$set": {"lane": rng.randrange(3), "due_at": rng.randrange(10**12)}}} for row in rows]


def _new_records(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": rng.getrandbits(62)} for row in rows]


def _purchases(rng: random.Random, rows: list[Document]) -> Batch:
    return [{"q": {"_id": row["_id"]}, "u": {"$set": {"count": rng.randrange(10**6), "purchases": 2}}} for row in rows]


def _tier_changes(rng: random.Random, rows: list[Document]) -> Batch:
    return [
        {"q": each["q"], "u": {"$set": {**each["u"]["$set"], "due_at": rng.randrange(10**12)}}} for each in _purchases(rng, rows)
    ]


def _new_vouchers(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"vch_{rng.getrandbits(128):032x}"} for row in rows]


def _changed_status(rng: random.Random, rows: list[Document]) -> Batch:
    return [{"q": {"_id": row["_id"]}, "u": {"$set": {"status": rng.choice(["active", "paused"])}}} for row in rows]


def _deleted_segments(rng: random.Random, rows: list[Document]) -> Batch:
    return [{"q": {"_id": row["_id"]}, "u": {"$set": {"status": rng.choice(["active", "deleted"])}}} for row in rows]


def _opened_runs(rng: random.Random, rows: list[Document]) -> Batch:
    return [{"q": {"_id": row["_id"]}, "u": {"$set": {"open": True, "page": rng.randrange(10**6)}}} for row in rows]


def _assigned(rng: random.Random, rows: list[Document]) -> Batch:
    return [{"q": {"_id": row["_id"]}, "u": {"$set": {"segments": [rng.choice(RFM_GROUPS)]}}} for row in rows]


def _new_codes(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"{rng.getrandbits(80):020X}"} for row in rows]


def _new_batches(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"bat_{rng.getrandbits(128):032x}"} for row in rows]


def _new_rows(rng: random.Random, rows: list[Document]) -> Batch:
    """Insert rows of a view or counters of refusals. The sample has few of some, so they are repeated under new ids."""
    return [{**row, "_id": f"1|0|{rng.getrandbits(128):032x}"} for row in rng.choices(rows, k=BATCH)]


def _rankings(rng: random.Random, rows: list[Document]) -> Batch:
    return [
        {"q": {"_id": row["_id"]}, "u": {"$inc": {"earned": rng.randrange(1, 100), "spent": rng.randrange(1, 100)}}} for row in rows
    ]


def _account_states(rng: random.Random, rows: list[Document]) -> Batch:
    return [
        {"q": {"_id": row["_id"]}, "u": {"$set": {"seq": rng.randrange(10**6), "next_expires_at": rng.randrange(10**12)}}}
        for row in rows
    ]


def _member_states(rng: random.Random, rows: list[Document]) -> Batch:
    return [
        {"q": {"_id": row["_id"]}, "u": {"$set": {"number": rng.randrange(10**6), "last_event_at": rng.randrange(10**12)}}}
        for row in rows
    ]


def _kept_workers(rng: random.Random, rows: list[Document]) -> Batch:
    return [{"q": {"_id": row["_id"]}, "u": {"$set": {"expires_at": _later(rng)}}} for row in rows]


_ENTRY, _REFUSED = {"balance_after": {"$exists": True}}, {"expires_at": {"$exists": True}}
_UNDATED, _DATED = {"due_at": {"$exists": False}}, {"due_at": {"$exists": True}}
_DEBIT = Write(ENTRIES, "insert an entry", _debits, _ENTRY)
_OPEN = Write(ACCOUNTS, "open an account", _new_accounts, _UNDATED)
_MOVE = Write(ACCOUNTS, "move an undated account", _moves, _UNDATED)
_MOVE_DATED = Write(ACCOUNTS, "move an account with lots", _dated_moves, _DATED)
_ROW_WRITES = {
    # The fields that the other views are searched by are their keys, which only an insert writes.
    each.collection: Write(each.collection, "add a row to a view", _new_rows, {})
    for each in AGGREGATES
}
_ROW_WRITES[RANKINGS.collection] = Write(RANKINGS.collection, "change a ranking", _rankings, {"earned": {"$exists": True}})
WRITES: dict[str, tuple[Write, ...]] = {
    "entries.once": (_DEBIT,),
    "entries.expired": (_DEBIT,),
    "entries.expiry": (_DEBIT, Write(ENTRIES, "insert a refusal", _refusals, _REFUSED)),
    "accounts.due_at": (_OPEN, _MOVE, _MOVE_DATED),
    "sessions.expiry": (Write(SESSIONS, "log in", _new_sessions, {}),),
    "outbox.due": (Write(OUTBOX, "append an event", _new_mails, {"due_at": {"$exists": True}}),),
    "outbox.expiry": (Write(OUTBOX, "append an event", _new_mails, {"due_at": {"$exists": True}}),),
    "resets.expiry": (Write(RESETS, "create a reset token", _new_resets, {}),),
    "claims.expiry": (Write(CLAIMS, "claim a value", _new_claims, {"expires_at": {"$exists": False}}),),
    "events.owner": (Write(EVENTS, "record an event", _new_events, {}),),
    "events.occurred": (Write(EVENTS, "record an event", _new_events, {}),),
    "events.timeline": (Write(EVENTS, "record an event", _new_events, {}),),
    "simulations.open": (Write(SIMULATIONS, "take up a simulation", _simulations, {}),),
    "simulations.expiry": (Write(SIMULATIONS, "take up a simulation", _simulations, {}),),
    **{
        f"export_jobs.{index}": (Write(EXPORT_JOBS, "take up an export", _exports, {}),)
        for index in ("open", "due", "members", "expiry")
    },
    "segments.status": (Write(SEGMENTS, "delete a segment", _deleted_segments, {}),),
    "segment_runs.open": (Write(SEGMENT_RUNS, "begin a run", _opened_runs, {}),),
    "segment_runs.day": (Write(SEGMENT_RUNS, "begin a run", _opened_runs, {}),),
    "member_segments.segment": (Write(MEMBER_SEGMENTS, "assign segments", _assigned, {"segments": {"$exists": True}}),),
    "audit.about": (Write(AUDIT, "write a record", _new_records, {"about": {"$exists": True}}),),
    "standings.due_at": (
        Write(MEMBER_STATES, "count a purchase", _purchases, {}),
        Write(MEMBER_STATES, "change a tier", _tier_changes, {"due_at": {"$exists": True}}),
    ),
    "voucher_codes.batch": (
        Write(VOUCHER_CODES, "create a code of a batch", _new_codes, {"batch": {"$exists": True}}),
        Write(VOUCHER_CODES, "create a code of a member", _new_codes, {"batch": {"$exists": False}}),
    ),
    "voucher_batches.owner": (Write(CODE_BATCHES, "begin a batch", _new_batches, {"open": True}),),
    "voucher_batches.open": (Write(CODE_BATCHES, "begin a batch", _new_batches, {"open": True}),),
    "campaigns.status": (Write(CAMPAIGNS, "change a status", _changed_status, {}),),
    "offers.status": (Write(OFFERS, "change a status", _changed_status, {}),),
    "vouchers.owner": (Write(VOUCHERS, "issue a voucher", _new_vouchers, {}),),
    "offer_refusals.offer": (Write(OFFER_REFUSALS, "count a new refusal", _new_rows, {}),),
    "view_workers.expiry": (Write(VIEW_WORKERS, "renew a registration", _kept_workers, {}),),
    f"{ACCOUNT_STATES}.version_asset_next_expires_at_account": (
        Write(ACCOUNT_STATES, "change a state of an account", _account_states, {"next_expires_at": {"$exists": True}}),
    ),
    f"{MEMBER_VIEWS}.version_last_event_at": (
        Write(MEMBER_VIEWS, "change a state of a member", _member_states, {"last_event_at": {"$exists": True}}),
    ),
    **{
        f"{each.collection}.{index.document['name']}": (_ROW_WRITES[each.collection],)
        for each in AGGREGATES
        for index in each.indexes
    },
}
"""Measured writes by index. A test compares the names with the existing indexes."""
CONTROL = "entries.(none)"
"""Control: this index does not exist, so both copies have the same indexes, and the ratio should be 1."""


async def measure(
    database: Database, indexes: Mapping[str, Sequence[IndexModel]], progress: Progress, *, rounds: int = ROUNDS
) -> list[Cost]:
    """Measure the cost of every index.

    Raises:
        StartupRefused: the server does not report its processor time.
    """
    unsafe = database.client.get_database(database.raw.name, write_concern=WriteConcern(1))
    costs: list[Cost] = []
    measured = {**WRITES, CONTROL: (_DEBIT,)}
    total = sum(len(writes) for writes in measured.values())
    for name, writes in measured.items():
        collection, _, index = name.partition(".")
        pair = (unsafe[f"{collection}_with"], unsafe[f"{collection}_without"])
        for copy in pair:
            await copy.drop()
            # Both are copies, so that they have the same layout on disk.
            await (await unsafe[collection].aggregate([{"$out": copy.name}])).to_list()
        await pair[0].create_indexes(list(indexes[collection]))
        rest = [model for model in indexes[collection] if model.document["name"] != index]
        if rest:
            await pair[1].create_indexes(rest)
        # Otherwise pending writes of the copies would be flushed during the rounds.
        await unsafe.client.admin.command("fsync")
        for write in writes:
            costs.append(_cost(name, write.name, await _rounds(write, pair, rounds)))
            progress(len(costs), total)
        for copy in pair:
            await copy.drop()
    return costs


Collection = AsyncCollection[Document]


async def _rounds(write: Write, pair: Sequence[Collection], count: int) -> list[tuple[float, float]]:
    """Return the microseconds for each document with and without the index, for each round. The order alternates."""
    with_index_copy, without_index_copy = pair
    rng = random.Random(f"{SEED} {write.name}")
    rows = await without_index_copy.aggregate([{"$match": write.select}, {"$sample": {"size": KNOWN}}])
    samples = await rows.to_list()
    found: list[tuple[float, float]] = []
    warm_up = min(WARM_UP, count)
    for number in range(warm_up + count):
        batch = write.batch(rng, rng.sample(samples, min(BATCH, len(samples))))
        spent: dict[bool, float] = {}
        for with_index in (True, False) if number % 2 else (False, True):
            copy = with_index_copy if with_index else without_index_copy
            before = await _processor_us(copy.database)
            await _apply(copy, batch)
            spent[with_index] = (await _processor_us(copy.database) - before) / len(batch)
        if number >= warm_up:
            found.append((spent[True], spent[False]))
    return found


async def _processor_us(database: AsyncDatabase[Document]) -> int:
    """Return the processor time of the server process so far, on all its threads, in microseconds."""
    unwanted = dict.fromkeys(("wiredTiger", "metrics", "locks", "repl", "tcmalloc", "opLatencies"), 0)
    extra: Document = (await database.command({"serverStatus": 1, **unwanted}))["extra_info"]
    if "user_time_us" not in extra:
        raise StartupRefused("this server does not report its processor time; use a server on Linux")
    return extra["user_time_us"] + extra["system_time_us"]


async def _apply(collection: Collection, batch: Batch) -> None:
    if "q" in batch[0]:
        await collection.bulk_write([UpdateOne(each["q"], each["u"]) for each in batch])
    else:
        await collection.insert_many(batch)


def _cost(index: str, write: str, rounds: Sequence[tuple[float, float]]) -> Cost:
    with_us, without_us = (statistics.quantiles(side, n=4, method="inclusive")[0] for side in zip(*rounds, strict=True))
    return Cost(index, write, without_us, with_us, with_us / without_us)
