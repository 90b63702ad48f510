"""What a secondary index adds to a write: the same batches into two copies of a collection, one without that index, in turns.

The measure is the processor time of the database, not the time that passes: it is what an index costs, and other work on the machine
counts little. Other work of the same server counts, its own housekeeping too, and only ever adds; so of many rounds the lower quartile is
taken, and a control, two copies with the same indexes, shows what is left of it.
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
from guerdon.campaigns.models import CAMPAIGNS
from guerdon.clock import to_datetime
from guerdon.database import Database, Document
from guerdon.errors import StartupRefused
from guerdon.ledger.models import REFUSAL
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.members.models import CLAIMS
from guerdon.offers.models import OFFERS
from guerdon.outbox import OUTBOX
from guerdon.password_reset.models import RESETS
from guerdon.sessions.models import SESSIONS
from guerdon.simulations.models import SIMULATIONS
from guerdon.vouchers.codes.models import CODE_BATCHES
from guerdon.vouchers.models import VOUCHER_CODES, VOUCHERS

ROUNDS, WARM_UP, BATCH, KNOWN = 100, 8, 500, 20_000
SEED = 20_261_123
LATER_MS = 4_000_000_000_000
Batch = Sequence[Document]
"""Documents to insert, or `{"q", "u"}` to update."""
Progress = Callable[[int, int], None]


class Cost(Struct, frozen=True):
    """One index and one kind of write, in microseconds of processor a document."""

    index: str
    write: str
    without_us: float
    with_us: float
    ratio: float


@dataclass(frozen=True)
class Write:
    """A kind of write that the product makes."""

    collection: str
    name: str
    batch: Callable[[random.Random, list[Document]], Batch]
    """Make one batch from documents of the collection."""
    select: Document
    """Which documents those are."""


def _plain_debits(rng: random.Random, rows: list[Document]) -> Batch:
    fresh = f"mem_{rng.getrandbits(128):032x}:PTS"
    return [
        {**row, "_id": f"{fresh}#{n:012}", "owner": row["owner"], "once": [rng.randbytes(20)]}
        for n, row in enumerate(rows, start=1)
    ]


def _refusals(rng: random.Random, rows: list[Document]) -> Batch:
    marks = [rng.randbytes(20) for _ in rows]
    moment = _later(rng)
    return [
        {**row, "_id": REFUSAL + mark.hex(), "once": [mark], "expires_at": moment} for row, mark in zip(rows, marks, strict=True)
    ]


def _new_accounts(rng: random.Random, rows: list[Document]) -> Batch:
    owners = [f"mem_{rng.getrandbits(128):032x}" for _ in rows]
    return [{**row, "_id": f"{owner}:PTS", "owner": owner} for row, owner in zip(rows, owners, strict=True)]


def _moves(rng: random.Random, rows: list[Document]) -> Batch:
    """The five fields of a plain account that an entry changes."""
    return [
        {"q": {"_id": row["_id"]}, "u": {"$set": {"balance": rng.randrange(10**6), "held": 0, "seq": rng.randrange(10**6), "head": rng.randbytes(32), "at": rng.randrange(10**12)}}}
        for row in rows
    ]  # fmt: skip


def _dated_moves(rng: random.Random, rows: list[Document]) -> Batch:
    """The same on accounts whose next date moves with it."""
    return [{"q": move["q"], "u": {"$set": {**move["u"]["$set"], "due_at": rng.randrange(10**12)}}} for move in _moves(rng, rows)]


def _new_sessions(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"mem_{rng.getrandbits(128):032x}:{'s' * 12}", "expires_at": _later(rng)} for row in rows]


def _new_resets(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"mem_{rng.getrandbits(128):032x}", "expires_at": _later(rng)} for row in rows]


def _new_letters(rng: random.Random, rows: list[Document]) -> Batch:
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


def _new_codes(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"{rng.getrandbits(80):020X}"} for row in rows]


def _new_batches(rng: random.Random, rows: list[Document]) -> Batch:
    return [{**row, "_id": f"bat_{rng.getrandbits(128):032x}"} for row in rows]


_ENTRY, _REFUSED = {"balance_after": {"$exists": True}}, {"expires_at": {"$exists": True}}
_PLAIN, _DATED = {"due_at": {"$exists": False}}, {"due_at": {"$exists": True}}
_DEBIT = Write(ENTRIES, "insert an entry", _plain_debits, _ENTRY)
_OPEN = Write(ACCOUNTS, "open an account", _new_accounts, _PLAIN)
_MOVE = Write(ACCOUNTS, "move a plain account", _moves, _PLAIN)
_MOVE_DATED = Write(ACCOUNTS, "move an account with lots", _dated_moves, _DATED)
WRITES: dict[str, tuple[Write, ...]] = {
    "entries.once": (_DEBIT,),
    "entries.expiry": (_DEBIT, Write(ENTRIES, "insert a refusal", _refusals, _REFUSED)),
    "accounts.due_at": (_OPEN, _MOVE, _MOVE_DATED),
    "sessions.expiry": (Write(SESSIONS, "log in", _new_sessions, {}),),
    "outbox.due": (Write(OUTBOX, "append an event", _new_letters, {"due_at": {"$exists": True}}),),
    "outbox.expiry": (Write(OUTBOX, "append an event", _new_letters, {"due_at": {"$exists": True}}),),
    "resets.expiry": (Write(RESETS, "make a reset token", _new_resets, {}),),
    "claims.expiry": (Write(CLAIMS, "claim a value", _new_claims, {"expires_at": {"$exists": False}}),),
    "events.owner": (Write(EVENTS, "record an event", _new_events, {}),),
    "events.occurred": (Write(EVENTS, "record an event", _new_events, {}),),
    "simulations.open": (Write(SIMULATIONS, "take up a simulation", _simulations, {}),),
    "simulations.expiry": (Write(SIMULATIONS, "take up a simulation", _simulations, {}),),
    "audit.about": (Write(AUDIT, "write a record", _new_records, {"about": {"$exists": True}}),),
    "standings.due_at": (
        Write(MEMBER_STATES, "count a purchase", _purchases, {}),
        Write(MEMBER_STATES, "change a tier", _tier_changes, {"due_at": {"$exists": True}}),
    ),
    "voucher_codes.batch": (
        Write(VOUCHER_CODES, "make a code of a batch", _new_codes, {"batch": {"$exists": True}}),
        Write(VOUCHER_CODES, "make a member's code", _new_codes, {"batch": {"$exists": False}}),
    ),
    "voucher_batches.owner": (Write(CODE_BATCHES, "begin a batch", _new_batches, {"open": True}),),
    "voucher_batches.open": (Write(CODE_BATCHES, "begin a batch", _new_batches, {"open": True}),),
    "campaigns.status": (Write(CAMPAIGNS, "change a status", _changed_status, {}),),
    "offers.status": (Write(OFFERS, "change a status", _changed_status, {}),),
    "vouchers.owner": (Write(VOUCHERS, "issue a voucher", _new_vouchers, {}),),
}
"""What is measured for each index; a test holds the names against the indexes that there are."""
CONTROL = "entries.(none)"
"""No such index, so both copies have the same ones: the ratio should be 1."""


async def measure(
    database: Database, indexes: Mapping[str, Sequence[IndexModel]], tell: Progress, *, rounds: int = ROUNDS
) -> list[Cost]:
    """Measure every index.

    Raises:
        StartupRefused: the server does not tell its processor time.
    """
    fast = database.client.get_database(database.raw.name, write_concern=WriteConcern(1))
    costs: list[Cost] = []
    wanted = {**WRITES, CONTROL: (_DEBIT,)}
    total = sum(len(writes) for writes in wanted.values())
    for name, writes in wanted.items():
        collection, _, index = name.partition(".")
        pair = (fast[f"{collection}_with"], fast[f"{collection}_without"])
        for copy in pair:
            await copy.drop()
            # Both are copies, so that they lie on the disk alike.
            await (await fast[collection].aggregate([{"$out": copy.name}])).to_list()
        await pair[0].create_indexes(list(indexes[collection]))
        rest = [model for model in indexes[collection] if model.document["name"] != index]
        if rest:
            await pair[1].create_indexes(rest)
        # What the copies have left to be written would otherwise be written during the rounds.
        await fast.client.admin.command("fsync")
        for write in writes:
            costs.append(_cost(name, write.name, await _rounds(write, pair, rounds)))
            tell(len(costs), total)
        for copy in pair:
            await copy.drop()
    return costs


Collection = AsyncCollection[Document]


async def _rounds(write: Write, pair: Sequence[Collection], count: int) -> list[tuple[float, float]]:
    """Return (with, without) in microseconds of a document for each round; the one that goes first changes from round to round."""
    with_it, without = pair
    rng = random.Random(f"{SEED} {write.name}")
    rows = await without.aggregate([{"$match": write.select}, {"$sample": {"size": KNOWN}}])
    known = await rows.to_list()
    found: list[tuple[float, float]] = []
    warm_up = min(WARM_UP, count)
    for number in range(warm_up + count):
        batch = write.batch(rng, rng.sample(known, min(BATCH, len(known))))
        spent: dict[bool, float] = {}
        for with_index in (True, False) if number % 2 else (False, True):
            copy = with_it if with_index else without
            before = await _processor_us(copy.database)
            await _apply(copy, batch)
            spent[with_index] = (await _processor_us(copy.database) - before) / len(batch)
        if number >= warm_up:
            found.append((spent[True], spent[False]))
    return found


async def _processor_us(database: AsyncDatabase[Document]) -> int:
    """What the server process has used so far, on all its threads."""
    unwanted = dict.fromkeys(("wiredTiger", "metrics", "locks", "repl", "tcmalloc", "opLatencies"), 0)
    extra: Document = (await database.command({"serverStatus": 1, **unwanted}))["extra_info"]
    if "user_time_us" not in extra:
        raise StartupRefused("this server does not tell its processor time; use one on Linux")
    return extra["user_time_us"] + extra["system_time_us"]


async def _apply(collection: Collection, batch: Batch) -> None:
    if "q" in batch[0]:
        await collection.bulk_write([UpdateOne(each["q"], each["u"]) for each in batch])
    else:
        await collection.insert_many(batch)


def _cost(index: str, write: str, rounds: Sequence[tuple[float, float]]) -> Cost:
    with_us, without_us = (statistics.quantiles(side, n=4, method="inclusive")[0] for side in zip(*rounds, strict=True))
    return Cost(index, write, without_us, with_us, with_us / without_us)
