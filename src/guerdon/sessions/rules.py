"""Pure decisions about sessions: what showing a refresh token at this moment means."""

from typing import Literal

from guerdon.members.models import Member
from guerdon.sessions.models import Session
from guerdon.sessions.refresh import RefreshToken

GRACE_MS = 10_000
"""So long the previous token gets the current one once more: a client whose answer was lost asks again."""

Meaning = Literal["rotate", "repeat", "ended", "reused", "foreign"]


def is_live(session: Session, now_ms: int, idle_ms: int) -> bool:
    return now_ms < min(session.ends_at, session.used_at + idle_ms)


def may_go_on(session: Session, member: Member) -> bool:
    """Tell whether a member still has this session: they may log in, and have set no new password since, or in this very session."""
    return member.disabled_at is None and (session.epoch == member.epoch or session.id == member.spared)


def meaning_of(shown: RefreshToken, session: Session, now_ms: int, idle_ms: int) -> Meaning:
    """Tell what to do with a token that names this session (RFC 9700, 4.14.2).

    Of the dead tokens only the direct parent of the living one is forgiven, and only for the grace. Any other one of the family was shown by a
    thief or after one. What is not of the family proves nothing, or knowing a session's id would be enough to end it.
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
