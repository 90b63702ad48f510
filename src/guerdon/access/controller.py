"""Routes of service keys and of the public keys that verify access tokens."""

from guerdon.access.models import JwksView, KeyCreate, KeyPage, KeyQuery, KeyView, NewKeyView, view_key, view_new_key
from guerdon.access.service import Access
from guerdon.access.token_keys import TokenKeys
from guerdon.clock import Clock
from guerdon.errors import Forbidden, NotFound
from guerdon.http.body import read
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import KEYS_SCOPE, PUBLIC, scope


class JwksResource:
    """`/.well-known/jwks.json`"""

    def __init__(self, keys: TokenKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    @operation("getJwks", PUBLIC, tag="auth", answers={200: JwksView})
    async def on_get(self, req: Request, resp: Response) -> None:
        """Read the public keys that verify access tokens."""
        resp.set_header("Cache-Control", f"public, max-age={self._keys.max_age_seconds}")
        send(resp, self._keys.public_set(self._clock.now_ms()))


class KeysResource:
    """`/v1/keys`"""

    def __init__(self, access: Access, clock: Clock) -> None:
        self._access = access
        self._clock = clock

    @operation(
        "createKey",
        scope(KEYS_SCOPE),
        tag="keys",
        body=KeyCreate,
        answers={201: NewKeyView},
        errors=(Forbidden,),
        example={"name": "point of sale 4", "scopes": ["wallets:read", "wallets:write"], "expires_in_days": 90},
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a service key with some of the caller's own scopes. Only this response contains the key."""
        body, _ = await read(req, KeyCreate)
        key, text = await self._access.grant_key(actor_of(req), body.name, body.scopes, body.expires_in_days)
        note(req, key_id=key.id, scopes=" ".join(key.scopes))
        send(resp, view_new_key(key, text, self._clock.now_ms()), 201)

    @operation("listKeys", scope(KEYS_SCOPE), tag="keys", query=KeyQuery, answers={200: KeyPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List service keys, without their secrets."""
        query, now = read_query(req, KeyQuery), self._clock.now_ms()
        after = None if query.cursor is None else decode_cursor(query.cursor)
        keys, following = await self._access.list_page(query.limit, after)
        send(resp, KeyPage([view_key(key, now) for key in keys], following and encode_cursor(following)))

    @operation("revokeKey", scope(KEYS_SCOPE), tag="keys", answers={200: KeyView}, errors=(NotFound,))
    async def on_delete_one(self, req: Request, resp: Response, key_id: str) -> None:
        """Revoke a service key. It stops working everywhere within two seconds. Revoking a key twice changes nothing."""
        send(resp, view_key(await self._access.revoke_key(key_id), self._clock.now_ms()))


def routes(access: Access, keys: TokenKeys, clock: Clock) -> list[tuple[str, object, str | None]]:
    """Return (path, resource, suffix) of every route of service keys and token keys."""
    service_keys = KeysResource(access, clock)
    return [
        ("/.well-known/jwks.json", JwksResource(keys, clock), None),
        ("/v1/keys", service_keys, None),
        ("/v1/keys/{key_id}", service_keys, "one"),
    ]
