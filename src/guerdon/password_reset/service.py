"""Asking for a new password, handing out the token for it, and setting it."""

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
"""Between two tokens that are sent to one member."""
ASKED, TOKEN = "password_reset_asked", "password_reset_token"
TO_RECOVERY, TO_MAIL = "recovery", "mail"
BATCH = 50
ATTEMPTS_MAX, BACKOFF_SECONDS = 10, 0.01


class PasswordResets:
    """The ways back in of this deployment's members."""

    def __init__(
        self,
        database: Database,
        identity: Members,
        sessions: Sessions,
        *,
        vault: Vault,
        guard: LoginGuard,
        outbox: Outbox,
        clock: Clock,
    ) -> None:
        self._database = database
        self._resets = database.collection(RESETS, Reset)
        self._identity = identity
        self._sessions = sessions
        self._vault = vault
        self._guard = guard
        self._outbox = outbox
        self._clock = clock

    async def ask(self, email: str) -> None:
        """Note that somebody wants a new password. Who has the address is only looked up later, by a worker: so the answer cannot tell.

        Raises:
            Validation: the address is none.
        """
        address = valid_email(email)
        # Under the digest of the address, so that an erasure finds what is sealed here.
        owner = self._vault.email_claim(address)
        await self._outbox.append(ASKED, owner, {"email": address}, channels=[TO_RECOVERY], ttl_seconds=RESET_TTL_SECONDS)

    async def answer_asked(self) -> int:
        """Hand a token to each of those who have asked and whom there is; return how many have asked.

        Who has been handed one a moment ago has to do with that: a letter a minute is enough to fill somebody's mailbox with.
        """
        asked = await self._outbox.take(TO_RECOVERY, BATCH)
        for event in asked:
            member = await self._identity.find_by_email(event.data["email"])
            if member is None or member.disabled_at is not None or await self._has_just_got_one(member.id):
                await self._outbox.done(event)
                continue
            async with self._database.transaction() as session:
                if await self._outbox.done(event, session):
                    token = await self._new_token(member.id, session)
                    told = {"token": token.text}
                    await self._outbox.append(
                        TOKEN, member.id, told, channels=[TO_MAIL], ttl_seconds=RESET_TTL_SECONDS, session=session
                    )
        return len(asked)

    async def issue(self, member_id: str) -> str:
        """Return a token for whoever an operator will hand it to: this is the only time that anybody sees it.

        Raises:
            NotFound: there is no such member, or they may not log in.
        """
        member = await self._identity.get_member(member_id)
        if member.disabled_at is not None:
            raise NotFound("this member is disabled")
        return (await self._new_token(member.id)).text

    async def letter_for(self, event: Event) -> tuple[str, str] | None:
        """Return address and token of an event that is to be told by mail, or None when it is of no use any more."""
        token = parse_reset_token(event.data["token"])
        if not await self._is_valid(token):
            return None
        email = (await self._identity.get_person(token.member_id)).profile.email
        return None if email is None else (email, token.text)

    async def reset(self, text: str, new_password: str) -> tuple[str, str | None]:
        """Set a new password and end all sessions. Return whose, and a device token. The token of the letter can be used once.

        With the device token the owner of an account gets in while strangers go on guessing at it; None for whoever has no address.

        Raises:
            Unauthenticated: it is no token that can be used now.
            Validation: the new password is not acceptable; the token stays as it is.
            Overloaded: too many passwords are being hashed.
            DatabaseUnavailable: the database did not settle it in time.
        """
        token = parse_reset_token(text)
        if not await self._is_valid(token):
            raise Unauthenticated(REFUSAL)
        # Hashed before the token is used up: who is refused now may try again with it.
        password_hash = await self._identity.hash_new(token.member_id, new_password)
        await self._use(token, password_hash)
        await self._sessions.end_all(token.member_id)
        email = (await self._identity.get_person(token.member_id)).profile.email
        return token.member_id, None if email is None else self._guard.issue_for(email, token.member_id)

    async def _has_just_got_one(self, member_id: str) -> bool:
        row = await self._resets.get(member_id)
        return row is not None and self._clock.now_ms() < row.ends_at - (RESET_TTL_SECONDS - PAUSE_SECONDS) * 1000

    async def _is_valid(self, token: ResetToken) -> bool:
        """Return True while this is the newest token of its member.

        The digest is part of the query, so a wrong token takes equally long whether or not its member has asked for one.
        """
        row = await self._resets.find_one({"_id": token.member_id, "secret_sha256": token.sha256})
        return row is not None and self._clock.now_ms() < row.ends_at

    async def _new_token(self, member_id: str, session: Session | None = None) -> ResetToken:
        """Make the token of a member; one that was there before is useless from now on."""
        token, ends_at = new_reset_token(member_id), self._clock.now_ms() + RESET_TTL_SECONDS * 1000
        row = Reset(id=member_id, secret_sha256=token.sha256, ends_at=ends_at, expires_at=to_datetime(ends_at))
        await self._resets.raw.replace_one({"_id": member_id}, self._resets.encode(row), upsert=True, session=session)
        return token

    async def _use(self, token: ResetToken, password_hash: str) -> None:
        """Take the token away and set the password, both or neither."""
        for attempt in range(ATTEMPTS_MAX):
            try:
                async with self._database.transaction() as session:
                    where = {"_id": token.member_id, "secret_sha256": token.sha256}
                    used = await self._resets.raw.delete_one(where, session=session)
                    if not used.deleted_count or not await self._identity.set_hash(token.member_id, password_hash, session):
                        raise Unauthenticated(REFUSAL)
                return
            except PyMongoError as error:
                # Only what has surely changed nothing: of a commit that was not answered the token's next use will tell.
                if not error.has_error_label("TransientTransactionError"):
                    raise
            await asyncio.sleep(BACKOFF_SECONDS * 2**attempt)
        raise DatabaseUnavailable("the database could not settle this in time; try again", retry_after_seconds=1)
