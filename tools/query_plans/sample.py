"""Scratch database for query plans: created, filled with documents like those of the product, and dropped at the end.

The ledger in it is not balanced and its hashes are random, because it is only searched and never verified. Plans depend on ids, owners, unique keys,
dates and the number of entries of a wallet.
"""

import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct
from pymongo import WriteConcern

from guerdon.access.models import SERVICE_KEYS
from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, EXPIRED_LOTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS
from guerdon.clock import to_datetime
from guerdon.collections import INDEXES
from guerdon.database import Database, Document
from guerdon.errors import StartupRefused
from guerdon.exchanges.models import RATE_VERSIONS, RATES
from guerdon.exports.models import EXPORT_CHUNKS, EXPORT_JOBS
from guerdon.ledger.contention import CONTENTION_LEASES, QUEUE_ID
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import (
    ISSUER,
    MERCHANT,
    REFUSAL,
    Account,
    Entry,
    Lot,
    RecordedRefusal,
    entry_id,
    hold_id,
    transaction_id,
    unique_key,
)
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS, encode
from guerdon.members.models import CLAIMS, LOOKUP_KEYS, MEMBERS, PERSON_KEYS
from guerdon.outbox import OUTBOX
from guerdon.password_reset.models import RESETS
from guerdon.privacy.models import ERASING, ERASURES, EXPORTS
from guerdon.second_factor.models import FACTORS
from guerdon.sessions.models import SESSIONS
from guerdon.simulated_clock.models import CLOCK_ID, CLOCKS
from guerdon.simulations.models import SIMULATED_MEMBERS, SIMULATED_PURCHASES, SIMULATIONS
from guerdon.tiers.models import PROGRAMME, TIER_CHANGES, TIER_SET_VERSIONS, TIER_SETS, WALK
from guerdon.verification.checkpoints import CHECKPOINTS
from guerdon.wallets.models import ASSETS, WALLET
from guerdon.workers.models import LEASES
from tools.query_plans import activity, finance, money, segments, views
from tools.query_plans.code_sample import batches
from tools.query_plans.voucher_sample import START_MS, VOUCHERS_EACH, VOUCHERS_OF_HOT, offers, vouchers

SUFFIX, MARKER = "_explain", "made_by_guerdon_explain"
SEED = 20_261_122
BATCH = 2000
HOT_SHARE = 10
"""Divisor of the number of entries that gives the entries of the hot wallet: it has a tenth of all entries."""
COLLECTOR_WALLETS = 100
SIZES = (1, 2, 3, 5, 8, 13, 20)
"""Numbers of entries of the other wallets."""
STEP_MS = 60_000
"""One minute between two entries of a wallet."""
NOW_MS = START_MS + 730 * 86_400_000
ACTOR = "key_explain"
Progress = Callable[[int], None]
"""Function that receives the number of entries that were written."""


class Wallet(Struct, frozen=True):
    """Wallet of the sample."""

    id: str
    owner: str
    seq: int


class Sample(Struct, frozen=True):
    """Ids of the sample database that are used as parameters of queries."""

    hot: Wallet
    """The wallet with most entries."""
    collector: str
    """Id of a member with 100 wallets."""
    quiet: tuple[Wallet, ...]
    """One in fifty of the other wallets."""
    refused: tuple[tuple[str, bytes], ...]
    """Owner and unique key of some refusals."""
    members: int
    """Number of members."""


@asynccontextmanager
async def scratch_database(url: str, name: str) -> AsyncGenerator[Database]:
    """Yield an empty database beside that of the product, and drop it at the end.

    Raises:
        StartupRefused: a database of that name exists that this command has not created, or the server is not supported.
    """
    database = Database(url, name + SUFFIX)
    try:
        await database.check()
        present = await database.raw.list_collection_names()
        if present and MARKER not in present:
            raise StartupRefused(
                f"the database {name + SUFFIX} exists, but was not created by this command; drop or rename it first"
            )
        await database.client.drop_database(database.raw.name)
        await database.raw.create_collection(MARKER)
        try:
            yield database
        finally:
            await database.client.drop_database(database.raw.name)
    finally:
        await database.close()


async def fill(database: Database, entries: int, progress: Progress) -> Sample:
    """Write about `entries` entries and the documents that belong to them, and then create the indexes of the product."""
    writer = _Writer(database, progress)
    generator = _Generator(entries)
    for collection, document in generator.documents():
        await writer.add(collection, document)
    await writer.finish()
    await database.sync_indexes(INDEXES)
    return generator.sample()


class _Writer:
    """Writer of large unordered batches, acknowledged by the primary only, because the data may be lost."""

    def __init__(self, database: Database, progress: Progress) -> None:
        self._raw = database.client.get_database(database.raw.name, write_concern=WriteConcern(1))
        self._pending: dict[str, list[Document]] = {}
        self._progress = progress
        self._entries = 0

    async def finish(self) -> None:
        for collection in list(self._pending):
            await self._flush(collection)

    async def add(self, collection: str, document: Document) -> None:
        pending = self._pending.setdefault(collection, [])
        pending.append(document)
        if len(pending) >= BATCH:
            await self._flush(collection)

    async def _flush(self, collection: str) -> None:
        documents = self._pending.pop(collection)
        await self._raw[collection].insert_many(documents, ordered=False)
        if collection == ENTRIES:
            self._entries += len(documents)
            self._progress(self._entries)


class _Generator:
    """Generator of the documents. The same number of entries gives the same documents."""

    def __init__(self, entries: int) -> None:
        self._remaining = entries
        self._hot_size = entries // HOT_SHARE
        self._rng = random.Random(SEED)
        self._members = 0
        self._hot: Wallet | None = None
        self._collector = ""
        self._quiet: list[Wallet] = []
        self._refused: list[tuple[str, bytes]] = []

    def sample(self) -> Sample:
        assert self._hot is not None
        return Sample(self._hot, self._collector, tuple(self._quiet), tuple(self._refused), self._members)

    def documents(self) -> Iterator[tuple[str, Document]]:
        yield from _fixed()
        yield from offers()
        yield from batches()
        while self._remaining > 0:
            number, owner = self._members, f"mem_{START_MS + self._members:012x}{self._rng.getrandbits(80):020x}"
            self._members += 1
            yield from _member(number, owner)
            if number % 10 == 2:
                yield from _identity(number, owner)
                yield from _privacy(number, owner)
            if number % 10 == 2 or number == 1:
                yield from vouchers(owner, VOUCHERS_OF_HOT if number == 1 else VOUCHERS_EACH)
            if number == 0:
                assets, self._collector = [f"A{asset:02}" for asset in range(COLLECTOR_WALLETS)], owner
            else:
                assets = ["PTS", "GBP"] if number % 10 == 0 else ["PTS"]
            for asset in assets:
                size = self._hot_size if number == 1 else self._rng.choice(SIZES)
                yield from self._wallet(owner, asset, min(size, self._remaining), number)
            if number % 5 == 0:
                yield from self._refusal(owner, number)
            if number % 2 == 0:
                yield EVENTS, _event(number, owner)

    def _wallet(self, owner: str, asset: str, size: int, number: int) -> Iterator[tuple[str, Document]]:
        if size <= 0:
            return
        self._remaining -= size
        wallet = Wallet(f"{owner}:{asset}", owner, size)
        if number == 1:
            self._hot = wallet
            yield CLOCKS, {"_id": CLOCK_ID, "offset_ms": 0}
            lease = {"process": "one", "number": 1, "accounts": [wallet.id], "until": to_datetime(NOW_MS)}
            yield CONTENTION_LEASES, {"_id": QUEUE_ID, "line": [lease], "took_ms": 20}
        elif number % 50 == 2:
            self._quiet.append(wallet)
        balance = 0
        for seq in range(1, size + 1):
            balance += 10 if seq % 2 else -3
            entry = self._entry(wallet, asset, seq, balance)
            if number % 25 == 2 and seq == size:
                entry = msgspec.structs.replace(entry, kind="expiry", lots=(Lot(entry.amount, "promotional", None, entry.at),))
            yield ENTRIES, encode(entry)
        dated = number % 20 == 3
        due_at = NOW_MS + (number % 1000 - 10) * 3_600_000 if dated else None
        lots = (Lot(1, "promotional", None, due_at),) if dated else None
        account = Account(
            wallet.id,
            owner,
            asset,
            WALLET,
            balance,
            seq=size,
            head=self._rng.randbytes(32),
            opened_at=START_MS,
            lots=lots,
            due_at=due_at,
        )
        yield ACCOUNTS, encode(account)
        if number % 10 == 2:
            yield HOLD_DOCUMENTS, _hold(wallet, asset, number)
        if number % 25 == 2:
            yield REVERSALS, {"_id": transaction_id(wallet.id, 1), "owner": owner, "reversed": 1, "at": NOW_MS}
            if asset == "PTS":
                yield MEMBER_STATES, _member_state(owner, number)
                yield from segments.rows_of(owner, number)
                for change in range(1, 4):
                    yield TIER_CHANGES, {"_id": f"{owner}#{change:06}", "owner": owner, "after": "gold", "at": START_MS}
                yield REFUNDS, {"_id": refund_of(owner), "owner": owner, "count": 1, "amount": 1, "taken": {}}
                yield EVENT_VOIDS, {"_id": refund_of(owner), "owner": owner, "event": "order-1", "recorded_at": NOW_MS}
                yield EXPIRED_LOTS, {"_id": expired_lot_of(owner), "owner": owner, "count": 1, "counted": 1}

    def _entry(self, wallet: Wallet, asset: str, seq: int, balance: int) -> Entry:
        key, reference = f"key-{seq}", reference_of(seq)
        unique_keys = [unique_key(wallet.owner, "key", ACTOR, f"{asset}-{key}")]
        if reference is not None:
            unique_keys.append(unique_key(wallet.owner, "reference", f"{asset}-{reference}"))
        is_credit = seq % 2 == 1
        return Entry(
            id=entry_id(wallet.id, seq),
            owner=wallet.owner,
            asset=asset,
            kind="credit" if is_credit else "debit",
            amount=10 if is_credit else -3,
            balance_after=balance,
            held_after=0,
            counterparty=ISSUER if is_credit else MERCHANT,
            actor=ACTOR,
            at=START_MS + seq * STEP_MS,
            prev=self._rng.randbytes(32),
            hash=self._rng.randbytes(32),
            reason="bought at the point of sale" if reference else None,
            reference=reference,
            key=f"{asset}-{key}",
            fingerprint=self._rng.randbytes(16),
            unique_keys=unique_keys,
        )

    def _refusal(self, owner: str, number: int) -> Iterator[tuple[str, Document]]:
        key = unique_key(owner, "key", ACTOR, "refused")
        if number % 50 == 0:
            self._refused.append((owner, key))
        refusal = RecordedRefusal(
            REFUSAL + key.hex(), owner, [key], key[:16], "insufficient-funds", "5 are spendable", {"available": 5}
        )
        # In the far future, so that MongoDB does not delete the refusals during the run.
        yield ENTRIES, {**encode(refusal), "expires_at": to_datetime(NOW_MS * 2 + number)}


def reference_of(seq: int) -> str | None:
    """Return the reference of an entry, or None; every third entry has one."""
    return f"order-{seq}" if seq % 3 == 0 else None


def _member(number: int, owner: str) -> Iterator[tuple[str, Document]]:
    claims = [claim_of("email", number), claim_of("external_id", number)]
    yield (
        MEMBERS,
        {
            "_id": owner,
            "sealed": sealed_of(owner, 120),
            "claims": claims,
            "password_hash": None,
            "role": "member",
            "created_at": START_MS + number,
        },
    )
    yield PERSON_KEYS, {"_id": owner, "wrapped": sealed_of(owner), "created_at": START_MS + number}
    session = session_of(owner)
    yield (
        SESSIONS,
        {
            "_id": session,
            "member": owner,
            "family": session.encode(),
            "current": session.encode(),
            "created_at": START_MS,
            "used_at": START_MS,
            "ends_at": NOW_MS * 2,
            "expires_at": to_datetime(NOW_MS * 2 + number),
        },
    )
    for claim in claims:
        expiry = {"expires_at": to_datetime(NOW_MS * 2 + number)} if number % 10 == 2 else {}
        yield CLAIMS, {"_id": claim, "member": owner, "created_at": START_MS + number, **expiry}


def _privacy(number: int, owner: str) -> Iterator[tuple[str, Document]]:
    """Yield the documents of an export and of an erasure of the same member, which is sufficient for plans."""
    yield EXPORTS, {"_id": owner, "not_before": START_MS}
    for collection in (ERASING, ERASURES):
        yield collection, {"_id": owner, "asked_at": START_MS, "asked_by": owner, "request_id": "req_explain"}
    yield (
        AUDIT,
        {"_id": 1000 + number, "at": START_MS, "phase": "asked", "actor": owner, "action": "exportMember", "about": [owner]},
    )


def _identity(number: int, owner: str) -> Iterator[tuple[str, Document]]:
    """Yield a password reset and a second factor. Half of the mails are delivered."""
    yield (
        FACTORS,
        {"_id": owner, "sealed": sealed_of(owner), "last_step": 0, "codes": [owner.encode()], "tries": 0, "tries_end_at": 0},
    )
    expires_at = to_datetime(NOW_MS * 2 + number)
    yield RESETS, {"_id": owner, "secret_sha256": owner.encode(), "ends_at": NOW_MS * 2, "expires_at": expires_at}
    mail = {
        "_id": outbox_id_of(owner),
        "kind": "mail",
        "owner": owner,
        "channel": "mail",
        "created_at": NOW_MS,
        "ends_at": NOW_MS * 2,
    }
    delivery = {"due_at": NOW_MS, "sealed": sealed_of(outbox_id_of(owner))} if number % 20 == 2 else {"delivered_at": NOW_MS}
    yield OUTBOX, {**mail, **delivery, "tries": 1, "expires_at": expires_at}


def _hold(wallet: Wallet, asset: str, number: int) -> Document:
    return {
        "_id": hold_id(wallet.id, 1),
        "owner": wallet.owner,
        "account": wallet.id,
        "asset": asset,
        "amount": 5,
        "captured": 0,
        "left": 5,
        "status": "held" if number % 20 == 2 else "captured",
        "expires_at": NOW_MS,
        "created_at": START_MS,
        "created_by": ACTOR,
    }


def _event(number: int, owner: str) -> Document:
    return {
        "_id": event_of(number),
        "owner": owner,
        "type": "purchase",
        "occurred_at": START_MS + number,
        "amount": 13912,
        "currency": "GBP",
        "items": [{"sku": f"SKU-{number % 1000}", "quantity": 1, "unit_price": 13912}],
        "attributes": {},
        "fingerprint": number.to_bytes(16),
        "recorded_at": START_MS + number,
        "recorded_by": ACTOR,
        "awards": [],
        "decisions": [],
        "proof": {"number": 1, "prev": "0" * 64},
    }


def claim_of(kind: str, number: int) -> str:
    """Return the id of a claim, as long as a real one with its keyed digest."""
    return f"{kind}:shopper-{number:035}"


def sealed_of(name: str, size: int = 68) -> bytes:
    """Return random bytes, as long as a sealed key."""
    return random.Random(name).randbytes(size)


def session_of(owner: str) -> str:
    """Return the id of the only session of a member."""
    return f"{owner}:{'s' * 12}"


def outbox_id_of(owner: str) -> str:
    return f"{owner}:evt_{'e' * 32}:mail"


def event_of(number: int) -> str:
    return f"order-{number}"


def expired_lot_of(owner: str) -> str:
    return f"{owner}:PTS/{NOW_MS}"


def refund_of(owner: str) -> str:
    return f"{owner}/order-1"


def campaign_of(number: int) -> str:
    return f"cmp_{number:032x}"


def export_of(number: int) -> str:
    return f"exp_{number:032x}"


def simulation_of(number: int) -> str:
    return f"sim_{number:032x}"


def _member_state(owner: str, number: int) -> Document:
    """Return a member state; every second one has a tier that expires."""
    state = {"_id": owner, "owner": owner, "count": 1, "purchases": 1, "last_purchase_at": START_MS, "tier_version": 3}
    return {**state, "tier": "gold", "due_at": NOW_MS + number * 3_600_000} if number % 50 == 2 else state


CAMPAIGN_COUNT, CAMPAIGNS_ACTIVE = 1000, 20
SIMULATION_COUNT, EXPORT_COUNT = 200, 300


def _fixed() -> Iterator[tuple[str, Document]]:
    """Yield the documents whose number does not depend on the number of entries."""
    for number in range(CAMPAIGN_COUNT):
        status = "active" if number % (CAMPAIGN_COUNT // CAMPAIGNS_ACTIVE) == 0 else "paused" if number % 2 else "draft"
        campaign = {"_id": campaign_of(number), "version": 1, "status": status, "name": "a campaign", "changed_at": START_MS}
        yield CAMPAIGNS, campaign
        yield CAMPAIGN_VERSIONS, {"_id": f"{campaign_of(number)}/1", "campaign": campaign}
    for number in range(COLLECTOR_WALLETS):
        yield ASSETS, {"_id": f"A{number:02}", "scale": 0, "created_at": START_MS}
    for number in range(50):
        rate = f"A{number:02}-A{number + 1:02}"
        yield RATES, {"_id": rate, "version": 1, "from_amount": 100, "to_amount": 1, "created_at": START_MS}
        yield RATE_VERSIONS, {"_id": f"{rate}/1", "version": 1, "from_amount": 100, "to_amount": 1, "created_at": START_MS}
    for number in range(100):
        yield SERVICE_KEYS, {"_id": f"key{number:03}", "name": "a key", "created_at": START_MS + number, "revoked_at": None}
        yield AUDIT, {"_id": number + 1, "at": START_MS + number, "phase": "asked", "actor": "terminal", "action": "keys create"}
        yield CHECKPOINTS, {"_id": number + 1, "jws": "not a signature", "made_at": START_MS + number}
    yield from segments.fixed_rows()
    yield from finance.fixed_rows()
    yield from money.fixed_rows()
    yield from activity.fixed_rows()
    yield from views.fixed_rows()
    yield LOOKUP_KEYS, {"_id": "claims", "wrapped": sealed_of("claims"), "created_at": START_MS}
    yield TIER_SETS, {"_id": PROGRAMME, "owner": PROGRAMME, "count": 3, "versions": []}
    yield TIER_SETS, {"_id": WALK, "version": 3, "after": None}
    yield TIER_SET_VERSIONS, {"_id": 3, "tiers": {"version": 3}}
    for number in range(SIMULATION_COUNT):
        lane = {"lane": number % 3} if number % 10 == 0 else {}
        yield SIMULATIONS, {"_id": simulation_of(number), "status": "running" if lane else "done", "page": 1, **lane}
    for number in range(100):
        yield SIMULATED_MEMBERS, {"_id": f"{simulation_of(0)}/{number:03}", "got": [number, 0, number, 0]}
        yield SIMULATED_PURCHASES, {"_id": f"{simulation_of(0)}/{event_of(number)}", "awards": []}
    yield from _exports()
    for name in ("sweep", "checkpoint"):
        yield LEASES, {"_id": name, "holder": "wrk_1", "expires_at": NOW_MS, "due_at": NOW_MS, "failures": 0, "last_run_at": 0}


def _exports() -> Iterator[tuple[str, Document]]:
    """Yield exports: a tenth is open, and most of the others have a file, some of them with members."""
    for number in range(EXPORT_COUNT):
        row: Document = {
            "_id": export_of(number),
            "created_by": ACTOR,
            "epoch": 1,
            "stored": 100,
            "wrapped": sealed_of(export_of(number)),
        }
        if number % 10 == 0:
            yield EXPORT_JOBS, {**row, "status": "waiting", "lane": number % 3}
        elif number % 3 == 0:
            yield EXPORT_JOBS, {**row, "status": "expired", "remove_at": to_datetime(NOW_MS + number)}
        else:
            members = {"members": True} if number % 30 == 1 else {}
            yield (
                EXPORT_JOBS,
                {**row, "status": "done", "due_at": NOW_MS + number, "remove_at": to_datetime(NOW_MS + number), **members},
            )
            yield EXPORT_CHUNKS, {"_id": f"{export_of(number)}/000001/00000000", "data": b"sealed"}
