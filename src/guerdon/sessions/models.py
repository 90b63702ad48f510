"""Stored and wire shapes of sessions."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.database import Document
from guerdon.erasable_data import ErasableRows
from guerdon.members.models import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN, Email
from guerdon.second_factor.models import Code

SESSIONS = "sessions"
INDEXES: dict[str, list[IndexModel]] = {
    # A session's id begins with its member's, so that a member's sessions lie together and need no index of their own.
    SESSIONS: [IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0)],
}


def about(member_id: str) -> Document:
    """Return the filter of a member's sessions: their ids begin with the member's, so they lie together."""
    return {"_id": {"$gte": f"{member_id}:", "$lt": f"{member_id};"}}


BELONGINGS = [ErasableRows("sessions", SESSIONS, about)]
REFRESH_TOKEN_LENGTH_MAX = 200
DEVICE_LENGTH_MAX = 200
DEVICE_TOKEN_LENGTH_MAX = 160


# --- stored ---------------------------------------------------------------------------------------------------------


class Session(Struct, frozen=True, kw_only=True):
    """One log-in and all the refresh tokens that followed from it: a family, of which only the newest is alive.

    No secret is stored: `family`, `current` and `previous` are SHA-256 digests, and `sealed` can only be opened with the previous token itself.
    Times are milliseconds since the epoch.
    """

    id: str = field(name="_id")
    """`{member id}:{12 random characters}`"""
    member: str
    family: bytes
    current: bytes
    previous: bytes | None = None
    sealed: bytes | None = None
    """The current token, for whoever shows the previous one again within the grace."""
    created_at: int
    used_at: int
    """When it was last rotated, or made."""
    ends_at: int
    """Whatever happens."""
    epoch: int = 0
    """The member's when the password was proven."""
    factor: bool = False
    """Did it begin with a second factor?"""
    device: bytes | None = None
    """What the log-in said that it is, under the member's own key."""
    expires_at: datetime
    """When MongoDB takes the document away, if nobody has ended the session before: an ended one has none."""


# --- wire -----------------------------------------------------------------------------------------------------------


class LoginCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Proof of being a member. Only the upper bounds are checked: an older password may be shorter than today's rule."""

    email: Email
    password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]
    device_token: Annotated[str, Meta(min_length=1, max_length=DEVICE_TOKEN_LENGTH_MAX)] | None = None
    """As the last log-in from here gave it. One that is not known any more changes nothing."""
    code: Code | None = None
    """The second factor of somebody who works here and has one."""


class RefreshCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A refresh token, as the last answer gave it."""

    refresh_token: Annotated[str, Meta(min_length=1, max_length=REFRESH_TOKEN_LENGTH_MAX)]


class PasswordUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """A new password, and the proof that it is the member who wants it."""

    current_password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]
    new_password: Annotated[str, Meta(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)]


class TokenView(Struct, frozen=True):
    """An access token for the `Authorization` header, and the refresh token that gets the next pair, once."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in_seconds: int
    member_id: str
    refresh_token: str
    session_id: str
    session_ends_at: str
    """When the member has to log in again at the latest."""
    device_token: str | None = None
    """After a log-in: show it at the next one, so that strangers who guess at the password cannot keep the member out. It proves nothing else."""


class SessionView(Struct, frozen=True):
    """One place where a member is logged in."""

    id: str
    device: str | None
    """The `User-Agent` of the log-in."""
    created_at: str
    used_at: str
    ends_at: str
    current: bool
    """Is it the one that asks?"""


class SessionList(Struct, frozen=True):
    """The caller's sessions, the one used last first."""

    items: list[SessionView]


def view_session(session: Session, device: str | None, *, current: bool) -> SessionView:
    return SessionView(
        id=session.id,
        device=device,
        created_at=rfc3339(session.created_at),
        used_at=rfc3339(session.used_at),
        ends_at=rfc3339(session.ends_at),
        current=current,
    )
