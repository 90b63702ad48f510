"""Views of steps. They are made of entries and of fields that never change, so that a replay returns the first result."""

from msgspec.structs import replace

from guerdon.clock import rfc3339
from guerdon.ledger.models import Account, Entry, hold_id
from guerdon.vouchers.models import Voucher, view_voucher
from guerdon.vouchers.pos.models import StepAnswer, StepView


def answer_of(voucher: Voucher, entry: Entry, code: str | None) -> StepAnswer:
    """Return the result of a step."""
    metadata = entry.metadata
    owner, _, asset = entry.account.rpartition(":")
    after = replace(
        voucher,
        state=metadata["state"],
        reserved_until=_number(metadata.get("reserved_until")),
        expires_at=_number(metadata.get("ends_at")),
    )
    account = Account(entry.account, owner, asset, "", balance=entry.balance_after, held=_held_after(entry))
    return StepAnswer(
        voucher=view_voucher(after, account, entry.at, code=code),
        step=entry.kind,
        transaction_id=entry.transaction_id,
        discount=_number(metadata.get("discount")),
        currency=metadata.get("currency"),
        reservation=_reservation(entry),
        reserved=entry.hold.size if entry.kind == "reserve" and entry.hold is not None else None,
        wallet=metadata.get("wallet"),
        loaded=-entry.amount if entry.kind == "load" else None,
        refunded=_number(metadata.get("refunded")),
        reference=_reference(voucher, entry),
        reason=entry.reason,
        created_at=rfc3339(entry.at),
    )


def step_of(voucher: Voucher, entry: Entry) -> StepView:
    """Return one entry of a voucher's history."""
    return StepView(
        id=entry.id,
        transaction_id=entry.transaction_id,
        step=entry.kind,
        amount=entry.amount,
        balance_after=entry.balance_after,
        held_after=entry.held_after,
        seq=entry.seq,
        discount=_number(entry.metadata.get("discount")),
        currency=entry.metadata.get("currency"),
        reservation=_reservation(entry),
        reference=_reference(voucher, entry),
        reason=entry.reason,
        created_at=rfc3339(entry.at),
    )


def _held_after(entry: Entry) -> int:
    """Return the held value after a step. The rest of a used reservation is released by a second entry, right after the use."""
    hold = entry.hold
    released = hold.size - hold.captured if entry.kind == "use" and hold is not None else 0
    return entry.held_after - released


def _reservation(entry: Entry) -> str | None:
    return None if entry.hold is None else hold_id(entry.account, entry.hold.seq)


def _reference(voucher: Voucher, entry: Entry) -> str | None:
    if entry.reference is None:
        return entry.metadata.get("reference")
    return entry.reference.removeprefix(f"{voucher.id}/")


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
