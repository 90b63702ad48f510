"""Pure rules of sessions: their validity, and the effect of presenting a refresh token."""

from typing import Literal

from guerdon.members.models import Member
from guerdon.sessions.models import Session
from guerdon.sessions.refresh import RefreshToken

GRACE_MS = 10_000
"""Time for which the previous token returns the current one again, for a client that has not received the response."""

Meaning = Literal["rotate", "repeat", "ended", "reused", "foreign"]
"""Effect of a refresh token. `repeat` returns the current token again; `reused` ends the session; `foreign` belongs to no such session."""


def is_live(session: Session, now_ms: int, idle_ms: int) -> bool:
    """Return True until the session ends or has been idle for `idle_ms`."""
    return now_ms < min(session.ends_at, session.used_at + idle_ms)


def may_go_on(session: Session, member: Member) -> bool:
    """Return True if the member is not disabled and has not changed the password since the session began, except in this session."""
    return member.disabled_at is None and (session.epoch == member.epoch or session.id == member.spared)


def meaning_of(shown: RefreshToken, session: Session, now_ms: int, idle_ms: int) -> Meaning:
    """Return the effect of a token that names this session (RFC 9700, 4.14.2).

    Of the used tokens only the direct predecessor of the current one is accepted, within the grace. Any other token of the family shows that
    a token was stolen. A token of another family has no effect: otherwise the id of a session would be enough to end it.
    """
    if not shown.is_of(session.family):
        return "foreign"
    if not is_live(session, now_ms, idle_ms):
        return "ended"
    if shown.is_token(session.current):
        return "rotate"
    if shown.is_token(session.previous) and session.sealed is not None and now_ms - session.used_at < GRACE_MS:
        return "repeat"
    return "reused"
