"""Wire and stored shapes of simulations."""

from datetime import datetime
from typing import Literal

from msgspec import Struct, field
from pymongo import IndexModel

from guerdon.campaigns.domain import AchievementProgress, Award, AwardWallet
from guerdon.campaigns.models import Campaign, CampaignCreate, Decimal
from guerdon.clock import rfc3339

SIMULATIONS, SIMULATED_MEMBERS, SIMULATED_PURCHASES = "simulations", "simulated_members", "simulated_purchases"
INDEXES: dict[str, list[IndexModel]] = {
    SIMULATIONS: [
        # The few with work left; workers look for them every second.
        IndexModel([("lane", 1), ("_id", 1)], name="open", partialFilterExpression={"lane": {"$gte": 0}}),
        IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0),
    ],
    # What is kept while a simulation runs is found by `{simulation}/…`.
    SIMULATED_MEMBERS: [],
    SIMULATED_PURCHASES: [],
}
LANES = 2
"""So many simulations run at the same time, however many workers there are."""
FREE = 0
"""The lane of a simulation that nobody has taken up."""
OPEN_MAX = 20
KEPT_DAYS = 30
ROWS_MAX, WINNERS_MAX = 530, 20
"""Weeks of ten years; what lies in further ones is summed up in one row."""

Status = Literal["waiting", "running", "done", "cancelled", "failed"]


# --- wire -----------------------------------------------------------------------------------------------------------


class SimulationCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """What to try, and on what; on all events there are if no moment is named."""

    occurred_from: datetime | None = None
    occurred_before: datetime | None = None
    campaign: CampaignCreate | None = None
    """Try this instead of what is saved; nothing is saved."""
    ignore_dates: bool = False
    """Leave the campaign's own `starts_at` and `ends_at` out, to try on the past what is planned for the future."""
    unit_cost: Decimal = "1"
    """What one minor unit of the asset costs, in minor units of money."""


class Figures(Struct, frozen=True):
    """What campaigns pay: `points` is what they have awarded less what they have taken back; `members` have got an award."""

    awards: int = 0
    members: int = 0
    awarded: int = 0
    taken_back: int = 0
    points: int = 0
    cost: int = 0


class Comparison(Struct, frozen=True):
    """The same figures three times; the difference is simulated less real."""

    simulated: Figures
    real: Figures
    difference: Figures


class Row(Struct, frozen=True):
    """One part of the whole: what this campaign pays there, and what all campaigns of its asset pay there."""

    name: str
    events: int
    campaign: Comparison
    programme: Comparison


class Winner(Struct, frozen=True):
    """What the campaign pays to one member, and what all campaigns of its asset do."""

    member_id: str
    campaign_simulated: int
    campaign_real: int
    programme_simulated: int
    programme_real: int


class OtherAsset(Struct, frozen=True):
    """What campaigns pay in another asset: a group can make the campaign stand in their way."""

    asset: str
    simulated: int
    real: int
    difference: int


class AsItWas(Struct, frozen=True):
    """Events that cannot be judged again: they count on both sides as they were."""

    recorded_without_inputs: int = 0
    """By an early version, which did not keep what it judged on."""
    version_missing: int = 0
    """A campaign that was asked then cannot be read any more."""
    member_erased: int = 0
    """A campaign reads the profile of somebody who was erased."""


class Report(Struct, frozen=True):
    """What would have been, beside what was."""

    asset: str
    events: int
    total: Row
    by_tier: list[Row]
    """By the tier that the member had when the event occurred; on the simulated side, would have had."""
    by_segment: list[Row]
    """By when the member had bought last: new, within_30_days, within_90_days, longer_ago."""
    by_week: list[Row]
    largest_winners: list[Winner]
    other_assets: list[OtherAsset]
    as_it_was: AsItWas
    budget_used: int | None
    """What the simulation has counted against the campaign's budget; null without one."""


class SimulationView(Struct, frozen=True):
    """A simulation and how far it is. The report comes with `done`."""

    id: str
    campaign_id: str
    version: int
    """Of the campaign; 0 is one that is not saved."""
    status: Status
    occurred_from: str | None
    occurred_before: str | None
    ignore_dates: bool
    unit_cost: str
    events_total: int | None
    """Null until they are counted."""
    events_done: int
    at: str | None
    """Up to where it has come in the past."""
    created_at: str
    ended_at: str | None
    expires_at: str | None
    error: str | None
    report: Report | None


# --- stored ---------------------------------------------------------------------------------------------------------


class SimulationTally(Struct, kw_only=True, omit_defaults=True):
    """What was paid, being added up."""

    awards: int = 0
    members: int = 0
    awarded: int = 0
    taken_back: int = 0


class Part(Struct, kw_only=True, omit_defaults=True):
    """A row, being added up: what the campaign and all campaigns of its asset pay, simulated and really."""

    events: int = 0
    tallies: list[SimulationTally] = field(
        default_factory=lambda: [SimulationTally(), SimulationTally(), SimulationTally(), SimulationTally()]
    )
    """Of the campaign simulated and really, of all of its asset simulated and really."""


class Sums(Struct, kw_only=True, omit_defaults=True):
    """Everything that is added up; its size is bounded whatever the events are."""

    total: Part = field(default_factory=Part)
    tiers: dict[str, Part] = {}
    segments: dict[str, Part] = {}
    weeks: dict[str, Part] = {}
    other_assets: dict[str, list[int]] = {}
    """By asset: simulated, real."""
    without_inputs: int = 0
    version_missing: int = 0
    member_erased: int = 0


class Use(Struct, kw_only=True, omit_defaults=True):
    """What is counted against a cap or a budget."""

    real: int = 0
    """When somebody last looked."""
    moved: int = 0
    """What the simulation has counted more than reality, or less."""
    own: int = 0
    """What the simulation has counted."""


class LotDifference(Struct, kw_only=True, omit_defaults=True):
    """Value of certain dates that a simulated wallet holds more than the real one, or less."""

    amount: int
    available_at: int | None = None
    expires_at: int | None = None


class SimulatedMember(Struct, kw_only=True, omit_defaults=True):
    """How a member's simulated world differs from the real one, and what they have got in both."""

    id: str = field(name="_id")
    """`{simulation}/{member}`"""
    wallets: dict[str, AwardWallet] = {}
    """The real ones, when somebody last looked."""
    changes: dict[str, list[LotDifference]] = {}
    """By asset."""
    used: dict[str, Use] = {}
    """By account: caps of this member."""
    qualifying: dict[str, dict[str, int]] = {}
    """By asset and month: what counts for the tier more than it really did, or less."""
    achieved: dict[str, AchievementProgress] = {}
    """By campaign: how far they are with its achievement, where that is otherwise than really."""
    got: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """From the campaign simulated and really, from all of its asset simulated and really."""
    seen: dict[str, str] = {}
    """In which rows the member is counted; of weeks only the newest, since they come in their order."""


class SimulatedPurchase(Struct, kw_only=True, omit_defaults=True):
    """What a purchase that is refunded has earned in the simulation."""

    id: str = field(name="_id")
    """`{simulation}/{event}`"""
    awards: list[Award]
    due: dict[str, int] = {}
    """By campaign: what refunds have made its award smaller by, more than they really have, or less."""


class Position(Struct, frozen=True):
    """After all events of one moment that were recorded at one moment."""

    occurred_at: int
    recorded_at: int


class Simulation(Struct, frozen=True, kw_only=True):
    """A simulation as stored, with all that it takes to go on where it stands."""

    id: str = field(name="_id")
    campaign_id: str
    saved: bool
    """Whether the campaign is a saved version."""
    campaign: Campaign
    occurred_from: int | None = None
    occurred_before: int | None = None
    ignore_dates: bool = False
    unit_cost: str = "1"
    created_at: int
    created_by: str
    status: Status = "waiting"
    lane: int | None = None
    """Which of the workers' lanes has it; None when nothing is left to do."""
    tries: int = 0
    """How often it was taken up since it last came further."""
    page: int = 0
    """How often it came further: whoever was slower than another worker finds it changed, and writes nothing."""
    total: int | None = None
    done: int = 0
    position: Position | None = None
    sums: Sums = field(default_factory=Sums)
    budgets: dict[str, Use] = {}
    """By account."""
    ended_at: int | None = None
    expires_at: datetime | None = None
    error: str | None = None
    report: Report | None = None


def view_simulation(stored: Simulation) -> SimulationView:
    return SimulationView(
        id=stored.id,
        campaign_id=stored.campaign_id,
        version=stored.campaign.version if stored.saved else 0,
        status=stored.status,
        occurred_from=_time(stored.occurred_from),
        occurred_before=_time(stored.occurred_before),
        ignore_dates=stored.ignore_dates,
        unit_cost=stored.unit_cost,
        events_total=stored.total,
        events_done=stored.done,
        at=None if stored.position is None else _time(stored.position.occurred_at),
        created_at=rfc3339(stored.created_at),
        ended_at=_time(stored.ended_at),
        expires_at=None
        if stored.expires_at is None
        else stored.expires_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        error=stored.error,
        report=stored.report,
    )


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
