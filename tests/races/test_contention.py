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
from socket import AF_UNIX, SOCK_DGRAM, socket
from threading import Thread
from typing import Any

import msgspec
import pytest
from pymongo.read_concern import ReadConcern

from guerdon.calendar import Calendar
from guerdon.clock import Clock, SystemClock, to_datetime
from guerdon.database import Database
from guerdon.errors import InsufficientFunds
from guerdon.ledger import kept_accounts
from guerdon.ledger.contention import CALM_SECONDS, CONTENTION_LEASES, QUEUE_ID, ContentionLeases
from guerdon.ledger.models import Command, CommandOutcome, Decision, View
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import ENTRIES, decode_entry
from guerdon.ledger.wake_ups import WakeUps
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


async def queue_of(database: Database) -> list[tuple[str, bool]]:
    """Return the leases in order of request: the process, and True if the lease is granted. The queue is not written to a majority."""
    leases = database.raw.get_collection(CONTENTION_LEASES, read_concern=ReadConcern("local"))
    row = await leases.find_one({"_id": QUEUE_ID}) or {"line": []}
    return [(lease["process"], lease["until"] is not None) for lease in row["line"]]


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
        await from_another_process(mongodb_url, credit(A, 1, 1))  # This process does not keep the account, so it reads it.
        late, met = debit(A, 1, 2), list[CommandOutcome]()
        await database.raw[CONTENTION_LEASES].insert_one(held_by_dead_processes(A))
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
        assert ledger.stats.batches == 2, "the quiet ones are committed by the very batch that A is taken out of"
    assert await numbers_on(database, A) == [1, 3, 2]


async def test_commands_behind_a_deferred_command_keep_their_order(database: Database, mongodb_url: str) -> None:
    """A transfer from A to B loses a race on A: what came after it on B must not overtake it, and C goes on."""
    async with processes(mongodb_url, 1) as [ledger]:
        await from_another_process(mongodb_url, credit(A, 1, 1))  # This process does not keep the account, so it reads it.
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


def held_by_dead_processes(account: str, *waiting: str) -> dict[str, object]:
    """Return a queue whose lease on `account` was just granted to a process that has ended, with others that have ended behind it."""
    until = to_datetime(SystemClock().now_ms() + int(LEASE_SECONDS * 1000))
    line = [{"process": "dead", "number": 1, "accounts": [account], "until": until}]
    line += [{"process": name, "number": 1, "accounts": [account], "until": None} for name in waiting]
    return {"_id": QUEUE_ID, "line": line, "took_ms": 20}


async def test_dead_lease_holder_delays_others_by_one_lease(database: Database, mongodb_url: str) -> None:
    """Somebody died with the turn, and somebody else while standing in line; order is kept, and everything goes on."""
    async with processes(mongodb_url, 1) as [ledger]:
        await ledger.submit(credit(A, 100, 0))
        ledger._committer._leases.mark_contended([A])
        await database.raw[CONTENTION_LEASES].insert_one(held_by_dead_processes(A, "dead too"))
        began = time.monotonic()
        tasks = [asyncio.ensure_future(ledger.submit(debit(A, 1, number))) for number in range(1, 20)]
        quiet = [asyncio.ensure_future(ledger.submit(credit(wallet, 1, 50 + place))) for place, wallet in enumerate((B, C, D))]
        await asyncio.wait_for(asyncio.gather(*quiet), SOON_SECONDS)
        assert not any(task.done() for task in tasks)
        await asyncio.wait_for(asyncio.gather(*tasks), SOON_SECONDS)
        assert LEASE_SECONDS < time.monotonic() - began < SOON_SECONDS / 2
    assert await numbers_on(database, A) == list(range(20))


async def test_contention_leases_are_granted_in_request_order(database: Database) -> None:
    """Three processes, with nothing but the queue between them."""
    leases = [ContentionLeases(database, SystemClock(), lambda _: None) for _ in range(3)]
    [one, two, three] = leases
    names = {each._process_id: number for number, each in enumerate(leases, 1)}

    async def queue() -> list[tuple[int, bool]]:
        return [(names[process], granted) for process, granted in await queue_of(database)]

    for each in (one, two, three, two):
        await each.change_queue(joins=frozenset({A}))
    assert await queue() == [(1, True), (2, False), (3, False)], "a second request does not change the order"
    await one.change_queue(joins=frozenset({A}), leaves=True)
    assert await queue() == [(2, True), (3, False), (1, False)]
    await two.change_queue(leaves=True)
    assert await queue() == [(3, True), (1, False)]
    # The third does not answer. When its time is over, the first in line gets the lease, whichever process asks.
    await asyncio.sleep(LEASE_SECONDS)
    await two.change_queue()
    assert await queue() == [(1, True)]
    await one.change_queue(leaves=True)
    assert await queue() == []


async def test_one_contention_lease_covers_several_accounts(database: Database) -> None:
    """A lease waits for every earlier one that has an account in common with it, granted or not, and for no other."""
    leases = [ContentionLeases(database, SystemClock(), lambda _: None) for _ in range(4)]
    for each, accounts in zip(leases, ({A, B}, {B, C}, {C}, {D}), strict=True):
        await each.change_queue(joins=frozenset(accounts))
    assert [granted for _, granted in await queue_of(database)] == [True, False, False, True]
    await leases[0].change_queue(leaves=True)
    assert [granted for _, granted in await queue_of(database)] == [True, False, True]
    await leases[1].change_queue(leaves=True)
    assert [granted for _, granted in await queue_of(database)] == [True, True]


async def test_transfers_among_few_wallets_do_not_collapse(database: Database, mongodb_url: str) -> None:
    """Four processes transfer among six wallets without a pause: exact sums, each acknowledged once, and no lease is lost to a race."""
    wallets = [wallet_id(number) for number in range(1, 7)]
    pairs = [(source, target) for source in wallets for target in wallets if source != target]
    async with processes(mongodb_url, 4) as ledgers:
        await asyncio.gather(*(ledgers[0].submit(credit(wallet, 1000, number)) for number, wallet in enumerate(wallets)))
        expected = dict.fromkeys(wallets, 1000)
        numbers: list[int] = []

        async def caller(place: int, who: int) -> None:
            for turn in range(12):
                number = 100_000 * place + 1000 * who + turn
                source, target = pairs[number % len(pairs)]
                command = transfer(source, target, 1, number)
                first = await ledgers[place - 1].submit(command)
                again = await ledgers[place % 4].submit(command) if turn % 6 == 0 else None
                assert again is None or (again.replayed and again.entries[0].id == first.entries[0].id)
                assert not first.replayed
                expected[source] -= 1
                expected[target] += 1
                numbers.append(number)

        callers = [caller(place, who) for place in range(1, 5) for who in range(1, 9)]
        await asyncio.wait_for(asyncio.gather(*callers), SOON_SECONDS)
        conflicts = sum(ledger.stats.conflicts for ledger in ledgers)
        balances = {name: account.balance for name, account in (await ledgers[0].find_accounts(wallets)).items()}
    assert balances == expected
    moved = [number for wallet in wallets for number in (await numbers_on(database, wallet))[1:]]
    assert sorted(moved) == sorted(numbers * 2), "every transfer has one entry on each side"
    assert len(numbers) == 384
    assert conflicts < 80, conflicts
    assert (await verify(database)).violations == 0


async def test_kept_account_that_another_process_has_changed(
    database: Database, mongodb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process decides on the state that it has written last: a change by another process is noticed, in both directions."""
    monkeypatch.setattr(kept_accounts, "PAUSE_START_SECONDS", 0.0)  # Otherwise the first change would end the use of kept accounts.
    async with processes(mongodb_url, 2) as [one, two]:
        await one.submit(credit(A, 10, 0))
        await one.submit(debit(A, 1, 1))
        await two.submit(debit(A, 9, 2))
        with pytest.raises(InsufficientFunds):
            await one.submit(debit(A, 1, 3))
        await two.submit(credit(A, 5, 4))
        assert (await one.submit(debit(A, 5, 5))).entries[0].balance_after == 0
        # A refusal is decided on a fresh read, though the process knows an account that would refuse.
        await two.submit(credit(A, 7, 6))
        assert (await one.submit(debit(A, 7, 7))).entries[0].balance_after == 0
        # A repeated key is answered from the records, by the process that has the account and by the other.
        assert (await one.submit(debit(A, 7, 7))).replayed
        assert (await two.submit(debit(A, 7, 7))).replayed
    assert await numbers_on(database, A) == [0, 1, 2, 4, 5, 6, 7]
    assert (await verify(database)).violations == 0


async def test_account_that_only_decides_is_read_again(database: Database, mongodb_url: str) -> None:
    """A command debits A only while B has something: no entry guards B, so B is not taken from the kept accounts."""
    async with processes(mongodb_url, 2) as [one, two]:
        await asyncio.gather(one.submit(credit(A, 10, 0)), one.submit(credit(B, 10, 1)))
        await two.submit(debit(B, 10, 2))
        plain = debit(A, 1, 3)

        def decide(view: View) -> Decision:
            if not view.accounts[B].balance:
                raise InsufficientFunds("B has nothing")
            return plain.decide(view)

        owners = (A.partition(":")[0], B.partition(":")[0])
        with pytest.raises(InsufficientFunds):
            await one.submit(msgspec.structs.replace(plain, owners=owners, accounts=(A, B), decide=decide))
    assert await numbers_on(database, A) == [0]


async def test_kept_accounts_save_the_read(database: Database, mongodb_url: str) -> None:
    """Debits of one process on the same wallets are decided without a read; a transfer reads only the wallet that is not kept."""
    async with processes(mongodb_url, 1) as [ledger]:
        await ledger.submit(credit(A, 10, 0))
        store, read = ledger._committer.store, list[str]()
        read_rows = store._read_rows

        async def counted(pipeline: list[dict[str, Any]]) -> Any:
            read.append(str(pipeline[0]["$match"]["_id"]["$in"]))
            return await read_rows(pipeline)

        store._read_rows = counted
        await ledger.submit(debit(A, 1, 1))
        assert read == []
        await ledger.submit(transfer(A, B, 1, 2))
        assert read == [str([B])]
        await ledger.submit(transfer(B, A, 1, 3))
        assert read == [str([B])]
    assert (await verify(database)).violations == 0


async def test_wake_ups_reach_processes_of_this_host() -> None:
    one, two = WakeUps("process-one"), WakeUps("process-two")
    one.open()
    assert not one.reach("process-two")
    one.wake("process-two", 1)
    two.open()
    try:
        assert one.reach("process-two")
        one.wake("process-two", 2)
        assert await two.wait(2, SOON_SECONDS)
        assert not await two.wait(3, 0.01), "the wake-up of an earlier lease does not count for a later one"
        with socket(AF_UNIX, SOCK_DGRAM) as other:
            other.sendto(b"not a number", "\0guerdon-lease-process-two")
            other.sendto(b"3" * 1000, "\0guerdon-lease-process-two")
        assert not await two.wait(3, 0.01)
    finally:
        one.close()
        two.close()
    assert not two.reach("process-one")


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
        await ledgers[0].submit(credit(A, 10**6, 0))
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
    assert await queue_of(database) == []


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
    """The queue of leases is not readable: every request fails, and commands are committed all the same."""
    async with processes(mongodb_url, 2) as ledgers:
        await ledgers[0].submit(credit(A, 50, 0))
        await database.raw[CONTENTION_LEASES].insert_one({"_id": QUEUE_ID, "line": "nonsense", "took_ms": "never"})
        for each in ledgers:
            each._committer._leases.mark_contended([A])
        started = [
            ledger.submit(debit(A, 1, 1000 * place + number)) for number in range(50) for place, ledger in enumerate(ledgers, 1)
        ]
        results = await asyncio.wait_for(asyncio.gather(*started, return_exceptions=True), SOON_SECONDS)
    assert tally(results) == {"CommandOutcome": 50, "InsufficientFunds": 50}
    assert (await verify(database)).violations == 0
