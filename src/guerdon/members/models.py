"""Stored and wire shapes of members, their unique claims, and service keys."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.permissions import Role
from guerdon.types import ExternalId, PageQuery, Text

MEMBERS = "members"
NO_MEMBER = "there is no such member"
CLAIMS = "claims"
PERSON_KEYS = "person_keys"
LOOKUP_KEYS = "lookup_keys"
_EXPIRY = IndexModel(
    [("expires_at", 1)], name="expiry", expireAfterSeconds=0, partialFilterExpression={"expires_at": {"$exists": True}}
)
INDEXES: dict[str, list[IndexModel]] = {MEMBERS: [], CLAIMS: [_EXPIRY], PERSON_KEYS: [], LOOKUP_KEYS: []}
"""A member is found by id, or by a claim whose `_id` stands for the claimed value. Only claims of erased people expire."""

PASSWORD_LENGTH_MIN = 8
PASSWORD_LENGTH_MAX = 128
"""Characters, so at most 512 bytes of UTF-8 reach the hash."""
EMAIL_LENGTH_MAX = 254
SAFE_INTEGER_MAX = 2**53 - 1
"""The largest whole number that every JSON reader keeps exact."""

AttributeValue = Text | Annotated[int, Meta(ge=-SAFE_INTEGER_MAX, le=SAFE_INTEGER_MAX)] | bool
Attributes = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")], AttributeValue],
    Meta(max_length=20, description="Up to 20 facts about the member that campaigns may ask for.", examples=[{"country": "GB"}]),
]
MemberStatus = Literal["active", "disabled", "erasing", "erased"]
Email = Annotated[str, Meta(min_length=3, max_length=EMAIL_LENGTH_MAX, examples=["ada@example.com"])]


# --- stored ---------------------------------------------------------------------------------------------------------


class Profile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who a member is: everything personal about them, and only ever stored sealed."""

    external_id: str | None = None
    email: str | None = None
    """The address as validated; its normalised form makes the claim."""
    attributes: dict[str, str | int | bool] = {}


class Member(Struct, frozen=True, kw_only=True):
    """A person with wallets, or an operator, as far as anybody may know. `password_hash` is None for one who cannot log in."""

    id: str = field(name="_id")
    """Random: it says nothing about the person."""
    sealed: bytes | None = None
    """The `Profile`, under the person's own key."""
    claims: list[str] = []
    """The ids of the claims that are theirs."""
    password_hash: str | None = None
    role: Role = "member"
    created_at: int
    """Milliseconds since the epoch."""
    disabled_at: int | None = None
    """Since when this member cannot log in."""
    epoch: int = 0
    """How often the password was set anew. Sessions that began in an earlier epoch have ended."""
    spared: str | None = None
    """The one of them that goes on: in it the password was changed."""
    erasing_at: int | None = None
    """Since when nothing about the person is shown, and `disabled_at` is set for good."""
    erased_at: int | None = None
    """When the last of it was gone."""

    @property
    def status(self) -> "MemberStatus":
        if self.erasing_at is not None:
            return "erasing" if self.erased_at is None else "erased"
        return "active" if self.disabled_at is None else "disabled"


class Person(Struct, frozen=True):
    """A member with an opened profile."""

    member: Member
    profile: Profile

    @property
    def id(self) -> str:
        return self.member.id


class PersonKey(Struct, frozen=True, kw_only=True):
    """The key of one person. Without it, what it has sealed is noise, in every backup too: so it lies apart."""

    id: str = field(name="_id")
    """The member's."""
    wrapped: bytes
    """Sealed by a master key."""
    created_at: int


class LookupKey(Struct, frozen=True, kw_only=True):
    """The key of the digests by which people are found. There is one, and it never changes."""

    id: str = field(name="_id")
    wrapped: bytes
    """Sealed by a master key."""
    created_at: int


class Claim(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One member owns this value. The `_id` index decides races, on a sharded cluster too."""

    id: str = field(name="_id")
    """`email:` or `external_id:`, and the keyed digest of the value."""
    member: str
    created_at: int
    expires_at: datetime | None = None
    """Only where the person was erased: when MongoDB takes the claim away, and the value is nobody's."""


# --- wire -----------------------------------------------------------------------------------------------------------


class RegisterCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A person who wants to be a member."""

    email: Email
    password: Annotated[str, Meta(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)]


class MemberCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A member whom a service knows by its own id, by an e-mail address, or both."""

    external_id: ExternalId | None = None
    email: Email | None = None
    attributes: Attributes | None = None


class RoleUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody is to be from now on."""

    role: Role


class MemberView(Struct, frozen=True):
    """A member."""

    id: str
    external_id: str | None
    email: str | None
    role: Role
    attributes: dict[str, str | int | bool]
    status: MemberStatus
    """`erasing` and `erased`: nothing is known about the person any more, and the id on the ledger still leads here."""
    created_at: str


class MemberPage(Struct, frozen=True):
    """Members, newest first."""

    items: list[MemberView]
    next_cursor: str | None


class MemberQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of members, or the one member that has an external id."""

    external_id: ExternalId | None = None


def view_member(person: Person) -> MemberView:
    member, profile = person.member, person.profile
    return MemberView(
        id=member.id,
        external_id=profile.external_id,
        email=profile.email,
        role=member.role,
        attributes=profile.attributes,
        status=member.status,
        created_at=rfc3339(member.created_at),
    )
