"""The pure heart: a batch of commands, the accounts they touch and the time go in; entries and answers come out."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.errors import (
    BalanceLimit,
    BusinessError,
    CaptureLimit,
    GuerdonError,
    IdempotencyKeyReused,
    InsufficientFunds,
    InvalidState,
    LimitReached,
    NotFound,
    ReferenceReused,
    WalletClosed,
    WalletFrozen,
    WalletNotEmpty,
    registry,
)
from guerdon.ledger import expiry as due
from guerdon.ledger import lots
from guerdon.ledger import spending_limits as limits
from guerdon.ledger.expiry import AccountNow, EntryDetails
from guerdon.ledger.models import (
    HOLDS_MAX,
    LOTS_MAX,
    REFUSAL,
    SYSTEM,
    Account,
    Command,
    CommandOutcome,
    CommandResult,
    Confirmation,
    Decision,
    DocumentChange,
    Entry,
    Hold,
    HoldChange,
    Idempotency,
    Limits,
    Posting,
    RecordedRefusal,
    T,
    Transaction,
    View,
)
from guerdon.money import BALANCE_CEILING

Documents = dict[tuple[str, str], dict[str, Any]]


class WritePlan:
    """Everything one database transaction is to write, and the verdict on each command, in their order."""

    def __init__(self) -> None:
        self.results: list[CommandResult[Any]] = []
        self.entries: list[Entry] = []
        self.opened: dict[str, Account] = {}
        self.moved: dict[str, Account] = {}
        self.refusals: list[RecordedRefusal] = []
        self.inserts: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.changes: dict[tuple[str, str], DocumentChange] = {}

    @property
    def writes(self) -> bool:
        return bool(self.entries or self.opened or self.refusals or self.inserts or self.changes)

    def change(self, change: DocumentChange, documents: Documents) -> None:
        """Add fields to set; a document inserted by the same batch simply has them from the start."""
        place = (change.collection, change.id)
        known = documents.get(place)
        documents[place] = {**(known or {"_id": change.id, "owner": change.owner}), **change.fields}
        for number, document in enumerate(self.inserts.get(change.collection, ())):
            if document["_id"] == change.id:
                self.inserts[change.collection][number] = documents[place]
                return
        earlier = self.changes.get(place)
        # The first of them says what was read.
        self.changes[place] = (
            change if earlier is None else msgspec.structs.replace(earlier, fields={**earlier.fields, **change.fields})
        )


class _State(Struct):
    """The working copy of the snapshot, which the commands of a batch move on."""

    accounts: dict[str, Account]
    recorded: dict[bytes, Entry | RecordedRefusal]
    documents: Documents
    now_ms: int
    calendar: Calendar
    expired: dict[str, AccountNow] = {}
    """What has to be booked first on an account that moves."""


def decide_batch(
    commands: Sequence[Command[Any]],
    found: tuple[dict[str, Account], dict[bytes, Entry | RecordedRefusal], Documents],
    now_ms: int,
    calendar: Calendar,
) -> WritePlan:
    """Decide `commands` one after another; each sees what the ones before it did. A refused one changes nothing.

    `found` is a working copy of the snapshot (accounts, earlier facts by mark, documents by collection and id); it is moved on.
    """
    accounts, once, documents = found
    state = _State(accounts, once, documents, now_ms, calendar)
    for account in accounts.values():
        if account.lots is not None:
            booked = due.bring_up_to(account, now_ms, calendar)
            accounts[account.id] = booked.account
            if booked.entries:
                state.expired[account.id] = booked
    plan = WritePlan()
    view = View(accounts, once, documents, now_ms)
    for place, command in enumerate(commands):
        view.position = place
        try:
            verdict = _apply_decision(command.decide(view), plan, state)
        except GuerdonError as refusal:
            # Its traceback leads to this frame, whose plan holds it: a ring around all that was read, until the collector comes by.
            verdict = refusal.with_traceback(None)
            _remember(refusal, command.idempotency, plan, once)
        plan.results.append(verdict)
    return plan


def _apply_decision(decision: Decision[T], plan: WritePlan, state: _State) -> CommandOutcome[T]:
    """Apply one decision to the working state, wholly or (by raising) not at all."""
    if decision.replayed:
        return CommandOutcome(decision.replayed, decision.value, replayed=True)
    scratch: dict[str, Account] = {}
    opened = {account.id: account for account in decision.opens if account.id not in state.accounts}
    entries: list[Entry] = []
    fresh: set[bytes] = set()

    def lookup(account_id: str) -> Account:
        account = scratch.get(account_id) or state.accounts.get(account_id) or opened.get(account_id)
        if account is None:
            raise NotFound("there is no such wallet")
        return account

    for transaction in decision.transactions:
        try:
            settled = post_transaction(transaction, lookup, scratch, state.now_ms, state.calendar)
            marks = {mark for entry in settled for mark in entry.unique_keys or ()}
            if not marks.isdisjoint(fresh):
                if transaction.idempotency is not None and transaction.idempotency.key_digest not in fresh:
                    raise ReferenceReused("a reference is used twice in one request")
                raise IdempotencyKeyReused("a key is used twice in one request")
        except GuerdonError as error:
            error.subject = transaction
            raise
        fresh |= marks
        entries.extend(settled)

    plan.opened.update(opened)
    _book_expired((*scratch, *decision.books_expired), plan, state)
    state.accounts.update(opened)
    state.accounts.update(scratch)
    plan.moved.update(scratch)
    plan.entries.extend(entries)
    for entry in entries:
        for mark in entry.unique_keys or ():
            state.recorded[mark] = entry
    for collection, document in decision.inserts:
        plan.inserts[collection].append(document)
        state.documents[collection, document["_id"]] = document
    for change in decision.changes:
        plan.change(change, state.documents)
    return CommandOutcome(tuple(entries), decision.value)


def _book_expired(accounts: Sequence[str], plan: WritePlan, state: _State) -> None:
    """Write what has lapsed on these accounts before anything else that moves on them."""
    for account_id in accounts:
        booked = state.expired.pop(account_id, None)
        if booked is not None:
            plan.entries.extend(booked.entries)
            plan.moved[account_id] = booked.account
            for change in booked.changes:
                plan.change(change, state.documents)


def post_transaction(
    transaction: Transaction, lookup: Callable[[str], Account], scratch: dict[str, Account], now_ms: int, calendar: Calendar
) -> list[Entry]:
    """Turn one transaction into entries, moving its accounts on in `scratch`.

    Raises:
        InsufficientFunds, BalanceLimit, LimitReached, CaptureLimit, WalletFrozen, WalletClosed, WalletNotEmpty: a posting breaks a
            guard of its account.
    """
    entries: list[Entry] = []
    for posting in transaction.postings:
        account = lookup(posting.account)
        marks = _entry_details(transaction, posting, entries, lookup)
        carries = posting.keeps_dates and entries[-1].lots
        whole = msgspec.structs.replace(posting, lots=lots.negated(carries)) if carries else posting
        for moved, entry in _post(account, whole, marks, now_ms, calendar):
            scratch[account.id] = moved
            entries.append(entry)
    return entries


def _entry_details(
    transaction: Transaction, posting: Posting, entries: Sequence[Entry], lookup: Callable[[str], Account]
) -> EntryDetails:
    idempotency = transaction.idempotency
    pair = None
    if not posting.counterparty.startswith(SYSTEM):
        # The other side is the newest entry of its account, or will be.
        other = lookup(posting.counterparty).seq
        pair = other if entries else other + 1
    return EntryDetails(
        kind=transaction.kind,
        actor=transaction.actor,
        transaction=entries[0].transaction_id if entries else None,
        idempotency=None if entries else idempotency,
        reference=idempotency.reference if idempotency else None,
        reason=transaction.reason,
        metadata=transaction.metadata,
        pair=pair,
        reverses=transaction.reverses,
    )


def _post(account: Account, posting: Posting, marks: EntryDetails, now_ms: int, calendar: Calendar) -> list[tuple[Account, Entry]]:
    """The entries of one posting, each with the account as it is after it."""
    guard(account, posting)
    now_ms = max(now_ms, account.at)
    if posting.terms is not None:
        return [_set_rules(account, posting, marks, now_ms)]
    if posting.confirms is not None:
        return [_confirm(account, posting, posting.confirms, marks, now_ms)]
    if posting.hold is not None and posting.hold.seq:
        return _end_hold(account, posting, marks, now_ms, calendar)
    if account.limits is not None:
        account, marks = _count(account, posting, marks, now_ms, calendar)
    if posting.hold is not None:
        return [_make_hold(account, posting, marks, now_ms)]
    if posting.amount < 0:
        if account.lots:
            first = lots.as_of(posting.lots, now_ms)
            taken = lots.take(account.lots, account.undated_balance, -posting.amount, first)
            marks = msgspec.structs.replace(marks, lots=lots.negated(taken))
    elif posting.lots:
        if any(lot.awaits_confirmation and (lot.source == "paid" or lot.expires_at is None) for lot in posting.lots):
            raise InvalidState("only what is awarded can wait to be confirmed, and not for ever", status_now=account.status)
        marks = msgspec.structs.replace(
            marks,
            lots=lots.give(
                posting.lots, account.undated_balance, posting.amount, now_ms, back_at_ms=now_ms if marks.reverses else 0
            ),
        )
    moved = due.append(account, posting, marks, now_ms)
    if posting.amount > 0 and moved[0].lots and len(moved[0].lots) > max(LOTS_MAX, len(account.lots or ())) and not marks.reverses:
        raise LimitReached(f"the wallet already holds {LOTS_MAX} lots of different dates", limit=LOTS_MAX)
    return [moved]


def _confirm(account: Account, posting: Posting, wish: Confirmation, marks: EntryDetails, now_ms: int) -> tuple[Account, Entry]:
    """Give value that waits its own dates; a debt is paid out of it first. Nothing else is ever dated anew.

    Raises:
        InvalidState: there is not so much that waits, or it would lapse before it could be spent.
        LimitReached: the wallet has no room for another lot.
    """
    lot, until = wish.lot, wish.expires_at
    own = account.lots or ()
    there = lots.total(each for each in own if each.dates == lot.dates)
    if not lot.awaits_confirmation or not 0 < lot.amount <= there or (until is not None and until <= now_ms):
        raise InvalidState(f"{lot.amount} to confirm, {there if lot.awaits_confirmation else 0} wait", status_now=account.status)
    spendable = msgspec.structs.replace(lot, available_at=None, expires_at=until)
    arrived = lots.give((spendable,), account.undated_balance, lot.amount, now_ms)
    moved = due.append(account, posting, msgspec.structs.replace(marks, lots=lots.merge([*lots.negated((lot,)), *arrived])), now_ms)
    if len(moved[0].lots or ()) > max(LOTS_MAX, len(own)):
        raise LimitReached(f"the wallet already holds {LOTS_MAX} lots of different dates", limit=LOTS_MAX)
    return moved


def _count(
    account: Account, posting: Posting, marks: EntryDetails, now_ms: int, calendar: Calendar
) -> tuple[Account, EntryDetails]:
    """Count what is spent, or given back, against the limits.

    Raises:
        LimitReached: it is too much for the day or the month.
    """
    change = (-posting.restores_spending[0], -posting.restores_spending[1])
    if posting.spends:
        amount = posting.hold.amount if posting.hold is not None else -posting.amount
        limits.require_within(account, amount, calendar, now_ms)
        change = (amount, amount)
    if change == (0, 0):
        return account, marks
    spent = limits.counted(account, change, calendar, now_ms)
    return msgspec.structs.replace(account, spent=spent), msgspec.structs.replace(marks, spent=change)


def _make_hold(account: Account, posting: Posting, marks: EntryDetails, now_ms: int) -> tuple[Account, Entry]:
    assert posting.hold is not None
    amount, expires_at = posting.hold.amount, posting.hold.expires_at
    if len(account.holds) >= HOLDS_MAX:
        raise LimitReached(f"the wallet already has {HOLDS_MAX} active holds", limit=HOLDS_MAX)
    taken = lots.take(account.lots or (), account.undated_balance, amount)
    counted_at = None if marks.spent is None else now_ms
    hold = Hold(account.seq + 1, amount, amount, expires_at, counted_at=counted_at, lots=taken)
    marks = msgspec.structs.replace(
        marks, lots=lots.negated(taken), hold=HoldChange(hold.seq, amount, amount, amount, expires_at, counted_at=counted_at)
    )
    return due.append(msgspec.structs.replace(account, holds=(*account.holds, hold)), posting, marks, now_ms)


def _end_hold(
    account: Account, posting: Posting, marks: EntryDetails, now_ms: int, calendar: Calendar
) -> list[tuple[Account, Entry]]:
    """Capture a part or all of a hold (`posting.amount` is negative), or release it."""
    assert posting.hold is not None
    hold = next((hold for hold in account.holds if hold.seq == posting.hold.seq), None)
    if hold is None:
        raise NotFound("there is no such hold")
    steps: list[tuple[Account, Entry]] = []
    if posting.amount:
        captured = -posting.amount
        if captured > hold.left:
            raise CaptureLimit(f"{captured} to capture, {hold.left} are left", left=hold.left, needed=captured)
        taken = lots.split(hold.lots, hold.left, captured)
        left = msgspec.structs.replace(
            hold,
            left=hold.left - captured,
            captured=hold.captured + captured,
            lots=lots.merge([*hold.lots, *lots.negated(taken)]),
        )
        ends = posting.hold.final or left.left == 0
        change = HoldChange(
            hold.seq, -captured, hold.size, 0 if ends else left.left, hold.expires_at, left.captured, hold.counted_at
        )
        rest = tuple(left if other.seq == hold.seq else other for other in account.holds if other.seq != hold.seq or left.left)
        marks = msgspec.structs.replace(marks, lots=lots.negated(taken), hold=change)
        steps.append(due.append(msgspec.structs.replace(account, holds=rest), posting, marks, now_ms))
        if not ends or left.left == 0:
            return steps
        account, hold = steps[0][0], left
        marks = msgspec.structs.replace(marks, kind="void", transaction=steps[0][1].transaction_id, idempotency=None)
    steps.append(due.release(account, hold, marks, now_ms=now_ms, calendar=calendar))
    return steps


def _set_rules(account: Account, posting: Posting, marks: EntryDetails, now_ms: int) -> tuple[Account, Entry]:
    terms = posting.terms
    assert terms is not None
    account = msgspec.structs.replace(
        account,
        status=terms.status or account.status,
        minimum_balance=account.minimum_balance if terms.minimum_balance is None else terms.minimum_balance,
        ceiling=account.ceiling if terms.ceiling is None else terms.ceiling,
        limits=account.limits if terms.limits is None else terms.limits if terms.limits != Limits() else None,
    )
    return due.append(account, posting, msgspec.structs.replace(marks, terms=terms), now_ms)


def guard(account: Account, posting: Posting) -> None:
    """Refuse a posting that breaks its account's status, floor or ceiling.

    Raises:
        WalletFrozen, WalletClosed: the account is not open.
        WalletNotEmpty: it is to be closed with something in it.
        InsufficientFunds: it would leave less than the floor available.
        BalanceLimit: it would rise above the ceiling.
    """
    if account.status != "open":
        _guard_status(account, posting)
    if posting.terms is not None:
        if posting.terms.status == "closed" and (account.balance or account.held):
            raise WalletNotEmpty(
                f"{account.balance} {account.asset} are in it", wallet=account.id, balance=account.balance, held=account.held
            )
        return
    hold = posting.hold
    needed = -posting.amount if hold is None else 0 if hold.seq else hold.amount
    if needed > 0:
        there = account.spendable
        if posting.lots and account.lots:
            # What the caller may take first may include value that is not yet available to anybody else.
            pending = {lot.dates: lot.amount for lot in account.lots if lot.available_at is not None}
            there += sum(min(pending.get(lot.dates, 0), lot.amount) for lot in posting.lots)
        if there < needed and not posting.below_minimum:
            raise InsufficientFunds(
                f"{needed} {account.asset} are needed, {max(there, 0)} are available",
                asset=account.asset,
                available=max(there, 0),
                needed=needed,
                wallet=account.id,
            )
        if account.balance + posting.amount < -BALANCE_CEILING:
            raise BalanceLimit("the debt would pass the limit of the account", asset=account.asset)
    elif account.balance + posting.amount > account.ceiling and posting.amount > 0:
        raise BalanceLimit(f"the balance would pass {account.ceiling}", asset=account.asset)


def _guard_status(account: Account, posting: Posting) -> None:
    """On a frozen account no value moves in or out; its terms may change, and a hold may be given up. A closed one is at its end."""
    if account.status == "closed":
        raise WalletClosed("the wallet is closed", wallet=account.id)
    gives_up = posting.hold is not None and posting.hold.seq and not posting.amount
    if posting.terms is None and not gives_up:
        raise WalletFrozen("the wallet is frozen", wallet=account.id)


def find_replay(view: View, idempotency: Idempotency) -> Entry | None:
    """Return the entry that an earlier run of this very command made, or None when it is new.

    Raises:
        IdempotencyKeyReused: the key belongs to another request.
        ReferenceReused: another command has used the reference.
        GuerdonError: the refusal that the first run ended with.
    """
    earlier = view.recorded.get(idempotency.key_digest)
    if earlier is not None:
        if earlier.fingerprint != idempotency.fingerprint:
            raise IdempotencyKeyReused("this Idempotency-Key was used for a request with other content")
        if isinstance(earlier, RecordedRefusal):
            raise rebuild_refusal(earlier)
        return earlier
    mark = idempotency.reference_digest
    if mark is not None and (other := view.recorded.get(mark)) is not None:
        where = other.transaction_id if isinstance(other, Entry) else None
        raise ReferenceReused(f"reference {idempotency.reference!r} is already on this member's ledger", transaction_id=where)
    return None


def rebuild_refusal(refusal: RecordedRefusal) -> GuerdonError:
    """Rebuild the error that a remembered refusal stands for, marked as a replay."""
    error = registry()[refusal.code](refusal.detail)
    error.members = refusal.members
    error.replayed = True
    return error


def _remember(
    refusal: GuerdonError, idempotency: Idempotency | None, plan: WritePlan, once: dict[bytes, Entry | RecordedRefusal]
) -> None:
    """Bind a definite business refusal to the key, so that a late retry cannot succeed by surprise."""
    if idempotency is None or refusal.replayed or not isinstance(refusal, BusinessError):
        return
    mark = idempotency.key_digest
    row = RecordedRefusal(
        id=REFUSAL + mark.hex(),
        owner=idempotency.owner,
        unique_keys=[mark],
        fingerprint=idempotency.fingerprint,
        code=refusal.code,
        detail=refusal.detail,
        members=refusal.members,
    )
    plan.refusals.append(row)
    once[mark] = row
