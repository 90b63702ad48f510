"""Wire and stored shapes of batches: codes that are made, imported or named together."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.offers.models import CodePattern, optional_time
from guerdon.types import PageQuery

CODE_BATCHES, STAGED_CODES = "voucher_batches", "staged_codes"
INDEXES: dict[str, list[IndexModel]] = {
    CODE_BATCHES: [
        IndexModel([("owner", 1), ("_id", 1)], name="owner"),
        IndexModel([("open", 1), ("_id", 1)], name="open", partialFilterExpression={"open": True}),
    ],
    STAGED_CODES: [],
}
STAGED_EACH = 10_000
"""Imported codes in one staged part: far from what a document may hold."""
CODES_MAX, CARDS_MAX = 1_000_000, 10_000
"""Codes of one batch. A gift card costs an account each, and what is on it is owed from the first moment."""

BatchKind = Literal["generate", "import", "shared"]
BatchStatus = Literal["running", "done", "failed", "cancelled"]


# --- stored ---------------------------------------------------------------------------------------------------------


class CodeBatch(Struct, frozen=True, kw_only=True):
    """Codes that are good together, once all of them are made."""

    id: str = field(name="_id")
    owner: str
    """The offer."""
    kind: BatchKind
    status: BatchStatus
    open: bool
    """A worker has something to do: to make, or to clean up."""
    count: int = 1
    """How often somebody has decided about it."""
    offer_version: int
    """What its vouchers are worth is what this version says."""
    expires_at: int | None
    """When its vouchers lapse."""
    wanted: int
    made: int = 0
    cards: bool = False
    """Gift cards: each of them is on the ledger from the moment at which it is made."""
    pattern: str | None = None
    code: str | None = None
    """Of a shared code: as it is shown."""
    voucher: str | None = None
    """Of a shared code: what it stands for."""
    first_number: int | None = None
    """Of an import that has begun: where its codes stand in the offer's pool."""
    detail: str | None = None
    """Why it has failed."""
    created_at: int
    created_by: str
    ended_at: int | None = None


def as_begun(batch: CodeBatch) -> CodeBatch:
    """The batch as it was when it began: what a repeated request is answered with."""
    if batch.kind == "shared":
        return batch
    return msgspec.structs.replace(batch, status="running", made=0, detail=None, ended_at=None)


def part_id(batch: str, part: int) -> str:
    return f"{batch}/{part:04d}"


class StagedCodes(Struct, frozen=True, kw_only=True):
    """A part of an imported file, until its codes are in the pool."""

    id: str = field(name="_id")
    """`{batch}/{part}` with four digits."""
    owner: str
    """The offer."""
    codes: list[str]
    """As they are shown."""


# --- wire -----------------------------------------------------------------------------------------------------------


class CodesCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Codes that are good for whoever has one."""

    count: Annotated[int, Meta(ge=1, le=CODES_MAX, examples=[1000])]
    pattern: CodePattern | None = None
    """The offer's unless it says one."""


class SharedCodeCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A code that many use, named by whoever runs the programme."""

    code: Annotated[
        str, Meta(min_length=4, max_length=64, pattern=r"^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$(?!\n)", examples=["WELCOME-10"])
    ]
    uses: Annotated[int, Meta(ge=1, le=10**9, examples=[500])]


class BatchView(Struct, frozen=True):
    """A batch. Its codes are good, and can be exported, when it is `done`; `made` of `wanted` says how far it is."""

    id: str
    offer: str
    offer_version: int
    kind: BatchKind
    status: BatchStatus
    wanted: int
    made: int
    pattern: str | None
    code: str | None
    voucher: str | None
    detail: str | None
    expires_at: str | None
    created_at: str
    ended_at: str | None


class BatchPage(Struct, frozen=True):
    """Batches, newest first."""

    items: list[BatchView]
    next_cursor: str | None


class BatchQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One page of an offer's batches."""


class SheetQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One printed page."""

    codes: Annotated[int, Meta(ge=1, le=60)] = 30
    place: Annotated[str, Meta(max_length=200)] | None = None
    """Where the page begins; the one before it says so."""


class PictureQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How large a picture is: pixels of a module, and modules of the white border."""

    scale: Annotated[int, Meta(ge=1, le=20)] = 8
    border: Annotated[int, Meta(ge=0, le=10)] = 4


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
        expires_at=optional_time(batch.expires_at),
        created_at=rfc3339(batch.created_at),
        ended_at=optional_time(batch.ended_at),
    )
