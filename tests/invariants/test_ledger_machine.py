"""All commands on the real ledger against the model: two processes on one database, taking turns and racing.

Two of three batches are sent at once, from both processes. Which of its requests came first is not known, but there must be an order in
which the model answers each of them as the books did, and in which the books end as they are: the model goes on from there.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from guerdon.clock import SystemClock
from guerdon.config import Settings
from guerdon.errors import GuerdonError
from guerdon.exchanges.models import RateSet
from guerdon.ledger.expiry import HOLD_DOCUMENTS, bring_up_to
from guerdon.ledger.jobs import sweep
from guerdon.ledger.models import Account, CommandOutcome, Entry
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS
from guerdon.verification.service import verify
from guerdon.wiring.services import Services, open_services
from tests.invariants.balance_model import Bounds, Spec
from tests.invariants.in_memory_ledger import NOW_MS, assert_holds_and_lots, assert_laws
from tests.invariants.ledger_driver import answer_of, award_command
from tests.invariants.ledger_model import World
from tests.invariants.ledger_requests import RATE, STATUS_AFTER, Answer, Ask, Terms
from tests.invariants.movements import ACTOR, bulk, do, number_of, open_wallets, read_books
from tests.invariants.state_machine_rules import DAY_MS, ZONE, Requests, amounts, found, places, run_histories, told

START_MS = NOW_MS + 20 * 365 * DAY_MS
"""In years to come, since the database forgets refusals by its own clock."""
SETTING = {*STATUS_AFTER, "terms"}
"""What is asked without a key, and answered with a wallet that may have moved on."""
USUAL = {f"{kind} done" for kind in ("credit", "debit", "hold", "reversal", "freeze", "unfreeze", "terms", "atomic", "award")}
"""What a few histories meet, whatever is drawn and whoever wins."""


class Result(NamedTuple):
    """A request, what came of it, and the entries that it has made."""

    ask: Ask
    answer: Answer
    entries: tuple[Entry, ...] = ()

    def may_come_before(self, others: Sequence["Result"]) -> bool:
        """On no account has another of them an earlier entry."""
        theirs = [entry for other in others if other is not self for entry in other.entries]
        return all(entry.seq < other.seq for entry in self.entries for other in theirs if other.account == entry.account)


class Books(NamedTuple):
    """Everything that is on the database."""

    accounts: dict[str, Account]
    entries: list[Entry]
    documents: list[dict[str, Any]]

    def holds_of(self, wallet: str) -> dict[int, dict[str, Any]]:
        """The documents of its holds, by number."""
        return {int(row["_id"].rpartition(":")[2]): row for row in self.documents if row["account"] == wallet}


class StoppedClock(SystemClock):
    """Both processes read it; only the time of day stands still."""

    at_ms = START_MS

    def now_ms(self) -> int:
        return self.at_ms


class Processes(Requests):
    """Every history begins on empty books, with members of its own."""

    runner: ClassVar[asyncio.Runner]
    clock: ClassVar[StoppedClock]
    services: ClassVar[list[Services]]

    @initialize()
    def open_books(self) -> None:
        self.made: dict[str, CommandOutcome] = {}
        self.batches = 0
        self.sweeps = False
        self.clock.at_ms = START_MS
        self.run(self.empty())
        self.run(self.services[0].rates.set_rate(ACTOR, "PTS-GBP", RateSet(*RATE)))
        self.begin(self.run(open_wallets(self.services[0], 4, 0)), START_MS)

    async def empty(self) -> None:
        for name in (ACCOUNTS, ENTRIES, HOLD_DOCUMENTS, REVERSALS):
            await self.services[0].database.raw[name].delete_many({})

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def wait_until(self, moment: int) -> None:
        """Here and not where a batch is sent: `together` sends its requests without one."""
        super().wait_until(moment)
        self.clock.at_ms = self.now

    # --- requests ---------------------------------------------------------------------------------------------------

    def submit(self, batch: Sequence[Ask]) -> list[Answer]:
        self.batches += 1
        if self.batches % 3 == 0:
            results = [self.run(self.ask(ask, place)) for place, ask in enumerate(batch)]
            self.books = self.run(self.read())
            for ask, answer, _ in results:
                assert answer == answer_in(self.world, ask), ask
        else:
            swept = self.sweeps
            results = self.run(self.ask_at_once(batch))
            self.books = self.run(self.read())
            world = self.explain(self.world, results)
            assert world is not None, f"no order of these requests explains their answers and the books: {results}"
            self.world = world
            due = [account.due_at for account in self.books.accounts.values() if account.due_at is not None]
            assert not swept or min(due, default=self.now + 1) > self.now
        return [answer for _, answer, _ in results]

    async def ask(self, ask: Ask, place: int) -> Result:
        """The processes take turns, and so does the one that begins."""
        services = self.services[(place + self.batches) % 2]
        try:
            if ask.kind in ("award", "confirmation"):
                outcome = await services.ledger.submit(award_command(ask, self.made))
            else:
                outcome = await do(services, ask, self.made)
        except GuerdonError as error:
            return Result(ask, Answer(error.code, None, error.replayed))
        if outcome is None:
            return Result(ask, Answer(None))
        if outcome.replayed:
            return Result(ask, answer_of(outcome))
        assert ask.key not in self.made, "done twice"
        self.made[ask.key] = outcome
        return Result(ask, answer_of(outcome), outcome.entries)

    async def ask_at_once(self, batch: Sequence[Ask]) -> list[Result]:
        sweepers = self.services if self.sweeps else []
        self.sweeps = False
        booking = [asyncio.ensure_future(sweep(each.ledger, each.database, self.clock)) for each in sweepers]
        results = await asyncio.gather(*(self.ask(ask, place) for place, ask in enumerate(batch)))
        await asyncio.gather(*booking)
        return results

    @rule(steps=st.lists(st.tuples(places, st.booleans(), amounts), min_size=2, max_size=5))
    def together(self, steps: list[tuple[int, bool, int]]) -> None:
        """An atomic bulk request to both processes at once: one does it, the other one recalls it; or both refuse."""
        self.run_batch()
        for place, up, amount in steps:
            self.put("credit" if up else "debit", self.wallets[place], amount)
        asks, self.batch = self.batch, []
        specs = [Spec(ask.kind, ask.wallet, ask.amount, ask.key) for ask in asks]
        expected = self.world.ask_together(asks)

        async def both() -> list[list[Any]]:
            return await asyncio.gather(*(bulk(services, specs, atomic=True) for services in self.services))

        answers = self.run(both())
        self.books = self.run(self.read())
        self.check_laws()
        self.seen[f"atomic {expected if isinstance(expected, str) else 'done'}"] += 1
        if isinstance(expected, str):
            for got in answers:
                assert sorted(each.code or "" for each in got) == sorted([expected] + ["not-applied"] * (len(specs) - 1))
        else:
            assert sorted(got[0].replayed for got in answers) == [False, True]
            for got in answers:
                assert [(each.code, each.after[0]) for each in got] == [(None, balance) for _, (balance, _), _ in expected]
            keys = {ask.key for ask in asks}
            self.made |= {entry.key: CommandOutcome((entry,)) for entry in self.books.entries if entry.key in keys}

    @rule()
    def sweep(self) -> None:
        """Both sweepers come beside the next requests that are sent at once."""
        self.sweeps = True

    # --- laws -------------------------------------------------------------------------------------------------------

    async def read(self) -> Books:
        accounts, entries = await read_books(self.services[0])
        documents = [row async for row in self.services[1].database.raw[HOLD_DOCUMENTS].find({})]
        return Books(accounts, entries, documents)

    def told(self, world: World) -> dict[str, object]:
        numbers = {key: number_of(self.made[key]) for key in world.holds}
        return {name: told(world, name, numbers) for name in world.wallets}

    def found(self, world: World) -> dict[str, object]:
        calendar = self.services[0].ledger.calendar
        return {
            name: found(world, bring_up_to(account, world.now, calendar).account, self.books.holds_of(name))
            for name, account in self.books.accounts.items()
        }

    def explain(self, world: World, left: Sequence[Result]) -> World | None:
        """The model after these requests in an order that explains their answers and the books, if there is one."""
        if not left:
            return world if self.found(world) == self.told(world) else None
        for each in left:
            if each.may_come_before(left):
                after = world.copy()
                if answer_in(after, each.ask) == each.answer:
                    explained = self.explain(after, [other for other in left if other is not each])
                    if explained is not None:
                        return explained
        return None

    def compare(self) -> None:
        left, right = self.found(self.world), self.told(self.world)
        assert {(n, k): (v, right[n][k]) for n in left for k, v in left[n].items() if right[n][k] != v} == {}

    def check_laws(self) -> None:
        accounts, entries, _ = self.books
        assert_laws(accounts, entries, {name: Bounds(-(10**18)) for name in accounts})
        assert_holds_and_lots(accounts, entries)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "world"):
            report = self.run(verify(self.services[1].database, calendar=self.services[1].ledger.calendar))
            assert report.violations == 0, report.first


def answer_in(world: World, ask: Ask) -> Answer:
    """What the model answers. For the service, a wallet that is closed and is to be closed is no refusal."""
    if ask.kind == "close" and world.wallets[ask.wallet].status == "closed":
        return Answer(None)
    answer = world.ask(ask)
    return answer._replace(after=None) if ask.kind in SETTING else answer


@contextmanager
def two_processes(settings: Settings) -> Iterator[None]:
    """Two services on one database, on a loop that a state machine, which is not a coroutine, can run itself."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        Processes.runner, Processes.clock = runner, StoppedClock()
        contexts = [open_services(settings.model_copy(update={"time_zone": ZONE}), Processes.clock) for _ in range(2)]
        Processes.services = [runner.run(context.__aenter__()) for context in contexts]
        try:
            yield
        finally:
            for context in contexts:
                runner.run(context.__aexit__(None, None, None))


def run_processes(settings: Settings, sequences: int, **more: object) -> None:
    """The usual must have been done, and the processes must have lost races to each other."""
    with two_processes(settings):
        run_histories(Processes, sequences, 40, phases=[Phase.explicit, Phase.generate], **more)
        conflicts = sum(services.ledger.stats.conflicts for services in Processes.services)
    assert set(Processes.seen) >= USUAL, USUAL - set(Processes.seen)
    assert conflicts > sequences // 2, "the processes hardly met"


@pytest.mark.usefixtures("database")
def test_concurrent_requests_count_on_the_day_they_are_sent(settings: Settings) -> None:
    """Right after a wait nothing else has told the processes what day it is."""
    with two_processes(settings):
        Processes.seen = Counter()
        history = Processes()
        history.open_books()
        history.set_terms(0, Terms(day=90))
        history.send()
        history.wait(DAY_MS)
        history.together([(0, False, 5), (0, False, 6)])
        history.compare()
        history.teardown()


@pytest.mark.usefixtures("database")
def test_two_processes_agree_with_the_model(settings: Settings) -> None:
    run_processes(settings, 10, derandomize=True)
