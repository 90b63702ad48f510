"""Enrolment, verification and removal of second factors."""

from pymongo import ReturnDocument

from guerdon.clock import Clock
from guerdon.crypto.sealing import SealingKey
from guerdon.database import Database, Document, DuplicateKeyError
from guerdon.errors import InvalidState, NotFound, SecondFactorNeeded, TooManyRequests, Validation
from guerdon.members.models import NO_MEMBER, Member
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
    normalized,
    step_of,
    uri_of,
)


class SecondFactors:
    """The second factors of staff."""

    def __init__(
        self, database: Database, members: Members, *, vault: Vault, limiter: RateLimiter, clock: Clock, issuer: str
    ) -> None:
        """`issuer` is the name that an authenticator shows beside the address."""
        self._factors = database.collection(FACTORS, Factor)
        self._members = members
        self._vault = vault
        self._limiter = limiter
        self._clock = clock
        self._issuer = issuer

    async def get(self, member_id: str) -> Factor | None:
        """Return the factor of a member, confirmed or not, or None."""
        return await self._factors.get(member_id)

    # --- enrolling --------------------------------------------------------------------------------------------------

    async def begin(self, member_id: str, password: str) -> tuple[str, str]:
        """Return a new secret and its `otpauth` address. Log-ins require no code before `confirm`.

        Raises:
            InvalidState: a confirmed factor exists, which must be removed first.
            Validation: this is not the current password.
            TooManyRequests, StoreUnavailable: too many attempts at the password, or attempts cannot be counted.
            Overloaded: too many passwords are being hashed.
        """
        await self._require_password(member_id, password)
        person, key = await self._members.get_person(member_id), await self._key_of(member_id)
        secret = new_secret()
        factor = Factor(id=member_id, sealed=key.seal(secret.encode(), _context(member_id)), created_at=self._clock.now_ms())
        where = {"_id": member_id, "confirmed_at": None}
        try:
            await self._factors.raw.replace_one(where, self._factors.encode(factor), upsert=True)
        except DuplicateKeyError:
            raise _state("confirmed") from None
        return secret, uri_of(secret, self._issuer, person.profile.email or member_id)

    async def confirm(self, member_id: str, code: str) -> list[str]:
        """Confirm a factor with a code, so that log-ins require it from now on. Return the recovery codes.

        Raises:
            InvalidState: there is no factor, or it is already confirmed.
            Validation: the code is wrong.
            TooManyRequests: too many codes were wrong.
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
            "codes": [code_sha256(member_id, recovery_code) for recovery_code in codes],
            "tries": 0,
        }
        # Only the secret that the code was checked against: another `begin` may have replaced it meanwhile.
        where = {"_id": member_id, "confirmed_at": None, "sealed": factor.sealed}
        if step is None or not (await self._factors.raw.update_one(where, {"$set": change})).matched_count:
            raise _wrong_code()
        return codes

    async def renew_codes(self, member_id: str, password: str, code: str) -> list[str]:
        """Replace the recovery codes and return the new ones.

        Raises:
            InvalidState: there is no confirmed factor.
            Validation: the password or the code is wrong.
            TooManyRequests, StoreUnavailable, Overloaded: as for `begin`.
        """
        await self._require_both(member_id, password, code)
        codes = new_codes()
        digests = [code_sha256(member_id, recovery_code) for recovery_code in codes]
        await self._factors.raw.update_one({"_id": member_id}, {"$set": {"codes": digests}})
        return codes

    async def remove(self, member_id: str, password: str, code: str) -> None:
        """Remove the factor of a member who can prove both factors.

        Raises:
            InvalidState: there is no confirmed factor.
            Validation: the password or the code is wrong.
            TooManyRequests, StoreUnavailable, Overloaded: as for `begin`.
        """
        await self._require_both(member_id, password, code)
        await self.forget(member_id)

    async def forget(self, member_id: str) -> bool:
        """Remove the factor of a member without any proof. Return False if the member has no factor."""
        return (await self._factors.raw.delete_one({"_id": member_id})).deleted_count > 0

    # --- asking -----------------------------------------------------------------------------------------------------

    async def require(self, member: Member, code: str | None) -> bool:
        """Require the second factor of a member whose password was right. Return False if the member has no confirmed factor.

        A code is accepted once, also when several requests present it at the same time.

        Raises:
            SecondFactorNeeded: there is no code, or it is wrong.
            TooManyRequests: too many codes were wrong.
        """
        # Members have no factor, so no read is needed.
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
        """Consume a code and reset the tries. Return False if the code is wrong or was used already.

        Raises:
            TooManyRequests: too many codes were wrong.
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
        return step_of(key.open(factor.sealed, _context(factor.id)).decode(), normalized(code), self._clock.now_ms())

    async def _count_try(self, member_id: str) -> None:
        """Count a try before the code is checked, so that concurrent requests get no additional tries.

        Raises:
            TooManyRequests: too many codes were wrong.
        """
        now = self._clock.now_ms()
        expired: Document = {"$lte": ["$tries_end_at", now]}
        counted: Document = {
            "tries": {"$cond": [expired, 1, {"$add": ["$tries", 1]}]},
            "tries_end_at": {"$cond": [{"$or": [expired, {"$eq": ["$tries", 0]}]}, now + TRIES_MS, "$tries_end_at"]},
        }
        where: Document = {"_id": member_id, "$or": [{"tries": {"$lt": TRIES_MAX}}, {"tries_end_at": {"$lte": now}}]}
        if await self._factors.raw.find_one_and_update(where, [{"$set": counted}], return_document=ReturnDocument.AFTER):
            return
        factor = await self._factors.get(member_id)
        wait_ms = TRIES_MS if factor is None else factor.tries_end_at - now
        seconds = max(-(-wait_ms // 1000), 1)
        raise TooManyRequests.of(
            "second-factor", f"too many codes were wrong; try again in {seconds} s", retry_after_seconds=seconds
        )

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
            raise NotFound(NO_MEMBER)
        return key

    async def _require_password(self, member_id: str, password: str) -> None:
        await self._limiter.spend("password", member_id, without_store="closed")
        await self._members.require_password(member_id, password)
        await self._limiter.give_back("password", member_id)


def _state(status: str) -> InvalidState:
    detail = "there is no second factor" if status == "none" else f"the second factor is already {status}"
    return InvalidState(detail, status_now=status)


def _wrong_code() -> Validation:
    return Validation.at("/code", "this is not the current code of the authenticator, or it was used already")


def _context(member_id: str) -> str:
    return f"second factor of {member_id}"
