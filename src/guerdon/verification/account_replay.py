"""One account, proved from nothing but its entries. Pure, and written a second time on purpose.

It follows the entries in their order, keeps its own balance, lots, holds, terms and counters, and blames what does not follow. It shares
with the ledger's rules only what a lot is and how equal lots merge; how value is taken, returned and lapses is worked out here again.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from guerdon.calendar import Calendar
from guerdon.ledger.expiry import debt_repaid_at
from guerdon.ledger.lots import GRACE_MS, is_undated, mature, merge, negated, total
from guerdon.ledger.models import (
    BREAKAGE,
    CASH,
    COUNTED,
    GENESIS,
    HOLDS,
    ISSUER,
    MERCHANT,
    RULES,
    SYSTEM,
    Account,
    Entry,
    Hold,
    HoldChange,
    Limits,
    Lot,
    Spent,
    entry_hash,
    transaction_id,
)
from guerdon.money import BALANCE_CEILING
from guerdon.verification.report import Law

ReportViolation = Callable[[Law, str, str], None]
Ended = tuple[Hold, str]
"""A hold that an entry has ended, and how: captured, voided or expired."""
SYSTEM_ACCOUNTS = frozenset({ISSUER, MERCHANT, CASH, BREAKAGE, HOLDS, RULES, COUNTED})
NOMINAL = frozenset({HOLDS, RULES})
"""The other side of entries that move no value."""
TIMES_KINDS = frozenset({"hold_expiry", "settlement", "expiry"})
"""What time does, whatever the state of the account."""
SPENDING_KINDS = frozenset({"debit", "transfer", "hold", "redeem"})
"""What counts against the spending limits of a wallet."""
CHOOSING_KINDS = frozenset({"reversal", "clawback"})
"""They take back what they once gave: those very lots first, even if they are still pending."""
CONFIRMATION = "confirmation"
"""What makes value spendable that waited for it."""


class AccountReplay:
    """Where one account stands after the entries that were followed so far."""

    __slots__ = (
        "_calendar",
        "_in_time",
        "_moment",
        "_report_violation",
        "_transaction",
        "account",
        "at",
        "balance",
        "ceiling",
        "ending",
        "head",
        "held",
        "holds",
        "limits",
        "lots",
        "marks",
        "minimum_balance",
        "seq",
        "spent",
        "status",
        "undated_before",
    )  # fmt: skip

    def __init__(self, account: Account, calendar: Calendar, blame: ReportViolation, marks: int = 0) -> None:
        self.account = account
        self.marks: list[tuple[int, bytes]] = [(0, GENESIS)] * marks
        """Number and hash of the newest entry up to each moment that the caller has in mind; kept here for it."""
        self._calendar = calendar
        self._report_violation = blame
        self.seq, self.head, self.at = 0, GENESIS, 0
        self._transaction: str | None = None
        self.balance, self.held, self.undated_before = 0, 0, 0
        self.lots: tuple[Lot, ...] | None = None
        self.holds: dict[int, Hold] = {}
        self._in_time, self._moment = False, 0
        """Whether the entry before was time's doing, and up to which moment that had come."""
        self.ending: int | None = None
        """A hold whose last capture has just been made: the next entry must release the rest of it."""
        self.minimum_balance, self.ceiling, self.status = 0, BALANCE_CEILING, "open"
        self.limits: Limits | None = None
        self.spent: Spent | None = None

    @property
    def transaction(self) -> str:
        """The transaction of the newest entry."""
        return self._transaction or transaction_id(self.account.id, self.seq)

    def follow(self, entry: Entry, seq: int) -> Ended | None:
        """Check one entry against all before it, and move on; return the hold that it has ended."""
        account, blame = self.account, self._report_violation
        if seq != self.seq + 1:
            blame("L6", entry.id, f"seq {seq} follows seq {self.seq}")
        if entry.prev != self.head or entry.hash != entry_hash(entry):
            blame("L6", entry.id, "the hash does not fit the entry and the one before it")
        if entry.owner != account.owner or entry.asset != account.asset:
            blame("L6", entry.id, f"owner or asset differ from the account's, {account.owner} and {account.asset}")
        if entry.at < self.at:
            blame("L6", entry.id, f"time runs backwards: {entry.at} after {self.at}")
        if entry.balance_after != self.balance + entry.amount:
            blame("L2", entry.id, f"{self.balance} and {entry.amount} make {entry.balance_after}")
        counter = entry.counterparty
        if counter.startswith(SYSTEM) and (counter not in SYSTEM_ACCOUNTS or (entry.amount and counter in NOMINAL)):
            blame("L1", entry.id, f"{entry.amount} against {counter}, which holds no value")
        ended = None
        if (
            self.lots is None
            and entry.lots is None
            and entry.hold is None
            and entry.terms is None
            and entry.spent is None
            and entry.spendable_after is None
        ):
            self._follow_undated(entry)
        else:
            ended = self._follow_dated(entry, seq)
        self.seq, self.head, self.at, self._transaction = seq, entry.hash, entry.at, entry.transaction
        self.balance, self.held = entry.balance_after, entry.held_after
        return ended

    def _follow_undated(self, entry: Entry) -> None:
        """An account that has never had a lot, a hold or terms: most of them, so this is kept short."""
        self.undated_before = self.balance - self.held
        if entry.held_after != self.held:
            self._report_violation("L2", entry.id, f"{entry.held_after} are held, without a hold")
        if entry.amount < 0:
            if entry.balance_after - entry.held_after < 0 and entry.kind != "clawback":
                self._report_violation("L3", entry.id, f"{entry.balance_after - entry.held_after} available, the floor is 0")
            if entry.balance_after < -BALANCE_CEILING:
                self._report_violation("L3", entry.id, "the debt passes the limit of the account")
        elif entry.balance_after > BALANCE_CEILING:
            self._report_violation("L3", entry.id, f"the ceiling is {BALANCE_CEILING}")

    def _follow_dated(self, entry: Entry, seq: int) -> Ended | None:
        blame = self._report_violation
        own = self._bring_up(entry)
        plain = self.undated_before = self.balance - self.held - total(own)
        spendable = self.balance - self.held - _pending(own, entry.at) - self.minimum_balance
        ended, change = None, entry.hold
        if change is not None:
            ended, after = self._follow_hold(entry, change, seq, own)
        elif entry.terms is not None:
            self._follow_terms(entry)
            after = own
        else:
            self._follow_lots(entry, own, plain)
            after = merge([*own, *entry.lots]) if entry.lots else own
        held = self.held + (0 if change is None else change.change)
        if entry.held_after != held:
            blame("L2", entry.id, f"{held} are held, the entry says {entry.held_after}")
        if self.lots is not None or entry.lots or change is not None or entry.terms is not None:
            self.lots = after
        pending = _pending(after, entry.at)
        left = entry.balance_after - held - pending - self.minimum_balance
        if entry.spendable_after != (left if pending or self.minimum_balance else None):
            blame("L2", entry.id, f"{left} can be spent, the entry says {entry.spendable_after}")
        taken = -entry.amount if change is None else max(0, change.change)
        if taken > 0 and entry.kind not in ("clawback", "expiry") and left < 0 and left < spendable:
            blame("L3", entry.id, f"{left + self.minimum_balance} available, the floor is {self.minimum_balance}")
        if entry.amount > 0 and entry.balance_after > self.ceiling:
            blame("L3", entry.id, f"the ceiling is {self.ceiling}")
        if entry.amount < 0 and entry.balance_after < -BALANCE_CEILING:
            blame("L3", entry.id, "the debt passes the limit of the account")
        if entry.kind not in TIMES_KINDS and entry.balance_after - held < total(after) and pending < total(after):
            blame("L7", entry.id, "a debt stands beside value that should have paid it")
        self._follow_limits(entry, taken)
        return ended

    # --- time -------------------------------------------------------------------------------------------------------

    def _bring_up(self, entry: Entry) -> tuple[Lot, ...]:
        """Return the lots right before the entry.

        What time has done is booked before anything else moves, in the order of its moments, and an account that is not open does not
        move at all.
        """
        own = self.lots or ()
        if self.ending is not None and (entry.hold is None or entry.hold.seq != self.ending or entry.amount):
            self._report_violation("L7", entry.id, f"the rest of hold {self.ending} was not released with its last capture")
        self.ending = None
        if not (self._in_time and entry.at == self.at):
            # Nothing was left to do at the time of the entry before.
            self._moment, own = self.at, mature(own, self.at)
        self._in_time = entry.kind in TIMES_KINDS
        own, does, hold = self._next_of_time(own, entry.at)
        if self._in_time:
            if entry.kind != does or (hold is not None and (entry.hold is None or entry.hold.seq != hold.seq)):
                self._report_violation("L10", entry.id, f"at {entry.at} time did {does or 'nothing'} next, not this")
            return own
        if does is not None:
            law: Law = "L10" if hold is not None else "L7"
            self._report_violation(law, entry.id, f"{'hold ' + str(hold.seq) if hold else does} was due, and was not booked before")
        self._require_open(entry)
        return own

    def _next_of_time(self, own: tuple[Lot, ...], at: int) -> tuple[tuple[Lot, ...], str | None, Hold | None]:
        """Return the lots at the next moment up to `at` at which something happens by itself, and what that is."""
        if not self.holds and all(lot.available_at is None and lot.expires_at is None for lot in own):
            return own, "settlement" if own and self.balance - self.held < total(own) else None, None
        while True:
            for hold in self.holds.values():
                if hold.expires_at <= self._moment:
                    return own, "hold_expiry", hold
            debt = self.balance - self.held < total(own)
            if debt and available(own):
                return own, "settlement", None
            moments = [hold.expires_at for hold in self.holds.values()]
            moments += [lot.available_at for lot in own if debt and lot.available_at is not None]
            coming = [moment for moment in moments if moment <= at]
            if not coming:
                own = mature(own, at)
                lapsed = any(lot.expires_at is not None and lot.expires_at <= at for lot in own)
                return own, "expiry" if lapsed else None, None
            self._moment = min(coming)
            own = mature(own, self._moment)

    def _require_open(self, entry: Entry) -> None:
        if self.status == "closed":
            self._report_violation("L3", entry.id, "the account was closed")
        gives_up = entry.hold is not None and entry.hold.change < 0 and not entry.amount
        if self.status == "frozen" and entry.terms is None and not gives_up:
            self._report_violation("L3", entry.id, "the account was frozen")

    # --- lots -------------------------------------------------------------------------------------------------------

    def _follow_lots(self, entry: Entry, own: tuple[Lot, ...], plain: int) -> None:
        """Value that arrives, leaves, lapses, or pays a debt."""
        moved = entry.lots or ()
        if entry.kind == CONFIRMATION:
            self._check_confirmed(entry, own, plain)
            return
        if entry.amount > 0:
            self._check_arrival(entry, moved)
            return
        gone = negated(moved)
        if entry.kind == "expiry":
            lapsed = tuple(lot for lot in own if lot.expires_at is not None and lot.expires_at <= entry.at)
            if gone != lapsed or not lapsed or entry.amount != -total(lapsed) or entry.counterparty != BREAKAGE:
                self._report_violation("L7", entry.id, f"{total(lapsed)} had lapsed, {-entry.amount} were written off")
        elif entry.kind == "settlement":
            there = available(own)
            if entry.amount or not gone or gone != first_of(there, min(max(0, -plain), total(there))):
                self._report_violation("L7", entry.id, f"a debt of {max(0, -plain)} was paid with {total(gone)}")
        elif entry.kind in CHOOSING_KINDS:
            self._check_there(entry, own, gone)
        elif gone != first_of(available(own), -entry.amount):
            self._report_violation("L7", entry.id, "it was not taken from the lots that come first in the spend order")

    def _check_confirmed(self, entry: Entry, own: Sequence[Lot], plain: int) -> None:
        """A part of one lot that waited becomes spendable at once, less what it pays of a debt; nothing else is ever dated anew."""
        moved = entry.lots or ()
        gone = negated(lot for lot in moved if lot.amount < 0)
        come = tuple(lot for lot in moved if lot.amount > 0)
        if entry.amount or entry.counterparty != ISSUER or len(gone) != 1 or not gone[0].awaits_confirmation or len(come) > 1:
            self._report_violation("L7", entry.id, "it makes something else spendable than one lot that waited")
            return
        there = {lot.dates: lot.amount for lot in own}
        amount = gone[0].amount
        if amount > there.get(gone[0].dates, 0):
            self._report_violation("L7", entry.id, f"{amount} were confirmed of {there.get(gone[0].dates, 0)} that waited")
        until = come[0].expires_at if come else None
        whole = msgspec.structs.replace(gone[0], available_at=None, expires_at=until)
        if (until is not None and until <= entry.at) or come != arriving((whole,), plain, amount, entry.at, entry.at):
            self._report_violation("L7", entry.id, f"{amount} were confirmed, {total(come)} can be spent")

    def _check_arrival(self, entry: Entry, moved: Sequence[Lot]) -> None:
        if any(lot.awaits_confirmation and (lot.source == "paid" or lot.expires_at is None) for lot in moved):
            self._report_violation("L7", entry.id, "what waits to be confirmed was paid for, or would wait for ever")
        passed = any(lot.available_at is not None and lot.available_at <= entry.at for lot in moved)
        if passed or total(moved) > entry.amount or any(lot.amount <= 0 or is_undated(lot) for lot in moved):
            self._report_violation("L7", entry.id, "what arrived is more than was sent, or waits for a moment that has passed")

    def _check_there(self, entry: Entry, own: Sequence[Lot], gone: Sequence[Lot]) -> None:
        there = {lot.dates: lot.amount for lot in own}
        for lot in gone:
            if not 0 < lot.amount <= there.get(lot.dates, 0):
                self._report_violation("L7", entry.id, f"{lot.amount} were taken from a lot of {there.get(lot.dates, 0)}")
        if total(gone) > -entry.amount:
            self._report_violation("L7", entry.id, f"{total(gone)} left, {-entry.amount} were wanted")

    # --- holds ------------------------------------------------------------------------------------------------------

    def _follow_hold(
        self, entry: Entry, change: HoldChange, seq: int, own: tuple[Lot, ...]
    ) -> tuple[Ended | None, tuple[Lot, ...]]:
        """Return the hold that ended here, if one did, and the account's free lots afterwards."""
        if change.change > 0:
            self._follow_made(entry, change, seq, own)
            return None, merge([*own, *(entry.lots or ())])
        hold = self.holds.get(change.seq)
        if hold is None:
            self._report_violation("L7", entry.id, f"there is no hold {change.seq}")
            return None, own
        if entry.amount:
            return self._follow_capture(entry, change, hold), own
        self._follow_release(entry, change, hold)
        # The rest that is released behind a last capture belongs to that capture's transaction.
        how = "expired" if entry.kind == "hold_expiry" else "voided" if entry.transaction is None else "captured"
        return (self.holds.pop(hold.seq), how), merge([*own, *(entry.lots or ())])

    def _follow_made(self, entry: Entry, change: HoldChange, seq: int, own: tuple[Lot, ...]) -> None:
        size = change.change
        taken = negated(entry.lots or ())
        counted_at = None if entry.spent is None else entry.at
        if change != HoldChange(seq, size, size, size, change.expires_at, counted_at=counted_at) or entry.amount:
            self._report_violation("L7", entry.id, "a new hold holds what it was made for, and nothing leaves")
        if taken != first_of(available(own), size):
            self._report_violation("L7", entry.id, "it was not held of the lots that come first in the spend order")
        self.holds[seq] = Hold(seq, size, size, change.expires_at, counted_at=counted_at, lots=taken)

    def _follow_capture(self, entry: Entry, change: HoldChange, hold: Hold) -> Ended | None:
        """Value leaves a hold. The last capture says that nothing is left, and the entry behind it releases the rest."""
        amount = -entry.amount
        taken = negated(entry.lots or ())
        rest = hold.left - amount
        if amount < 0 or rest < 0 or taken != first_of(hold.lots, amount):
            self._report_violation("L7", entry.id, f"{amount} were captured of {hold.left}, or not in the spend order")
        left = msgspec.structs.replace(
            hold, left=rest, captured=hold.captured + amount, lots=merge([*hold.lots, *(entry.lots or ())])
        )
        says = HoldChange(hold.seq, -amount, hold.size, change.left, hold.expires_at, left.captured, hold.counted_at)
        if change != says or change.left not in (0, rest):
            self._report_violation("L7", entry.id, f"{rest} are left in hold {hold.seq}, the entry says {change.left}")
        self.holds[hold.seq] = left
        if rest <= 0:
            return self.holds.pop(hold.seq), "captured"
        if change.left == 0:
            self.ending = hold.seq
        return None

    def _follow_release(self, entry: Entry, change: HoldChange, hold: Hold) -> None:
        if change != HoldChange(hold.seq, -hold.left, hold.size, 0, hold.expires_at, hold.captured, hold.counted_at):
            self._report_violation("L7", entry.id, f"{hold.left} were left in hold {hold.seq}, {-change.change} came back")
        back_at = min(entry.at, hold.expires_at)
        if (entry.lots or ()) != arriving(hold.lots, self.undated_before, hold.left, back_at, entry.at):
            self._report_violation("L7", entry.id, "what was held did not return to the lots it came from")
        if self.limits is not None and hold.counted_at is not None:
            then, now = self._calendar.names(hold.counted_at), self._calendar.names(entry.at)
            back = (-hold.left if then[0] == now[0] else 0, -hold.left if then[1] == now[1] else 0)
            if entry.spent != back:
                self._report_violation("L3", entry.id, f"it gives back {back} to the limits, the entry says {entry.spent}")

    # --- terms ------------------------------------------------------------------------------------------------------

    def _follow_terms(self, entry: Entry) -> None:
        terms = entry.terms
        assert terms is not None
        if entry.amount or entry.lots:
            self._report_violation("L2", entry.id, "an entry that changes the terms moves no value")
        if terms.status == "closed" and (self.balance or self.held):
            self._report_violation("L3", entry.id, f"the account was closed with {self.balance} in it")
        self.status = terms.status or self.status
        self.minimum_balance = self.minimum_balance if terms.minimum_balance is None else terms.minimum_balance
        self.ceiling = self.ceiling if terms.ceiling is None else terms.ceiling
        if terms.limits is not None:
            self.limits = terms.limits if terms.limits != Limits() else None

    def _follow_limits(self, entry: Entry, taken: int) -> None:
        """Count what was spent in the day and the month of the entry."""
        spends = taken if entry.kind in SPENDING_KINDS else 0
        if self.limits is None:
            if entry.spent is not None:
                self._report_violation("L3", entry.id, "it counts against spending limits that were not set")
            return
        if spends > 0 and entry.spent != (spends, spends):
            self._report_violation("L3", entry.id, f"{spends} were spent, {entry.spent} were counted against the limits")
        if entry.spent is None:
            return
        day, month = self._calendar.names(entry.at)
        known = self.spent or Spent(day, month)
        in_day = max(0, entry.spent[0] + (known.in_day if known.day == day else 0))
        in_month = max(0, entry.spent[1] + (known.in_month if known.month == month else 0))
        self.spent = Spent(day, month, in_day, in_month)
        for name, used, limit in (("day", in_day, self.limits.day), ("month", in_month, self.limits.month)):
            if entry.spent[0] > 0 and limit is not None and used > limit:
                self._report_violation("L3", entry.id, f"{used} were spent in the {name}, the limit is {limit}")

    # --- the row ----------------------------------------------------------------------------------------------------

    def check_row(self) -> None:
        """Compare the account's row with what its entries add up to."""
        row = self.account
        if (self.seq, self.head, self.at) != (row.seq, row.head, row.at):
            self._report_violation(
                "L6", row.id, f"the account is at seq {row.seq}, its chain ends at {self.seq} or with another hash or time"
            )
        if row.id != f"{row.owner}:{row.asset}":
            self._report_violation("L6", row.id, f"it says that it is {row.owner}'s, in {row.asset}")
        if (self.balance, self.held) != (row.balance, row.held):
            self._report_violation(
                "L2", row.id, f"{row.balance} with {row.held} held, its entries sum to {self.balance} and {self.held}"
            )
        stored = (row.minimum_balance, row.ceiling, row.status, row.limits, row.spent)
        derived = (self.minimum_balance, self.ceiling, self.status, self.limits, self.spent)
        if stored != derived:
            self._report_violation(
                "L2", row.id, f"floor, ceiling, status, limits and counters are {derived} by its entries, not {stored}"
            )
        if row.lots != (None if self.lots is None else mature(self.lots, self.at)) or row.holds != tuple(self.holds.values()):
            self._report_violation("L7", row.id, "its lots and holds are not those that its entries leave")
        if row.due_at != self.due_at():
            self._report_violation("L10", row.id, f"something lapses at {self.due_at()}, the sweeper looks at {row.due_at}")
        if self.ending is not None:
            self._report_violation("L7", row.id, f"the rest of hold {self.ending} was not released with its last capture")

    def due_at(self) -> int | None:
        """When something on it lapses next, or pays a debt."""
        own = mature(self.lots or (), self.at)
        moments = [hold.expires_at for hold in self.holds.values()]
        moments += [lot.expires_at for lot in own if lot.expires_at is not None]
        settles = debt_repaid_at(own, self.balance - self.held - total(own))
        return min(moments if settles is None else [*moments, settles], default=None)


def _pending(own: Iterable[Lot], at: int) -> int:
    return sum(lot.amount for lot in own if lot.available_at is not None and lot.available_at > at)


def available(own: Iterable[Lot]) -> tuple[Lot, ...]:
    return tuple(lot for lot in own if lot.available_at is None)


def first_of(own: Iterable[Lot], amount: int) -> tuple[Lot, ...]:
    """Return what the first `amount` of lots in spend order is made of; what they do not cover is undated paid value."""
    parts: list[Lot] = []
    for lot in own:
        part = min(lot.amount, amount)
        if part > 0:
            amount -= part
            parts.append(msgspec.structs.replace(lot, amount=part))
    return tuple(parts)


def arriving(parts: Iterable[Lot], plain: int, amount: int, back_at: int, at: int) -> tuple[Lot, ...]:
    """Return what remains of `parts`, the dated part of `amount`, when it is booked at `at` and has paid a debt first.

    It was free again from `back_at` on: what had lapsed then lives `GRACE_MS` longer.
    """
    living = [lot if lot.expires_at is None or lot.expires_at > back_at else _revived(lot, back_at) for lot in parts]
    dated = merge(mature(living, at))
    there = available(dated)
    debt = max(0, -plain - (amount - total(dated)))
    return merge([*dated, *negated(first_of(there, min(debt, total(there))))])


def _revived(lot: Lot, back_at: int) -> Lot:
    return msgspec.structs.replace(lot, expires_at=back_at + GRACE_MS)


def came_from(arrived: Iterable[Lot], parts: Sequence[Lot], at: int) -> bool:
    """True when every lot that arrived at `at` is, at most as large, among `parts` as they come back then."""
    whole = sum(abs(lot.amount) for lot in parts)
    there = {lot.dates: lot.amount for lot in arriving(parts, 0, whole, at, at)}
    return all(lot.amount <= there.get(lot.dates, 0) for lot in arrived)
