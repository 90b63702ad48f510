"""Who has referred whom: recorded once, before the new member buys for the first time. What it pays is said by campaigns.

A referrer has bought something when they refer, and the one who is referred has not. So nobody refers themselves, and there are no rings:
along any chain of referrals the first purchases lie ever earlier. Whoever only signs up, a thousand times, has referred nobody and earns
nothing: the campaigns pay when the new member buys.
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
    """What the command answers: the standing, and whether that was recorded before."""

    standing: MemberState
    before: bool


def code_of(member_id: str) -> str:
    """The member's own code: their id in fewer characters. It is no secret; all it can do is to name them."""
    return "R" + base62(int(member_id.removeprefix(_MEMBER), 16), CODE_DIGITS)


def member_of(code: str) -> str | None:
    """Return whose code it is, if it can be one."""
    if not _CODE.match(code):
        return None
    number = 0
    for sign in code[1:]:
        number = number * 62 + _DIGITS[sign]
    return f"{_MEMBER}{number:032x}" if number < 1 << 128 else None


class Referrals:
    """Referrals of members by members."""

    def __init__(self, ledger: Ledger, identity: Members, *, database: Database) -> None:
        self._ledger = ledger
        self._identity = identity
        self._standings = database.collection(MEMBER_STATES, MemberState)

    async def record(self, member_id: str, code: str) -> tuple[ReferralView, bool]:
        """Record who has referred a member; return it, and whether it was recorded before.

        Raises:
            NotFound: there is no such member, or nobody has this code.
            ReferralRefused: it is their own code, somebody else has referred them, they have bought something, or the referrer has not.
        """
        await self._identity.get_member(member_id)
        referrer = member_of(code)
        if referrer is None:
            raise NotFound("nobody has this code")
        member = await self._identity.get_member(referrer)
        if member.sealed is None or member.erasing_at is not None:
            raise NotFound("nobody has this code")
        outcome = await self._ledger.submit(_referral(member_id, referrer))
        return view_referral(outcome.value.standing, code_of(member_id)), outcome.value.before

    async def get_referral(self, actor: Actor, member_id: str) -> ReferralView:
        """Return a member's own code, and who has referred them.

        Raises:
            NotFound: there is no such member, or not the caller's.
        """
        actor.require_reach(member_id)
        await self._identity.get_member(member_id)
        standing = await self._standings.find_one({"_id": member_id, "owner": member_id})
        return view_referral(standing or MemberState(id=member_id, owner=member_id), code_of(member_id))


def _referral(member_id: str, referrer: str) -> Command[Referred]:
    def decide(view: View) -> Decision[Referred]:
        standing = member_state_of(member_id, view)
        if standing.referrer == referrer:
            return Decision(value=Referred(standing, before=True))
        if member_id == referrer:
            raise ReferralRefused("nobody refers themselves", cause="oneself")
        if standing.referrer is not None:
            raise ReferralRefused("somebody else has referred this member", cause="referred-already")
        if standing.purchases:
            raise ReferralRefused("the member has bought something already", cause="not-new")
        if not member_state_of(referrer, view).purchases:
            raise ReferralRefused("whoever refers others has bought something before", cause="referrer-has-not-bought")
        referred = msgspec.structs.replace(standing, referrer=referrer, referred_at=view.now_ms)
        return Decision(changes=(member_state_change(standing, referred),), value=Referred(referred, before=False))

    documents = tuple(member_state_ref(each) for each in dict.fromkeys((member_id, referrer)))
    return Command(tuple(dict.fromkeys((member_id, referrer))), (member_state_lock(member_id),), decide, documents=documents)
