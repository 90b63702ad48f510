"""Holds guessing of passwords down without giving strangers a way to lock a member out.

After the device cookies of OWASP ("Slow Down Online Guessing Attacks with Device Cookies"): whoever has logged in from somewhere before shows
the device token of that log-in and has attempts of their own, so that they get in however many strangers guess at the same moment. All
strangers together share one account's attempts, whether or not there is such an account.
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
"""So long after its last log-in a device is still known."""
EVERYBODY = "all"
_CONTEXT = "device token"
_OWNER_BYTES, _TIME_BYTES, _NAME_BYTES = 32, 8, 12


class Attempt(Struct):
    """One try at an account's password."""

    account: bytes
    """Stands for the address, whoever it belongs to; made with the vault's key, since counters lie in a store that is not sealed."""
    device: bytes | None
    """The name of the known device that it comes from."""


class LoginGuard:
    """Admits attempts, and gives out device tokens."""

    def __init__(self, throttle: RateLimiter, vault: Vault, identity: Members, clock: Clock) -> None:
        self._throttle = throttle
        self._vault = vault
        self._identity = identity
        self._clock = clock

    @asynccontextmanager
    async def attempt(self, email: str, address: str, device_token: str | None) -> AsyncGenerator[Attempt]:
        """Count an attempt unless it succeeds: one that fails for want of proof stays counted, anything else is given back.

        Raises:
            Validation: the address is none.
            TooManyRequests: there were too many.
            StoreUnavailable: nobody can count, and so nobody is let in.
        """
        account = self._account_of(valid_email(email))
        attempt = Attempt(account, await self._device_of(device_token, email, account))
        taken = await self._take(attempt, address)
        try:
            yield attempt
        except Unauthenticated:
            raise
        except BaseException:
            await self._give_back(taken)
            raise
        await self._give_back(taken)

    @asynccontextmanager
    async def own_password(self, member_id: str) -> AsyncGenerator[None]:
        """Count an attempt of somebody who has logged in to prove the password once more, unless it succeeds.

        Raises:
            TooManyRequests: there were too many.
        """
        await self._throttle.spend("password", member_id, without_store="closed")
        yield
        await self._throttle.give_back("password", member_id)

    def issue(self, attempt: Attempt, member_id: str) -> str:
        """Return a device token for the next log-ins of this member from where this one came."""
        name = attempt.device or random_bytes(_NAME_BYTES)
        plain = _owner(attempt.account, member_id) + self._clock.now_ms().to_bytes(_TIME_BYTES) + name
        return PREFIX + urlsafe_b64encode(self._vault.master.seal(plain, _CONTEXT)).decode()

    def issue_for(self, email: str, member_id: str) -> str:
        """Return a device token for a member who has proven to own an address, but has not logged in."""
        return self.issue(Attempt(self._account_of(email), None), member_id)

    async def _take(self, attempt: Attempt, address: str) -> list[tuple[str, str]]:
        if attempt.device is not None:
            return [await self._spend("device", attempt.device.hex())]
        taken = [await self._spend("account", attempt.account.hex())]
        try:
            taken.append(await self._spend("failures", EVERYBODY))
        except TooManyRequests:
            # So many fail everywhere that somebody is trying one password on many accounts: no address has a second try now.
            taken.append(await self._spend("spray", address))
        return taken

    async def _spend(self, name: str, who: str) -> tuple[str, str]:
        await self._throttle.spend(name, who, without_store="closed")
        return name, who

    async def _give_back(self, taken: list[tuple[str, str]]) -> None:
        for name, who in taken:
            await self._throttle.give_back(name, who)

    def _account_of(self, email: str) -> bytes:
        return digest(self._vault.email_claim(email))

    async def _device_of(self, token: str | None, email: str, account: bytes) -> bytes | None:
        """Return the name of the device, if the token is ours, not too old, and this member's to whom the address belongs now.

        Else it is a stranger's: also that of somebody who was erased, when somebody else has the address.
        """
        if token is None or not token.startswith(PREFIX):
            return None
        try:
            plain = self._vault.master.open(urlsafe_b64decode(token.removeprefix(PREFIX).encode()), _CONTEXT)
        except (GuerdonError, ValueError):
            return None
        issued_at = int.from_bytes(plain[_OWNER_BYTES : _OWNER_BYTES + _TIME_BYTES])
        if self._clock.now_ms() - issued_at > KNOWN_MS:
            return None
        member = await self._identity.find_by_email(email)
        if member is None or plain[:_OWNER_BYTES] != _owner(account, member.id):
            return None
        return plain[_OWNER_BYTES + _TIME_BYTES :]


def _owner(account: bytes, member_id: str) -> bytes:
    """Stands for an address in the hands of one member."""
    return digest(account, member_id)
