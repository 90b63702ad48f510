"""Authenticates the caller and checks the policy of the route, before the handler runs."""

from collections.abc import Mapping
from typing import Any

from guerdon.access.service import Access
from guerdon.errors import Unauthenticated
from guerdon.http.operation import SAFE_METHODS, Operation, Request, Response, in_time
from guerdon.middlewares.rate_limits import AnonymousLimit
from guerdon.permissions import Actor
from guerdon.sessions.service import Sessions


class Authentication:
    """Checks the policy of the route. The start-up checks that every route has one."""

    def __init__(
        self, access: Access, sessions: Sessions, anonymous_limit: AnonymousLimit, operations: Mapping[tuple[str, str], Operation]
    ) -> None:
        self._access = access
        self._sessions = sessions
        self._anonymous_limit = anonymous_limit
        self._operations = operations

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        declared = self._operations.get((req.uri_template or "", req.method))
        if declared is None:
            return  # The framework's own responses: 405, and OPTIONS.
        if not declared.policy.public:
            authorization = req.get_header("Authorization")
            actor = self._access.find_recent(authorization)
            if actor is None:
                self._anonymous_limit.require_credit(req, authorization)
                actor = await self._authenticate(req, authorization)
            if actor.session is not None:
                # After a session ends or a role changes, requests that read may see the earlier state for some seconds; other requests do not.
                actor = await in_time(req, self._sessions.current_actor(actor, fresh=req.method not in SAFE_METHODS))
            req.context.actor = actor
            declared.policy.check(actor)

    async def _authenticate(self, req: Request, authorization: str | None) -> Actor:
        try:
            return await in_time(req, self._access.authenticate(authorization))
        except Unauthenticated as error:
            if error.is_guess:  # An expired token is not a guess: every client sends one from time to time.
                self._anonymous_limit.count_invalid(req)
            raise
