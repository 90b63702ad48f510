"""Limits password guessing without letting attackers lock a member out.

The method is that of the OWASP device cookies ("Slow Down Online Guessing Attacks with Device Cookies"). A client that has logged in before
presents the device token of that log-in and has its own limit of attempts, so that it can log in while others guess. All unknown clients
share one limit per account, which also applies to accounts that do not exist.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from joserfc.util import urlsafe_b64decode, urlsafe_b64encode
from msgspec import Struct

from guerdon.clock import Clock
from guerdon.errors import GuerdonError, TooManyRequests, Unauthenticated
from guerdon.ids import digest, random_bytes
from guerdon.members.rules import valid_email
from guerdon.members.service import Members
from guerdon.members.vault import Vault
from guerdon.rate_limits.service import RateLimiter

PREFIX = "gd_"
KNOWN_MS = 180 * 86_400_000
"""Time after its last log-in for which a device is known."""
ALL_FAILURES = "all"
"""Key of the counter of all failed attempts."""
_CONTEXT = "device token"
_OWNER_BYTES, _TIME_BYTES, _NAME_BYTES = 32, 8, 12


class Attempt(Struct):
    """One attempt at the password of an account."""

    account: bytes
    """Digest of the address, made with the look-up key, because counters are stored unsealed."""
    device: bytes | None
    """Name of the known device from which the attempt comes, or None."""


class LoginGuard:
    """Limits attempts, and issues device tokens."""

    def __init__(self, limiter: RateLimiter, vault: Vault, members: Members, clock: Clock) -> None:
        self._limiter = limiter
        self._vault = vault
        self._members = members
        self._clock = clock

    @asynccontextmanager
    async def attempt(self, email: str, address: str, device_token: str | None) -> AsyncGenerator[Attempt]:
        """Count an attempt whose body raises `Unauthenticated`. A success and any other error are not counted.

        Raises:
            Validation: the address is not valid.
            TooManyRequests: there were too many attempts.
            StoreUnavailable: attempts cannot be counted, so no log-in is allowed.
        """
        account = self._account_of(valid_email(email))
        attempt = Attempt(account, await self._device_of(device_token, email, account))
        spent = await self._count(attempt, address)
        try:
            yield attempt
        except Unauthenticated:
            raise
        except BaseException:
            await self._give_back(spent)
            raise
        await self._give_back(spent)

    @asynccontextmanager
    async def own_password(self, member_id: str) -> AsyncGenerator[None]:
        """Count an attempt of a logged-in member to confirm the password, unless the body succeeds.

        Raises:
            TooManyRequests: there were too many attempts.
            StoreUnavailable: attempts cannot be counted.
        """
        await self._limiter.spend("password", member_id, without_store="closed")
        yield
        await self._limiter.give_back("password", member_id)

    def issue(self, attempt: Attempt, member_id: str) -> str:
        """Return a device token for later log-ins of this member from the same device."""
        name = attempt.device or random_bytes(_NAME_BYTES)
        content = _owner(attempt.account, member_id) + self._clock.now_ms().to_bytes(_TIME_BYTES) + name
        return PREFIX + urlsafe_b64encode(self._vault.master.seal(content, _CONTEXT)).decode()

    def issue_for(self, email: str, member_id: str) -> str:
        """Return a device token for a member who has proven to own an address without logging in."""
        return self.issue(Attempt(self._account_of(email), None), member_id)

    async def _count(self, attempt: Attempt, address: str) -> list[tuple[str, str]]:
        """Count an attempt, and return the counters (quota, key) from which it was taken."""
        if attempt.device is not None:
            return [await self._spend("device", attempt.device.hex())]
        spent = [await self._spend("account", attempt.account.hex())]
        try:
            spent.append(await self._spend("failures", ALL_FAILURES))
        except TooManyRequests:
            # The number of failures shows that one password is being tried on many accounts: each address has one attempt now.
            spent.append(await self._spend("spray", address))
        return spent

    async def _spend(self, quota: str, key: str) -> tuple[str, str]:
        await self._limiter.spend(quota, key, without_store="closed")
        return quota, key

    async def _give_back(self, spent: list[tuple[str, str]]) -> None:
        for quota, key in spent:
            await self._limiter.give_back(quota, key)

    def _account_of(self, email: str) -> bytes:
        return digest(self._vault.email_claim(email))

    async def _device_of(self, token: str | None, email: str, account: bytes) -> bytes | None:
        """Return the name of the device, or None if it is not known.

        The token must be genuine, not too old, and issued to the member to whom the address belongs now: after an erasure the address may
        belong to another member.
        """
        if token is None or not token.startswith(PREFIX):
            return None
        try:
            content = self._vault.master.open(urlsafe_b64decode(token.removeprefix(PREFIX).encode()), _CONTEXT)
        except (GuerdonError, ValueError):
            return None
        issued_at = int.from_bytes(content[_OWNER_BYTES : _OWNER_BYTES + _TIME_BYTES])
        if self._clock.now_ms() - issued_at > KNOWN_MS:
            return None
        member = await self._members.find_by_email(email)
        if member is None or content[:_OWNER_BYTES] != _owner(account, member.id):
            return None
        return content[_OWNER_BYTES + _TIME_BYTES :]


def _owner(account: bytes, member_id: str) -> bytes:
    """Return the digest of an address and the member to whom it belongs."""
    return digest(account, member_id)
