"""Creation, lists, downloads and deletion of exports. Workers write their files (`running.py`)."""

import re
from collections.abc import AsyncGenerator

from msgspec import Struct
from pymongo import ReturnDocument

from guerdon.clock import Clock
from guerdon.database import Collection, Database, Document
from guerdon.errors import InvalidState, NotFound
from guerdon.exports.files import FileStore
from guerdon.exports.models import (
    EXPORT_JOBS,
    FREE,
    OPEN_EACH_MAX,
    OPEN_MAX,
    ExportCreate,
    ExportJob,
    ExportJobQuery,
)
from guerdon.exports.sources import ExportRequest, ExportSources
from guerdon.history.stream_slots import StreamSlots
from guerdon.http.cursor import decode_text, encode_cursor
from guerdon.ids import IdSource
from guerdon.permissions import Actor

DOWNLOADS_MAX = 16
"""Maximum number of files that one process sends at a time."""
DOWNLOAD_SECONDS = 3600
_EXPORT_ID = re.compile(r"exp_[0-9a-f]{32}\Z")
_MISSING = "the export does not exist"
_WITHDRAWN = "a member was erased after the file was written; create the export again"


class ByteRange(Struct, frozen=True):
    """Part of a file: its first and its last byte."""

    first: int
    last: int


class ExportJobs:
    """Service of exports."""

    def __init__(self, sources: ExportSources, files: FileStore, *, database: Database, clock: Clock, ids: IdSource) -> None:
        self._jobs: Collection[ExportJob] = database.collection(EXPORT_JOBS, ExportJob)
        self._sources = sources
        self._files = files
        self._clock = clock
        self._ids = ids
        self._slots = StreamSlots(DOWNLOADS_MAX, DOWNLOAD_SECONDS)

    # --- commands ---------------------------------------------------------------------------------------------------

    async def create(self, actor: Actor, body: ExportCreate) -> ExportJob:
        """Create an export of what exists when a worker begins to write it.

        Raises:
            Validation: a value is not acceptable, or the format needs an extra that is not installed.
            NotFound: the report or the asset does not exist.
            Forbidden: the caller may not read the list or the report.
            InvalidState: too many exports wait.
        """
        request = ExportRequest(body.list, body.report, body.format, body.query, body.personal)
        await self._sources.check(request)
        request.require_scopes(actor)
        waiting = await self._jobs.raw.find({"lane": {"$gte": FREE}}, {"created_by": 1}, limit=OPEN_MAX + 1).to_list()
        if len(waiting) >= OPEN_MAX:
            raise InvalidState(f"{OPEN_MAX} exports wait or are being written; wait for one to end", status_now="waiting")
        if sum(row["created_by"] == actor.id for row in waiting) >= OPEN_EACH_MAX:
            raise InvalidState(
                f"{OPEN_EACH_MAX} of your exports wait or are being written; wait for one to end, or delete one",
                status_now="waiting",
            )
        job = ExportJob(
            id=self._ids.new("exp"),
            created_at=self._clock.now_ms(),
            created_by=actor.id,
            list=body.list,
            report=body.report,
            format=body.format,
            query=body.query,
            personal=body.personal,
            members=body.list == "members",
            lane=FREE,
        )
        await self._jobs.insert(job)
        return job

    async def delete(self, export_id: str) -> ExportJob:
        """Delete an export and its file, and return it for the last time. An export that is being written stops.

        Raises:
            NotFound: the export does not exist.
        """
        change: Document = {
            "$set": {"status": "deleted", "due_at": self._clock.now_ms()},
            "$unset": {"lane": "", "wrapped": "", "members": ""},
        }
        where = {"_id": export_id, "status": {"$ne": "deleted"}}
        found = await self._jobs.raw.find_one_and_update(where, change, return_document=ReturnDocument.AFTER)
        if found is None:
            raise NotFound(_MISSING)
        await self._files.remove(export_id)
        await self._jobs.raw.delete_one({"_id": export_id, "status": "deleted"})
        return self._jobs.decode(found)

    async def withdraw_members(self) -> None:
        """Make every file of the members list unreadable, because a member was erased. Those that are being written are started again."""
        now_ms = self._clock.now_ms()
        withdrawn: Document = {
            "$set": {"status": "expired", "due_at": now_ms, "expires_at": now_ms, "error": _WITHDRAWN},
            "$unset": {"wrapped": "", "members": ""},
        }
        await self._jobs.raw.update_many({"members": True, "status": "running"}, {"$inc": {"epoch": 1}, "$unset": {"wrapped": ""}})
        await self._jobs.raw.update_many({"members": True, "status": "done"}, withdrawn)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get(self, export_id: str) -> ExportJob:
        """Return an export.

        Raises:
            NotFound: the export does not exist, or was removed from the list.
        """
        job = await self._jobs.get(export_id)
        if job is None or job.status == "deleted":
            raise NotFound(_MISSING)
        return job

    async def list_page(self, query: ExportJobQuery) -> tuple[list[ExportJob], str | None]:
        """Return one page, newest first, and the cursor of the next page.

        Raises:
            Validation: the cursor was not returned by this list.
        """
        where: Document = {} if query.cursor is None else {"_id": {"$lt": decode_text(query.cursor, _EXPORT_ID)}}
        found = await self._jobs.find(where, sort=[("_id", -1)], limit=query.limit + 1)
        page = found[: query.limit]
        cursor = encode_cursor(page[-1].id) if len(found) > query.limit else None
        return [job for job in page if job.status != "deleted"], cursor

    async def get_file(self, actor: Actor, export_id: str) -> ExportJob:
        """Return an export whose file can be downloaded.

        Raises:
            NotFound: the export does not exist.
            Forbidden: the caller may not read what the file contains.
            InvalidState: there is no file: not yet, or not any more.
        """
        job = await self.get(export_id)
        ExportRequest(job.list, job.report, job.format, job.query, job.personal).require_scopes(actor)
        if job.status == "done" and (job.due_at is None or job.due_at > self._clock.now_ms()):
            return job
        if job.status in ("waiting", "running"):
            raise InvalidState("the file is not written yet; read the export until it is done", status_now=job.status)
        if job.status == "failed":
            raise InvalidState(f"the export has failed: {job.error}", status_now=job.status)
        raise InvalidState("the file was removed; create the export again", status_now="expired")

    def send(self, job: ExportJob, part: ByteRange, *, gzip: bool) -> AsyncGenerator[bytes]:
        """Return a part of a file in pieces; with `gzip`, the whole file, compressed.

        Raises:
            Overloaded: too many files are being sent by this process.
        """
        return self._slots.take(self._files.read_gzip(job) if gzip else self._files.read(job, part.first, part.last))
