"""Wire shapes of referrals."""

from typing import Annotated

from msgspec import Meta, Struct

from guerdon.campaigns.domain import MemberState
from guerdon.clock import optional_rfc3339
from guerdon.types import EXPECTED

CODE_DIGITS = 22
ReferralCode = Annotated[
    str,
    Meta(
        pattern=rf"^R[0-9A-Za-z]{{{CODE_DIGITS}}}$(?!\n)",
        max_length=CODE_DIGITS + 1,
        extra={EXPECTED: "must be a referral code"},
        examples=["R0NdVkGqZzCbhfcUPYcEVDa"],
    ),
]


class ReferralCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Referral of a new member."""

    code: ReferralCode
    """Code of the referrer."""


class ReferralView(Struct, frozen=True):
    """A member's own referral code and their referrer."""

    member_id: str
    """Id of the member."""
    code: str
    """The member's own code, to be shared."""
    referrer_id: str | None
    """Id of the referrer, or null."""
    referred_at: str | None
    """Time of the referral, RFC 3339 in UTC, or null."""


def view_referral(member_state: MemberState, code: str) -> ReferralView:
    return ReferralView(member_state.id, code, member_state.referrer, optional_rfc3339(member_state.referred_at))
