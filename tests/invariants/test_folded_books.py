"""Views of random ledger histories: every law after every batch, and every cohort against a model of single units."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from msgspec.structs import replace

from guerdon.ledger.models import Entry
from guerdon.views import cohorts
from guerdon.views.models import COHORTS
from guerdon.views.traced import Tracer
from tests.invariants.folded_books import FoldedBooks, assert_views
from tests.invariants.in_memory_ledger import NOW_MS, wallet_id
from tests.invariants.ledger_driver import Till, answer_of
from tests.invariants.ledger_requests import Answer, Ask
from tests.invariants.state_machine_rules import DAY_MS, HOUR_MS, ZONE, Requests, places, run_histories
from tests.invariants.units import UNDATED, UnitAccount, runs

WALLETS = [wallet_id(number) for number in (1, 2, 3, 4)]


def as_event(entry: Entry) -> Entry:
    """Awards as campaigns make them; and half of the reversals of arrivals as clawbacks, which the machine does not ask for."""
    number = entry.seq % 3
    if entry.kind == "award":
        return replace(entry, metadata={"campaign": f"cmp_{number}", "version": str(number + 1)})
    if entry.kind == "reversal" and entry.amount < 0 and entry.counterparty == "system:issuer" and entry.seq % 2:
        return replace(entry, kind="clawback", reverses=None, metadata={"campaign": f"cmp_{number}", "version": "1"})
    return entry


class Folded(Requests):
    @initialize(start=st.sampled_from([NOW_MS, NOW_MS + 3 * HOUR_MS, NOW_MS + 27 * DAY_MS]))
    def open_books(self, start: int) -> None:
        self.till = Till(ZONE)
        self.books = FoldedBooks(self.till.calendar)
        self.entries: dict[str, Entry] = {}
        self.units: dict[str, UnitAccount] = {}
        self.tracers: dict[str, Tracer] = {}
        self.begin(WALLETS, start)

    def submit(self, batch: Sequence[Ask]) -> list[Answer]:
        for ask in batch:
            self.world.ask(ask)
        return [answer_of(result) for result in self.till.ask(batch, self.now)]

    @rule(some=st.sets(places))
    def sweep(self, some: set[int]) -> None:
        self.run_batch()
        self.till.sweep([WALLETS[place] for place in sorted(some) if WALLETS[place] in self.world.wallets], self.now)
        self.check_laws()

    def check_laws(self) -> None:
        new = [as_event(entry) for name, entry in self.till.store.entries.items() if name not in self.entries]
        self.entries.update({entry.id: entry for entry in new})
        self.books.follow(new)
        assert_views(self.books, self.till.store.accounts, self.entries.values())
        for entry in sorted(new, key=lambda entry: (entry.account, entry.seq)):
            units = self.units.setdefault(entry.account, UnitAccount())
            units.follow(entry, self.till.calendar)
            pieces = self.tracers.setdefault(entry.account, Tracer(self.till.calendar)).follow(entry)
            taken = [(seq, origin) for seq, origin in units.taken.get(entry.seq, ())]
            told = [((each.seq, (each.month, each.campaign, each.version)), each.amount) for each in pieces]
            assert runs([unit for unit, amount in told for _ in range(amount)]) == runs(taken)
            assert sum(each.amount for each in pieces) == max(0, -entry.amount)
        self.compare_with_units()

    def compare_with_units(self) -> None:
        moves: Counter[tuple[object, ...]] = Counter()
        for name, units in self.units.items():
            state = self.books.states[name]
            found = {
                queue.dates: [((each.month, each.campaign, each.version), each.amount) for each in queue.cohorts]
                for queue in state.queues
            }
            expected = {dates: runs([unit.origin for unit in lot]) for dates, lot in units.lots.items() if lot}
            if units.debts:
                assert UNDATED not in expected
                debts = runs([(owed.month, owed.move) for owed in units.debts])
                expected[UNDATED] = [((month, "", 0), -size) for (month, _), size in debts]
            assert found == expected
            for (source, *origin, move, month), amount in units.moves.items():
                moves[state.asset, source, *origin, move, month] += amount
        rows = {key: row["amount"] for key, row in self.books.sums(COHORTS, *COHORTS.key).items() if row["amount"]}
        assert rows == {key: amount for key, amount in moves.items() if amount}

    def compare(self) -> None:
        """The requests are compared with the model elsewhere."""


def test_views_obey_their_laws_in_random_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bounds of what is remembered, the cohorts are those of single units."""
    monkeypatch.setattr(cohorts, "CONSUMED_MAX", 10**6)
    monkeypatch.setattr(cohorts, "RUNS_MAX", 10**6)
    run_histories(Folded, 60, 50, derandomize=True)
