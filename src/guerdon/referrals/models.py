"""Wire shapes of referrals."""

from typing import Annotated

from msgspec import Meta, Struct

from guerdon.campaigns.domain import MemberState
from guerdon.clock import rfc3339

CODE_DIGITS = 22
ReferralCode = Annotated[
    str, Meta(pattern=rf"^R[0-9A-Za-z]{{{CODE_DIGITS}}}$(?!\n)", max_length=CODE_DIGITS + 1, examples=["R0NdVkGqZzCbhfcUPYcEVDa"])
]


class ReferralCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """By whose code the member has come."""

    code: ReferralCode


class ReferralView(Struct, frozen=True):
    """A member's own code, for others, and who has referred them."""

    member_id: str
    code: str
    referrer_id: str | None
    referred_at: str | None


def view_referral(standing: MemberState, code: str) -> ReferralView:
    at = standing.referred_at
    return ReferralView(standing.id, code, standing.referrer, None if at is None else rfc3339(at))
