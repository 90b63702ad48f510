"""BIT-1: `verify` names every tampering, and nothing else, also while the books are written to."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from guerdon.collections import INDEXES
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.errors import NotFound
from guerdon.ledger.jobs import sweep
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.logs import make_logger
from guerdon.verification.checkpoint_file import Line, append_missing
from guerdon.verification.checkpoints import CHECKPOINTS, write_checkpoint
from guerdon.verification.report import VerificationReport
from guerdon.verification.service import verify, verify_account
from guerdon.verification.vouchers import check_vouchers
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services
from tests.clients import Caller, Log, ManualClock
from tests.invariants.balance_model import Spec
from tests.invariants.full_ledger import KEYS, KINDS, Shop, build
from tests.invariants.in_memory_ledger import without_bytes
from tests.invariants.movements import bulk, fresh_key, open_wallets
from tests.invariants.tampering import TAMPERS, VOUCHER_TAMPERS, Copy
from tests.tidy.test_hashed_fields import GOLDEN

TRIALS = 1
"""`make trust` makes 1,000 trials (tests/trust/test_tampering.py)."""
SEED = 19_700_101
LOAD_SECONDS_MAX = 100.0
UNINDEXED = {"key copied", "success refused"}
"""Whoever can write behind the ledger's back can drop an index as well; `open_services` makes it again."""
_saved: list[Copy] = []


@pytest_asyncio.fixture
async def copy(service: Caller, services: Services, clock: ManualClock) -> Copy:
    """Books that are in order: built once, put back as they were for every other test."""
    if _saved:
        await _saved[0].write(services.database)
        return _saved[0]
    for wallet in await open_wallets(services, 2, 50):
        await bulk(services, [Spec("credit", wallet, 70, fresh_key()), Spec("debit", wallet, 3, fresh_key())], atomic=True)
    await build(Shop(service, services, clock), random.Random(SEED))
    _saved.append(await Copy.of(services.database))
    return _saved[0]


@pytest.fixture
def kept(copy: Copy, tmp_path: Path) -> Path:
    """The checkpoints in a file outside of the database."""
    file = tmp_path / "checkpoints.jsonl"
    assert append_missing(file, [Line(row["_id"], row["jws"]) for row in copy.table(CHECKPOINTS)]) is None
    return file


async def look(database: Database, kept: Path) -> VerificationReport:
    return await verify(database, keys=KEYS, checkpoint_file=kept)


async def test_unchanged_ledger_has_no_violations(services: Services, copy: Copy, kept: Path) -> None:
    report = await look(services.database, kept)
    assert (report.violations, report.first) == (0, {})
    assert (report.accounts, report.entries) == (len(copy.accounts), len(copy.entries))
    assert (report.checkpoints, report.signatures) == (2, "verified")
    assert {row["kind"] for row in copy.entries} == KINDS
    assert any(row["balance_after"] < 0 for row in copy.entries if row["kind"] == "clawback")
    for account in copy.accounts:
        alone = await verify_account(services.database, account["_id"])
        assert (alone.violations, alone.accounts, alone.entries) == (0, 1, account["seq"]), alone.first


def test_the_golden_file_has_an_entry_of_each_kind_and_field(copy: Copy) -> None:
    """When it fails, append the rows that it prints to `tests/golden/entries.json`; never change the rows that are there."""
    lacking: list[str] = []
    kinds, fields = {row["kind"] for row in GOLDEN}, set[str]().union(*GOLDEN)
    for row in copy.entries:
        if row["kind"] not in kinds or not fields.issuperset(row):
            kinds.add(row["kind"])
            fields.update(row)
            lacking.append(json.dumps(without_bytes(row), ensure_ascii=False))
    assert lacking == [], "append to tests/golden/entries.json:\n" + "\n".join(lacking)


@pytest.mark.parametrize("name", TAMPERS)
async def test_tampering_is_named(services: Services, copy: Copy, kept: Path, name: str) -> None:
    """Several times at random places; the laws that it breaks are named, and the books are clean again when it is taken back."""
    tamper, laws = TAMPERS[name]
    rng = random.Random(f"{SEED} {name}")
    missed = []
    if name in UNINDEXED:
        await services.database.raw[ENTRIES].drop_index("once")
    for trial in range(TRIALS):
        changes = tamper(rng, copy)
        await copy.put(services.database, changes)
        report = await look(services.database, kept)
        if not (report.violations and laws <= set(report.first)):
            missed.append((trial, changes, report.first))
        await copy.restore(services.database, changes)
    clean = await look(services.database, kept)
    assert (clean.violations, clean.first) == (0, {})
    if name in UNINDEXED:
        await services.database.raw[ENTRIES].delete_many({})
        await services.database.sync_indexes(INDEXES)
    assert missed == [], f"{len(missed)} of {TRIALS} missed with seed {SEED}: {missed[0]}"


async def test_vouchers_are_checked_against_their_accounts(services: Services, copy: Copy) -> None:
    """L11 alone, which is all that could tell most of it."""
    missed = []
    for name, tamper in VOUCHER_TAMPERS.items():
        rng = random.Random(f"{SEED} {name}")
        for trial in range(3):
            changes = tamper(rng, copy)
            await copy.put(services.database, changes)
            if "L11" not in (report := await look_at_vouchers(services.database)).first:
                missed.append((name, trial, changes, report.first))
            await copy.restore(services.database, changes)
    assert missed == [], f"{len(missed)} missed with seed {SEED}: {missed[0]}"
    assert (await look_at_vouchers(services.database)).first == {}


async def look_at_vouchers(database: Database) -> VerificationReport:
    report = VerificationReport()
    async for _ in check_vouchers(database, "", report.add):
        pass
    return report


def test_at_least_100_kinds_of_tampering_are_tried() -> None:
    assert len(TAMPERS) >= 100


async def test_the_first_bad_entry_is_named(services: Services, copy: Copy, kept: Path) -> None:
    account = max(copy.accounts, key=lambda row: row["seq"])
    chain = copy.chain(account["_id"])
    middle = next(row for row in chain[len(chain) // 2 :] if row["kind"] == "debit")
    await copy.put(services.database, [(ENTRIES, middle["_id"], {**middle, "amount": middle["amount"] - 1})])
    report = await look(services.database, kept)
    named = {law: violation.where for law, violation in report.first.items()}
    assert (named["L2"], named["L6"]) == (middle["_id"], middle["_id"])
    assert set(named) <= {"L2", "L6", "L7"}, "the amount is not what the lots say either"


async def test_one_wallet_is_verified_alone(services: Services, copy: Copy) -> None:
    """What is wrong elsewhere does not matter, except on the other side of its own transfers."""
    database = services.database
    row = next(row for row in copy.entries if row["kind"] == "transfer" and row["amount"] < 0)
    one, other = row["_id"].rpartition("#")[0], row["counter"]
    debit = next(row for row in copy.chain(other) if row["kind"] == "debit")
    await copy.put(database, [(ENTRIES, debit["_id"], {**debit, "actor": "key_nobody"})])
    assert (await verify_account(database, one)).violations == 0
    assert set((await verify_account(database, other)).first) == {"L6", "L4"}, "the actor is in the mark of the key as well"
    await copy.restore(database, [(ENTRIES, debit["_id"], None)])
    await copy.put(database, [(ENTRIES, f"{other}#{row['pair']:012d}", None)])
    assert "L1" in (await verify_account(database, one)).first
    with pytest.raises(NotFound):
        await verify_account(database, "mem_" + "0" * 32 + ":PTS")
    await database.raw[ACCOUNTS].update_one({"_id": other}, {"$set": {"balance": "a lot"}})
    assert "L6" in (await verify_account(database, other)).first


@pytest_asyncio.fixture
async def second(
    other_services: Services, settings: Settings, log: Log, clock: ManualClock, service: Caller
) -> AsyncIterator[Caller]:
    """A caller of the second process."""
    app = build_app(other_services, settings, make_logger(clock, "info", log))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://second") as client:
        yield Caller(client, service.token)


async def write_something(caller: Caller, rng: random.Random, shop: Shop, wallets: list[str], done: list[dict[str, Any]]) -> int:
    """One request of any kind; return its status."""
    wallet, other = rng.sample(wallets, 2)
    amount = rng.randint(1, 9)
    before = rng.choice(done) if done else {"id": "txn_none"}
    path, body = rng.choice(
        [
            (f"wallets/{wallet}/credit", {"amount": amount, "expires_at": shop.later(seconds=rng.choice([0.5, 60]))}),
            (f"wallets/{wallet}/credit", {"amount": amount, "available_at": shop.later(seconds=rng.choice([0.5, 60]))}),
            *[(f"wallets/{wallet}/debit", {"amount": amount, "reference": f"order-{rng.random()}"})] * 3,
            *[("transfers", {"from": wallet, "to": other, "amount": amount})] * 4,
            *[("holds", {"wallet": wallet, "amount": amount, "expires_in_seconds": rng.choice([1, 600])})] * 2,
            (f"holds/{before['id']}/capture", {"amount": 1, "final": rng.random() < 0.3}),
            (f"holds/{before['id']}/void", {}),
            *[(f"transactions/{before.get('transaction_id', before['id'])}/reverse", {"amount": 1})] * 2,
            (f"wallets/{wallet}/{rng.choice(['freeze', 'unfreeze', 'unfreeze'])}", {}),
        ]
    )
    answer = await caller.post(f"/v1/{path}", body)
    if answer.status_code == 201:
        done.append(answer.json())
    if answer.status_code == 422:
        # On a busy machine half a second has passed before the request is read, and a date in the past is refused.
        assert {error["pointer"] for error in answer.json()["errors"]} <= {"/expires_at", "/available_at"}
    return answer.status_code


async def test_verification_during_writes_reports_no_violation(
    service: Caller, second: Caller, services: Services, other_services: Services, clock: ManualClock
) -> None:
    """Two processes do everything, sweep and sign checkpoints of the books as they were before, while `verify` looks again and again."""
    shop = Shop(service, services, clock)
    wallets = [await shop.wallet({"amount": 1000}) for _ in range(8)]
    await shop.checkpoint()
    counts: Counter[str] = Counter()
    done: list[dict[str, Any]] = []
    deadline = time.monotonic() + LOAD_SECONDS_MAX

    def enough() -> bool:
        assert time.monotonic() < deadline, counts
        return counts["looks"] >= 8 and counts["201"] >= 250

    async def write(caller: Caller, seed: int) -> None:
        rng = random.Random(seed)
        while not enough():
            status = await write_something(caller, rng, shop, wallets, done)
            assert status in {200, 201, 404, 409, 422}
            counts[str(status)] += 1
            if rng.random() < 0.03:
                wallets.append(await Shop(caller, services, clock).wallet({"amount": 50}))

    async def look_again() -> None:
        while not enough():
            report = await verify(services.database, keys=KEYS)
            assert (report.violations, report.first) == (0, {})
            counts["looks"] += 1
            for wallet in wallets[:2]:
                alone = await verify_account(other_services.database, wallet)
                assert (alone.violations, alone.first) == (0, {})

    async def tidy_up() -> None:
        while not enough():
            counts["swept"] += await sweep(services.ledger, services.database, clock)
            counts["signed"] += await write_checkpoint(other_services.database, clock, KEYS, None)
            await asyncio.sleep(0.2)

    await asyncio.gather(look_again(), tidy_up(), *(write([service, second][seed % 2], seed) for seed in range(6)))
    report = await verify(services.database, keys=KEYS)
    assert (report.violations, report.first) == (0, {})
    assert report.entries >= counts["201"]
    assert min(counts["swept"], counts["signed"], counts["409"]) > 0, counts
