"""Wire and stored shapes of campaigns."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from pymongo import IndexModel

from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.money import Amount, AssetCode, Rounding
from guerdon.proofs import ArchivedVersion
from guerdon.types import EXPECTED, Category, DefinitionStatus, DefinitionWarning, PageQuery, Sku, Text

CAMPAIGNS, CAMPAIGN_VERSIONS = "campaigns", "campaign_versions"
INDEXES: dict[str, list[IndexModel]] = {
    # Active campaigns are read every second; paused ones and drafts accumulate.
    CAMPAIGNS: [IndexModel([("status", 1), ("_id", -1)], name="status")],
    CAMPAIGN_VERSIONS: [],
}
CAMPAIGNS_LIVE_MAX = 200
CAPS_MAX, HOURS_MAX = 8, 21
WAITING_DAYS_MAX, EXPIRY_MONTHS_MAX = 366, 120

Clawback = Literal["none", "up_to_balance", "debt"]
Period = Literal["day", "week", "month", "year", "ever"]
PaidTo = Literal["member", "referrer"]
RefundRule = Literal["proportional"]
"""Name of a rule that says which share of an award a refund takes back. A paid award is stored with it, so that its refund does not depend on
later versions of the campaign."""
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EventType = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_]{0,39}$(?!\n)",
        extra={EXPECTED: "must be a lower-case name: a letter, then letters, digits and _, at most 40 characters"},
        examples=["purchase"],
    ),
]
ConfirmingType = Annotated[
    str,
    Meta(
        pattern=r"^(?!(?:purchase|refund)$)[a-z][a-z0-9_]{0,39}$(?!\n)",
        extra={
            EXPECTED: "must be a lower-case name: a letter, then letters, digits and _, at most 40 characters, other than purchase and refund"
        },
        examples=["delivered"],
    ),
]
TierCode = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_]{0,29}$(?!\n)",
        extra={EXPECTED: "must be a lower-case name: a letter, then letters, digits and _, at most 30 characters"},
        examples=["gold"],
    ),
]
Expression = Annotated[str, Meta(min_length=1, max_length=2000, description="A CEL condition over event, member and now.")]
Decimal = Annotated[
    str,
    Meta(
        pattern=r"^(0|[1-9][0-9]{0,5})(\.[0-9]{1,4})?$(?!\n)",
        extra={EXPECTED: 'must be a decimal below 1,000,000 with at most four places, such as "2.5"'},
        description="A decimal of at most four places.",
        examples=["2.5"],
    ),
]
TimeOfDay = Annotated[
    str,
    Meta(
        pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$(?!\n)",
        extra={EXPECTED: "must be a time of day from 00:00 to 24:00, such as 09:00"},
        examples=["09:00"],
    ),
]


# --- what is paid ---------------------------------------------------------------------------------------------------


class FixedAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="fixed"):
    """The same amount for every event."""

    amount: Amount
    """Amount of the award in minor units of the campaign's asset."""


class PerAmountAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="per_amount"):
    """`event.amount * points / per`, computed exactly and rounded once."""

    points: Amount
    """Minor units of the campaign's asset that each `per` earns."""
    per: Amount
    """Part of `event.amount` that earns `points`, in minor units of the event's currency."""
    rounding: Rounding = "floor"
    """Direction of the one rounding."""


class PercentAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="percent"):
    """A percentage of `event.amount` in minor units, computed exactly and rounded once."""

    percent: Decimal
    """Percentage of `event.amount`, a decimal with at most four places."""
    rounding: Rounding = "floor"
    """Direction of the one rounding."""


class FormulaAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="formula"):
    """The value of a CEL expression over `event`, `member` and `now`, rounded once.

    CEL divides whole numbers toward zero. A value with decimals is taken as the decimal that it stands for: it is first rounded to nine
    decimal places (to 15 digits if it has more than six before the point), so that 0.29 of 100 is 29.
    """

    expression: Expression
    """CEL expression that gives a number of minor units of the campaign's asset."""
    rounding: Rounding = "floor"
    """Direction of the one rounding."""


Award = FixedAward | PerAmountAward | PercentAward | FormulaAward


# --- when, how much, how long ---------------------------------------------------------------------------------------


class Hours(Struct, frozen=True, forbid_unknown_fields=True):
    """Hours on some weekdays, in the programme's time zone. An end before the start is on the next day."""

    days: Annotated[list[Weekday], Meta(min_length=1, max_length=7)]
    """Weekdays on which the hours begin."""
    starts: TimeOfDay = "00:00"
    """First minute, local time `HH:MM`."""
    ends: TimeOfDay = "24:00"
    """First minute after the hours, local time `HH:MM`. Before `starts`, it is on the next day."""


class Stacking(Struct, frozen=True, forbid_unknown_fields=True):
    """Order and exclusion of campaigns. The policy of a group is that of its first campaign with an award."""

    group: (
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$(?!\n)",
                extra={
                    EXPECTED: "must be lower-case letters, digits, _ and -, at most 40 characters, and begin with a letter or digit"
                },
            ),
        ]
        | None
    ) = None
    """Name of the stacking group. Null: the campaign is in no group."""
    policy: Literal["all", "best", "first"] = "all"
    """Which campaigns of the group pay: all, the one with the largest award, or the first by priority that can pay."""
    priority: Annotated[int, Meta(ge=0, le=1000, description="Higher comes first.")] = 0
    """Rank of the campaign; the highest is evaluated and paid first."""


class ItemsOf(Struct, frozen=True, forbid_unknown_fields=True):
    """Selection of line items: those with one of the categories or one of the SKUs."""

    categories: Annotated[list[Category], Meta(max_length=50)] = []
    """Categories whose line items match."""
    skus: Annotated[list[Sku], Meta(max_length=200)] = []
    """SKUs whose line items match."""


class Streak(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="streak"):
    """One event in each of `events` consecutive days, weeks or months."""

    unit: Literal["day", "week", "month"]
    """Length of one period, a calendar day, week or month in the programme's time zone."""


class WithinDays(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="days"):
    """The events lie within a window of days."""

    days: Annotated[int, Meta(ge=1, le=366)]
    """Length of the window in calendar days, including the day of the last event."""


class Achievement(Struct, frozen=True, forbid_unknown_fields=True):
    """A goal of several events. Only the event that completes it earns the award, and each event counts once."""

    events: Annotated[int, Meta(ge=2, le=31)]
    """Number of events that complete the goal."""
    within: Streak | WithinDays
    """Window in which the events must occur."""
    repeats: bool = True
    """True: the goal starts again once it is reached. False: each member reaches it once."""


class Cap(Struct, frozen=True, forbid_unknown_fields=True):
    """Maximum that a campaign pays for one event, or to one member in each calendar period."""

    scope: Literal["event", "member"]
    """`event`: maximum for one event. `member`: maximum for one member in each period."""
    limit: Amount
    """Maximum in minor units of the campaign's asset."""
    period: Period | None = None
    """Calendar period of a cap of scope `member`, in the programme's time zone. It is chosen by the time of the event."""


class PendingDays(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="days"):
    """The award becomes available at the first midnight after a number of days."""

    days: Annotated[int, Meta(ge=1, le=WAITING_DAYS_MAX)]
    """Days until the award can be spent; it becomes available at the midnight after them."""


class PendingEvent(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="event"):
    """The award becomes available when an event of this type confirms the purchase, and expires if none does in time.

    The days end like those of an expiry: at the next midnight, or with the week if they are more than 31.
    """

    event_type: ConfirmingType
    """Type of the event that confirms the purchase."""
    within_days: Annotated[int, Meta(ge=1, le=WAITING_DAYS_MAX)]
    """Days in which the event must occur; otherwise the award expires."""


Pending = PendingDays | PendingEvent


class NeverExpires(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="never"):
    """The award does not expire."""


class AfterDays(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="after_days"):
    """The award expires after a number of days, at the next midnight; after more than 31 days at the end of the week."""

    days: Annotated[int, Meta(ge=1, le=3660)]
    """Days until the award expires."""


class AfterMonths(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="after_months"):
    """The award expires after a number of months, at the end of the week."""

    months: Annotated[int, Meta(ge=1, le=EXPIRY_MONTHS_MAX)]
    """Months until the award expires."""


class EndOfMonth(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="end_of_month"):
    """The award expires at the end of the present month, or of a later one."""

    months: Annotated[int, Meta(ge=0, le=EXPIRY_MONTHS_MAX)] = 0
    """Months between the present month and the last one of the award."""


class EndOfYear(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="end_of_year"):
    """The award expires at the end of the present year, or of a later one."""

    years: Annotated[int, Meta(ge=0, le=10)] = 0
    """Years between the present year and the last one of the award."""


Expiry = NeverExpires | AfterDays | AfterMonths | EndOfMonth | EndOfYear


# --- campaigns ------------------------------------------------------------------------------------------------------


class CampaignCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """An earn rule."""

    name: Text
    """Name for people."""
    asset: AssetCode
    """Code of the asset that is paid."""
    event_types: Annotated[list[EventType], Meta(min_length=1, max_length=20)]
    """Types of the events that the campaign evaluates."""
    award: Award
    """Type and size of the award."""
    starts_at: datetime | None = None
    """Time of the first event that the campaign evaluates, RFC 3339 with an offset. Null: no start."""
    ends_at: datetime | None = None
    """Time after the last event that the campaign evaluates, RFC 3339 with an offset. Null: no end."""
    schedule: Annotated[list[Hours], Meta(min_length=1, max_length=HOURS_MAX)] | None = None
    """Weekly hours in which an event must occur. Null: always."""
    audience: Expression = "true"
    """CEL condition that selects members."""
    condition: Expression = "true"
    """CEL condition that selects events."""
    items: ItemsOf | None = None
    """Line items that the campaign applies to. An event needs at least one of them, and the award is computed on their cost. Null: the whole event."""
    achievement: Achievement | None = None
    """Goal that the events must complete. Null: each event earns the award."""
    pays: PaidTo = "member"
    """Recipient of the award: the member of the event, or the member's referrer."""
    tier_multipliers: Annotated[dict[TierCode, Decimal], Meta(max_length=20)] = {}
    """By tier code: factor by which the award of a member in that tier is multiplied, a decimal."""
    stacking: Stacking = Stacking()
    """Order and exclusion among campaigns."""
    caps: Annotated[list[Cap], Meta(max_length=CAPS_MAX)] = []
    """Maxima for one event or one member."""
    budget: Amount | None = None
    """Maximum that the campaign pays in total, in minor units of `asset`. Null: no maximum."""
    partial_award: bool = True
    """True: an award that exceeds a cap or the budget is reduced to what is left. False: it is not paid."""
    pending: Pending | None = None
    """When the award becomes available. Null: at once."""
    expiry: Expiry | None = None
    """When the award expires. Null: never."""
    clawback: Clawback = "debt"
    """Policy of a refund: take back nothing, at most the available balance, or all, even if a debt remains."""
    effective_at: datetime | None = None
    """Time from which a new version of an active campaign evaluates events, RFC 3339 with an offset. Null: at once."""


class Campaign(Struct, frozen=True, kw_only=True):
    """One version of a campaign as stored. Times are milliseconds since the epoch."""

    NOT_CONTENT: ClassVar = frozenset({"status", "changed_at", "coming", "approved_by", "waits", "effective_at"})
    """Fields that change without a new version. An approval sets the start of a version that waited."""

    id: str = field(name="_id")
    version: int
    status: DefinitionStatus
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
    """True if the cost of the expressions was bounded when the version was saved. False for campaigns that are older than the bounds."""
    approved_by: str | None = None
    waits: bool = False
    """True while the version waits for its approval; it evaluates nothing before."""
    coming: "Campaign | None" = None
    """Version that follows at its `effective_at`."""


class CampaignVersion(ArchivedVersion, frozen=True, kw_only=True):
    """An archived version of a campaign. Recorded decisions refer to it permanently."""

    id: str = field(name="_id")
    """`{campaign}/{version}`"""
    campaign: Campaign

    @property
    def definition(self) -> Campaign:
        return self.campaign


class CampaignView(Struct, frozen=True):
    """The version of a campaign that is in force. `coming_version` follows it at `coming_at`."""

    id: str
    """Id of the campaign."""
    version: int
    """Number of the version in force."""
    status: DefinitionStatus
    """Status of the campaign."""
    name: str
    """Name for people."""
    asset: str
    """Code of the asset that is paid."""
    event_types: list[str]
    """Types of the events that the campaign evaluates."""
    award: Award
    """Type and size of the award."""
    starts_at: str | None
    """Time of the first event that the campaign evaluates, RFC 3339 in UTC. Null: no start."""
    ends_at: str | None
    """Time after the last event that the campaign evaluates, RFC 3339 in UTC. Null: no end."""
    schedule: list[Hours] | None
    """Weekly hours in which an event must occur. Null: always."""
    audience: str
    """CEL condition that selects members."""
    condition: str
    """CEL condition that selects events."""
    items: ItemsOf | None
    """Line items that the campaign applies to. An event needs at least one of them, and the award is computed on their cost. Null: the whole event."""
    achievement: Achievement | None
    """Goal that the events must complete. Null: each event earns the award."""
    pays: PaidTo
    """Recipient of the award: the member of the event, or the member's referrer."""
    tier_multipliers: dict[str, str]
    """By tier code: factor by which the award of a member in that tier is multiplied, a decimal."""
    stacking: Stacking
    """Order and exclusion among campaigns."""
    caps: list[Cap]
    """Maxima for one event or one member."""
    budget: int | None
    """Maximum that the campaign pays in total, in minor units of `asset`. Null: no maximum."""
    budget_used: int | None
    """Amount that was awarded and not taken back, over all versions. Null: no budget."""
    budget_left: int | None
    """Amount that can still be awarded. Null: no budget."""
    partial_award: bool
    """True: an award that exceeds a cap or the budget is reduced to what is left. False: it is not paid."""
    pending: Pending | None
    """When the award becomes available. Null: at once."""
    expiry: Expiry | None
    """When the award expires. Null: never."""
    clawback: str
    """Policy of a refund: take back nothing, at most the available balance, or all, even if a debt remains."""
    effective_at: str | None
    """Time from which this version evaluates events, RFC 3339 in UTC. Null: since it was saved."""
    created_by: str
    """Id of the actor who saved the version."""
    approved_by: str | None
    """Id of the person who approved the version. Null: not approved."""
    awaits_approval: int | None
    """Number of the version that follows once another person approves it. Null: none."""
    coming_version: int | None
    """Number of the version that follows. Null: none."""
    coming_at: str | None
    """Time at which `coming_version` follows, RFC 3339 in UTC."""
    created_at: str
    """Time at which the campaign was created, RFC 3339 in UTC."""
    changed_at: str
    """Time of the last change, RFC 3339 in UTC."""
    warnings: list[DefinitionWarning] | UnsetType = UNSET
    """Warnings about values that are valid and probably not meant. Present after the campaign was created or replaced."""


class CampaignApprove(Struct, frozen=True, forbid_unknown_fields=True):
    """Approval of a version."""

    version: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Number of the version that the caller has read."""


class CampaignPage(Struct, frozen=True):
    """One page of campaigns, newest first."""

    items: list[CampaignView]
    """Campaigns of the page."""
    next_cursor: str | None
    """Cursor of the next page. Null: this is the last page."""


class CampaignQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One page of campaigns, with a filter by status."""

    status: DefinitionStatus | None = None
    """Only campaigns with this status."""


def in_force(campaign: Campaign, now_ms: int) -> Campaign:
    """Return the version that evaluates events at this time."""
    coming = campaign.coming
    return campaign if coming is None or coming.waits or coming.effective_at is None or now_ms < coming.effective_at else coming


def view_campaign(stored: Campaign, now_ms: int, budget_used: int | None) -> CampaignView:
    """Return the view of a campaign. `budget_used` is None if the version in force has no budget."""
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
        starts_at=optional_rfc3339(campaign.starts_at),
        ends_at=optional_rfc3339(campaign.ends_at),
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
        budget_used=budget_used,
        budget_left=None if campaign.budget is None else max(0, campaign.budget - (budget_used or 0)),
        partial_award=campaign.partial_award,
        pending=campaign.pending,
        expiry=campaign.expiry,
        clawback=campaign.clawback,
        effective_at=optional_rfc3339(campaign.effective_at),
        created_by=campaign.created_by,
        approved_by=campaign.approved_by,
        awaits_approval=coming.version if coming is not None and coming.waits else None,
        coming_version=None if coming is None else coming.version,
        coming_at=None if coming is None else optional_rfc3339(coming.effective_at),
        created_at=rfc3339(campaign.created_at),
        changed_at=rfc3339(campaign.changed_at),
    )
