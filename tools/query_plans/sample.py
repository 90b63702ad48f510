"""A database to look at plans on: made, filled with documents of the product's shapes, and dropped at the end.

The books in it do not balance and their hashes are random: nothing here is verified, it is only found. What matters for a plan is what
is stored beside what: ids, owners, marks, dates, and how many entries a wallet has.
"""

import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager

from msgspec import Struct
from pymongo import WriteConcern

from guerdon.access.models import SERVICE_KEYS
from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS
from guerdon.clock import to_datetime
from guerdon.collections import INDEXES
from guerdon.database import Database, Document
from guerdon.errors import StartupRefused
from guerdon.ledger.contention import CONTENTION_LEASES
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
from tools.query_plans.code_sample import batches
from tools.query_plans.voucher_sample import VOUCHERS_EACH, VOUCHERS_OF_THE_HOT, offers, vouchers

SUFFIX, MARKER = "_explain", "made_by_guerdon_explain"
SEED = 20_261_122
BATCH = 2000
HOT_SHARE = 10
"""One wallet has this part (a tenth) of all entries."""
COLLECTOR_WALLETS = 100
SIZES = (1, 2, 3, 5, 8, 13, 20)
"""How many entries the other wallets have."""
START_MS, STEP_MS = 1_735_689_600_000, 60_000
"""2025-01-01; a minute between two entries of a wallet."""
NOW_MS = START_MS + 730 * 86_400_000
ACTOR = "key_explain"
Tell = Callable[[int], None]
"""Told how many entries were written."""


class Wallet(Struct, frozen=True):
    """A wallet of the sample."""

    id: str
    owner: str
    seq: int


class Sample(Struct, frozen=True):
    """What was written, as far as the parameters of queries need it."""

    hot: Wallet
    collector: str
    """A member with a hundred wallets."""
    quiet: tuple[Wallet, ...]
    """Wallets of everybody else; one in fifty is remembered."""
    refused: tuple[tuple[str, bytes], ...]
    """(owner, mark) of some refusals."""
    members: int


@asynccontextmanager
async def scratch_database(url: str, name: str) -> AsyncGenerator[Database]:
    """Yield an empty database beside the product's; drop it at the end, whatever happens.

    Raises:
        StartupRefused: there is one of that name that this command has not made, or the server is not fit.
    """
    database = Database(url, name + SUFFIX)
    try:
        await database.check()
        present = await database.raw.list_collection_names()
        if present and MARKER not in present:
            raise StartupRefused(f"the database {name + SUFFIX} exists and was not made by this command; it is left alone")
        await database.client.drop_database(database.raw.name)
        await database.raw.create_collection(MARKER)
        try:
            yield database
        finally:
            await database.client.drop_database(database.raw.name)
    finally:
        await database.close()


async def fill(database: Database, entries: int, tell: Tell) -> Sample:
    """Write about so many entries and everything that belongs to them; the product's indexes are made at the end."""
    writer = _Writer(database, tell)
    maker = _Maker(entries)
    for collection, document in maker.documents():
        await writer.add(collection, document)
    await writer.finish()
    await database.sync_indexes(INDEXES)
    return maker.sample()


class _Writer:
    """Inserts in large unordered batches, acknowledged by the primary alone: this data may be lost."""

    def __init__(self, database: Database, tell: Tell) -> None:
        self._raw = database.client.get_database(database.raw.name, write_concern=WriteConcern(1))
        self._waiting: dict[str, list[Document]] = {}
        self._tell = tell
        self._entries = 0

    async def finish(self) -> None:
        for collection in list(self._waiting):
            await self._flush(collection)

    async def add(self, collection: str, document: Document) -> None:
        waiting = self._waiting.setdefault(collection, [])
        waiting.append(document)
        if len(waiting) >= BATCH:
            await self._flush(collection)

    async def _flush(self, collection: str) -> None:
        documents = self._waiting.pop(collection)
        await self._raw[collection].insert_many(documents, ordered=False)
        if collection == ENTRIES:
            self._entries += len(documents)
            self._tell(self._entries)


class _Maker:
    """Makes the documents, always the same ones for a number of entries."""

    def __init__(self, entries: int) -> None:
        self._left = entries
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
        while self._left > 0:
            number, owner = self._members, f"mem_{START_MS + self._members:012x}{self._rng.getrandbits(80):020x}"
            self._members += 1
            yield from _member(number, owner)
            if number % 10 == 2:
                yield from _forgetful(number, owner)
                yield from _private(number, owner)
            if number % 10 == 2 or number == 1:
                yield from vouchers(owner, VOUCHERS_OF_THE_HOT if number == 1 else VOUCHERS_EACH)
            if number == 0:
                assets, self._collector = [f"A{asset:02}" for asset in range(COLLECTOR_WALLETS)], owner
            else:
                assets = ["PTS", "GBP"] if number % 10 == 0 else ["PTS"]
            for asset in assets:
                size = self._hot_size if number == 1 else self._rng.choice(SIZES)
                yield from self._wallet(owner, asset, min(size, self._left), number)
            if number % 5 == 0:
                yield from self._refusal(owner, number)
            if number % 2 == 0:
                yield EVENTS, _event(number, owner)

    def _wallet(self, owner: str, asset: str, size: int, number: int) -> Iterator[tuple[str, Document]]:
        if size <= 0:
            return
        self._left -= size
        wallet = Wallet(f"{owner}:{asset}", owner, size)
        if number == 1:
            self._hot = wallet
            yield CLOCKS, {"_id": CLOCK_ID, "offset_ms": 0}
            yield CONTENTION_LEASES, {"_id": wallet.id, "holder": "one", "line": [], "until": to_datetime(NOW_MS), "took_ms": 20}
        elif number % 50 == 2:
            self._quiet.append(wallet)
        balance = 0
        for seq in range(1, size + 1):
            balance += 10 if seq % 2 else -3
            yield ENTRIES, encode(self._entry(wallet, asset, seq, balance))
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
                yield MEMBER_STATES, _standing(owner, number)
                for change in range(1, 4):
                    yield TIER_CHANGES, {"_id": f"{owner}#{change:06}", "owner": owner, "after": "gold", "at": START_MS}
                yield REFUNDS, {"_id": refund_of(owner), "owner": owner, "count": 1, "amount": 1, "taken": {}}

    def _entry(self, wallet: Wallet, asset: str, seq: int, balance: int) -> Entry:
        key, reference = f"key-{seq}", reference_of(seq)
        marks = [unique_key(wallet.owner, "key", ACTOR, f"{asset}-{key}")]
        if reference is not None:
            marks.append(unique_key(wallet.owner, "reference", f"{asset}-{reference}"))
        comes = seq % 2 == 1
        return Entry(
            id=entry_id(wallet.id, seq),
            owner=wallet.owner,
            asset=asset,
            kind="credit" if comes else "debit",
            amount=10 if comes else -3,
            balance_after=balance,
            held_after=0,
            counterparty=ISSUER if comes else MERCHANT,
            actor=ACTOR,
            at=START_MS + seq * STEP_MS,
            prev=self._rng.randbytes(32),
            hash=self._rng.randbytes(32),
            reason="bought at the till" if reference else None,
            reference=reference,
            key=f"{asset}-{key}",
            fingerprint=self._rng.randbytes(16),
            unique_keys=marks,
        )

    def _refusal(self, owner: str, number: int) -> Iterator[tuple[str, Document]]:
        mark = unique_key(owner, "key", ACTOR, "refused")
        if number % 50 == 0:
            self._refused.append((owner, mark))
        refusal = RecordedRefusal(
            REFUSAL + mark.hex(), owner, [mark], mark[:16], "insufficient-funds", "5 are spendable", {"available": 5}
        )
        # Far ahead: MongoDB must not delete them while they are looked at.
        yield ENTRIES, {**encode(refusal), "expires_at": to_datetime(NOW_MS * 2 + number)}


def reference_of(seq: int) -> str | None:
    """Every third entry has a reference."""
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
        ends = {"expires_at": to_datetime(NOW_MS * 2 + number)} if number % 10 == 2 else {}
        yield CLAIMS, {"_id": claim, "member": owner, "created_at": START_MS + number, **ends}


def _private(number: int, owner: str) -> Iterator[tuple[str, Document]]:
    """Somebody who was exported, and somebody who is being forgotten: for the plans it may be the same one."""
    yield EXPORTS, {"_id": owner, "not_before": START_MS}
    for collection in (ERASING, ERASURES):
        yield collection, {"_id": owner, "asked_at": START_MS, "asked_by": owner, "request_id": "req_explain"}
    yield (
        AUDIT,
        {"_id": 1000 + number, "at": START_MS, "phase": "asked", "actor": owner, "action": "exportMember", "about": [owner]},
    )


def _forgetful(number: int, owner: str) -> Iterator[tuple[str, Document]]:
    """Somebody who has asked for a new password, and is about to have a second factor; half of the letters have left."""
    yield (
        FACTORS,
        {"_id": owner, "sealed": sealed_of(owner), "last_step": 0, "codes": [owner.encode()], "tries": 0, "tries_end_at": 0},
    )
    expires_at = to_datetime(NOW_MS * 2 + number)
    yield RESETS, {"_id": owner, "secret_sha256": owner.encode(), "ends_at": NOW_MS * 2, "expires_at": expires_at}
    told = {
        "_id": told_of(owner),
        "kind": "a letter",
        "owner": owner,
        "channel": "mail",
        "created_at": NOW_MS,
        "ends_at": NOW_MS * 2,
    }
    waiting = {"due_at": NOW_MS, "sealed": sealed_of(told_of(owner))} if number % 20 == 2 else {"delivered_at": NOW_MS}
    yield OUTBOX, {**told, **waiting, "tries": 1, "expires_at": expires_at}


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
    }


def claim_of(kind: str, number: int) -> str:
    """As long as a real one, which ends in a keyed digest."""
    return f"{kind}:shopper-{number:035}"


def sealed_of(name: str, size: int = 68) -> bytes:
    """As long as a sealed key; nobody can open it."""
    return random.Random(name).randbytes(size)


def session_of(owner: str) -> str:
    """Everybody is logged in once. The digests of the session's tokens are its id."""
    return f"{owner}:{'s' * 12}"


def told_of(owner: str) -> str:
    return f"{owner}:evt_{'e' * 32}:mail"


def event_of(number: int) -> str:
    return f"order-{number}"


def refund_of(owner: str) -> str:
    return f"{owner}/order-1"


def campaign_of(number: int) -> str:
    return f"cmp_{number:032x}"


def simulation_of(number: int) -> str:
    return f"sim_{number:032x}"


def _standing(owner: str, number: int) -> Document:
    """Every second one has a tier that lapses."""
    standing = {"_id": owner, "owner": owner, "count": 1, "purchases": 1, "last_purchase_at": START_MS, "tier_version": 3}
    return {**standing, "tier": "gold", "due_at": NOW_MS + number * 3_600_000} if number % 50 == 2 else standing


CAMPAIGN_COUNT, CAMPAIGNS_ACTIVE = 1000, 20
SIMULATION_COUNT = 200


def _fixed() -> Iterator[tuple[str, Document]]:
    """What does not grow with the entries."""
    for number in range(CAMPAIGN_COUNT):
        status = "active" if number % (CAMPAIGN_COUNT // CAMPAIGNS_ACTIVE) == 0 else "paused" if number % 2 else "draft"
        campaign = {"_id": campaign_of(number), "version": 1, "status": status, "name": "a campaign", "changed_at": START_MS}
        yield CAMPAIGNS, campaign
        yield CAMPAIGN_VERSIONS, {"_id": f"{campaign_of(number)}/1", "campaign": campaign}
    for number in range(COLLECTOR_WALLETS):
        yield ASSETS, {"_id": f"A{number:02}", "scale": 0, "created_at": START_MS}
    for number in range(100):
        yield SERVICE_KEYS, {"_id": f"key{number:03}", "name": "a key", "created_at": START_MS + number, "revoked_at": None}
        yield AUDIT, {"_id": number + 1, "at": START_MS + number, "phase": "asked", "actor": "terminal", "action": "keys create"}
        yield CHECKPOINTS, {"_id": number + 1, "jws": "not a signature", "made_at": START_MS + number}
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
    for name in ("sweep", "checkpoint"):
        yield LEASES, {"_id": name, "holder": "wrk_1", "expires_at": NOW_MS, "due_at": NOW_MS, "failures": 0, "last_run_at": 0}
