"""Stored and wire shapes of recovery."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.database import Document
from guerdon.erasable_data import ErasableRows
from guerdon.members.models import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN, Email

RESETS = "resets"
INDEXES: dict[str, list[IndexModel]] = {RESETS: [IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0)]}


def about(member_id: str) -> Document:
    """Return the filter of a member's token."""
    return {"_id": member_id}


BELONGINGS = [ErasableRows("resets", RESETS, about)]
RESET_TOKEN_LENGTH_MAX = 200


# --- stored ---------------------------------------------------------------------------------------------------------


class Reset(Struct, frozen=True, kw_only=True):
    """The one token by which a member can set a new password now."""

    id: str = field(name="_id")
    """The member's: a newer token takes the place of the older one."""
    secret_sha256: bytes
    ends_at: int
    """Milliseconds since the epoch."""
    expires_at: datetime
    """When MongoDB takes the document away."""


# --- wire -----------------------------------------------------------------------------------------------------------


class ForgotCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who cannot log in."""

    email: Email


class ResetCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """What the letter said, and the password that it is to be from now on."""

    token: Annotated[str, Meta(min_length=1, max_length=RESET_TOKEN_LENGTH_MAX)]
    new_password: Annotated[str, Meta(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)]


class ResetView(Struct, frozen=True):
    """The new password holds from now on, and nobody is logged in any more."""

    device_token: str | None
    """Show it at the log-in that follows: it gets in even while strangers have used up the attempts of unknown devices."""


class ForgotView(Struct, frozen=True):
    """The wish was noted. It says nothing about whether anybody has the address."""

    status: Literal["accepted"] = "accepted"
