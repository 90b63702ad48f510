"""Views of random ledger histories: every law after every batch, and every cohort against a model of single units."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from msgspec.structs import replace

from guerdon.ledger.models import Entry
from guerdon.views import cohorts
from guerdon.views.models import COHORTS
from guerdon.views.traced import Tracer
from tests.invariants.folded_books import FoldedBooks, assert_views
from tests.invariants.histories import MINE, History, at
from tests.invariants.in_memory_ledger import NOW_MS, wallet_id
from tests.invariants.ledger_driver import Till, answer_of
from tests.invariants.ledger_requests import WAITING, Answer, Ask, Dates, Terms
from tests.invariants.state_machine_rules import DAY_MS, HOUR_MS, ZONE, Requests, amounts, places, run_histories
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


class Twins:
    """The views of a ledger in memory, and the units of the model."""

    def __init__(self, till: Till) -> None:
        self.till = till
        self.books = FoldedBooks(till.calendar)
        self.entries: dict[str, Entry] = {}
        self.units: dict[str, UnitAccount] = {}
        self.tracers: dict[str, Tracer] = {}

    def follow(self) -> None:
        """Take the entries that are new, and check every law and every cohort."""
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


class Folded(Requests):
    @initialize(start=st.sampled_from([NOW_MS, NOW_MS + 3 * HOUR_MS, NOW_MS + 27 * DAY_MS]))
    def open_books(self, start: int) -> None:
        self.till = Till(ZONE)
        self.twins = Twins(self.till)
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

    @rule(
        place=places,
        ways=st.lists(st.sampled_from(["credit", "dated", "pending", "award", "hold", "back", "part back", "wait"]), max_size=4),
        amount=amounts,
        part=st.integers(1, 3),
    )
    def owe(self, place: int, ways: list[str], amount: int, part: int) -> None:
        """Spend into a debt, which value of every kind repays before or after the spend is taken back."""
        self.run_batch()
        name = self.wallets[place]
        if name not in self.world.wallets or self.world.wallets[name].status != "open":
            return
        hour = self.now // HOUR_MS * HOUR_MS + HOUR_MS
        self.put("credit", name, amount, dates=Dates("promotional", None, hour + 9 * DAY_MS))
        self.put("terms", name, terms=Terms(floor=-100))
        self.put("hold", name, amount, ttl_ms=DAY_MS)
        held = self.batch[-1].key
        self.run_batch()
        left = self.world.wallets[name].spendable
        if left < part:
            return
        self.put("debit", name, left // part)
        spent = self.batch[-1].key
        for way in ways:
            self.do(way, name, amount, hour, (held, spent))
            self.run_batch()

    def do(self, way: str, name: str, amount: int, hour: int, keys: tuple[str, str]) -> None:
        held, spent = keys
        if way == "credit":
            self.put("credit", name, amount)
        elif way == "dated":
            self.put("credit", name, amount, dates=Dates("promotional", None, hour + DAY_MS))
        elif way == "pending":
            self.put("credit", name, amount, dates=Dates("promotional", hour + HOUR_MS, hour + 3 * DAY_MS))
        elif way == "award":
            for _ in range(2):
                self.put("award", name, amount, dates=Dates("promotional", WAITING, hour + DAY_MS))
            key = self.batch[-1].key
            self.run_batch()
            if key in self.world.awards:
                self.put("confirmation", name, amount, about=key, dates=Dates("promotional", None, hour + 2 * DAY_MS))
                self.put("reversal", name, amount // 2 + 1, about=key)
        elif way == "hold" and held in self.world.holds:
            self.put("void", name, about=held)
        elif way.endswith("back") and spent in self.world.sides:
            self.put("reversal", name, None if way == "back" else 7, about=spent)
        else:
            self.wait_until(self.now + 5 * HOUR_MS)

    def check_laws(self) -> None:
        self.twins.follow()

    def compare(self) -> None:
        """The requests are compared with the model elsewhere."""


def test_views_obey_their_laws_in_random_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bounds of what is remembered, the cohorts are those of single units."""
    monkeypatch.setattr(cohorts, "CONSUMED_MAX", 10**6)
    monkeypatch.setattr(cohorts, "RUNS_MAX", 10**6)
    run_histories(Folded, 60, 50, derandomize=True, phases=[Phase.explicit, Phase.generate])


PROMO = "promotional"


def repaid_on_arrival(history: History) -> None:
    history.credit(30, source=PROMO, until=50)
    history.on(1, "debit", 45)


def settled_when_it_matures(history: History) -> None:
    history.credit(40, source=PROMO, until=50, since=5)
    history.credit(10)
    history.on(1, "debit", 35)
    history.on(6, "debit", 3)
    history.on(7, "credit", 9)


def repaid_by_a_confirmation(history: History) -> None:
    award = history.on(0, "award", 50, dates=Dates(PROMO, WAITING, at(40)))
    history.on(0, "award", 20, dates=Dates(PROMO, WAITING, at(40)))
    history.on(1, "debit", 30)
    history.on(2, "confirmation", 45, about=award, dates=Dates(PROMO, None, at(60)))
    history.on(3, "debit", 20)


def repaid_by_a_released_hold(history: History) -> None:
    history.credit(25, source=PROMO, until=20)
    history.credit(10)
    hold = history.hold(30, 10)
    history.on(1, "debit", 20)
    history.on(2, "void", about=hold)
    history.on(3, "debit", 5)


def repaid_by_an_expired_hold(history: History) -> None:
    history.credit(25, source=PROMO, until=4)
    history.hold(20, 6)
    history.on(1, "debit", 40)
    history.on(9, "credit", 1)
    history.on(30, "credit", 1)


def captured_in_parts(history: History) -> None:
    history.credit(25, source=PROMO, until=20)
    history.credit(25, source=PROMO, until=30)
    hold = history.hold(45, 10)
    history.on(1, "capture", 10, about=hold)
    history.on(2, "capture", 20, about=hold, final=True)
    history.on(40, "debit", 3)


def spend_taken_back_after_it_was_repaid(history: History) -> None:
    spent = history.on(1, "debit", 60)
    history.on(32, "credit", 25)
    history.on(64, "credit", 50, dates=Dates(PROMO, None, at(90)))
    history.on(65, "reversal", 40, about=spent)
    history.on(66, "reversal", None, about=spent)
    history.on(67, "debit", 110)


def award_taken_back_from_one_lot_of_two_campaigns(history: History) -> None:
    made = [history.on(0, "award", 20, dates=Dates(PROMO, WAITING, at(40))) for _ in range(4)]
    history.on(1, "reversal", 15, about=made[2])
    for key in made:
        history.on(2, "confirmation", 5, about=key, dates=Dates(PROMO, None, at(60)))
    history.on(3, "debit", 12)


@pytest.mark.parametrize(
    "tell",
    [
        repaid_on_arrival,
        settled_when_it_matures,
        repaid_by_a_confirmation,
        repaid_by_a_released_hold,
        repaid_by_an_expired_hold,
        captured_in_parts,
        spend_taken_back_after_it_was_repaid,
        award_taken_back_from_one_lot_of_two_campaigns,
    ],
)
def test_debts_holds_and_clawbacks_are_told_by_single_units(tell: Callable[[History], None]) -> None:
    """Cases that random histories rarely meet. Every step is checked."""
    history = Checked()
    history.terms(floor=-100)
    tell(history)


class Checked(History):
    """A history whose views are checked after each request."""

    def __init__(self) -> None:
        super().__init__(ZONE)
        self.twins = Twins(self.till)

    def on(self, day: float, kind: str, amount: int | None = None, wallet: str = MINE, **more: object) -> str:
        key = super().on(day, kind, amount, wallet, **more)
        self.twins.follow()
        return key

    def terms(self, **terms: int) -> None:
        self.on(0, "credit", 1)
        super().terms(**terms)
