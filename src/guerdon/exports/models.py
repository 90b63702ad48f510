"""Stored and wire structs of exports."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.erasable_data import SealedField
from guerdon.exports.formats import FileFormat
from guerdon.types import EXPECTED, PageQuery, Text

EXPORT_JOBS, EXPORT_CHUNKS = "export_jobs", "export_chunks"
INDEXES: dict[str, list[IndexModel]] = {
    EXPORT_JOBS: [
        # Partial: workers search every second for the few exports with work left.
        IndexModel([("lane", 1), ("_id", 1)], name="open", partialFilterExpression={"lane": {"$gte": 0}}),
        IndexModel([("due_at", 1)], name="due", partialFilterExpression={"due_at": {"$gte": 0}}),
        # An erasure withdraws the files that may contain the member.
        IndexModel([("members", 1), ("status", 1)], name="members", partialFilterExpression={"members": True}),
        IndexModel([("remove_at", 1)], name="expiry", expireAfterSeconds=0),
    ],
    # The chunks of a file are found by the prefix `{export}/` of `_id`.
    EXPORT_CHUNKS: [],
}
LANES = 2
"""Maximum number of exports that are written at the same time, independent of the number of workers."""
FREE = 0
"""Value of `lane` for an export that no worker has started."""
OPEN_MAX, OPEN_EACH_MAX = 50, 5
"""Maximum number of exports that wait or are written: of all callers, and of one caller."""
KEPT_DAYS = 30
"""Days for which an export is listed after its file was removed."""

ExportStatus = Literal["waiting", "running", "done", "failed", "expired"]
StoredStatus = Literal["waiting", "running", "done", "failed", "expired", "deleted"]
ListName = Literal["entries", "members", "events", "vouchers", "campaigns", "wallets"]
ReportName = Annotated[
    str,
    Meta(
        max_length=40,
        pattern=r"^[a-z][a-z-]{0,39}$(?!\n)",
        extra={EXPECTED: "must be the name of a report, such as roll-forward"},
    ),
]
ExportParameters = Annotated[
    dict[
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=40,
                pattern=r"^[a-z][a-z0-9_]*$(?!\n)",
                extra={EXPECTED: "must consist of lower-case letters, digits and _, and begin with a letter"},
            ),
        ],
        Text | Annotated[int, Meta(ge=-(2**53), le=2**53)] | bool,
    ],
    Meta(max_length=20, examples=[{"asset": "PTS", "from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}]),
]


# --- wire -----------------------------------------------------------------------------------------------------------


class ExportCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A list or a report to write to a file. Give `list` or `report`."""

    list: ListName | None = None
    """Name of a list."""
    report: ReportName | None = None
    """Name of a report of `GET /v1/reports`."""
    format: FileFormat = "csv"
    """Format of the file. `parquet` and `xlsx` need an extra on the server; `xlsx` holds at most 50,000 rows."""
    query: ExportParameters = {}
    """Filters of the list, or parameters of the report."""
    personal: bool = False
    """True to add the columns with personal data to the list `members`. It needs the scope `members:export`."""


class ExportJobView(Struct, frozen=True):
    """An export and its file."""

    id: str
    """Id of the export."""
    status: ExportStatus
    """`waiting`, `running`, `done` while the file can be downloaded, `failed`, or `expired` after the file was removed."""
    list: str | None
    """Name of the list; null for a report."""
    report: str | None
    """Name of the report; null for a list."""
    format: FileFormat
    """Format of the file."""
    query: ExportParameters
    """Filters of the list, or parameters of the report."""
    personal: bool
    """True if the file has the columns with personal data."""
    rows: int
    """Number of rows that were written so far."""
    bytes: int
    """Size of the file in bytes so far."""
    sha256: str | None
    """SHA-256 of the file in hexadecimal; null unless the export is done."""
    as_of: str | None
    """Time up to which the file contains changes, RFC 3339 in UTC; null before the export runs."""
    error: str | None
    """Reason of a failure, or of the removal of a file before its time; otherwise null."""
    created_by: str
    """Id of the caller who created the export."""
    created_at: str
    """Time of creation, RFC 3339 in UTC."""
    ended_at: str | None
    """Time at which the export was done or failed, RFC 3339 in UTC; null before."""
    expires_at: str | None
    """Time at which the file is removed, RFC 3339 in UTC; null unless there was a file."""


class ExportJobPage(Struct, frozen=True):
    """A page of exports, newest first."""

    items: list[ExportJobView]
    """Exports of the page."""
    next_cursor: str | None
    """Cursor of the next page. Null on the last page."""


class ExportJobQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of exports, newest first."""


# --- stored ---------------------------------------------------------------------------------------------------------


class ExportJob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An export as stored. Times are milliseconds since the epoch."""

    id: str = field(name="_id")
    created_at: int
    created_by: str
    list: ListName | None = None
    report: str | None = None
    format: FileFormat
    query: dict[str, str | int | bool] = {}
    personal: bool = False
    members: bool = False
    """True while there may be a file with data of the members list. An erasure withdraws it."""
    status: StoredStatus = "waiting"
    lane: int | None = None
    """Lane of the workers that writes it, or `FREE`; None when no work is left."""
    epoch: int = 0
    """Number of starts. Every write requires the number of its own start, so that a worker without the lease writes nothing."""
    wrapped: bytes | None = None
    """The key of the file, sealed by a master key. Without it the chunks cannot be read."""
    as_of: int | None = None
    rows: int = 0
    size_bytes: int = field(name="bytes", default=0)
    """Stored as `bytes`."""
    stored: int = 0
    """Bytes of the chunks, after compression."""
    chunks: int = 0
    crc32: int = 0
    sha256: bytes | None = None
    gzip_sha256: bytes | None = None
    """SHA-256 of the file as it is sent with `Content-Encoding: gzip`."""
    ended_at: int | None = None
    expires_at: int | None = None
    due_at: int | None = None
    """Time from which the file has to be removed; None if there is no file."""
    error: str | None = None
    remove_at: datetime | None = None
    """Time from which MongoDB deletes the row."""


class ExportChunk(Struct, frozen=True, kw_only=True):
    """A chunk of a file."""

    id: str = field(name="_id")
    """`{export}/{epoch}/{number}` with six and eight digits."""
    data: bytes
    """Sealed bytes of the file, compressed before if the format compresses."""


def chunk_id(export_id: str, epoch: int, number: int) -> str:
    return f"{export_id}/{epoch:06d}/{number:08d}"


def key_context(export_id: str) -> str:
    """Return the context to which the key of a file is bound."""
    return f"key of {export_id}"


SEALED_FIELDS = [SealedField(EXPORT_JOBS, "wrapped", lambda row: key_context(row["_id"]))]


def view_export(stored: ExportJob, now_ms: int) -> ExportJobView:
    """Return the view of an export. A file whose time is over is expired, even before a worker has removed it."""
    over = stored.status == "deleted" or (stored.status == "done" and stored.due_at is not None and stored.due_at <= now_ms)
    status: ExportStatus = "expired" if over or stored.status == "deleted" else stored.status
    return ExportJobView(
        id=stored.id,
        status=status,
        list=stored.list,
        report=stored.report,
        format=stored.format,
        query=stored.query,
        personal=stored.personal,
        rows=stored.rows,
        bytes=stored.size_bytes,
        sha256=None if stored.sha256 is None else stored.sha256.hex(),
        as_of=optional_rfc3339(stored.as_of),
        error=stored.error,
        created_by=stored.created_by,
        created_at=rfc3339(stored.created_at),
        ended_at=optional_rfc3339(stored.ended_at),
        expires_at=optional_rfc3339(stored.expires_at),
    )
