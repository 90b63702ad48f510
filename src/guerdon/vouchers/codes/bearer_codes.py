"""Vouchers that belong to whoever has the code: what they are, and what puts them on the ledger. Pure."""

import hashlib

from guerdon.ledger.models import COUNTED, ISSUER, Account, Lot, Posting
from guerdon.offers.models import FixedValue, Offer
from guerdon.vouchers.models import GIFT_CARD, VOUCHER, Voucher


def bearer_id(known: str) -> str:
    """The voucher that a normalised code stands for, whether or not anybody has opened it: two tills open the same one."""
    return "vch_" + hashlib.sha256(f"voucher/{known}".encode()).hexdigest()[:32]


def card_id(batch: str, number: int) -> str:
    """The gift card of this number in a batch, whatever code it gets: a worker that begins anew knows it again."""
    return "vch_" + hashlib.sha256(f"card/{batch}#{number}".encode()).hexdigest()[:32]


def bearer_voucher(
    offer: Offer, voucher_id: str, shown: str, *, batch: str, expires_at: int | None, issued_at: int, uses: int = 1
) -> Voucher:
    """A voucher of an offer's version that no member owns. Of a gift card, `uses` is what is on it."""
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


def account_of(voucher: Voucher) -> Account:
    """The voucher's own account, before anything is on it."""
    owner, _, asset = voucher.account.partition(":")
    return Account(voucher.account, owner, asset, GIFT_CARD if voucher.kind == GIFT_CARD else VOUCHER, opened_at=voucher.issued_at)


def filling_of(voucher: Voucher) -> Posting:
    """What makes a voucher good: a lot that lapses when it does."""
    lots = () if voucher.expires_at is None else (Lot(voucher.uses, expires_at=voucher.expires_at),)
    return Posting(voucher.account, voucher.uses, ISSUER if voucher.kind == GIFT_CARD else COUNTED, lots=lots)
