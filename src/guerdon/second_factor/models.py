"""Stored and wire shapes of second factors."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.database import Document
from guerdon.erasable_data import ErasableRows
from guerdon.members.models import PASSWORD_LENGTH_MAX
from guerdon.types import EXPECTED

FACTORS = "factors"
INDEXES: dict[str, list[IndexModel]] = {FACTORS: []}
"""No secondary index: a factor is found by the id of its member."""


def factor_of(member_id: str) -> Document:
    """Return the filter of a member's factor."""
    return {"_id": member_id}


ERASABLE_ROWS = [ErasableRows("second_factors", FACTORS, factor_of)]


# --- stored ---------------------------------------------------------------------------------------------------------


class Factor(Struct, frozen=True, kw_only=True):
    """The authenticator of a staff person. Times are milliseconds since the epoch."""

    id: str = field(name="_id")
    """Id of the member."""
    sealed: bytes
    """Secret of the authenticator, sealed under the member's own key."""
    created_at: int
    confirmed_at: int | None = None
    """Time from which log-ins require the factor, or None."""
    last_step: int = 0
    """Newest time step (RFC 6238) whose code was accepted. Codes of this step and of earlier steps are rejected."""
    codes: list[bytes] = []
    """SHA-256 digests of the unused recovery codes. The codes have 120 random bits, so that the digests cannot be inverted."""
    tries: int = 0
    """Number of rejected codes since the last accepted one."""
    tries_end_at: int = 0
    """Time at which `tries` is reset."""


# --- wire -----------------------------------------------------------------------------------------------------------

Password = Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]
Code = Annotated[
    str,
    Meta(
        min_length=6,
        max_length=40,
        pattern=r"^[0-9A-Za-z -]+$(?!\n)",
        extra={EXPECTED: "must consist of letters, digits, spaces and hyphens"},
        description="Six digits, or a recovery code.",
        examples=["492039"],
    ),
]


class FactorCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """The enrolment of a second factor."""

    current_password: Password
    """Current password of the caller."""


class FactorConfirm(Struct, frozen=True, forbid_unknown_fields=True):
    """A code that proves that the authenticator has the secret."""

    code: Code
    """Current code of the authenticator."""


class FactorProof(Struct, frozen=True, forbid_unknown_fields=True):
    """Both factors of the caller, required to change one of them."""

    current_password: Password
    """Current password of the caller."""
    code: Code
    """Current code of the authenticator, or a recovery code."""


class NewFactorView(Struct, frozen=True):
    """The secret of a new second factor. No later response contains it."""

    secret: str
    """Secret for the authenticator, in base 32."""
    uri: str
    """`otpauth://totp/…` address for the authenticator."""
    qr_svg: str
    """QR code of `uri`, as a `data:` address of an SVG image."""


class RecoveryCodesView(Struct, frozen=True):
    """New recovery codes, which replace all earlier ones. No later response contains them."""

    recovery_codes: list[str]
    """Codes that can each be used once instead of a code of the authenticator."""


class FactorView(Struct, frozen=True):
    """The state of a second factor."""

    status: Literal["none", "pending", "confirmed"]
    """`pending` until the first code was confirmed. Log-ins require a code when it is `confirmed`."""
    confirmed_at: str | None
    """Time of the confirmation, RFC 3339 in UTC. Null unless `confirmed`."""
    recovery_codes_left: int
    """Number of unused recovery codes."""


def view_factor(factor: Factor | None) -> FactorView:
    """Return the wire shape of a member's factor, or of its absence."""
    if factor is None or factor.confirmed_at is None:
        return FactorView("none" if factor is None else "pending", None, 0)
    return FactorView("confirmed", rfc3339(factor.confirmed_at), len(factor.codes))
