"""Batches of codes: asked for here, made by a worker (`making.py`), listed, exported and printed."""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, Sequence
from typing import cast

from msgspec import Struct

from guerdon.clock import Clock, rfc3339
from guerdon.database import Database
from guerdon.errors import InvalidState, LinesRefused, NotFound, Validation
from guerdon.history.statements import harmless
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.ids import IdSource
from guerdon.ledger.models import Command, Idempotency
from guerdon.ledger.service import Ledger
from guerdon.offers.code_patterns import normalise, parse_pattern
from guerdon.offers.service import Offers
from guerdon.permissions import NOBODYS, Actor
from guerdon.vouchers.codes.imports import PROBLEMS_MAX, ImportedCode, LineProblem, read_codes
from guerdon.vouchers.codes.models import (
    CODE_BATCHES,
    STAGED_EACH,
    BatchKind,
    BatchQuery,
    CodeBatch,
    CodesCreate,
    SharedCodeCreate,
    SheetQuery,
    StagedCodes,
    as_begun,
    part_id,
)
from guerdon.vouchers.codes.qr_codes import sheet_of
from guerdon.vouchers.codes.rules import TAKEN, CodeBatchRequest, generate_command, import_command, shared_command
from guerdon.vouchers.models import DEALT_CODES, POOL_CODES, VOUCHER_CODES, CodeRow, DealtCode, PoolCode, pool_id
from guerdon.wallets.service import Request

PAGE, LOOK = 1000, 1000
COLUMNS = ("code", "voucher")


class BatchCode(Struct, frozen=True):
    """A code of a batch."""

    place: str
    """Where it stands in the order of the batch."""
    said: str
    """What a picture of it says."""
    shown: str
    voucher: str | None = None


class CodeBatches:
    """Codes that are made, imported or named together."""

    def __init__(self, ledger: Ledger, offers: Offers, *, database: Database, clock: Clock, ids: IdSource) -> None:
        self._ledger = ledger
        self._offers = offers
        self._batches = database.collection(CODE_BATCHES, CodeBatch)
        self._codes = database.collection(VOUCHER_CODES, CodeRow)
        self._pool = database.collection(POOL_CODES, PoolCode)
        self._dealt = database.collection(DEALT_CODES, DealtCode)
        self._clock = clock
        self._ids = ids

    # --- commands ---------------------------------------------------------------------------------------------------

    async def generate(self, request: Request, offer_id: str, body: CodesCreate) -> tuple[CodeBatch, bool]:
        """Begin to make secret codes; return the batch, and whether it was begun before.

        Raises:
            NotFound: no such offer.
            Validation: the pattern is none or not secret enough, or the offer's codes are not made here.
            InvalidState: the offer has ended. SoldOut: the stock has not so many left.
            IdempotencyKeyReused: see the ledger's rules.
        """
        if body.pattern is not None:
            parse_pattern(body.pattern)
        return await self._begin(generate_command(self._wish("generate", request, offer_id, body.count), body.pattern))

    async def share(self, request: Request, offer_id: str, body: SharedCodeCreate) -> tuple[CodeBatch, bool]:
        """Issue one code for many uses.

        Raises:
            NotFound: no such offer.
            Validation: there is this code already, or the offer's are not shared.
            InvalidState: the offer has ended. SoldOut: the stock has not so many left.
            IdempotencyKeyReused: see the ledger's rules.
        """
        return await self._begin(shared_command(self._wish("shared", request, offer_id, 1), body.code, body.uses))

    async def take_over(self, request: Request, offer_id: str, raw: bytes) -> tuple[CodeBatch, bool]:
        """Take a file of another house's codes over; none of them can be had before all of them are there.

        Raises:
            NotFound: no such offer.
            LinesRefused: there are lines that are no codes, or codes that stand there twice or exist already.
            Validation: there is no code in it, or the offer takes none.
            InvalidState: the offer has ended.
            IdempotencyKeyReused: see the ledger's rules.
        """
        # In a thread: a large file takes a fifth of a second.
        imported = await asyncio.to_thread(read_codes, raw)
        codes = imported.codes
        wish = self._wish("import", request, offer_id, len(codes))
        parts = [
            StagedCodes(id=part_id(wish.batch, part), owner=offer_id, codes=[code.shown for code in codes[at : at + STAGED_EACH]])
            for part, at in enumerate(range(0, len(codes), STAGED_EACH))
        ]
        command = import_command(wish, parts, len(raw))
        # Looked at before the codes are: of a request that is repeated all of them exist.
        if not (await self._ledger.preview(command)).replayed:
            _require_lines([*imported.problems, *await self._list_taken(codes)])
            if not codes:
                raise Validation.at("", "there is no code in it")
        return await self._begin(command)

    async def cancel(self, batch_id: str) -> CodeBatch:
        """Stop a batch: what it has made is void, and its codes count against the stock no more. Doing it twice changes nothing.

        Raises:
            NotFound: no such batch.
            InvalidState: it is done or has failed; or it issues gift cards, which are cancelled one by one.
        """
        batch = await self.get_batch(batch_id)
        if batch.cards:
            raise InvalidState("gift cards that were issued are cancelled one by one", status_now=batch.status)
        stop = {"$set": {"status": "cancelled", "ended_at": self._clock.now_ms()}, "$inc": {"count": 1}}
        await self._batches.raw.update_one({"_id": batch_id, "owner": batch.owner, "status": "running"}, stop)
        batch = await self.get_batch(batch_id)
        if batch.status != "cancelled":
            raise InvalidState(f"the batch is {batch.status}", status_now=batch.status)
        return batch

    def _wish(self, kind: BatchKind, request: Request, offer_id: str, wanted: int) -> CodeBatchRequest:
        idempotency = Idempotency(offer_id, request.actor.id, request.key, request.fingerprint)
        return CodeBatchRequest(kind, offer_id, self._ids.new("bat"), wanted, idempotency, self._ledger.calendar)

    async def _begin(self, command: Command[CodeBatch | None]) -> tuple[CodeBatch, bool]:
        outcome = await self._ledger.submit(command)
        if outcome.value is not None:
            return outcome.value, False
        return as_begun(await self.get_batch(outcome.entries[0].metadata["batch"])), True

    async def _list_taken(self, codes: Sequence[ImportedCode]) -> list[LineProblem]:
        """The lines whose codes exist already."""
        lines = {code.known: code.line for code in codes}
        known = list(lines)
        taken: list[LineProblem] = []
        for at in range(0, len(known), LOOK):
            cursor = self._codes.raw.find({"_id": {"$in": known[at : at + LOOK]}}, {"_id": 1})
            taken += [LineProblem(lines[str(row["_id"])], TAKEN) async for row in cursor]
        return taken

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_batch(self, batch_id: str) -> CodeBatch:
        """
        Raises:
            NotFound: no such batch.
        """
        batch = await self._batches.get(batch_id)
        if batch is None:
            raise NotFound("there is no such batch")
        return batch

    async def list_batches(self, offer_id: str, query: BatchQuery) -> tuple[list[CodeBatch], str | None]:
        """Return one page of an offer's batches, newest first, and the cursor of the next.

        Raises:
            NotFound: no such offer.
            Validation: the cursor is not one of ours.
        """
        where: dict[str, object] = {"owner": offer_id}
        if query.cursor is not None:
            where["_id"] = {"$lt": decode_cursor(query.cursor, "bat_")}
        found = await self._batches.find(where, sort=[("_id", -1)], limit=query.limit + 1)
        if not found:
            await self._offers.get_offer(offer_id)
        page = found[: query.limit]
        return page, encode_cursor(page[-1].id) if len(found) > query.limit else None

    async def export(self, batch_id: str) -> AsyncGenerator[bytes]:
        """Return the codes of a batch as CSV, a page at a time.

        Raises:
            NotFound: no such batch.
            InvalidState: it is not done.
        """
        return self._lines(await self._get_done(batch_id))

    async def print(self, batch_id: str, query: SheetQuery) -> tuple[str, str | None]:
        """Return one page to print, and the cursor of the next.

        Raises:
            NotFound: no such batch.
            InvalidState: it is not done.
            Validation: the cursor is not one of ours.
        """
        batch = await self._get_done(batch_id)
        first, after = _sheet_place(query.place)
        codes = await self._page(batch, after, query.codes + 1)
        page = codes[: query.codes]
        offer = (await self._offers.version(batch.owner, batch.offer_version)).name
        note = "" if batch.expires_at is None else f"until {rfc3339(batch.expires_at)[:10]}"
        # In a thread: each picture takes a few milliseconds.
        sheet = await asyncio.to_thread(sheet_of, offer, [(each.said, each.shown) for each in page], first, batch.wanted, note)
        more = len(codes) > query.codes
        return sheet, encode_cursor(f"{first + len(page)}/{page[-1].place}") if more else None

    async def get_picture_text(self, actor: Actor, code: str) -> str:
        """Return what a picture of a code says.

        Raises:
            NotFound: no such code, or a member asks for one that is not theirs.
        """
        row = await self._codes.get(normalise(code))
        # Whatever is found, as much is looked for: how long it takes tells a stranger nothing.
        number = pool_id(row.offer, row.number) if row is not None and row.number is not None else "-"
        dealt, batch = await self._dealt.get(number), await self._batches.get((row and row.batch) or "-")
        if row is None or (batch is not None and batch.status != "done"):
            raise NotFound(NOBODYS)
        if actor.kind == "member" and actor.id != (row.owner if dealt is None else dealt.member):
            raise NotFound(NOBODYS)
        pooled = await self._pool.get(number) if row.number is not None else None
        return row.id if pooled is None else pooled.code

    async def _get_done(self, batch_id: str) -> CodeBatch:
        batch = await self.get_batch(batch_id)
        if batch.status != "done":
            raise InvalidState(f"the batch is {batch.status}; its codes can be had when it is done", status_now=batch.status)
        return batch

    async def _lines(self, batch: CodeBatch) -> AsyncGenerator[bytes]:
        yield _csv([COLUMNS])
        after = ""
        while page := await self._page(batch, after, PAGE):
            yield _csv((code.shown, code.voucher or "") for code in page)
            after = page[-1].place

    async def _page(self, batch: CodeBatch, after: str, limit: int) -> list[BatchCode]:
        if batch.kind == "import":
            assert batch.first_number is not None
            first, last = batch.first_number, batch.first_number + batch.wanted
            begin = {"$gt": after} if after else {"$gte": pool_id(batch.owner, first)}
            where = {"_id": {**begin, "$lt": pool_id(batch.owner, last)}, "owner": batch.owner}
            found = await self._pool.find(where, sort=[("_id", 1)], limit=limit)
            return [BatchCode(code.id, code.code, code.code) for code in found]
        pattern = None if batch.pattern is None else parse_pattern(batch.pattern)
        rows = await self._codes.find({"batch": batch.id, "_id": {"$gt": after}}, sort=[("_id", 1)], limit=limit)
        return [BatchCode(row.id, row.id, pattern.shown(row.id) if pattern else batch.code or row.id, row.voucher) for row in rows]


def _require_lines(problems: Sequence[LineProblem]) -> None:
    """
    Raises:
        LinesRefused: there are some.
    """
    if problems:
        told = sorted(problems, key=lambda problem: problem.line)[:PROBLEMS_MAX]
        lines = [{"line": problem.line, "detail": problem.detail} for problem in told]
        raise LinesRefused(f"{len(problems)} lines are not acceptable; nothing was taken over", count=len(problems), lines=lines)


def _sheet_place(given: str | None) -> tuple[int, str]:
    """
    Raises:
        Validation: the place is not one of ours.
    """
    if given is None:
        return 1, ""
    try:
        number, _, place = decode_cursor(given).partition("/")
    except Validation:
        number = place = ""
    if not (number.isdecimal() and len(number) <= 7 and place):
        raise Validation.at("place", "not a place that a sheet has named")
    return int(number), place


def _csv(rows: object) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(
        [harmless(cell) for cell in row] for row in cast(Sequence[Sequence[str]], rows)
    )
    return text.getvalue().encode()
