"""The pure heart against a dictionary: every law after every step, however the commands are cut into batches."""

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from guerdon.ledger.models import CommandResult
from tests.invariants.balance_model import Answer, Bounds, Model, Spec
from tests.invariants.in_memory_ledger import NOW_MS, Store, answer_of, assert_laws, command_for, group_answer_of, wallet_id

SEEN = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
WALLETS = [wallet_id(number) for number in range(1, 5)] + [wallet_id(1, "GBP"), wallet_id(2, "GBP")]
BOUNDS = {WALLETS[0]: Bounds(ceiling=150), WALLETS[1]: Bounds(floor=-40), WALLETS[3]: Bounds(ceiling=60)}
KEYS = [f"till-{number}" for number in range(12)]
AMOUNTS = st.integers(1, 100) | st.sampled_from([1, 40, 60, 150, 10**15])
REFERENCES = st.sampled_from([None, None, None, "order-1", "order-2", "order-3"])


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """A movement of a small world, so that keys, references and bounds are met often."""
    kind = draw(st.sampled_from(["credit", "credit", "debit", "transfer"]))
    wallet = draw(st.sampled_from(WALLETS))
    to = None
    if kind == "transfer":
        asset = wallet.partition(":")[2]
        to = draw(st.sampled_from([each for each in WALLETS if each != wallet and each.endswith(asset)]))
    return Spec(kind, wallet, draw(AMOUNTS), draw(st.sampled_from(KEYS)), to, draw(REFERENCES))


GROUPS = st.lists(specs(), min_size=1, max_size=4)


class Books(RuleBasedStateMachine):
    """Single movements, replays, reuses and atomic groups, in batches of every size."""

    @initialize()
    def open_books(self) -> None:
        self.model = Model(bounds=BOUNDS)
        self.store = Store()
        self.asked: list[Spec] = []
        self.number = 0
        self.now_ms = NOW_MS

    def run_batch(self, groups: list[list[Spec]]) -> None:
        """Give the ledger one batch, and the model the same commands one after another."""
        commands = []
        for group in groups:
            commands.append(command_for(group, self.number, BOUNDS))
            self.number += len(group)
        self.now_ms += 7
        verdicts = self.store.commit(commands, self.now_ms)
        assert len(verdicts) == len(groups)
        for group, verdict in zip(groups, verdicts, strict=True):
            self.asked.extend(group)
            if len(group) == 1:
                assert answer_of(verdict) == self.model.apply(group[0])
            else:
                assert group_answer_of(verdict) == self.model.apply_atomically(group)

    @rule(spec=specs())
    def move(self, spec: Spec) -> None:
        self.run_batch([[spec]])

    @rule(wallet=st.sampled_from(WALLETS), up=st.booleans(), beyond=st.integers(-1, 1), number=st.integers(0, 10**6))
    def move_to_the_edge(self, wallet: str, up: bool, beyond: int, number: int) -> None:
        """To the floor or the ceiling, one short of it, or one beyond."""
        bounds, balance = BOUNDS.get(wallet, Bounds()), self.model.balances.get(wallet, 0)
        amount = (min(bounds.ceiling, 10**15) - balance if up else balance - bounds.floor) + beyond
        if amount > 0:
            self.run_batch([[Spec("credit" if up else "debit", wallet, amount, f"edge-{number}")]])

    @rule(batch=st.lists(GROUPS, min_size=1, max_size=6))
    def move_many(self, batch: list[list[Spec]]) -> None:
        self.run_batch(batch)

    @rule(group=st.lists(specs(), min_size=2, max_size=5), twice=st.booleans())
    def move_together(self, group: list[Spec], twice: bool) -> None:
        """With `twice`, the very same group again in the same batch."""
        self.run_batch([group, group] if twice else [group])

    @rule(place=st.integers(0, 10**6), count=st.integers(1, 3))
    def repeat(self, place: int, count: int) -> None:
        """The same request again, once or several times in one batch."""
        if self.asked:
            self.run_batch([[self.asked[place % len(self.asked)]]] * count)

    @rule(place=st.integers(0, 10**6), more=st.integers(1, 9))
    def reuse_key(self, place: int, more: int) -> None:
        """The key of an earlier request with another content."""
        if self.asked:
            old = self.asked[place % len(self.asked)]
            self.run_batch([[Spec(old.kind, old.wallet, old.amount % 100 + more, old.key, old.to, old.reference)]])

    @rule(place=st.integers(0, 10**6), number=st.integers(0, 10**6))
    def reuse_reference(self, place: int, number: int) -> None:
        """The reference of an earlier request under a new key, in the same batch as the old request."""
        referred = [spec for spec in self.asked if spec.reference is not None]
        if referred:
            old = referred[place % len(referred)]
            new = Spec("credit", old.wallet, 1, f"fresh-{number}", None, old.reference)
            self.run_batch([[old], [new]])

    @invariant()
    def laws_hold(self) -> None:
        if hasattr(self, "store"):
            assert_laws(self.store.accounts, list(self.store.entries.values()), BOUNDS)
            assert {name: account.balance for name, account in self.store.accounts.items()} == self.model.balances
            assert {name: account.seq for name, account in self.store.accounts.items()} == self.model.seqs


TestBooks = Books.TestCase
TestBooks.settings = settings(SEEN, max_examples=80, stateful_step_count=30)
"""`tests/trust/test_ledger_histories.py` tells many more histories, and tries the properties below on more batches."""


CUT: dict[str, st.SearchStrategy[Any]] = {"groups": st.lists(GROUPS, min_size=2, max_size=25), "cuts": st.sets(st.integers(1, 24))}
WHOLE: dict[str, st.SearchStrategy[Any]] = {"groups": st.lists(GROUPS, min_size=1, max_size=15)}


def plain(verdict: CommandResult) -> object:
    """Everything that a caller can tell about a verdict, except whether the answer came from memory."""
    if hasattr(verdict, "entries"):
        return [(entry.transaction_id, entry.id, entry.hash) for entry in verdict.entries]
    return (verdict.code, verdict.detail, verdict.members, verdict.replayed)


@settings(SEEN, max_examples=80)
@given(**CUT)
def test_batch_borders_change_nothing(groups: list[list[Spec]], cuts: set[int]) -> None:
    """One by one, all at once, or cut anywhere: the same verdicts, the same bytes."""
    numbers = [sum(map(len, groups[:place])) for place in range(len(groups))]
    results = []
    for borders in (set(range(1, len(groups))), set(), cuts):
        store, verdicts, start = Store(), [], 0
        for end in [*sorted(border for border in borders if border < len(groups)), len(groups)]:
            batch = [command_for(groups[place], numbers[place], BOUNDS) for place in range(start, end)]
            verdicts += store.commit(batch, NOW_MS)
            start = end
        results.append((list(map(plain, verdicts)), msgspec.json.encode(store.accounts), set(store.entries)))
    assert results[0] == results[1] == results[2]


@settings(SEEN, max_examples=60)
@given(**WHOLE)
def test_deciding_again_gives_the_same_result(groups: list[list[Spec]]) -> None:
    """A batch may be decided again after a lost race: with the same snapshot, the result is the same to the last bit."""
    commands = [command_for(group, 10 * place, BOUNDS) for place, group in enumerate(groups)]
    first, second = Store(), Store()
    assert list(map(plain, first.commit(commands, NOW_MS))) == list(map(plain, second.commit(commands, NOW_MS)))
    assert first.accounts == second.accounts
    assert first.entries == second.entries


def test_a_frozen_account_refuses_both_directions() -> None:
    bounds = {WALLETS[0]: Bounds(frozen=True)}
    store, model = Store(), Model(bounds=bounds)
    for number, spec in enumerate([Spec("credit", WALLETS[0], 5, "a"), Spec("credit", WALLETS[1], 5, "b")]):
        model.bounds = {}
        assert answer_of(store.commit([command_for([spec], number, {})], NOW_MS)[0]) == model.apply(spec)
    store.accounts[WALLETS[0]] = msgspec.structs.replace(store.accounts[WALLETS[0]], status="frozen")
    model.bounds = bounds
    tries = [
        Spec("credit", WALLETS[0], 1, "c"),
        Spec("debit", WALLETS[0], 1, "d"),
        Spec("transfer", WALLETS[0], 1, "e", WALLETS[1]),
        Spec("transfer", WALLETS[1], 1, "f", WALLETS[0]),
    ]
    for number, spec in enumerate(tries, start=10):
        expected = model.apply(spec)
        assert expected == Answer("wallet-frozen")
        assert answer_of(store.commit([command_for([spec], number, {})], NOW_MS)[0]) == expected
    assert len(store.entries) == 2
