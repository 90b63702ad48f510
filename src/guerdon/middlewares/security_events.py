"""One line in the log for everything that somebody who looks after security wants to see (ASVS 16.3), and nothing for the rest.

What happened is told by the operation, the status, and what the error says besides. A route that matters joins the table below; a service that
knows more than status and code say it with `GuerdonError.concerning`, and a handler names what was changed with `http.note`.
"""

import re
from collections.abc import Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger

from guerdon.http.operation import AnsweredError, Operation, Request, Response
from guerdon.logs import tell_security

DONE: Mapping[str, str] = {
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
"""By operation: what it is called when it has succeeded."""
BY_PEOPLE: Mapping[str, str] = dict.fromkeys(
    ("creditWallet", "debitWallet", "createTransfer", "runBulk", "reverseTransaction"), "manual_adjustment"
)
"""The same for what services do all day, and people who work here seldom."""
ENTRIES: Mapping[str, str] = {"logIn": "login_failed", "resetPassword": "password_reset_failed"}
"""Operations that let somebody in: what it is called when they do not."""
PROVING = frozenset({"refresh"})
"""Operations whose body holds credentials."""
_ID = re.compile(r"([a-z]{3}_([a-z]{3}_)?[0-9a-f]{32}(:[A-Za-z0-9]{1,20}){0,2}|[0-9A-Za-z]{12})\Z")
"""An id of ours. What else stands in a path may be anything, a name or an address too."""
_WORD = re.compile(r"[A-Za-z0-9_:.*, -]{1,500}\Z")


class SecurityEvents:
    """Stands outside of whatever may refuse a request."""

    def __init__(self, log: FilteringBoundLogger, operations: Mapping[tuple[str, str], Operation]) -> None:
        self._log = log
        self._operations = operations
        named = {*DONE, *BY_PEOPLE}
        self._named = {route: declared.operation_id for route, declared in operations.items() if declared.operation_id in named}

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        context = req.context
        refusal: AnsweredError | None = context.refusal
        if refusal is None:
            name = self._named.get((req.uri_template or "", req.method))
            if name is None or (name in BY_PEOPLE and context.actor.kind != "operator"):
                return
            self._tell(req, DONE.get(name) or BY_PEOPLE[name], "done", resp.status_code)
        elif refusal.incident is not None or refusal.status in (401, 403, 429):
            failure = self._failure(req, refusal)
            if failure is not None:
                self._tell(req, failure, "refused", resp.status_code)

    def _failure(self, req: Request, refusal: AnsweredError) -> str | None:
        """Return what a refusal is called; a request that shows no credentials at all is nothing to write about."""
        if refusal.status == 429:
            return "limit_hit"
        if refusal.incident is not None:
            return refusal.incident[0]
        if refusal.status == 403:
            return "access_denied"
        operation = self._operation_of(req)
        if operation in ENTRIES:
            return ENTRIES[operation]
        shown = operation in PROVING or req.get_header("Authorization") is not None
        return "credentials_invalid" if shown else None

    def _operation_of(self, req: Request) -> str:
        declared = self._operations.get((req.uri_template or "", req.method))
        return "unmatched" if declared is None else declared.operation_id

    def _tell(self, req: Request, name: str, result: str, status: int) -> None:
        context = req.context
        refusal: AnsweredError | None = context.refusal
        subject = {**self._ids_in_path(req), **_words(getattr(context, "facts", None) or {})}
        if refusal is not None and refusal.incident is not None:
            subject["about"] = refusal.incident[1]
        tell_security(
            self._log,
            name,
            actor=context.actor.id,
            subject=subject,
            result=result,
            request_id=context.request_id,
            operation=self._operation_of(req),
            status=status,
            **({} if refusal is None else _about(refusal)),
        )

    def _ids_in_path(self, req: Request) -> dict[str, str]:
        declared = self._operations.get((req.uri_template or "", req.method))
        if declared is not None and declared.guesses:
            return {}  # A code may look like an id.
        template, path = (req.uri_template or "").split("/"), req.path.split("/")
        pairs = zip(template, path, strict=False)
        return {name[1:-1]: value for name, value in pairs if name.startswith("{") and _ID.match(value)}


def _about(refusal: AnsweredError) -> dict[str, object]:
    return {"code": refusal.code} if refusal.quota is None else {"code": refusal.code, "quota": refusal.quota}


def _words(facts: Mapping[str, Any]) -> dict[str, str]:
    """What handlers note are ids, roles and scopes; anything else stays out."""
    return {name: value for name, value in facts.items() if isinstance(value, str) and (_ID.match(value) or _WORD.match(value))}
