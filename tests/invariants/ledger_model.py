"""All commands as a small dictionary: single dated pieces of value, and time that goes from moment to moment.

Written from the documented rules; it shares no code with the ledger that it is compared with.
"""

import pickle
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from tests.invariants.ledger_requests import NO_TERMS, PLAIN, RATE, STATUS_AFTER, WAITING, Answer, Ask, Dates, Piece, Pieces, Terms

GRACE_MS = 7 * 24 * 60 * 60 * 1000
FORGOTTEN = {"not-found", "validation"}
"""Refusals that bind no key."""


@dataclass
class Hold:
    wallet: str
    expires_at: int
    left: Pieces
    counted_at: int | None
    captured: int = 0
    status: str = "held"


@dataclass
class Side:
    """What a transaction did to one wallet: the pieces that left it (`sign` -1) or that came into it."""

    wallet: str
    sign: int
    pieces: Pieces
    counted_at: int | None = None


@dataclass
class Wallet:
    free: Pieces = field(default_factory=list)
    debt: int = 0
    held: int = 0
    status: str = "open"
    terms: Terms = NO_TERMS
    counted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """What was spent under a limit, by day and by month."""
    lapsed: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    """What has expired, by the date that it was granted with, less what refunds have counted."""

    @property
    def balance(self) -> int:
        return amount_of(self.free) - self.debt + self.held

    @property
    def spendable(self) -> int:
        return sum(amount for dates, amount in self.free if dates.available_at is None) - self.debt - self.terms.floor


class Refused(Exception):
    """With the code of the refusal."""


class World:
    """Wallets, holds, transactions, keys and references."""

    def __init__(self, zone: str, now: int) -> None:
        self.zone, self.now = ZoneInfo(zone), now
        self.wallets: dict[str, Wallet] = {}
        self.holds: dict[str, Hold] = {}
        self.sides: dict[str, list[Side]] = {}
        self.awards: dict[str, tuple[str, Dates]] = {}
        self.undone: defaultdict[str, int] = defaultdict(int)
        self.several: set[str] = set()
        """Keys of what is taken back whole."""
        self.keys: dict[tuple[str, str], tuple[Ask, Answer]] = {}
        self.references: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        """The keys of the transactions that had a reference, the newest last."""
        self.first_after: tuple[int, int] | None = None
        """What the first wallet had after its first part of several."""

    def copy(self) -> "World":
        """Many times quicker than a deep copy."""
        copy: World = pickle.loads(pickle.dumps(self))  # noqa: S301 (our own bytes)
        return copy

    # --- time -------------------------------------------------------------------------------------------------------

    def wait(self, now: int) -> None:
        """What time does, one moment after the other: value becomes available, holds end, debts are paid, value lapses."""
        while moment := min((moment for moment in self.moments() if moment <= now), default=0):
            self.now = moment
            for wallet in self.wallets.values():
                wallet.free = [(dates.at(moment), amount) for dates, amount in wallet.free]
            for hold in self.holds.values():
                if hold.status == "held" and hold.expires_at <= moment:
                    self.end(hold, "expired")
            for wallet in self.wallets.values():
                wallet.debt -= amount_of(self.take(wallet, wallet.debt, [(PLAIN, wallet.debt)], owing=False))
                for dates, amount in wallet.free:
                    if dates.expires_at is not None and dates.expires_at <= moment and dates.source == "promotional":
                        wallet.lapsed[dates.first_expires_at or dates.expires_at] += amount
                wallet.free = [(dates, amount) for dates, amount in wallet.free if (dates.expires_at or moment + 1) > moment]
        self.now = now

    def moments(self) -> set[int]:
        """Everything that is still to come."""
        dates = [dates for wallet in self.wallets.values() for dates, _ in wallet.free]
        moments = {date for each in dates for date in (each.available_at, each.expires_at) if date not in (None, WAITING)}
        return moments | {hold.expires_at for hold in self.holds.values() if hold.status == "held"}

    # --- pieces -----------------------------------------------------------------------------------------------------

    def take(self, wallet: Wallet, amount: int, first: Iterable[Piece] = (), *, owing: bool = True) -> Pieces:
        """Take pieces out: so much of each of `first`, then what may be spent, in spend order; what is missing is owed."""
        taken: Pieces = []

        def pick(wanted: Dates, most: int) -> None:
            nonlocal amount
            for place, (dates, there) in enumerate(wallet.free):
                part = min(there, most, amount)
                if dates == wanted and part > 0:
                    wallet.free[place] = (dates, there - part)
                    taken.append((dates, part))
                    amount, most = amount - part, most - part

        for dates, most in first:
            pick(dates.at(self.now), most)
        for dates in sorted({dates for dates, _ in wallet.free if dates.available_at is None}, key=lambda dates: dates.place):
            pick(dates, amount)
        wallet.free = [(dates, there) for dates, there in wallet.free if there]
        if amount and owing:
            wallet.debt += amount
            taken.append((PLAIN, amount))
        return taken

    def put(self, wallet: Wallet, pieces: Pieces, *, grace: bool) -> Pieces:
        """Put pieces in, and return them as they arrived; a debt is paid out of them, and what has paid it is plain."""
        arrived: Pieces = []
        for old, amount in pieces:
            dates = old.at(self.now)
            if grace and dates.expires_at is not None and dates.expires_at <= self.now:
                first = dates.first_expires_at or dates.expires_at
                dates = dates._replace(expires_at=self.now + GRACE_MS, first_expires_at=first)
            arrived.append((dates, amount))
        kept: Pieces = []
        for dates, amount in sorted(arrived, key=lambda piece: (piece[0] != PLAIN, place_of(piece))):
            paid = min(wallet.debt, amount) if dates.available_at is None else 0
            wallet.debt -= paid
            kept += [(PLAIN, paid)] if paid else []
            if amount > paid:
                wallet.free.append((dates, amount - paid))
                kept.append((dates, amount - paid))
        return kept

    def end(self, hold: Hold, status: str) -> None:
        wallet = self.wallets[hold.wallet]
        left = amount_of(hold.left)
        wallet.held -= left
        self.count(wallet, -left, hold.counted_at)
        self.put(wallet, hold.left, grace=True)
        hold.left, hold.status = [], status

    # --- limits -----------------------------------------------------------------------------------------------------

    def periods(self, at: int) -> tuple[str, str]:
        day = str(datetime.fromtimestamp(at // 1000, UTC).astimezone(self.zone).date())
        return day, day[:7]

    def count(self, wallet: Wallet, amount: int, at: int | None) -> None:
        """Count what was spent at `at`, while there are limits."""
        if at is not None and wallet.terms[2:] != (None, None):
            for period in self.periods(at):
                wallet.counted[period] += amount

    def spend(self, wallet: Wallet, amount: int) -> int | None:
        """Guard and count; return when it counted."""
        self.guard(wallet, -amount)
        if wallet.terms[2:] == (None, None):
            return None
        for period, limit in zip(self.periods(self.now), wallet.terms[2:], strict=True):
            if limit is not None and wallet.counted[period] + amount > limit:
                raise Refused("limit-reached")
        self.count(wallet, amount, self.now)
        return self.now

    @staticmethod
    def guard(wallet: Wallet, change: int, more: int = 0) -> None:
        if wallet.status != "open":
            raise Refused(f"wallet-{wallet.status}")
        if change < 0 and wallet.spendable + more < -change:
            raise Refused("insufficient-funds")
        if change > 0 and wallet.balance + change > wallet.terms.ceiling:
            raise Refused("balance-limit")

    # --- commands ---------------------------------------------------------------------------------------------------

    def ask(self, ask: Ask) -> Answer:
        """One command: wholly or not at all, and once for each key."""
        if ask.kind in STATUS_AFTER or ask.kind == "terms":
            return self.attempt(ask)
        if (ask.owner, ask.key) in self.keys:
            asked, answer = self.keys[ask.owner, ask.key]
            return answer._replace(replayed=True) if asked.content == ask.content else Answer("idempotency-key-reused")
        used = ask.reference is not None and self.stands(self.references[ask.owner, ask.reference])
        answer = Answer("reference-reused") if used else self.attempt(ask)
        if answer.code not in FORGOTTEN:
            self.keys[ask.owner, ask.key] = (ask, answer)
        if answer.code is None and ask.reference is not None:
            self.references[ask.owner, ask.reference].append(ask.key)
        return answer

    def stands(self, keys: Sequence[str]) -> bool:
        """Whether a reference is in use: until its newest transaction is reversed in full, and after 16 of them."""
        return bool(keys) and (len(keys) == 16 or self.undone[keys[-1]] < amount_of(self.sides[keys[-1]][0].pieces))

    def ask_together(self, asks: Iterable[Ask]) -> list[Answer] | str:
        """Fresh movements, all or nothing: the answers, or the code of the refusal, which is never remembered."""
        before = self.copy()
        answers = [self.ask(ask) for ask in asks]
        refused = [answer.code for answer in answers if answer.code is not None]
        if not refused:
            return answers
        self.__dict__ = before.__dict__
        return "not-found" if "not-found" in refused else refused[0]

    def attempt(self, ask: Ask) -> Answer:
        before = self.copy()
        try:
            if ask.kind not in ("credit", "award") and ask.wallet not in self.wallets:
                raise Refused("not-found")
            sides = getattr(self, f"do_{'status' if ask.kind in STATUS_AFTER else ask.kind}")(ask)
        except Refused as refusal:
            self.__dict__ = before.__dict__
            return Answer(str(refusal))
        if sides:
            self.sides[ask.key] = sides
        wallet = self.wallets[ask.wallet]
        after = self.first_after or (wallet.balance, wallet.held)
        self.first_after = None
        if ask.kind == "capture" and ask.final:
            self.end(self.holds[ask.about], "captured")
        return Answer(None, after)

    def do_credit(self, ask: Ask) -> list[Side]:
        if ask.dates.expires_at is not None and ask.dates.expires_at <= self.now:
            raise Refused("validation")
        wallet = self.wallets.setdefault(ask.wallet, Wallet())
        self.guard(wallet, ask.amount)
        return [Side(ask.wallet, 1, self.put(wallet, [(ask.dates, ask.amount)], grace=False))]

    def do_award(self, ask: Ask) -> list[Side]:
        self.awards[ask.key] = (ask.wallet, ask.dates)
        return self.do_credit(ask)

    def waiting(self, key: str) -> int:
        """What there is of the lot that an award waits in; awards of the same dates share it."""
        wallet, dates = self.awards[key]
        return sum(amount for other, amount in self.wallets[wallet].free if other == dates)

    def do_confirmation(self, ask: Ask) -> None:
        """What waits becomes spendable, and pays a debt first."""
        wallet, (_, dates) = self.wallets[ask.wallet], self.awards[ask.about]
        self.guard(wallet, 0)
        if ask.amount > self.waiting(ask.about) or (ask.dates.expires_at or self.now + 1) <= self.now:
            raise Refused("invalid-state")
        self.take(wallet, ask.amount, [(dates, ask.amount)])
        self.put(wallet, [(ask.dates, ask.amount)], grace=False)

    def do_debit(self, ask: Ask) -> list[Side]:
        wallet = self.wallets[ask.wallet]
        at = self.spend(wallet, ask.amount)
        return [Side(ask.wallet, -1, self.take(wallet, ask.amount), at)]

    def do_transfer(self, ask: Ask) -> list[Side]:
        out = self.do_debit(ask)
        target = self.wallets.setdefault(ask.to, Wallet())
        self.guard(target, ask.amount)
        return [*out, Side(ask.to, 1, self.put(target, out[0].pieces, grace=False))]

    def do_hold(self, ask: Ask) -> None:
        wallet = self.wallets[ask.wallet]
        at = self.spend(wallet, ask.amount)
        self.holds[ask.key] = Hold(ask.wallet, self.now + ask.ttl_ms, self.take(wallet, ask.amount), at)
        wallet.held += ask.amount

    def active(self, ask: Ask) -> Hold:
        if self.holds[ask.about].status != "held":
            raise Refused("invalid-state")
        return self.holds[ask.about]

    def do_capture(self, ask: Ask) -> list[Side]:
        hold, wallet = self.active(ask), self.wallets[ask.wallet]
        left = amount_of(hold.left)
        amount = left if ask.amount is None else ask.amount
        self.guard(wallet, 0)
        if amount > left:
            raise Refused("capture-limit")
        taken, hold.left = cut(sorted(hold.left, key=place_of), amount)
        hold.captured += amount
        wallet.held -= amount
        hold.status = "captured" if not hold.left else "held"
        return [Side(ask.wallet, -1, taken, hold.counted_at)]

    def do_void(self, ask: Ask) -> None:
        self.end(self.active(ask), "voided")

    def do_reversal(self, ask: Ask) -> list[Side]:
        sides, done = self.sides[ask.about], self.undone[ask.about]
        whole = amount_of(sides[0].pieces)
        amount = whole - done if ask.amount is None else ask.amount
        if not 0 < amount <= whole - done:
            raise Refused("reversal-limit")
        self.undone[ask.about] += amount
        undone: list[Side] = []
        for side in sides:
            undone.append(self.undo(side, done, amount_of(side.pieces) if ask.about in self.several else amount))
            if ask.about in self.several:
                self.several.add(ask.key)
                self.note_first(side.wallet)
        return undone

    def note_first(self, name: str) -> None:
        if self.first_after is None:
            self.first_after = (self.wallets[name].balance, self.wallets[name].held)

    def do_transaction(self, ask: Ask) -> list[Side]:
        """Who pays pays those who receive, one after the other; what is left over is nobody's. The whole of a payer is looked at first."""
        payers = {name: -amount for name, amount in ask.parts if amount < 0}
        receivers = {name: amount for name, amount in ask.parts if amount > 0}
        if not set(payers) <= set(self.wallets):
            raise Refused("not-found")
        rest = dict(receivers)
        shares: list[tuple[str, str | None, int]] = []
        for payer, owed in payers.items():
            left = owed
            for receiver in receivers:
                if part := min(left, rest[receiver]):
                    shares.append((payer, receiver, part))
                    left, rest[receiver] = left - part, rest[receiver] - part
            payers[payer] = left
        shares += [(payer, None, left) for payer, left in payers.items() if left]
        for name, amount in ask.parts:
            if amount < 0 and [payer for payer, _, _ in shares].count(name) > 1:
                self.guard(self.wallets[name], amount)
        sides: list[Side] = []
        for payer, receiver, part in shares:
            wallet = self.wallets[payer]
            at = self.spend(wallet, part)
            sides.append(Side(payer, -1, self.take(wallet, part), at))
            self.note_first(payer)
            if receiver is not None:
                target = self.wallets.setdefault(receiver, Wallet())
                self.guard(target, part)
                sides.append(Side(receiver, 1, self.put(target, sides[-1].pieces, grace=False)))
        self.several.add(ask.key)
        return sides

    def do_exchange(self, ask: Ask) -> list[Side]:
        given, received = RATE
        worth = ask.amount * received // given
        if not worth:
            raise Refused("exchange-limit")
        out = self.do_debit(ask)
        self.note_first(ask.wallet)
        target = self.wallets.setdefault(ask.to, Wallet())
        self.guard(target, worth)
        self.several.add(ask.key)
        return [*out, Side(ask.to, 1, self.put(target, [(PLAIN, worth)], grace=False))]

    def undo(self, side: Side, done: int, amount: int) -> Side:
        """What was taken last returns first; what came in goes out of the pieces that came in, then of what may be spent."""
        wallet = self.wallets[side.wallet]
        _, last_first = cut(sorted(side.pieces, key=place_of, reverse=True), done)
        if side.sign < 0:
            self.guard(wallet, amount)
            self.count(wallet, -amount, side.counted_at)
            return Side(side.wallet, 1, self.put(wallet, cut(last_first, amount)[0], grace=True))
        pending = 0
        for dates, most in last_first:
            if dates.at(self.now).available_at is not None:
                pending += min(most, sum(there for other, there in wallet.free if other == dates))
        self.guard(wallet, -amount, pending)
        return Side(side.wallet, -1, self.take(wallet, amount, last_first))

    def do_status(self, ask: Ask) -> None:
        wallet = self.wallets[ask.wallet]
        if wallet.status == "closed":
            raise Refused("wallet-closed")
        if ask.kind == "close" and (wallet.balance or wallet.held):
            raise Refused("wallet-not-empty")
        wallet.status = STATUS_AFTER[ask.kind]

    def do_terms(self, ask: Ask) -> None:
        if self.wallets[ask.wallet].status == "closed":
            raise Refused("wallet-closed")
        self.wallets[ask.wallet].terms = ask.terms


def amount_of(pieces: Pieces) -> int:
    return sum(amount for _, amount in pieces)


def place_of(piece: Piece) -> tuple[float, bool, int, int]:
    return piece[0].place


def cut(pieces: Pieces, amount: int) -> tuple[Pieces, Pieces]:
    """The first `amount`, and the rest."""
    head: Pieces = []
    rest: Pieces = []
    for dates, there in pieces:
        part = min(there, amount)
        amount -= part
        head += [(dates, part)] if part else []
        rest += [(dates, there - part)] if there > part else []
    return head, rest
