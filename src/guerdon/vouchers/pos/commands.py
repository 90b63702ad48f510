"""The steps at the till, put together as commands for the ledger. Pure."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.errors import NotFound
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import Account, Command, Decision, DocumentChange, DocumentRef, Entry, Idempotency, Transaction, View
from guerdon.outbox import OUTBOX
from guerdon.permissions import NOBODYS
from guerdon.vouchers.codes.unissued_codes import VoucherOpening
from guerdon.vouchers.models import VOUCHERS, Voucher
from guerdon.vouchers.pos.rules import Step, VoucherBefore, VoucherStep, require_step, status_now

COMMAND_BYTES = 4096
Row = dict[str, Any]


class ExtraPostings(Struct, frozen=True):
    """Further transactions of the same commit, and the documents that count them."""

    transactions: tuple[Transaction, ...] = ()
    changes: tuple[DocumentChange, ...] = ()


class StepRequest(Struct, frozen=True, kw_only=True):
    """A step that somebody asks for, and what it may touch besides the voucher's account."""

    step: Step
    voucher: Voucher
    """As it was found: what it is for ever is true; what changes is read again."""
    idempotency: Idempotency
    move: Callable[[View, VoucherBefore], VoucherStep]
    opening: VoucherOpening | None = None
    accounts: tuple[str, ...] = ()
    opens: tuple[Account, ...] = ()
    documents: tuple[DocumentRef, ...] = ()
    reason: str | None = None
    row: Row | None = None
    """Of the outbox."""
    besides: Callable[[View, VoucherBefore], ExtraPostings] | None = None


def step_command(asked: StepRequest) -> Command:
    """One step with its own outcome."""
    voucher = asked.voucher

    def decide(view: View) -> Decision:
        earlier = find_replay(view, asked.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        before = before_of(view, asked)
        require_step(before.voucher, before.status, asked.step)
        move = asked.move(view, before)
        step = Transaction(
            asked.step,
            (move.posting, *move.more),
            asked.idempotency.actor,
            asked.idempotency,
            asked.reason,
            _told(before.voucher, move),
            move.reverses,
        )
        besides = ExtraPostings() if asked.besides is None else asked.besides(view, before)
        fields = {**msgspec.to_builtins(move.fields), "state": move.state, "reserved_until": move.reserved_until}
        inserts = [*move.inserts, *([(OUTBOX, asked.row)] if asked.row is not None else [])]
        first: tuple[Transaction, ...] = ()
        opens = asked.opens
        if (VOUCHERS, voucher.id) not in view.documents and asked.opening is not None:
            first, opens = asked.opening.issue, (asked.opening.opened, *opens)
            inserts.append((VOUCHERS, {**msgspec.to_builtins(voucher), **fields}))
            changed = asked.opening.code
        else:
            changed = DocumentChange(VOUCHERS, voucher.id, voucher.owner, fields)
        changes = (*move.changes, *besides.changes, changed)
        return Decision((*first, step, *besides.transactions), opens, tuple(inserts), changes)

    owners = {voucher.owner, *(account.partition(":")[0] for account in (voucher.account, *asked.accounts))}
    documents = [DocumentRef(VOUCHERS, voucher.id, voucher.owner), *asked.documents]
    return Command(
        owners=tuple(sorted(owners)),
        accounts=(voucher.account, *asked.accounts),
        decide=decide,
        unique_keys=asked.idempotency.unique_keys,
        documents=tuple(documents),
        idempotency=asked.idempotency,
        size_bytes=COMMAND_BYTES,
    )


def before_of(view: View, asked: StepRequest) -> VoucherBefore:
    """The voucher in the snapshot of the command.

    Raises:
        NotFound: it is not there, and nothing is to open it.
    """
    document = view.documents.get((VOUCHERS, asked.voucher.id))
    account = view.accounts.get(asked.voucher.account)
    if document is not None and account is not None:
        voucher = msgspec.convert(document, Voucher)
    elif asked.opening is not None:
        voucher, account = asked.voucher, asked.opening.account
    else:
        raise NotFound(NOBODYS)
    now_ms = max(view.now_ms, account.at)
    return VoucherBefore(voucher, account, now_ms, status_now(voucher, account, now_ms))


def _told(voucher: Voucher, move: VoucherStep) -> dict[str, str]:
    """What the entry says of the voucher right after it, so that a repetition gets the first answer."""
    told = {"voucher": voucher.id, "state": move.state, **move.told}
    if move.reserved_until is not None:
        told["reserved_until"] = str(move.reserved_until)
    if move.ends_at is not None:
        told["ends_at"] = str(move.ends_at)
    return told


def key_entry(entries: tuple[Entry, ...]) -> Entry:
    """Of all entries of a step, the one that stands for it."""
    return next(entry for entry in entries if entry.key is not None)
