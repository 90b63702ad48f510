"""Second, independent derivation of one account from its entries. Pure.

`AccountReplay` applies the entries in order, keeps its own balance, lots, holds, account rules and counters, and reports each entry that does not
follow from the entries before it. It shares with the ledger only the definition of a lot and the merging of equal lots; the rules by which value
is taken, returned and expires are implemented here a second time.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import get_args

import msgspec

from guerdon.calendar import Calendar
from guerdon.ledger.entry_hash import entry_hash
from guerdon.ledger.expiry import debt_repaid_at
from guerdon.ledger.lots import GRACE_MS, is_undated, mature, merge, negated, total
from guerdon.ledger.models import (
    BREAKAGE,
    CASH,
    COUNTED,
    EXCHANGE,
    GENESIS,
    HOLDS,
    ISSUER,
    MERCHANT,
    RULES,
    SYSTEM,
    Account,
    Entry,
    EntryKind,
    Hold,
    HoldChange,
    Limits,
    Lot,
    Spent,
    transaction_id,
)
from guerdon.money import BALANCE_CEILING
from guerdon.verification.report import Law

ReportViolation = Callable[[Law, str, str], None]
"""Function that receives the broken law, the id of the object, and the detail."""
EndedHold = tuple[Hold, str]
"""Hold that an entry has ended, and its final status: captured, voided or expired."""
SYSTEM_ACCOUNTS = frozenset({ISSUER, MERCHANT, CASH, BREAKAGE, EXCHANGE, HOLDS, RULES, COUNTED})
NOMINAL = frozenset({HOLDS, RULES})
"""Counterparties of entries that move no value."""
TIME_KINDS = frozenset({"hold_expiry", "settlement", "expiry"})
"""Kinds of entries that the passing of time causes. They do not depend on the status of the account."""
NOT_SPENDING_KINDS = frozenset(get_args(EntryKind)) - {"debit", "transfer", "transaction", "exchange", "hold", "redeem"}
"""Kinds of entries that do not count against the spending limits of a wallet. The kinds that callers choose for transactions do."""
TAKING_BACK_KINDS = frozenset({"reversal", "clawback"})
"""Kinds of entries that take value back. They take the lots of the original first, even if these are still pending."""
CONFIRMATION = "confirmation"
"""Kind of the entries that make awaiting value available."""


class AccountReplay:
    """State of one account after the entries that were applied so far."""

    __slots__ = (
        "_calendar",
        "_caused_by_time",
        "_reached_at",
        "_report_violation",
        "_transaction",
        "account",
        "at",
        "balance",
        "ceiling",
        "ending_hold",
        "head",
        "heads",
        "held",
        "holds",
        "limits",
        "lots",
        "minimum_balance",
        "seq",
        "spent",
        "status",
        "undated_before",
    )  # fmt: skip

    def __init__(self, account: Account, calendar: Calendar, report_violation: ReportViolation, recounts: int = 0) -> None:
        self.account = account
        self.heads: list[tuple[int, bytes]] = [(0, GENESIS)] * recounts
        """Number and hash of the newest entry that each recount covers. The caller updates them."""
        self._calendar = calendar
        self._report_violation = report_violation
        self.seq, self.head, self.at = 0, GENESIS, 0
        self._transaction: str | None = None
        self.balance, self.held, self.undated_before = 0, 0, 0
        self.lots: tuple[Lot, ...] | None = None
        self.holds: dict[int, Hold] = {}
        self._caused_by_time, self._reached_at = False, 0
        """True if the previous entry was caused by time; the time up to which expiries were booked."""
        self.ending_hold: int | None = None
        """Number of the hold whose last capture was the previous entry: the next entry must release the rest of it."""
        self.minimum_balance, self.ceiling, self.status = 0, BALANCE_CEILING, "open"
        self.limits: Limits | None = None
        self.spent: Spent | None = None

    @property
    def transaction(self) -> str:
        """The transaction of the newest entry."""
        return self._transaction or transaction_id(self.account.id, self.seq)

    def follow(self, entry: Entry, seq: int) -> EndedHold | None:
        """Check one entry against the entries before it and apply it; return the hold that it has ended."""
        account, report = self.account, self._report_violation
        if seq != self.seq + 1:
            report("L6", entry.id, f"seq {seq} follows seq {self.seq}")
        if entry.prev != self.head or entry.hash != entry_hash(entry):
            report("L6", entry.id, "the hash does not match the entry and the entry before it")
        if entry.owner != account.owner or entry.asset != account.asset:
            report("L6", entry.id, f"owner or asset differ from those of the account, {account.owner} and {account.asset}")
        if entry.at < self.at:
            report("L6", entry.id, f"the time {entry.at} is before that of the previous entry, {self.at}")
        if entry.effective_at is not None and entry.effective_at > entry.at:
            report("L6", entry.id, f"the effective time {entry.effective_at} is after that of the entry, {entry.at}")
        if entry.balance_after != self.balance + entry.amount:
            report(
                "L2",
                entry.id,
                f"balance_after is {entry.balance_after}; the balance before, {self.balance}, and the amount, {entry.amount}, give {self.balance + entry.amount}",
            )
        counterparty = entry.counterparty
        if counterparty.startswith(SYSTEM) and (counterparty not in SYSTEM_ACCOUNTS or (entry.amount and counterparty in NOMINAL)):
            report("L1", entry.id, f"the counterparty of {entry.amount} is {counterparty}, which holds no value")
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
        """Check an entry of an account without lots, holds and account rules. Most accounts are like this, so the check is short."""
        self.undated_before = self.balance - self.held
        if entry.held_after != self.held:
            self._report_violation("L2", entry.id, f"held_after is {entry.held_after}, but the account has no hold")
        if entry.amount < 0:
            if entry.balance_after - entry.held_after < 0 and entry.kind != "clawback":
                self._report_violation(
                    "L3", entry.id, f"{entry.balance_after - entry.held_after} available; the minimum balance is 0"
                )
            if entry.balance_after < -BALANCE_CEILING:
                self._report_violation("L3", entry.id, "the debt exceeds the limit of the account")
        elif entry.balance_after > BALANCE_CEILING:
            self._report_violation("L3", entry.id, f"the balance is {entry.balance_after}; the ceiling is {BALANCE_CEILING}")

    def _follow_dated(self, entry: Entry, seq: int) -> EndedHold | None:
        report = self._report_violation
        lots = self._lots_before(entry)
        undated = self.undated_before = self.balance - self.held - total(lots)
        spendable_before = self.balance - self.held - _pending(lots, entry.at) - self.minimum_balance
        ended, change = None, entry.hold
        if change is not None:
            ended, after = self._follow_hold(entry, change, seq, lots)
        elif entry.terms is not None:
            self._follow_rules(entry)
            after = lots
        else:
            self._follow_lots(entry, lots, undated)
            after = merge([*lots, *entry.lots]) if entry.lots else lots
        held = self.held + (0 if change is None else change.change)
        if entry.held_after != held:
            report("L2", entry.id, f"held_after is {entry.held_after}; the entries give {held}")
        if self.lots is not None or entry.lots or change is not None or entry.terms is not None:
            self.lots = after
        pending = _pending(after, entry.at)
        spendable_after = entry.balance_after - held - pending - self.minimum_balance
        if entry.spendable_after != (spendable_after if pending or self.minimum_balance else None):
            report("L2", entry.id, f"spendable_after is {entry.spendable_after}; the entries give {spendable_after}")
        taken = -entry.amount if change is None else max(0, change.change)
        if taken > 0 and entry.kind not in ("clawback", "expiry") and spendable_after < 0 and spendable_after < spendable_before:
            report(
                "L3", entry.id, f"{spendable_after + self.minimum_balance} available; the minimum balance is {self.minimum_balance}"
            )
        if entry.amount > 0 and entry.balance_after > self.ceiling:
            report("L3", entry.id, f"the balance is {entry.balance_after}; the ceiling is {self.ceiling}")
        if entry.amount < 0 and entry.balance_after < -BALANCE_CEILING:
            report("L3", entry.id, "the debt exceeds the limit of the account")
        if entry.kind not in TIME_KINDS and entry.balance_after - held < total(after) and pending < total(after):
            report("L7", entry.id, "the account has a debt and available value that should have paid it")
        self._follow_limits(entry, taken)
        return ended

    # --- time -------------------------------------------------------------------------------------------------------

    def _lots_before(self, entry: Entry) -> tuple[Lot, ...]:
        """Return the lots of the account just before the entry.

        Expiries and debt repayments are booked in chronological order before any other entry. A closed account has no entries, a frozen account
        only those that time causes, changes of its rules and released holds.
        """
        lots = self.lots or ()
        if self.ending_hold is not None and (entry.hold is None or entry.hold.seq != self.ending_hold or entry.amount):
            self._report_violation("L7", entry.id, f"the rest of hold {self.ending_hold} was not released after its last capture")
        self.ending_hold = None
        if not (self._caused_by_time and entry.at == self.at):
            # All expiries up to the time of the previous entry are booked.
            self._reached_at, lots = self.at, mature(lots, self.at)
        self._caused_by_time = entry.kind in TIME_KINDS
        lots, next_kind, hold = self._next_caused_by_time(lots, entry.at)
        if self._caused_by_time:
            if entry.kind != next_kind or (hold is not None and (entry.hold is None or entry.hold.seq != hold.seq)):
                self._report_violation(
                    "L10", entry.id, f"the next entry caused by time at {entry.at} is {next_kind or 'none'}, not {entry.kind}"
                )
            return lots
        if next_kind is not None:
            law: Law = "L10" if hold is not None else "L7"
            missing = f"the expiry of hold {hold.seq}" if hold else f"an entry of kind {next_kind}"
            self._report_violation(law, entry.id, f"{missing} was not booked before this entry")
        self._require_open(entry)
        return lots

    def _next_caused_by_time(self, lots: tuple[Lot, ...], at: int) -> tuple[tuple[Lot, ...], str | None, Hold | None]:
        """Return the lots at the next time up to `at` at which time causes an entry, its kind (or None) and the hold that expires."""
        if not self.holds and all(lot.available_at is None and lot.expires_at is None for lot in lots):
            return lots, "settlement" if lots and self.balance - self.held < total(lots) else None, None
        while True:
            for hold in self.holds.values():
                if hold.expires_at <= self._reached_at:
                    return lots, "hold_expiry", hold
            debt = self.balance - self.held < total(lots)
            if debt and available_lots(lots):
                return lots, "settlement", None
            times = [hold.expires_at for hold in self.holds.values()]
            times += [lot.available_at for lot in lots if debt and lot.available_at is not None]
            next_times = [time for time in times if time <= at]
            if not next_times:
                lots = mature(lots, at)
                expired = any(lot.expires_at is not None and lot.expires_at <= at for lot in lots)
                return lots, "expiry" if expired else None, None
            self._reached_at = min(next_times)
            lots = mature(lots, self._reached_at)

    def _require_open(self, entry: Entry) -> None:
        if self.status == "closed":
            self._report_violation("L3", entry.id, "the account is closed")
        releases_hold = entry.hold is not None and entry.hold.change < 0 and not entry.amount
        if self.status == "frozen" and entry.terms is None and not releases_hold:
            self._report_violation("L3", entry.id, "the account is frozen")

    # --- lots -------------------------------------------------------------------------------------------------------

    def _follow_lots(self, entry: Entry, lots: tuple[Lot, ...], undated: int) -> None:
        """Check the lots that an entry adds, takes, lets expire or uses to repay a debt."""
        moved = entry.lots or ()
        if entry.kind == CONFIRMATION:
            self._check_confirmed(entry, lots, undated)
            return
        if entry.amount > 0:
            self._check_arrival(entry, moved)
            return
        taken = negated(moved)
        if entry.kind == "expiry":
            expired = tuple(lot for lot in lots if lot.expires_at is not None and lot.expires_at <= entry.at)
            if taken != expired or not expired or entry.amount != -total(expired) or entry.counterparty != BREAKAGE:
                self._report_violation("L7", entry.id, f"{total(expired)} had expired; {-entry.amount} was written off")
        elif entry.kind == "settlement":
            usable = available_lots(lots)
            if entry.amount or not taken or taken != first_of(usable, min(max(0, -undated), total(usable))):
                self._report_violation("L7", entry.id, f"a debt of {max(0, -undated)} was repaid with {total(taken)}")
        elif entry.kind in TAKING_BACK_KINDS:
            self._check_taken_back(entry, lots, taken)
        elif taken != first_of(available_lots(lots), -entry.amount):
            self._report_violation("L7", entry.id, "the value was not taken from the first lots in spend order")

    def _check_confirmed(self, entry: Entry, lots: Sequence[Lot], undated: int) -> None:
        """Check that one awaiting lot, or a part of it, became available, less the debt that it repays. No other entry changes the dates of a lot."""
        moved = entry.lots or ()
        taken = negated(lot for lot in moved if lot.amount < 0)
        added = tuple(lot for lot in moved if lot.amount > 0)
        if entry.amount or entry.counterparty != ISSUER or len(taken) != 1 or not taken[0].awaits_confirmation or len(added) > 1:
            self._report_violation("L7", entry.id, "a confirmation must make exactly one awaiting lot available")
            return
        amount = taken[0].amount
        awaiting = {lot.dates: lot.amount for lot in lots}.get(taken[0].dates, 0)
        if amount > awaiting:
            self._report_violation("L7", entry.id, f"{amount} was confirmed, but only {awaiting} awaited confirmation")
        expires_at = added[0].expires_at if added else None
        confirmed = msgspec.structs.replace(taken[0], available_at=None, expires_at=expires_at)
        expected = arriving_lots((confirmed,), undated, amount, entry.at, entry.at)
        if (expires_at is not None and expires_at <= entry.at) or added != expected:
            self._report_violation("L7", entry.id, f"{amount} was confirmed; {total(added)} became available")

    def _check_arrival(self, entry: Entry, moved: Sequence[Lot]) -> None:
        """Check the lots of an entry that adds value."""
        if any(lot.awaits_confirmation and (lot.source == "paid" or lot.expires_at is None) for lot in moved):
            self._report_violation("L7", entry.id, "a lot that awaits confirmation must be promotional and must expire")
        in_the_past = any(lot.available_at is not None and lot.available_at <= entry.at for lot in moved)
        if in_the_past or total(moved) > entry.amount or any(lot.amount <= 0 or is_undated(lot) for lot in moved):
            self._report_violation(
                "L7", entry.id, "the added lots exceed the amount, have no dates, or become available in the past"
            )

    def _check_taken_back(self, entry: Entry, lots: Sequence[Lot], taken: Sequence[Lot]) -> None:
        """Check that a reversal or clawback takes no more from a lot than it has, and no more than its amount."""
        amounts = {lot.dates: lot.amount for lot in lots}
        for lot in taken:
            if not 0 < lot.amount <= amounts.get(lot.dates, 0):
                self._report_violation("L7", entry.id, f"{lot.amount} was taken from a lot of {amounts.get(lot.dates, 0)}")
        if total(taken) > -entry.amount:
            self._report_violation("L7", entry.id, f"{total(taken)} was taken from lots; the amount is {-entry.amount}")

    # --- holds ------------------------------------------------------------------------------------------------------

    def _follow_hold(
        self, entry: Entry, change: HoldChange, seq: int, lots: tuple[Lot, ...]
    ) -> tuple[EndedHold | None, tuple[Lot, ...]]:
        """Return the hold that the entry has ended, or None, and the lots of the account after the entry."""
        if change.change > 0:
            self._follow_creation(entry, change, seq, lots)
            return None, merge([*lots, *(entry.lots or ())])
        hold = self.holds.get(change.seq)
        if hold is None:
            self._report_violation("L7", entry.id, f"hold {change.seq} does not exist")
            return None, lots
        if entry.amount:
            return self._follow_capture(entry, change, hold), lots
        self._follow_release(entry, change, hold)
        # The release after a last capture belongs to the transaction of that capture.
        status = "expired" if entry.kind == "hold_expiry" else "voided" if entry.transaction is None else "captured"
        return (self.holds.pop(hold.seq), status), merge([*lots, *(entry.lots or ())])

    def _follow_creation(self, entry: Entry, change: HoldChange, seq: int, lots: tuple[Lot, ...]) -> None:
        size = change.change
        taken = negated(entry.lots or ())
        counted_at = None if entry.spent is None else entry.at
        if change != HoldChange(seq, size, size, size, change.expires_at, counted_at=counted_at) or entry.amount:
            self._report_violation("L7", entry.id, "a new hold must hold its amount and must not change the balance")
        if taken != first_of(available_lots(lots), size):
            self._report_violation("L7", entry.id, "the value was not held from the first lots in spend order")
        self.holds[seq] = Hold(seq, size, size, change.expires_at, counted_at=counted_at, lots=taken)

    def _follow_capture(self, entry: Entry, change: HoldChange, hold: Hold) -> EndedHold | None:
        """Check a capture. The last capture of a hold leaves 0 in it, and the next entry releases the rest."""
        amount = -entry.amount
        taken = negated(entry.lots or ())
        rest = hold.left - amount
        if amount < 0 or rest < 0 or taken != first_of(hold.lots, amount):
            self._report_violation("L7", entry.id, f"{amount} was captured from a hold of {hold.left}, or not in spend order")
        captured = msgspec.structs.replace(
            hold, left=rest, captured=hold.captured + amount, lots=merge([*hold.lots, *(entry.lots or ())])
        )
        expected = HoldChange(hold.seq, -amount, hold.size, change.left, hold.expires_at, captured.captured, hold.counted_at)
        if change != expected or change.left not in (0, rest):
            self._report_violation("L7", entry.id, f"the entry leaves {change.left} in hold {hold.seq}; the entries give {rest}")
        self.holds[hold.seq] = captured
        if rest <= 0:
            return self.holds.pop(hold.seq), "captured"
        if change.left == 0:
            self.ending_hold = hold.seq
        return None

    def _follow_release(self, entry: Entry, change: HoldChange, hold: Hold) -> None:
        if change != HoldChange(hold.seq, -hold.left, hold.size, 0, hold.expires_at, hold.captured, hold.counted_at):
            self._report_violation("L7", entry.id, f"{-change.change} was released; hold {hold.seq} had {hold.left} left")
        released_at = min(entry.at, hold.expires_at)
        arriving = arriving_lots(hold.lots, self.undated_before, hold.left, released_at, entry.at)
        if (entry.lots or ()) not in (arriving, without_first_expiry(arriving)):
            self._report_violation("L7", entry.id, "the held value did not return to its lots")
        if self.limits is not None and hold.counted_at is not None:
            counted, released = self._calendar.names(hold.counted_at), self._calendar.names(entry.at)
            spent = (-hold.left if counted[0] == released[0] else 0, -hold.left if counted[1] == released[1] else 0)
            if entry.spent != spent:
                self._report_violation("L3", entry.id, f"spent is {entry.spent}; the released hold gives {spent}")

    # --- account rules ------------------------------------------------------------------------------------------------------

    def _follow_rules(self, entry: Entry) -> None:
        rules = entry.terms
        assert rules is not None
        if entry.amount or entry.lots:
            self._report_violation("L2", entry.id, "an entry that changes the account rules must not move value")
        if rules.status == "closed" and (self.balance or self.held):
            self._report_violation("L3", entry.id, f"the account was closed with a balance of {self.balance} and {self.held} held")
        self.status = rules.status or self.status
        self.minimum_balance = self.minimum_balance if rules.minimum_balance is None else rules.minimum_balance
        self.ceiling = self.ceiling if rules.ceiling is None else rules.ceiling
        if rules.limits is not None:
            self.limits = rules.limits if rules.limits != Limits() else None

    def _follow_limits(self, entry: Entry, taken: int) -> None:
        """Count the spent value in the day and the month of the entry, and check the spending limits."""
        spends = 0 if entry.kind in NOT_SPENDING_KINDS else taken
        if self.limits is None:
            if entry.spent is not None:
                self._report_violation("L3", entry.id, "spent is set, but the account has no spending limits")
            return
        if spends > 0 and entry.spent != (spends, spends):
            self._report_violation("L3", entry.id, f"{spends} was spent; {entry.spent} was counted against the limits")
        if entry.spent is None:
            return
        day, month = self._calendar.names(entry.at)
        known = self.spent or Spent(day, month)
        in_day = max(0, entry.spent[0] + (known.in_day if known.day == day else 0))
        in_month = max(0, entry.spent[1] + (known.in_month if known.month == month else 0))
        self.spent = Spent(day, month, in_day, in_month)
        for period, used, limit in (("day", in_day, self.limits.day), ("month", in_month, self.limits.month)):
            if entry.spent[0] > 0 and limit is not None and used > limit:
                self._report_violation("L3", entry.id, f"{used} was spent in the {period}; the limit is {limit}")

    # --- row --------------------------------------------------------------------------------------------------------

    def check_row(self) -> None:
        """Compare the stored row of the account with the state derived from its entries."""
        row = self.account
        if (self.seq, self.head, self.at) != (row.seq, row.head, row.at):
            self._report_violation(
                "L6", row.id, f"the row has seq {row.seq}; the chain ends at seq {self.seq}, or its hash or time differs"
            )
        if row.id != f"{row.owner}:{row.asset}":
            self._report_violation("L6", row.id, f"its owner {row.owner} or asset {row.asset} does not match its id")
        if (self.balance, self.held) != (row.balance, row.held):
            self._report_violation(
                "L2",
                row.id,
                f"the row has balance {row.balance} and {row.held} held; the entries give {self.balance} and {self.held}",
            )
        stored = (row.minimum_balance, row.ceiling, row.status, row.limits, row.spent)
        derived = (self.minimum_balance, self.ceiling, self.status, self.limits, self.spent)
        if stored != derived:
            self._report_violation(
                "L2", row.id, f"minimum balance, ceiling, status, limits and counters are {stored}; the entries give {derived}"
            )
        if row.lots != (None if self.lots is None else mature(self.lots, self.at)) or row.holds != tuple(self.holds.values()):
            self._report_violation("L7", row.id, "its lots or holds are not those that its entries give")
        if row.due_at != self.due_at():
            self._report_violation("L10", row.id, f"due_at is {row.due_at}; the next expiry is at {self.due_at()}")
        if self.ending_hold is not None:
            self._report_violation("L7", row.id, f"the rest of hold {self.ending_hold} was not released after its last capture")

    def due_at(self) -> int | None:
        """Return the time of the next expiry or debt repayment, or None."""
        lots = mature(self.lots or (), self.at)
        times = [hold.expires_at for hold in self.holds.values()]
        times += [lot.expires_at for lot in lots if lot.expires_at is not None]
        repaid_at = debt_repaid_at(lots, self.balance - self.held - total(lots))
        return min(times if repaid_at is None else [*times, repaid_at], default=None)


def _pending(lots: Iterable[Lot], at: int) -> int:
    return sum(lot.amount for lot in lots if lot.available_at is not None and lot.available_at > at)


def available_lots(lots: Iterable[Lot]) -> tuple[Lot, ...]:
    return tuple(lot for lot in lots if lot.available_at is None)


def first_of(lots: Iterable[Lot], amount: int) -> tuple[Lot, ...]:
    """Return the parts of lots that make up the first `amount` in spend order. The rest, if any, is undated paid value."""
    parts: list[Lot] = []
    for lot in lots:
        part = min(lot.amount, amount)
        if part > 0:
            amount -= part
            parts.append(msgspec.structs.replace(lot, amount=part))
    return tuple(parts)


def arriving_lots(parts: Iterable[Lot], undated: int, amount: int, released_at: int, at: int) -> tuple[Lot, ...]:
    """Return the rest of `parts` when it is booked at `at` and has repaid a debt first.

    `parts` is the dated part of `amount`; `undated` is the undated balance before. The value is free from `released_at` on: parts that had expired by
    then are valid for `GRACE_MS` more.
    """
    valid = [lot if lot.expires_at is None or lot.expires_at > released_at else _with_grace(lot, released_at) for lot in parts]
    dated = merge(mature(valid, at))
    usable = available_lots(dated)
    debt = max(0, -undated - (amount - total(dated)))
    return merge([*dated, *negated(first_of(usable, min(debt, total(usable))))])


def _with_grace(lot: Lot, released_at: int) -> Lot:
    first = lot.expires_at if lot.first_expires_at is None else lot.first_expires_at
    return msgspec.structs.replace(lot, expires_at=released_at + GRACE_MS, first_expires_at=first)


def without_first_expiry(lots: Iterable[Lot]) -> tuple[Lot, ...]:
    """Return the lots as entries list them that are older than the field `first_expires_at`."""
    return merge(msgspec.structs.replace(lot, first_expires_at=None) for lot in lots)


def came_from(arrived: Iterable[Lot], parts: Sequence[Lot], at: int) -> bool:
    """Return True if every lot that arrived at `at` is a part of a lot in `parts`, with the dates that it has at that time."""
    amount = sum(abs(lot.amount) for lot in parts)
    arriving, arrived = arriving_lots(parts, 0, amount, at, at), tuple(arrived)
    for possible in (arriving, without_first_expiry(arriving)):
        amounts = {lot.dates: lot.amount for lot in possible}
        if all(lot.amount <= amounts.get(lot.dates, 0) for lot in arrived):
            return True
    return False
