"""Authentication of `Authorization` headers, and the management of service keys."""

import asyncio
import hmac
import math
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
"""Maximum time for which a process accepts a key after its revocation."""
ROWS_MAX = 1024
"""Maximum number of keys that a process remembers."""
KEYS_MAX = 1000
LAST_USE_MS = 300_000
"""Precision of the last use of a key. A busy key costs one write in five minutes."""
_DAY_MS = 86_400_000
_ACTOR_PREFIX = "key_"
_SCHEME = len("Bearer ")
_KEY_ID = slice(_SCHEME + len(PREFIX), _SCHEME + len(PREFIX) + ID_LENGTH)
"""Position of the key's id in a well-formed header."""


class _CachedKey:
    """A recently read row of a key, and the header that was last accepted for it."""

    __slots__ = ("actor", "header_sha256", "live_until_ms", "read_at", "row")

    def __init__(self, row: ServiceKey, read_at: float) -> None:
        self.row = row
        self.read_at = read_at
        self.actor = Actor(f"{_ACTOR_PREFIX}{row.id}", "service_key", frozenset(row.scopes))
        self.header_sha256: bytes | None = None
        """Digest of the whole header that was last accepted."""
        self.live_until_ms = 0 if row.revoked_at is not None else math.inf if row.expires_at is None else row.expires_at


class Access:
    """Authenticates callers and manages service keys."""

    def __init__(self, database: Database, tokens: Tokens, clock: Clock) -> None:
        self._keys = database.collection(SERVICE_KEYS, ServiceKey)
        self._tokens = tokens
        self._clock = clock
        self._cached: dict[str, _CachedKey] = {}
        self._reads: dict[str, asyncio.Task[_CachedKey | None]] = {}
        self._used: dict[str, int] = {}
        """Time of last use of each key whose last use has not been written yet."""

    def find_recent(self, authorization: str | None) -> Actor | None:
        """Return the actor that this exact header proved less than two seconds ago, or None."""
        if authorization is None or (cached := self._cached.get(authorization[_KEY_ID])) is None or cached.header_sha256 is None:
            return None
        same = hmac.compare_digest(cached.header_sha256, digest(authorization))
        fresh = self._clock.monotonic() - cached.read_at < ROW_TTL_SECONDS
        return cached.actor if same and fresh and self._clock.now_ms() < cached.live_until_ms else None

    def knows(self, authorization: str) -> bool:
        """Return True if this process has accepted these credentials before and they are still valid."""
        return self.find_recent(authorization) is not None or self._tokens.knows(authorization[_SCHEME:])

    async def authenticate(self, authorization: str | None) -> Actor:
        """Return the caller that an `Authorization` header proves. Without a header the caller is anonymous.

        Raises:
            Unauthenticated: the header is not valid.
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

    async def current_actor(self, actor: Actor) -> Actor:
        """Return the holder of a service key with its current scopes.

        Raises:
            Unauthenticated: the key was revoked or has expired.
        """
        cached = await self._get_row(actor.id.removeprefix(_ACTOR_PREFIX))
        if cached is None or not cached.row.is_live(self._clock.now_ms()):
            raise Unauthenticated(REFUSAL)
        return cached.actor

    async def create_key(self, name: str, scopes: Iterable[str], expires_in_days: int | None = None) -> str:
        """Create a service key and return its text, which is not stored.

        Raises:
            Validation: the name is empty or too long, a scope is missing or unknown, or the expiry is not within 1 to 3650 days.
        """
        return (await self._add_key(name, known_scopes(scopes), expires_in_days))[1]

    async def grant_key(
        self, actor: Actor, name: str, scopes: Iterable[str], expires_in_days: int | None
    ) -> tuple[ServiceKey, str]:
        """Create a service key on behalf of a caller. Return the key and its text, which is not stored.

        Raises:
            Validation: as for `create_key`.
            Forbidden: the caller lacks one of the scopes.
        """
        distinct = known_scopes(scopes)
        require_grantable(actor, distinct)
        return await self._add_key(name, distinct, expires_in_days)

    async def _add_key(self, name: str, scopes: list[str], expires_in_days: int | None) -> tuple[ServiceKey, str]:
        if not name.strip() or len(name) > KEY_NAME_LENGTH_MAX or not name.isprintable():
            raise Validation.at("/name", f"a name must have 1 to {KEY_NAME_LENGTH_MAX} printable characters")
        if expires_in_days is not None and not 1 <= expires_in_days <= KEY_EXPIRY_DAYS_MAX:
            raise Validation.at("/expires_in_days", f"a key must expire after 1 to {KEY_EXPIRY_DAYS_MAX} days, or not at all")
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
        """Return all keys, newest first, including expired and revoked keys."""
        return await self._keys.find({}, sort=[("created_at", -1), ("_id", 1)], limit=KEYS_MAX)

    async def list_page(self, limit: int, after: str | None) -> tuple[list[ServiceKey], str | None]:
        """Return keys whose ids follow `after`, in the order of their ids, and the `after` of the next page or None.

        Raises:
            Validation: `after` is not a cursor of this list.
        """
        if after is not None and not KEY_ID.match(after):
            raise Validation.at("cursor", "not a cursor of this list")
        found = await self._keys.find({"_id": {"$gt": after or ""}}, sort=[("_id", 1)], limit=limit + 1)
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    async def write_last_uses(self) -> None:
        """Write the last uses of keys since the previous call. No request depends on it."""
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
        """Revoke a key. It stops working everywhere within two seconds. Revoking a key twice changes nothing.

        Raises:
            NotFound: there is no such key.
        """
        await self._keys.raw.update_one({"_id": key_id, "revoked_at": None}, {"$set": {"revoked_at": self._clock.now_ms()}})
        self._cached.pop(key_id, None)
        self._reads.pop(key_id, None)
        row = await self._keys.get(key_id)
        if row is None:
            raise NotFound("there is no such service key")
        return row

    async def _get_service(self, authorization: str, text: str) -> Actor:
        parts = parse_key(text)
        cached = await self._get_row(parts.id)
        # An unknown key, a wrong secret and a revoked key take the same path and get the same answer.
        proven = is_secret_of(parts, None if cached is None else cached.row.secret_sha256)
        if cached is None or not proven or not cached.row.is_live(self._clock.now_ms()):
            raise Unauthenticated(REFUSAL)
        cached.header_sha256 = digest(authorization)
        # Not in `find_recent`: that is the path of every request, and happens within two seconds of this.
        now = self._clock.now_ms()
        if now - (cached.row.last_used_at or 0) >= LAST_USE_MS:
            self._used[parts.id] = now
        return cached.actor

    async def _get_row(self, key_id: str) -> _CachedKey | None:
        """Return the row of a key, read less than two seconds ago. Concurrent requests share one read."""
        cached = self._cached.get(key_id)
        if cached is not None and self._clock.monotonic() - cached.read_at < ROW_TTL_SECONDS:
            return cached
        read = self._reads.get(key_id)
        if read is None:
            read = asyncio.get_running_loop().create_task(self._read_row(key_id))
            self._reads[key_id] = read
        # A caller who disconnects must not cancel the read of the others.
        return await asyncio.shield(read)

    async def _read_row(self, key_id: str) -> _CachedKey | None:
        # The time before the read, so that a slow read does not extend the life of a revoked key.
        read_at = self._clock.monotonic()
        try:
            row = await self._keys.get(key_id)
        finally:
            is_current = self._reads.get(key_id) is asyncio.current_task()
            if is_current:
                del self._reads[key_id]
        if row is None:
            return None
        cached = _CachedKey(row, read_at)
        # Unknown ids are not cached, because a flood of them would evict the rest. Neither is a row that was read before a revocation.
        if is_current:
            self._cached.pop(key_id, None)
            self._cached[key_id] = cached
            if len(self._cached) > ROWS_MAX:
                del self._cached[next(iter(self._cached))]
        return cached
