"""The roll-forward of random ledger histories: it ties to the balances that the entries themselves give, for any range."""

from collections.abc import Awaitable, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from guerdon.reports.models import Grouping
from guerdon.reports.money.flows import FlowRow, SourceSums, read_before, read_roll_forward, system_balances, total_of
from guerdon.reports.periods import DayRange
from guerdon.views.models import FLOWS
from tests.invariants.folded_books import FoldedBooks
from tests.invariants.in_memory_ledger import NOW_MS, wallet_id
from tests.invariants.ledger_driver import Till, answer_of
from tests.invariants.ledger_requests import Answer, Ask
from tests.invariants.state_machine_rules import DAY_MS, HOUR_MS, ZONE, Requests, places, run_histories

WALLETS = [wallet_id(number) for number in (1, 2, 3, 4)]
ASSET = WALLETS[0].partition(":")[2]
T = TypeVar("T")
offsets = st.integers(-40, 70)


def at_once(work: Awaitable[T]) -> T:
    """The result of work that never waits."""
    try:
        work.__await__().send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the work waits")


class RollForwards(Requests):
    @initialize(start=st.sampled_from([NOW_MS, NOW_MS + 3 * HOUR_MS, NOW_MS + 27 * DAY_MS]))
    def open_books(self, start: int) -> None:
        self.till = Till(ZONE)
        self.books = FoldedBooks(self.till.calendar)
        self.begin(WALLETS, start)

    def submit(self, batch: Sequence[Ask]) -> list[Answer]:
        for ask in batch:
            self.world.ask(ask)
        return [answer_of(result) for result in self.till.ask(batch, self.now)]

    def check_laws(self) -> None:
        """The laws are those of a range."""

    def compare(self) -> None:
        """The requests are compared with the model elsewhere."""

    @rule(some=st.sets(places))
    def sweep(self, some: set[int]) -> None:
        self.run_batch()
        self.till.sweep([WALLETS[place] for place in sorted(some) if WALLETS[place] in self.world.wallets], self.now)

    @rule(first=offsets, days=st.integers(0, 90), group=st.sampled_from(["day", "month"]))
    def report(self, first: int, days: int, group: Grouping) -> None:
        self.run_batch()
        self.books.follow(self.till.store.entries.values())
        today = self.till.calendar.local(self.now).date()
        begins = today + timedelta(days=first)
        asked = DayRange(begins, begins + timedelta(days=days), group)
        rolls = at_once(read_roll_forward(self.read, asked))
        assert [roll.period for roll in rolls] == asked.periods
        assert rolls[0].opening.amount == self.balance_before(asked.first)
        assert rolls[-1].closing.amount == self.balance_before(asked.after)
        for roll in rolls:
            sums = roll.opening
            for flow in roll.flows.values():
                sums = sums.plus(flow)
            assert sums == roll.closing
            assert sums.amount == sums.paid + sums.promotional
        for before, after in pairwise(rolls):
            assert before.closing == after.opening
        rows = at_once(read_before(self.read, asked.after))
        assert sum(system_balances(rows).values()) + total_of(rows).amount == 0
        whole = total_of(at_once(read_before(self.read, date(9998, 1, 1))))
        accounts = self.till.store.accounts.values()
        assert whole.amount == sum(account.balance for account in accounts if account.kind == "wallet" and account.asset == ASSET)

    def balance_before(self, day: date) -> int:
        ends = self.till.calendar.midnight(day)
        wallets = {
            name for name, account in self.till.store.accounts.items() if account.kind == "wallet" and account.asset == ASSET
        }
        entries = self.till.store.entries.values()
        return sum(entry.amount for entry in entries if entry.at < ends and entry.account in wallets)

    async def read(self, unit: Grouping, first: str, before: str) -> list[FlowRow]:
        """The rows of the views in memory."""
        found: list[FlowRow] = []
        for (asset, of_unit, period, flow, counterparty), row in self.books.sums(FLOWS, *FLOWS.key).items():
            if asset == ASSET and of_unit == unit and first <= str(period) < before:
                sums = SourceSums(row["amount"], row["paid"], row["promotional"])
                found.append(FlowRow(str(period), flow, str(counterparty), sums))  # type: ignore[arg-type]
        return found


def test_roll_forward_ties_to_the_balances_in_random_histories() -> None:
    run_histories(RollForwards, 20, 30, derandomize=True)
