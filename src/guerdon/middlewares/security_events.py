"""One log line for each security-relevant event (ASVS 16.3), and none for other requests.

The event follows from the operation, the status and the error. To log another operation, add it to the tables below. A service adds details
of an error with `GuerdonError.concerning`, and a handler adds details of a change with `http.operation.note`.
"""

import re
from collections.abc import Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger

from guerdon.http.operation import AnsweredError, Operation, Request, Response
from guerdon.logs import log_security_event

SUCCESS_EVENTS: Mapping[str, str] = {
    "logIn": "login",
    "changeMyPassword": "password_changed",
    "resetPassword": "password_reset",
    "confirmFactor": "second_factor_added",
    "removeFactor": "second_factor_removed",
    "renewRecoveryCodes": "recovery_codes_renewed",
    "createKey": "key_created",
    "revokeKey": "key_revoked",
    "setRole": "role_changed",
    "disableMember": "member_disabled",
    "enableMember": "member_enabled",
    "eraseMember": "member_erased",
    "eraseMe": "member_erased",
    "exportMember": "member_exported",
    "exportMe": "member_exported",
}
"""Event of a successful operation."""
STAFF_EVENTS: Mapping[str, str] = dict.fromkeys(
    ("creditWallet", "debitWallet", "createTransfer", "runBulk", "reverseTransaction"), "manual_adjustment"
)
"""Event of a successful operation of staff. The same operations of services are routine and are not logged."""
FAILURE_EVENTS: Mapping[str, str] = {"logIn": "login_failed", "resetPassword": "password_reset_failed"}
"""Event of a refused operation that authenticates the caller."""
WITH_CREDENTIALS = frozenset({"refresh"})
"""Operations whose body contains credentials."""
_ID = re.compile(r"([a-z]{3}_([a-z]{3}_)?[0-9a-f]{32}(:[A-Za-z0-9]{1,20}){0,2}|[0-9A-Za-z]{12})\Z")
"""An id of this service. Other text in a path is not logged, because it may be a name or an address."""
_WORD = re.compile(r"[A-Za-z0-9_:.*, -]{1,500}\Z")


class SecurityEvents:
    """Logs the security event of a response. It must run outside of every middleware that may refuse a request."""

    def __init__(self, log: FilteringBoundLogger, operations: Mapping[tuple[str, str], Operation]) -> None:
        self._log = log
        self._operations = operations
        named = {*SUCCESS_EVENTS, *STAFF_EVENTS}
        self._named = {route: declared.operation_id for route, declared in operations.items() if declared.operation_id in named}

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        context = req.context
        refusal: AnsweredError | None = context.refusal
        if refusal is None:
            name = self._named.get((req.uri_template or "", req.method))
            if name is None or (name in STAFF_EVENTS and context.actor.kind != "operator"):
                return
            self._log_event(req, SUCCESS_EVENTS.get(name) or STAFF_EVENTS[name], "done", resp.status_code)
        elif refusal.incident is not None or refusal.status in (401, 403, 429):
            event = self._refusal_event(req, refusal)
            if event is not None:
                self._log_event(req, event, "refused", resp.status_code)

    def _refusal_event(self, req: Request, refusal: AnsweredError) -> str | None:
        """Return the event of a refused request, or None for a request without credentials."""
        if refusal.status == 429:
            return "limit_hit"
        if refusal.incident is not None:
            return refusal.incident[0]
        if refusal.status == 403:
            return "access_denied"
        operation = self._operation_of(req)
        if operation in FAILURE_EVENTS:
            return FAILURE_EVENTS[operation]
        has_credentials = operation in WITH_CREDENTIALS or req.get_header("Authorization") is not None
        return "credentials_invalid" if has_credentials else None

    def _operation_of(self, req: Request) -> str:
        declared = self._operations.get((req.uri_template or "", req.method))
        return "unmatched" if declared is None else declared.operation_id

    def _log_event(self, req: Request, name: str, result: str, status: int) -> None:
        context = req.context
        refusal: AnsweredError | None = context.refusal
        subject = {**self._ids_in_path(req), **_words(getattr(context, "facts", None) or {})}
        if refusal is not None and refusal.incident is not None:
            subject["about"] = refusal.incident[1]
        log_security_event(
            self._log,
            name,
            actor=context.actor.id,
            subject=subject,
            result=result,
            request_id=context.request_id,
            operation=self._operation_of(req),
            status=status,
            **({} if refusal is None else _error_fields(refusal)),
        )

    def _ids_in_path(self, req: Request) -> dict[str, str]:
        declared = self._operations.get((req.uri_template or "", req.method))
        if declared is not None and declared.guesses:
            return {}  # The code of a voucher may look like an id.
        template, path = (req.uri_template or "").split("/"), req.path.split("/")
        pairs = zip(template, path, strict=False)
        return {name[1:-1]: value for name, value in pairs if name.startswith("{") and _ID.match(value)}


def _error_fields(refusal: AnsweredError) -> dict[str, object]:
    return {"code": refusal.code} if refusal.quota is None else {"code": refusal.code, "quota": refusal.quota}


def _words(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the noted details that are ids, roles or scopes. Other text is not logged."""
    return {name: value for name, value in facts.items() if isinstance(value, str) and (_ID.match(value) or _WORD.match(value))}
