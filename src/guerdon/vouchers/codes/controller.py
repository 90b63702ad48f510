"""Routes of codes: made, imported, exported, printed and shown as pictures."""

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
from guerdon.http.operation import Request, Response, actor_of, operation
from guerdon.http.query import read_query
from guerdon.http.respond import send
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
from guerdon.wallets.controller import request_of

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
        example={"count": 1000, "pattern": "SUMMER-#####-#####-#####"},
    )
    async def on_post(self, req: Request, resp: Response, offer_id: str) -> None:
        """Have secret codes made, up to a million at once. Whoever has one has a voucher, once the batch is `done`."""
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
        example={"code": "WELCOME-10", "uses": 500},
    )
    async def on_post_shared(self, req: Request, resp: Response, offer_id: str) -> None:
        """Name one code that many may use."""
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
        example="code\nFILM-7Q4X-91\nFILM-8R5Y-02\n",
    )
    async def on_post_import(self, req: Request, resp: Response, offer_id: str) -> None:
        """Take over codes that another house has made: `text/csv`, one code in a line, at most 100,000 and 4 MiB.

        A first line that says `code` is a header. Wrong lines, and codes that stand there twice or exist already, are told by their numbers,
        and then nothing is taken over. The codes can be had when the batch is `done`, all at once.
        """
        raw = await read_bytes(req, IMPORT_BYTES_MAX, "text/csv")
        request = request_of(req, f"POST /v1/offers/{offer_id}/codes/import", raw)
        batch, before = await self._batches.take_over(request, offer_id, raw)
        send(resp, view_batch(batch), 202, replayed=before)

    @operation("listBatches", scope("offers:read"), tag="codes", query=BatchQuery, answers={200: BatchPage}, errors=(NotFound,))
    async def on_get_batches(self, req: Request, resp: Response, offer_id: str) -> None:
        """List an offer's batches of codes, newest first."""
        batches, cursor = await self._batches.list_batches(offer_id, read_query(req, BatchQuery))
        send(resp, BatchPage([view_batch(batch) for batch in batches], cursor))


class BatchesResource:
    """`/v1/batches/{batch_id}…`"""

    def __init__(self, batches: CodeBatches) -> None:
        self._batches = batches

    @operation("getBatch", scope("offers:read"), tag="codes", answers={200: BatchView}, errors=(NotFound,))
    async def on_get(self, _req: Request, resp: Response, batch_id: str) -> None:
        """Read how far a batch is."""
        send(resp, view_batch(await self._batches.get_batch(batch_id)))

    @operation("cancelBatch", scope("offers:write"), tag="codes", answers={200: BatchView}, errors=_DONE)
    async def on_post_cancel(self, _req: Request, resp: Response, batch_id: str) -> None:
        """Stop a batch that is running. What it has made is void and removed; its codes count against the stock no more."""
        send(resp, view_batch(await self._batches.cancel(batch_id)))

    @operation(
        "exportCodes",
        scope("offers:write"),
        tag="codes",
        answers={200: None},
        media=("text/csv",),
        errors=_DONE,
        audited=True,
    )
    async def on_get_codes(self, _req: Request, resp: Response, batch_id: str) -> None:
        """Export the codes of a batch that is done: columns `code`, and `voucher` where one was opened.

        A code that a spreadsheet would take for a formula has an apostrophe in front.
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
        media=("text/html",),
        errors=_DONE,
        audited=True,
    )
    async def on_get_sheet(self, req: Request, resp: Response, batch_id: str) -> None:
        """Get a page to print, with a QR code for each code. `Link` has the address of the next page, as long as there is one."""
        query = read_query(req, SheetQuery)
        resp.text, cursor = await self._batches.print(batch_id, query)
        resp.content_type = HTML_TYPE
        resp.set_header("Content-Security-Policy", SHEET_POLICY)
        if cursor is not None:
            resp.append_link(f"/v1/batches/{batch_id}/sheet?codes={query.codes}&place={cursor}", "next")


class PicturesResource:
    """`/v1/vouchers/{code}/qr.svg` and `/v1/vouchers/{code}/qr.png`"""

    def __init__(self, batches: CodeBatches) -> None:
        self._batches = batches

    @operation(
        "getVoucherSvg",
        scope("vouchers:read", own=True),
        tag="codes",
        query=PictureQuery,
        answers={200: None},
        media=(SVG_TYPE,),
        errors=(NotFound,),
        guesses=True,
    )
    async def on_get_svg(self, req: Request, resp: Response, code: str) -> None:
        """Get a code as a QR code that a till can read (SVG)."""
        query = read_query(req, PictureQuery)
        text = await self._batches.get_picture_text(actor_of(req), code)
        resp.content_type, resp.data = SVG_TYPE, svg_of(text, query.scale, query.border)

    @operation(
        "getVoucherPng",
        scope("vouchers:read", own=True),
        tag="codes",
        query=PictureQuery,
        answers={200: None},
        media=(PNG_TYPE,),
        errors=(NotFound,),
        guesses=True,
    )
    async def on_get_png(self, req: Request, resp: Response, code: str) -> None:
        """Get a code as a QR code that a till can read (PNG)."""
        query = read_query(req, PictureQuery)
        text = await self._batches.get_picture_text(actor_of(req), code)
        resp.content_type, resp.data = PNG_TYPE, png_of(text, query.scale, query.border)


def routes(batches: CodeBatches) -> list[tuple[str, Any, str | None]]:
    """(path, resource, suffix) of every route of codes."""
    codes, batch, pictures = CodesResource(batches), BatchesResource(batches), PicturesResource(batches)
    return [
        ("/v1/offers/{offer_id}/codes", codes, None),
        ("/v1/offers/{offer_id}/codes/shared", codes, "shared"),
        ("/v1/offers/{offer_id}/codes/import", codes, "import"),
        ("/v1/offers/{offer_id}/batches", codes, "batches"),
        ("/v1/batches/{batch_id}", batch, None),
        ("/v1/batches/{batch_id}/cancel", batch, "cancel"),
        ("/v1/batches/{batch_id}/codes.csv", batch, "codes"),
        ("/v1/batches/{batch_id}/sheet", batch, "sheet"),
        ("/v1/vouchers/{code}/qr.svg", pictures, "svg"),
        ("/v1/vouchers/{code}/qr.png", pictures, "png"),
    ]
