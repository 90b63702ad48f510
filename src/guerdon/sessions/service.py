"""Log-in, refresh, log-out, and the current permissions of a session."""

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
from guerdon.sessions.models import SESSIONS, LoginCreate, Session, TokenView
from guerdon.sessions.refresh import REFUSAL, RefreshToken, first_token, new_session_id, parse_refresh_token, sessions_of
from guerdon.sessions.rules import is_live, may_go_on, meaning_of

SESSIONS_MAX = 20
"""Maximum number of sessions of one member. Another log-in ends the least recently used session."""
CHECKED_SECONDS = 30.0
"""Maximum age of a cached session check, on routes that only read."""
CHECKED_MAX = 10_000
"""Maximum number of sessions whose check a process caches."""
_HOUR_MS = 3_600_000
_ENDED = "the session has ended; log in again"


class SessionRules(Struct, frozen=True):
    """The settings of sessions."""

    idle_hours: int
    """Time after which an unused session ends."""
    absolute_hours: int
    """Time after which every session ends."""
    second_factor_required: bool
    """True if staff have no scopes in a session that began without a second factor."""

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
        members: Members,
        *,
        vault: Vault,
        tokens: Tokens,
        clock: Clock,
        guard: LoginGuard,
        factors: SecondFactors,
        rules: SessionRules,
    ) -> None:
        self._vault = vault
        self._sessions = database.collection(SESSIONS, Session)
        self._member_rows = database.collection(MEMBERS, Member)
        self._members = members
        self._tokens = tokens
        self._clock = clock
        self._guard = guard
        self._factors = factors
        self._rules = rules
        # By session id, in the order of the checks: the time of the check and its result.
        self._checked: dict[str, tuple[float, Actor]] = {}

    # --- commands ---------------------------------------------------------------------------------------------------

    async def log_in(self, body: LoginCreate, device: str | None, address: str) -> TokenView:
        """Begin a session. `device` is the `User-Agent` of the client, `address` its network address.

        Raises:
            Unauthenticated: see `Members.authenticate`.
            SecondFactorNeeded: see `SecondFactors.require`. The password was right.
            TooManyRequests: too many attempts; see `LoginGuard.attempt` and `SecondFactors.require`.
            StoreUnavailable: attempts cannot be counted, so no log-in is allowed.
            Validation: the address is not valid, or the password is too long.
            Overloaded: too many passwords are being hashed.
        """
        async with self._guard.attempt(body.email, address, body.device_token) as attempt:
            member = await self._members.authenticate(body.email, body.password)
        # Outside the guard: the password was right, and wrong codes have their own count.
        factor = await self._factors.require(member, body.code)
        await self._make_room(member.id)
        now, token = self._clock.now_ms(), first_token(new_session_id(member.id))
        ends_at = now + self._rules.absolute_ms
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
        """Exchange a refresh token for a new pair of tokens. Presenting the used token after the grace ends the session.

        Raises:
            Unauthenticated: the token belongs to no session, or was used before. In the latter case the session ends.
        """
        token = parse_refresh_token(text)
        session = await self._sessions.get(token.session_id)
        now = self._clock.now_ms()
        meaning = "foreign" if session is None else meaning_of(token, session, now, self._rules.idle_ms)
        if session is not None and meaning == "rotate":
            session = await self._rotate(session, token, now)
            # Of several concurrent requests one has rotated; the token of each is now the predecessor of the current token.
            meaning = "foreign" if session is None else meaning_of(token, session, now, self._rules.idle_ms)
        if session is None or meaning != "repeat" or session.sealed is None:
            error = Unauthenticated(REFUSAL)
            if meaning == "reused":
                await self._end({"_id": token.session_id})
                error.concerning("token_reused", token.session_id.partition(":")[0])
            raise error
        member = await self._member_rows.get(session.member)
        if member is None or not may_go_on(session, member):
            raise Unauthenticated(REFUSAL)
        return self._view(member, session, token.unseal(session.sealed))

    async def log_out(self, text: str) -> None:
        """End the session of a refresh token. A used or unknown token has no effect and raises no error."""
        try:
            token = parse_refresh_token(text)
        except Unauthenticated:
            return
        await self._end({"_id": token.session_id, "family": token.family_sha256})

    async def end(self, actor: Actor, session_id: str) -> None:
        """End one of the caller's own sessions.

        Raises:
            NotFound: the caller has no such session.
        """
        if not await self._end({"_id": session_id, "member": actor.id}):
            raise NotFound("you have no such session")

    async def end_all(self, member_id: str, *, but: str | None = None) -> None:
        """End every session of a member except `but`."""
        for session in await self._all_of(member_id):
            if session.id != but:
                await self._end({"_id": session.id})

    async def prove(self, actor: Actor, password: str) -> None:
        """Check the caller's password.

        Raises:
            Validation: the password is wrong.
            TooManyRequests, StoreUnavailable: as for `log_in`.
            Overloaded: too many passwords are being hashed.
        """
        async with self._guard.own_password(actor.id):
            await self._members.require_password(actor.id, password)

    async def change_password(self, actor: Actor, current: str, new: str) -> None:
        """Change the caller's password and end every other session.

        Raises:
            Validation: the current password is wrong, or the new one is not acceptable.
            TooManyRequests, StoreUnavailable: as for `log_in`.
            Overloaded: too many passwords are being hashed.
        """
        async with self._guard.own_password(actor.id):
            await self._members.change_password(actor.id, current, new, spare=actor.session)
        # The new epoch has ended them already; this only deletes their rows.
        await self.end_all(actor.id, but=actor.session)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def list_of(self, member_id: str) -> list[tuple[Session, str | None]]:
        """Return the live sessions of a member, each with its device, most recently used first."""
        now = self._clock.now_ms()
        found, key = await asyncio.gather(self._all_of(member_id), self._vault.get_key(member_id))
        live = [session for session in found if is_live(session, now, self._rules.idle_ms)]
        live.sort(key=lambda session: session.used_at, reverse=True)
        return [(session, _open_device(session, key)) for session in live]

    async def current_actor(self, actor: Actor, *, fresh: bool) -> Actor:
        """Return the holder of an access token with their current role and scopes.

        With `fresh` the session is read now. Otherwise the result may be up to `CHECKED_SECONDS` old.

        Raises:
            Unauthenticated: the session has ended, or the member is disabled.
        """
        session_id = str(actor.session)
        checked = self._checked.get(session_id)
        if not fresh and checked is not None and self._clock.monotonic() - checked[0] < CHECKED_SECONDS:
            return checked[1]
        read_at = self._clock.monotonic()
        session, member = await asyncio.gather(self._sessions.get(session_id), self._member_rows.get(actor.id))
        self._checked.pop(session_id, None)
        if session is None or member is None or session.member != actor.id:
            raise Unauthenticated(_ENDED)
        if not may_go_on(session, member) or not is_live(session, self._clock.now_ms(), self._rules.idle_ms):
            raise Unauthenticated(_ENDED)
        current = self._actor_of(member, session)
        self._checked[session_id] = (read_at, current)
        if len(self._checked) > CHECKED_MAX:
            del self._checked[next(iter(self._checked))]
        return current

    # --- inside -----------------------------------------------------------------------------------------------------

    def _actor_of(self, member: Member, session: Session) -> Actor:
        if member.role == "member":
            return Actor(member.id, "member", session=session.id)
        has_scopes = session.factor or not self._rules.second_factor_required
        return Actor(member.id, "operator", ROLE_SCOPES[member.role] if has_scopes else frozenset(), session.id)

    async def _seal_device(self, session_id: str, member_id: str, device: str | None) -> bytes | None:
        key = None if device is None else await self._vault.get_key(member_id)
        return None if device is None or key is None else key.seal(device.encode(), _device_context(session_id))

    async def _rotate(self, session: Session, token: RefreshToken, now_ms: int) -> Session | None:
        """Make a successor the current token, if `token` still is. Return the session after this or a concurrent rotation."""
        successor = token.successor()
        changed = {
            "current": successor.sha256,
            "previous": token.sha256,
            "sealed": token.seal(successor),
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
        # More than the maximum, since concurrent log-ins may exceed it by a few.
        return await self._sessions.find(sessions_of(member_id), limit=10 * SESSIONS_MAX)

    async def _end(self, where: dict[str, object]) -> bool:
        """Delete a session. Return False if it does not exist. Its tokens are then rejected like unknown ones."""
        result = await self._sessions.raw.delete_one(where)
        self._checked.pop(str(where["_id"]), None)
        return result.deleted_count > 0

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
