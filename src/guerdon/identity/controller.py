"""Routes of members, of the keys of services, and of the keys that sign."""

from guerdon.clock import Clock
from guerdon.errors import AlreadyExists, Forbidden, InvalidState, NotFound, Overloaded, StoreUnavailable
from guerdon.http import Request, Response, actor_of, decode_cursor, encode_cursor, note, operation, read, read_query, send
from guerdon.identity.access import Access
from guerdon.identity.models import (
    JwksView,
    KeyCreate,
    KeyPage,
    KeyQuery,
    KeyView,
    MemberCreate,
    MemberPage,
    MemberQuery,
    MemberView,
    NewKeyView,
    RegisterCreate,
    RoleUpdate,
    view_key,
    view_member,
    view_new_key,
)
from guerdon.identity.service import Identity
from guerdon.identity.token_keys import TokenKeys
from guerdon.security import KEYS_SCOPE, OWN, PUBLIC, ROLES_SCOPE, scope


class AuthResource:
    """`/v1/auth/…`"""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @operation(
        "registerMember",
        PUBLIC,
        tag="auth",
        body=RegisterCreate,
        answers={201: MemberView},
        errors=(AlreadyExists, StoreUnavailable, Overloaded),
        example={"email": "ada@example.com", "password": "correct horse battery staple"},
        quota="entry",
    )
    async def on_post_register(self, req: Request, resp: Response) -> None:
        """Become a member with an e-mail address and a password of 8 to 128 characters."""
        body, _ = await read(req, RegisterCreate)
        person = await self._identity.register(body.email, body.password)
        resp.set_header("Location", f"/v1/members/{person.id}")
        send(resp, view_member(person), 201)


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
        example={"name": "till 4", "scopes": ["wallets:read", "wallets:write"], "expires_in_days": 90},
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Make a service key with some of the caller's own scopes. The answer is the only one that shows it."""
        body, _ = await read(req, KeyCreate)
        key, text = await self._access.grant_key(actor_of(req), body.name, body.scopes, body.expires_in_days)
        note(req, key_id=key.id, scopes=" ".join(key.scopes))
        send(resp, view_new_key(key, text, self._clock.now_ms()), 201)

    @operation("listKeys", scope(KEYS_SCOPE), tag="keys", query=KeyQuery, answers={200: KeyPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List service keys without their secrets."""
        query, now = read_query(req, KeyQuery), self._clock.now_ms()
        after = None if query.cursor is None else decode_cursor(query.cursor)
        keys, following = await self._access.list_page(query.limit, after)
        send(resp, KeyPage([view_key(key, now) for key in keys], following and encode_cursor(following)))

    @operation("revokeKey", scope(KEYS_SCOPE), tag="keys", answers={200: KeyView}, errors=(NotFound,))
    async def on_delete_one(self, req: Request, resp: Response, key_id: str) -> None:
        """Make a service key useless within two seconds everywhere. Revoking it twice changes nothing."""
        send(resp, view_key(await self._access.revoke_key(key_id), self._clock.now_ms()))


class MembersResource:
    """`/v1/members` and `/v1/me`"""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @operation("getMe", OWN, tag="members", answers={200: MemberView}, errors=(NotFound,))
    async def on_get_me(self, req: Request, resp: Response) -> None:
        """Read who has logged in."""
        send(resp, view_member(await self._identity.get_person(actor_of(req).id)))

    @operation(
        "createMember",
        scope("members:write"),
        tag="members",
        body=MemberCreate,
        answers={201: MemberView},
        errors=(AlreadyExists,),
        example={"external_id": "17850", "email": None, "attributes": {"country": "GB"}},
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a member by the id that your system knows them by, by an e-mail address, or both."""
        body, _ = await read(req, MemberCreate)
        person = await self._identity.create_member(body.external_id, body.email, body.attributes)
        resp.set_header("Location", f"/v1/members/{person.id}")
        send(resp, view_member(person), 201)

    @operation("listMembers", scope("members:read"), tag="members", query=MemberQuery, answers={200: MemberPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List members, newest first, or find the one with an external id."""
        query = read_query(req, MemberQuery)
        before = None if query.cursor is None else decode_cursor(query.cursor)
        people, following = await self._identity.find_people(query.external_id, query.limit, before)
        cursor = None if following is None else encode_cursor(following)
        send(resp, MemberPage([view_member(person) for person in people], cursor))

    @operation("getMember", scope("members:read", own=True), tag="members", answers={200: MemberView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, member_id: str) -> None:
        """Read a member."""
        actor_of(req).require_reach(member_id)
        send(resp, view_member(await self._identity.get_person(member_id)))

    @operation(
        "disableMember",
        scope("members:manage"),
        tag="members",
        answers={200: MemberView},
        errors=(NotFound, Forbidden, InvalidState),
    )
    async def on_post_disable(self, req: Request, resp: Response, member_id: str) -> None:
        """Let somebody in no longer, by no session that is open either. Their wallets stay as they are."""
        send(resp, view_member(await self._identity.set_disabled(member_id, actor_of(req), disabled=True)))

    @operation(
        "enableMember",
        scope("members:manage"),
        tag="members",
        answers={200: MemberView},
        errors=(NotFound, Forbidden, InvalidState),
    )
    async def on_post_enable(self, req: Request, resp: Response, member_id: str) -> None:
        """Let somebody in again."""
        send(resp, view_member(await self._identity.set_disabled(member_id, actor_of(req), disabled=False)))

    @operation(
        "setRole",
        scope(ROLES_SCOPE),
        tag="members",
        body=RoleUpdate,
        answers={200: MemberView},
        errors=(NotFound, Forbidden, InvalidState),
        example={"role": "support"},
    )
    async def on_put_role(self, req: Request, resp: Response, member_id: str) -> None:
        """Make somebody a member, or one of those who work here."""
        body, _ = await read(req, RoleUpdate)
        note(req, role=body.role)
        send(resp, view_member(await self._identity.set_role(member_id, actor_of(req), body.role)))


def routes(identity: Identity, access: Access, keys: TokenKeys, clock: Clock) -> list[tuple[str, object, str | None]]:
    """Return (path, resource, suffix) of every route of this room."""
    auth, members, service_keys = AuthResource(identity), MembersResource(identity), KeysResource(access, clock)
    return [
        ("/v1/auth/register", auth, "register"),
        ("/.well-known/jwks.json", JwksResource(keys, clock), None),
        ("/v1/keys", service_keys, None),
        ("/v1/keys/{key_id}", service_keys, "one"),
        ("/v1/me", members, "me"),
        ("/v1/members", members, None),
        ("/v1/members/{member_id}", members, "one"),
        ("/v1/members/{member_id}/disable", members, "disable"),
        ("/v1/members/{member_id}/enable", members, "enable"),
        ("/v1/members/{member_id}/role", members, "role"),
    ]
