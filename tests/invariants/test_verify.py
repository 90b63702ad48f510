"""BIT-1: `verify` names every tampering, and nothing else, also while the books are written to."""

import asyncio
import random
import time

import pytest
import pytest_asyncio

from guerdon.app import Services
from guerdon.ledger.store import ENTRIES
from guerdon.ledger.verify import verify
from guerdon.rewards.models import CampaignCreate, PerAmountAward, ShopEvent
from guerdon.rewards.rules import LiveCampaign
from tests.invariants.company import ACTOR, answer, bulk, fresh_key, open_wallets
from tests.invariants.model import Spec
from tests.invariants.tampering import TAMPERS, Copy

TRIALS = 6
SEED = 19_700_101
LOAD_SECONDS = 3.0


async def build_books(services: Services, rng: random.Random) -> list[str]:
    """Credits, debits, transfers, refusals, atomic groups, awards and clawbacks on eight wallets in two assets."""
    wallets = await open_wallets(services, 6, 200)
    wallets += [f"{wallet.partition(':')[0]}:GBP" for wallet in wallets[:2]]
    for number in range(60):
        wallet = rng.choice(wallets)
        to = rng.choice([each for each in wallets if each != wallet and each[-3:] == wallet[-3:]])
        kind = rng.choice(["credit", "debit", "transfer"])
        reference = f"order-{number}" if number % 3 == 0 else None
        spec = Spec(kind, wallet, rng.randint(1, 90), fresh_key(), to if kind == "transfer" else None, reference)
        await answer(services, spec)
    for wallet in wallets:
        await bulk(services, [Spec("credit", wallet, 70, fresh_key()), Spec("debit", wallet, 3, fresh_key())], atomic=True)
    award = PerAmountAward(points=1, per=100, rounding="floor")
    body = CampaignCreate(name="1 point per pound", asset="PTS", event_types=["purchase", "refund"], award=award, clawback="debt")
    campaign = LiveCampaign.of(await services.campaigns.create(ACTOR, body))
    events = [
        ShopEvent(
            id=f"e-{number}", type=kind, occurred_at=0, amount=999 * number, currency="GBP", external_id=f"buyer-{number % 3}"
        )
        for number in range(1, 13)
        for kind in [rng.choice(["purchase", "refund"])]
    ]
    await services.events.record_all(ACTOR, events, [campaign])
    await answer(services, Spec("transfer", wallets[0], 1, fresh_key(), wallets[1]))
    return wallets


_saved: list[Copy] = []


@pytest_asyncio.fixture
async def copy(services: Services) -> Copy:
    """Books that are in order: built by the services once, put back as they were for every other test."""
    if not _saved:
        await build_books(services, random.Random(SEED))
        _saved.append(await Copy.of(services.database))
        return _saved[0]
    for collection, rows in _saved[0].rows.items():
        await services.database.raw[collection].insert_many(list(rows.values()))
    return _saved[0]


async def test_untouched_books_are_clean(services: Services, copy: Copy) -> None:
    report = await verify(services.database)
    assert (report.violations, report.first) == (0, {})
    assert (report.accounts, report.entries) == (len(copy.accounts), len(copy.entries))
    kinds = {row["kind"] for row in copy.entries}
    assert kinds == {"credit", "debit", "transfer", "award", "clawback"}
    assert any(row["balance_after"] < 0 for row in copy.entries if row["kind"] == "clawback")


@pytest.mark.parametrize("name", TAMPERS)
async def test_tampering_is_named(services: Services, copy: Copy, name: str) -> None:
    """Several times at random places; the laws that it breaks are named, and the books are clean again when it is taken back."""
    tamper, laws = TAMPERS[name]
    rng = random.Random(f"{SEED} {name}")
    missed = []
    if name == "key copied":
        # Whoever can write here can drop the index as well; the next test makes it again.
        await services.database.raw[ENTRIES].drop_index("once")
    for trial in range(TRIALS):
        changes = tamper(rng, copy)
        await copy.put(services.database, changes)
        report = await verify(services.database)
        if not (report.violations and laws <= set(report.first)):
            missed.append((trial, changes, report.first))
        await copy.restore(services.database, changes)
        clean = await verify(services.database)
        assert (clean.violations, clean.first) == (0, {})
    if name == "key copied":
        await services.database.raw[ENTRIES].delete_many({})
    assert missed == [], f"{len(missed)} of {TRIALS} missed with seed {SEED}: {missed[0]}"


def test_there_are_enough_trials() -> None:
    assert TRIALS * len(TAMPERS) >= 200


async def test_the_first_bad_entry_is_named(services: Services, copy: Copy) -> None:
    account = max(copy.accounts, key=lambda row: row["seq"])
    chain = copy.chain(account["_id"])
    middle = chain[len(chain) // 2]
    await copy.put(services.database, [(ENTRIES, middle["_id"], {**middle, "amount": middle["amount"] + 1})])
    report = await verify(services.database)
    assert {law: violation.where for law, violation in report.first.items()} == {"L2": middle["_id"], "L6": middle["_id"]} | (
        {"L1": report.first["L1"].where} if middle["kind"] == "transfer" else {}
    )


async def test_no_false_alarm_while_the_books_are_written(services: Services, other_services: Services) -> None:
    """Two processes debit, credit and transfer, and open wallets, while `verify` looks again and again."""
    wallets = await open_wallets(services, 8, 1000)
    stop = time.monotonic() + LOAD_SECONDS
    done = 0

    async def write(process: Services, seed: int) -> None:
        nonlocal done
        rng = random.Random(seed)
        while time.monotonic() < stop:
            source, target = rng.sample(wallets, 2)
            kind = rng.choice(["credit", "debit", "transfer", "transfer"])
            got = await answer(process, Spec(kind, source, rng.randint(1, 5), fresh_key(), target if kind == "transfer" else None))
            assert got.code in (None, "insufficient-funds")
            if rng.random() < 0.05:
                wallets.extend(await open_wallets(process, 1, 10))
            done += 1

    async def look() -> int:
        rounds = 0
        while time.monotonic() < stop:
            report = await verify(services.database)
            assert (report.violations, report.first) == (0, {})
            rounds += 1
        return rounds

    rounds, *_ = await asyncio.gather(look(), *(write([services, other_services][seed % 2], seed) for seed in range(6)))
    assert rounds >= 5
    assert done >= 100
    report = await verify(services.database)
    assert report.violations == 0, report.first
    assert report.entries >= done // 2
