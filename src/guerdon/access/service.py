"""From an `Authorization` header to an actor, and the keys that services use."""

import asyncio
import hmac
from collections.abc import Iterable

from pymongo import UpdateOne

from guerdon.access.models import KEY_EXPIRY_DAYS_MAX, KEY_NAME_LENGTH_MAX, SERVICE_KEYS, ServiceKey
from guerdon.access.rules import known_scopes, require_grantable
from guerdon.access.service_key_format import ID_LENGTH, KEY_ID, PREFIX, REFUSAL, is_secret_of, new_key, parse_key
from guerdon.access.tokens import Tokens
from guerdon.clock import Clock
from guerdon.database import Database, PyMongoError
from guerdon.errors import NotFound, Unauthenticated, Validation
from guerdon.ids import digest
from guerdon.permissions import ANONYMOUS, ROLE_SCOPES, Actor

ROW_TTL_SECONDS = 2.0
"""How long a process may go on accepting a key after it was revoked."""
ROWS_MAX = 1024
KEYS_MAX = 1000
LAST_USE_MS = 300_000
"""How exactly it is known when a key was last used, so that a busy key costs a write in five minutes."""
_DAY_MS = 86_400_000
_ACTOR_PREFIX = "key_"
_SCHEME = len("Bearer ")
_KEY_ID = slice(_SCHEME + len(PREFIX), _SCHEME + len(PREFIX) + ID_LENGTH)
"""Where a well-formed header has the id of its key."""


class _KnownKey:
    """A key's row as it was lately, and what its holder has proven with."""

    __slots__ = ("actor", "asked_at", "proof", "row")

    def __init__(self, row: ServiceKey, asked_at: float) -> None:
        self.row = row
        self.asked_at = asked_at
        self.actor = Actor(f"{_ACTOR_PREFIX}{row.id}", "service_key", frozenset(row.scopes))
        self.proof: bytes | None = None
        """The digest of the whole header that was accepted last."""


class Access:
    """Tells who calls, and manages service keys."""

    def __init__(self, database: Database, tokens: Tokens, clock: Clock) -> None:
        self._keys = database.collection(SERVICE_KEYS, ServiceKey)
        self._tokens = tokens
        self._clock = clock
        self._rows: dict[str, _KnownKey] = {}
        self._readings: dict[str, asyncio.Task[_KnownKey | None]] = {}
        self._used: dict[str, int] = {}
        """When keys were used whose last use is to be written."""

    def recall(self, authorization: str | None) -> Actor | None:
        """Return whom the very same header has proven less than two seconds ago, without proving it again."""
        if authorization is None or (known := self._rows.get(authorization[_KEY_ID])) is None or known.proof is None:
            return None
        same = hmac.compare_digest(known.proof, digest(authorization))
        return known.actor if same and self._is_fresh(known) and known.row.is_live(self._clock.now_ms()) else None

    def knows(self, authorization: str) -> bool:
        """Tell whether this process has seen these credentials prove something, and may still believe it."""
        return self.recall(authorization) is not None or self._tokens.knows(authorization[_SCHEME:])

    async def authenticate(self, authorization: str | None) -> Actor:
        """Return the caller that an `Authorization` header proves; no header makes an anonymous caller.

        Raises:
            Unauthenticated: there is a header, but it proves nothing.
        """
        if authorization is None:
            return ANONYMOUS
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() != "bearer" or not credentials:
            raise Unauthenticated("send `Authorization: Bearer` with a service key or an access token")
        if credentials.startswith(PREFIX):
            return await self._get_service(authorization, credentials)
        claims = self._tokens.verify(credentials)
        return Actor(claims.sub, "member" if claims.role == "member" else "operator", ROLE_SCOPES[claims.role], claims.sid)

    async def stand(self, actor: Actor) -> Actor:
        """Return what the holder of a service key may do now.

        Raises:
            Unauthenticated: the key was revoked or has expired.
        """
        known = await self._get_row(actor.id.removeprefix(_ACTOR_PREFIX))
        if known is None or not known.row.is_live(self._clock.now_ms()):
            raise Unauthenticated(REFUSAL)
        return known.actor

    async def create_key(self, name: str, scopes: Iterable[str], expires_in_days: int | None = None) -> str:
        """Make a service key and return it as text: this is the only time that anybody sees it.

        Raises:
            Validation: an empty or long name, no or unknown scopes, or an expiry outside of 1 to 3650 days.
        """
        return (await self._add_key(name, known_scopes(scopes), expires_in_days))[1]

    async def grant_key(
        self, actor: Actor, name: str, scopes: Iterable[str], expires_in_days: int | None
    ) -> tuple[ServiceKey, str]:
        """Make a service key on behalf of a caller; its text is seen this once.

        Raises:
            Validation: as for `create_key`.
            Forbidden: the caller lacks one of the scopes.
        """
        wanted = known_scopes(scopes)
        require_grantable(actor, wanted)
        return await self._add_key(name, wanted, expires_in_days)

    async def _add_key(self, name: str, scopes: list[str], expires_in_days: int | None) -> tuple[ServiceKey, str]:
        if not name.strip() or len(name) > KEY_NAME_LENGTH_MAX or not name.isprintable():
            raise Validation.at("/name", f"a name has 1 to {KEY_NAME_LENGTH_MAX} printable characters")
        if expires_in_days is not None and not 1 <= expires_in_days <= KEY_EXPIRY_DAYS_MAX:
            raise Validation.at("/expires_in_days", f"a key expires after 1 to {KEY_EXPIRY_DAYS_MAX} days, or never")
        parts = new_key()
        now = self._clock.now_ms()
        row = ServiceKey(
            id=parts.id,
            name=name,
            secret_sha256=parts.secret_sha256,
            scopes=scopes,
            created_at=now,
            expires_at=None if expires_in_days is None else now + expires_in_days * _DAY_MS,
        )
        await self._keys.insert(row)
        return row, parts.text

    async def list_keys(self) -> list[ServiceKey]:
        """Return all keys, the newest first; expired and revoked ones too."""
        return await self._keys.find({}, sort=[("created_at", -1), ("_id", 1)], limit=KEYS_MAX)

    async def list_page(self, limit: int, after: str | None) -> tuple[list[ServiceKey], str | None]:
        """Return keys whose ids follow `after`, in their order, and the next page's `after` if there is one.

        Raises:
            Validation: `after` is not a position in this list.
        """
        if after is not None and not KEY_ID.match(after):
            raise Validation.at("cursor", "not a cursor that this list has given out")
        found = await self._keys.find({"_id": {"$gt": after or ""}}, sort=[("_id", 1)], limit=limit + 1)
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    async def write_last_uses(self) -> None:
        """Write down which keys were used since. No request waits for this, or fails when it does."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._keys.raw.bulk_write(
                [UpdateOne({"_id": key_id}, {"$max": {"last_used_at": at}}) for key_id, at in used.items()], ordered=False
            )
        except PyMongoError:
            self._used = used | self._used
            raise

    async def revoke_key(self, key_id: str) -> ServiceKey:
        """Make a key useless within two seconds everywhere. Revoking twice changes nothing.

        Raises:
            NotFound: there is no such key.
        """
        await self._keys.raw.update_one({"_id": key_id, "revoked_at": None}, {"$set": {"revoked_at": self._clock.now_ms()}})
        self._rows.pop(key_id, None)
        self._readings.pop(key_id, None)
        row = await self._keys.get(key_id)
        if row is None:
            raise NotFound("there is no such service key")
        return row

    async def _get_service(self, authorization: str, text: str) -> Actor:
        parts = parse_key(text)
        known = await self._get_row(parts.id)
        # An unknown key, a wrong secret and a dead key all come here, and leave by the same door.
        proven = is_secret_of(parts, None if known is None else known.row.secret_sha256)
        if known is None or not proven or not known.row.is_live(self._clock.now_ms()):
            raise Unauthenticated(REFUSAL)
        known.proof = digest(authorization)
        # Here and not where a header is recalled: that happens within two seconds of this, and is the path of every request.
        now = self._clock.now_ms()
        if now - (known.row.last_used_at or 0) >= LAST_USE_MS:
            self._used[parts.id] = now
        return known.actor

    def _is_fresh(self, known: _KnownKey) -> bool:
        return self._clock.monotonic() - known.asked_at < ROW_TTL_SECONDS

    async def _get_row(self, key_id: str) -> _KnownKey | None:
        """Return a key's row as it was less than two seconds ago. Requests that need it at the same moment share one read."""
        known = self._rows.get(key_id)
        if known is not None and self._is_fresh(known):
            return known
        reading = self._readings.get(key_id)
        if reading is None:
            reading = asyncio.get_running_loop().create_task(self._read_row(key_id))
            self._readings[key_id] = reading
        # A caller who hangs up must not take the answer away from the others.
        return await asyncio.shield(reading)

    async def _read_row(self, key_id: str) -> _KnownKey | None:
        # Dated by the question, not by the answer, so that a slow read does not lengthen a revoked key's life.
        asked_at = self._clock.monotonic()
        try:
            row = await self._keys.get(key_id)
        finally:
            current = self._readings.get(key_id) is asyncio.current_task()
            if current:
                del self._readings[key_id]
        if row is None:
            return None
        known = _KnownKey(row, asked_at)
        # Unknown ids are not kept: a flood of them would push out the rest. Nor is what was read before a revocation.
        if current:
            self._rows.pop(key_id, None)
            self._rows[key_id] = known
            if len(self._rows) > ROWS_MAX:
                del self._rows[next(iter(self._rows))]
        return known
