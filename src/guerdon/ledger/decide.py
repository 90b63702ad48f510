"""Pure decision logic: commands, account state and a time in; entries, documents and results out."""

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
from guerdon.ledger import expiry, lots
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
    entry_id,
    transaction_id,
)
from guerdon.ledger.references import attempt_of
from guerdon.money import BALANCE_CEILING, AmountText, ScaleOf, scale_unknown

Documents = dict[tuple[str, str], dict[str, Any]]


class WritePlan:
    """All that one database transaction writes, and the result of each command, in order."""

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
        """Add fields to set; a document that the same batch inserts gets them at once."""
        document_key = (change.collection, change.id)
        current = documents.get(document_key)
        documents[document_key] = {**(current or {"_id": change.id, "owner": change.owner}), **change.fields}
        for index, document in enumerate(self.inserts.get(change.collection, ())):
            if document["_id"] == change.id:
                self.inserts[change.collection][index] = documents[document_key]
                return
        earlier = self.changes.get(document_key)
        # The first change has the count that was read.
        self.changes[document_key] = (
            change if earlier is None else msgspec.structs.replace(earlier, fields={**earlier.fields, **change.fields})
        )


class State(Struct):
    """Working copy of the snapshot, updated by each command of a batch."""

    accounts: dict[str, Account]
    recorded: dict[bytes, Entry | RecordedRefusal]
    documents: Documents
    now_ms: int
    calendar: Calendar
    expired: dict[str, AccountNow] = {}
    """Expiry to book first on an account that changes."""


def decide_batch(
    commands: Sequence[Command[Any]],
    found: tuple[dict[str, Account], dict[bytes, Entry | RecordedRefusal], Documents],
    now_ms: int,
    calendar: Calendar,
    *,
    scale_of: ScaleOf = scale_unknown,
) -> WritePlan:
    """Decide `commands` one after another; each sees the effects of those before it. A refused command changes nothing.

    `found` (accounts by id, entries and refusals by unique key, documents by collection and id) is updated in place. `scale_of` returns the
    scale of an asset; the details of refusals are written with it before they are remembered.
    """
    accounts, recorded, documents = found
    state = State(accounts, recorded, documents, now_ms, calendar)
    for account in accounts.values():
        if account.lots is not None:
            current = expiry.bring_up_to(account, now_ms, calendar)
            accounts[account.id] = current.account
            if current.entries:
                state.expired[account.id] = current
    plan = WritePlan()
    view = View(accounts, recorded, documents, now_ms)
    for position, command in enumerate(commands):
        view.position = position
        try:
            result = apply_decision(command.decide(view), plan, state)
        except GuerdonError as refusal:
            # The traceback refers to this frame, whose plan refers to the error: a reference cycle around all that was read.
            result = refusal.with_traceback(None)
            refusal.write_amounts(scale_of)
            _remember_refusal(refusal, command.idempotency, plan, recorded)
        plan.results.append(result)
    return plan


def apply_decision(decision: Decision[T], plan: WritePlan, state: State) -> CommandOutcome[T]:
    """Apply one decision to the working state, or raise and change nothing."""
    if decision.replayed:
        return CommandOutcome(decision.replayed, decision.value, replayed=True)
    scratch: dict[str, Account] = {}
    opened: dict[str, Account] = {}
    for account in decision.opens:
        if account.id not in state.accounts:
            opened[account.id] = account
    entries: list[Entry] = []
    new_keys: set[bytes] = set()

    def lookup(account_id: str) -> Account:
        account = scratch.get(account_id) or state.accounts.get(account_id) or opened.get(account_id)
        if account is None:
            raise NotFound("the wallet does not exist")
        return account

    for transaction in decision.transactions:
        try:
            idempotency = transaction.idempotency
            attempt = None
            if idempotency is not None and idempotency.reference is not None:
                attempt = attempt_of(idempotency, state.recorded, state.documents, state.now_ms)
            posted = post_transaction(transaction, lookup, scratch, state.now_ms, state.calendar, attempt=attempt)
            unique_keys: set[bytes] = set()
            for entry in posted:
                unique_keys.update(entry.unique_keys or ())
            if not unique_keys.isdisjoint(new_keys):
                if transaction.idempotency is not None and transaction.idempotency.key_digest not in new_keys:
                    raise ReferenceReused("a reference occurs twice in the request")
                raise IdempotencyKeyReused("a key occurs twice in the request")
        except GuerdonError as error:
            error.subject = transaction
            raise
        new_keys |= unique_keys
        entries.extend(posted)

    plan.opened.update(opened)
    if state.expired:
        _book_expired((*scratch, *decision.accounts_to_expire), plan, state)
    state.accounts.update(opened)
    state.accounts.update(scratch)
    plan.moved.update(scratch)
    plan.entries.extend(entries)
    for entry in entries:
        for unique_key in entry.unique_keys or ():
            state.recorded[unique_key] = entry
    for collection, document in decision.inserts:
        plan.inserts[collection].append(document)
        state.documents[collection, document["_id"]] = document
    for change in decision.changes:
        plan.change(change, state.documents)
    return CommandOutcome(tuple(entries), decision.value)


def _book_expired(accounts: Sequence[str], plan: WritePlan, state: State) -> None:
    """Add the expiry entries of these accounts to the plan, before their other entries."""
    for account_id in accounts:
        current = state.expired.pop(account_id, None)
        if current is not None:
            plan.entries.extend(current.entries)
            plan.moved[account_id] = current.account
            for change in current.changes:
                plan.change(change, state.documents)


def post_transaction(
    transaction: Transaction,
    lookup: Callable[[str], Account],
    scratch: dict[str, Account],
    now_ms: int,
    calendar: Calendar,
    *,
    attempt: int | None = None,
) -> list[Entry]:
    """Return the entries of one transaction, and put its changed accounts into `scratch`. `attempt` is that of its reference.

    Raises:
        InsufficientFunds, BalanceLimit, LimitReached, CaptureLimit, WalletFrozen, WalletClosed, WalletNotEmpty: A posting violates a
            guard of its account.
    """
    entries: list[Entry] = []
    first_id: str | None = None
    for index, posting in enumerate(transaction.postings):
        account = lookup(posting.account)
        details = _entry_details(transaction, index, (first_id, attempt), lookup)
        if first_id is None:
            first_id = transaction_id(account.id, account.seq + 1)
        taken = posting.keeps_dates and entries[-1].lots
        dated = msgspec.structs.replace(posting, lots=lots.negated(taken)) if taken else posting
        for moved, entry in _post(account, dated, details, now_ms, calendar):
            scratch[account.id] = moved
            entries.append(entry)
    return entries


def _entry_details(
    transaction: Transaction, index: int, ids: tuple[str | None, int | None], lookup: Callable[[str], Account]
) -> EntryDetails:
    """Return the details of the entry of a posting, given by its index.

    `ids` are the id of the transaction, which is None for its first entry, and the attempt of its reference, which only the first entry carries.
    """
    first_id, attempt = ids
    idempotency, posting = transaction.idempotency, transaction.postings[index]
    pair = None
    if not posting.counterparty.startswith(SYSTEM):
        # The entry of the counterparty is the newest of its account, or will be.
        mirror = (posting.counterparty, posting.account)
        posted = any((earlier.account, earlier.counterparty) == mirror for earlier in transaction.postings[:index])
        pair = lookup(posting.counterparty).seq + (0 if posted else 1)
    return EntryDetails(
        kind=transaction.kind,
        actor=transaction.actor,
        transaction=first_id,
        idempotency=idempotency if first_id is None else None,
        reference=idempotency.reference if idempotency else None,
        reason=transaction.reason,
        metadata=transaction.metadata,
        pair=pair,
        reverses=transaction.reverses,
        attempt=attempt if first_id is None else None,
        evidence=transaction.evidence if first_id is None else None,
        effective_at=transaction.effective_at,
        sides=_sides_of(transaction, lookup) if transaction.lists_sides and first_id is None else None,
        rate=transaction.rate,
    )


def _sides_of(transaction: Transaction, lookup: Callable[[str], Account]) -> tuple[str, ...]:
    """Return the ids that the entries after the first one will have: each posting makes one entry."""
    seqs: dict[str, int] = {}
    for posting in transaction.postings:
        seqs[posting.account] = seqs.get(posting.account, lookup(posting.account).seq) + 1
    ids: list[str] = []
    for posting in reversed(transaction.postings):
        ids.append(entry_id(posting.account, seqs[posting.account]))
        seqs[posting.account] -= 1
    return tuple(reversed(ids))[1:]


def _post(
    account: Account, posting: Posting, details: EntryDetails, now_ms: int, calendar: Calendar
) -> list[tuple[Account, Entry]]:
    """Return the entries of one posting, each with the account after it."""
    guard(account, posting)
    now_ms = max(now_ms, account.at)
    if posting.terms is not None:
        return [_set_rules(account, posting, details, now_ms)]
    if posting.confirms is not None:
        return [_confirm(account, posting, posting.confirms, details, now_ms)]
    if posting.hold is not None and posting.hold.seq:
        return _end_hold(account, posting, details, now_ms, calendar)
    if account.limits is not None:
        account, details = _count_spending(account, posting, details, now_ms, calendar)
    if posting.hold is not None:
        return [_make_hold(account, posting, details, now_ms)]
    if posting.amount < 0:
        if account.lots:
            first = lots.as_of(posting.lots, now_ms) if posting.lots else ()
            taken = lots.take(account.lots, account.undated_balance, -posting.amount, first)
            details = msgspec.structs.replace(details, lots=lots.negated(taken))
    elif posting.lots:
        if any(lot.awaits_confirmation and (lot.source == "paid" or lot.expires_at is None) for lot in posting.lots):
            raise InvalidState("only promotional value with an expiry date can await confirmation", status_now=account.status)
        details = msgspec.structs.replace(
            details,
            lots=lots.give(
                posting.lots, account.undated_balance, posting.amount, now_ms, back_at_ms=now_ms if details.reverses else 0
            ),
        )
    moved = expiry.append(account, posting, details, now_ms)
    if (
        posting.amount > 0
        and moved[0].lots
        and len(moved[0].lots) > max(LOTS_MAX, len(account.lots or ()))
        and not details.reverses
    ):
        raise LimitReached(f"the wallet already holds {LOTS_MAX} lots of different dates", limit=LOTS_MAX)
    return [moved]


def _confirm(
    account: Account, posting: Posting, confirmation: Confirmation, details: EntryDetails, now_ms: int
) -> tuple[Account, Entry]:
    """Make value that awaits confirmation available with its own expiry date; a debt is repaid from it first.

    Raises:
        InvalidState: Less value awaits confirmation, or the expiry date has passed.
        LimitReached: The wallet has no room for another lot.
    """
    lot, expires_at = confirmation.lot, confirmation.expires_at
    account_lots = account.lots or ()
    waiting = lots.total(each for each in account_lots if each.dates == lot.dates)
    if not lot.awaits_confirmation or not 0 < lot.amount <= waiting or (expires_at is not None and expires_at <= now_ms):
        waiting = waiting if lot.awaits_confirmation else 0
        raise InvalidState(
            AmountText("{waiting} awaiting confirmation, {amount} to confirm", account.asset, waiting=waiting, amount=lot.amount),
            status_now=account.status,
        )
    spendable = msgspec.structs.replace(lot, available_at=None, expires_at=expires_at)
    arrived = lots.give((spendable,), account.undated_balance, lot.amount, now_ms)
    moved = expiry.append(
        account, posting, msgspec.structs.replace(details, lots=lots.merge([*lots.negated((lot,)), *arrived])), now_ms
    )
    if len(moved[0].lots or ()) > max(LOTS_MAX, len(account_lots)):
        raise LimitReached(f"the wallet already holds {LOTS_MAX} lots of different dates", limit=LOTS_MAX)
    return moved


def _count_spending(
    account: Account, posting: Posting, details: EntryDetails, now_ms: int, calendar: Calendar
) -> tuple[Account, EntryDetails]:
    """Count spent or returned value against the limits.

    Raises:
        LimitReached: The amount exceeds the rest of the daily or monthly limit.
    """
    change = (-posting.restores_spending[0], -posting.restores_spending[1])
    if posting.spends:
        amount = posting.hold.amount if posting.hold is not None else -posting.amount
        limits.require_within(account, amount, calendar, now_ms)
        change = (amount, amount)
    if change == (0, 0):
        return account, details
    spent = limits.counted(account, change, calendar, now_ms)
    return msgspec.structs.replace(account, spent=spent), msgspec.structs.replace(details, spent=change)


def _make_hold(account: Account, posting: Posting, details: EntryDetails, now_ms: int) -> tuple[Account, Entry]:
    assert posting.hold is not None
    amount, expires_at = posting.hold.amount, posting.hold.expires_at
    if len(account.holds) >= HOLDS_MAX:
        raise LimitReached(f"the wallet already has {HOLDS_MAX} active holds", limit=HOLDS_MAX)
    taken = lots.take(account.lots or (), account.undated_balance, amount)
    counted_at = None if details.spent is None else now_ms
    hold = Hold(account.seq + 1, amount, amount, expires_at, counted_at=counted_at, lots=taken)
    details = msgspec.structs.replace(
        details, lots=lots.negated(taken), hold=HoldChange(hold.seq, amount, amount, amount, expires_at, counted_at=counted_at)
    )
    return expiry.append(msgspec.structs.replace(account, holds=(*account.holds, hold)), posting, details, now_ms)


def _end_hold(
    account: Account, posting: Posting, details: EntryDetails, now_ms: int, calendar: Calendar
) -> list[tuple[Account, Entry]]:
    """Capture a hold in part or whole (`posting.amount` is negative), or release it."""
    assert posting.hold is not None
    hold = next((hold for hold in account.holds if hold.seq == posting.hold.seq), None)
    if hold is None:
        raise NotFound("the hold does not exist")
    steps: list[tuple[Account, Entry]] = []
    if posting.amount:
        captured = -posting.amount
        if captured > hold.left:
            wording = AmountText("the hold has {left} left, {needed} requested", account.asset, left=hold.left, needed=captured)
            raise CaptureLimit(wording, left=hold.left, needed=captured)
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
        details = msgspec.structs.replace(details, lots=lots.negated(taken), hold=change)
        steps.append(expiry.append(msgspec.structs.replace(account, holds=rest), posting, details, now_ms))
        if not ends or left.left == 0:
            return steps
        account, hold = steps[0][0], left
        details = msgspec.structs.replace(
            details, kind="void", transaction=steps[0][1].transaction_id, idempotency=None, evidence=None
        )
    steps.append(expiry.release(account, hold, details, now_ms=now_ms, calendar=calendar))
    return steps


def _set_rules(account: Account, posting: Posting, details: EntryDetails, now_ms: int) -> tuple[Account, Entry]:
    rules = posting.terms
    assert rules is not None
    account = msgspec.structs.replace(
        account,
        status=rules.status or account.status,
        minimum_balance=account.minimum_balance if rules.minimum_balance is None else rules.minimum_balance,
        ceiling=account.ceiling if rules.ceiling is None else rules.ceiling,
        limits=account.limits if rules.limits is None else rules.limits if rules.limits != Limits() else None,
    )
    return expiry.append(account, posting, msgspec.structs.replace(details, terms=rules), now_ms)


def guard(account: Account, posting: Posting) -> None:
    """Refuse a posting that violates the status, minimum balance or ceiling of its account.

    Raises:
        WalletFrozen, WalletClosed: The account is not open.
        WalletNotEmpty: The account is to be closed and is not empty.
        InsufficientFunds: The amount exceeds the available value.
        BalanceLimit: The balance would rise above the ceiling, or the debt beyond its limit.
    """
    if account.status != "open":
        _guard_status(account, posting)
    if posting.terms is not None:
        if posting.terms.status == "closed" and (account.balance or account.held):
            raise WalletNotEmpty(
                AmountText("the wallet still holds {balance}", account.asset, balance=account.balance),
                wallet=account.id,
                balance=account.balance,
                held=account.held,
            )
        return
    hold = posting.hold
    needed = -posting.amount if hold is None else 0 if hold.seq else hold.amount
    if needed > 0:
        available = account.spendable
        if posting.lots and account.lots:
            # The lots to take first may include pending value.
            pending = {lot.dates: lot.amount for lot in account.lots if lot.available_at is not None}
            available += sum(min(pending.get(lot.dates, 0), lot.amount) for lot in posting.lots)
        if available < needed and not posting.below_minimum:
            raise InsufficientFunds(
                AmountText("{available} available, {needed} needed", account.asset, available=max(available, 0), needed=needed),
                asset=account.asset,
                available=max(available, 0),
                needed=needed,
                wallet=account.id,
            )
        if account.balance + posting.amount < -BALANCE_CEILING:
            raise BalanceLimit("the debt would exceed the limit of the account", asset=account.asset)
    elif account.balance + posting.amount > account.ceiling and posting.amount > 0:
        wording = AmountText("the balance would exceed {ceiling}", account.asset, ceiling=account.ceiling)
        raise BalanceLimit(wording, asset=account.asset)


def _guard_status(account: Account, posting: Posting) -> None:
    """Refuse any posting on a closed account; on a frozen one allow only changes of rules and the release of a hold."""
    if account.status == "closed":
        raise WalletClosed("the wallet is closed", wallet=account.id)
    voids_hold = posting.hold is not None and posting.hold.seq and not posting.amount
    if posting.terms is None and not voids_hold:
        raise WalletFrozen("the wallet is frozen", wallet=account.id)


def find_replay(view: View, idempotency: Idempotency) -> Entry | None:
    """Return the entry of an earlier run of the same command, or None for a new one.

    Raises:
        IdempotencyKeyReused: The key belongs to another request.
        ReferenceReused: A transaction of another command has the reference and stands.
        GuerdonError: The refusal of the first run.
    """
    earlier = view.recorded.get(idempotency.key_digest)
    if earlier is not None:
        if earlier.fingerprint != idempotency.fingerprint:
            raise IdempotencyKeyReused("the Idempotency-Key was used before, for a request with other content")
        if isinstance(earlier, RecordedRefusal):
            raise rebuild_refusal(earlier)
        return earlier
    if idempotency.reference is not None:
        attempt_of(idempotency, view.recorded, view.documents, view.now_ms)
    return None


def rebuild_refusal(refusal: RecordedRefusal) -> GuerdonError:
    """Return the error of a recorded refusal, marked as a replay."""
    error = registry()[refusal.code](refusal.detail)
    error.members = refusal.members
    error.replayed = True
    return error


def _remember_refusal(
    refusal: GuerdonError, idempotency: Idempotency | None, plan: WritePlan, recorded: dict[bytes, Entry | RecordedRefusal]
) -> None:
    """Record a business refusal under its key, so that a late retry cannot succeed."""
    if idempotency is None or refusal.replayed or not isinstance(refusal, BusinessError):
        return
    key_digest = idempotency.key_digest
    remembered = RecordedRefusal(
        id=REFUSAL + key_digest.hex(),
        owner=idempotency.owner,
        unique_keys=[key_digest],
        fingerprint=idempotency.fingerprint,
        code=refusal.code,
        detail=refusal.detail,
        members=refusal.members,
    )
    plan.refusals.append(remembered)
    recorded[key_digest] = remembered
