"""Wire and stored shapes of code batches: codes that are generated, imported or shared."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.offers.models import CodePattern
from guerdon.types import CodeText, PageQuery

CODE_BATCHES, STAGED_CODES = "voucher_batches", "staged_codes"
INDEXES: dict[str, list[IndexModel]] = {
    CODE_BATCHES: [
        IndexModel([("owner", 1), ("_id", 1)], name="owner"),
        IndexModel([("open", 1), ("_id", 1)], name="open", partialFilterExpression={"open": True}),
    ],
    STAGED_CODES: [],
}
STAGED_EACH = 10_000
"""Imported codes in one staged document, well below the size limit of a document."""
CODES_MAX, CARDS_MAX = 1_000_000, 10_000
"""Codes of one batch, and gift cards of one batch. Each gift card has an account, and its money is owed from its issue."""

BatchKind = Literal["generate", "import", "shared"]
BatchStatus = Literal["running", "done", "failed", "cancelled"]


# --- stored ---------------------------------------------------------------------------------------------------------


class CodeBatch(Struct, frozen=True, kw_only=True):
    """Codes that become valid together, when all of them exist."""

    id: str = field(name="_id")
    owner: str
    """The offer."""
    kind: BatchKind
    status: BatchStatus
    open: bool
    """True while a worker has to generate codes or clean up."""
    count: int = 1
    """Number of decisions on the batch, by which concurrent ones are detected."""
    offer_version: int
    """Version of the offer that its vouchers have."""
    expires_at: int | None
    """Expiry of its vouchers."""
    wanted: int
    made: int = 0
    cards: bool = False
    """True for gift cards, each of which is on the ledger as soon as it exists."""
    pattern: str | None = None
    code: str | None = None
    """Shared code as it is shown."""
    voucher: str | None = None
    """Voucher of a shared code."""
    first_number: int | None = None
    """Number of the first code in the offer's pool, once the import has begun."""
    detail: str | None = None
    """Reason of a failure."""
    created_at: int
    created_by: str
    ended_at: int | None = None


def as_begun(batch: CodeBatch) -> CodeBatch:
    """Return the batch as it began, which is the result of a repeated request."""
    if batch.kind == "shared":
        return batch
    return msgspec.structs.replace(batch, status="running", made=0, detail=None, ended_at=None)


def part_id(batch: str, part: int) -> str:
    return f"{batch}/{part:04d}"


class StagedCodes(Struct, frozen=True, kw_only=True):
    """Part of an imported file, kept until its codes are in the pool."""

    id: str = field(name="_id")
    """`{batch}/{part}` with four digits."""
    owner: str
    """The offer."""
    codes: list[str]
    """Codes as they are shown."""


# --- wire -----------------------------------------------------------------------------------------------------------


class CodesCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A batch of secret codes to generate."""

    count: Annotated[int, Meta(ge=1, le=CODES_MAX, examples=[1000])]
    """Number of codes; at most 10,000 for gift cards."""
    pattern: CodePattern | None = None
    """Pattern of the codes. Null for the pattern of the offer."""


class SharedCodeCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A code that many members can use."""

    code: CodeText
    """The code. Case, spaces and hyphens do not matter when it is entered."""
    uses: Annotated[int, Meta(ge=1, le=10**9, examples=[500])]
    """Total number of uses."""


class BatchView(Struct, frozen=True):
    """A code batch. Its codes can be used and exported when its status is `done`."""

    id: str
    """Batch id."""
    offer: str
    """Id of the offer."""
    offer_version: int
    """Version of the offer that the vouchers of the batch have."""
    kind: BatchKind
    """Kind of the batch."""
    status: BatchStatus
    """Status of the batch."""
    wanted: int
    """Number of codes that the batch will have."""
    made: int
    """Number of codes that exist now."""
    pattern: str | None
    """Pattern of generated codes. Null for other kinds."""
    code: str | None
    """Shared code. Null for other kinds."""
    voucher: str | None
    """Id of the voucher of a shared code. Null for other kinds."""
    detail: str | None
    """Reason of a failure. Null unless the status is `failed`."""
    expires_at: str | None
    """Expiry of the vouchers, RFC 3339 in UTC. Null for vouchers that do not expire."""
    created_at: str
    """Time at which the batch was created, RFC 3339 in UTC."""
    ended_at: str | None
    """Time at which the batch was done, failed or was cancelled, RFC 3339 in UTC. Null while it runs."""


class BatchPage(Struct, frozen=True):
    """A page of code batches, newest first."""

    items: list[BatchView]
    """Batches of the page."""
    next_cursor: str | None
    """Cursor of the next page. Null on the last page."""


class BatchQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Page of a list of code batches."""


class SheetQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Page of a printable sheet."""

    codes: Annotated[int, Meta(ge=1, le=60)] = 30
    """Number of codes on the page."""
    place: Annotated[str, Meta(max_length=200)] | None = None
    """Position of the page, from the `Link` header of the page before it. Null for the first page."""


class PictureQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Size of a QR code."""

    scale: Annotated[int, Meta(ge=1, le=20)] = 8
    """Size of a module in pixels, of which 96 are an inch in print."""
    border: Annotated[int, Meta(ge=0, le=10)] = 4
    """Width of the white border in modules."""


def view_batch(batch: CodeBatch) -> BatchView:
    return BatchView(
        id=batch.id,
        offer=batch.owner,
        offer_version=batch.offer_version,
        kind=batch.kind,
        status=batch.status,
        wanted=batch.wanted,
        made=batch.made,
        pattern=batch.pattern,
        code=batch.code,
        voucher=batch.voucher,
        detail=batch.detail,
        expires_at=optional_rfc3339(batch.expires_at),
        created_at=rfc3339(batch.created_at),
        ended_at=optional_rfc3339(batch.ended_at),
    )
