"""Routes of exports."""

import re
from base64 import b64encode
from typing import Any, NamedTuple

from guerdon.clock import Clock
from guerdon.errors import Forbidden, InvalidState, NotFound, Overloaded
from guerdon.exports.formats import FORMATS
from guerdon.exports.models import ExportCreate, ExportJob, ExportJobPage, ExportJobQuery, ExportJobView, view_export
from guerdon.exports.service import ByteRange, ExportJobs
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import scope

_EXAMPLE = {
    "list": "entries",
    "format": "csv",
    "query": {"asset": "PTS", "from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"},
}
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})\Z")


class ExportJobsResource:
    """`/v1/exports…`"""

    def __init__(self, exports: ExportJobs, clock: Clock) -> None:
        self._exports = exports
        self._clock = clock

    @operation(
        "createExport",
        scope("exports:write"),
        tag="exports",
        body=ExportCreate,
        answers={202: ExportJobView},
        errors=(NotFound, Forbidden, InvalidState),
        example=_EXAMPLE,
        audited=True,
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Write a list or a report to a file in the background. The caller also needs the scope that reads the list or the report.

        A list contains what exists when a worker begins to write it.
        """
        body, _ = await read(req, ExportCreate)
        job = await self._exports.create(actor_of(req), body)
        note(req, **_facts(job))
        resp.set_header("Location", f"/v1/exports/{job.id}")
        send(resp, view_export(job, self._clock.now_ms()), 202)

    @operation("listExports", scope("exports:read"), tag="exports", query=ExportJobQuery, answers={200: ExportJobPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List exports, newest first. They are listed for 30 days after their file was removed."""
        jobs, cursor = await self._exports.list_page(read_query(req, ExportJobQuery))
        send(resp, ExportJobPage([view_export(job, self._clock.now_ms()) for job in jobs], cursor))

    @operation("getExport", scope("exports:read"), tag="exports", answers={200: ExportJobView}, errors=(NotFound,))
    async def on_get_one(self, _req: Request, resp: Response, export_id: str) -> None:
        """Get an export and its progress."""
        send(resp, view_export(await self._exports.get(export_id), self._clock.now_ms()))

    @operation("deleteExport", scope("exports:write"), tag="exports", answers={200: ExportJobView}, errors=(NotFound,))
    async def on_delete_one(self, _req: Request, resp: Response, export_id: str) -> None:
        """Delete an export and its file. An export that waits or is being written is cancelled."""
        send(resp, view_export(await self._exports.delete(export_id), self._clock.now_ms()))

    @operation(
        "downloadExport",
        scope("exports:read"),
        tag="exports",
        answers={200: None},
        media={
            "text/csv": "id,amount,scale\r\nmem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS#000000000001,100,0\r\n",
            FORMATS["parquet"].media_type: "PAR1…",
            FORMATS["xlsx"].media_type: "PK…",
        },
        errors=(NotFound, Forbidden, InvalidState, Overloaded),
        audited=True,
    )
    async def on_get_file(self, req: Request, resp: Response, export_id: str) -> None:
        """Download the file of an export that is done. The caller also needs the scope that reads the list or the report.

        `Repr-Digest` has the SHA-256 of the file. A CSV is sent with `Content-Encoding: gzip` to clients that accept it. `Range: bytes=…`
        with one range is answered with `206`; other ranges are ignored.
        """
        job = await self._exports.get_file(actor_of(req), export_id)
        note(req, **_facts(job))
        sent = _sent_of(req, job)
        resp.stream = self._exports.send(job, sent.part, gzip=sent.gzip)
        _describe(resp, job, sent)


class _Sent(NamedTuple):
    """Part and encoding of a file that is sent."""

    part: ByteRange
    partial: bool
    gzip: bool


def _facts(job: ExportJob) -> dict[str, str]:
    """Return what the audit log keeps of an export."""
    return {
        "export": job.id,
        "content": f"{'report' if job.list is None else 'list'} {job.list or job.report}",
        "format": job.format,
        "personal": "yes" if job.personal else "no",
    }


def _sent_of(req: Request, job: ExportJob) -> _Sent:
    part = _range_of(req, job)
    if part is not None:
        return _Sent(part, partial=True, gzip=False)
    return _Sent(ByteRange(0, job.size_bytes - 1), partial=False, gzip=FORMATS[job.format].compresses and _accepts_gzip(req))


def _describe(resp: Response, job: ExportJob, sent: _Sent) -> None:
    """Set the headers of a download."""
    digest = job.gzip_sha256 if sent.gzip else job.sha256
    assert digest is not None
    resp.content_type = FORMATS[job.format].media_type
    resp.set_header("Content-Disposition", f'attachment; filename="{file_name(job)}"')
    resp.set_header("Repr-Digest", f"sha-256=:{b64encode(digest).decode()}:")
    resp.set_header("ETag", _tag_of(job, gzip=sent.gzip))
    resp.set_header("Accept-Ranges", "bytes")
    resp.append_header("Vary", "Accept-Encoding")
    if sent.gzip:
        resp.set_header("Content-Encoding", "gzip")
    else:
        resp.content_length = sent.part.last - sent.part.first + 1
    if sent.partial:
        resp.status = 206
        resp.set_header("Content-Range", f"bytes {sent.part.first}-{sent.part.last}/{job.size_bytes}")


def file_name(job: ExportJob) -> str:
    """Return a file name that is safe in a header and in any file system."""
    return f"{job.list or job.report}-{job.id}.{job.format}"


def _tag_of(job: ExportJob, *, gzip: bool) -> str:
    assert job.sha256 is not None
    return f'"{job.sha256.hex()}{"-gzip" if gzip else ""}"'


def _range_of(req: Request, job: ExportJob) -> ByteRange | None:
    """Return the part of a file that the caller asks for. None for the whole file, and for ranges that are ignored."""
    match = _RANGE.match(req.get_header("Range") or "")
    condition = req.get_header("If-Range")
    if match is None or match.groups() == ("", "") or condition not in (None, _tag_of(job, gzip=False)):
        return None
    first, last = match.groups()
    end = job.size_bytes - 1
    if first == "":
        part = ByteRange(max(job.size_bytes - int(last), 0), end)
    else:
        part = ByteRange(int(first), end if last == "" else min(int(last), end))
    return part if part.first <= part.last else None


def _accepts_gzip(req: Request) -> bool:
    """Return True if the caller takes gzip and has not set its quality to 0."""
    for item in (req.get_header("Accept-Encoding") or "").lower().split(","):
        name, _, quality = item.strip().partition(";")
        if name.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def routes(exports: ExportJobs, clock: Clock) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of exports."""
    resource = ExportJobsResource(exports, clock)
    return [
        ("/v1/exports", resource, None),
        ("/v1/exports/{export_id}", resource, "one"),
        ("/v1/exports/{export_id}/file", resource, "file"),
    ]
