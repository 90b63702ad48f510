"""The same dictionary against the real ledger on MongoDB, with two processes' worth of services taking turns and racing."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from guerdon.app import INDEXES, Services, open_services
from guerdon.clock import SystemClock
from guerdon.config import Settings
from guerdon.ledger.verify import verify
from tests.invariants.books import assert_laws
from tests.invariants.company import answer, bulk, fresh_key, open_wallets, read_books
from tests.invariants.model import Model, Spec

VERIFY_EVERY = 6
places = st.integers(0, 3)
amounts = st.integers(1, 60)
processes = st.integers(0, 1)


@pytest.fixture
def both(settings: Settings) -> Iterator[tuple[asyncio.Runner, list[Services]]]:
    """Two services on the emptied database, on a loop that a state machine, which is not a coroutine, can run itself."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        contexts = [open_services(settings, SystemClock()) for _ in range(2)]
        services = [runner.run(context.__aenter__()) for context in contexts]
        for name in sorted(set(INDEXES) - {"assets"}):
            runner.run(delete_all(services[0], name))
        yield runner, services
        for context in contexts:
            runner.run(context.__aexit__(None, None, None))


async def delete_all(services: Services, name: str) -> None:
    await services.database.raw[name].delete_many({})


class Processes(RuleBasedStateMachine):
    """Every example has members of its own; the books of all examples together are verified."""

    runner: ClassVar[asyncio.Runner]
    services: ClassVar[list[Services]]
    codes: ClassVar[set[str]]

    @initialize()
    def open_books(self) -> None:
        self.model = Model()
        self.asked: list[Spec] = []
        self.steps = 0
        self.wallets = self.run(open_wallets(self.services[0], 4, 0))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def ask(self, process: int, spec: Spec) -> None:
        expected = self.model.apply(spec)
        assert self.run(answer(self.services[process], spec)) == expected
        self.note(spec, expected.code, expected.replayed)

    def note(self, spec: Spec, code: str | None, replayed: bool) -> None:
        self.asked.append(spec)
        self.codes.add(f"{'again ' if replayed else ''}{code or spec.kind}")
        self.steps += 1
        if self.steps % VERIFY_EVERY == 0:
            self.check()

    def check(self) -> None:
        report = self.run(verify(self.services[self.steps % 2].database))
        assert report.violations == 0, report.first
        accounts, _ = self.run(read_books(self.services[0]))
        mine = {name: account for name, account in accounts.items() if name in self.wallets}
        assert {name: account.balance for name, account in mine.items()} == self.model.balances
        assert {name: account.seq for name, account in mine.items()} == self.model.seqs

    @rule(process=processes, place=places, amount=amounts, reference=st.sampled_from([None, "order-1", "order-2"]))
    def credit(self, process: int, place: int, amount: int, reference: str | None) -> None:
        self.ask(process, Spec("credit", self.wallets[place], amount, fresh_key(), None, reference))

    @rule(process=processes, place=places, amount=amounts, reference=st.sampled_from([None, None, "order-1"]))
    def debit(self, process: int, place: int, amount: int, reference: str | None) -> None:
        self.ask(process, Spec("debit", self.wallets[place], amount, fresh_key(), None, reference))

    @rule(process=processes, place=places, step=st.integers(1, 3), amount=amounts)
    def transfer(self, process: int, place: int, step: int, amount: int) -> None:
        source, target = self.wallets[place], self.wallets[(place + step) % 4]
        self.ask(process, Spec("transfer", source, amount, fresh_key(), target))

    @rule(process=processes, place=st.integers(0, 10**6))
    def repeat(self, process: int, place: int) -> None:
        if self.asked:
            self.ask(process, self.asked[place % len(self.asked)])

    @rule(process=processes, place=st.integers(0, 10**6))
    def reuse_key(self, process: int, place: int) -> None:
        if self.asked:
            old = self.asked[place % len(self.asked)]
            self.ask(process, Spec(old.kind, old.wallet, old.amount + 1, old.key, old.to, old.reference))

    @rule(process=processes, steps=st.lists(st.tuples(places, st.booleans(), amounts), min_size=2, max_size=5))
    def together(self, process: int, steps: list[tuple[int, bool, int]]) -> None:
        """An atomic bulk request, asked twice: once for each process."""
        specs = [Spec("credit" if up else "debit", self.wallets[place], amount, fresh_key()) for place, up, amount in steps]
        for turn in (process, 1 - process):
            expected = self.model.apply_atomically(specs)
            got = self.run(bulk(self.services[turn], specs, atomic=True))
            if isinstance(expected, str):
                assert sorted(each.code or "" for each in got) == sorted([expected] + ["not-applied"] * (len(specs) - 1))
                self.codes.add(f"atomic {expected}")
            else:
                assert got == expected
                self.codes.add("again atomic" if expected[0].replayed else "atomic")

    @rule(place=places, up=st.booleans(), amount=amounts)
    def race(self, place: int, up: bool, amount: int) -> None:
        """The same request to both processes at once: one does it, the other one recalls it."""
        spec = Spec("credit" if up else "debit", self.wallets[place], amount, fresh_key())
        expected = self.model.apply(spec)

        async def both_at_once() -> list[Any]:
            return await asyncio.gather(*(answer(services, spec) for services in self.services))

        first, second = self.run(both_at_once())
        assert (first.code, first.after) == (second.code, second.after) == (expected.code, expected.after)
        if expected.code != "not-found":
            assert {first.replayed, second.replayed} == {False, True}
        self.note(spec, expected.code, True)

    def teardown(self) -> None:
        if hasattr(self, "wallets"):
            self.check()


def test_two_processes_agree_with_the_dictionary(both: tuple[asyncio.Runner, list[Services]]) -> None:
    Processes.runner, Processes.services = both
    Processes.codes = set()
    run_state_machine_as_test(
        Processes,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    interesting = {"credit", "debit", "transfer", "again credit", "again debit", "insufficient-funds", "again insufficient-funds"}
    interesting |= {
        "reference-reused",
        "idempotency-key-reused",
        "not-found",
        "atomic",
        "again atomic",
        "atomic insufficient-funds",
    }
    assert interesting <= Processes.codes
    accounts, entries = Processes.runner.run(read_books(Processes.services[0]))
    assert_laws(accounts, entries, {})
