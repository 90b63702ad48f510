"""Stored and wire shapes of password resets."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.database import Document
from guerdon.erasable_data import ErasableRows
from guerdon.members.models import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN, Email

RESETS = "resets"
INDEXES: dict[str, list[IndexModel]] = {RESETS: [IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0)]}


def reset_of(member_id: str) -> Document:
    """Return the filter of the reset token of a member."""
    return {"_id": member_id}


ERASABLE_ROWS = [ErasableRows("resets", RESETS, reset_of)]
RESET_TOKEN_LENGTH_MAX = 200


# --- stored ---------------------------------------------------------------------------------------------------------


class Reset(Struct, frozen=True, kw_only=True):
    """The current reset token of a member."""

    id: str = field(name="_id")
    """Id of the member. A newer token replaces the older one."""
    secret_sha256: bytes
    ends_at: int
    """Time at which the token expires, milliseconds since the epoch."""
    expires_at: datetime
    """Time at which MongoDB deletes the document, equal to `ends_at`."""


# --- wire -----------------------------------------------------------------------------------------------------------


class ForgotCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A request for a password reset."""

    email: Email
    """E-mail address of the account."""


class ResetCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A reset token and the new password."""

    token: Annotated[str, Meta(min_length=1, max_length=RESET_TOKEN_LENGTH_MAX)]
    """Token from the mail, or from `guerdon admin reset`."""
    new_password: Annotated[str, Meta(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)]
    """New password of 8 to 128 characters."""


class ResetView(Struct, frozen=True):
    """The result of a password reset. The new password is set, and all sessions have ended."""

    device_token: str | None
    """Device token for the next log-in, which then does not count towards the limit of unknown devices. Null without an e-mail address."""


class ForgotView(Struct, frozen=True):
    """The confirmation of a request. It is the same whether or not a member has the address."""

    status: Literal["accepted"] = "accepted"
    """Always `accepted`."""
