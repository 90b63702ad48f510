"""Writes down what people who work here change, and whoever changes what others may do: that they asked before it is done, and how they were answered afterwards."""

from collections.abc import Mapping
from typing import Any

from guerdon.audit_log.service import AuditLog
from guerdon.http.deadline import in_time
from guerdon.http.operation import SAFE_METHODS, Operation, Request, Response
from guerdon.permissions import ADMIN_SCOPES, Actor


class Auditing:
    """Stands behind the authentication. If the log cannot be written, nothing is done."""

    def __init__(self, audit: AuditLog, operations: Mapping[tuple[str, str], Operation]) -> None:
        self._audit = audit
        self._operations = operations

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        declared = self._operations.get((req.uri_template or "", req.method))
        actor = req.context.actor
        if declared is None or not _is_audited(declared, actor, req.method):
            return
        # A code opens something for whoever reads it; the handler notes whose it is.
        subject = {} if declared.guesses else {name: str(value)[:200] for name, value in params.items()}
        req.context.audited = (actor.id, declared.operation_id, subject)
        await in_time(
            req,
            self._audit.append("asked", actor.id, declared.operation_id, subject, request_id=req.context.request_id),
        )

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        asked = getattr(req.context, "audited", None)
        if asked is None:
            return
        actor, action, subject = asked
        facts = getattr(req.context, "facts", None)
        await self._audit.append(
            "answered", actor, action, subject, request_id=req.context.request_id, status=resp.status_code, facts=facts
        )


def _is_audited(declared: Operation, actor: Actor, method: str) -> bool:
    if declared.audited:
        return actor.kind != "member"
    # A service too, where it changes what others may do.
    return method not in SAFE_METHODS and (actor.kind == "operator" or declared.policy.scope in ADMIN_SCOPES)
