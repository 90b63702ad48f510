"""Personal data sealed under one key per person, and keyed digests by which members are found.

A person's key is random, wrapped by a master key, and stored apart from the data that it seals: deleting it makes that data unreadable in
every copy. The look-up key is random too and generated once, so that claims do not change when the master keys do.
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
"""Id of the look-up key."""
_UNSEALED = {"external_id", "email"}
"""Fields that earlier versions stored in every member, set or not."""
_NO_MASTER = "this needs the master keys of the deployment; set GUERDON_MASTER_KEYS_FILE"


def _lookup_context(name: str) -> str:
    return f"look-up key of {name}"


def _person_context(member_id: str) -> str:
    return f"key of {member_id}"


def _context_of_lookup_key(row: Document) -> str:
    return _lookup_context(row["_id"])


def _context_of_person_key(row: Document) -> str:
    return _person_context(row["_id"])


SEALED_FIELDS = [
    SealedField(LOOKUP_KEYS, "wrapped", _context_of_lookup_key),
    SealedField(PERSON_KEYS, "wrapped", _context_of_person_key),
]


class Vault:
    """The keys of this deployment's members. Opened keys are not cached, so that an erasure is effective from its commit on."""

    def __init__(self, database: Database, master: MasterKeys | None, clock: Clock) -> None:
        self._database = database
        self._person_keys = database.collection(PERSON_KEYS, PersonKey)
        self._lookup_keys = database.collection(LOOKUP_KEYS, LookupKey)
        self._master = master
        self._clock = clock
        self._lookup: bytes | None = None

    @property
    def has_master(self) -> bool:
        """True if this process was started with master keys."""
        return self._master is not None

    @property
    def master(self) -> MasterKeys:
        """The master keys.

        Raises:
            StartupRefused: this process was started without master keys.
        """
        if self._master is None:
            raise StartupRefused(_NO_MASTER)
        return self._master

    async def open(self) -> None:
        """Open the look-up key of the database, or generate it for a new database.

        Raises:
            StartupRefused: the database belongs to other master keys, or to a version that did not seal personal data.
        """
        if self._master is None:
            return
        # In this order, because a process inserts the look-up key before its first member.
        oldest = await self._database.raw[MEMBERS].find_one({}, sort=[("_id", 1)]) or {}
        row = await self._lookup_keys.get(_CLAIMS)
        if row is None:
            _require_new(oldest)
            wrapped = self._master.seal(SealingKey.generate(), _lookup_context(_CLAIMS))
            with suppress(DuplicateKeyError):  # Another process has inserted its key first.
                await self._lookup_keys.insert(LookupKey(id=_CLAIMS, wrapped=wrapped, created_at=self._clock.now_ms()))
            row = await self._lookup_keys.get(_CLAIMS)
            assert row is not None
        try:
            self._lookup = self._master.open(row.wrapped, _lookup_context(_CLAIMS))
        except Internal:
            raise StartupRefused(
                "none of the master keys opens this database; set GUERDON_MASTER_KEYS_FILE to the keys with which it was created"
            ) from None

    # --- names --------------------------------------------------------------------------------------------------------

    def email_claim(self, address: str) -> str:
        """Return the claim id of a valid address. Two spellings that look the same have the same claim."""
        return self._claim(EMAIL_CLAIM, normal_email(address))

    def external_id_claim(self, external_id: str) -> str:
        """Return the claim id of an external id, which is compared exactly."""
        return self._claim(EXTERNAL_ID_CLAIM, external_id)

    def claims_of(self, profile: Profile) -> list[str]:
        """Return the claim ids of a profile. The address comes first, so that two members with the same two values cannot deadlock."""
        claims = [] if profile.email is None else [self.email_claim(profile.email)]
        return claims if profile.external_id is None else [*claims, self.external_id_claim(profile.external_id)]

    def _claim(self, kind: str, value: str) -> str:
        """Return `kind` and the keyed digest of both. Without the key, values cannot be tested against it."""
        if self._lookup is None:
            raise StartupRefused(_NO_MASTER)
        return kind + urlsafe_b64encode(hmac.digest(self._lookup, (kind + value).encode(), "sha256")).decode()

    # --- keys ---------------------------------------------------------------------------------------------------------

    def new_key(self, member_id: str) -> tuple[PersonKey, SealingKey]:
        """Return a new key of a person: its row, and the key itself."""
        raw = SealingKey.generate()
        row = PersonKey(id=member_id, wrapped=self.master.seal(raw, _person_context(member_id)), created_at=self._clock.now_ms())
        return row, SealingKey(raw)

    async def get_key(self, member_id: str) -> SealingKey | None:
        """Return the key of a person, or None if the member was erased or does not exist.

        Raises:
            Internal: none of the master keys has wrapped the key.
        """
        row = await self._person_keys.get(member_id)
        return None if row is None else self._unwrap(row)

    async def get_keys(self, member_ids: Collection[str]) -> dict[str, SealingKey]:
        """Return the keys of several members by member id. Members without a key are omitted."""
        rows = await self._person_keys.find({"_id": {"$in": sorted(member_ids)}}, limit=len(member_ids)) if member_ids else []
        return {row.id: self._unwrap(row) for row in rows}

    def _unwrap(self, row: PersonKey) -> SealingKey:
        return SealingKey(self.master.open(row.wrapped, _person_context(row.id)))


def _require_new(oldest: Document) -> None:
    """Check that the database has no members yet.

    Raises:
        StartupRefused: members exist, which a new look-up key could not find.
    """
    if _UNSEALED & oldest.keys():
        raise StartupRefused(
            "an earlier version that stored personal data unsealed has written to this database, and it cannot be migrated; "
            "start with an empty database (for `guerdon up`, use another --data-dir or remove the old directory)"
        )
    if oldest.get("sealed") or oldest.get("erased_at"):
        raise StartupRefused("the collection lookup_keys is missing; restore it from the backup that contains the members")


def seal_profile(member_id: str, profile: Profile, key: SealingKey) -> bytes:
    """Return the sealed profile of a member."""
    return key.seal(msgspec.json.encode(profile), _profile_context(member_id))


def open_profile(member: Member, key: SealingKey | None) -> Profile:
    """Return the profile of a member. It is empty from the time on at which an erasure was requested.

    Raises:
        Internal: another key sealed the profile, or it was changed.
    """
    if member.sealed is None or key is None or member.erasing_at is not None:
        return Profile()
    return msgspec.json.decode(key.open(member.sealed, _profile_context(member.id)), type=Profile)


def _profile_context(member_id: str) -> str:
    return f"profile of {member_id}"
