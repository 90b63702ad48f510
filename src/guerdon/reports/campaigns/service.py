"""Reports on campaigns. Decisions come from the views, budgets from the accounts of the ledger that count them."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

from guerdon.campaigns.models import in_force
from guerdon.campaigns.service import Campaigns
from guerdon.campaigns.usage import CampaignUsages
from guerdon.database import Document
from guerdon.errors import NotFound
from guerdon.money import is_currency
from guerdon.report_settings.service import ReportSettingsService
from guerdon.reports.campaigns.figures import PACE_DAYS, PointCost, budget_of, figures_of, tallies, time_share
from guerdon.reports.campaigns.models import (
    CampaignPeriodRow,
    CampaignReport,
    CampaignReportQuery,
    CampaignRow,
    CampaignsReport,
    CampaignsReportQuery,
    CampaignVersionRow,
)
from guerdon.reports.frame import ReportFrame
from guerdon.reports.periods import DayRange, name_of
from guerdon.reports.reading import Snapshot
from guerdon.views.models import CAMPAIGN_MEMBERS, COHORTS, DAYS, DECISIONS

ROWS_MAX = 1000
"""Maximum number of campaigns of a report."""
CostPerPoint = Callable[[str], Awaitable[PointCost | None]]
"""Returns the cost of one minor unit of an asset, or None if it has none."""
_KEPT = ["redeemed", "expired"]


async def face_cost(asset: str) -> PointCost | None:
    """Return the cost of money, which is itself. Points have no cost without a setting."""
    return PointCost(asset, Fraction(1)) if is_currency(asset) else None


def costs_of(settings: ReportSettingsService) -> CostPerPoint:
    """Return the costs of the settings that apply to the present month. Money without settings costs itself."""

    async def cost_of(asset: str) -> PointCost | None:
        try:
            found = await settings.get_settings(asset)
        except NotFound:
            return await face_cost(asset)
        return PointCost(found.currency, found.cost)

    return cost_of


class CampaignReports:
    """The report on all campaigns, and that on one."""

    def __init__(self, frame: ReportFrame, campaigns: Campaigns, usages: CampaignUsages, cost_of: CostPerPoint = face_cost) -> None:
        self._frame = frame
        self._campaigns = campaigns
        self._usages = usages
        self._cost_of = cost_of

    async def campaigns(self, query: CampaignsReportQuery) -> CampaignsReport:
        """Return all campaigns that were ever active, newest first.

        Raises:
            Validation: The range is not acceptable.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        days = self._frame.range_of(query)
        stored = await self._campaigns.list_past_drafts(query.status, ROWS_MAX + 1)
        now_ms = self._frame.clock.now_ms()
        shown = stored[:ROWS_MAX]
        used = await self._usages.budgets_used(shown, now_ms)
        ids = [campaign.id for campaign in shown]
        async with self._frame.open("campaigns", days=days, wait_for=query.wait_for) as report:
            decisions = await _decisions(report.snapshot, ids, days, "campaign")
            value = await _value(report.snapshot, ids, days, "campaign")
            members, paces = await _members(report.snapshot, ids), await self._paces(report.snapshot, ids)
        found = tallies(decisions, value, ("campaign", "campaign"))
        costs = {asset: await self._cost_of(asset) for asset in {in_force(campaign, now_ms).asset for campaign in shown}}
        scales = {asset: await self._frame.scale_of(asset) for asset in costs}
        rows: list[CampaignRow] = []
        for each in shown:
            campaign = in_force(each, now_ms)
            budget = budget_of(campaign, used.get(each.id), paces.get(each.id, 0), now_ms, self._frame.today)
            rows.append(
                CampaignRow(
                    campaign=each.id,
                    name=campaign.name,
                    status=each.status,
                    version=campaign.version,
                    asset=campaign.asset,
                    scale=scales[campaign.asset],
                    members=members.get(each.id, 0),
                    budget=campaign.budget,
                    budget_used=None if budget is None else budget.used,
                    budget_left=None if budget is None else budget.left,
                    time_share=time_share(campaign, now_ms),
                    runs_out_on=None if budget is None else budget.runs_out_on,
                    **found[each.id].figures(costs[campaign.asset]),
                )
            )
        return CampaignsReport(**report.head, rows=rows, complete=len(stored) <= ROWS_MAX)

    async def campaign(self, campaign_id: str, query: CampaignReportQuery) -> CampaignReport:
        """Return one campaign by period and by version.

        Raises:
            NotFound: The campaign does not exist.
            Validation: The range is not acceptable.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        days = self._frame.range_of(query)
        stored, now_ms = await self._campaigns.get_campaign(campaign_id), self._frame.clock.now_ms()
        campaign, used = in_force(stored, now_ms), await self._usages.budgets_used([stored], now_ms)
        cost = await self._cost_of(campaign.asset)
        async with self._frame.open("campaigns", asset=campaign.asset, days=days, wait_for=query.wait_for) as report:
            decisions = await _decisions(report.snapshot, [campaign_id], days, "day", "campaign_version")
            value = await _value(report.snapshot, [campaign_id], days, "month", "campaign_version")
            members, paces = await _members(report.snapshot, [campaign_id]), await self._paces(report.snapshot, [campaign_id])
        return CampaignReport(
            **report.head,
            campaign=campaign_id,
            name=campaign.name,
            status=stored.status,
            version=campaign.version,
            members=members.get(campaign_id, 0),
            budget=budget_of(campaign, used.get(campaign_id), paces.get(campaign_id, 0), now_ms, self._frame.today),
            rows=_period_rows(decisions, value, days, cost),
            total=figures_of(tallies(_as_one(decisions), _as_one(value), ("all", "all"))[True], cost),
            versions=[
                CampaignVersionRow(version=version, **tally.figures(cost))
                for version, tally in sorted(tallies(decisions, value, ("campaign_version", "campaign_version")).items())
            ],
        )

    async def _paces(self, snapshot: Snapshot, ids: list[str]) -> dict[str, int]:
        """Return the points that each campaign has paid in the last days, by the time of the entry, less what was taken back."""
        today = self._frame.today
        recent = {"$gte": (today - timedelta(days=PACE_DAYS - 1)).isoformat(), "$lte": today.isoformat()}
        where = {"campaign": {"$in": ids}, "day": recent, "flow": {"$in": ["earned", "clawed_back"]}}
        return {row["campaign"]: row["amount"] for row in await snapshot.sums(DAYS, where, ("campaign",))}


async def _decisions(snapshot: Snapshot, ids: list[str], days: DayRange, *by: str) -> list[Document]:
    where = {"campaign": {"$in": ids}, "day": {"$gte": days.first.isoformat(), "$lt": days.after.isoformat()}}
    return await snapshot.sums(DECISIONS, where, (*by, "outcome", "currency"))


async def _value(snapshot: Snapshot, ids: list[str], days: DayRange, *by: str) -> list[Document]:
    """Return what was redeemed and expired in the calendar months of a range."""
    if days.first == days.after:
        return []
    last = days.after - timedelta(days=1)
    months = {"$gte": name_of(days.first, "month"), "$lte": name_of(last, "month")}
    where = {"campaign": {"$in": ids}, "move": {"$in": _KEPT}, "month": months}
    return await snapshot.sums(COHORTS, where, (*by, "move"))


async def _members(snapshot: Snapshot, ids: list[str]) -> dict[str, int]:
    rows = await snapshot.sums(CAMPAIGN_MEMBERS, {"campaign": {"$in": ids}}, ("campaign",))
    return {row["campaign"]: row["members"] for row in rows}


def _period_rows(
    decisions: Sequence[Document], value: Sequence[Document], days: DayRange, cost: PointCost | None
) -> list[CampaignPeriodRow]:
    """Return the periods of a range in order. Value is known by month only."""
    named = [{**row, "period": row["day"] if days.is_by_day else row["day"][:7]} for row in decisions]
    found = tallies(named, [] if days.is_by_day else value, ("period", "month"))
    return [
        CampaignPeriodRow(period=period, **found[period].figures(cost, with_value=not days.is_by_day)) for period in days.periods
    ]


def _as_one(rows: Sequence[Document]) -> list[dict[str, Any]]:
    return [{**row, "all": True} for row in rows]
