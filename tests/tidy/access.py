"""Writes docs/access.md, the committed table of who may call what: `make docs`. The tests of access hold the service to the same rule."""

from pathlib import Path
from typing import Literal, get_args

from guerdon.permissions import ANY_SCOPE, ROLE_SCOPES, Policy, Role
from guerdon.system.openapi import operations_of
from tests.tidy.openapi import declared_routes

PATH = Path(__file__).parents[2] / "docs" / "access.md"
Reach = Literal["all", "own", "—"]
ROLES: tuple[Role, ...] = get_args(Role)
_HEAD = """# Who may call what

Written by `make docs` from what the routes declare; the tests call every route as each of these callers. A change of who
may do what is a change of this page.

`all`: for everybody's things; `own`: for the caller's own things, anybody else's are answered like missing ones; `—`:
refused. A service key works for the whole deployment and may do what its scopes say, for all members; there is no key
for what only a person can do. The roles `support`, `operator` and `admin` are people who work here.

"""


def reach(policy: Policy, role: Role | None) -> Reach:
    """How far somebody with a role gets, or somebody without credentials (None)."""
    if policy.public:
        return "all"
    if role is None:
        return "—"
    if policy.scope is not None and ROLE_SCOPES[role] & {policy.scope, ANY_SCOPE}:
        return "all"
    if policy.staff:
        return "—" if role == "member" else "own"
    # Those who work here have no things that a scope guards; what asks for no scope (log-ins, profile) is theirs as everybody's.
    return "own" if policy.own and (role == "member" or policy.scope is None) else "—"


def reach_of_key(policy: Policy, scopes: frozenset[str]) -> Reach:
    """How far a service key with these scopes gets."""
    return "all" if policy.public or (policy.scope is not None and scopes & {policy.scope, ANY_SCOPE}) else "—"


def current() -> str:
    """Return what the code says now."""
    rows = [("operation", "route", "nobody", *ROLES, "key with"), ("---",) * (4 + len(ROLES))]
    for path, resource, suffix in sorted(declared_routes(), key=lambda route: route[0]):
        for method, declared in operations_of(path, resource, suffix).items():
            policy = declared.policy
            key = "any" if policy.public else f"`{policy.scope}`" if policy.scope else "—"
            people = [reach(policy, role) for role in (None, *ROLES)]
            rows.append((declared.operation_id, f"`{method} {path}`", *people, key))
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
