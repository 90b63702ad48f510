"""SIM-3: all commands on the pure ledger against the model, with time in all step sizes; every law after every step.

Everything is run twice: on books that a sweeper visits, and on books that it never visits. Both have to be what the model says.
"""

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from guerdon.ledger.models import Account
from tests.invariants.asks import PLAIN, Ask, Dates, Kind, Pieces, Terms
from tests.invariants.books import NOW_MS, assert_holds_and_lots, assert_laws, wallet_id
from tests.invariants.model import Bounds
from tests.invariants.till import Till, answer_of
from tests.invariants.world import World, amount_of

ZONE = "America/St_Johns"
"""Half an hour beside the full hours, with daylight saving time."""
SECOND_MS, HOUR_MS, DAY_MS = 1000, 3_600_000, 86_400_000
WALLETS = [wallet_id(number) for number in (1, 2, 3, 4)]
wallets = st.sampled_from(WALLETS[:3] * 4 + WALLETS[3:])
amounts = st.integers(1, 60) | st.sampled_from([1, 10, 10, 20, 30])
spans = st.sampled_from([SECOND_MS, HOUR_MS, 5 * HOUR_MS, DAY_MS, DAY_MS, 2 * DAY_MS, 5 * DAY_MS, 9 * DAY_MS])
references = st.sampled_from([None] * 6 + ["order-1", "order-2"])
anything = st.integers(0, 10**6)
terms = st.builds(
    Terms,
    floor=st.sampled_from([0, 0, -30, -100]),
    ceiling=st.sampled_from([10**18, 10**18, 80]),
    day=st.sampled_from([None, None, 40, 90]),
    month=st.sampled_from([None, None, 60, 150]),
)

KEYED = ("credit", "debit", "transfer", "hold", "capture", "void", "reversal")
REFUSED = (
    *("debit insufficient-funds", "hold insufficient-funds", "reversal insufficient-funds", "credit balance-limit"),
    *("debit limit-reached", "hold limit-reached", "transfer limit-reached", "capture capture-limit", "reversal reversal-limit"),
    *("capture invalid-state", "void invalid-state", "close wallet-not-empty", "debit wallet-frozen", "capture wallet-frozen"),
    *("debit wallet-closed", "debit not-found", "credit reference-reused", "debit idempotency-key-reused"),
)
INTERESTING = {f"{kind} done" for kind in (*KEYED, "freeze", "unfreeze", "close", "terms")} | set(REFUSED)
REPEATED = {f"repeated {kind} done" for kind in KEYED} | {"repeated debit insufficient-funds"}
"""What only many histories meet."""


class Worlds(RuleBasedStateMachine):
    seen: ClassVar[Counter[str]] = Counter()
    """What has come of each kind of request, in all histories together."""

    @initialize(start=st.sampled_from([NOW_MS, NOW_MS + 3 * HOUR_MS, NOW_MS + 27 * DAY_MS]))
    def open_books(self, start: int) -> None:
        self.now = start
        self.world = World(ZONE, start)
        self.swept, self.idle = Till(ZONE), Till(ZONE)
        self.asked: list[Ask] = []
        self.batch: list[Ask] = []
        self.number = 0
        for wallet, dates in zip(WALLETS, (PLAIN, Dates("promotional"), Dates("paid", None, start + 5 * DAY_MS)), strict=False):
            self.put("credit", wallet, 100, dates=dates)
        self.run_batch()

    def put(self, kind: Kind, wallet: str, amount: int | None = None, **more: object) -> None:
        """Lay a request beside the others of the next batch."""
        self.number += 1
        self.batch.append(replace(Ask(kind, wallet, f"key-{self.number}", amount), **more))

    def run_batch(self) -> None:
        batch, self.batch = self.batch, []
        expected = [self.world.ask(ask) for ask in batch]
        for till in (self.swept, self.idle):
            assert [answer_of(verdict) for verdict in till.ask(batch, self.now)] == expected
        self.asked += batch
        for ask, answer in zip(batch, expected, strict=True):
            self.seen[f"{'repeated ' if answer.replayed else ''}{ask.kind} {answer.code or 'done'}"] += 1

    def wait_until(self, moment: int) -> None:
        self.run_batch()
        self.now = max(self.now, moment)
        self.world.wait(self.now)

    # --- requests ---------------------------------------------------------------------------------------------------

    @rule(wallet=wallets, amount=amounts, reference=references)
    def credit(self, wallet: str, amount: int, reference: str | None) -> None:
        self.put("credit", wallet, amount, reference=reference)

    @rule(wallet=wallets, amount=amounts, pends=st.none() | spans, lasts=st.none() | spans, promotional=st.booleans())
    def credit_dated(self, wallet: str, amount: int, pends: int | None, lasts: int | None, promotional: bool) -> None:
        """Dates lie on full hours, so that they meet each other."""
        hour = (self.now + (pends or 0)) // HOUR_MS * HOUR_MS
        dates = Dates("promotional" if promotional else "paid", hour if pends else None, hour + lasts if lasts else None)
        self.put("credit", wallet, amount, dates=dates)

    @rule(wallet=wallets, amount=amounts, reference=references)
    def debit(self, wallet: str, amount: int, reference: str | None) -> None:
        self.put("debit", wallet, amount, reference=reference)

    @rule(wallet=wallets, beyond=st.integers(0, 1))
    def debit_to_the_edge(self, wallet: str, beyond: int) -> None:
        """All that can be spent, or one more."""
        self.run_batch()
        known = self.world.wallets.get(wallet)
        if known is not None and known.spendable + beyond > 0:
            self.put("debit", wallet, known.spendable + beyond)

    @rule(wallet=wallets, step=st.integers(1, 3), amount=amounts)
    def transfer(self, wallet: str, step: int, amount: int) -> None:
        self.put("transfer", wallet, amount, to=WALLETS[(WALLETS.index(wallet) + step) % 4])

    @rule(wallet=wallets, amount=amounts, ttl_ms=spans)
    def hold(self, wallet: str, amount: int, ttl_ms: int) -> None:
        self.put("hold", wallet, amount, ttl_ms=ttl_ms)

    @precondition(lambda self: self.world.holds)
    @rule(which=anything, amount=st.none() | amounts, final=st.booleans())
    def capture(self, which: int, amount: int | None, final: bool) -> None:
        key, hold = self.hold_number(which)
        self.put("capture", hold, amount, about=key, final=final)

    @precondition(lambda self: self.world.holds)
    @rule(which=anything, part=st.integers(1, 3), beyond=st.integers(0, 1))
    def capture_to_the_edge(self, which: int, part: int, beyond: int) -> None:
        """First a part, then in the same batch all that is left, or one more."""
        self.run_batch()
        key, wallet = self.hold_number(which)
        left = amount_of(self.world.holds[key].left)
        if left > part:
            self.put("capture", wallet, part, about=key)
            self.put("capture", wallet, left - part + beyond, about=key)

    @precondition(lambda self: self.world.holds)
    @rule(which=anything)
    def void(self, which: int) -> None:
        key, wallet = self.hold_number(which)
        self.put("void", wallet, about=key)

    def hold_number(self, which: int) -> tuple[str, str]:
        """Mostly one that is active."""
        active = [key for key, hold in self.world.holds.items() if hold.status == "held"]
        keys = active if active and which % 4 else list(self.world.holds)
        key = keys[which // 4 % len(keys)]
        return key, self.world.holds[key].wallet

    @precondition(lambda self: self.world.sides)
    @rule(which=anything, amount=st.none() | amounts | st.integers(1, 10))
    def reverse(self, which: int, amount: int | None) -> None:
        keys = list(self.world.sides)
        key = keys[which % len(keys)]
        self.put("reversal", self.world.sides[key][0].wallet, amount, about=key)

    @precondition(lambda self: self.world.wallets)
    @rule(which=anything, kind=st.sampled_from(["freeze", "unfreeze", "unfreeze", "unfreeze", "unfreeze", "close"]))
    def set_status(self, which: int, kind: Kind) -> None:
        self.put(kind, list(self.world.wallets)[which % len(self.world.wallets)])

    @precondition(lambda self: self.world.holds)
    @rule(which=anything, voids=st.booleans())
    def freeze_around_a_hold(self, which: int, voids: bool) -> None:
        key, wallet = self.hold_number(which)
        self.put("freeze", wallet)
        self.put("capture", wallet, 1, about=key)
        if voids:
            self.put("void", wallet, about=key)
        self.put("unfreeze", wallet)

    @precondition(lambda self: self.world.wallets)
    @rule(which=anything)
    def empty_and_close(self, which: int) -> None:
        """It closes unless something is held, pending or owed; nothing moves on it after that."""
        self.run_batch()
        name = list(self.world.wallets)[which % len(self.world.wallets)]
        wallet = self.world.wallets[name]
        if which % 8 or wallet.status != "open":
            return
        if wallet.spendable > 0:
            self.put("debit", name, wallet.spendable)
        self.put("close", name)
        self.put("debit", name, 1)
        self.put("terms", name)
        self.put("freeze", name)

    @precondition(lambda self: self.world.wallets)
    @rule(which=anything, terms=terms)
    def set_terms(self, which: int, terms: Terms) -> None:
        self.put("terms", list(self.world.wallets)[which % len(self.world.wallets)], terms=terms)

    @precondition(lambda self: self.asked)
    @rule(which=anything, more=st.sampled_from([0, 0, 1]))
    def repeat_or_reuse(self, which: int, more: int) -> None:
        """The same request again, or another one under its key."""
        keyed = [ask for ask in self.asked if ask.kind in KEYED][-12:]
        if not keyed:
            return
        old = keyed[which % len(keyed)]
        self.batch.append(replace(old, amount=old.amount + more) if more and old.amount else old)

    @rule()
    def send(self) -> None:
        """All that lies there becomes one batch."""
        self.run_batch()

    # --- time -------------------------------------------------------------------------------------------------------

    @rule(span=st.sampled_from([1, SECOND_MS, HOUR_MS, 7 * HOUR_MS, DAY_MS, 3 * DAY_MS, 8 * DAY_MS, 31 * DAY_MS]))
    def wait(self, span: int) -> None:
        self.wait_until(self.now + span)

    @rule(which=st.integers(0, 3), early=st.integers(0, 1))
    def wait_for_a_moment(self, which: int, early: int) -> None:
        """Exactly when something happens, or one millisecond before."""
        moments = sorted(moment for moment in self.world.moments() if moment > self.now)
        if moments:
            self.wait_until(moments[which % len(moments)] - early)

    @rule(some=st.sets(wallets))
    def sweep(self, some: set[str]) -> None:
        self.run_batch()
        there = sorted(some & set(self.world.wallets))
        self.swept.sweep(there, self.now)
        for wallet in there:
            due_at = self.swept.store.accounts[wallet].due_at
            assert due_at is None or due_at > self.now, "the sweeper would come back to it for ever"

    # --- laws -------------------------------------------------------------------------------------------------------

    @invariant()
    def the_books_are_what_the_model_says(self) -> None:
        if not hasattr(self, "world"):
            return
        if len(self.batch) >= 3:
            self.run_batch()  # Fewer wait for company, so that a batch has several commands.
        if self.batch:
            return
        for till in (self.swept, self.idle):
            assert set(till.store.accounts) == set(self.world.wallets)
            for name in self.world.wallets:
                self.compare(till, name)
            entries = list(till.store.entries.values())
            assert_laws(till.store.accounts, entries, {name: Bounds(-(10**18)) for name in WALLETS})
            assert_holds_and_lots(till.store.accounts, entries)

    def compare(self, till: Till, name: str) -> None:
        account, wallet = till.present(name, self.now), self.world.wallets[name]
        assert (account.balance, account.held, account.status) == (wallet.balance, wallet.held, wallet.status)
        assert account.spendable == wallet.spendable
        limits = account.limits
        assert (account.floor, account.ceiling) == wallet.terms[:2]
        assert (None if limits is None else (limits.day, limits.month)) == (
            None if wallet.terms[2:] == (None, None) else wallet.terms[2:]
        )
        assert lots_of(account) == pieces_of(wallet.free)
        holds = {key: hold for key, hold in self.world.holds.items() if hold.wallet == name}
        numbers = {till.hold_of(key): hold for key, hold in holds.items()}
        active = {number: hold for number, hold in numbers.items() if hold.status == "held"}
        assert {hold.seq for hold in account.holds} == set(active)
        for hold in account.holds:
            known = active[hold.seq]
            assert (hold.left, hold.captured, hold.expires_at) == (amount_of(known.left), known.captured, known.expires_at)
            assert Counter({Dates(*lot.dates): lot.amount for lot in hold.lots}) == pieces_of(known.left)
        for number, known in numbers.items():
            document = till.store.documents["holds", f"hld_{name}:{number}"]
            stale = document["status"] == "held" and known.status == "expired"
            assert stale or (document["status"], document["left"]) == (known.status, amount_of(known.left))
            assert document["captured"] == known.captured
        day, month = self.world.periods(self.now)
        spent = account.spent
        if spent is not None:
            in_day, in_month = spent.in_day if spent.day == day else 0, spent.in_month if spent.month == month else 0
            assert (in_day, in_month) == (wallet.counted[day], wallet.counted[month])

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run_batch()
            self.the_books_are_what_the_model_says()


def pieces_of(pieces: Pieces) -> Counter[Dates]:
    """How much of each date there is, without undated paid value."""
    amounts: Counter[Dates] = Counter()
    for dates, amount in pieces:
        amounts[dates] += amount
    del amounts[PLAIN]
    return amounts


def lots_of(account: Account) -> Counter[Dates]:
    return Counter({Dates(*lot.dates): lot.amount for lot in account.lots or ()})


def run_worlds(sequences: int, **more: object) -> None:
    """Histories of up to fifty steps each; every kind of request must have been done and refused for its reasons."""
    Worlds.seen.clear()
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    chosen = settings(max_examples=sequences, stateful_step_count=50, deadline=None, suppress_health_check=checks, **more)
    run_state_machine_as_test(Worlds, settings=chosen)
    assert set(Worlds.seen) >= INTERESTING, INTERESTING - set(Worlds.seen)


@pytest.mark.timeout(600)
def test_all_commands_agree_with_the_model() -> None:
    run_worlds(150, derandomize=True)
