"""Wire and stored shapes of campaigns."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.money import Amount, AssetCode, Rounding
from guerdon.types import PageQuery, Text

CAMPAIGNS, CAMPAIGN_VERSIONS = "campaigns", "campaign_versions"
INDEXES: dict[str, list[IndexModel]] = {
    # Events ask for the active campaigns every second; paused ones and drafts pile up.
    CAMPAIGNS: [IndexModel([("status", 1), ("_id", -1)], name="status")],
    CAMPAIGN_VERSIONS: [],
}
CAMPAIGNS_LIVE_MAX = 200
CAPS_MAX, HOURS_MAX = 8, 21
WAITING_DAYS_MAX, EXPIRY_MONTHS_MAX = 366, 120

CampaignStatus = Literal["draft", "active", "paused", "ended"]
Clawback = Literal["none", "up_to_balance", "debt"]
Period = Literal["day", "week", "month", "year", "ever"]
PaidTo = Literal["member", "referrer"]
RefundRule = Literal["proportional"]
"""Name of a rule that says which share of an award a refund takes back. A paid award is stored with it, so that its refund does not depend on
later versions of the campaign."""
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EventType = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$(?!\n)", examples=["purchase"])]
ConfirmingType = Annotated[str, Meta(pattern=r"^(?!(?:purchase|refund)$)[a-z][a-z0-9_]{0,39}$(?!\n)", examples=["delivered"])]
TierCode = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,29}$(?!\n)", examples=["gold"])]
Expression = Annotated[str, Meta(min_length=1, max_length=2000, description="A CEL condition over event, member and now.")]
Decimal = Annotated[
    str,
    Meta(pattern=r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,4})?$(?!\n)", description="A decimal of at most four places.", examples=["2.5"]),
]
TimeOfDay = Annotated[str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$(?!\n)", examples=["09:00"])]


# --- what is paid ---------------------------------------------------------------------------------------------------


class FixedAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="fixed"):
    """The same amount for every event."""

    amount: Amount


class PerAmountAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="per_amount"):
    """`event.amount * points / per`, computed exactly and rounded once."""

    points: Amount
    per: Amount
    rounding: Rounding = "floor"


class PercentAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="percent"):
    """A percentage of `event.amount` in minor units, computed exactly and rounded once."""

    percent: Decimal
    rounding: Rounding = "floor"


class FormulaAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="formula"):
    """The value of a CEL expression over `event`, `member` and `now`, rounded once. CEL divides whole numbers toward zero."""

    expression: Expression
    rounding: Rounding = "floor"


Award = FixedAward | PerAmountAward | PercentAward | FormulaAward


# --- when, how much, how long ---------------------------------------------------------------------------------------


class Hours(Struct, frozen=True, forbid_unknown_fields=True):
    """Hours of some weekdays, by the clocks of the programme's time zone; an end before the start is on the day after."""

    days: Annotated[list[Weekday], Meta(min_length=1, max_length=7)]
    starts: TimeOfDay = "00:00"
    ends: TimeOfDay = "24:00"


class Stacking(Struct, frozen=True, forbid_unknown_fields=True):
    """Campaigns of one group answer to the policy of the first of them: all pay, the best, or the first by priority that can pay."""

    group: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$(?!\n)")] | None = None
    policy: Literal["all", "best", "first"] = "all"
    priority: Annotated[int, Meta(ge=0, le=1000, description="Higher comes first.")] = 0


class ItemsOf(Struct, frozen=True, forbid_unknown_fields=True):
    """Lines of an event: those of one of the categories, and those of one of the articles."""

    categories: Annotated[list[Text], Meta(max_length=50)] = []
    skus: Annotated[list[Text], Meta(max_length=200)] = []


class Streak(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="streak"):
    """An event in each of so many days, weeks or months in a row, by the calendar of the programme's time zone."""

    unit: Literal["day", "week", "month"]


class WithinDays(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="days"):
    """So many events within so many days, today among them."""

    days: Annotated[int, Meta(ge=1, le=366)]


class Achievement(Struct, frozen=True, forbid_unknown_fields=True):
    """Pay only the event that completes so many; each event is used once."""

    events: Annotated[int, Meta(ge=2, le=31)]
    within: Streak | WithinDays
    repeats: bool = True
    """Begin anew when it is achieved, or pay each member once."""


class Cap(Struct, frozen=True, forbid_unknown_fields=True):
    """At most `limit` for one event, or for one member in each calendar period in which their events occurred."""

    scope: Literal["event", "member"]
    limit: Amount
    period: Period | None = None


class PendingDays(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="days"):
    """The award can be spent from the midnight that follows so many days."""

    days: Annotated[int, Meta(ge=1, le=WAITING_DAYS_MAX)]


class PendingEvent(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="event"):
    """The award can be spent once an event of this type confirms the purchase; it lapses when none does within so many days.

    The days end like those of an expiry: at the next midnight, and of more than 31 days with the week.
    """

    event_type: ConfirmingType
    within_days: Annotated[int, Meta(ge=1, le=WAITING_DAYS_MAX)]


Pending = PendingDays | PendingEvent


class NeverExpires(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="never"):
    """The award does not expire."""


class AfterDays(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="after_days"):
    """It lapses after so many days, at the next midnight; of more than 31 days at the end of the week."""

    days: Annotated[int, Meta(ge=1, le=3660)]


class AfterMonths(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="after_months"):
    """It lapses after so many months, at the end of the week."""

    months: Annotated[int, Meta(ge=1, le=EXPIRY_MONTHS_MAX)]


class EndOfMonth(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="end_of_month"):
    """It lapses with the month that comes so many months after this one."""

    months: Annotated[int, Meta(ge=0, le=EXPIRY_MONTHS_MAX)] = 0


class EndOfYear(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="end_of_year"):
    """It lapses with the year that comes so many years after this one."""

    years: Annotated[int, Meta(ge=0, le=10)] = 0


Expiry = NeverExpires | AfterDays | AfterMonths | EndOfMonth | EndOfYear


# --- campaigns ------------------------------------------------------------------------------------------------------


class CampaignCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """An earn rule."""

    name: Text
    asset: AssetCode
    event_types: Annotated[list[EventType], Meta(min_length=1, max_length=20)]
    award: Award
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    schedule: Annotated[list[Hours], Meta(min_length=1, max_length=HOURS_MAX)] | None = None
    audience: Expression = "true"
    condition: Expression = "true"
    items: ItemsOf | None = None
    """Only these lines of the event: there has to be one, and the award is worked out on what they cost."""
    achievement: Achievement | None = None
    pays: PaidTo = "member"
    """The member whose event it is, or whoever has referred them."""
    tier_multipliers: Annotated[dict[TierCode, Decimal], Meta(max_length=20)] = {}
    stacking: Stacking = Stacking()
    caps: Annotated[list[Cap], Meta(max_length=CAPS_MAX)] = []
    budget: Amount | None = None
    partial_award: bool = True
    """At the edge of a cap or the budget: pay what is left of it, or nothing."""
    pending: Pending | None = None
    expiry: Expiry | None = None
    clawback: Clawback = "debt"
    effective_at: datetime | None = None
    """From when on a new version of an active campaign decides; at once if left out."""


class Campaign(Struct, frozen=True, kw_only=True):
    """One version of a campaign as stored; times in milliseconds."""

    id: str = field(name="_id")
    version: int
    status: CampaignStatus
    name: str
    asset: str
    event_types: list[str]
    award: Award
    starts_at: int | None
    ends_at: int | None
    audience: str
    condition: str
    clawback: Clawback
    created_at: int
    created_by: str
    changed_at: int
    schedule: list[Hours] | None = None
    items: ItemsOf | None = None
    achievement: Achievement | None = None
    pays: PaidTo = "member"
    tier_multipliers: dict[str, str] = {}
    stacking: Stacking = Stacking()
    caps: list[Cap] = []
    budget: int | None = None
    partial_award: bool = True
    pending: Pending | None = None
    expiry: Expiry | None = None
    effective_at: int | None = None
    bounded: bool = False
    """Whether its conditions are held to what they may take; those of campaigns that were saved before there were bounds are not."""
    approved_by: str | None = None
    waits: bool = False
    """Its version is to follow, and decides nothing before it is approved."""
    coming: "Campaign | None" = None
    """The version that follows at its `effective_at`."""


class CampaignVersion(Struct, frozen=True, kw_only=True):
    """The archive of what a version said: decisions refer to it for ever."""

    id: str = field(name="_id")
    """`{campaign}/{version}`"""
    campaign: Campaign


class CampaignView(Struct, frozen=True):
    """A campaign's version in force; `coming_version` follows it at `coming_at`."""

    id: str
    version: int
    status: CampaignStatus
    name: str
    asset: str
    event_types: list[str]
    award: Award
    starts_at: str | None
    ends_at: str | None
    schedule: list[Hours] | None
    audience: str
    condition: str
    items: ItemsOf | None
    achievement: Achievement | None
    pays: PaidTo
    tier_multipliers: dict[str, str]
    stacking: Stacking
    caps: list[Cap]
    budget: int | None
    partial_award: bool
    pending: Pending | None
    expiry: Expiry | None
    clawback: str
    effective_at: str | None
    created_by: str
    approved_by: str | None
    awaits_approval: int | None
    """The version that follows once somebody else has approved it."""
    coming_version: int | None
    coming_at: str | None
    created_at: str
    changed_at: str


class CampaignApprove(Struct, frozen=True, forbid_unknown_fields=True):
    """Which version was read and is approved."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)]


class CampaignPage(Struct, frozen=True):
    """Campaigns, newest first."""

    items: list[CampaignView]
    next_cursor: str | None


class CampaignQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filter by status."""

    status: CampaignStatus | None = None


def in_force(campaign: Campaign, now_ms: int) -> Campaign:
    """The version that decides at this moment."""
    coming = campaign.coming
    return campaign if coming is None or coming.waits or coming.effective_at is None or now_ms < coming.effective_at else coming


def view_campaign(stored: Campaign, now_ms: int) -> CampaignView:
    campaign = in_force(stored, now_ms)
    coming = campaign.coming
    return CampaignView(
        id=campaign.id,
        version=campaign.version,
        status=stored.status,
        name=campaign.name,
        asset=campaign.asset,
        event_types=campaign.event_types,
        award=campaign.award,
        starts_at=_time(campaign.starts_at),
        ends_at=_time(campaign.ends_at),
        schedule=campaign.schedule,
        audience=campaign.audience,
        condition=campaign.condition,
        items=campaign.items,
        achievement=campaign.achievement,
        pays=campaign.pays,
        tier_multipliers=campaign.tier_multipliers,
        stacking=campaign.stacking,
        caps=campaign.caps,
        budget=campaign.budget,
        partial_award=campaign.partial_award,
        pending=campaign.pending,
        expiry=campaign.expiry,
        clawback=campaign.clawback,
        effective_at=_time(campaign.effective_at),
        created_by=campaign.created_by,
        approved_by=campaign.approved_by,
        awaits_approval=coming.version if coming is not None and coming.waits else None,
        coming_version=None if coming is None else coming.version,
        coming_at=None if coming is None else _time(coming.effective_at),
        created_at=rfc3339(campaign.created_at),
        changed_at=rfc3339(campaign.changed_at),
    )


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
