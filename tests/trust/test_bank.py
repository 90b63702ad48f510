"""BANK-1: the total never changes, whoever looks, whenever. BANK-0: a ledger with a planted bug is caught."""

import asyncio
import json
import random
import time
from typing import Any

import msgspec
import pytest

from guerdon.database import Database
from guerdon.ledger.entry_hash import entry_hash
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import BREAKAGE, MERCHANT, Entry, HoldChange, Lot, entry_id
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS, decode_account, decode_entry, encode
from guerdon.verification.service import verify
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.invariants.balance_model import Spec
from tests.invariants.full_ledger import Shop
from tests.invariants.in_memory_ledger import assert_laws
from tests.invariants.movements import answer, fresh_key, open_wallets, read_books
from tests.trust.figures import record

WALLETS, BALANCE, CLIENTS, READERS, SECONDS = 10, 100, 8, 2, 20.0
SEED = 20_261_122
pytestmark = [pytest.mark.trust, pytest.mark.timeout(300)]


async def read_all(services: Services, wallets: list[str]) -> dict[str, int]:
    """All wallets in one snapshot."""
    async with services.database.client.start_session(snapshot=True) as session:
        cursor = services.database.raw.client[services.database.raw.name][ACCOUNTS].find({"_id": {"$in": wallets}}, session=session)
        return {row["_id"]: row["balance"] async for row in cursor}


async def test_total_never_changes_under_concurrent_transfers(services: Services, other_services: Services) -> None:
    processes = [services, other_services]
    wallets = await open_wallets(services, WALLETS, BALANCE)
    stop = time.monotonic() + SECONDS
    counts = {"moved": 0, "refused": 0, "repeated": 0, "reads": 0, "bad_reads": 0}

    async def client(number: int) -> None:
        rng = random.Random(SEED + number)
        while time.monotonic() < stop:
            source, target = rng.sample(wallets, 2)
            spec = Spec("transfer", source, rng.randint(1, 40), fresh_key(), target)
            got = await answer(processes[number % 2], spec)
            assert got.code in (None, "insufficient-funds")
            counts["moved" if got.code is None else "refused"] += 1
            if rng.random() < 0.1:
                again = await answer(processes[rng.randrange(2)], spec)
                assert (again.code, again.after, again.replayed) == (got.code, got.after, True)
                counts["repeated"] += 1

    async def reader(number: int) -> None:
        while time.monotonic() < stop:
            seen = await read_all(processes[number % 2], wallets)
            counts["reads"] += 1
            counts["bad_reads"] += len(seen) != WALLETS or sum(seen.values()) != WALLETS * BALANCE or min(seen.values()) < 0

    await asyncio.gather(*(client(number) for number in range(CLIENTS)), *(reader(number) for number in range(READERS)))
    report = await verify(services.database)
    assert report.violations == 0, report.first
    accounts, entries = await read_books(services)
    assert_laws(accounts, entries, {})
    assert len(entries) == WALLETS + 2 * counts["moved"]
    assert sum(account.balance for account in accounts.values()) == WALLETS * BALANCE
    record("BANK-1 snapshots with a wrong total", f"{counts['bad_reads']} of {counts['reads']}", "0 of >= 1000")
    assert counts["bad_reads"] == 0
    assert counts["reads"] >= 1000
    assert min(counts["moved"], counts["refused"], counts["repeated"]) > 0
    print(json.dumps({"check": "BANK-1", "seed": SEED, "seconds": SECONDS, **counts, "result": "ok"}))


async def append(database: Database, wallet: str, row: dict[str, Any] | None = None, **changes: Any) -> None:
    """What a faulty ledger would commit: the chain and the account fit, the entry does not. `row` goes onto the account's row."""
    account = decode_account(await found(database, ACCOUNTS, wallet))
    last: Entry = decode_entry(await found(database, ENTRIES, entry_id(wallet, account.seq)))
    plain = dict.fromkeys(
        ("unique_keys", "key", "reference", "fingerprint", "lots", "hold", "terms", "spent", "spendable_after", "attempt"), None
    )
    changes = {"kind": "debit", "counterparty": MERCHANT, "balance_after": account.balance + changes["amount"], **plain, **changes}
    entry: Entry = msgspec.structs.replace(last, id=entry_id(wallet, account.seq + 1), prev=account.head, **changes)
    entry = msgspec.structs.replace(entry, hash=entry_hash(entry))
    await database.raw[ENTRIES].insert_one(encode(entry))
    moved = {"balance": entry.balance_after, "held": entry.held_after, "seq": account.seq + 1, "head": entry.hash, "at": entry.at}
    await database.raw[ACCOUNTS].update_one({"_id": wallet}, {"$set": {**moved, **(row or {})}})


async def found(database: Database, collection: str, row_id: str) -> dict[str, Any]:
    document = await database.raw[collection].find_one({"_id": row_id})
    assert document is not None
    return dict(document)


async def plant(shop: Shop, database: Database, bug: str, wallet: str, other: str) -> str:
    """Let a ledger with this bug do its next thing; return the law that must be named."""
    at = (await found(database, ACCOUNTS, wallet))["at"]
    match bug:
        case "overdraft":
            await append(database, wallet, amount=-95)
            return "L3"
        case "lost update":
            await append(database, wallet, amount=-5, balance_after=95)
            return "L2"
        case "half a transfer":
            await append(database, wallet, kind="transfer", amount=-5, counterparty=other)
            return "L1"
        case "a transfer that arrives twice":
            sent = await shop.transfer(other, wallet, 5)
            again = {"kind": "transfer", "amount": 5, "counterparty": other, "pair": int(sent.rpartition(":")[2])}
            await append(database, wallet, transaction=sent, **again)
            return "L1"
        case "key twice":
            first: Entry = decode_entry(await found(database, ENTRIES, entry_id(wallet, 2)))
            await database.raw[ENTRIES].drop_index("once")
            await append(database, wallet, amount=-10, key=first.key, unique_keys=first.unique_keys, fingerprint=first.fingerprint)
            return "L4"
        case "money from nowhere":
            await database.raw[ACCOUNTS].update_one({"_id": wallet}, {"$inc": {"balance": 5}})
            return "L2"
        case "a frozen wallet moves":
            await shop.post(f"wallets/{wallet}/freeze", 200)
            await append(database, wallet, amount=-1)
            return "L3"
        case "a limit is passed":
            await shop.terms(wallet, day_limit=20)
            await shop.debit(wallet, 15)
            spent = (await found(database, ACCOUNTS, wallet))["spent"]
            await append(database, wallet, amount=-6, spent=(6, 6), row={"spent": {**spent, "in_day": 21, "in_month": 21}})
            return "L3"
        case "a limit is not counted":
            await shop.terms(wallet, day_limit=20)
            await append(database, wallet, amount=-15)
            return "L3"
    return await plant_dated(shop, database, bug, wallet, at)


async def plant_dated(shop: Shop, database: Database, bug: str, wallet: str, at: int) -> str:
    """Faults of lots, holds and refunds."""
    day = 86_400_000
    match bug:
        case "a hold is captured beyond its size":
            hold = (await shop.hold(wallet, 20)).rpartition(":")[2]
            await shop.post(f"holds/hld_{wallet}:{hold}/capture", amount=15)
            held = (await found(database, ACCOUNTS, wallet))["holds"][0]
            change = HoldChange(int(hold), -8, 20, 0, int(held["expires_at"]), 23)
            await append(database, wallet, kind="capture", amount=-8, held_after=-3, hold=change, row={"holds": [], "due_at": None})
            return "L7"
        case "a hold outlives its end":
            await shop.hold(wallet, 20, 60)
            await append(database, wallet, amount=-5, at=at + day, held_after=20)
            return "L10"
        case "the wrong lot first":
            await shop.credit(wallet, 30, expires_at=shop.later(days=9))
            await append(database, wallet, amount=-10)
            return "L7"
        case "a lapsed lot is spent":
            await shop.credit(wallet, 30, expires_at=shop.later(days=9))
            own = (await found(database, ACCOUNTS, wallet))["lots"]
            taken = (Lot(-10, expires_at=int(own[0]["expires_at"])),)
            await append(database, wallet, amount=-10, at=at + 10 * day, lots=taken, row={"lots": [{**own[0], "amount": 20}]})
            return "L7"
        case "a date moves":
            own = [{"amount": 20, "expires_at": at + 9 * day}]
            await append(
                database, wallet, kind="settlement", amount=0, counterparty=BREAKAGE, lots=(Lot(20, expires_at=at + 9 * day),),
                row={"lots": own, "due_at": at + 9 * day},
            )  # fmt: skip
            return "L7"
        case "a refund is counted once and paid twice":
            spent = f"txn_{wallet}:2"
            await shop.post(f"transactions/{spent}/reverse", amount=4)
            await append(database, wallet, kind="reversal", amount=4, reverses=spent)
            return "L5"
        case "more is refunded than was spent":
            spent = f"txn_{wallet}:2"
            await append(database, wallet, kind="reversal", amount=11, reverses=spent)
            owner = wallet.partition(":")[0]
            await database.raw[REVERSALS].insert_one({"_id": spent, "owner": owner, "reversed": 11, "at": at})
            return "L5"
        case "a hold is forgotten":
            hold = await shop.hold(wallet, 20)
            await database.raw[HOLD_DOCUMENTS].delete_one({"_id": hold})
            return "L5"
        case "a side without a first":
            await append(database, wallet, amount=-5, transaction=f"txn_{wallet}:99")
            return "L8"
        case "the sweeper is blind":
            await shop.hold(wallet, 20)
            await database.raw[ACCOUNTS].update_one({"_id": wallet}, {"$unset": {"due_at": ""}})
            return "L10"
    raise AssertionError(bug)


PLANTED = [
    "overdraft", "lost update", "half a transfer", "a transfer that arrives twice", "key twice", "money from nowhere",
    "a frozen wallet moves", "a limit is passed", "a limit is not counted", "a hold is captured beyond its size",
    "a hold outlives its end", "the wrong lot first", "a lapsed lot is spent", "a date moves",
    "a refund is counted once and paid twice", "more is refunded than was spent", "a hold is forgotten", "a side without a first",
    "the sweeper is blind",
]  # fmt: skip


@pytest.mark.parametrize("bug", PLANTED)
async def test_verify_catches_a_planted_ledger_bug(service: Caller, services: Services, clock: ManualClock, bug: str) -> None:
    """Every hash fits, since the ledger itself was wrong: only the laws about the values can tell."""
    wallet, other = await open_wallets(services, 2, BALANCE)
    spec = Spec("debit", wallet, 10, fresh_key())
    assert (await answer(services, spec)).code is None
    assert (await verify(services.database)).violations == 0
    law = await plant(Shop(service, services, clock), services.database, bug, wallet, other)
    report = await verify(services.database)
    record(f"BANK-0 {bug}", " ".join(sorted(report.first)) or "not found", law)
    assert law in report.first, report.first
    assert "L6" not in report.first, report.first
    print(
        json.dumps({"check": "BANK-0", "bug": bug, "laws": sorted(report.first), "violations": report.violations, "result": "ok"})
    )
