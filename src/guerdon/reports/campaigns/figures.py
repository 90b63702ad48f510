"""Figures of campaigns from the rows of the views. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

from guerdon.campaigns.models import Campaign
from guerdon.reports.campaigns.models import CampaignBudget, CampaignFigures
from guerdon.reports.periods import LAST_DAY

PACE_DAYS = 7
"""Days over which the pace of a budget is measured, today included."""
MATCHED = ("awarded", "capped", "refused")


class PointCost(NamedTuple):
    """Cost of one minor unit of an asset when it is redeemed."""

    currency: str
    cost: Fraction
    """In minor units of the currency."""

    def of(self, points: int) -> int:
        """Return the cost of points, rounded half up to minor units."""
        doubled = 2 * self.cost * points + 1
        return int(doubled.numerator // (2 * doubled.denominator))


class CampaignTally:
    """Sums of the decisions and of the movements of value of one campaign, one of its versions, or one period."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.awarded = 0
        self.taken_back = 0
        self.redeemed = 0
        self.expired = 0
        self.revenue: defaultdict[str, int] = defaultdict(int)

    def add_decisions(self, row: Mapping[str, Any]) -> None:
        """Add a row of `DECISIONS`."""
        outcome, currency = row["outcome"], row["currency"]
        self.counts[outcome] += row["count"]
        if outcome == "awarded":
            self.awarded += row["amount"]
        elif outcome == "taken_back":
            self.taken_back -= row["amount"]
        if outcome in ("awarded", "taken_back") and currency:
            self.revenue[currency] += row["revenue"]

    def add_value(self, row: Mapping[str, Any]) -> None:
        """Add a row of `COHORTS`."""
        if row["move"] == "redeemed":
            self.redeemed -= row["amount"]
        elif row["move"] == "expired":
            self.expired -= row["amount"]

    def figures(self, cost: PointCost | None, *, with_value: bool = True) -> dict[str, Any]:
        """Return the fields of `CampaignFigures`. Without `with_value`, what is only known by month is null."""
        points, redeemed = self.awarded - self.taken_back, self.redeemed if with_value else None
        revenue = dict(sorted(self.revenue.items()))
        base = 0 if cost is None else revenue.get(cost.currency, 0)
        at_issue = None if cost is None else cost.of(points)
        matched = sum(self.counts[outcome] for outcome in MATCHED)
        return {
            "evaluated": matched + self.counts["not_matched"],
            "matched": matched,
            **{outcome: self.counts[outcome] for outcome in (*MATCHED, "not_matched")},
            "points_awarded": self.awarded,
            "points_clawed_back": self.taken_back,
            "points": points,
            "redeemed": redeemed,
            "expired": self.expired if with_value else None,
            "revenue": revenue,
            "cost_currency": None if cost is None else cost.currency,
            "cost_at_issue": at_issue,
            "cost_used": None if cost is None or redeemed is None else cost.of(redeemed),
            "cost_share": None if at_issue is None or base <= 0 else round(at_issue / base, 6),
        }


Rows = Iterable[Mapping[str, Any]]


def tallies(decisions: Rows, value: Rows, names: tuple[str, str]) -> defaultdict[Any, CampaignTally]:
    """Return the sums by a field: `names` are its names in the rows of the decisions and of the value."""
    found: defaultdict[Any, CampaignTally] = defaultdict(CampaignTally)
    for row in decisions:
        found[row[names[0]]].add_decisions(row)
    for row in value:
        found[row[names[1]]].add_value(row)
    return found


def figures_of(tally: CampaignTally, cost: PointCost | None) -> CampaignFigures:
    return CampaignFigures(**tally.figures(cost))


def budget_of(campaign: Campaign, used: int | None, pace: int, now_ms: int, today: date) -> CampaignBudget | None:
    """Return the budget of a campaign, or None without one. `pace` is the sum of the last `PACE_DAYS` days."""
    if campaign.budget is None:
        return None
    used = used or 0
    left = max(0, campaign.budget - used)
    return CampaignBudget(
        limit=campaign.budget,
        used=used,
        left=left,
        used_share=round(used / campaign.budget, 6),
        time_share=time_share(campaign, now_ms),
        pace_per_day=round(pace / PACE_DAYS, 6),
        runs_out_on=_runs_out_on(left, pace, today),
    )


def time_share(campaign: Campaign, now_ms: int) -> float | None:
    """Return the share of a campaign's time that has passed, or None without an end."""
    starts_at = campaign.created_at if campaign.starts_at is None else campaign.starts_at
    if campaign.ends_at is None:
        return None
    whole = campaign.ends_at - starts_at
    return 1.0 if whole <= 0 else round(min(1.0, max(0.0, (now_ms - starts_at) / whole)), 6)


def _runs_out_on(left: int, pace: int, today: date) -> str | None:
    """Return the day on which `left` is used up if `pace` is used in `PACE_DAYS` days."""
    if left == 0:
        return today.isoformat()
    if pace <= 0:
        return None
    days = -(-left * PACE_DAYS // pace)
    return (today + timedelta(days=days)).isoformat() if days <= (LAST_DAY - today).days else None
