"""Actors, roles and scopes, and the access policy of each route."""

from typing import Literal

from msgspec import Struct

from guerdon.errors import Forbidden, NotFound, SecondFactorMissing, Unauthenticated

METRICS_SCOPE = "metrics:read"
ROLES_SCOPE, AUDIT_SCOPE, KEYS_SCOPE, ERASE_SCOPE = "members:roles", "audit:read", "keys:manage", "members:erase"
ADMIN_SCOPES = frozenset({ROLES_SCOPE, AUDIT_SCOPE, KEYS_SCOPE, ERASE_SCOPE})
"""Scopes to change permissions, to read the audit log and to erase. Of the roles, only `admin` has them."""
EXPORT_SCOPE = "members:export"
SCOPES = frozenset({
    "members:read", "members:write", "members:manage", EXPORT_SCOPE, *ADMIN_SCOPES, "wallets:read", "wallets:write", "wallets:freeze", "wallets:manage", "assets:read", "assets:write",
    "events:read", "events:write", "events:void", "campaigns:read", "campaigns:write", "offers:read", "offers:write",
    "vouchers:read", "vouchers:write", "vouchers:use", "rates:read", "rates:write", "segments:read", "segments:write", "reports:read", "reports:write", "views:write", "closings:read", "closings:write", "exports:read", "exports:write", "clock:advance", METRICS_SCOPE,
})  # fmt: skip
VALUE_SCOPES = frozenset({"members:write", "wallets:write", "events:write", "vouchers:write", "vouchers:use"})
"""Scopes to register members, record events and move value: the daily work of services, which the ledger and the documents record."""
CONFIGURATION_SCOPES = frozenset(scope for scope in SCOPES - VALUE_SCOPES if not scope.endswith(":read")) | ADMIN_SCOPES
"""Scopes to change how the programme works. The audit log has every change with one of them, by any caller."""
ANY_SCOPE = "*"

MISSING_OR_FOREIGN = "this does not exist, or it belongs to another member"
Role = Literal["member", "support", "operator", "admin"]
ROLE_SCOPES: dict[Role, frozenset[str]] = {
    "member": frozenset(),
    "support": frozenset(scope for scope in SCOPES - ADMIN_SCOPES if scope.endswith(":read")) | {"wallets:freeze"},
    "operator": SCOPES - ADMIN_SCOPES,
    "admin": frozenset({ANY_SCOPE}),
}


class Actor(Struct, frozen=True):
    """The caller of a request: a member or a staff person with an access token, a service with a key, or an anonymous caller."""

    id: str
    kind: Literal["anonymous", "member", "operator", "service_key", "system"]
    """`operator` is any role of staff."""
    scopes: frozenset[str] = frozenset()
    session: str | None = None
    """Id of the caller's session, for members and staff."""

    def may(self, scope: str) -> bool:
        """Return True if the caller has `scope`."""
        return scope in self.scopes or ANY_SCOPE in self.scopes

    def require_reach(self, member_id: str) -> None:
        """Check that a caller who is a member reads only their own data. The error is the same as for data that does not exist.

        Raises:
            NotFound: the caller is another member.
        """
        if self.kind == "member" and self.id != member_id:
            raise NotFound(MISSING_OR_FOREIGN).concerning("access_denied", member_id)


ANONYMOUS = Actor("anonymous", "anonymous")


class Policy(Struct, frozen=True):
    """Access policy of a route."""

    scope: str | None = None
    """Holders of this scope may call."""
    own: bool = False
    """Members may call for their own data."""
    public: bool = False
    """Everyone may call."""
    staff: bool = False
    """Staff may call, with any scopes."""

    def check(self, actor: Actor) -> None:
        """Check that the actor may call the route.

        Raises:
            Unauthenticated: the route needs credentials and the caller is anonymous.
            SecondFactorMissing: a second factor is required, and the session of this staff person began without one.
            Forbidden: the caller lacks the scope.
        """
        if self.public:
            return
        if actor.kind == "anonymous":
            raise Unauthenticated("send `Authorization: Bearer` with a service key or an access token")
        if self.scope is not None and actor.may(self.scope):
            return
        # Staff pass by the scope alone: `Actor.require_reach` restricts only members to their own data.
        if self.own and (actor.kind == "member" or (actor.kind == "operator" and self.scope is None)):
            return
        if self.staff and actor.kind == "operator":
            return
        if actor.kind == "operator" and not actor.scopes:
            raise SecondFactorMissing("log in with a second factor; POST /v1/me/totp enrols one")
        raise Forbidden(f"this route needs the scope {self.scope}" if self.scope else "this route is for members")


PUBLIC = Policy(public=True)


def scope(name: str, *, own: bool = False) -> Policy:
    """Return the policy of a route for holders of the scope `name` and, with `own`, for members and their own data."""
    if name not in SCOPES:
        raise ValueError(f"unknown scope {name}")
    return Policy(scope=name, own=own)


STAFF = Policy(staff=True)
"""Staff, for their own data, with any scopes."""
OWN = Policy(own=True)
"""Everyone who has logged in, for their own data."""
