"""Vouchers of codes that no member owns, and the voucher that the first step of an unissued code opens. Pure.

A million codes that are never used are a million rows of `voucher_codes` and nothing else. The first step of a code inserts its voucher and
its account in the same commit. Their ids follow from the code, so two concurrent first steps open the same voucher.
"""

import hashlib

from msgspec import Struct
from msgspec.structs import replace

from guerdon.ledger.models import Account, DocumentChange, Transaction
from guerdon.offers.code_patterns import parse_pattern
from guerdon.offers.models import FixedValue, Offer
from guerdon.vouchers.codes.models import CodeBatch
from guerdon.vouchers.models import GIFT_CARD, VOUCHER_CODES, CodeRow, Voucher, account_of, filling_of, issue_evidence


class VoucherOpening(Struct, frozen=True):
    """Writes that precede the first step of a code, in its commit."""

    account: Account
    """Account of the voucher right after the issue."""
    issue: tuple[Transaction, ...]
    code: DocumentChange
    """Change that sets the voucher in the row of the code."""

    @property
    def opened(self) -> Account:
        """Account of the voucher before the issue, with balance 0."""
        return replace(self.account, balance=0, seq=0, lots=None)


class FoundVoucher(Struct, frozen=True):
    """A stored voucher, or one that its first step will open."""

    voucher: Voucher
    opening: VoucherOpening | None = None
    """None for a stored voucher."""


def open_voucher(row: CodeRow, batch: CodeBatch, offer: Offer, *, actor: str, now_ms: int) -> FoundVoucher:
    """Return the voucher of an unissued code, with the writes that open it. The stock already counts the code with its batch."""
    shown = row.id if batch.pattern is None else parse_pattern(batch.pattern).shown(row.id)
    voucher = bearer_voucher(
        offer, bearer_id(row.id), shown, batch=batch.id, expires_at=batch.expires_at, issued_at=batch.created_at
    )
    filling = filling_of(voucher)
    issued = replace(account_of(voucher), balance=voucher.uses, seq=1, lots=filling.lots or None, opened_at=now_ms)
    metadata = {"offer": offer.id, "version": str(offer.version), "voucher": voucher.id, "batch": batch.id}
    issue = Transaction("issue", (filling,), actor, metadata=metadata, evidence=issue_evidence(voucher, offer))
    return FoundVoucher(
        voucher, VoucherOpening(issued, (issue,), DocumentChange(VOUCHER_CODES, row.id, row.owner, {"voucher": voucher.id}))
    )


def bearer_id(code_id: str) -> str:
    """Return the voucher id of a normalised code. It follows from the code alone."""
    return "vch_" + hashlib.sha256(f"voucher/{code_id}".encode()).hexdigest()[:32]


def card_id(batch: str, number: int) -> str:
    """Return the voucher id of gift card `number` of a batch. It does not depend on the code, so a restarted worker finds it again."""
    return "vch_" + hashlib.sha256(f"card/{batch}#{number}".encode()).hexdigest()[:32]


def bearer_voucher(
    offer: Offer, voucher_id: str, shown: str, *, batch: str, expires_at: int | None, issued_at: int, uses: int = 1
) -> Voucher:
    """Return a voucher of an offer's version without a member. `uses` is ignored for a gift card, which holds its value."""
    card = offer.value if offer.kind == GIFT_CARD and isinstance(offer.value, FixedValue) else None
    return Voucher(
        id=voucher_id,
        owner=voucher_id,
        member=None,
        offer=offer.id,
        offer_version=offer.version,
        name=offer.name,
        kind=offer.kind,
        code=shown,
        batch=batch,
        value=offer.value,
        minimum_basket=offer.minimum_basket,
        uses=uses if card is None else card.amount,
        counted=(offer.stock_account,),
        account=f"{voucher_id}:uses.{voucher_id}" if card is None else f"{voucher_id}:{card.currency}",
        issued_at=issued_at,
        expires_at=expires_at,
    )
