"""Enrolling a second factor, asking for it, and taking it away."""

from pymongo import ReturnDocument

from guerdon.clock import Clock
from guerdon.crypto.sealing import SealingKey
from guerdon.database import Database, Document, DuplicateKeyError
from guerdon.errors import InvalidState, NotFound, SecondFactorNeeded, TooManyRequests, Validation
from guerdon.members.models import Member
from guerdon.members.service import Members
from guerdon.members.vault import Vault
from guerdon.rate_limits.service import RateLimiter
from guerdon.second_factor.models import FACTORS, Factor
from guerdon.second_factor.rules import (
    TRIES_MAX,
    TRIES_MS,
    code_sha256,
    is_recovery_code,
    is_totp,
    new_codes,
    new_secret,
    plain,
    step_of,
    uri_of,
)


class SecondFactors:
    """The second factors of those who work here."""

    def __init__(
        self, database: Database, identity: Members, *, vault: Vault, throttle: RateLimiter, clock: Clock, issuer: str
    ) -> None:
        """`issuer` is what an authenticator shows beside the address."""
        self._factors = database.collection(FACTORS, Factor)
        self._identity = identity
        self._vault = vault
        self._throttle = throttle
        self._clock = clock
        self._issuer = issuer

    async def get(self, member_id: str) -> Factor | None:
        return await self._factors.get(member_id)

    # --- enrolling --------------------------------------------------------------------------------------------------

    async def begin(self, member_id: str, password: str) -> tuple[str, str]:
        """Return a new secret and its `otpauth` address. Nothing is asked for before `confirm`.

        Raises:
            InvalidState: there is a confirmed factor; it has to be removed first.
            Validation: this is not the current password.
            TooManyRequests, StoreUnavailable: too many have tried the password, or nobody can count.
            Overloaded: too many passwords are being hashed.
        """
        await self._require_password(member_id, password)
        person, key = await self._identity.get_person(member_id), await self._key_of(member_id)
        secret = new_secret()
        factor = Factor(id=member_id, sealed=key.seal(secret.encode(), _context(member_id)), created_at=self._clock.now_ms())
        where = {"_id": member_id, "confirmed_at": None}
        try:
            await self._factors.raw.replace_one(where, self._factors.encode(factor), upsert=True)
        except DuplicateKeyError:
            raise _state("confirmed") from None
        return secret, uri_of(secret, self._issuer, person.profile.email or member_id)

    async def confirm(self, member_id: str, code: str) -> list[str]:
        """Begin to ask for the factor, once its code has shown that the authenticator works; return the recovery codes.

        Raises:
            InvalidState: there is nothing to confirm.
            Validation: the code is not right.
            TooManyRequests: too many were not.
        """
        factor = await self._factors.get(member_id)
        if factor is None or factor.confirmed_at is not None:
            raise _state("none" if factor is None else "confirmed")
        await self._count_try(member_id)
        step = await self._step_of(factor, code)
        codes = new_codes()
        change = {
            "confirmed_at": self._clock.now_ms(),
            "last_step": step,
            "codes": [code_sha256(member_id, each) for each in codes],
            "tries": 0,
        }
        # The very secret that the code belongs to: another one may have taken its place meanwhile.
        where = {"_id": member_id, "confirmed_at": None, "sealed": factor.sealed}
        if step is None or not (await self._factors.raw.update_one(where, {"$set": change})).matched_count:
            raise _wrong_code()
        return codes

    async def renew_codes(self, member_id: str, password: str, code: str) -> list[str]:
        """Return new recovery codes; the older ones are void.

        Raises:
            InvalidState: there is no confirmed factor.
            Validation: the password or the code is not right.
            TooManyRequests, StoreUnavailable, Overloaded: as elsewhere.
        """
        await self._require_both(member_id, password, code)
        codes = new_codes()
        digests = [code_sha256(member_id, each) for each in codes]
        await self._factors.raw.update_one({"_id": member_id}, {"$set": {"codes": digests}})
        return codes

    async def remove(self, member_id: str, password: str, code: str) -> None:
        """Ask for the factor no longer.

        Raises:
            InvalidState: there is no confirmed factor.
            Validation: the password or the code is not right.
            TooManyRequests, StoreUnavailable, Overloaded: as elsewhere.
        """
        await self._require_both(member_id, password, code)
        await self.forget(member_id)

    async def forget(self, member_id: str) -> bool:
        """Take somebody's factor away, whatever they can prove; false when there is none."""
        return (await self._factors.raw.delete_one({"_id": member_id})).deleted_count > 0

    # --- asking -----------------------------------------------------------------------------------------------------

    async def require(self, member: Member, code: str | None) -> bool:
        """Ask somebody who has proven the password for the second factor, if there is one. Return whether there was.

        A code is good once: of those who show it at the same moment one is let in.

        Raises:
            SecondFactorNeeded: no code was shown, or one that is not right.
            TooManyRequests: too many were not right.
        """
        # Members have none, and pay nothing for that.
        factor = None if member.role == "member" else await self._factors.get(member.id)
        if factor is None or factor.confirmed_at is None:
            return False
        needed = SecondFactorNeeded("send the code of your authenticator, or a recovery code, as `code`")
        if code is None:
            raise needed.concerning("second_factor_asked", member.id)
        if not await self._accepts(factor, code):
            raise needed.concerning("second_factor_failed", member.id)
        return True

    async def _accepts(self, factor: Factor, code: str) -> bool:
        """Use a code up; false when it is not right, or somebody was quicker. What is right clears the tries.

        Raises:
            TooManyRequests: too many were not right.
        """
        await self._count_try(factor.id)
        if is_recovery_code(code):
            digest = code_sha256(factor.id, code)
            where: Document = {"_id": factor.id, "codes": digest}
            change: Document = {"$pull": {"codes": digest}, "$set": {"tries": 0}}
        else:
            step = await self._step_of(factor, code)
            if step is None:
                return False
            where = {"_id": factor.id, "last_step": {"$lt": step}}
            change = {"$set": {"last_step": step, "tries": 0}}
        return (await self._factors.raw.update_one(where, change)).matched_count == 1

    async def _step_of(self, factor: Factor, code: str) -> int | None:
        if not is_totp(code):
            return None
        key = await self._key_of(factor.id)
        return step_of(key.open(factor.sealed, _context(factor.id)).decode(), plain(code), self._clock.now_ms())

    async def _count_try(self, member_id: str) -> None:
        """Count before looking, so that many at once do not get more tries than one after another.

        Raises:
            TooManyRequests: only waiting helps now.
        """
        now = self._clock.now_ms()
        over: Document = {"$lte": ["$tries_end_at", now]}
        counted: Document = {
            "tries": {"$cond": [over, 1, {"$add": ["$tries", 1]}]},
            "tries_end_at": {"$cond": [{"$or": [over, {"$eq": ["$tries", 0]}]}, now + TRIES_MS, "$tries_end_at"]},
        }
        where: Document = {"_id": member_id, "$or": [{"tries": {"$lt": TRIES_MAX}}, {"tries_end_at": {"$lte": now}}]}
        if await self._factors.raw.find_one_and_update(where, [{"$set": counted}], return_document=ReturnDocument.AFTER):
            return
        factor = await self._factors.get(member_id)
        wait_ms = TRIES_MS if factor is None else factor.tries_end_at - now
        seconds = max(-(-wait_ms // 1000), 1)
        raise TooManyRequests.of("second-factor", "too many codes were wrong; wait", retry_after_seconds=seconds)

    async def _require_both(self, member_id: str, password: str, code: str) -> None:
        await self._require_password(member_id, password)
        factor = await self._factors.get(member_id)
        if factor is None or factor.confirmed_at is None:
            raise _state("none")
        if not await self._accepts(factor, code):
            raise _wrong_code()

    async def _key_of(self, member_id: str) -> SealingKey:
        """
        Raises:
            NotFound: the member was erased.
        """
        key = await self._vault.get_key(member_id)
        if key is None:
            raise NotFound("there is no such member")
        return key

    async def _require_password(self, member_id: str, password: str) -> None:
        await self._throttle.spend("password", member_id, without_store="closed")
        await self._identity.require_password(member_id, password)
        await self._throttle.give_back("password", member_id)


def _state(now: str) -> InvalidState:
    return InvalidState(f"this is not possible: the second factor is {now}", status_now=now)


def _wrong_code() -> Validation:
    return Validation.at("/code", "this is not the code of the authenticator now, or it was used already")


def _context(member_id: str) -> str:
    return f"second factor of {member_id}"
