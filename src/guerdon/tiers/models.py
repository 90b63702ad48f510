"""Wire and stored shapes of tiers."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.campaigns.domain import MEMBER_STATES
from guerdon.campaigns.models import TierCode
from guerdon.clock import rfc3339
from guerdon.money import AMOUNT_MAX, AssetCode
from guerdon.types import PageQuery, Text

TIER_SETS, TIER_SET_VERSIONS, TIER_CHANGES = "tier_sets", "tier_set_versions", "tier_changes"
INDEXES: dict[str, list[IndexModel]] = {
    # Only who may lose a tier has the field; the review finds them by it.
    MEMBER_STATES: [IndexModel([("due_at", 1)], name="due_at", partialFilterExpression={"due_at": {"$gt": 0}})],
    TIER_SETS: [],
    TIER_SET_VERSIONS: [],
    TIER_CHANGES: [],
}
PROGRAMME = "programme"
"""The id of the one document that says which tiers there are."""
WALK = "walk"
"""The id of the document that says how far members have been reviewed since the tiers were changed."""
TIERS_MAX = 20
WINDOW_MONTHS_MAX, GRACE_MONTHS_MAX, GRACE_DAYS_MAX = 36, 12, 92
VERSIONS_MAX = 10
"""Versions that are still looked at: of what was longer ago, the oldest of them is the rule."""

Reason = Literal["earned", "refunded", "lapsed", "rules"]
"""An event brought it; a refund took it; the time was over; the rules have changed."""


# --- what tiers there are ---------------------------------------------------------------------------------------------


class RollingWindow(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="rolling"):
    """Points count until the end of the month that comes so many months after the one they were earned in."""

    months: Annotated[int, Meta(ge=1, le=WINDOW_MONTHS_MAX)]


class CalendarYear(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="calendar_year"):
    """Points count until the end of the year they were earned in."""


Window = RollingWindow | CalendarYear


class Tier(Struct, frozen=True, forbid_unknown_fields=True):
    """A tier, and the qualifying points from which on a member has it."""

    code: TierCode
    name: Text
    points: Annotated[int, Meta(ge=0, le=AMOUNT_MAX, examples=[5000])]


class TierSetCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """The tiers of the programme, the lowest first. Qualifying points are what events earn in `asset`."""

    asset: AssetCode
    window: Window
    tiers: Annotated[list[Tier], Meta(min_length=1, max_length=TIERS_MAX)]
    grace_months: Annotated[int, Meta(ge=0, le=GRACE_MONTHS_MAX)] = 0
    grace_days: Annotated[int, Meta(ge=0, le=GRACE_DAYS_MAX)] = 0
    """How long a member keeps a tier that their points do not justify any more: so many months, and then so many days."""
    effective_at: datetime | None = None
    """From when on it is in force; at once if left out. The first set there is has always been in force, unless this is said."""


class TierSet(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of the tiers, as stored."""

    version: int
    asset: str
    window: Window
    tiers: tuple[Tier, ...]
    grace_months: int = 0
    grace_days: int = 0
    effective_at: int | None = None
    """None: since ever."""
    created_at: int
    created_by: str


class TierSets(Struct, frozen=True, kw_only=True):
    """The newest versions, in the order in which they come into force."""

    id: str = field(name="_id", default=PROGRAMME)
    owner: str = PROGRAMME
    count: int
    """How often the tiers have been changed: the number of the newest version."""
    versions: tuple[TierSet, ...]


class TierSetVersion(Struct, frozen=True, kw_only=True):
    """The archive of what a version said."""

    id: int = field(name="_id")
    tiers: TierSet


class TierSetView(Struct, frozen=True):
    """The tiers in force; `coming_version` follows them at `coming_at`. Version 0: there are none yet."""

    version: int = 0
    asset: str | None = None
    window: Window | None = None
    tiers: list[Tier] = []
    grace_months: int = 0
    grace_days: int = 0
    effective_at: str | None = None
    coming_version: int | None = None
    coming_at: str | None = None
    created_at: str | None = None


# --- what a member has ------------------------------------------------------------------------------------------------


class TierChange(Struct, frozen=True, kw_only=True):
    """A member's tier has changed. It is written once, in the commit that moves the member's standing."""

    id: str = field(name="_id")
    """`{member}#{number}` with six digits: the history is a range scan, and a second change of one number cannot be inserted."""
    owner: str
    before: str | None
    after: str | None
    reason: Reason
    points: int
    """The qualifying points that counted at that moment."""
    version: int
    """The tiers in force."""
    event: str | None
    at: int
    """When it changed, which is before it was written where nobody had looked."""
    recorded_at: int


class TierChangeView(Struct, frozen=True):
    """A change of a member's tier, and why."""

    before: str | None = field(name="from")
    after: str | None = field(name="to")
    reason: Reason
    qualifying_points: int
    version: int
    event_id: str | None
    at: str
    recorded_at: str | None
    """Null: nobody has written it down yet."""


class TierChangePage(Struct, frozen=True):
    """Changes of a member's tier, newest first."""

    items: list[TierChangeView]
    next_cursor: str | None


class TierChangeQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One page."""


class NextTier(Struct, frozen=True):
    """The tier above, and how many qualifying points are missing to it."""

    code: str
    points: int
    missing: int


class Keep(Struct, frozen=True):
    """What it takes to keep the tier: at least `missing` more points, earned from `counts_from` on and before `until`, when it is lost."""

    missing: int | None
    """Null: it is lost then, whatever is earned."""
    counts_from: str
    until: str


class MemberTierView(Struct, frozen=True):
    """A member's tier at this moment, by the points that count at this moment."""

    member_id: str
    tier: str | None
    since: str | None
    asset: str | None
    qualifying_points: int
    version: int | None
    next: NextTier | None
    keep: Keep | None


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
        effective_at=None if tiers.effective_at is None else rfc3339(tiers.effective_at),
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
