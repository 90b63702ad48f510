"""Stored and wire shapes of second factors."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.database import Document
from guerdon.erasable_data import ErasableRows
from guerdon.members.models import PASSWORD_LENGTH_MAX

FACTORS = "factors"
INDEXES: dict[str, list[IndexModel]] = {FACTORS: []}
"""No secondary index: a factor is found by its member's id."""


def about(member_id: str) -> Document:
    """Return the filter of a member's factor."""
    return {"_id": member_id}


BELONGINGS = [ErasableRows("second_factors", FACTORS, about)]


# --- stored ---------------------------------------------------------------------------------------------------------


class Factor(Struct, frozen=True, kw_only=True):
    """Somebody's authenticator. Times are milliseconds since the epoch, where nothing else is said."""

    id: str = field(name="_id")
    """The member's."""
    sealed: bytes
    """The secret that the authenticator shares, under the member's own key."""
    created_at: int
    confirmed_at: int | None = None
    """Before this the factor is not asked for."""
    last_step: int = 0
    """The newest time step (RFC 6238) whose code was accepted: no step is accepted twice, and none before it."""
    codes: list[bytes] = []
    """SHA-256 digests of the recovery codes that are left. They have 120 random bits, so that nobody can guess them back."""
    tries: int = 0
    """Codes that were shown and not accepted, since the last one that was."""
    tries_end_at: int = 0
    """When these tries are forgotten."""


# --- wire -----------------------------------------------------------------------------------------------------------

Password = Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]
Code = Annotated[
    str,
    Meta(
        min_length=6,
        max_length=40,
        pattern=r"^[0-9A-Za-z -]+$(?!\n)",
        description="Six digits, or a recovery code.",
        examples=["492039"],
    ),
]


class FactorCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """The wish to be asked for a second factor."""

    current_password: Password


class FactorConfirm(Struct, frozen=True, forbid_unknown_fields=True):
    """Proof that the authenticator has the secret."""

    code: Code


class FactorProof(Struct, frozen=True, forbid_unknown_fields=True):
    """Both factors, to change one of them."""

    current_password: Password
    code: Code


class NewFactorView(Struct, frozen=True):
    """What an authenticator needs to know. It is shown once."""

    secret: str
    """In base 32."""
    uri: str
    """`otpauth://totp/…`, as authenticators read it."""
    qr_svg: str
    """The same as a picture: a `data:` address of an SVG."""


class RecoveryCodesView(Struct, frozen=True):
    """Codes that each replace the authenticator once. They are shown once, and the older ones are void."""

    recovery_codes: list[str]


class FactorView(Struct, frozen=True):
    """Whether the caller is asked for a second factor."""

    status: Literal["none", "pending", "confirmed"]
    confirmed_at: str | None
    recovery_codes_left: int


def view_factor(factor: Factor | None) -> FactorView:
    if factor is None or factor.confirmed_at is None:
        return FactorView("none" if factor is None else "pending", None, 0)
    return FactorView("confirmed", rfc3339(factor.confirmed_at), len(factor.codes))
