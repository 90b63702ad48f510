"""Scopes that a caller may grant."""

from collections.abc import Iterable

from guerdon.errors import Forbidden, Validation
from guerdon.permissions import ANY_SCOPE, SCOPES, Actor


def require_grantable(actor: Actor, scopes: Iterable[str]) -> None:
    """Nobody hands out what they do not have.

    Raises:
        Forbidden: the caller lacks one of the scopes.
    """
    lacking = next((name for name in scopes if not actor.may(name)), None)
    if lacking is not None:
        raise Forbidden(f"a key cannot get the scope {lacking} from a caller who lacks it")


def known_scopes(scopes: Iterable[str]) -> list[str]:
    """Return the scopes sorted and without repeats.

    Raises:
        Validation: there is none, or one that no route asks for.
    """
    wanted = sorted(set(scopes))
    if not wanted:
        raise Validation.at("/scopes", "a key needs at least one scope")
    if any(name != ANY_SCOPE and name not in SCOPES for name in wanted):
        # Not repeated: what stands in a wrong place may be a secret.
        raise Validation.at("/scopes", f"an unknown scope; known are {ANY_SCOPE}, {', '.join(sorted(SCOPES))}")
    return wanted
