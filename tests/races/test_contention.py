"""Several processes on one account: exact counts, order, nobody starves, and quiet accounts do not wait with the contended one."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from pymongo.read_concern import ReadConcern

from guerdon.calendar import Calendar
from guerdon.clock import Clock, SystemClock, to_datetime
from guerdon.database import Database
from guerdon.ledger.contention import CALM_SECONDS, CONTENTION_LEASES, ContentionLease, ContentionLeases
from guerdon.ledger.models import Command, CommandOutcome, Decision, View
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import ENTRIES, decode_entry
from guerdon.verification.service import verify
from tests.clients import ManualClock
from tests.conftest import DATABASE
from tests.invariants.balance_model import Spec
from tests.invariants.in_memory_ledger import command_for, wallet_id

A, B, C, D = (wallet_id(number) for number in range(1, 5))
LEASE_SECONDS = 0.4
"""What a dead holder costs, as ADR 10 says it: not the constant of the sources, or a longer one would be waited for here too."""
SOON_SECONDS = 60.0


@asynccontextmanager
async def processes(url: str, count: int, clocks: Sequence[Clock] = ()) -> AsyncIterator[list[Ledger]]:
    """Ledgers that share nothing but the database."""
    async with AsyncExitStack() as stack:
        ledgers = []
        for number in range(count):
            database = Database(url, DATABASE)
            stack.push_async_callback(database.close)
            clock = clocks[number] if clocks else SystemClock()
            ledger = Ledger(database, clock, Calendar(), queue_max=5000, batch_max=50, in_flight_max=2, deadline_ms=30_000)
            stack.push_async_callback(lambda ledger=ledger: asyncio.wait_for(ledger.close(), SOON_SECONDS))
            ledgers.append(ledger)
        yield ledgers


def credit(wallet: str, amount: int, number: int) -> Command:
    return command_for([Spec("credit", wallet, amount, f"key-{number}")], number, {})


def debit(wallet: str, amount: int, number: int) -> Command:
    return command_for([Spec("debit", wallet, amount, f"key-{number}")], number, {})


def transfer(source: str, target: str, amount: int, number: int) -> Command:
    return command_for([Spec("transfer", source, amount, f"key-{number}", target)], number, {})


async def numbers_on(database: Database, wallet: str) -> list[int]:
    """The numbers of the commands that have moved a wallet, in the order in which they did."""
    where = {"_id": {"$gt": f"{wallet}#", "$lt": f"{wallet}#:"}}
    found = [decode_entry(row) async for row in database.raw[ENTRIES].find(where).sort("_id")]
    return [int(entry.metadata["number"]) for entry in found]


def tally(results: Sequence[object]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results)


async def standing(database: Database, account: str) -> tuple[str | None, int]:
    """Who has the turn on an account, and how many wait; (None, 0) when there is no turn. A turn is not written to a majority, so it is not read from one."""
    row = await database.raw.get_collection(CONTENTION_LEASES, read_concern=ReadConcern("local")).find_one({"_id": account}) or {
        "holder": None,
        "line": [],
    }
    return row["holder"], len(row["line"])


@pytest.mark.parametrize("count", [2, 4])
async def test_processes_race_for_one_account(database: Database, mongodb_url: str, count: int) -> None:
    """Twice as many debits as there are units, in several waves: exactly the units are taken, and each process keeps its order."""
    total = 400
    async with processes(mongodb_url, count) as ledgers:
        await ledgers[0].submit(credit(A, total, 0))
        started = [
            asyncio.ensure_future(ledger.submit(debit(A, 1, 1000 * place + number)))
            for number in range(1, 2 * total // count + 1)
            for place, ledger in enumerate(ledgers, 1)
        ]
        results = await asyncio.gather(*started, return_exceptions=True)
        assert sum(ledger.stats.conflicts for ledger in ledgers) < 60, "they should have taken turns"
    assert tally(results) == {"CommandOutcome": total, "InsufficientFunds": total}
    moved = (await numbers_on(database, A))[1:]
    assert len(moved) == total
    for place in range(1, count + 1):
        own = [number for number in moved if number // 1000 == place]
        assert own == sorted(own)
    assert (await verify(database)).violations == 0


async def test_transfers_between_contended_accounts_keep_the_total(database: Database, mongodb_url: str) -> None:
    """Both ends are contended, in both directions: nobody waits for nothing, and no unit is lost."""
    async with processes(mongodb_url, 3) as ledgers:
        await asyncio.gather(*(ledgers[0].submit(credit(wallet, 200, place)) for place, wallet in enumerate((A, B, C))))
        pairs = [(A, B), (B, A), (B, C), (C, A)]
        started = [
            ledger.submit(transfer(*pairs[number % 4], 1, 1000 * place + number))
            for number in range(60)
            for place, ledger in enumerate(ledgers, 1)
        ]
        results = await asyncio.wait_for(asyncio.gather(*started), SOON_SECONDS)
        assert len(results) == 180
        balances = [account.balance for wallet in (A, B, C) if (account := await ledgers[0].get_account(wallet, wallet[:36]))]
    assert sum(balances) == 600
    assert (await verify(database)).violations == 0


async def test_other_accounts_of_a_batch_do_not_wait_for_a_contended_one(database: Database, mongodb_url: str) -> None:
    """A batch loses a race on A between its read and its write: B and C are committed at once, A waits for its turn."""
    async with processes(mongodb_url, 1) as [ledger]:
        await ledger.submit(credit(A, 1, 1))
        late, met = debit(A, 1, 2), list[CommandOutcome]()
        await database.raw[CONTENTION_LEASES].insert_one(held_by_a_dead_process(A))
        hindered = msgspec.structs.replace(late, decide=interrupted(late, mongodb_url, credit(A, 5, 3), met))
        began = time.monotonic()
        quiet = [credit(B, 1, 4), credit(C, 1, 5)]
        [hot, *others] = [asyncio.ensure_future(ledger.submit(command)) for command in (hindered, *quiet)]
        await asyncio.wait_for(asyncio.gather(*others), SOON_SECONDS)
        assert not hot.done()
        assert set(ledger._committer._leases.by_account) == {A}
        assert (await hot).entries[0].balance_after == 5
        assert time.monotonic() - began > LEASE_SECONDS / 2
        assert ledger.stats.conflicts == 1
        assert ledger.stats.batches == 3, "the quiet ones are committed by the very batch that A is taken out of"
    assert await numbers_on(database, A) == [1, 3, 2]


async def test_commands_behind_a_deferred_command_keep_their_order(database: Database, mongodb_url: str) -> None:
    """A transfer from A to B loses a race on A: what came after it on B must not overtake it, and C goes on."""
    async with processes(mongodb_url, 1) as [ledger]:
        await ledger.submit(credit(A, 1, 1))
        moving = transfer(A, B, 1, 2)
        met: list[CommandOutcome] = []
        hindered = msgspec.structs.replace(moving, decide=interrupted(moving, mongodb_url, credit(A, 5, 3), met))
        await asyncio.gather(*(ledger.submit(command) for command in (hindered, credit(B, 1, 4), credit(C, 1, 5))))
        assert ledger.stats.conflicts == 1
    assert await numbers_on(database, A) == [1, 3, 2]
    assert await numbers_on(database, B) == [2, 4]


def interrupted(command: Command, url: str, other: Command, met: list[CommandOutcome]) -> Callable[[View], Decision]:
    """The first time that `command` is decided, between the read and the write, another process commits."""

    def decide(view: View) -> Decision:
        if not met:
            thread = Thread(target=lambda: met.append(asyncio.run(from_another_process(url, other))))
            thread.start()
            thread.join(SOON_SECONDS)
            assert met
        return command.decide(view)

    return decide


async def from_another_process(url: str, command: Command) -> CommandOutcome:
    async with processes(url, 1) as [ledger]:
        return await ledger.submit(command)


def held_by_a_dead_process(account: str, *line: str) -> dict[str, object]:
    """The turn on an account was just given to somebody who will never say a word again."""
    until = to_datetime(SystemClock().now_ms() + int(LEASE_SECONDS * 1000))
    return {"_id": account, "holder": "dead", "until": until, "line": list(line), "took_ms": 20}


async def test_dead_lease_holder_delays_others_by_one_lease(database: Database, mongodb_url: str) -> None:
    """Somebody died with the turn, and somebody else while standing in line; order is kept, and everything goes on."""
    async with processes(mongodb_url, 1) as [ledger]:
        await ledger.submit(credit(A, 100, 0))
        ledger._committer._leases.mark_contended([A])
        await database.raw[CONTENTION_LEASES].insert_one(held_by_a_dead_process(A, "dead too"))
        began = time.monotonic()
        tasks = [asyncio.ensure_future(ledger.submit(debit(A, 1, number))) for number in range(1, 20)]
        quiet = [asyncio.ensure_future(ledger.submit(credit(wallet, 1, 50 + place))) for place, wallet in enumerate((B, C, D))]
        await asyncio.wait_for(asyncio.gather(*quiet), SOON_SECONDS)
        assert not any(task.done() for task in tasks)
        await asyncio.wait_for(asyncio.gather(*tasks), SOON_SECONDS)
        assert LEASE_SECONDS < time.monotonic() - began < SOON_SECONDS / 2
    assert await numbers_on(database, A) == list(range(20))


async def test_contention_leases_are_granted_in_request_order(database: Database) -> None:
    """Three processes, with nothing but the documents between them."""
    turns = [ContentionLeases(database, SystemClock(), lambda: None) for _ in range(3)]
    one, two, three = ((each, ContentionLease(A)) for each in turns)

    async def ask(who: tuple[ContentionLeases, ContentionLease], *, joins: bool = True, leaves: bool = False) -> bool:
        return await who[0]._request_lease(who[1], joins=joins, leaves=leaves)

    assert await ask(one)
    assert [await ask(two), await ask(three), await ask(two)] == [False, False, False]
    assert await standing(database, A) == (turns[0]._process_id, 2)
    assert await ask(one), "asking again does not give it away"
    assert not await ask(one, leaves=True)
    assert await standing(database, A) == (turns[1]._process_id, 2)
    assert [await ask(three), await ask(one), await ask(two)] == [False, False, True]
    assert not await ask(two, joins=False, leaves=True)
    assert await standing(database, A) == (turns[2]._process_id, 1)
    # The third never answers. When its time is over the first in line has it, whoever asks.
    await asyncio.sleep(LEASE_SECONDS)
    assert not await ask(two)
    assert await standing(database, A) == (turns[0]._process_id, 1)
    assert await ask(one)
    assert not await ask(one, joins=False, leaves=True)
    assert await ask(two)
    assert not await ask(two, joins=False, leaves=True)
    assert await standing(database, A) == (None, 0)


async def test_no_process_starves_on_a_contended_account(database: Database, mongodb_url: str) -> None:
    """Each of three processes always has more to do on the account; each gets its share."""
    done: Counter[int] = Counter()
    async with processes(mongodb_url, 3) as ledgers:
        await ledgers[0].submit(credit(A, 10**6, 0))
        end = time.monotonic() + 3

        async def caller(place: int, who: int) -> None:
            number = 0
            while time.monotonic() < end:
                number += 1
                await ledgers[place].submit(debit(A, 1, place * 10**6 + who * 10**4 + number))
                done[place] += 1

        await asyncio.gather(*(caller(place, who) for place in range(3) for who in range(8)))
        conflicts = sum(ledger.stats.conflicts for ledger in ledgers)
    total = done.total()
    assert min(done[place] for place in range(3)) > total / 6, done
    assert conflicts < total / 10, (conflicts, total)
    assert len(await numbers_on(database, A)) == total + 1
    assert (await verify(database)).violations == 0


async def test_contention_leases_do_not_depend_on_process_clocks(database: Database, mongodb_url: str) -> None:
    """One process is an hour ahead and one a day behind."""
    clocks = [ManualClock(SystemClock()) for _ in range(3)]
    clocks[1].advance(seconds=3600)
    clocks[2].advance(days=-1)
    async with processes(mongodb_url, 3, clocks) as ledgers:
        await ledgers[0].submit(credit(A, 150, 0))
        began = time.monotonic()
        started = [
            ledger.submit(debit(A, 1, 1000 * place + number)) for number in range(100) for place, ledger in enumerate(ledgers, 1)
        ]
        results = await asyncio.wait_for(asyncio.gather(*started, return_exceptions=True), SOON_SECONDS)
        assert time.monotonic() - began < SOON_SECONDS
    assert tally(results) == {"CommandOutcome": 150, "InsufficientFunds": 150}
    assert (await verify(database)).violations == 0


async def test_process_stops_requesting_leases_when_contention_ends(database: Database, mongodb_url: str) -> None:
    """A process that has an account for itself again stops asking for turns."""
    async with processes(mongodb_url, 2) as ledgers:
        await ledgers[0].submit(credit(A, 1000, 0))
        for each in ledgers:
            each._committer._leases.mark_contended([A])
        await asyncio.gather(*(ledger.submit(debit(A, 1, place)) for place, ledger in enumerate(ledgers, 1)))
        end, number = time.monotonic() + CALM_SECONDS + 0.5, 10
        while time.monotonic() < end:
            number += 1
            await ledgers[0].submit(debit(A, 1, number))
        assert not ledgers[0]._committer._leases.by_account
        ledgers[1]._committer._leases.mark_contended([])
        assert not ledgers[1]._committer._leases.by_account
    assert await standing(database, A) == (None, 0)


HOLDER = """
import asyncio, sys
from tests.races.test_contention import A, debit, processes

async def main():
    async with processes(sys.argv[1], 1) as [ledger]:
        ledger._committer._leases.mark_contended([A])
        number = 10**6
        while True:
            number += 10
            await asyncio.gather(*(ledger.submit(debit(A, 1, number + n)) for n in range(10)))
            if number == 10**6 + 10:
                print("begun", flush=True)

asyncio.run(main())
"""


async def test_killed_process_does_not_block_the_account(database: Database, mongodb_url: str) -> None:
    """kill -9 in the middle of its turns; what it had committed is there, and the others go on."""
    async with processes(mongodb_url, 1) as [ledger]:
        await ledger.submit(credit(A, 10**6, 0))
        victim = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLDER, mongodb_url, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        try:
            assert victim.stdout is not None
            assert await asyncio.wait_for(victim.stdout.readline(), SOON_SECONDS) == b"begun\n"
            for number in range(1, 31):
                await ledger.submit(debit(A, 1, number))
                if number == 15:
                    os.kill(victim.pid, signal.SIGKILL)
                    killed_at = time.monotonic()
                if number == 16:
                    # The server itself needs up to 5 s, and a round of its reaper, to end a transaction that was left open.
                    assert time.monotonic() - killed_at < SOON_SECONDS
        finally:
            with suppress(ProcessLookupError):
                victim.kill()
            await victim.wait()
    moved = await numbers_on(database, A)
    assert [number for number in moved if number < 10**6] == list(range(31))
    assert len(moved) > 31, "the other process has taken part"
    assert (await verify(database)).violations == 0


async def test_commands_commit_when_contention_leases_fail(database: Database, mongodb_url: str) -> None:
    """The documents of turns are nonsense: every question fails, and commands are committed all the same."""
    async with processes(mongodb_url, 2) as ledgers:
        await ledgers[0].submit(credit(A, 50, 0))
        await database.raw[CONTENTION_LEASES].insert_one({"_id": A, "line": "nonsense", "until": "never"})
        for each in ledgers:
            each._committer._leases.mark_contended([A])
        started = [
            ledger.submit(debit(A, 1, 1000 * place + number)) for number in range(50) for place, ledger in enumerate(ledgers, 1)
        ]
        results = await asyncio.wait_for(asyncio.gather(*started, return_exceptions=True), SOON_SECONDS)
    assert tally(results) == {"CommandOutcome": 50, "InsufficientFunds": 50}
    assert (await verify(database)).violations == 0
