"""Read models of the stored documents that a verification compares: only the fields that it reads, in the form in which they are stored."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from guerdon.database import Document
from guerdon.ledger.models import Hold, HoldChange, Lot

T = TypeVar("T", bound="StoredRow")


class StoredRow(Struct, frozen=True, kw_only=True):
    """Stored document with a text as its id."""

    id: str = field(name="_id")


class EntryRow(StoredRow, frozen=True, kw_only=True):
    """Fields of an entry that other documents are compared with."""

    owner: str
    asset: str
    kind: str
    amount: int
    counterparty: str = field(name="counter")
    actor: str
    at: int
    transaction: str | None = None
    pair: int | None = None
    lots: tuple[Lot, ...] | None = None
    hold: HoldChange | None = None
    metadata: dict[str, str] = {}
    reverses: str | None = None
    effective_at: int | None = None
    sides: tuple[str, ...] | None = None
    rate: str | None = None


ENTRY_ROW_FIELDS = tuple(each.encode_name for each in msgspec.structs.fields(EntryRow) if each.name != "id")


class AccountRow(StoredRow, frozen=True, kw_only=True):
    """Account of a voucher."""

    kind: str
    balance: int = 0
    seq: int = 0


class HoldRow(StoredRow, frozen=True, kw_only=True):
    """Document of a hold."""

    owner: str
    account: str
    asset: str
    amount: int
    captured: int
    left: int
    status: str
    expires_at: int
    created_at: int
    voucher: str | None = None
    """Set on the reservation of a voucher."""

    def difference(self, account: str, hold: Hold, status: str) -> str | None:
        """Return a description of the differences from the hold that the entries of `account` give, or None."""
        owner, _, asset = account.rpartition(":")
        compared: tuple[tuple[str, str | int, str | int], ...] = (
            ("owner", self.owner, owner),
            ("account", self.account, account),
            ("asset", self.asset, asset),
            ("amount", self.amount, hold.size),
            ("captured", self.captured, hold.captured),
            ("left", self.left, hold.left if status == "held" else 0),
            ("status", self.status, status),
            ("expires_at", self.expires_at, hold.expires_at),
        )
        differences = [f"{name} is {stored!r}, expected {expected!r}" for name, stored, expected in compared if stored != expected]
        return ", ".join(differences) or None


class ReversalRow(StoredRow, frozen=True, kw_only=True):
    """Document of the reversals of a transaction."""

    owner: str = ""
    reversed: int = 0
    """Amount that was taken back."""


class RateVersionRow(StoredRow, frozen=True, kw_only=True):
    """Version of a rate."""

    source: str
    target: str
    from_amount: int
    to_amount: int
    rounding: str


class AwardPart(Struct, frozen=True, kw_only=True):
    """Award of an event."""

    campaign: str
    version: int
    asset: str
    amount: int
    transaction_id: str | None = None
    to: str | None = None
    """Member who received the award instead of the owner of the event."""


class ReleasePart(AwardPart, frozen=True, kw_only=True):
    """Release of an award that awaited confirmation."""

    expires_at: int | None = None


class EventRow(StoredRow, frozen=True, kw_only=True):
    """Recorded event."""

    owner: str
    awards: list[AwardPart]
    releases: list[ReleasePart] | None = None


class RefusalRow(StoredRow, frozen=True, kw_only=True):
    """Stored refusal."""

    owner: str
    unique_keys: tuple[bytes] = field(name="once")


class PricePart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Price of a voucher in minor units of `asset`."""

    asset: str
    amount: int


class VoucherRow(StoredRow, frozen=True, kw_only=True):
    """Voucher. `value` and `minimum_basket` are compared as they are stored."""

    owner: str
    member: str | None
    offer: str
    offer_version: int
    name: str
    kind: str
    code: str | None = None
    number: int | None = None
    batch: str | None = None
    value: Document | None
    minimum_basket: Document | None = None
    uses: int
    price: PricePart | None = None
    transaction: str | None = None
    account: str
    expires_at: int | None = None
    state: str
    reserved_until: int | None = None
    last_use: str | None = None

    @property
    def version_id(self) -> str:
        """Id of the version of the offer that the voucher was issued under."""
        return f"{self.offer}/{self.offer_version}"


class OfferPart(Struct, frozen=True, kw_only=True):
    """Fields of a version of an offer that its vouchers repeat."""

    name: str
    kind: str
    value: Document | None
    price: PricePart | None
    minimum_basket: Document | None = None


class OfferVersionRow(StoredRow, frozen=True, kw_only=True):
    """Version of an offer."""

    offer: OfferPart


class VoucherCodeRow(StoredRow, frozen=True, kw_only=True):
    """Code of a voucher."""

    voucher: str | None = None


def decode_row(document: Document, kind: type[T]) -> T:
    """Decode a stored document.

    Raises:
        msgspec.ValidationError: the document is damaged.
    """
    return msgspec.convert(document, kind, builtin_types=(bytes,))


def decode_rows(documents: Iterable[Document], kind: type[T]) -> dict[str, T]:
    """Return the rows by id. Damaged documents are left out, so they are reported as missing."""
    rows: dict[str, T] = {}
    for document in documents:
        try:
            row: Any = decode_row(document, kind)
        except msgspec.ValidationError:
            continue
        rows[row.id] = row
    return rows
