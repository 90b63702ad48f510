"""Says who calls, and holds every route to its policy before the handler runs."""

from collections.abc import Mapping
from typing import Any

from guerdon.access.service import Access
from guerdon.errors import Unauthenticated
from guerdon.http.deadline import in_time
from guerdon.http.operation import SAFE_METHODS, Operation, Request, Response
from guerdon.middlewares.rate_limits import AnonymousLimit
from guerdon.permissions import Actor
from guerdon.sessions.service import Sessions


class Authentication:
    """Looks the route's policy up in the table that the composition root has checked to be complete."""

    def __init__(
        self, access: Access, sessions: Sessions, strangers: AnonymousLimit, operations: Mapping[tuple[str, str], Operation]
    ) -> None:
        self._access = access
        self._sessions = sessions
        self._strangers = strangers
        self._operations = operations

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        declared = self._operations.get((req.uri_template or "", req.method))
        if declared is None:
            return  # The framework's own answers: 405, and OPTIONS, which names the methods.
        if not declared.policy.public:
            authorization = req.get_header("Authorization")
            actor = self._access.recall(authorization)
            if actor is None:
                self._strangers.require_credit(req, authorization)
                actor = await self._prove(req, authorization)
            if actor.session is not None:
                # A session that ended or a role that changed lately may still read for a moment; it changes nothing any more.
                actor = await in_time(req, self._sessions.stand(actor, fresh=req.method not in SAFE_METHODS))
            req.context.actor = actor
            declared.policy.check(actor)

    async def _prove(self, req: Request, authorization: str | None) -> Actor:
        try:
            return await in_time(req, self._access.authenticate(authorization))
        except Unauthenticated as error:
            if error.is_guess:  # A token that has expired is none: every app shows one once in a while.
                self._strangers.count_invalid(req)
            raise
