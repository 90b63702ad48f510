"""The route of the audit log."""

from guerdon.audit_log.models import AuditPage, AuditQuery, view_record
from guerdon.audit_log.service import AuditLog
from guerdon.http.cursor import decode_number, encode_cursor
from guerdon.http.operation import Request, Response, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import AUDIT_SCOPE, scope

SEQ_DIGITS_MAX = 18
"""Maximum number of digits of a record's number, so that it fits into 64 bits."""


class AuditResource:
    """`/v1/audit`"""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    @operation("listAudit", scope(AUDIT_SCOPE), tag="audit", query=AuditQuery, answers={200: AuditPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List the records of the audit log, newest first."""
        query = read_query(req, AuditQuery)
        before = None if query.cursor is None else decode_number(query.cursor, SEQ_DIGITS_MAX)
        records, next_before = await self._audit.list_records(query.limit, before)
        send(resp, AuditPage([view_record(record) for record in records], next_before and encode_cursor(next_before)))


def routes(audit: AuditLog) -> list[tuple[str, object, str | None]]:
    """Return (path, resource, suffix) of every route of the audit log."""
    return [("/v1/audit", AuditResource(audit), None)]
