"""Scopes that a caller may grant."""

from collections.abc import Iterable

from guerdon.errors import Forbidden, Validation
from guerdon.permissions import ANY_SCOPE, SCOPES, Actor


def require_grantable(actor: Actor, scopes: Iterable[str]) -> None:
    """Check that the caller has every scope that a new key is to have.

    Raises:
        Forbidden: the caller lacks one of the scopes.
    """
    lacking = next((name for name in scopes if not actor.may(name)), None)
    if lacking is not None:
        raise Forbidden(f"you can only grant scopes that you have; you lack {lacking}")


def known_scopes(scopes: Iterable[str]) -> list[str]:
    """Return the scopes sorted and without repeats.

    Raises:
        Validation: there is no scope, or one does not exist.
    """
    distinct = sorted(set(scopes))
    if not distinct:
        raise Validation.at("/scopes", "a key needs at least one scope")
    if any(name != ANY_SCOPE and name not in SCOPES for name in distinct):
        # The value is not repeated: text in the wrong field may be a secret.
        raise Validation.at("/scopes", f"a scope does not exist; use {ANY_SCOPE} or any of {', '.join(sorted(SCOPES))}")
    return distinct
