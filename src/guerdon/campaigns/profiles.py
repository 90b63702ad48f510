"""Profile fields that conditions may read: read for the evaluation, stored sealed with the decisions, and opened for a replay.

They are sealed under the member's own key and bound to the event, so that an erasure of the member makes them unreadable.
"""

import asyncio
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.campaigns.domain import RecordedEvent
from guerdon.campaigns.evaluation import Subject
from guerdon.errors import NotFound
from guerdon.members.service import Members
from guerdon.members.vault import Vault


class _SealedProfile(Struct, frozen=True, omit_defaults=True):
    """Fields that are sealed."""

    external_id: str | None = None
    attributes: dict[str, Any] = {}


class Profiles:
    """Members as campaigns read them."""

    def __init__(self, members: Members, vault: Vault) -> None:
        self._members = members
        self._vault = vault

    async def read(self, member_id: str | None, *, seal_for: str | None) -> Subject:
        """Return a member with the profile fields that conditions may read; with `seal_for`, an event's id, also sealed for that event.

        Raises:
            NotFound: the member does not exist.
        """
        if member_id is None:
            raise NotFound("the event names no member")
        if seal_for is None:
            profile = (await self._members.get_person(member_id)).profile
            return Subject(member_id, profile.external_id, profile.attributes)
        person, key = await asyncio.gather(self._members.get_person(member_id), self._vault.get_key(member_id))
        profile = person.profile
        known = msgspec.json.encode(_SealedProfile(profile.external_id, profile.attributes))
        sealed = None if key is None else key.seal(known, _context(member_id, seal_for))
        return Subject(member_id, profile.external_id, profile.attributes, sealed)

    async def require(self, member_id: str) -> None:
        """
        Raises:
            NotFound: the member does not exist.
        """
        await self._members.get_member(member_id)

    async def look(self, member_id: str) -> Subject | None:
        """Return a member with the present profile fields, or None if the member was erased."""
        try:
            person = await self._members.get_person(member_id)
        except NotFound:
            return None
        if person.member.sealed is None or person.member.erasing_at is not None:
            return None
        return Subject(member_id, person.profile.external_id, person.profile.attributes)

    async def read_sealed(self, recorded: RecordedEvent) -> Subject | None:
        """Return the member as the conditions of the event read it, or None if the member was erased."""
        sealed = None if recorded.inputs is None else recorded.inputs.person
        if sealed is None:
            return Subject(recorded.owner)
        key = await self._vault.get_key(recorded.owner)
        if key is None:
            return None
        known = msgspec.json.decode(key.open(sealed, _context(recorded.owner, recorded.id)), type=_SealedProfile)
        return Subject(recorded.owner, known.external_id, known.attributes)


def _context(member_id: str, event_id: str) -> str:
    """Return the context that a sealed profile is bound to. Stored profiles cannot be opened with any other text."""
    return f"what {event_id} was judged on, of {member_id}"
