"""Routes of members: registration, lookup, roles, disabling."""

from collections.abc import Awaitable, Callable, Sequence

from guerdon.errors import AlreadyExists, Forbidden, InvalidState, NotFound, Overloaded, StoreUnavailable
from guerdon.http.body import read
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.members.models import (
    MemberCreate,
    MemberPage,
    MemberQuery,
    MemberView,
    Person,
    RegisterCreate,
    RoleUpdate,
    view_member,
)
from guerdon.members.service import Members
from guerdon.permissions import OWN, PUBLIC, ROLES_SCOPE, scope

ReadSegments = Callable[[Sequence[str]], Awaitable[dict[str, Sequence[str]]]]
"""Returns the names of the segments of several members by id."""


class RegistrationResource:
    """`/v1/auth/…`"""

    def __init__(self, members: Members) -> None:
        self._members = members

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
        """Register a new member with an e-mail address and a password of 8 to 128 characters."""
        body, _ = await read(req, RegisterCreate)
        person = await self._members.register(body.email, body.password)
        resp.set_header("Location", f"/v1/members/{person.id}")
        send(resp, view_member(person, ()), 201)


class MembersResource:
    """`/v1/members` and `/v1/me`"""

    def __init__(self, members: Members, read_segments: ReadSegments) -> None:
        self._members = members
        self._read_segments = read_segments

    async def _view(self, person: Person) -> MemberView:
        segments = await self._read_segments([person.id])
        return view_member(person, segments.get(person.id, ()))

    @operation("getMe", OWN, tag="members", answers={200: MemberView}, errors=(NotFound,))
    async def on_get_me(self, req: Request, resp: Response) -> None:
        """Return the member who is logged in."""
        send(resp, await self._view(await self._members.get_person(actor_of(req).id)))

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
        """Create a member with an external id (the member's id in your system), an e-mail address, or both."""
        body, _ = await read(req, MemberCreate)
        person = await self._members.create_member(body.external_id, body.email, body.attributes)
        resp.set_header("Location", f"/v1/members/{person.id}")
        send(resp, view_member(person, ()), 201)

    @operation("listMembers", scope("members:read"), tag="members", query=MemberQuery, answers={200: MemberPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List members, newest first, or find the member with an external id."""
        query = read_query(req, MemberQuery)
        before = None if query.cursor is None else decode_cursor(query.cursor)
        people, next_before = await self._members.find_people(query.external_id, query.limit, before)
        cursor = None if next_before is None else encode_cursor(next_before)
        segments = await self._read_segments([person.id for person in people])
        send(resp, MemberPage([view_member(person, segments.get(person.id, ())) for person in people], cursor))

    @operation("getMember", scope("members:read", own=True), tag="members", answers={200: MemberView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, member_id: str) -> None:
        """Return a member."""
        actor_of(req).require_reach(member_id)
        send(resp, await self._view(await self._members.get_person(member_id)))

    @operation(
        "disableMember",
        scope("members:manage"),
        tag="members",
        answers={200: MemberView},
        errors=(NotFound, Forbidden, InvalidState),
    )
    async def on_post_disable(self, req: Request, resp: Response, member_id: str) -> None:
        """Disable a member: they cannot log in, and their sessions no longer work. Their wallets do not change."""
        await self._set_disabled(req, resp, member_id, disabled=True)

    @operation(
        "enableMember",
        scope("members:manage"),
        tag="members",
        answers={200: MemberView},
        errors=(NotFound, Forbidden, InvalidState),
    )
    async def on_post_enable(self, req: Request, resp: Response, member_id: str) -> None:
        """Enable a disabled member: they can log in again."""
        await self._set_disabled(req, resp, member_id, disabled=False)

    async def _set_disabled(self, req: Request, resp: Response, member_id: str, *, disabled: bool) -> None:
        change = await self._members.set_disabled(member_id, actor_of(req), disabled=disabled)
        before, after = ("enabled" if person.member.disabled_at is None else "disabled" for person in change)
        note(req, before=before, after=after)
        send(resp, await self._view(change.after))

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
        """Set the role of a member: `member`, or a role of staff."""
        body, _ = await read(req, RoleUpdate)
        before = await self._members.get_member(member_id)
        note(req, before=before.role, role=body.role)
        send(resp, await self._view(await self._members.set_role(member_id, actor_of(req), body.role)))


def routes(members: Members, read_segments: ReadSegments) -> list[tuple[str, object, str | None]]:
    """Return (path, resource, suffix) of every route of members."""
    registration, member = RegistrationResource(members), MembersResource(members, read_segments)
    return [
        ("/v1/auth/register", registration, "register"),
        ("/v1/me", member, "me"),
        ("/v1/members", member, None),
        ("/v1/members/{member_id}", member, "one"),
        ("/v1/members/{member_id}/disable", member, "disable"),
        ("/v1/members/{member_id}/enable", member, "enable"),
        ("/v1/members/{member_id}/role", member, "role"),
    ]
