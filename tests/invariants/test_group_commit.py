"""The queue in front of the database: order, fairness, deadlines, cancelled callers and faults."""

import asyncio
import contextlib
import gc
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from guerdon.calendar import Calendar
from guerdon.clock import SystemClock
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.errors import GuerdonError, InsufficientFunds, Internal, OutcomeUnknown, Overloaded, Retry
from guerdon.ledger.committer import FURTHER_SECONDS
from guerdon.ledger.models import REFUSAL, Command, CommandOutcome, Decision, View, entry_id
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import ENTRIES, decode_entry
from guerdon.verification.service import verify
from guerdon.wiring.services import open_services
from tests.invariants.balance_model import Spec
from tests.invariants.in_memory_ledger import command_for, wallet_id

A, B, C, D = (wallet_id(number) for number in range(1, 5))
SOON_SECONDS = 30.0


@asynccontextmanager
async def ledger_on(database: Database, **limits: int) -> AsyncIterator[Ledger]:
    """A ledger with limits of its own."""
    chosen = {"queue_max": 1000, "batch_max": 500, "in_flight_max": 2, "deadline_ms": 10_000, **limits}
    ledger = Ledger(database, SystemClock(), Calendar(), **chosen)
    yield ledger
    await ledger.close()


@asynccontextmanager
async def held(database: Database, wallet: str) -> AsyncIterator[None]:
    """Nobody can commit on this wallet meanwhile: an open transaction has taken the number of its next entry."""
    seq = await database.raw[ENTRIES].count_documents({"_id": {"$gt": f"{wallet}#", "$lt": f"{wallet}#:"}})
    async with database.client.start_session() as session:
        await session.start_transaction()
        await database.raw[ENTRIES].insert_one({"_id": entry_id(wallet, seq + 1)}, session=session)
        try:
            yield
        finally:
            await session.abort_transaction()


def credit(wallet: str, amount: int, number: int) -> Command:
    return command_for([Spec("credit", wallet, amount, f"key-{number}")], number, {})


def debit(wallet: str, amount: int, number: int) -> Command:
    return command_for([Spec("debit", wallet, amount, f"key-{number}")], number, {})


def transfer(source: str, target: str, amount: int, number: int) -> Command:
    return command_for([Spec("transfer", source, amount, f"key-{number}", target)], number, {})


def submit(ledger: Ledger, commands: Sequence[Command]) -> list[asyncio.Task[CommandOutcome]]:
    return [asyncio.ensure_future(ledger.submit(command)) for command in commands]


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"
        await asyncio.sleep(0.002)


async def numbers_on(database: Database, wallet: str) -> list[int]:
    """The numbers of the commands that have moved a wallet, in the order in which they did."""
    where = {"_id": {"$gt": f"{wallet}#", "$lt": f"{wallet}#:"}}
    found = [decode_entry(row) async for row in database.raw[ENTRIES].find(where).sort("_id")]
    return [int(entry.metadata["number"]) for entry in found]


@pytest.mark.parametrize("batch_max", [1, 7, 500])
async def test_commands_on_one_account_are_decided_in_arrival_order(database: Database, batch_max: int) -> None:
    async with ledger_on(database, batch_max=batch_max) as ledger:
        tasks = submit(ledger, [credit(A, 1 + number, number) for number in range(60)])
        outcomes = await asyncio.gather(*tasks)
    assert [outcome.entries[0].seq for outcome in outcomes] == list(range(1, 61))
    assert await numbers_on(database, A) == list(range(60))


@pytest.mark.parametrize("in_flight_max", [1, 2, 3])
async def test_commands_on_every_account_are_decided_in_arrival_order(database: Database, in_flight_max: int) -> None:
    """Credits and transfers over four accounts, small batches, so that many step aside: no later command overtakes an earlier one."""
    rng = random.Random(20_260_131 + in_flight_max)
    async with ledger_on(database, in_flight_max=in_flight_max, batch_max=3) as ledger:
        await asyncio.gather(*submit(ledger, [credit(wallet, 10_000, n) for n, wallet in enumerate((A, B, C, D))]))
        touched: dict[str, list[int]] = {A: [0], B: [1], C: [2], D: [3]}
        commands = []
        for number in range(10, 130):
            pair = rng.sample((A, B, C, D), 2)
            both = rng.random() < 0.5
            commands.append(transfer(pair[0], pair[1], 1, number) if both else credit(pair[0], 1, number))
            for wallet in pair[: 1 + both]:
                touched[wallet].append(number)
        await asyncio.gather(*submit(ledger, commands))
    assert {wallet: await numbers_on(database, wallet) for wallet in touched} == touched
    assert (await verify(database)).violations == 0


@pytest.mark.parametrize("in_flight_max", [1, 2])
async def test_earlier_command_is_not_overtaken_by_a_deferred_one(database: Database, in_flight_max: int) -> None:
    """A is busy, B's credit waits for a free slot, then a transfer from B to A arrives: the credit is still first."""
    async with ledger_on(database, in_flight_max=in_flight_max) as ledger:
        await ledger.submit(credit(A, 5, 1))
        async with held(database, A):
            [first] = submit(ledger, [debit(A, 1, 2)])
            await until(lambda: ledger.stats.in_flight == 1)
            later = submit(ledger, [credit(B, 100, 3), transfer(B, A, 50, 4)])
            await until(lambda: len(ledger._committer._blocked) >= 1 and (in_flight_max == 1 or not ledger._committer._ready))
        results = await asyncio.gather(first, *later, return_exceptions=True)
    assert [result for result in results if isinstance(result, BaseException)] == []
    assert await numbers_on(database, B) == [3, 4]


async def test_busy_account_does_not_delay_other_accounts(database: Database) -> None:
    """While A cannot be committed, everything else goes on, and what waits for A goes on afterwards, in order."""
    async with ledger_on(database, batch_max=4) as ledger:
        await ledger.submit(credit(A, 5, 1))
        async with held(database, A):
            waiting = submit(ledger, [credit(A, 1, number) for number in range(2, 12)])
            await until(lambda: ledger.stats.in_flight == 1)
            others = [credit(wallet, 1, number) for number in range(20, 40) for wallet in (B, C, D)]
            async with asyncio.timeout(SOON_SECONDS / 2):
                await asyncio.gather(*submit(ledger, others[:1] + others[4::7]))
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
    assert await numbers_on(database, A) == list(range(1, 12))


async def test_further_batch_starts_for_many_commands_or_a_late_first_batch(database: Database) -> None:
    async with ledger_on(database) as ledger:
        await ledger.submit(credit(A, 5, 1))
        async with held(database, A):
            began = time.monotonic()
            stuck = submit(ledger, [credit(A, 1, 2)])
            await until(lambda: ledger.stats.in_flight == 1)
            await submit(ledger, [credit(B, 1, 3)])[0]
            assert time.monotonic() - began > FURTHER_SECONDS
            # The first one is late already, so nobody waits any more.
            [later] = submit(ledger, [credit(C, 1, 4)])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert ledger.stats.in_flight == 2
            await later
        await stuck[0]
        before = ledger.stats.batches
        await asyncio.gather(*submit(ledger, [credit(B, 1, 10)]), *submit(ledger, [credit(C, 1, n) for n in range(11, 40)]))
        assert ledger.stats.batches == before + 1
    assert await numbers_on(database, C) == [4, *range(11, 40)]


async def test_a_cancelled_caller_does_not_stop_the_batch(database: Database) -> None:
    async with ledger_on(database) as ledger:
        await ledger.submit(credit(A, 5, 1))
        async with held(database, A):
            in_flight = submit(ledger, [credit(A, 1, 2), credit(A, 1, 3)])
            await until(lambda: ledger.stats.in_flight == 1)
            queued = submit(ledger, [credit(A, 1, 4), credit(A, 1, 5)])
            await until(lambda: len(ledger._committer._blocked) == 2)
            in_flight[0].cancel()
            queued[0].cancel()
        assert (await in_flight[1]).entries[0].balance_after == 7
        assert (await queued[1]).entries[0].balance_after == 8
    assert in_flight[0].cancelled()
    assert queued[0].cancelled()
    assert await numbers_on(database, A) == [1, 2, 3, 5]


async def test_command_past_its_deadline_in_the_queue_writes_nothing(database: Database) -> None:
    async with ledger_on(database) as ledger:
        await ledger.submit(credit(A, 5, 1))
    async with ledger_on(database, deadline_ms=300) as ledger:
        async with held(database, A):
            [begun] = submit(ledger, [credit(A, 1, 2)])
            await until(lambda: ledger.stats.in_flight == 1)
            [queued] = submit(ledger, [credit(A, 1, 3)])
            began = time.monotonic()
            with pytest.raises(OutcomeUnknown):
                await begun
            with pytest.raises(Overloaded) as refused:
                await queued
            assert refused.value.retry_after_seconds == 1
            assert time.monotonic() - began < SOON_SECONDS
        await until(lambda: ledger.stats.in_flight == 0)
        assert 3 not in await numbers_on(database, A)
    async with ledger_on(database) as ledger:
        outcomes = await asyncio.gather(*submit(ledger, [credit(A, 1, 2), credit(A, 1, 3)]))
    assert [outcome.entries[0].balance_after for outcome in outcomes] == [6, 7]
    assert await numbers_on(database, A) == [1, 2, 3]


async def test_a_full_queue_refuses_and_writes_nothing(database: Database) -> None:
    async with ledger_on(database, queue_max=16) as ledger:
        with pytest.raises(Overloaded):
            await ledger.submit_all([credit(A, 1, number) for number in range(17)])
        tasks = submit(ledger, [credit(A, 1, number) for number in range(100, 120)])
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Overloaded)]
        assert len(refused) == 4
        assert await numbers_on(database, A) == list(range(100, 116))
        verdicts = await ledger.submit_all([credit(A, 1, number) for number in range(200, 216)])
    assert all(isinstance(verdict, CommandOutcome) for verdict in verdicts)


async def test_internal_error_reaches_every_caller_and_blocks_nothing(database: Database) -> None:
    def decide(_view: View) -> Decision:
        raise ZeroDivisionError("a fault of ours")

    broken = Command(owners=("mem_1",), accounts=(A,), decide=decide)
    async with ledger_on(database) as ledger:
        await ledger.submit(credit(A, 5, 1))
        results = await asyncio.gather(*submit(ledger, [credit(A, 1, 2), broken, credit(B, 1, 3)]), return_exceptions=True)
        assert [type(result) for result in results] == [Internal] * 3
        assert all(isinstance(result.__cause__, ZeroDivisionError) for result in results if isinstance(result, Internal))
        assert await numbers_on(database, A) == [1]
        assert await numbers_on(database, B) == []
        async with asyncio.timeout(SOON_SECONDS):
            outcomes = await asyncio.gather(*submit(ledger, [credit(A, 1, 2), credit(B, 1, 3)]))
        assert [outcome.replayed for outcome in outcomes] == [False, False]
        assert ledger.stats.in_flight == 0
    assert (await verify(database)).violations == 0


async def test_refusals_among_successes_reach_their_own_callers(database: Database) -> None:
    commands = [credit(A, 5, 1), debit(A, 9, 2), debit(A, 5, 3), debit(A, 1, 4)]
    async with ledger_on(database) as ledger:
        verdicts: list[Any] = await ledger.submit_all(commands)
        again: list[Any] = await ledger.submit_all(commands)
    assert [type(verdict) for verdict in verdicts] == [CommandOutcome, InsufficientFunds, CommandOutcome, InsufficientFunds]
    assert [type(verdict) for verdict in again] == [type(verdict) for verdict in verdicts]
    assert all(verdict.replayed for verdict in again)
    assert [verdict.members for verdict in again if isinstance(verdict, GuerdonError)] == [
        {"wallet": A, "asset": "PTS", "available": 5, "needed": 9},
        {"wallet": A, "asset": "PTS", "available": 0, "needed": 1},
    ]
    assert await numbers_on(database, A) == [1, 3]


async def test_a_retry_is_neither_remembered_nor_a_conflict_and_leaves_nothing_behind(database: Database) -> None:
    """A command whose state has changed is refused for this attempt only; the exception is gone without the collector."""
    made = credit(A, 5, 1)
    left: list[weakref.ref[Retry]] = []
    changed = True

    def decide(view: View) -> Decision:
        if changed:
            retry = Retry()
            left.append(weakref.ref(retry))
            raise retry
        return made.decide(view)

    command = msgspec.structs.replace(made, decide=decide)
    gc.collect()
    gc.disable()
    try:
        async with ledger_on(database) as ledger:
            assert command.idempotency is not None
            for attempt in (ledger.submit, ledger.preview):
                with contextlib.suppress(Retry):
                    await attempt(command)
            [retried, done] = await ledger.submit_all([command, credit(B, 1, 2)])
            assert (type(retried), type(done)) == (Retry, CommandOutcome)
            del retried, done
            await asyncio.sleep(0)
            assert [ref() for ref in left] == [None] * 3
            changed = False
            assert (await ledger.submit(command)).replayed is False
            assert ledger.stats.conflicts == 0
    finally:
        gc.enable()
    assert await database.raw[ENTRIES].count_documents({"_id": {"$regex": f"^{REFUSAL}"}}) == 0
    assert await numbers_on(database, A) == [1]


async def test_closing_commits_the_queued_commands(database: Database, settings: Settings) -> None:
    """A command that was accepted just before the end is committed before the database is let go."""
    async with open_services(settings, SystemClock()) as services:
        tasks = submit(services.ledger, [credit(A, 1, 1), credit(B, 1, 2)])
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [CommandOutcome, CommandOutcome]
    with pytest.raises(Overloaded):
        await services.ledger.submit(credit(A, 1, 3))
    assert await numbers_on(database, A) == [1]
