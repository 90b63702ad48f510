"""Wire structs of the report on members."""

from msgspec import Struct, field

from guerdon.reports.models import Day, Grouping, ReportHead, ReportQuery


class MembersReportQuery(ReportQuery, frozen=True, kw_only=True):
    """Parameters of the report on members."""

    starts: Day | None = field(name="from", default=None)
    """First day: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default the first day of the month of the last day."""
    ends: Day | None = field(name="to", default=None)
    """Day after the last one: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default tomorrow."""

    @property
    def group(self) -> Grouping:
        """Period of a row. Purchases of a member are kept by month."""
        return "month"


class MembersRow(Struct, frozen=True, kw_only=True):
    """Members with a purchase in one month. A month is whole, also at the ends of the range."""

    period: str
    """Month, such as `2026-11`."""
    buyers: int
    """Members with at least one purchase in the month: `new` plus `returning`."""
    new: int
    """Members whose first purchase was in the month."""
    returning: int
    """Members with a purchase in the month and one in an earlier month."""


class ActiveMembers(Struct, frozen=True, kw_only=True):
    """Members with at least one recorded event in the last days, counted back from now."""

    days_30: int
    """In the last 30 days."""
    days_90: int
    """In the last 90 days."""
    days_365: int
    """In the last 365 days."""


class MembersCohort(Struct, frozen=True, kw_only=True):
    """Members whose first purchase was in one month, and how many of them bought again."""

    first_month: str
    """Month of the first purchase."""
    members: int
    """Number of members of the cohort."""
    counts: list[int]
    """Members with at least one purchase, by months after the first: the first number is the month itself, the last one the present month."""
    shares: list[float]
    """`counts` divided by `members`."""


class TierMembers(Struct, frozen=True, kw_only=True):
    """Members of one tier."""

    tier: str
    """Code of the tier."""
    members: int
    """Members who had the tier at the end of the range, or have it now."""


class TierMove(Struct, frozen=True, kw_only=True):
    """Members who changed from one tier to another. A member who changed twice counts twice."""

    before: str | None = field(name="from")
    """Code of the tier before. Null: no tier."""
    after: str | None = field(name="to")
    """Code of the tier after. Null: no tier."""
    members: int
    """Number of changes on the days of the range."""


class MembersReport(ReportHead, frozen=True, kw_only=True):
    """Members by month, their cohorts, and their tiers."""

    rows: list[MembersRow]
    """One row per month of the range, oldest first."""
    active: ActiveMembers
    """Members who are active now."""
    cohorts: list[MembersCohort]
    """Cohorts whose first month is in the range, oldest first. Months without a new member have none."""
    tiers: list[TierMembers]
    """Members of each tier, lowest first; tiers that are no longer in force come last, if they have members."""
    tier_changes: list[TierMove]
    """Matrix of the changes of tier in the range."""
