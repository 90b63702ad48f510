"""Members and staff: creation, lookup, passwords, roles."""

import asyncio
from collections.abc import Collection

from guerdon.changes import BeforeAfter
from guerdon.clock import Clock, to_datetime
from guerdon.database import Database, Document, PyMongoError, Session, may_try_again
from guerdon.errors import AlreadyExists, DatabaseUnavailable, InvalidState, NotFound, Unauthenticated, Validation
from guerdon.ids import MEMBER_ID, IdSource
from guerdon.members.models import CLAIMS, MEMBERS, NO_MEMBER, PERSON_KEYS, Claim, Member, Person, PersonKey, Profile
from guerdon.members.passwords import PasswordHasher, check_new_password
from guerdon.members.rules import claimed_field, faults_of_attributes, require_authority, valid_email
from guerdon.members.vault import Vault, open_profile, seal_profile
from guerdon.permissions import Actor, Role

ATTEMPTS_MAX = 10
BACKOFF_FIRST_SECONDS = 0.002
BACKOFF_MAX_SECONDS = 0.25
KNOWN_MAX = 100_000
"""Maximum number of members whose existence a process remembers."""
_MISSING_ID = "mem_" + "0" * 32


class Members:
    """The members of this deployment."""

    def __init__(self, database: Database, vault: Vault, passwords: PasswordHasher, ids: IdSource, clock: Clock) -> None:
        self._database = database
        self._members = database.collection(MEMBERS, Member)
        self._claims = database.collection(CLAIMS, Claim)
        self._person_keys = database.collection(PERSON_KEYS, PersonKey)
        self._vault = vault
        self._passwords = passwords
        self._ids = ids
        self._clock = clock
        self._known: set[str] = set()

    async def register(self, email: str, password: str) -> Person:
        """Create a member who can log in.

        Raises:
            Validation: the address or the password is not acceptable.
            AlreadyExists: the address belongs to another member.
            Overloaded: too many passwords are being hashed.
            DatabaseUnavailable: the database did not commit in time.
        """
        return await self._add_with_password(email, password, "member")

    async def create_operator(self, email: str, password: str, role: Role) -> Person:
        """Create a staff person with the role `support`, `operator` or `admin`.

        Raises:
            Validation: the address, the password or the role is not acceptable.
            AlreadyExists: the address belongs to another member.
            Overloaded, DatabaseUnavailable: as for `register`.
        """
        if role == "member":
            raise Validation.at("/role", "the role of staff must be support, operator or admin")
        return await self._add_with_password(email, password, role)

    async def create_member(
        self, external_id: str | None, email: str | None, attributes: dict[str, str | int | bool] | None
    ) -> Person:
        """Create a member on behalf of a service. The member has no password and cannot log in yet.

        Raises:
            Validation: there is neither an external id nor an address, the address is not valid, or the birthday is no date.
            AlreadyExists: the external id or the address belongs to another member; `field` names it.
            DatabaseUnavailable: the database did not commit in time.
        """
        faults = faults_of_attributes(attributes or {}, to_datetime(self._clock.now_ms()).date())
        if external_id is None and email is None:
            faults.append(Validation.at("", "a member needs an external_id, an email, or both"))
        if faults:
            raise Validation.all_of(faults)
        address = None if email is None else valid_email(email)
        return await self._add(Profile(external_id=external_id, email=address, attributes=attributes or {}))

    async def ensure_member(self, external_id: str) -> str:
        """Return the id of the member with this external id, and create the member if needed. Concurrent calls are safe.

        Raises:
            DatabaseUnavailable: the database did not commit in time.
        """
        return (await self.ensure_members([external_id]))[external_id]

    async def ensure_members(self, external_ids: Collection[str]) -> dict[str, str]:
        """Return the member id of each external id. Members that do not exist are created in one transaction. The limit is 500 ids.

        After a lost race, and after a commit without a response, the claims are read again.

        Raises:
            DatabaseUnavailable: the database did not commit in time.
        """
        for attempt in range(ATTEMPTS_MAX):
            names = {self._vault.external_id_claim(external_id): external_id for external_id in external_ids}
            claims = await self._claims.find({"_id": {"$in": sorted(names)}}, limit=len(names))
            known = {names[claim.id]: claim.member for claim in claims}
            # In one order, so that two callers with the same ids cannot deadlock.
            missing = sorted(set(external_ids) - known.keys())
            if not missing:
                return known
            created = [self._new_member(Profile(external_id=name)) for name in missing]
            try:
                async with self._database.transaction() as session:
                    await self._claims.insert_many([claim for member, _ in created for claim in _claims_of(member)], session)
                    await self._person_keys.insert_many([key for _, key in created], session)
                    await self._members.insert_many([member for member, _ in created], session)
                return known | {name: member.id for name, (member, _) in zip(missing, created, strict=True)}
            except PyMongoError as error:
                if not may_try_again(error):
                    raise
            await asyncio.sleep(min(BACKOFF_FIRST_SECONDS * 2**attempt, BACKOFF_MAX_SECONDS))
        raise DatabaseUnavailable("the database did not commit in time; try again", retry_after_seconds=1)

    async def find_member_id(self, external_id: str) -> str | None:
        """Return the id of the member with this external id, or None."""
        claim = await self._claims.get(self._vault.external_id_claim(external_id))
        return None if claim is None else claim.member

    async def exists(self, member_id: str) -> bool:
        """Return True if there is a member with this id, including erased members."""
        return MEMBER_ID.match(member_id) is not None and await self._members.get(member_id) is not None

    async def authenticate(self, email: str, password: str) -> Member:
        """Return the member with this address and password. Every failure takes the same time and raises the same error.

        Raises:
            Unauthenticated: no member has the address, the password is wrong, or the member is disabled or has no password.
            Validation: the address is not valid, or the password is too long.
            Overloaded: too many passwords are being hashed.
        """
        claimed = self._vault.email_claim(valid_email(email))
        async with self._passwords.slot():
            claim = await self._claims.get(claimed)
            # The second read is made for an unknown address too, so that both cases take the same time.
            member = await self._members.get(_MISSING_ID if claim is None else claim.member)
            stored = None if member is None else member.password_hash
            matches = await self._passwords.verify(password, stored)
            if not matches or member is None or stored is None or member.disabled_at is not None:
                raise Unauthenticated("the e-mail address or the password is wrong")
            if self._passwords.needs_rehash(stored):
                await self._upgrade_hash(member.id, stored, password)
        return member

    async def require_password(self, member_id: str, password: str) -> Member:
        """Check the password of a member who is logged in, and return the member.

        Raises:
            Validation: this is not the current password.
            NotFound: the member does not exist.
            Overloaded: too many passwords are being hashed.
        """
        async with self._passwords.slot():
            return await self._require_password(member_id, password)

    async def change_password(self, member_id: str, current: str, new: str, *, spare: str | None = None) -> None:
        """Change a password, and end all sessions of the member except `spare`.

        Raises:
            Validation: the current password is wrong, or the new one is not acceptable.
            NotFound: the member does not exist.
            Overloaded: too many passwords are being hashed.
        """
        async with self._passwords.slot():
            await self._check_new(member_id, new)
            member = await self._require_password(member_id, current)
            where = {"_id": member_id, "password_hash": member.password_hash}
            result = await self._members.raw.update_one(where, _new_epoch(await self._passwords.hash(new), spare))
        if not result.matched_count:
            raise Validation.at("/current_password", "another request changed the password at the same time")

    async def hash_new(self, member_id: str, password: str) -> str:
        """Check a new password of a member and return its hash.

        Raises:
            Validation: the password is not acceptable.
            NotFound: the member does not exist.
            Overloaded: too many passwords are being hashed.
        """
        async with self._passwords.slot():
            await self._check_new(member_id, password)
            return await self._passwords.hash(password)

    async def set_hash(self, member_id: str, password_hash: str, session: Session) -> bool:
        """Set a password in the session's transaction, and end all sessions of the member. Return False if the member is disabled."""
        where = {"_id": member_id, "disabled_at": None}
        result = await self._members.raw.update_one(where, _new_epoch(password_hash, None), session=session)
        return result.matched_count == 1

    async def set_disabled(self, member_id: str, actor: Actor, *, disabled: bool) -> BeforeAfter[Person]:
        """Disable or re-enable a member. Their wallets do not change.

        Raises:
            NotFound: the member does not exist.
            Forbidden: the member is the caller, or is staff and the caller is not an admin.
            InvalidState: the member is being erased or was erased.
        """
        person = await self.get_person(member_id)
        require_authority(actor, person.member)
        disabled_at = self._clock.now_ms() if disabled else None
        if (person.member.disabled_at is not None) == disabled and person.member.erasing_at is None:
            return BeforeAfter(person, person)
        return BeforeAfter(person, await self._change(member_id, {"disabled_at": disabled_at}))

    async def set_role(self, member_id: str, actor: Actor, role: Role) -> Person:
        """Set the role of a member.

        Raises:
            NotFound: the member does not exist.
            Forbidden: the member is the caller, or is staff and the caller is not an admin.
            InvalidState: the member is being erased or was erased.
        """
        member = await self.get_member(member_id)
        require_authority(actor, member)
        return await self._change(member_id, {"role": role})

    async def get_member(self, member_id: str) -> Member:
        """Return a member without their personal data.

        Raises:
            NotFound: the member does not exist, or this is not the id of a member.
        """
        member = await self._members.get(member_id) if MEMBER_ID.match(member_id) else None
        if member is None:
            raise NotFound(NO_MEMBER)
        return member

    async def require_member(self, member_id: str) -> None:
        """Check that a member exists.

        Raises:
            NotFound: the member does not exist, or this is not the id of a member.
        """
        if not self.remembers(member_id):
            await self.get_member(member_id)
            self.remember(member_id)

    def remembers(self, member_id: str) -> bool:
        """Return True if this process knows that the member exists."""
        return member_id in self._known

    def remember(self, member_id: str) -> None:
        """Remember that the member exists. Members are never deleted, and an erased member keeps the id."""
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(member_id)

    async def get_person(self, member_id: str) -> Person:
        """Return a member with their personal data.

        Raises:
            NotFound: the member does not exist, or this is not the id of a member.
        """
        if not MEMBER_ID.match(member_id):
            raise NotFound(NO_MEMBER)
        member, key = await asyncio.gather(self._members.get(member_id), self._vault.get_key(member_id))
        if member is None:
            raise NotFound(NO_MEMBER)
        return Person(member, open_profile(member, key))

    async def find_profiles(self, member_ids: Collection[str]) -> dict[str, Profile]:
        """Return the personal data of several members by id. Members without any, such as erased ones, have an empty profile."""
        found = await self._members.find({"_id": {"$in": sorted(member_ids)}}, limit=len(member_ids)) if member_ids else []
        keys = await self._vault.get_keys([member.id for member in found])
        return {member.id: open_profile(member, keys.get(member.id)) for member in found}

    async def find_by_email(self, address: str) -> Member | None:
        """Return the member with this valid address, or None."""
        claim = await self._claims.get(self._vault.email_claim(address))
        return None if claim is None else await self._members.get(claim.member)

    async def find_people(self, external_id: str | None, limit: int, before: str | None = None) -> tuple[list[Person], str | None]:
        """Return up to `limit` members, newest first and older than the id `before`, and the `before` of the next page or None.

        With an `external_id` the list contains only the member who has it, or is empty.

        Raises:
            Validation: `before` is not a cursor of this list.
        """
        if before is not None and not MEMBER_ID.match(before):
            raise Validation.at("cursor", "not a cursor of this list")
        if external_id is not None:
            member_id = await self.find_member_id(external_id)
            return ([] if member_id is None else [await self.get_person(member_id)]), None
        where = {} if before is None else {"_id": {"$lt": before}}
        found = await self._members.find(where, sort=[("_id", -1)], limit=limit + 1)
        page = found[:limit]
        keys = await self._vault.get_keys([member.id for member in page])
        people = [Person(member, open_profile(member, keys.get(member.id))) for member in page]
        return people, page[-1].id if len(found) > limit else None

    async def _require_password(self, member_id: str, password: str) -> Member:
        member = await self.get_member(member_id)
        if not await self._passwords.verify(password, member.password_hash):
            raise Validation.at("/current_password", "this is not the current password")
        return member

    async def _check_new(self, member_id: str, password: str) -> None:
        check_new_password(password, "/new_password", email=(await self.get_person(member_id)).profile.email)

    async def _add_with_password(self, email: str, password: str, role: Role) -> Person:
        address = valid_email(email)
        check_new_password(password, email=address)
        # Hashed before the address is looked up, so that a taken address takes as long as a free one.
        async with self._passwords.slot():
            password_hash = await self._passwords.hash(password)
        return await self._add(Profile(email=address), password_hash=password_hash, role=role)

    def _new_member(self, profile: Profile, *, password_hash: str | None = None, role: Role = "member") -> tuple[Member, PersonKey]:
        member_id = self._ids.new("mem")
        row, key = self._vault.new_key(member_id)
        member = Member(
            id=member_id,
            sealed=seal_profile(member_id, profile, key),
            claims=self._vault.claims_of(profile),
            password_hash=password_hash,
            role=role,
            created_at=self._clock.now_ms(),
        )
        return member, row

    async def _add(self, profile: Profile, *, password_hash: str | None = None, role: Role = "member") -> Person:
        member, key = self._new_member(profile, password_hash=password_hash, role=role)
        taken = await self._insert(member, key)
        if taken is not None:
            field = claimed_field(taken.id)
            raise AlreadyExists(f"another member has this {field}", field=field)
        return Person(member, profile)

    async def _insert(self, member: Member, key: PersonKey) -> Claim | None:
        """Insert a member with their claims and key in one transaction. Return a conflicting claim of another member, or None.

        A lost race appears as a duplicate key or as a write conflict, and a commit without a response as the member's own claim at the next
        attempt. After each of these the claims are read, which decides the outcome.
        """
        claims = _claims_of(member)
        for attempt in range(ATTEMPTS_MAX):
            try:
                async with self._database.transaction() as session:
                    for claim in claims:
                        await self._claims.insert(claim, session)
                    await self._person_keys.insert(key, session)
                    await self._members.insert(member, session)
                return None
            except PyMongoError as error:
                if not may_try_again(error):
                    raise
            await asyncio.sleep(min(BACKOFF_FIRST_SECONDS * 2**attempt, BACKOFF_MAX_SECONDS))
            found = await self._claims.find({"_id": {"$in": [claim.id for claim in claims]}}, sort=[("_id", 1)], limit=len(claims))
            if any(claim.member == member.id for claim in found):
                return None
            if found:
                return found[0]
        raise DatabaseUnavailable("the database did not commit in time; try again", retry_after_seconds=1)

    async def _change(self, member_id: str, values: Document) -> Person:
        """
        Raises:
            InvalidState: the member is being erased or was erased.
        """
        result = await self._members.raw.update_one({"_id": member_id, "erasing_at": None}, {"$set": values})
        person = await self.get_person(member_id)
        if not result.matched_count:
            detail = "this member was erased" if person.member.status == "erased" else "this member is being erased"
            raise InvalidState(detail, status_now=person.member.status)
        return person

    async def _upgrade_hash(self, member_id: str, stored: str, password: str) -> None:
        """Hash the password again with the current parameters, unless it was changed meanwhile."""
        stronger = await self._passwords.hash(password)
        await self._members.raw.update_one({"_id": member_id, "password_hash": stored}, {"$set": {"password_hash": stronger}})


def _claims_of(member: Member) -> list[Claim]:
    return [Claim(id=claim, member=member.id, created_at=member.created_at) for claim in member.claims]


def _new_epoch(password_hash: str, spared: str | None) -> Document:
    return {"$set": {"password_hash": password_hash, "spared": spared}, "$inc": {"epoch": 1}}
