"""Stored and wire shapes of members, their unique claims and their keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.permissions import Role
from guerdon.types import EXPECTED, KEY_WORDS, ExternalId, PageQuery, Text

MEMBERS = "members"
BIRTHDAY = "birthday"
"""Name of the attribute that conditions read as the member's birthday."""
NO_MEMBER = "this member does not exist"
CLAIMS = "claims"
PERSON_KEYS = "person_keys"
LOOKUP_KEYS = "lookup_keys"
_EXPIRY = IndexModel(
    [("expires_at", 1)], name="expiry", expireAfterSeconds=0, partialFilterExpression={"expires_at": {"$exists": True}}
)
INDEXES: dict[str, list[IndexModel]] = {MEMBERS: [], CLAIMS: [_EXPIRY], PERSON_KEYS: [], LOOKUP_KEYS: []}
"""A member is found by id, or by a claim whose `_id` is a digest of the claimed value. Only the claims of erased members expire."""

PASSWORD_LENGTH_MIN = 8
PASSWORD_LENGTH_MAX = 128
"""Characters, so at most 512 bytes of UTF-8 reach the hash."""
EMAIL_LENGTH_MAX = 254
SAFE_INTEGER_MAX = 2**53 - 1
"""Largest integer that every JSON reader represents exactly."""

AttributeValue = Text | Annotated[int, Meta(ge=-SAFE_INTEGER_MAX, le=SAFE_INTEGER_MAX)] | bool
Attributes = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$(?!\n)", extra={EXPECTED: KEY_WORDS})],
        AttributeValue,
    ],
    Meta(
        max_length=20,
        description="Up to 20 attributes of the member that campaigns can read. `birthday` must be a day such as `1990-02-28`.",
        examples=[{"country": "GB"}],
    ),
]
MemberStatus = Literal["active", "disabled", "erasing", "erased"]
Email = Annotated[str, Meta(min_length=3, max_length=EMAIL_LENGTH_MAX, examples=["ada@example.com"])]


# --- stored ---------------------------------------------------------------------------------------------------------


class Profile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The personal data of a member. It is stored only in sealed form."""

    external_id: str | None = None
    email: str | None = None
    """The address as validated. The claim is made from its normalised form."""
    attributes: dict[str, str | int | bool] = {}


class Member(Struct, frozen=True, kw_only=True):
    """A person with wallets, or a staff person, without their personal data. Times are milliseconds since the epoch."""

    id: str = field(name="_id")
    """Random id, which reveals nothing about the person."""
    sealed: bytes | None = None
    """The `Profile`, sealed under the person's own key."""
    claims: list[str] = []
    """Ids of the member's claims."""
    password_hash: str | None = None
    """Encoded argon2id hash. None for a member who cannot log in."""
    role: Role = "member"
    created_at: int
    disabled_at: int | None = None
    """Time from which the member cannot log in."""
    epoch: int = 0
    """Number of password changes. Sessions that began in an earlier epoch have ended."""
    spared: str | None = None
    """Id of the session that continues across the latest password change, because the change was made in it."""
    erasing_at: int | None = None
    """Time at which an erasure began. From then on no personal data is shown, and `disabled_at` stays set."""
    erased_at: int | None = None
    """Time at which the erasure was complete."""

    @property
    def status(self) -> "MemberStatus":
        """The status as the API shows it."""
        if self.erasing_at is not None:
            return "erasing" if self.erased_at is None else "erased"
        return "active" if self.disabled_at is None else "disabled"


class Person(Struct, frozen=True):
    """A member with their personal data."""

    member: Member
    profile: Profile

    @property
    def id(self) -> str:
        return self.member.id


class PersonKey(Struct, frozen=True, kw_only=True):
    """The key of one person. It is stored apart from the data it seals: deleting it makes that data unreadable, in every backup too."""

    id: str = field(name="_id")
    """Id of the member."""
    wrapped: bytes
    """The key, sealed by a master key."""
    created_at: int


class LookupKey(Struct, frozen=True, kw_only=True):
    """The key of the digests by which members are found. A database has one, which never changes."""

    id: str = field(name="_id")
    wrapped: bytes
    """The key, sealed by a master key."""
    created_at: int


class Claim(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The ownership of a unique value by a member. The unique `_id` index decides races, on a sharded cluster too."""

    id: str = field(name="_id")
    """`email:` or `external_id:`, followed by the keyed digest of the value."""
    member: str
    """Id of the member."""
    created_at: int
    expires_at: datetime | None = None
    """Set when the member is erased: the time at which MongoDB deletes the claim and the value is free again."""


# --- wire -----------------------------------------------------------------------------------------------------------


class RegisterCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """The registration of a new member."""

    email: Email
    """E-mail address with which the member logs in."""
    password: Annotated[str, Meta(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)]
    """Password of 8 to 128 characters."""


class MemberCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A member to create, with an external id, an e-mail address, or both."""

    external_id: ExternalId | None = None
    """Id of the member in your system, compared exactly."""
    email: Email | None = None
    """E-mail address of the member."""
    attributes: Attributes | None = None
    """Up to 20 attributes of the member that campaigns can read."""


class RoleUpdate(Struct, frozen=True, forbid_unknown_fields=True):
    """The new role of a member."""

    role: Role
    """Role from now on: `member`, or `support`, `operator` or `admin` for staff."""


class MemberView(Struct, frozen=True):
    """A member."""

    id: str
    """Id of the member."""
    external_id: str | None
    """Id of the member in your system, or null."""
    email: str | None
    """E-mail address of the member, or null."""
    role: Role
    """Role of the member. Every role but `member` is a role of staff."""
    attributes: dict[str, str | int | bool]
    """Attributes of the member that campaigns can read."""
    status: MemberStatus
    """`disabled` members cannot log in. Of members that are `erasing` or `erased` no personal data remains."""
    created_at: str
    """Time when the member was created, RFC 3339 in UTC."""
    segments: list[str]
    """Names of the member's segments in the last run, in alphabetical order. Empty for a member who is newer than the run."""


class MemberPage(Struct, frozen=True):
    """One page of members, newest first."""

    items: list[MemberView]
    """The members of this page."""
    next_cursor: str | None
    """Cursor of the next page. Null on the last page."""


class MemberQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of members, or the one member with an external id."""

    external_id: ExternalId | None = None
    """Return only the member with this external id."""


def view_member(person: Person, segments: Sequence[str]) -> MemberView:
    """Return the wire shape of a member with the names of their segments."""
    member, profile = person.member, person.profile
    return MemberView(
        id=member.id,
        external_id=profile.external_id,
        email=profile.email,
        role=member.role,
        attributes=profile.attributes,
        status=member.status,
        created_at=rfc3339(member.created_at),
        segments=list(segments),
    )
