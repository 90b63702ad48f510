"""What is known about people, sealed under a key of each person's own; and names for people that do not say who they are.

A person's key is random, wrapped by a master key, and kept apart from what it seals: whoever deletes it has made everything under it noise, in
every copy. The look-up key is random as well and made once, so that claims stay as they are when the master keys change.
"""

import hmac
from collections.abc import Collection
from contextlib import suppress

import msgspec
from joserfc.util import urlsafe_b64encode

from guerdon.clock import Clock
from guerdon.crypto.sealing import MasterKeys, SealingKey
from guerdon.database import Database, Document, DuplicateKeyError
from guerdon.erasable_data import SealedField
from guerdon.errors import Internal, StartupRefused
from guerdon.members.models import LOOKUP_KEYS, MEMBERS, PERSON_KEYS, LookupKey, Member, PersonKey, Profile
from guerdon.members.rules import EMAIL_CLAIM, EXTERNAL_ID_CLAIM, normal_email

_CLAIMS = "claims"
"""The one look-up key that there is."""
_UNSEALED = {"external_id", "email"}
"""What earlier versions wrote into every member, empty or not."""
_NO_MASTER = "this needs the master keys of the deployment: set GUERDON_MASTER_KEYS_FILE"


def _lookup_context(name: str) -> str:
    return f"look-up key of {name}"


def _person_context(member_id: str) -> str:
    return f"key of {member_id}"


def _context_of_lookup_key(row: Document) -> str:
    return _lookup_context(row["_id"])


def _context_of_person_key(row: Document) -> str:
    return _person_context(row["_id"])


MASTER_SEALED = [
    SealedField(LOOKUP_KEYS, "wrapped", _context_of_lookup_key),
    SealedField(PERSON_KEYS, "wrapped", _context_of_person_key),
]


class Vault:
    """Keeps the keys of this deployment's people. Opened keys are not remembered: an erasure holds from its commit on."""

    def __init__(self, database: Database, master: MasterKeys | None, clock: Clock) -> None:
        self._database = database
        self._person_keys = database.collection(PERSON_KEYS, PersonKey)
        self._lookup_keys = database.collection(LOOKUP_KEYS, LookupKey)
        self._master = master
        self._clock = clock
        self._lookup: bytes | None = None

    @property
    def master(self) -> MasterKeys:
        """
        Raises:
            StartupRefused: this process was started without master keys.
        """
        if self._master is None:
            raise StartupRefused(_NO_MASTER)
        return self._master

    async def open(self) -> None:
        """Make the look-up key of a new database, or open the one that it has.

        Raises:
            StartupRefused: the database belongs to other master keys, or to a version that sealed nothing.
        """
        if self._master is None:
            return
        # In this order: whoever has made a member has made the key before.
        oldest = await self._database.raw[MEMBERS].find_one({}, sort=[("_id", 1)]) or {}
        row = await self._lookup_keys.get(_CLAIMS)
        if row is None:
            _require_new(oldest)
            wrapped = self._master.seal(SealingKey.generate(), _lookup_context(_CLAIMS))
            with suppress(DuplicateKeyError):  # Another process was quicker, and its key is the one.
                await self._lookup_keys.insert(LookupKey(id=_CLAIMS, wrapped=wrapped, created_at=self._clock.now_ms()))
            row = await self._lookup_keys.get(_CLAIMS)
            assert row is not None
        try:
            self._lookup = self._master.open(row.wrapped, _lookup_context(_CLAIMS))
        except Internal:
            raise StartupRefused(
                "none of the master keys opens this database: set GUERDON_MASTER_KEYS_FILE to the keys that it was filled with"
            ) from None

    # --- names --------------------------------------------------------------------------------------------------------

    def email_claim(self, address: str) -> str:
        """Return the claim of a valid address. Two spellings that people take for the same address make the same claim."""
        return self._claim(EMAIL_CLAIM, normal_email(address))

    def external_id_claim(self, external_id: str) -> str:
        """Return the claim of an external id, which is compared exactly: it is another system's key, not a person's spelling."""
        return self._claim(EXTERNAL_ID_CLAIM, external_id)

    def claims_of(self, profile: Profile) -> list[str]:
        """Return what a person claims. The address comes first: two members who want the same two values cannot block each other."""
        claims = [] if profile.email is None else [self.email_claim(profile.email)]
        return claims if profile.external_id is None else [*claims, self.external_id_claim(profile.external_id)]

    def _claim(self, kind: str, value: str) -> str:
        """`kind` and the keyed digest of both: nobody without the key can try values until one fits."""
        if self._lookup is None:
            raise StartupRefused(_NO_MASTER)
        return kind + urlsafe_b64encode(hmac.digest(self._lookup, (kind + value).encode(), "sha256")).decode()

    # --- keys ---------------------------------------------------------------------------------------------------------

    def new_key(self, member_id: str) -> tuple[PersonKey, SealingKey]:
        """Return a new person's key, as it is stored and as it seals."""
        raw = SealingKey.generate()
        row = PersonKey(id=member_id, wrapped=self.master.seal(raw, _person_context(member_id)), created_at=self._clock.now_ms())
        return row, SealingKey(raw)

    async def get_key(self, member_id: str) -> SealingKey | None:
        """Return a person's key; None when the person was erased, or is unknown.

        Raises:
            Internal: none of the master keys has wrapped it.
        """
        row = await self._person_keys.get(member_id)
        return None if row is None else self._unwrap(row)

    async def get_keys(self, member_ids: Collection[str]) -> dict[str, SealingKey]:
        """Like `get_key` for a page of people; those without a key are left out."""
        rows = await self._person_keys.find({"_id": {"$in": sorted(member_ids)}}, limit=len(member_ids)) if member_ids else []
        return {row.id: self._unwrap(row) for row in rows}

    def _unwrap(self, row: PersonKey) -> SealingKey:
        return SealingKey(self.master.open(row.wrapped, _person_context(row.id)))


def _require_new(oldest: Document) -> None:
    """
    Raises:
        StartupRefused: a member is there already, so that a new look-up key would find nobody.
    """
    if _UNSEALED & oldest.keys():
        raise StartupRefused(
            "this database was filled by an earlier version, which kept personal data unsealed, and there is no way over: "
            "begin with an empty one (for `guerdon up`, name another --data-dir or remove the old directory)"
        )
    if oldest.get("sealed") or oldest.get("erased_at"):
        raise StartupRefused("the collection lookup_keys is missing: restore it from the backup that the members came from")


def seal_profile(member_id: str, profile: Profile, key: SealingKey) -> bytes:
    return key.seal(msgspec.json.encode(profile), _profile_context(member_id))


def open_profile(member: Member, key: SealingKey | None) -> Profile:
    """Return what is known about a member: nothing from the moment on at which an erasure was asked for.

    Raises:
        Internal: another key has sealed it, or it was changed.
    """
    if member.sealed is None or key is None or member.erasing_at is not None:
        return Profile()
    return msgspec.json.decode(key.open(member.sealed, _profile_context(member.id)), type=Profile)


def _profile_context(member_id: str) -> str:
    return f"profile of {member_id}"
