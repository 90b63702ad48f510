"""What may be asked of the books and how time passes, as the rules of a state machine; what books they are, each machine says."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from guerdon.ledger.models import Account
from tests.invariants.ledger_model import World, amount_of
from tests.invariants.ledger_requests import PLAIN, WAITING, Answer, Ask, Dates, Kind, Pieces, Terms

ZONE = "America/St_Johns"
"""Half an hour beside the full hours, with daylight saving time."""
SECOND_MS, HOUR_MS, DAY_MS = 1000, 3_600_000, 86_400_000
places = st.sampled_from([0, 1, 2] * 4 + [3])
amounts = st.integers(1, 60) | st.sampled_from([1, 10, 10, 20, 30])
spans = st.sampled_from([SECOND_MS, HOUR_MS, 5 * HOUR_MS, DAY_MS, DAY_MS, 2 * DAY_MS, 5 * DAY_MS, 9 * DAY_MS])
references = st.sampled_from([None] * 3 + ["order-1", "order-2"])
anything = st.integers(0, 10**6)
terms = st.builds(
    Terms,
    floor=st.sampled_from([0, 0, -30, -100]),
    ceiling=st.sampled_from([10**18, 10**18, 80]),
    day=st.sampled_from([None, None, 40, 90]),
    month=st.sampled_from([None, None, 60, 150]),
)

KEYED = ("credit", "debit", "transfer", "hold", "capture", "void", "reversal", "award", "confirmation", "transaction", "exchange")
DONE = {f"{kind} done" for kind in (*KEYED, "freeze", "unfreeze", "close", "terms")}
REFUSED = {
    *("debit insufficient-funds", "hold insufficient-funds", "reversal insufficient-funds", "reversal reversal-limit"),
    *("capture invalid-state", "void invalid-state", "close wallet-not-empty", "capture wallet-frozen", "debit wallet-closed"),
    "confirmation invalid-state",
    "transaction insufficient-funds",
    "exchange insufficient-funds",
}
"""What 150 histories meet whatever the seed: dozens of times in each of several runs."""
RARE = {
    *("debit not-found", "debit idempotency-key-reused", "debit wallet-frozen", "debit limit-reached", "capture capture-limit"),
    *("credit balance-limit", "credit reference-reused", "hold limit-reached", "transfer limit-reached"),
    "repeated debit insufficient-funds",
    *(f"repeated {what}" for what in DONE if what.split()[0] in KEYED),
}
"""What only many histories are sure to meet."""


class Requests(RuleBasedStateMachine):
    """Nothing that is drawn depends on what has come of an earlier request: who wins a race must not change what is asked next."""

    seen: ClassVar[Counter[str]]
    """What has come of each kind of request, in all histories together."""

    def begin(self, wallets: list[str], now: int) -> None:
        """Three wallets of different value, a fourth one that is not there yet, and a hold."""
        self.wallets, self.now = wallets, now
        self.world = World(ZONE, now)
        self.asked: list[Ask] = []
        self.batch: list[Ask] = []
        self.number = 0
        for place, dates in enumerate((PLAIN, Dates("promotional"), Dates("paid", None, now + 5 * DAY_MS))):
            self.put("credit", wallets[place], 100, dates=dates)
        self.run_batch()
        self.put("hold", wallets[0], 10, ttl_ms=DAY_MS)
        self.run_batch()

    def put(self, kind: Kind, wallet: str, amount: int | None = None, **more: object) -> None:
        """Lay a request beside the others of the next batch."""
        self.number += 1
        self.batch.append(replace(Ask(kind, wallet, f"key-{self.number}", amount), **more))

    def run_batch(self) -> None:
        batch, self.batch = self.batch, []
        if not batch:
            return
        answers = self.submit(batch)
        self.check_laws()
        self.asked += batch
        for ask, answer in zip(batch, answers, strict=True):
            self.seen[f"{'repeated ' if answer.replayed else ''}{ask.kind} {answer.code or 'done'}"] += 1

    @abstractmethod
    def submit(self, batch: Sequence[Ask]) -> list[Answer]:
        """Ask the books and the model, and return what both have answered."""

    @abstractmethod
    def check_laws(self) -> None:
        """Every law holds, by the entries alone."""

    @abstractmethod
    def compare(self) -> None:
        """The books are what the model says."""

    def wait_until(self, moment: int) -> None:
        self.run_batch()
        self.now = max(self.now, moment)
        self.world.wait(self.now)

    # --- requests ---------------------------------------------------------------------------------------------------

    @rule(place=places, amount=amounts, reference=references)
    def credit(self, place: int, amount: int, reference: str | None) -> None:
        self.put("credit", self.wallets[place], amount, reference=reference)

    @rule(place=places, amount=amounts, pends=st.none() | spans, lasts=st.none() | spans, promotional=st.booleans())
    def credit_dated(self, place: int, amount: int, pends: int | None, lasts: int | None, promotional: bool) -> None:
        """Dates lie on full hours, so that they meet each other."""
        hour = (self.now + (pends or 0)) // HOUR_MS * HOUR_MS
        dates = Dates("promotional" if promotional else "paid", hour if pends else None, hour + lasts if lasts else None)
        self.put("credit", self.wallets[place], amount, dates=dates)

    @rule(place=places, amount=amounts, hours=st.sampled_from([1, 1, 6, 48, 200]))
    def award(self, place: int, amount: int, hours: int) -> None:
        """Value that waits to be confirmed, and lapses when it is not."""
        lapses = self.now // HOUR_MS * HOUR_MS + hours * HOUR_MS
        self.put("award", self.wallets[place], amount, dates=Dates("promotional", WAITING, max(lapses, self.now + 1)))

    @rule(which=anything, amount=amounts, lasts=st.none() | spans)
    def confirm(self, which: int, amount: int, lasts: int | None) -> None:
        if self.world.awards:
            self.put_confirmation(which, amount, lasts)

    @rule(which=anything, part=st.integers(1, 3), beyond=st.integers(0, 1), lasts=st.none() | spans)
    def confirm_to_the_edge(self, which: int, part: int, beyond: int, lasts: int | None) -> None:
        """First a part, then in the same batch all that still waits, or one more."""
        self.run_batch()
        waiting = [key for key in self.world.awards if self.world.waiting(key) > part]
        if waiting:
            key = waiting[which % len(waiting)]
            place = list(self.world.awards).index(key)
            self.put_confirmation(place, part, lasts)
            self.put_confirmation(place, self.world.waiting(key) - part + beyond, lasts)

    def put_confirmation(self, which: int, amount: int, lasts: int | None) -> None:
        key = list(self.world.awards)[which % len(self.world.awards)]
        dates = Dates("promotional", None, self.now // HOUR_MS * HOUR_MS + HOUR_MS + lasts if lasts else None)
        self.put("confirmation", self.world.awards[key][0], amount, about=key, dates=dates)

    @rule(place=places, amount=amounts, reference=references)
    def debit(self, place: int, amount: int, reference: str | None) -> None:
        self.put("debit", self.wallets[place], amount, reference=reference)

    @rule(place=places, beyond=st.integers(0, 1))
    def debit_to_the_edge(self, place: int, beyond: int) -> None:
        """All that can be spent, or one more."""
        self.run_batch()
        known = self.world.wallets.get(self.wallets[place])
        if known is not None and known.spendable + beyond > 0:
            self.put("debit", self.wallets[place], known.spendable + beyond)

    @rule(place=places, step=st.integers(1, 3), amount=amounts)
    def transfer(self, place: int, step: int, amount: int) -> None:
        self.put("transfer", self.wallets[place], amount, to=self.wallets[(place + step) % 4])

    @rule(place=places, first=amounts, second=amounts, left=st.sampled_from([0, 0, 5]), reference=references)
    def split(self, place: int, first: int, second: int, left: int, reference: str | None) -> None:
        """One pays two, and some of it to nobody."""
        payer, one, two = (self.wallets[(place + step) % 4] for step in range(3))
        parts = ((payer, -first - second - left), (one, first), (two, second))
        self.put("transaction", payer, parts=parts, reference=reference)

    @rule(place=places, first=amounts, second=amounts, more=amounts)
    def pool(self, place: int, first: int, second: int, more: int) -> None:
        """Two pay two, so that one of them pays both."""
        payer, other, one, two = (self.wallets[(place + step) % 4] for step in range(4))
        parts = ((payer, -first - more), (other, -second), (one, first), (two, second + more))
        self.put("transaction", payer, parts=parts)

    @rule(place=places, amount=amounts, reference=references)
    def exchange(self, place: int, amount: int, reference: str | None) -> None:
        wallet = self.wallets[place]
        self.put("exchange", wallet, amount, to=wallet.replace(":PTS", ":GBP"), reference=reference)

    @rule(place=places, amount=amounts, ttl_ms=spans)
    def hold(self, place: int, amount: int, ttl_ms: int) -> None:
        self.put("hold", self.wallets[place], amount, ttl_ms=ttl_ms)

    @rule(which=anything, amount=st.none() | amounts, final=st.booleans())
    def capture(self, which: int, amount: int | None, final: bool) -> None:
        key, hold = self.hold_number(which)
        self.put("capture", hold, amount, about=key, final=final)

    @rule(which=anything, part=st.integers(1, 3), beyond=st.integers(0, 1))
    def capture_to_the_edge(self, which: int, part: int, beyond: int) -> None:
        """First a part, then in the same batch all that is left, or one more."""
        self.run_batch()
        key, wallet = self.hold_number(which)
        left = amount_of(self.world.holds[key].left)
        if left > part:
            self.put("capture", wallet, part, about=key)
            self.put("capture", wallet, left - part + beyond, about=key)

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

    @rule(which=anything, amount=st.none() | amounts | st.integers(1, 10))
    def reverse(self, which: int, amount: int | None) -> None:
        keys = self.reversible()
        key = keys[which % len(keys)]
        self.put("reversal", self.world.sides[key][0].wallet, None if key in self.world.several else amount, about=key)

    def reversible(self) -> list[str]:
        """Everything that has moved value but the awards, which only a refund or a void takes back."""
        return [key for key in self.world.sides if key not in self.world.awards]

    @rule(which=anything, part=st.integers(1, 3), beyond=st.integers(0, 1))
    def reverse_to_the_edge(self, which: int, part: int, beyond: int) -> None:
        """The same of a transaction."""
        self.run_batch()
        keys = self.reversible()
        key = keys[which % len(keys)]
        side = self.world.sides[key][0]
        left = amount_of(side.pieces) - self.world.undone[key]
        if left > part and key not in self.world.several:
            self.put("reversal", side.wallet, part, about=key)
            self.put("reversal", side.wallet, left - part + beyond, about=key)

    @rule(which=anything, kind=st.sampled_from(["freeze", "unfreeze", "unfreeze", "unfreeze", "unfreeze", "close"]))
    def set_status(self, which: int, kind: Kind) -> None:
        self.put(kind, list(self.world.wallets)[which % len(self.world.wallets)])

    @rule(which=anything, voids=st.booleans())
    def freeze_around_a_hold(self, which: int, voids: bool) -> None:
        key, wallet = self.hold_number(which)
        self.put("freeze", wallet)
        self.put("capture", wallet, 1, about=key)
        if voids:
            self.put("void", wallet, about=key)
        self.put("unfreeze", wallet)

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

    @rule(which=anything, terms=terms)
    def set_terms(self, which: int, terms: Terms) -> None:
        self.put("terms", list(self.world.wallets)[which % len(self.world.wallets)], terms=terms)

    @rule(which=anything, more=st.sampled_from([0, 0, 1]))
    def repeat_or_reuse(self, which: int, more: int) -> None:
        """The same request again, or another one under its key."""
        keyed = [ask for ask in self.asked if ask.kind in KEYED][-12:]
        if not keyed:
            return
        old = keyed[which % len(keyed)]
        self.batch.append(replace(old, amount=old.amount + more) if more and old.amount else old)

    @rule()
    def twice(self) -> None:
        """The request that was laid there last, once more beside itself."""
        if self.batch and self.batch[-1].kind in KEYED:
            self.batch.append(self.batch[-1])

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

    # --- laws -------------------------------------------------------------------------------------------------------

    @invariant()
    def the_books_are_what_the_model_says(self) -> None:
        if not hasattr(self, "world"):
            return
        if len(self.batch) >= 3:
            self.run_batch()  # Fewer wait for company, so that a batch has several commands.
        if not self.batch:
            self.compare()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run_batch()
            self.compare()


def told(world: World, name: str, numbers: Mapping[str, int]) -> dict[str, object]:
    """What the model says of a wallet; `numbers` are those of its holds, by key."""
    wallet = world.wallets[name]
    holds = {numbers[key]: hold for key, hold in world.holds.items() if hold.wallet == name}
    return {
        "value": (wallet.balance, wallet.held, wallet.spendable),
        "terms": (wallet.status, wallet.terms),
        "lots": pieces_of(wallet.free),
        "holds": {
            number: (amount_of(hold.left), hold.captured, hold.expires_at, pieces_of(hold.left))
            for number, hold in holds.items()
            if hold.status == "held"
        },
        "documents": {number: (hold.status, amount_of(hold.left), hold.captured) for number, hold in holds.items()},
        "spent": tuple(wallet.counted[period] for period in world.periods(world.now)),
    }


def found(world: World, account: Account, documents: Mapping[int, dict[str, Any]]) -> dict[str, object]:
    """The same of an account in the present and of the documents of its holds, by number."""
    limits, spent = account.limits, account.spent
    day, month = world.periods(world.now)
    return {
        "value": (account.balance, account.held, account.spendable),
        "terms": (account.status, Terms(account.minimum_balance, account.ceiling, *((limits.day, limits.month) if limits else ()))),
        "lots": Counter({Dates(*lot.dates): lot.amount for lot in account.lots or ()}),
        "holds": {
            hold.seq: (hold.left, hold.captured, hold.expires_at, Counter({Dates(*lot.dates): lot.amount for lot in hold.lots}))
            for hold in account.holds
        },
        "documents": {number: state_of(row, world.now) for number, row in documents.items()},
        "spent": (
            spent.in_day if spent is not None and spent.day == day else 0,
            spent.in_month if spent is not None and spent.month == month else 0,
        ),
    }


def state_of(document: dict[str, Any], now: int) -> tuple[str, int, int]:
    """A hold is over at its millisecond, whether or not that is booked."""
    over = document["status"] == "held" and document["expires_at"] <= now
    return ("expired", 0, document["captured"]) if over else (document["status"], document["left"], document["captured"])


def pieces_of(pieces: Pieces) -> Counter[Dates]:
    """How much of each date there is, without undated paid value."""
    amounts: Counter[Dates] = Counter()
    for dates, amount in pieces:
        amounts[dates] += amount
    del amounts[PLAIN]
    return amounts


def run_histories(machine: type[Requests], sequences: int, steps: int, **more: object) -> None:
    """Tell so many histories of so many steps."""
    machine.seen = Counter()
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    chosen = settings(max_examples=sequences, stateful_step_count=steps, deadline=None, suppress_health_check=checks, **more)
    run_state_machine_as_test(machine, settings=chosen)
