"""Routes that generate, share, import, export and print codes, and show them as QR codes."""

from typing import Any

from guerdon.errors import (
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InvalidState,
    LinesRefused,
    NotFound,
    Overloaded,
    SoldOut,
    Validation,
)
from guerdon.history.controller import CSV_TYPE
from guerdon.http.body import read, read_bytes
from guerdon.http.idempotency import request_of
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.vouchers.codes.models import (
    BatchPage,
    BatchQuery,
    BatchView,
    CodesCreate,
    PictureQuery,
    SharedCodeCreate,
    SheetQuery,
    view_batch,
)
from guerdon.vouchers.codes.qr_codes import HTML_TYPE, PNG_TYPE, SHEET_POLICY, SVG_TYPE, png_of, svg_of
from guerdon.vouchers.codes.service import CodeBatches

IMPORT_BYTES_MAX = 4 * 1024 * 1024
_BEGIN = (IdempotencyKeyMissing, IdempotencyKeyReused, NotFound, InvalidState, Validation, Overloaded)
_DONE = (NotFound, InvalidState)


class CodesResource:
    """`/v1/offers/{offer_id}/codes…` and `/v1/offers/{offer_id}/batches`"""

    def __init__(self, batches: CodeBatches) -> None:
        self._batches = batches

    @operation(
        "generateCodes",
        scope("offers:write"),
        tag="codes",
        body=CodesCreate,
        answers={202: BatchView},
        errors=(*_BEGIN, SoldOut),
        idempotent=True,
        dry_run=("id", "voucher"),
        example={"count": 1000, "pattern": "SUMMER-#####-#####-#####"},
    )
    async def on_post(self, req: Request, resp: Response, offer_id: str) -> None:
        """Generate up to 1,000,000 secret codes. Each code is a voucher once the batch is `done`."""
        body, raw = await read(req, CodesCreate)
        batch, before = await self._batches.generate(request_of(req, f"POST /v1/offers/{offer_id}/codes", raw), offer_id, body)
        send(resp, view_batch(batch), 202, replayed=before)

    @operation(
        "shareCode",
        scope("offers:write"),
        tag="codes",
        body=SharedCodeCreate,
        answers={201: BatchView},
        errors=(*_BEGIN, SoldOut),
        idempotent=True,
        dry_run=("id", "voucher"),
        example={"code": "WELCOME-10", "uses": 500},
    )
    async def on_post_shared(self, req: Request, resp: Response, offer_id: str) -> None:
        """Create one code that many members can use."""
        body, raw = await read(req, SharedCodeCreate)
        request = request_of(req, f"POST /v1/offers/{offer_id}/codes/shared", raw)
        batch, before = await self._batches.share(request, offer_id, body)
        send(resp, view_batch(batch), 201, replayed=before)

    @operation(
        "importCodes",
        scope("offers:write"),
        tag="codes",
        takes="text/csv",
        answers={202: BatchView},
        errors=(*_BEGIN, LinesRefused),
        idempotent=True,
        dry_run=("id", "voucher"),
        example="code\nFILM-7Q4X-91\nFILM-8R5Y-02\n",
    )
    async def on_post_import(self, req: Request, resp: Response, offer_id: str) -> None:
        """Import codes of a third party: `text/csv` with one code in a line, at most 100,000 codes and 4 MiB.

        A first line `code` is a header. If a line is invalid, or a code repeats or exists, the problem lists the line numbers and no code is
        imported. The codes become available together, when the batch is `done`.
        """
        raw = await read_bytes(req, IMPORT_BYTES_MAX, "text/csv")
        request = request_of(req, f"POST /v1/offers/{offer_id}/codes/import", raw)
        batch, before = await self._batches.import_codes(request, offer_id, raw)
        send(resp, view_batch(batch), 202, replayed=before)

    @operation("listBatches", scope("offers:read"), tag="codes", query=BatchQuery, answers={200: BatchPage}, errors=(NotFound,))
    async def on_get_batches(self, req: Request, resp: Response, offer_id: str) -> None:
        """List the code batches of an offer, newest first."""
        batches, cursor = await self._batches.list_batches(offer_id, read_query(req, BatchQuery))
        send(resp, BatchPage([view_batch(batch) for batch in batches], cursor))


class BatchesResource:
    """`/v1/batches/{batch_id}…`"""

    def __init__(self, batches: CodeBatches) -> None:
        self._batches = batches

    @operation("getBatch", scope("offers:read"), tag="codes", answers={200: BatchView}, errors=(NotFound,))
    async def on_get(self, _req: Request, resp: Response, batch_id: str) -> None:
        """Get a code batch and its progress."""
        send(resp, view_batch(await self._batches.get_batch(batch_id)))

    @operation("cancelBatch", scope("offers:write"), tag="codes", answers={200: BatchView}, errors=_DONE)
    async def on_post_cancel(self, _req: Request, resp: Response, batch_id: str) -> None:
        """Cancel a running batch. Its codes become void and are removed, and the stock no longer counts them."""
        send(resp, view_batch(await self._batches.cancel(batch_id)))

    @operation(
        "exportCodes",
        scope("offers:write"),
        tag="codes",
        answers={200: None},
        media={"text/csv": "code,voucher\r\nSUMMER-7K2QM-9XW4T-B6HJD,\r\n"},
        errors=_DONE,
        audited=True,
    )
    async def on_get_codes(self, _req: Request, resp: Response, batch_id: str) -> None:
        """Export the codes of a batch that is done as CSV with the columns `code` and `voucher`.

        `voucher` is empty for imported codes and before the first step of a code. A code that a spreadsheet would read as a formula begins with an apostrophe.
        """
        resp.stream = await self._batches.export(batch_id)
        resp.content_type = CSV_TYPE
        resp.set_header("Content-Disposition", f'attachment; filename="{batch_id}.csv"')

    @operation(
        "printCodes",
        scope("offers:write"),
        tag="codes",
        query=SheetQuery,
        answers={200: None},
        media={"text/html": "<!doctype html><title>…</title>"},
        errors=_DONE,
        audited=True,
    )
    async def on_get_sheet(self, req: Request, resp: Response, batch_id: str) -> None:
        """Get a printable page with a QR code for each code. The `Link` header has the address of the next page, if there is one."""
        query = read_query(req, SheetQuery)
        resp.text, cursor = await self._batches.print(batch_id, query)
        resp.content_type = HTML_TYPE
        resp.set_header("Content-Security-Policy", SHEET_POLICY)
        if cursor is not None:
            resp.append_link(f"/v1/batches/{batch_id}/sheet?codes={query.codes}&place={cursor}", "next")


class QrCodesResource:
    """`/v1/vouchers/{code}/qr.svg` and `/v1/vouchers/{code}/qr.png`"""

    def __init__(self, batches: CodeBatches) -> None:
        self._batches = batches

    @operation(
        "getVoucherSvg",
        scope("vouchers:read", own=True),
        tag="codes",
        query=PictureQuery,
        answers={200: None},
        media={SVG_TYPE: "<svg …></svg>"},
        errors=(NotFound,),
        guesses=True,
    )
    async def on_get_svg(self, req: Request, resp: Response, code: str) -> None:
        """Get a code as a QR code in SVG."""
        query = read_query(req, PictureQuery)
        text = await self._batches.get_qr_text(actor_of(req), code)
        resp.content_type, resp.data = SVG_TYPE, svg_of(text, query.scale, query.border)

    @operation(
        "getVoucherPng",
        scope("vouchers:read", own=True),
        tag="codes",
        query=PictureQuery,
        answers={200: None},
        media={PNG_TYPE: "iVBORw0KGgo…"},
        errors=(NotFound,),
        guesses=True,
    )
    async def on_get_png(self, req: Request, resp: Response, code: str) -> None:
        """Get a code as a QR code in PNG."""
        query = read_query(req, PictureQuery)
        text = await self._batches.get_qr_text(actor_of(req), code)
        resp.content_type, resp.data = PNG_TYPE, png_of(text, query.scale, query.border)


def routes(batches: CodeBatches) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of codes."""
    codes, batch, qr_codes = CodesResource(batches), BatchesResource(batches), QrCodesResource(batches)
    return [
        ("/v1/offers/{offer_id}/codes", codes, None),
        ("/v1/offers/{offer_id}/codes/shared", codes, "shared"),
        ("/v1/offers/{offer_id}/codes/import", codes, "import"),
        ("/v1/offers/{offer_id}/batches", codes, "batches"),
        ("/v1/batches/{batch_id}", batch, None),
        ("/v1/batches/{batch_id}/cancel", batch, "cancel"),
        ("/v1/batches/{batch_id}/codes.csv", batch, "codes"),
        ("/v1/batches/{batch_id}/sheet", batch, "sheet"),
        ("/v1/vouchers/{code}/qr.svg", qr_codes, "svg"),
        ("/v1/vouchers/{code}/qr.png", qr_codes, "png"),
    ]
