"""Wire structs of the reports on campaigns. Amounts of points are minor units of the campaign's asset."""

from msgspec import Struct, field

from guerdon.reports.models import Day, Grouping, RangeQuery, ReportHead, ReportQuery
from guerdon.types import DefinitionStatus


class CampaignsReportQuery(ReportQuery, frozen=True, kw_only=True):
    """Parameters of the report on all campaigns."""

    starts: Day | None = field(name="from", default=None)
    """First day: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default the first day of the month of the last day."""
    ends: Day | None = field(name="to", default=None)
    """Day after the last one: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default tomorrow."""
    status: DefinitionStatus | None = None
    """Only campaigns with this status. By default all that were ever active."""

    @property
    def group(self) -> Grouping:
        """Period of the range: the report has no periods, so months allow the longest range."""
        return "month"


class CampaignReportQuery(RangeQuery, frozen=True, kw_only=True):
    """Parameters of the report on one campaign."""


class CampaignFigures(Struct, frozen=True, kw_only=True):
    """Decisions and awards of a campaign in a range, by the day of the event; a void counts on its own day."""

    evaluated: int
    """Decisions on events: `matched` plus `not_matched`."""
    matched: int
    """Decisions on events that met the conditions: `awarded`, `capped` and `refused`."""
    awarded: int
    """Events that were awarded."""
    capped: int
    """Events that met the conditions, of which a cap or the budget left nothing."""
    refused: int
    """Events that met the conditions and were not awarded for another reason, such as a stacking group or a frozen wallet."""
    not_matched: int
    """Events that did not meet the conditions."""
    points_awarded: int
    """Points of the awards."""
    points_clawed_back: int
    """Points that refunds and voids took back. Positive."""
    points: int
    """`points_awarded` less `points_clawed_back`."""
    redeemed: int | None
    """Points of this campaign that were spent, less what returned, in the calendar months of the range: first in, first out. Null for days."""
    expired: int | None
    """Points of this campaign that expired in the calendar months of the range. Null for days."""
    revenue: dict[str, int]
    """By currency: amount of the awarded purchases less their refunds, in minor units. Several campaigns may count the same purchase."""
    cost_currency: str | None
    """Currency of the costs. Null without a cost per point."""
    cost_at_issue: int | None
    """Cost of `points`, in minor units of `cost_currency`. Null without a cost per point."""
    cost_used: int | None
    """Cost of `redeemed`, in minor units of `cost_currency`. Null without a cost per point, and for days."""
    cost_share: float | None
    """`cost_at_issue` divided by the revenue in `cost_currency`. It is no return on investment: that needs a control group. Null without both."""


class CampaignBudget(Struct, frozen=True, kw_only=True):
    """Budget of a campaign now, and its pace."""

    limit: int
    """Maximum that the campaign pays in total."""
    used: int
    """Points that were awarded and not taken back, over all versions, as the ledger has counted them."""
    left: int
    """Points that can still be awarded."""
    used_share: float
    """`used` divided by `limit`."""
    time_share: float | None
    """Share of the time from the start of the campaign, or its creation, to its end that has passed. Null without an end."""
    pace_per_day: float
    """Points awarded less those taken back in the last 7 days, today included, divided by 7."""
    runs_out_on: str | None
    """Day on which the budget is used up at this pace; today if nothing is left. Null if it does not run out."""


class CampaignRow(CampaignFigures, frozen=True, kw_only=True):
    """One campaign in a range."""

    campaign: str
    """Id of the campaign."""
    name: str
    """Name of the version in force."""
    status: DefinitionStatus
    """Status of the campaign."""
    version: int
    """Number of the version in force."""
    asset: str
    """Code of the asset that is paid."""
    scale: int
    """Decimal places of the asset."""
    members: int
    """Members whose events the campaign has awarded at least once, over all time."""
    budget: int | None
    """Maximum that the campaign pays in total. Null: no budget."""
    budget_used: int | None
    """Used part of the budget, over all versions, now. Null: no budget."""
    budget_left: int | None
    """Points that can still be awarded, now. Null: no budget."""
    time_share: float | None
    """Share of the time from the start of the campaign to its end that has passed. Null without an end."""
    runs_out_on: str | None
    """Day on which the budget is used up at the pace of the last 7 days. Null if it does not run out."""


class CampaignsReport(ReportHead, frozen=True, kw_only=True):
    """All campaigns in a range, newest first."""

    rows: list[CampaignRow]
    """One row for each campaign that was ever active, also if nothing happened in the range."""
    complete: bool
    """False if there are more campaigns than rows; filter by `status` then."""


class CampaignPeriodRow(CampaignFigures, frozen=True, kw_only=True):
    """One period of a campaign."""

    period: str
    """Month (`2026-11`) or day (`2026-11-22`). At the ends of the range a month has only the days of the range, except for `redeemed` and `expired`."""


class CampaignVersionRow(CampaignFigures, frozen=True, kw_only=True):
    """One version of a campaign in the range."""

    version: int
    """Number of the version that decided."""


class CampaignReport(ReportHead, frozen=True, kw_only=True):
    """One campaign in a range, by period and by version."""

    campaign: str
    """Id of the campaign."""
    name: str
    """Name of the version in force."""
    status: DefinitionStatus
    """Status of the campaign."""
    version: int
    """Number of the version in force."""
    members: int
    """Members whose events the campaign has awarded at least once, over all time."""
    budget: CampaignBudget | None
    """Budget now. Null: the campaign has no budget."""
    rows: list[CampaignPeriodRow]
    """One row per period, oldest first."""
    total: CampaignFigures
    """The whole range."""
    versions: list[CampaignVersionRow]
    """One row per version that decided in the range, or whose points were redeemed or expired in it, oldest first."""
