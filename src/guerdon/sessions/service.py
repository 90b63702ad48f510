"""Logging in, staying logged in, logging out; and whether somebody who has logged in still may."""

import asyncio

from msgspec import Struct
from pymongo import ReturnDocument

from guerdon.access.tokens import Tokens
from guerdon.clock import Clock, rfc3339, to_datetime
from guerdon.crypto.sealing import SealingKey
from guerdon.database import Database
from guerdon.errors import NotFound, Unauthenticated
from guerdon.members.models import MEMBERS, Member
from guerdon.members.service import Members
from guerdon.members.vault import Vault
from guerdon.permissions import ROLE_SCOPES, Actor
from guerdon.second_factor.service import SecondFactors
from guerdon.sessions.guard import LoginGuard
from guerdon.sessions.models import SESSIONS, LoginCreate, Session, TokenView, about
from guerdon.sessions.refresh import REFUSAL, RefreshToken, first_token, new_session_id, parse_refresh_token
from guerdon.sessions.rules import is_live, may_go_on, meaning_of

SESSIONS_MAX = 20
"""Of one member. One more log-in ends the session that was used least recently."""
STANDING_SECONDS = 30.0
"""So long a process may go on believing that a session lives, on routes that only read."""
STANDING_MAX = 10_000
_HOUR_MS = 3_600_000
_ENDED = "the session has ended; log in again"


class SessionRules(Struct, frozen=True):
    """What a deployment asks of its sessions."""

    idle_hours: int
    """So long one lives without being used."""
    absolute_hours: int
    """So long one lives whatever happens."""
    second_factor_required: bool
    """Have those who work here no scopes in one that began without a second factor?"""

    @property
    def idle_ms(self) -> int:
        return self.idle_hours * _HOUR_MS

    @property
    def absolute_ms(self) -> int:
        return self.absolute_hours * _HOUR_MS


class Sessions:
    """The sessions of this deployment's members."""

    def __init__(
        self,
        database: Database,
        identity: Members,
        *,
        vault: Vault,
        tokens: Tokens,
        clock: Clock,
        guard: LoginGuard,
        factors: SecondFactors,
        terms: SessionRules,
    ) -> None:
        self._vault = vault
        self._sessions = database.collection(SESSIONS, Session)
        self._members = database.collection(MEMBERS, Member)
        self._database = database
        self._identity = identity
        self._tokens = tokens
        self._clock = clock
        self._guard = guard
        self._factors = factors
        self._terms = terms
        # By session, in the order in which they were asked for.
        self._standing: dict[str, tuple[float, Actor]] = {}

    # --- commands ---------------------------------------------------------------------------------------------------

    async def log_in(self, body: LoginCreate, device: str | None, address: str) -> TokenView:
        """Begin a session. `device` is what it says that it is, `address` where it comes from.

        Raises:
            Unauthenticated: see `Identity.prove`.
            SecondFactorNeeded: see `Factors.require`; the password was right.
            TooManyRequests: too many have tried the password or the code; see `Guard.attempt` and `Factors.require`.
            StoreUnavailable: nobody can count the attempts, and so nobody is let in.
            Validation: the address is none, or the password is too long to be one.
            Overloaded: too many passwords are being hashed.
        """
        async with self._guard.attempt(body.email, address, body.device_token) as attempt:
            member = await self._identity.prove(body.email, body.password)
        # Behind the guard: whoever gets here has proven the password, and wrong codes are counted for themselves.
        factor = await self._factors.require(member, body.code)
        await self._make_room(member.id)
        now, token = self._clock.now_ms(), first_token(new_session_id(member.id))
        ends_at = now + self._terms.absolute_ms
        session = Session(
            id=token.session_id,
            member=member.id,
            family=token.family_sha256,
            current=token.sha256,
            created_at=now,
            used_at=now,
            ends_at=ends_at,
            epoch=member.epoch,
            factor=factor,
            device=await self._seal_device(token.session_id, member.id, device),
            expires_at=to_datetime(ends_at),
        )
        await self._sessions.insert(session)
        return self._view(member, session, token, self._guard.issue(attempt, member.id))

    async def refresh(self, text: str) -> TokenView:
        """Exchange a refresh token for the next pair. The token dies, and showing it again after the grace ends the session.

        Raises:
            Unauthenticated: it is no token of a living session, or a dead one of it; then the session is dead as well.
        """
        shown = parse_refresh_token(text)
        session = await self._sessions.get(shown.session_id)
        now = self._clock.now_ms()
        meaning = "foreign" if session is None else meaning_of(shown, session, now, self._terms.idle_ms)
        if session is not None and meaning == "rotate":
            session = await self._rotate(session, shown, now)
            # Of several at once one has rotated, and the token of the others is the parent of that one's now.
            meaning = "foreign" if session is None else meaning_of(shown, session, now, self._terms.idle_ms)
        if session is None or meaning != "repeat" or session.sealed is None:
            refused = Unauthenticated(REFUSAL)
            if meaning == "reused":
                await self._end({"_id": shown.session_id})
                refused.concerning("token_reused", shown.session_id.partition(":")[0])
            raise refused
        member = await self._members.get(session.member)
        if member is None or not may_go_on(session, member):
            raise Unauthenticated(REFUSAL)
        return self._view(member, session, shown.unseal(session.sealed))

    async def log_out(self, text: str) -> None:
        """End the session of a refresh token. A dead or an unknown token ends nothing, and that is all right too."""
        try:
            shown = parse_refresh_token(text)
        except Unauthenticated:
            return
        await self._end({"_id": shown.session_id, "family": shown.family_sha256})

    async def end(self, actor: Actor, session_id: str) -> None:
        """End one of the caller's own sessions.

        Raises:
            NotFound: the caller has no such session that lives.
        """
        if not await self._end({"_id": session_id, "member": actor.id}):
            raise NotFound("there is no such session")

    async def end_all(self, member_id: str, *, but: str | None = None) -> None:
        """End every session of a member, except one if told."""
        for session in await self._all_of(member_id):
            if session.id != but:
                await self._end({"_id": session.id})

    async def prove(self, actor: Actor, password: str) -> None:
        """Have the caller prove by the password that they still are who has logged in.

        Raises:
            Validation: the password is not right.
            TooManyRequests, StoreUnavailable: as for `log_in`.
            Overloaded: too many passwords are being hashed.
        """
        async with self._guard.own_password(actor.id):
            await self._identity.require_password(actor.id, password)

    async def change_password(self, actor: Actor, current: str, new: str) -> None:
        """Change the caller's password and end every other session.

        Raises:
            Validation: the current password is not right, or the new one is not acceptable.
            TooManyRequests, StoreUnavailable: as for `log_in`.
            Overloaded: too many passwords are being hashed.
        """
        async with self._guard.own_password(actor.id):
            await self._identity.change_password(actor.id, current, new, spare=actor.session)
        # They have ended with the epoch; this only clears them away.
        await self.end_all(actor.id, but=actor.session)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def list_of(self, member_id: str) -> list[tuple[Session, str | None]]:
        """A member's living sessions, each with its device, the one used last first."""
        now = self._clock.now_ms()
        found, key = await asyncio.gather(self._all_of(member_id), self._vault.get_key(member_id))
        living = [session for session in found if is_live(session, now, self._terms.idle_ms)]
        living.sort(key=lambda session: session.used_at, reverse=True)
        return [(session, _open_device(session, key)) for session in living]

    async def stand(self, actor: Actor, *, fresh: bool) -> Actor:
        """Return what the holder of an access token is now: the session may have ended since, or the role have changed.

        With `fresh` it is read at this moment; otherwise it may be as old as `STANDING_SECONDS`.

        Raises:
            Unauthenticated: the session has ended, or the member is disabled.
        """
        session_id = str(actor.session)
        known = self._standing.get(session_id)
        if not fresh and known is not None and self._clock.monotonic() - known[0] < STANDING_SECONDS:
            return known[1]
        asked_at = self._clock.monotonic()
        session, member = await asyncio.gather(self._sessions.get(session_id), self._members.get(actor.id))
        self._standing.pop(session_id, None)
        if session is None or member is None or session.member != actor.id:
            raise Unauthenticated(_ENDED)
        if not may_go_on(session, member) or not is_live(session, self._clock.now_ms(), self._terms.idle_ms):
            raise Unauthenticated(_ENDED)
        now = self._actor_of(member, session)
        self._standing[session_id] = (asked_at, now)
        if len(self._standing) > STANDING_MAX:
            del self._standing[next(iter(self._standing))]
        return now

    # --- inside -----------------------------------------------------------------------------------------------------

    def _actor_of(self, member: Member, session: Session) -> Actor:
        if member.role == "member":
            return Actor(member.id, "member", session=session.id)
        trusted = session.factor or not self._terms.second_factor_required
        return Actor(member.id, "operator", ROLE_SCOPES[member.role] if trusted else frozenset(), session.id)

    async def _seal_device(self, session_id: str, member_id: str, device: str | None) -> bytes | None:
        key = None if device is None else await self._vault.get_key(member_id)
        return None if device is None or key is None else key.seal(device.encode(), _device_context(session_id))

    async def _rotate(self, session: Session, shown: RefreshToken, now_ms: int) -> Session | None:
        """Make the successor the living token, if `shown` still is. Return the session as it is then, whoever has rotated it."""
        successor = shown.successor()
        changed = {
            "current": successor.sha256,
            "previous": shown.sha256,
            "sealed": shown.seal(successor),
            "used_at": now_ms,
        }
        where = {"_id": session.id, "current": session.current}
        found = await self._sessions.raw.find_one_and_update(where, {"$set": changed}, return_document=ReturnDocument.AFTER)
        return await self._sessions.get(session.id) if found is None else self._sessions.decode(found)

    async def _make_room(self, member_id: str) -> None:
        found = await self._all_of(member_id)
        for session in sorted(found, key=lambda session: session.used_at)[: max(len(found) - SESSIONS_MAX + 1, 0)]:
            await self._end({"_id": session.id})

    async def _all_of(self, member_id: str) -> list[Session]:
        """Log-ins at the same moment may make a few too many."""
        return await self._sessions.find(about(member_id), limit=10 * SESSIONS_MAX)

    async def _end(self, where: dict[str, object]) -> bool:
        """An ended session leaves nothing behind: its tokens are refused like any that never were."""
        done = await self._sessions.raw.delete_one(where)
        self._standing.pop(str(where["_id"]), None)
        return done.deleted_count > 0

    def _view(self, member: Member, session: Session, token: RefreshToken, device_token: str | None = None) -> TokenView:
        return TokenView(
            access_token=self._tokens.issue(member.id, member.role, session.id),
            token_type="Bearer",  # noqa: S106 - the name of a scheme, not a secret
            expires_in_seconds=self._tokens.ttl_seconds,
            member_id=member.id,
            refresh_token=token.text,
            session_id=session.id,
            session_ends_at=rfc3339(session.ends_at),
            device_token=device_token,
        )


def _open_device(session: Session, key: SealingKey | None) -> str | None:
    if session.device is None or key is None:
        return None
    return key.open(session.device, _device_context(session.id)).decode()


def _device_context(session_id: str) -> str:
    return f"device of {session_id}"
