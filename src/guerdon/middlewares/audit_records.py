"""Records changes by staff, and changes of permissions by any caller, in the audit log: the request before the change, the response after it."""

from collections.abc import Mapping
from typing import Any

from guerdon.audit_log.service import AuditLog
from guerdon.http.dry_run import DRY_RUN
from guerdon.http.operation import SAFE_METHODS, Operation, Request, Response, in_time
from guerdon.permissions import ADMIN_SCOPES


class AuditRecords:
    """Writes the records of a request. It must run after the authentication. If the log cannot be written, the request fails."""

    def __init__(self, audit: AuditLog, operations: Mapping[tuple[str, str], Operation]) -> None:
        self._audit = audit
        self._operations = operations

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        declared = self._operations.get((req.uri_template or "", req.method))
        actor = req.context.actor
        # A dry run changes nothing.
        if declared is None or (declared.dry_run is not None and req.query_string == DRY_RUN):
            return
        if declared.audited:
            audited = actor.kind != "member"
        else:  # Services are audited only when they change permissions.
            audited = req.method not in SAFE_METHODS and (actor.kind == "operator" or declared.policy.scope in ADMIN_SCOPES)
        if not audited:
            return
        # The code of a voucher is a secret, so it is not recorded. The handler notes the voucher's owner.
        subject = {} if declared.guesses else {name: str(value)[:200] for name, value in params.items()}
        req.context.audited = (actor.id, declared.operation_id, subject)
        await in_time(
            req,
            self._audit.append("asked", actor.id, declared.operation_id, subject, request_id=req.context.request_id),
        )

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        audited = getattr(req.context, "audited", None)
        if audited is None:
            return
        actor, action, subject = audited
        facts = getattr(req.context, "facts", None)
        await self._audit.append(
            "answered", actor, action, subject, request_id=req.context.request_id, status=resp.status_code, facts=facts
        )
