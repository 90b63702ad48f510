"""Prints docs/api/scopes.md, the list of scopes with their routes and roles, from what the routes declare: `make docs`."""

from pathlib import Path

from guerdon.permissions import ANY_SCOPE, ROLE_SCOPES, SCOPES
from guerdon.system.openapi import operations_of
from tests.tidy.openapi import declared_routes

PATH = Path(__file__).parents[2] / "docs" / "api" / "scopes.md"
_HEAD = """# Scopes

`make docs` writes this page from `SCOPES`, the roles and what the routes declare. A service key carries the scopes that it was created with,
or `*` for all. A person has the scopes of the role: `x` marks them. The role `member` has no scopes; members reach what is their own, see
[access.md](../access.md).

"""


def current() -> str:
    """Return the page as the code is now."""
    roles = [role for role, scopes in ROLE_SCOPES.items() if scopes]
    routes: dict[str, list[str]] = {name: [] for name in SCOPES}
    for path, resource, suffix in sorted(declared_routes(), key=lambda route: route[0]):
        for method, declared in operations_of(path, resource, suffix).items():
            if declared.policy.scope is not None:
                routes[declared.policy.scope].append(f"`{method} {path}`")
    rows = [("scope", *roles, "routes"), ("---",) * (2 + len(roles))]
    for name in sorted(SCOPES):
        held = ("x" if ROLE_SCOPES[role] & {name, ANY_SCOPE} else "" for role in roles)
        rows.append((f"`{name}`", *held, ", ".join(routes[name]) or "none in this version"))
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
