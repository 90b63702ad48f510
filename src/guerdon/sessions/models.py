"""Stored and wire shapes of sessions."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.erasable_data import ErasableRows
from guerdon.members.models import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN, Email
from guerdon.second_factor.models import Code
from guerdon.sessions.refresh import sessions_of

SESSIONS = "sessions"
INDEXES: dict[str, list[IndexModel]] = {
    # The id of a session begins with the id of its member, so that the sessions of a member need no index of their own.
    SESSIONS: [IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0)],
}


ERASABLE_ROWS = [ErasableRows("sessions", SESSIONS, sessions_of)]
REFRESH_TOKEN_LENGTH_MAX = 200
DEVICE_LENGTH_MAX = 200
DEVICE_TOKEN_LENGTH_MAX = 160


# --- stored ---------------------------------------------------------------------------------------------------------


class Session(Struct, frozen=True, kw_only=True):
    """One log-in and the family of refresh tokens that it began, of which only the newest is valid.

    No secret is stored: `family`, `current` and `previous` are SHA-256 digests, and `sealed` opens only with the previous token itself. Times
    are milliseconds since the epoch.
    """

    id: str = field(name="_id")
    """`{member id}:{12 random characters}`"""
    member: str
    family: bytes
    current: bytes
    previous: bytes | None = None
    sealed: bytes | None = None
    """The current token, sealed by the previous one, which returns it within the grace."""
    created_at: int
    used_at: int
    """Time of the last rotation, or of the creation."""
    ends_at: int
    """Time at which the session ends at the latest."""
    epoch: int = 0
    """The member's `epoch` at the log-in."""
    factor: bool = False
    """True if the session began with a second factor."""
    device: bytes | None = None
    """`User-Agent` of the log-in, sealed under the member's own key."""
    expires_at: datetime
    """Time at which MongoDB deletes the document, unless the session ends before and its document is deleted then."""


# --- wire -----------------------------------------------------------------------------------------------------------


class LoginCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """The credentials of a log-in."""

    # Only the upper limit of the password is checked: an older password may be shorter than the current minimum.
    email: Email
    """E-mail address of the member."""
    password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]
    """Password of the member."""
    device_token: Annotated[str, Meta(min_length=1, max_length=DEVICE_TOKEN_LENGTH_MAX)] | None = None
    """Device token from the last log-in on this device. A token that is no longer known is ignored."""
    code: Code | None = None
    """Code of the second factor, for staff who have one."""


class RefreshCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A refresh token."""

    refresh_token: Annotated[str, Meta(min_length=1, max_length=REFRESH_TOKEN_LENGTH_MAX)]
    """Refresh token from the last log-in or refresh."""


class PasswordUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """The current and the new password of the caller."""

    current_password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]
    """Current password of the caller."""
    new_password: Annotated[str, Meta(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)]
    """New password of 8 to 128 characters."""


class TokenView(Struct, frozen=True):
    """An access token for the `Authorization` header, and a refresh token for the next pair."""

    access_token: str
    """Access token, sent as `Authorization: Bearer`."""
    token_type: Literal["Bearer"]
    """Scheme of the `Authorization` header."""
    expires_in_seconds: int
    """Lifetime of the access token in seconds."""
    member_id: str
    """Id of the member who is logged in."""
    refresh_token: str
    """Token that can be exchanged once for the next pair of tokens."""
    session_id: str
    """Id of the session."""
    session_ends_at: str
    """Time at which the member must log in again at the latest, RFC 3339 in UTC."""
    device_token: str | None = None
    """Device token, returned by a log-in. Send it with the next log-in on this device, so that others who guess the password cannot block it."""


class SessionView(Struct, frozen=True):
    """A session of a member."""

    id: str
    """Id of the session."""
    device: str | None
    """`User-Agent` of the log-in, or null."""
    created_at: str
    """Time of the log-in, RFC 3339 in UTC."""
    used_at: str
    """Time of the last refresh, or of the log-in, RFC 3339 in UTC."""
    ends_at: str
    """Time at which the session ends at the latest, RFC 3339 in UTC."""
    current: bool
    """True for the session of this request."""


class SessionList(Struct, frozen=True):
    """The caller's sessions, most recently used first."""

    items: list[SessionView]
    """The sessions."""


def view_session(session: Session, device: str | None, *, current: bool) -> SessionView:
    """Return the wire shape of a session."""
    return SessionView(
        id=session.id,
        device=device,
        created_at=rfc3339(session.created_at),
        used_at=rfc3339(session.used_at),
        ends_at=rfc3339(session.ends_at),
        current=current,
    )
