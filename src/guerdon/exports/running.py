"""The job that writes the files of exports, and the job that removes them.

A worker that takes up an export starts it from the beginning: rows that an earlier worker has written belong to another start, are never
sent, and are deleted.
"""

from contextlib import aclosing, suppress
from datetime import timedelta

from pymongo import ReturnDocument

from guerdon.clock import Clock, to_datetime
from guerdon.database import Collection, Database, Document, PyMongoError, may_try_again
from guerdon.errors import GuerdonError, OperationsError
from guerdon.exports.files import FileStore, FileWriter, NoRoom, Superseded
from guerdon.exports.formats import FORMATS, missing_extra
from guerdon.exports.models import EXPORT_JOBS, FREE, KEPT_DAYS, ExportJob
from guerdon.exports.sources import ExportRequest, ExportSources
from guerdon.exports.tables import Pages, Table

EVERY_MS, REMOVE_EVERY_MS = 1000, 60_000
"""Milliseconds between two runs of the job of a lane, and of the job that removes files."""
RUN_SECONDS = 60.0
"""Time after which a run takes up no further export."""
LIMIT_MS = 3 * 3_600_000
"""Maximum duration of a run. An export that takes longer has to be divided."""
STARTS_MAX = 5
"""Maximum number of starts of an export, after which it fails."""
REMOVED_MAX = 100
"""Maximum number of files that one run removes."""
_MIB = 1 << 20


class ExportLimits:
    """Bounds of exports, from the settings."""

    def __init__(self, *, hours: int, rows_max: int, mib_max: int) -> None:
        self.kept_ms = hours * 3_600_000
        self.rows_max = rows_max
        self.bytes_max = mib_max * _MIB


class TooManyRows(Exception):
    """The table has more rows than the format or the deployment allows."""


class Exporter:
    """Writes and removes the files of exports."""

    def __init__(self, sources: ExportSources, files: FileStore, limits: ExportLimits, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._jobs: Collection[ExportJob] = database.collection(EXPORT_JOBS, ExportJob)
        self.sources = sources
        self._files = files
        self._limits = limits
        self._clock = clock

    async def work(self, lane: int) -> int:
        """Write the export of a lane, and then further ones. Return the number of rows."""
        if not self._files.can_seal:
            return 0
        until, rows = self._clock.monotonic() + RUN_SECONDS, 0
        while self._clock.monotonic() < until:
            job = await self._claim(lane)
            written = None if job is None else await self._run(job)
            if written is None:
                break
            rows += written
        return rows

    async def remove_due(self) -> int:
        """Remove the files whose time is over, and return their number."""
        now_ms = self._clock.now_ms()
        due = await self._jobs.find({"due_at": {"$gte": 0, "$lte": now_ms}}, sort=[("due_at", 1)], limit=REMOVED_MAX)
        for job in due:
            if job.status == "done":
                expired: Document = {"$set": {"status": "expired"}, "$unset": {"wrapped": "", "members": ""}}
                await self._jobs.raw.update_one({"_id": job.id, "status": "done"}, expired)
            await self._files.remove(job.id)
            if job.status == "deleted":
                await self._jobs.raw.delete_one({"_id": job.id})
            else:
                await self._jobs.raw.update_one({"_id": job.id}, {"$unset": {"due_at": "", "stored": "", "chunks": ""}})
        return len(due)

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _claim(self, lane: int) -> ExportJob | None:
        """Return the export that an earlier worker of the lane has left, or else the oldest one that waits, with a new start."""
        for where in ({"lane": lane}, {"lane": FREE}):
            found = await self._jobs.raw.find_one(where, {"_id": 1}, sort=[("_id", 1)])
            if found is None:
                continue
            begun = {"lane": lane, "status": "running", "as_of": self._clock.now_ms(), "wrapped": self._files.new_key(found["_id"])}
            change = {"$set": {**begun, "rows": 0, "bytes": 0, "stored": 0, "chunks": 0}, "$inc": {"epoch": 1}}
            taken = await self._jobs.raw.find_one_and_update(
                {"_id": found["_id"], **where}, change, return_document=ReturnDocument.AFTER
            )
            return None if taken is None else self._jobs.decode(taken)
        return None

    async def _run(self, job: ExportJob) -> int | None:
        """Write an export to its end and return the number of rows, or None if the database has to recover before the next start."""
        try:
            if job.epoch > STARTS_MAX:
                await self._fail(job, f"the export was started {STARTS_MAX} times without an end")
                return 0
            if job.epoch > 1:
                await self._files.remove_before(job)
            return await self._write(job)
        except Superseded:
            return 0
        except OperationsError as error:
            if job.epoch < STARTS_MAX:
                return None
            await self._fail(job, error.detail)
        except GuerdonError as error:
            await self._fail(job, error.detail)
        except TooManyRows as error:
            await self._fail(job, str(error))
        except NoRoom:
            await self._fail(job, "the files of all exports have no room left; delete exports, or narrow this one")
        except PyMongoError as error:
            if not may_try_again(error):
                raise
            return None
        return 0

    async def _write(self, job: ExportJob) -> int:
        missing = missing_extra(job.format)
        if missing is not None:
            await self._fail(job, missing)
            return 0
        writer = self._files.writer(job, self._limits.bytes_max - await self._files.used_bytes())
        assert job.as_of is not None
        async with self._database.client.start_session() as session:
            # The session now knows a time at which everything before the export is committed, so a secondary answers only when it has that.
            await self._database.client.admin.command("ping", session=session)
            request = ExportRequest(job.list, job.report, job.format, job.query, job.personal)
            table, as_of = await self.sources.open(request, job.as_of, session)
            counted = Table(table.columns, self._counted(table.pages, writer, job))
            async with aclosing(FORMATS[job.format].encode(counted)) as pieces:
                async for piece in pieces:
                    await writer.write(piece)
        await self._end(job, {"status": "done", "as_of": as_of, **await writer.finish()}, file=True)
        return writer.rows

    async def _counted(self, pages: Pages, writer: FileWriter, job: ExportJob) -> Pages:
        """Yield the pages and count their rows.

        Raises:
            TooManyRows: the format or the deployment allows fewer rows.
        """
        of_format = FORMATS[job.format].rows_max
        async with aclosing(pages):
            async for rows in pages:
                writer.rows += len(rows)
                if of_format is not None and writer.rows > of_format:
                    raise TooManyRows(f"{job.format} holds at most {of_format:,} rows; use csv or parquet, or narrow the query")
                if writer.rows > self._limits.rows_max:
                    raise TooManyRows(f"an export has at most {self._limits.rows_max:,} rows; narrow the query")
                yield rows

    async def _fail(self, job: ExportJob, reason: str) -> None:
        with suppress(Superseded):
            await self._end(job, {"status": "failed", "error": reason[:300]}, file=False)

    async def _end(self, job: ExportJob, fields: Document, *, file: bool) -> None:
        """End an export that still belongs to this start.

        Raises:
            Superseded: it does not.
        """
        now_ms = self._clock.now_ms()
        due_at = now_ms + self._limits.kept_ms if file else now_ms
        values: Document = {
            **fields,
            "ended_at": now_ms,
            "due_at": due_at,
            "remove_at": to_datetime(due_at) + timedelta(days=KEPT_DAYS),
        }
        unset = {"lane": ""}
        if file:
            values["expires_at"] = due_at
        else:
            unset |= {"wrapped": "", "members": ""}
        where = {"_id": job.id, "epoch": job.epoch, "status": "running"}
        changed = await self._jobs.raw.update_one(where, {"$set": values, "$unset": unset})
        if not changed.matched_count:
            raise Superseded
