"""BANK-1: the total never changes, whoever looks, whenever. BANK-0: a ledger with a planted bug is caught."""

import asyncio
import json
import random
import time
from typing import Any

import msgspec
import pytest

from guerdon.app import Services
from guerdon.database import Database
from guerdon.ledger.models import Account, Entry, entry_hash, entry_id
from guerdon.ledger.store import ACCOUNTS, ENTRIES, decode_account, decode_entry, encode
from guerdon.ledger.verify import verify
from tests.invariants.books import assert_laws
from tests.invariants.company import answer, fresh_key, open_wallets, read_books
from tests.invariants.model import Spec

WALLETS, BALANCE, CLIENTS, READERS, SECONDS = 10, 100, 8, 2, 20.0
SEED = 20_261_122
pytestmark = [pytest.mark.trust, pytest.mark.timeout(300)]


async def read_all(services: Services, wallets: list[str]) -> dict[str, int]:
    """All wallets in one snapshot."""
    async with services.database.client.start_session(snapshot=True) as session:
        cursor = services.database.raw.client[services.database.raw.name][ACCOUNTS].find({"_id": {"$in": wallets}}, session=session)
        return {row["_id"]: row["balance"] async for row in cursor}


async def test_bank(services: Services, other_services: Services) -> None:
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
    assert counts["bad_reads"] == 0
    assert counts["reads"] >= 1000
    assert min(counts["moved"], counts["refused"], counts["repeated"]) > 0
    print(json.dumps({"check": "BANK-1", "seed": SEED, "seconds": SECONDS, **counts, "result": "ok"}))


async def append(database: Database, wallet: str, **changes: Any) -> None:
    """What a faulty ledger would commit: the chain and the account fit, the entry does not."""
    document = await database.raw[ACCOUNTS].find_one({"_id": wallet})
    assert document is not None
    account: Account = decode_account(document)
    last = await database.raw[ENTRIES].find_one({"_id": entry_id(wallet, account.seq)})
    assert last is not None
    entry: Entry = msgspec.structs.replace(
        decode_entry(last),
        id=entry_id(wallet, account.seq + 1),
        prev=account.head,
        once=None,
        key=None,
        reference=None,
        fingerprint=None,
    )
    entry = msgspec.structs.replace(entry, **changes)
    entry = msgspec.structs.replace(entry, hash=entry_hash(entry))
    await database.raw[ENTRIES].insert_one(encode(entry))
    moved = {"balance": entry.balance_after, "seq": account.seq + 1, "head": entry.hash}
    await database.raw[ACCOUNTS].update_one({"_id": wallet}, {"$set": moved})


PLANTED = ["overdraft", "lost update", "half a transfer", "key twice", "money from nowhere"]


@pytest.mark.parametrize("bug", PLANTED)
async def test_a_planted_bug_is_caught(services: Services, bug: str) -> None:
    """Every hash fits, since the ledger itself was wrong: only the laws about the amounts can tell."""
    wallet, other = await open_wallets(services, 2, BALANCE)
    spec = Spec("debit", wallet, 10, fresh_key())
    assert (await answer(services, spec)).code is None
    assert (await verify(services.database)).violations == 0
    database = services.database
    plain: dict[str, Any] = {"transaction": "txn_" + "f" * 32, "kind": "debit"}
    if bug == "overdraft":
        await append(database, wallet, **plain, amount=-95, balance_after=-5)
        law = "L3"
    elif bug == "lost update":
        await append(database, wallet, **plain, amount=-5, balance_after=95)
        law = "L2"
    elif bug == "half a transfer":
        await append(database, wallet, **{**plain, "kind": "transfer"}, amount=-5, balance_after=85, counter=other)
        law = "L1"
    elif bug == "key twice":
        first = decode_entry(await database.raw[ENTRIES].find_one({"_id": entry_id(wallet, 2)}) or {})
        await database.raw[ENTRIES].drop_index("once")
        kept = {"key": first.key, "once": first.once, "fingerprint": first.fingerprint}
        await append(database, wallet, **plain, amount=-10, balance_after=80, **kept)
        law = "L4"
    else:
        await database.raw[ACCOUNTS].update_one({"_id": wallet}, {"$inc": {"balance": 5}})
        law = "L2"
    report = await verify(database)
    await database.raw[ENTRIES].delete_many({})
    assert set(report.first) == {law}, report.first
    print(json.dumps({"check": "BANK-0", "bug": bug, "law": law, "violations": report.violations, "result": "ok"}))
