"""Generation and import of the codes of a batch: a worker's job that can be killed at any time without losing or repeating a code.

Codes are written in slices. One database transaction writes a slice and the number of codes written so far, on condition that this number is
still the one that the slice starts at. A worker that takes over, or a second worker at the same time, therefore continues where the last
slice ended. The idempotency key of a gift card is its number in the batch.
"""

from itertools import islice

import msgspec

from guerdon.clock import Clock
from guerdon.database import Database, Document, DuplicateKeyError, PyMongoError, may_try_again
from guerdon.errors import GuerdonError
from guerdon.ledger.service import Ledger
from guerdon.offers.code_patterns import Pattern, normalise, parse_pattern
from guerdon.offers.service import Offers
from guerdon.vouchers.codes.models import CODE_BATCHES, STAGED_CODES, STAGED_EACH, CodeBatch, StagedCodes, part_id
from guerdon.vouchers.codes.rules import card_command, finish_import_command, give_back_command
from guerdon.vouchers.models import POOL_CODES, VOUCHER_CODES, CodeRow, PoolCode, pool_id

GENERATE_EVERY_MS = 1000
SLICE, CARDS_SLICE, CLEAN_SLICE = 5000, 250, 5000
OPEN_MAX = 100
"""Maximum number of batches that advance in turn. The others wait."""
RUN_SECONDS_MAX = 240.0
DRAWS_MAX = 100
"""Number of draws for a slice before the pattern counts as exhausted."""
_SPARE_CODES = 3
EXHAUSTED = "the pattern does not have enough free codes"


class CodeGeneration:
    """The job that generates codes and cleans up failed and cancelled batches."""

    def __init__(
        self,
        ledger: Ledger,
        offers: Offers,
        *,
        database: Database,
        clock: Clock,
        slice_max: int = SLICE,
        cards_max: int = CARDS_SLICE,
    ) -> None:
        self._ledger = ledger
        self._offers = offers
        self._database = database
        self._batches = database.collection(CODE_BATCHES, CodeBatch)
        self._codes = database.collection(VOUCHER_CODES, CodeRow)
        self._pool = database.collection(POOL_CODES, PoolCode)
        self._staged = database.collection(STAGED_CODES, StagedCodes)
        self._clock = clock
        self._slice_max = slice_max
        self._cards_max = cards_max

    async def generate_open(self) -> int:
        """Advance every open batch, one slice at a time in turn. Return the number of codes written or removed."""
        ends_at = self._clock.monotonic() + RUN_SECONDS_MAX
        failed: dict[str, Exception] = {}
        done = 0
        while self._clock.monotonic() < ends_at:
            found = await self._batches.find({"open": True}, sort=[("_id", 1)], limit=OPEN_MAX)
            batches = [batch for batch in _first_imports(found) if batch.id not in failed]
            if not batches:
                break
            for batch in batches:
                try:
                    done += await self._advance(batch)
                except (GuerdonError, PyMongoError) as error:
                    # The other batches continue; the next run tries this one again.
                    failed[batch.id] = error
        if failed:
            raise next(iter(failed.values()))
        return done

    async def _advance(self, batch: CodeBatch) -> int:
        """Process the next slice of a batch. Return the number of codes written or removed."""
        try:
            if batch.status != "running":
                return await self._clean(batch)
            if batch.kind == "import":
                return await self._import(batch)
            if batch.cards:
                return await self._issue_cards(batch)
            return await self._generate(batch)
        except PyMongoError as error:
            if not may_try_again(error):
                raise
            return 0

    # --- generation -------------------------------------------------------------------------------------------------

    async def _generate(self, batch: CodeBatch) -> int:
        if batch.made == batch.wanted:
            await self._end(batch, "done", open_=False)
            return 0
        assert batch.pattern is not None
        pattern = parse_pattern(batch.pattern)
        codes = pattern.draw(min(self._slice_max, batch.wanted - batch.made))
        for _ in range(DRAWS_MAX):
            try:
                # Sorted by id, the order of both indexes.
                return await self._write(batch, [_row(batch, code) for code in sorted(codes)])
            except DuplicateKeyError:
                codes = await self._replace_taken(pattern, codes)
        await self._end(batch, "failed", open_=True, detail=EXHAUSTED)
        return 0

    async def _replace_taken(self, pattern: Pattern, codes: list[str]) -> list[str]:
        """Keep the free codes, and draw others for the rest."""
        taken = {str(row["_id"]) async for row in self._codes.raw.find({"_id": {"$in": codes}}, {"_id": 1})}
        free = [code for code in dict.fromkeys(codes) if code not in taken]
        return free + pattern.draw(len(codes) - len(free))

    async def _write(self, batch: CodeBatch, rows: list[CodeRow], pool: list[PoolCode] | None = None) -> int:
        """Write a slice, unless the batch has changed since it was read. Return the number of codes written.

        Raises:
            DuplicateKeyError: a code exists already; nothing was written.
        """
        async with self._database.transaction() as session:
            advanced = {"$set": {"made": batch.made + len(rows)}}
            if not (await self._batches.raw.update_one(_as_read(batch), advanced, session=session)).matched_count:
                await session.abort_transaction()
                return 0
            await self._codes.insert_many(rows, session)
            if pool:
                await self._pool.insert_many(pool, session)
        return len(rows)

    async def _issue_cards(self, batch: CodeBatch) -> int:
        if batch.made == batch.wanted:
            await self._end(batch, "done", open_=False)
            return 0
        assert batch.pattern is not None
        pattern = parse_pattern(batch.pattern)
        offer = await self._offers.version(batch.owner, batch.offer_version)
        last = min(batch.made + self._cards_max, batch.wanted)
        drawn = iter(pattern.draw((last - batch.made) * _SPARE_CODES))
        commands = [
            card_command(batch, offer, number, [(pattern.shown(code), code) for code in islice(drawn, _SPARE_CODES)])
            for number in range(batch.made + 1, last + 1)
        ]
        results = await self._ledger.submit_all(commands)
        for result in results:
            if isinstance(result, GuerdonError):
                raise result
        if not all(result.value for result in results if not isinstance(result, GuerdonError)):
            return 0
        await self._batches.raw.update_one(_as_read(batch), {"$set": {"made": last}})
        return last - batch.made

    # --- import -----------------------------------------------------------------------------------------------------

    async def _import(self, batch: CodeBatch) -> int:
        if batch.first_number is None:
            stock = (await self._offers.get_offer(batch.owner)).account
            assert stock is not None
            first = {"$set": {"first_number": stock.ceiling + 1}}
            await self._batches.raw.update_one({**_as_read(batch), "first_number": None}, first)
            return 0
        if batch.made == batch.wanted:
            outcome = await self._ledger.submit(finish_import_command(batch))
            if outcome.value:
                await self._remove_staged(batch)
            return 0
        part, at = divmod(batch.made, STAGED_EACH)
        staged = await self._staged.get(part_id(batch.id, part))
        assert staged is not None
        codes = list(enumerate(staged.codes[at : at + self._slice_max], batch.first_number + batch.made))
        rows = [msgspec.structs.replace(_row(batch, normalise(code)), number=number) for number, code in codes]
        pool = [PoolCode(id=pool_id(batch.owner, number), owner=batch.owner, code=code) for number, code in codes]
        try:
            return await self._write(batch, rows, pool)
        except DuplicateKeyError:
            # The request checked the codes that existed then; these are new since.
            taken = [row["_id"] async for row in self._codes.raw.find({"_id": {"$in": [row.id for row in rows]}}, {"_id": 1})]
            if not taken:
                return 0
            await self._end(
                batch, "failed", open_=True, detail=f"{len(taken)} of its codes were created by others during the import"
            )
            return 0

    # --- end --------------------------------------------------------------------------------------------------------

    async def _clean(self, batch: CodeBatch) -> int:
        """Remove the codes of a failed or cancelled batch. Close it when none is left."""
        found = self._codes.raw.find({"batch": batch.id}, {"_id": 1}, limit=CLEAN_SLICE).sort("_id", 1)
        codes = [row["_id"] async for row in found]
        if codes:
            await self._codes.raw.delete_many({"_id": {"$in": codes}})
            return len(codes)
        if batch.kind != "import":
            await self._ledger.submit(give_back_command(batch))
            return 0
        if batch.first_number is not None:
            numbers = {
                "$gte": pool_id(batch.owner, batch.first_number),
                "$lt": pool_id(batch.owner, batch.first_number + batch.wanted),
            }
            await self._pool.raw.delete_many({"_id": numbers, "owner": batch.owner})
        await self._remove_staged(batch)
        await self._batches.raw.update_one({"_id": batch.id, "owner": batch.owner}, {"$set": {"open": False}})
        return 0

    async def _remove_staged(self, batch: CodeBatch) -> None:
        await self._staged.raw.delete_many({"_id": {"$gte": part_id(batch.id, 0), "$lte": part_id(batch.id, 9999)}})

    async def _end(self, batch: CodeBatch, status: str, *, open_: bool, detail: str | None = None) -> None:
        ended = {"status": status, "open": open_, "detail": detail, "ended_at": self._clock.now_ms()}
        await self._batches.raw.update_one(_as_read(batch), {"$set": ended, "$inc": {"count": 1}})


def _first_imports(batches: list[CodeBatch]) -> list[CodeBatch]:
    """Leave out the imports that wait. An offer has one import at a time, because its pool is numbered without gaps."""
    importing: set[str] = set()
    first: list[CodeBatch] = []
    for batch in batches:
        if batch.kind != "import" or batch.owner not in importing:
            first.append(batch)
        if batch.kind == "import":
            importing.add(batch.owner)
    return first


def _as_read(batch: CodeBatch) -> Document:
    """Return the filter for a batch that is still running and has no more codes than when it was read."""
    return {"_id": batch.id, "owner": batch.owner, "status": "running", "made": batch.made}


def _row(batch: CodeBatch, code: str) -> CodeRow:
    return CodeRow(id=code, owner=batch.owner, offer=batch.owner, batch=batch.id)
