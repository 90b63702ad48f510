"""Who calls, and what a route asks of them."""

from typing import Literal

from msgspec import Struct

from guerdon.errors import Forbidden, NotFound, SecondFactorMissing, Unauthenticated

METRICS_SCOPE = "metrics:read"
ROLES_SCOPE, AUDIT_SCOPE, KEYS_SCOPE, ERASE_SCOPE = "members:roles", "audit:read", "keys:manage", "members:erase"
ADMIN_SCOPES = frozenset({ROLES_SCOPE, AUDIT_SCOPE, KEYS_SCOPE, ERASE_SCOPE})
"""To change what others may do, to see what they have done, and to destroy: no role but an admin's has these."""
EXPORT_SCOPE = "members:export"
SCOPES = frozenset({
    "members:read", "members:write", "members:manage", EXPORT_SCOPE, *ADMIN_SCOPES, "wallets:read", "wallets:write", "wallets:freeze", "wallets:manage", "assets:read", "assets:write",
    "events:read", "events:write", "campaigns:read", "campaigns:write", "offers:read", "offers:write",
    "vouchers:read", "vouchers:write", "vouchers:use", "clock:advance", METRICS_SCOPE,
})  # fmt: skip
ANY_SCOPE = "*"

NOBODYS = "there is no such thing, or it is not yours"
Role = Literal["member", "support", "operator", "admin"]
ROLE_SCOPES: dict[Role, frozenset[str]] = {
    "member": frozenset(),
    "support": frozenset(scope for scope in SCOPES - ADMIN_SCOPES if scope.endswith(":read")) | {"wallets:freeze"},
    "operator": SCOPES - ADMIN_SCOPES,
    "admin": frozenset({ANY_SCOPE}),
}


class Actor(Struct, frozen=True):
    """Whoever calls: a member with a token, an operator with a token, a service with a key, or nobody."""

    id: str
    kind: Literal["anonymous", "member", "operator", "service_key", "system"]
    scopes: frozenset[str] = frozenset()
    session: str | None = None
    """The session of somebody who has logged in."""

    def may(self, scope: str) -> bool:
        return scope in self.scopes or ANY_SCOPE in self.scopes

    def require_reach(self, member_id: str) -> None:
        """A member reaches only what is theirs; the answer does not tell a foreign thing from a missing one.

        Raises:
            NotFound: the thing belongs to somebody else.
        """
        if self.kind == "member" and self.id != member_id:
            raise NotFound(NOBODYS).concerning("access_denied", member_id)


ANONYMOUS = Actor("anonymous", "anonymous")


class Policy(Struct, frozen=True):
    """Who may call a route: everybody, holders of a scope, and (with `own`) members for what is theirs; or those who work here."""

    scope: str | None = None
    own: bool = False
    public: bool = False
    staff: bool = False

    def check(self, actor: Actor) -> None:
        """
        Raises:
            Unauthenticated: no valid credentials on a route that needs them.
            SecondFactorMissing: somebody who works here, in a session that began without a second factor where one is required.
            Forbidden: valid ones without the scope.
        """
        if self.public:
            return
        if actor.kind == "anonymous":
            raise Unauthenticated("send `Authorization: Bearer` with a service key or an access token")
        if self.scope is not None and actor.may(self.scope):
            return
        # Whoever works here passes by the scope alone: `Actor.require_reach` holds only members to what is theirs.
        if self.own and (actor.kind == "member" or (actor.kind == "operator" and self.scope is None)):
            return
        if self.staff and actor.kind == "operator":
            return
        if actor.kind == "operator" and not actor.scopes:
            raise SecondFactorMissing("log in with a second factor first: POST /v1/me/totp enrols one")
        raise Forbidden(f"this route needs the scope {self.scope}" if self.scope else "this route is for members")


PUBLIC = Policy(public=True)


def scope(name: str, *, own: bool = False) -> Policy:
    """Holders of the scope `name`; with `own`, members too, for what is theirs."""
    if name not in SCOPES:
        raise ValueError(f"unknown scope {name}")
    return Policy(scope=name, own=own)


STAFF = Policy(staff=True)
"""Support, operators and admins, for what is theirs, whatever scopes they have."""
OWN = Policy(own=True)
"""Anyone who has logged in, for what is theirs."""
