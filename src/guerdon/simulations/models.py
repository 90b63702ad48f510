"""Wire and stored models of simulations."""

from datetime import datetime
from typing import Literal

from msgspec import Struct, field
from pymongo import IndexModel

from guerdon.campaigns.domain import AchievementProgress, Award, AwardWallet
from guerdon.campaigns.models import Campaign, CampaignCreate, Decimal
from guerdon.clock import optional_rfc3339, rfc3339, to_ms

SIMULATIONS, SIMULATED_MEMBERS, SIMULATED_PURCHASES = "simulations", "simulated_members", "simulated_purchases"
INDEXES: dict[str, list[IndexModel]] = {
    SIMULATIONS: [
        # Partial: workers search every second for the few simulations with work left.
        IndexModel([("lane", 1), ("_id", 1)], name="open", partialFilterExpression={"lane": {"$gte": 0}}),
        IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0),
    ],
    # The working data of a simulation is found by the prefix `{simulation}/` of `_id`.
    SIMULATED_MEMBERS: [],
    SIMULATED_PURCHASES: [],
}
LANES = 2
"""Maximum number of simulations that run at the same time, independent of the number of workers."""
FREE = 0
"""Value of `lane` for a simulation that no worker has started."""
OPEN_MAX = 20
"""Maximum number of simulations that wait or run."""
KEPT_DAYS = 30
"""Days for which a simulation is kept after its end."""
ROWS_MAX, WINNERS_MAX = 530, 20
"""Maximum number of rows of a breakdown (the weeks of ten years; further rows are added up in one row) and of listed winners."""

Status = Literal["waiting", "running", "done", "cancelled", "failed"]


# --- wire -----------------------------------------------------------------------------------------------------------


class SimulationCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Request to simulate a campaign on recorded events."""

    occurred_from: datetime | None = None
    """Start of the window: events that occurred at or after this time, RFC 3339 with an offset. By default there is no start."""
    occurred_before: datetime | None = None
    """End of the window: events that occurred before this time, RFC 3339 with an offset. By default there is no end."""
    campaign: CampaignCreate | None = None
    """Campaign to try instead of the saved one. It is not saved."""
    ignore_dates: bool = False
    """True to ignore `starts_at` and `ends_at` of the campaign, to try a future campaign on past events."""
    unit_cost: Decimal = "1"
    """Cost of one minor unit of the asset, in minor units of money."""


class Figures(Struct, frozen=True):
    """Totals of awards."""

    awards: int = 0
    """Number of awards."""
    members: int = 0
    """Number of members with at least one award."""
    awarded: int = 0
    """Amount awarded, in minor units of the asset."""
    taken_back: int = 0
    """Amount taken back by refunds, in minor units of the asset."""
    points: int = 0
    """`awarded` minus `taken_back`."""
    cost: int = 0
    """`points` times `unit_cost`, in minor units of money."""


class Comparison(Struct, frozen=True):
    """Simulated and real figures."""

    simulated: Figures
    """Figures of the simulation."""
    real: Figures
    """Figures of the recorded events."""
    difference: Figures
    """`simulated` minus `real`."""


class Row(Struct, frozen=True):
    """Figures of one group of events."""

    name: str
    """Name of the group; `others` for the sum of all groups beyond the first 530."""
    events: int
    """Number of events in the group. By tier, the real tier of the member counts."""
    campaign: Comparison
    """Figures of the simulated campaign."""
    programme: Comparison
    """Figures of all campaigns that pay in the same asset."""


class Winner(Struct, frozen=True):
    """Totals of one member, in minor units of the asset."""

    member_id: str
    """Id of the member."""
    campaign_simulated: int
    """Points from the campaign in the simulation."""
    campaign_real: int
    """Points from the campaign in the recorded events."""
    programme_simulated: int
    """Points from all campaigns of the asset in the simulation."""
    programme_real: int
    """Points from all campaigns of the asset in the recorded events."""


class OtherAsset(Struct, frozen=True):
    """Totals in another asset, which change if the campaign replaces other campaigns of its stacking group."""

    asset: str
    """Code of the asset; `others` for the sum of all assets beyond the first 50."""
    simulated: int
    """Points in the simulation, in minor units of the asset."""
    real: int
    """Points in the recorded events, in minor units of the asset."""
    difference: int
    """`simulated` minus `real`."""


class AsItWas(Struct, frozen=True):
    """Numbers of events that cannot be evaluated again. Their recorded result counts on both sides."""

    recorded_without_inputs: int = 0
    """Events recorded by an early version, which did not store the inputs of the evaluation."""
    version_missing: int = 0
    """Events that need a campaign version, a tier set version or a purchase that cannot be read any more."""
    member_erased: int = 0
    """Events of erased members whose profile a campaign reads."""


class Report(Struct, frozen=True):
    """Comparison of the simulation with the recorded events."""

    asset: str
    """Asset of the campaign."""
    events: int
    """Number of events in the window."""
    total: Row
    """Figures of all events."""
    by_tier: list[Row]
    """Figures by the tier of the member when the event occurred. The simulated side uses the simulated tier."""
    by_segment: list[Row]
    """Figures by the segments of the member when the event was recorded; a refund counts in those of its purchase. A member in several
    segments counts in each, so the rows do not add up to the total. `none`: no segment; `unknown`: recorded by an early version."""
    by_week: list[Row]
    """Figures by ISO week in the programme's time zone."""
    largest_winners: list[Winner]
    """Up to 20 members with the most points from the simulated campaign, in descending order."""
    other_assets: list[OtherAsset]
    """Totals of the campaigns that pay in other assets."""
    as_it_was: AsItWas
    """Numbers of events that could not be evaluated again."""
    budget_used: int | None
    """Amount that the simulation counted against the budget of the campaign, in minor units of `asset`; null without a budget."""


class SimulationView(Struct, frozen=True):
    """A simulation, its progress and its report."""

    id: str
    """Id of the simulation."""
    campaign_id: str
    """Id of the campaign."""
    version: int
    """Version of the campaign; 0 for a campaign given in the request."""
    status: Status
    """State of the simulation: `waiting`, `running`, `done`, `cancelled` or `failed`."""
    occurred_from: str | None
    """Start of the window, RFC 3339 in UTC, or null."""
    occurred_before: str | None
    """End of the window, RFC 3339 in UTC, or null."""
    ignore_dates: bool
    """True if `starts_at` and `ends_at` of the campaign are ignored."""
    unit_cost: str
    """Cost of one minor unit of the asset, in minor units of money."""
    events_total: int | None
    """Number of events in the window; null until they are counted."""
    events_done: int
    """Number of events processed."""
    at: str | None
    """Time of the last processed event, RFC 3339 in UTC; null before the first."""
    created_at: str
    """Time of creation, RFC 3339 in UTC."""
    ended_at: str | None
    """Time of the end, RFC 3339 in UTC; null while the simulation waits or runs."""
    expires_at: str | None
    """Time from which the simulation is removed, RFC 3339 in UTC; null while it waits or runs."""
    error: str | None
    """Reason of a failure; null unless `status` is `failed`."""
    report: Report | None
    """Result; null unless `status` is `done`."""


# --- stored ---------------------------------------------------------------------------------------------------------


class SimulationTally(Struct, kw_only=True, omit_defaults=True):
    """Running totals of one column of a row."""

    awards: int = 0
    members: int = 0
    awarded: int = 0
    taken_back: int = 0


class Part(Struct, kw_only=True, omit_defaults=True):
    """Running totals of a row."""

    events: int = 0
    tallies: list[SimulationTally] = field(
        default_factory=lambda: [SimulationTally(), SimulationTally(), SimulationTally(), SimulationTally()]
    )
    """The four columns: campaign simulated, campaign real, all campaigns of its asset simulated, all campaigns of its asset real."""


class Sums(Struct, kw_only=True, omit_defaults=True):
    """Running totals of a simulation. Their size is bounded for any number of events."""

    total: Part = field(default_factory=Part)
    tiers: dict[str, Part] = {}
    segments: dict[str, Part] = {}
    weeks: dict[str, Part] = {}
    other_assets: dict[str, list[int]] = {}
    """By asset: simulated and real total."""
    without_inputs: int = 0
    version_missing: int = 0
    member_erased: int = 0


class Usage(Struct, kw_only=True, omit_defaults=True):
    """Usage of a cap or a budget."""

    real: int = 0
    """Real usage after the last processed event that shows it."""
    moved: int = 0
    """Simulated minus real amounts of the processed events."""
    own: int = 0
    """Usage by the simulation alone."""


class LotDifference(Struct, kw_only=True, omit_defaults=True):
    """Simulated minus real value of the lots with the same dates."""

    amount: int
    available_at: int | None = None
    expires_at: int | None = None


class SimulatedMember(Struct, kw_only=True, omit_defaults=True):
    """Difference between the simulated and the real state of a member, and the member's totals."""

    id: str = field(name="_id")
    """`{simulation}/{member}`"""
    wallets: dict[str, AwardWallet] = {}
    """By asset: the real wallet after the last processed event that shows it."""
    changes: dict[str, list[LotDifference]] = {}
    """By asset: the differences of the lots."""
    used: dict[str, Usage] = {}
    """By account: usage of the member's caps."""
    qualifying: dict[str, dict[str, int]] = {}
    """By asset and month: simulated minus real qualifying points."""
    achieved: dict[str, AchievementProgress] = {}
    """By campaign: simulated progress of the achievement, where it differs from the real one."""
    got: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Points in the four columns of `Part.tallies`."""
    seen: dict[str, str] = {}
    """Rows that count the member. Of the weekly rows only the newest is kept, because events are processed in chronological order."""


class SimulatedPurchase(Struct, kw_only=True, omit_defaults=True):
    """Simulated awards of a refunded purchase."""

    id: str = field(name="_id")
    """`{simulation}/{event}`"""
    awards: list[Award]
    due: dict[str, int] = {}
    """By campaign: simulated minus real amount by which refunds have reduced the award."""
    expired: dict[str, int] = {}
    """By lot name, after the first refund since its expiry: simulated minus real expired value that no refund has counted."""


class Position(Struct, frozen=True):
    """Position after all events with these two times, in milliseconds since the epoch."""

    occurred_at: int
    recorded_at: int


class Simulation(Struct, frozen=True, kw_only=True):
    """A simulation as stored, with the state that a worker needs to resume it."""

    id: str = field(name="_id")
    campaign_id: str
    saved: bool
    """True if the campaign is a saved version."""
    campaign: Campaign
    occurred_from: int | None = None
    occurred_before: int | None = None
    ignore_dates: bool = False
    unit_cost: str = "1"
    created_at: int
    created_by: str
    status: Status = "waiting"
    lane: int | None = None
    """Lane of the workers that runs it, or `FREE`; None when no work is left."""
    tries: int = 0
    """Number of starts since the last saved page."""
    page: int = 0
    """Number of saved pages. Every write requires the number that it read, so that a worker without the lease writes nothing."""
    total: int | None = None
    done: int = 0
    position: Position | None = None
    sums: Sums = field(default_factory=Sums)
    budgets: dict[str, Usage] = {}
    """By account: usage of budgets."""
    ended_at: int | None = None
    expires_at: datetime | None = None
    error: str | None = None
    report: Report | None = None


def view_simulation(stored: Simulation) -> SimulationView:
    """Return the public view of a simulation."""
    return SimulationView(
        id=stored.id,
        campaign_id=stored.campaign_id,
        version=stored.campaign.version if stored.saved else 0,
        status=stored.status,
        occurred_from=optional_rfc3339(stored.occurred_from),
        occurred_before=optional_rfc3339(stored.occurred_before),
        ignore_dates=stored.ignore_dates,
        unit_cost=stored.unit_cost,
        events_total=stored.total,
        events_done=stored.done,
        at=None if stored.position is None else optional_rfc3339(stored.position.occurred_at),
        created_at=rfc3339(stored.created_at),
        ended_at=optional_rfc3339(stored.ended_at),
        expires_at=None if stored.expires_at is None else rfc3339(to_ms(stored.expires_at)),
        error=stored.error,
        report=stored.report,
    )
