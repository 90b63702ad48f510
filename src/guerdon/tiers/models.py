"""Wire and stored shapes of tiers."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.campaigns.domain import MEMBER_STATES, TIER_CHANGES, ChainLink
from guerdon.campaigns.models import TierCode
from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.money import AMOUNT_MAX, AssetCode
from guerdon.proofs import ArchivedVersion
from guerdon.types import PageQuery, Text

TIER_SETS, TIER_SET_VERSIONS = "tier_sets", "tier_set_versions"
INDEXES: dict[str, list[IndexModel]] = {
    # Only who may lose a tier has the field; the review finds them by it.
    MEMBER_STATES: [IndexModel([("due_at", 1)], name="due_at", partialFilterExpression={"due_at": {"$gt": 0}})],
    TIER_SETS: [],
    TIER_SET_VERSIONS: [],
    TIER_CHANGES: [],
}
PROGRAMME = "programme"
"""Id of the only document of the collection `tier_sets`."""
WALK = "walk"
"""Id of the document with the progress of the review after a change of the tier set."""
TIERS_MAX = 20
WINDOW_MONTHS_MAX, GRACE_MONTHS_MAX, GRACE_DAYS_MAX = 36, 12, 92
VERSIONS_MAX = 10
"""Maximum number of versions kept in force; the oldest of them applies to all earlier times."""

Reason = Literal["earned", "refunded", "lapsed", "rules"]
"""Cause of a tier change: an event, a refund, the end of the grace, or a new tier set. `lapsed` is the stored and public name of an expiry."""


# --- what tiers there are ---------------------------------------------------------------------------------------------


class RollingWindow(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="rolling"):
    """Points count until the end of the month that is `months` months after the month of their event."""

    months: Annotated[int, Meta(ge=1, le=WINDOW_MONTHS_MAX)]
    """Length of the window in months."""


class CalendarYear(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="calendar_year"):
    """Points count until the end of the calendar year of their event."""


Window = RollingWindow | CalendarYear


class Tier(Struct, frozen=True, forbid_unknown_fields=True):
    """A tier and its threshold."""

    code: TierCode
    """Code of the tier, unique in the set; conditions and multipliers refer to it."""
    name: Text
    """Display name."""
    points: Annotated[int, Meta(ge=0, le=AMOUNT_MAX, examples=[5000])]
    """Qualifying points from which a member has the tier."""


class TierSetCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """The tiers of the programme, lowest first."""

    asset: AssetCode
    """Asset whose awards count as qualifying points."""
    window: Window
    """Period in which points count."""
    tiers: Annotated[list[Tier], Meta(min_length=1, max_length=TIERS_MAX)]
    """Tiers in ascending order of `points`."""
    grace_months: Annotated[int, Meta(ge=0, le=GRACE_MONTHS_MAX)] = 0
    """Months for which a member keeps a tier that their points no longer justify."""
    grace_days: Annotated[int, Meta(ge=0, le=GRACE_DAYS_MAX)] = 0
    """Days of grace after `grace_months`."""
    effective_at: datetime | None = None
    """Start of the set, RFC 3339 with an offset; at once by default. The first set also applies to the past unless this is given."""


class TierSet(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of the tier set, as stored."""

    version: int
    asset: str
    window: Window
    tiers: tuple[Tier, ...]
    grace_months: int = 0
    grace_days: int = 0
    effective_at: int | None = None
    """Milliseconds since the epoch; None for a set without a start."""
    created_at: int
    created_by: str


class TierSets(Struct, frozen=True, kw_only=True):
    """The newest versions, in the order of their start."""

    id: str = field(name="_id", default=PROGRAMME)
    owner: str = PROGRAMME
    count: int
    """Number of the newest version."""
    versions: tuple[TierSet, ...]
    head: str | None = None
    """Hash of the newest version in the archive, in hexadecimal."""


class TierSetVersion(ArchivedVersion, frozen=True, kw_only=True):
    """Archived version of the tier set."""

    id: int = field(name="_id")
    tiers: TierSet

    @property
    def definition(self) -> TierSet:
        return self.tiers


class TierSetView(Struct, frozen=True):
    """The tier set in force."""

    version: int = 0
    """Number of the version; 0 before the first one."""
    asset: str | None = None
    """Asset whose awards count as qualifying points."""
    window: Window | None = None
    """Period in which points count."""
    tiers: list[Tier] = []
    """Tiers in ascending order of `points`."""
    grace_months: int = 0
    """Months for which a member keeps a tier that their points no longer justify."""
    grace_days: int = 0
    """Days of grace after `grace_months`."""
    effective_at: str | None = None
    """Start of the set, RFC 3339 in UTC; null if it also applies to the past."""
    coming_version: int | None = None
    """Number of the version that follows, or null."""
    coming_at: str | None = None
    """Start of the version that follows, RFC 3339 in UTC, or null."""
    created_at: str | None = None
    """Time of creation, RFC 3339 in UTC."""


# --- what a member has ------------------------------------------------------------------------------------------------


class TierChange(Struct, frozen=True, kw_only=True):
    """A change of a member's tier, inserted in the commit that changes the member state."""

    id: str = field(name="_id")
    """`{member}#{number}` with six digits: the history is a range scan, and a second change of one number cannot be inserted."""
    owner: str
    before: str | None
    after: str | None
    reason: Reason
    points: int
    """Qualifying points at the time of the change."""
    version: int
    """Version of the tier set in force."""
    event: str | None
    at: int
    """Time of the change in milliseconds since the epoch; earlier than `recorded_at` if a review found it later."""
    recorded_at: int
    proof: ChainLink | None = None


class TierChangeView(Struct, frozen=True):
    """A change of a member's tier and its reason."""

    before: str | None = field(name="from")
    """Code of the previous tier, or null."""
    after: str | None = field(name="to")
    """Code of the new tier, or null."""
    reason: Reason
    """Cause: `earned` by an event, `refunded`, `lapsed` at the end of the grace, or `rules` for a new tier set."""
    qualifying_points: int
    """Qualifying points at the time of the change."""
    version: int
    """Version of the tier set in force."""
    event_id: str | None
    """Event that caused the change, or null."""
    at: str
    """Time of the change, RFC 3339 in UTC."""
    recorded_at: str | None
    """Time at which the change was stored, RFC 3339 in UTC; null while it is not stored."""


class TierChangePage(Struct, frozen=True):
    """Changes of a member's tier, newest first."""

    items: list[TierChangeView]
    """Changes of this page."""
    next_cursor: str | None
    """Cursor of the next page; null on the last page."""


class TierChangeQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Page of tier changes."""


class NextTier(Struct, frozen=True):
    """The next higher tier."""

    code: str
    """Code of the tier."""
    points: int
    """Qualifying points from which a member has the tier."""
    missing: int
    """Qualifying points that the member still needs."""


class Keep(Struct, frozen=True):
    """Condition to keep the tier: `missing` more points, earned from `counts_from` on and before `until`."""

    missing: int | None
    """Qualifying points needed; null if the tier is lost in any case."""
    counts_from: str
    """Time from which points count, RFC 3339 in UTC."""
    until: str
    """Time at which the tier is lost otherwise, RFC 3339 in UTC."""


class MemberTierView(Struct, frozen=True):
    """A member's current tier."""

    member_id: str
    """Id of the member."""
    tier: str | None
    """Code of the tier, or null."""
    since: str | None
    """Time since which the member has the tier, RFC 3339 in UTC, or null."""
    asset: str | None
    """Asset whose awards count as qualifying points; null without a tier set."""
    qualifying_points: int
    """Qualifying points that count now."""
    version: int | None
    """Version of the tier set in force, or null."""
    next: NextTier | None
    """The next higher tier; null at the highest."""
    keep: Keep | None
    """Condition to keep the tier; null if it needs no points."""


def view_tiers(tiers: TierSet | None, coming: TierSet | None) -> TierSetView:
    following = (None, None) if coming is None or coming.effective_at is None else (coming.version, rfc3339(coming.effective_at))
    if tiers is None:
        return TierSetView(coming_version=following[0], coming_at=following[1])
    return TierSetView(
        version=tiers.version,
        asset=tiers.asset,
        window=tiers.window,
        tiers=list(tiers.tiers),
        grace_months=tiers.grace_months,
        grace_days=tiers.grace_days,
        effective_at=optional_rfc3339(tiers.effective_at),
        coming_version=following[0],
        coming_at=following[1],
        created_at=rfc3339(tiers.created_at),
    )


def view_change(change: TierChange, *, recorded: bool = True) -> TierChangeView:
    return TierChangeView(
        before=change.before,
        after=change.after,
        reason=change.reason,
        qualifying_points=change.points,
        version=change.version,
        event_id=change.event,
        at=rfc3339(change.at),
        recorded_at=rfc3339(change.recorded_at) if recorded else None,
    )
