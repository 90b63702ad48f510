"""The pure heart: a batch of commands, the accounts they touch and the time go in; entries and answers come out."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from guerdon.errors import (
    BalanceLimit,
    BusinessError,
    GuerdonError,
    IdempotencyKeyReused,
    InsufficientFunds,
    NotFound,
    ReferenceReused,
    WalletFrozen,
    registry,
)
from guerdon.ledger.models import (
    REFUSAL,
    Account,
    Command,
    Decision,
    Entry,
    Idempotency,
    Outcome,
    Posting,
    Refusal,
    Transaction,
    Verdict,
    View,
    entry_hash,
    entry_id,
)

_ZERO_HASH = bytes(32)


class Plan:
    """Everything one database transaction is to write, and the verdict on each command, in their order."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.entries: list[Entry] = []
        self.opened: dict[str, Account] = {}
        self.moved: dict[str, Account] = {}
        self.refusals: list[Refusal] = []
        self.inserts: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    @property
    def writes(self) -> bool:
        return bool(self.entries or self.opened or self.refusals or self.inserts)


def decide_batch(
    commands: Sequence[Command],
    accounts: dict[str, Account],
    once: dict[bytes, Entry | Refusal],
    documents: dict[tuple[str, str], dict[str, Any]],
    now_ms: int,
) -> Plan:
    """Decide `commands` one after another; each sees what the ones before it did. A refused one changes nothing.

    The dictionaries are working copies of the snapshot and are moved on.
    """
    plan = Plan()
    view = View(accounts, once, documents, now_ms)
    for command in commands:
        try:
            decision = command.decide(view)
            verdict = _settle_decision(decision, plan, (accounts, once, documents), now_ms)
        except GuerdonError as refusal:
            verdict = refusal
            _remember(refusal, command.idempotency, plan, once)
        plan.verdicts.append(verdict)
    return plan


def _settle_decision(
    decision: Decision,
    plan: Plan,
    state: tuple[dict[str, Account], dict[bytes, Entry | Refusal], dict[tuple[str, str], dict[str, Any]]],
    now_ms: int,
) -> Outcome:
    """Apply one decision to the working state, wholly or (by raising) not at all."""
    if decision.recalled:
        return Outcome(decision.recalled, decision.value, replayed=True)
    accounts, once, documents = state
    scratch: dict[str, Account] = {}
    opened = {account.id: account for account in decision.opens if account.id not in accounts}
    entries: list[Entry] = []
    fresh: set[bytes] = set()

    def lookup(account_id: str) -> Account:
        account = scratch.get(account_id) or accounts.get(account_id) or opened.get(account_id)
        if account is None:
            raise NotFound("there is no such wallet")
        return account

    for transaction in decision.transactions:
        try:
            settled = settle(transaction, lookup, scratch, now_ms)
            marks = {mark for entry in settled for mark in entry.once or ()}
            if not marks.isdisjoint(fresh):
                if transaction.idempotency is not None and transaction.idempotency.key_mark not in fresh:
                    raise ReferenceReused("a reference is used twice in one request")
                raise IdempotencyKeyReused("a key is used twice in one request")
        except GuerdonError as error:
            error.subject = transaction.id
            raise
        fresh |= marks
        entries.extend(settled)

    accounts.update(opened)
    accounts.update(scratch)
    plan.opened.update(opened)
    plan.moved.update(scratch)
    plan.entries.extend(entries)
    for entry in entries:
        for mark in entry.once or ():
            once[mark] = entry
    for collection, document in decision.inserts:
        plan.inserts[collection].append(document)
        documents[collection, document["_id"]] = document
    return Outcome(tuple(entries), decision.value)


def settle(transaction: Transaction, lookup: Callable[[str], Account], scratch: dict[str, Account], now_ms: int) -> list[Entry]:
    """Turn one transaction into entries, moving its accounts on in `scratch`.

    Raises:
        InsufficientFunds, BalanceLimit, WalletFrozen: a posting breaks a guard of its account.
    """
    idempotency = transaction.idempotency
    entries: list[Entry] = []
    for posting in transaction.postings:
        account = lookup(posting.account)
        guard(account, posting)
        first = idempotency if not entries else None
        entry = Entry(
            id=entry_id(account.id, account.seq + 1),
            owner=account.owner,
            asset=account.asset,
            transaction=transaction.id,
            kind=transaction.kind,
            amount=posting.amount,
            balance_after=account.balance + posting.amount,
            held_after=account.held,
            counter=posting.counter,
            actor=transaction.actor,
            at=now_ms,
            prev=account.head,
            hash=_ZERO_HASH,
            reason=transaction.reason,
            reference=idempotency.reference if idempotency else None,
            key=first.key if first else None,
            fingerprint=first.fingerprint if first else None,
            metadata=transaction.metadata,
            once=list(first.marks) if first else None,
        )
        # The entry is not published yet; this is cheaper than building it twice.
        msgspec.structs.force_setattr(entry, "hash", entry_hash(entry))
        scratch[account.id] = msgspec.structs.replace(account, balance=entry.balance_after, seq=account.seq + 1, head=entry.hash)
        entries.append(entry)
    return entries


def guard(account: Account, posting: Posting) -> None:
    """Refuse a posting that breaks its account's status, floor or ceiling.

    Raises:
        WalletFrozen: the account is not open.
        InsufficientFunds: it would leave less than the floor available.
        BalanceLimit: it would rise above the ceiling.
    """
    if account.status != "open":
        raise WalletFrozen(f"the wallet is {account.status}", wallet=account.id)
    if posting.amount < 0:
        spendable = account.available - account.floor
        if spendable + posting.amount < 0 and not posting.below_floor:
            raise InsufficientFunds(
                f"{-posting.amount} {account.asset} are needed, {max(spendable, 0)} are available",
                asset=account.asset,
                available=max(spendable, 0),
                needed=-posting.amount,
            )
        if account.balance + posting.amount < -account.ceiling:
            raise BalanceLimit("the debt would pass the limit of the account", asset=account.asset)
    elif account.balance + posting.amount > account.ceiling:
        raise BalanceLimit(f"the balance would pass {account.ceiling}", asset=account.asset)


def recall(view: View, idempotency: Idempotency) -> Entry | None:
    """Return the entry that an earlier run of this very command made, or None when it is new.

    Raises:
        IdempotencyKeyReused: the key belongs to another request.
        ReferenceReused: another command has used the reference.
        GuerdonError: the refusal that the first run ended with.
    """
    earlier = view.once.get(idempotency.key_mark)
    if earlier is not None:
        if earlier.fingerprint != idempotency.fingerprint:
            raise IdempotencyKeyReused("this Idempotency-Key was used for a request with other content")
        if isinstance(earlier, Refusal):
            raise refused_before(earlier)
        return earlier
    mark = idempotency.reference_mark
    if mark is not None and (other := view.once.get(mark)) is not None:
        where = other.transaction if isinstance(other, Entry) else None
        raise ReferenceReused(f"reference {idempotency.reference!r} is already on this member's ledger", transaction_id=where)
    return None


def refused_before(refusal: Refusal) -> GuerdonError:
    """Rebuild the error that a remembered refusal stands for, marked as a replay."""
    error = registry()[refusal.code](refusal.detail)
    error.members = refusal.members
    error.replayed = True
    return error


def _remember(refusal: GuerdonError, idempotency: Idempotency | None, plan: Plan, once: dict[bytes, Entry | Refusal]) -> None:
    """Bind a definite business refusal to the key, so that a late retry cannot succeed by surprise."""
    if idempotency is None or refusal.replayed or not isinstance(refusal, BusinessError):
        return
    mark = idempotency.key_mark
    row = Refusal(
        id=REFUSAL + mark.hex(),
        owner=idempotency.owner,
        once=[mark],
        fingerprint=idempotency.fingerprint,
        code=refusal.code,
        detail=refusal.detail,
        members=refusal.members,
    )
    plan.refusals.append(row)
    once[mark] = row
