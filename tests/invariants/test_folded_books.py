"""Views of random ledger histories: every law after every batch."""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.invariants.folded_books import FoldedBooks, assert_views
from tests.invariants.in_memory_ledger import NOW_MS, wallet_id
from tests.invariants.ledger_driver import Till, answer_of
from tests.invariants.ledger_requests import Answer, Ask
from tests.invariants.state_machine_rules import DAY_MS, HOUR_MS, ZONE, Requests, places, run_histories

WALLETS = [wallet_id(number) for number in (1, 2, 3, 4)]


class Folded(Requests):
    @initialize(start=st.sampled_from([NOW_MS, NOW_MS + 3 * HOUR_MS, NOW_MS + 27 * DAY_MS]))
    def open_books(self, start: int) -> None:
        self.till = Till(ZONE)
        self.books = FoldedBooks(self.till.calendar)
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
        entries = self.till.store.entries.values()
        self.books.follow(entries)
        assert_views(self.books, self.till.store.accounts, entries)

    def compare(self) -> None:
        """The requests are compared with the model elsewhere."""


def test_views_obey_their_laws_in_random_histories() -> None:
    run_histories(Folded, 60, 50, derandomize=True)
