"""Ledger commands of the steps of a voucher. Pure."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.errors import NotFound
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import Account, Command, Decision, DocumentChange, DocumentRef, Entry, Idempotency, Transaction, View
from guerdon.outbox import OUTBOX
from guerdon.permissions import MISSING_OR_FOREIGN
from guerdon.proofs import evidence_of
from guerdon.vouchers.codes.unissued_codes import VoucherOpening
from guerdon.vouchers.models import VOUCHERS, Voucher, voucher_digest
from guerdon.vouchers.pos.rules import Step, VoucherBefore, VoucherStep, require_step, status_now

COMMAND_BYTES = 4096
Row = dict[str, Any]


class FurtherTransactions(Struct, frozen=True):
    """Further transactions of the same commit, with the document changes that belong to them."""

    transactions: tuple[Transaction, ...] = ()
    changes: tuple[DocumentChange, ...] = ()


class StepRequest(Struct, frozen=True, kw_only=True):
    """A step to take, with the accounts and documents that it needs besides those of the voucher."""

    step: Step
    voucher: Voucher
    """Voucher as it was found. Only its fields that never change are used; the others are read again in the command."""
    idempotency: Idempotency
    apply: Callable[[View, VoucherBefore], VoucherStep]
    opening: VoucherOpening | None = None
    accounts: tuple[str, ...] = ()
    opens: tuple[Account, ...] = ()
    documents: tuple[DocumentRef, ...] = ()
    reason: str | None = None
    outbox_row: Row | None = None
    further: Callable[[View, VoucherBefore], FurtherTransactions] | None = None


def step_command(request: StepRequest) -> Command:
    """Return the command of one step."""
    voucher = request.voucher

    def decide(view: View) -> Decision:
        earlier = find_replay(view, request.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        before = before_of(view, request)
        require_step(before.voucher, before.status, request.step)
        step = request.apply(view, before)
        transaction = Transaction(
            request.step,
            (step.posting, *step.extra_postings),
            request.idempotency.actor,
            request.idempotency,
            request.reason,
            _metadata_of(before.voucher, step),
            step.reverses,
            evidence_of({"voucher": voucher_digest(view.documents.get((VOUCHERS, voucher.id)) or msgspec.to_builtins(voucher))}),
        )
        further = FurtherTransactions() if request.further is None else request.further(view, before)
        fields = {**msgspec.to_builtins(step.fields), "state": step.state, "reserved_until": step.reserved_until}
        inserts = [*step.inserts, *([(OUTBOX, request.outbox_row)] if request.outbox_row is not None else [])]
        opening: tuple[Transaction, ...] = ()
        opens = request.opens
        if (VOUCHERS, voucher.id) not in view.documents and request.opening is not None:
            opening, opens = request.opening.issue, (request.opening.opened, *opens)
            inserts.append((VOUCHERS, {**msgspec.to_builtins(voucher), **fields}))
            changed = request.opening.code
        else:
            changed = DocumentChange(VOUCHERS, voucher.id, voucher.owner, fields)
        changes = (*step.changes, *further.changes, changed)
        return Decision((*opening, transaction, *further.transactions), opens, tuple(inserts), changes)

    owners = {voucher.owner, *(account.partition(":")[0] for account in (voucher.account, *request.accounts))}
    documents = [DocumentRef(VOUCHERS, voucher.id, voucher.owner), *request.documents]
    return Command(
        owners=tuple(sorted(owners)),
        accounts=(voucher.account, *request.accounts),
        decide=decide,
        unique_keys=request.idempotency.unique_keys,
        documents=tuple(documents),
        idempotency=request.idempotency,
        size_bytes=COMMAND_BYTES,
    )


def before_of(view: View, request: StepRequest) -> VoucherBefore:
    """Return the voucher in the snapshot of the command.

    Raises:
        NotFound: the voucher does not exist, and the step does not open it.
    """
    document = view.documents.get((VOUCHERS, request.voucher.id))
    account = view.accounts.get(request.voucher.account)
    if document is not None and account is not None:
        voucher = msgspec.convert(document, Voucher)
    elif request.opening is not None:
        voucher, account = request.voucher, request.opening.account
    else:
        raise NotFound(MISSING_OR_FOREIGN)
    now_ms = max(view.now_ms, account.at)
    return VoucherBefore(voucher, account, now_ms, status_now(voucher, account, now_ms))


def _metadata_of(voucher: Voucher, step: VoucherStep) -> dict[str, str]:
    """Return the metadata of the entry: the voucher right after the step, from which a replay makes the first result."""
    metadata = {"voucher": voucher.id, "state": step.state, **step.metadata}
    if step.reserved_until is not None:
        metadata["reserved_until"] = str(step.reserved_until)
    if step.ends_at is not None:
        metadata["ends_at"] = str(step.ends_at)
    return metadata


def key_entry(entries: tuple[Entry, ...]) -> Entry:
    """Return the entry of a step that has the idempotency key."""
    return next(entry for entry in entries if entry.key is not None)
