"""Awards that are spent, held, sent away and expire, and refunds of their purchases at any time, against a model of single pieces.

The model adds refunds to the model of the ledger. It knows of an award only its dates, and takes what is due out of the expired value that was
granted with them, then by the policy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import strategies as st

from guerdon.campaigns.domain import RecordedEvent, ShopEvent
from guerdon.campaigns.models import AfterDays, Campaign, EndOfMonth, Expiry, PendingDays, PerAmountAward
from guerdon.ledger.expiry import bring_up_to
from guerdon.ledger.models import Account
from guerdon.verification.account_replay import AccountReplay
from tests.invariants.campaign_histories import DAY_MS, HOUR_MS, MEMBERS, Shop, campaign, told
from tests.invariants.in_memory_ledger import NOW_MS, assert_holds_and_lots
from tests.invariants.ledger_driver import Till, answer_of
from tests.invariants.ledger_model import Wallet, World
from tests.invariants.ledger_requests import Ask, Dates, Kind
from tests.invariants.state_machine_rules import pieces_of

ZONE = "Europe/Berlin"
WALLETS = [f"{member}:PTS" for member in MEMBERS[:2]]


@dataclass(frozen=True)
class Move:
    """One step. `about` counts back from the end of the purchases, holds or debits until then."""

    kind: str
    wallet: int
    amount: int
    about: int = 0
    hours: int = 0


@dataclass
class Bought:
    """A purchase with its awards, and what was refunded of it."""

    event: ShopEvent
    awards: list[tuple[Campaign, Dates, int]]
    refunded: int = 0
    done: dict[str, int] = field(default_factory=dict)


class Telling:
    """One history, told to the ledger and to the model."""

    def __init__(self, campaigns: Sequence[Campaign]) -> None:
        self.shop, self.till, self.world = Shop(campaigns, ZONE), Till(ZONE), World(ZONE, NOW_MS)
        self.campaigns = {each.id: each for each in campaigns}
        self.shop.accounts, self.shop.entries = self.till.store.accounts, self.till.store.entries
        self.shop.documents = self.till.store.documents
        self.bought: list[Bought] = []
        self.holds: list[tuple[str, int]] = []
        self.debits: list[str] = []
        self.number = 0

    @property
    def now_ms(self) -> int:
        return self.shop.now_ms

    def step(self, move: Move) -> None:
        self.number += 1
        self.wait(self.now_ms + move.hours * HOUR_MS)
        wallet = WALLETS[move.wallet]
        if move.kind == "buy":
            self.buy(move.wallet, move.amount)
        elif move.kind == "refund":
            self.refund(move)
        elif move.kind == "sweep":
            self.till.sweep(list(self.till.store.accounts), self.now_ms)
        else:
            self.ask(move, wallet)
        self.assert_same()

    def wait(self, now_ms: int) -> None:
        self.shop.now_ms = now_ms
        self.world.wait(now_ms)

    def ask(self, move: Move, wallet: str) -> None:
        key = f"k{self.number}"
        ask = Ask("credit" if move.kind == "load" else cast(Kind, move.kind), wallet, key, move.amount)
        if wallet not in self.world.wallets and move.kind != "load":
            return
        if move.kind == "transfer":
            ask = Ask("transfer", wallet, key, move.amount, to=WALLETS[1 - move.wallet])
        elif move.kind == "hold":
            ask = Ask("hold", wallet, key, move.amount, ttl_ms=(1 + move.about) * 3 * DAY_MS)
        elif move.kind in ("capture", "void"):
            if not self.holds:
                return
            about, owner = self.holds[-1 - move.about % len(self.holds)]
            ask = Ask(cast(Kind, move.kind), WALLETS[owner], key, move.amount if move.kind == "capture" else None, about=about)
        elif move.kind == "reversal":
            if not self.debits:
                return
            about = self.debits[-1 - move.about % len(self.debits)]
            ask = Ask("reversal", self.world.sides[about][0].wallet, key, about=about)
        expected = self.world.ask(ask)
        [verdict] = self.till.ask([ask], self.now_ms)
        assert answer_of(verdict)[:1] == expected[:1], ask
        if expected.code is None and move.kind == "hold":
            self.holds.append((key, move.wallet))
        elif expected.code is None and move.kind in ("debit", "capture"):
            self.debits.append(key)

    def buy(self, member: int, amount: int) -> None:
        event = self.event("purchase", member, amount)
        recorded = self.record(event)
        wallet = self.world.wallets.setdefault(WALLETS[member], Wallet())
        awards: list[tuple[Campaign, Dates, int]] = []
        for award in recorded.awards:
            dates = Dates("promotional", award.available_at, award.expires_at)
            self.world.put(wallet, [(dates, award.amount)], grace=False)
            awards.append((self.campaigns[award.campaign], dates, award.amount))
        self.bought.append(Bought(event, awards))

    def refund(self, move: Move) -> None:
        if not self.bought:
            return
        bought = self.bought[-1 - move.about % len(self.bought)]
        member = MEMBERS.index(bought.event.member_id or "")
        recorded = self.record(self.event("refund", member, move.amount, refund_of=bought.event.id))
        bought.refunded = min(bought.refunded + move.amount, bought.event.amount)
        taken = {award.campaign: -award.amount for award in recorded.awards}
        for rule, dates, amount in bought.awards:
            kept = amount * (bought.event.amount - bought.refunded) // bought.event.amount
            due = amount - kept - bought.done.get(rule.id, 0)
            bought.done[rule.id] = amount - kept
            part = self.take_back(self.world.wallets[WALLETS[member]], rule.clawback, dates, due)
            assert taken.get(rule.id, 0) == part, (move, rule.clawback, due)

    def take_back(self, wallet: Wallet, policy: str, dates: Dates, due: int) -> int:
        """What is due, less what has expired of the same dates; then the award's own pieces before all others."""
        if policy == "none":
            return 0
        gone = 0 if dates.expires_at is None else min(due, wallet.lapsed[dates.expires_at])
        if gone and dates.expires_at is not None:
            wallet.lapsed[dates.expires_at] -= gone
        own, due = dates.at(self.now_ms), due - gone
        if policy == "up_to_balance":
            spendable = sum(amount for each, amount in wallet.free if each.available_at is None) - wallet.debt
            due = min(due, max(0, spendable + (due if own.available_at is not None else 0)))
        returned = [each for each, _ in wallet.free if dates.expires_at is not None and each.first_expires_at == dates.expires_at]
        self.world.take(wallet, due, [(each, due) for each in (own, *sorted(set(returned), key=lambda each: each.place))])
        return due

    def event(self, kind: str, member: int, amount: int, *, refund_of: str | None = None) -> ShopEvent:
        return ShopEvent(
            id=f"e{self.number}",
            type=kind,
            occurred_at=self.now_ms,
            amount=amount,
            currency="GBP",
            refund_of=refund_of,
            member_id=MEMBERS[member],
        )

    def record(self, event: ShopEvent) -> RecordedEvent:
        previewed = told(self.shop.preview(event))
        [recorded] = self.shop.record([event])
        assert told(recorded) == previewed
        return recorded

    # --- what has to be true ------------------------------------------------------------------------------------------

    def present(self, wallet: str) -> Account:
        return bring_up_to(self.till.store.accounts[wallet], self.now_ms, self.shop.calendar).account

    def assert_same(self) -> None:
        for name, wallet in self.world.wallets.items():
            account = self.present(name)
            assert (account.balance, account.held) == (wallet.balance, wallet.held), name
            assert {Dates(*lot.dates): lot.amount for lot in account.lots or ()} == pieces_of(wallet.free), name

    def assert_laws(self) -> None:
        """The books hold, `verify` accepts every entry, and every decision comes out again."""
        accounts, entries = self.till.store.accounts, list(self.till.store.entries.values())
        assert_holds_and_lots(accounts, entries)
        found: list[tuple[str, ...]] = []
        for account in accounts.values():
            replay = AccountReplay(account, self.shop.calendar, lambda *violation: found.append(violation))
            chain = sorted((entry for entry in entries if entry.account == account.id), key=lambda entry: entry.seq)
            for seq, entry in enumerate(chain, start=1):
                replay.follow(entry, seq)
            replay.check_row()
        assert found == []
        self.shop.assert_decided_again()


def refunds_take_what_the_model_takes(campaigns: list[Campaign], moves: list[Move]) -> None:
    """With every movement, in every order."""
    telling = Telling(campaigns)
    for move in moves:
        telling.step(move)
    telling.wait(telling.now_ms + 60 * DAY_MS)
    telling.assert_same()
    telling.assert_laws()


def refunds_and_expiry_can_change_places(
    policy: str, *, loaded: int, bought: list[int], spent: int, refunds: list[tuple[int, int]], before: int
) -> None:
    """Awards of one expiry date beside points that do not expire: however many refunds come before it, the same is left."""
    left: list[tuple[int, list[int]]] = []
    for early in (before, 0, len(refunds)):
        telling = Telling([campaign(0, award=PerAmountAward(1, 1), clawback=policy, expiry=AfterDays(5), event_types=["purchase"])])
        telling.step(Move("load", 0, loaded))
        for amount in bought:
            telling.step(Move("buy", 0, amount))
        telling.step(Move("debit", 0, spent))
        for place, (about, amount) in enumerate(refunds):
            telling.step(Move("refund", 0, amount, about, hours=30 * 24 if place == early else 0))
        telling.wait(NOW_MS + 90 * DAY_MS)
        telling.assert_laws()
        account = telling.present(WALLETS[0])
        left.append((account.balance, [lot.amount for lot in account.lots or ()]))
    assert left[0] == left[1] == left[2]


amounts = st.integers(1, 300) | st.sampled_from([10, 60, 100])
expiries: st.SearchStrategy[Expiry | None] = st.sampled_from([AfterDays(1), AfterDays(5), AfterDays(5), EndOfMonth(), None])
rules = st.lists(
    st.tuples(st.sampled_from(["debt", "debt", "up_to_balance", "none"]), expiries, st.sampled_from([None, None, PendingDays(2)])),
    min_size=1,
    max_size=3,
).map(
    lambda chosen: [
        campaign(
            number,
            award=PerAmountAward(1, 1 + number),
            clawback=clawback,
            expiry=expiry,
            pending=None if isinstance(expiry, AfterDays) and expiry.days == 1 else pending,
            event_types=["purchase"],
        )
        for number, (clawback, expiry, pending) in enumerate(chosen)
    ]
)
KINDS = ("buy", "refund", "debit", "hold", "capture", "void", "transfer", "reversal", "load", "sweep")
hours = st.sampled_from([0, 0, 0, 5, 24, 48, 150, 200])
wallets = st.sampled_from([0, 0, 0, 1])
moves_of_one = st.builds(Move, st.sampled_from(KINDS), wallets, amounts, st.integers(0, 3), hours)


def phrase(*kinds: str) -> st.SearchStrategy[list[Move]]:
    """These moves, the last of them mostly after an expiry."""
    later = st.sampled_from([0, 0, 48, 150, 150, 200])
    about = {"hold": st.just(3), "refund": st.sampled_from([0, 0, 1])}
    sizes = {
        "buy": st.sampled_from([100, 200, 300]),
        "hold": st.sampled_from([40, 60, 90]),
        "debit": st.sampled_from([30, 60, 150]),
    }
    parts = [
        st.builds(Move, st.just(kind), st.just(0), sizes.get(kind, amounts), about.get(kind, st.just(0)), later if place else hours)
        for place, kind in enumerate(kinds)
    ]
    return st.tuples(*parts).map(list)


phrases = st.one_of(
    moves_of_one.map(lambda move: [move]),
    phrase("buy", "refund", "refund"),
    phrase("buy", "debit", "refund", "refund"),
    phrase("buy", "buy", "debit", "refund", "refund"),
    phrase("hold", "void"),
    phrase("debit", "reversal"),
    phrase("buy", "hold", "void", "refund"),
    phrase("buy", "hold", "void", "buy", "refund"),
    phrase("buy", "debit", "reversal", "refund"),
)
moves = st.lists(phrases, min_size=1, max_size=6).map(lambda lists: [move for each in lists for move in each])
LATE_REFUNDS: dict[Callable[..., None], dict[str, st.SearchStrategy[Any]]] = {
    refunds_take_what_the_model_takes: {"campaigns": rules, "moves": moves},
    refunds_and_expiry_can_change_places: {
        "policy": st.sampled_from(["debt", "up_to_balance"]),
        "loaded": st.integers(1, 200),
        "bought": st.lists(amounts, min_size=1, max_size=3),
        "spent": st.integers(1, 400),
        "refunds": st.lists(st.tuples(st.integers(0, 2), amounts), min_size=1, max_size=4),
        "before": st.integers(0, 4),
    },
}  # fmt: skip
