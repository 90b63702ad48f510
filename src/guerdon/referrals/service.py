"""Referrals of members by members, recorded once and before the first purchase of the new member. Campaigns pay for them.

A referrer has a purchase when they refer, and the referred member has none. This rules out self-referrals and cycles: along any chain of
referrals, the first purchases are ever earlier. Registrations without purchases earn nothing, because campaigns pay when the new member
buys.
"""

import re

import msgspec
from msgspec import Struct

from guerdon.campaigns.domain import MEMBER_STATES, MemberState
from guerdon.database import Database
from guerdon.errors import NotFound, ReferralRefused
from guerdon.ids import base62
from guerdon.ledger.models import Command, Decision, View
from guerdon.ledger.service import Ledger
from guerdon.members.service import Members
from guerdon.permissions import Actor
from guerdon.referrals.models import CODE_DIGITS, ReferralView, view_referral
from guerdon.tiers.member_state import member_state_change, member_state_lock, member_state_of, member_state_ref

_DIGITS = {base62(number, 1): number for number in range(62)}
_CODE = re.compile(rf"R[0-9A-Za-z]{{{CODE_DIGITS}}}\Z")
_MEMBER = "mem_"


class Referred(Struct, frozen=True):
    """Answer of the command: the member state, and whether the referral was recorded before."""

    member_state: MemberState
    replayed: bool


def code_of(member_id: str) -> str:
    """Return a member's referral code: their id in base 62. It identifies the member and is not a secret."""
    return "R" + base62(int(member_id.removeprefix(_MEMBER), 16), CODE_DIGITS)


def member_of(code: str) -> str | None:
    """Return the member id that a code encodes, or None if it is not a code."""
    if not _CODE.match(code):
        return None
    number = 0
    for sign in code[1:]:
        number = number * 62 + _DIGITS[sign]
    return f"{_MEMBER}{number:032x}" if number < 1 << 128 else None


class Referrals:
    """Referrals of members by members."""

    def __init__(self, ledger: Ledger, members: Members, *, database: Database) -> None:
        self._ledger = ledger
        self._members = members
        self._member_states = database.collection(MEMBER_STATES, MemberState)

    async def record(self, member_id: str, code: str) -> tuple[ReferralView, bool]:
        """Record the referrer of a member; return the referral, and whether it was recorded before.

        Raises:
            NotFound: the member does not exist, or no member has this code.
            ReferralRefused: the code is the member's own, the member has another referrer or a purchase, or the referrer has no purchase.
        """
        await self._members.get_member(member_id)
        referrer = member_of(code)
        if referrer is None:
            raise NotFound("no member has this code")
        member = await self._members.get_member(referrer)
        if member.sealed is None or member.erasing_at is not None:
            raise NotFound("no member has this code")
        outcome = await self._ledger.submit(_referral_command(member_id, referrer))
        return view_referral(outcome.value.member_state, code_of(member_id)), outcome.value.replayed

    async def get_referral(self, actor: Actor, member_id: str) -> ReferralView:
        """Return a member's own code and their referrer.

        Raises:
            NotFound: the member does not exist, or is not the caller.
        """
        actor.require_reach(member_id)
        await self._members.get_member(member_id)
        member_state = await self._member_states.find_one({"_id": member_id, "owner": member_id})
        return view_referral(member_state or MemberState(id=member_id, owner=member_id), code_of(member_id))


def _referral_command(member_id: str, referrer: str) -> Command[Referred]:
    def decide(view: View) -> Decision[Referred]:
        member_state = member_state_of(member_id, view)
        if member_state.referrer == referrer:
            return Decision(value=Referred(member_state, replayed=True))
        if member_id == referrer:
            raise ReferralRefused("a member cannot refer themselves", cause="oneself")
        if member_state.referrer is not None:
            raise ReferralRefused("another member has referred this member", cause="referred-already")
        if member_state.purchases:
            raise ReferralRefused("the member already has a purchase", cause="not-new")
        if not member_state_of(referrer, view).purchases:
            raise ReferralRefused("the referrer has no purchase", cause="referrer-has-not-bought")
        referred = msgspec.structs.replace(member_state, referrer=referrer, referred_at=view.now_ms)
        return Decision(changes=(member_state_change(member_state, referred),), value=Referred(referred, replayed=False))

    documents = tuple(member_state_ref(each) for each in dict.fromkeys((member_id, referrer)))
    return Command(tuple(dict.fromkeys((member_id, referrer))), (member_state_lock(member_id),), decide, documents=documents)
