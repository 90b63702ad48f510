"""SIM-3: all commands on the pure ledger against the model, with time in all step sizes; every law after every step.

Everything is run twice: on books that a sweeper visits, and on books that it never visits. Both have to be what the model says.
"""

from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from guerdon.ledger.models import entry_id
from guerdon.verification.account_replay import AccountReplay
from tests.invariants.balance_model import Bounds
from tests.invariants.in_memory_ledger import NOW_MS, assert_holds_and_lots, assert_laws, wallet_id
from tests.invariants.ledger_driver import Till, answer_of
from tests.invariants.ledger_requests import Answer, Ask
from tests.invariants.state_machine_rules import DAY_MS, DONE, HOUR_MS, REFUSED, ZONE, Requests, found, places, run_histories, told

WALLETS = [wallet_id(number) for number in (1, 2, 3, 4)]


class Worlds(Requests):
    @initialize(start=st.sampled_from([NOW_MS, NOW_MS + 3 * HOUR_MS, NOW_MS + 27 * DAY_MS]))
    def open_books(self, start: int) -> None:
        self.swept, self.idle = Till(ZONE), Till(ZONE)
        self.begin(WALLETS, start)

    def submit(self, batch: Sequence[Ask]) -> list[Answer]:
        """All of it is one batch of the ledger."""
        expected = [self.world.ask(ask) for ask in batch]
        for till in (self.swept, self.idle):
            assert [answer_of(verdict) for verdict in till.ask(batch, self.now)] == expected
        return expected

    @rule(some=st.sets(places))
    def sweep(self, some: set[int]) -> None:
        self.run_batch()
        there = [WALLETS[place] for place in sorted(some) if WALLETS[place] in self.world.wallets]
        self.swept.sweep(there, self.now)
        for wallet in there:
            due_at = self.swept.store.accounts[wallet].due_at
            assert due_at is None or due_at > self.now, "the sweeper would come back to it for ever"
        self.check_laws()

    def check_laws(self) -> None:
        for till in (self.swept, self.idle):
            entries = list(till.store.entries.values())
            assert_laws(till.store.accounts, entries, {name: Bounds(-(10**18)) for name in till.store.accounts})
            assert_holds_and_lots(till.store.accounts, entries)

    def teardown(self) -> None:
        """What proves books from their entries finds nothing either."""
        super().teardown()
        if hasattr(self, "world"):
            for till in (self.swept, self.idle):
                assert proved(till) == []

    def compare(self) -> None:
        for till in (self.swept, self.idle):
            assert set(till.store.accounts) == set(self.world.wallets)
            for name in self.world.wallets:
                numbers = {key: till.hold_of(key) for key, hold in self.world.holds.items() if hold.wallet == name}
                documents = {number: till.store.documents["holds", f"hld_{name}:{number}"] for number in numbers.values()}
                assert found(self.world, till.present(name, self.now), documents) == told(self.world, name, numbers)


def proved(till: Till) -> list[str]:
    """What the verification blames on the books."""
    blamed: list[str] = []
    for account in till.store.accounts.values():
        replay = AccountReplay(account, till.calendar, lambda law, where, why: blamed.append(f"{law} {where}: {why}"))
        for seq in range(1, account.seq + 1):
            replay.follow(till.store.entries[entry_id(account.id, seq)], seq)
        replay.check_row()
    return blamed


def run_worlds(sequences: int, **more: object) -> None:
    """Every kind of request must have been done, and refused for its reasons."""
    run_histories(Worlds, sequences, 50, **more)
    assert set(Worlds.seen) >= DONE | REFUSED, (DONE | REFUSED) - set(Worlds.seen)


@pytest.mark.timeout(600)
def test_all_commands_agree_with_the_model() -> None:
    run_worlds(50, derandomize=True)
