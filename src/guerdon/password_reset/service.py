"""Password resets: the request, the token, and the new password."""

import asyncio

from guerdon.clock import Clock, to_datetime
from guerdon.database import Database, PyMongoError, Session
from guerdon.errors import DatabaseUnavailable, NotFound, Unauthenticated
from guerdon.members.rules import valid_email
from guerdon.members.service import Members
from guerdon.members.vault import Vault
from guerdon.outbox import Event, Outbox
from guerdon.password_reset.models import RESETS, Reset
from guerdon.password_reset.tokens import REFUSAL, ResetToken, new_reset_token, parse_reset_token
from guerdon.sessions.guard import LoginGuard
from guerdon.sessions.service import Sessions

RESET_TTL_SECONDS = 1800
PAUSE_SECONDS = 60
"""Minimum time between two tokens that are sent to one member."""
ASKED, TOKEN = "password_reset_asked", "password_reset_token"
TO_RECOVERY, TO_MAIL = "recovery", "mail"
BATCH = 50
ATTEMPTS_MAX, BACKOFF_SECONDS = 10, 0.01


class PasswordResets:
    """The password resets of this deployment."""

    def __init__(
        self,
        database: Database,
        members: Members,
        sessions: Sessions,
        *,
        vault: Vault,
        guard: LoginGuard,
        outbox: Outbox,
        clock: Clock,
    ) -> None:
        self._database = database
        self._resets = database.collection(RESETS, Reset)
        self._members = members
        self._sessions = sessions
        self._vault = vault
        self._guard = guard
        self._outbox = outbox
        self._clock = clock

    async def request(self, email: str) -> None:
        """Record a request for a password reset. A worker looks the address up later, so that the response time does not depend on it.

        Raises:
            Validation: the address is not valid.
        """
        address = valid_email(email)
        # The owner is the digest of the address, by which an erasure finds the sealed event.
        owner = self._vault.email_claim(address)
        await self._outbox.append(ASKED, owner, {"email": address}, channels=[TO_RECOVERY], ttl_seconds=RESET_TTL_SECONDS)

    async def process_requests(self) -> int:
        """Issue a token for each recorded request of an existing member, and return the number of requests.

        A member gets at most one token per minute, so that requests cannot fill a mailbox.
        """
        requests = await self._outbox.take(TO_RECOVERY, BATCH)
        for event in requests:
            member = await self._members.find_by_email(event.data["email"])
            if member is None or member.disabled_at is not None or await self._has_recent_token(member.id):
                await self._outbox.mark_delivered(event)
                continue
            async with self._database.transaction() as session:
                if await self._outbox.mark_delivered(event, session):
                    token = await self._new_token(member.id, session)
                    data = {"token": token.text}
                    await self._outbox.append(
                        TOKEN, member.id, data, channels=[TO_MAIL], ttl_seconds=RESET_TTL_SECONDS, session=session
                    )
        return len(requests)

    async def issue(self, member_id: str) -> str:
        """Return a token for an operator to hand over. Its secret is not stored.

        Raises:
            NotFound: the member does not exist or is disabled.
        """
        member = await self._members.get_member(member_id)
        if member.disabled_at is not None:
            raise NotFound("this member is disabled")
        return (await self._new_token(member.id)).text

    async def find_message(self, event: Event) -> tuple[str, str] | None:
        """Return the address and the token of an event to mail, or None if the token is no longer valid or there is no address."""
        token = parse_reset_token(event.data["token"])
        if not await self._is_valid(token):
            return None
        email = (await self._members.get_person(token.member_id)).profile.email
        return None if email is None else (email, token.text)

    async def reset(self, text: str, new_password: str) -> tuple[str, str | None]:
        """Set a new password with a reset token, and end all sessions. Return the member id and a device token.

        With the device token the member can log in while others guess the password. It is None for a member without an address.

        Raises:
            Unauthenticated: the token is not valid, was used, or has expired.
            Validation: the new password is not acceptable. The token remains valid.
            Overloaded: too many passwords are being hashed.
            DatabaseUnavailable: the database did not commit in time.
        """
        token = parse_reset_token(text)
        if not await self._is_valid(token):
            raise Unauthenticated(REFUSAL)
        # Hashed before the token is consumed, so that a caller whose password is refused can use the token again.
        password_hash = await self._members.hash_new(token.member_id, new_password)
        await self._use(token, password_hash)
        await self._sessions.end_all(token.member_id)
        email = (await self._members.get_person(token.member_id)).profile.email
        return token.member_id, None if email is None else self._guard.issue_for(email, token.member_id)

    async def _has_recent_token(self, member_id: str) -> bool:
        row = await self._resets.get(member_id)
        return row is not None and self._clock.now_ms() < row.ends_at - (RESET_TTL_SECONDS - PAUSE_SECONDS) * 1000

    async def _is_valid(self, token: ResetToken) -> bool:
        """Return True while this is the newest token of its member and has not expired.

        The digest is part of the query, so that a wrong token takes the same time whether or not its member has requested one.
        """
        row = await self._resets.find_one({"_id": token.member_id, "secret_sha256": token.sha256})
        return row is not None and self._clock.now_ms() < row.ends_at

    async def _new_token(self, member_id: str, session: Session | None = None) -> ResetToken:
        """Create the token of a member, which replaces an earlier one."""
        token, ends_at = new_reset_token(member_id), self._clock.now_ms() + RESET_TTL_SECONDS * 1000
        row = Reset(id=member_id, secret_sha256=token.sha256, ends_at=ends_at, expires_at=to_datetime(ends_at))
        await self._resets.raw.replace_one({"_id": member_id}, self._resets.encode(row), upsert=True, session=session)
        return token

    async def _use(self, token: ResetToken, password_hash: str) -> None:
        """Delete the token and set the password in one transaction."""
        for attempt in range(ATTEMPTS_MAX):
            try:
                async with self._database.transaction() as session:
                    where = {"_id": token.member_id, "secret_sha256": token.sha256}
                    result = await self._resets.raw.delete_one(where, session=session)
                    if not result.deleted_count or not await self._members.set_hash(token.member_id, password_hash, session):
                        raise Unauthenticated(REFUSAL)
                return
            except PyMongoError as error:
                # Only errors that certainly changed nothing are retried. After a commit without a response the next use of the token shows
                # the outcome.
                if not error.has_error_label("TransientTransactionError"):
                    raise
            await asyncio.sleep(BACKOFF_SECONDS * 2**attempt)
        raise DatabaseUnavailable("the database did not commit in time; try again", retry_after_seconds=1)
