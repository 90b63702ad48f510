"""Usage of budgets and caps, from the accounts that count them. It is exact, because these accounts change in the commit of an award."""

from collections.abc import Collection
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from guerdon.calendar import Calendar
from guerdon.campaigns.caps import budget_account, cap_account
from guerdon.campaigns.models import Campaign, Cap, Period, in_force
from guerdon.campaigns.periods import window_ends_at, window_name
from guerdon.campaigns.service import Campaigns
from guerdon.clock import Clock, optional_rfc3339, rfc3339
from guerdon.errors import NotFound
from guerdon.history.models import Moment, moment_ms
from guerdon.ledger.service import Ledger
from guerdon.members.models import NO_MEMBER
from guerdon.members.service import Members
from guerdon.types import MemberId
from guerdon.wallets.assets import Assets


class BudgetUsage(Struct, frozen=True):
    """Usage of a budget, in minor units of the campaign's asset."""

    limit: int
    """Maximum that the campaign pays in total."""
    used: int
    """Amount that was awarded and not taken back."""
    left: int
    """Amount that can still be awarded; 0 if `used` exceeds a limit that was lowered."""


class CapUsage(Struct, frozen=True):
    """A cap, and its usage by one member."""

    scope: Literal["event", "member"]
    """`event`: maximum for one event, which needs no counting. `member`: maximum for one member in each period."""
    period: Period | None
    """Calendar period of a cap of scope `member`. Null for a cap of scope `event`."""
    limit: int
    """Maximum in minor units of the campaign's asset."""
    window: str | None
    """Name of the calendar period at `at`, such as `2026-11` or `2026-W47`. Null for a cap of scope `event`."""
    ends_at: str | None
    """First time after the calendar period, RFC 3339 in UTC. Null for a cap of scope `event` or of the period `ever`."""
    used: int | None
    """Amount that the member was awarded in the period and that was not taken back. Null without `member_id`, and for scope `event`."""
    left: int | None
    """Amount that the member can still be awarded in the period. Null where `used` is."""


class CampaignUsageView(Struct, frozen=True):
    """Usage of the budget and the caps of a campaign, as the ledger has counted it."""

    campaign: str
    """Id of the campaign."""
    version: int
    """Number of the version in force, whose budget and caps are shown. Usage is counted over all versions."""
    asset: str
    """Code of the asset that is paid."""
    scale: int
    """Number of decimal places of the asset: one unit is 10^`scale` minor units."""
    at: str
    """Time whose calendar periods are shown, RFC 3339 in UTC."""
    member_id: str | None
    """Member whose usage of the caps is shown. Null: none was named."""
    budget: BudgetUsage | None
    """Usage of the budget by all members, now. Null: the campaign has no budget."""
    caps: list[CapUsage]
    """Caps of the version, in its order."""


class CampaignUsageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Member and time of the usage."""

    member_id: MemberId | None = None
    """Member whose usage of the caps is shown. For a campaign that pays the referrer, this is the referrer."""
    at: Moment | None = None
    """Time whose calendar periods are shown, RFC 3339 with an offset; now if absent. Caps are counted in the period of the event."""


class CampaignUsages:
    """Queries on the accounts that count caps and budgets."""

    def __init__(self, campaigns: Campaigns, members: Members, ledger: Ledger, *, assets: Assets, clock: Clock) -> None:
        self._campaigns = campaigns
        self._members = members
        self._ledger = ledger
        self._assets = assets
        self._clock = clock

    async def budgets_used(self, campaigns: Collection[Campaign], now_ms: int) -> dict[str, int]:
        """Return the used part of the budget of each campaign that has one at a time, by the id of the campaign."""
        names = {
            campaign.id: budget_account(campaign.id) for campaign in campaigns if in_force(campaign, now_ms).budget is not None
        }
        accounts = await self._ledger.find_accounts(list(names.values())) if names else {}
        return {campaign: accounts[name].balance if name in accounts else 0 for campaign, name in names.items()}

    async def get_usage(self, campaign_id: str, query: CampaignUsageQuery) -> CampaignUsageView:
        """Return the usage of a campaign's budget and, for one member, of its caps.

        Raises:
            NotFound: the campaign or the member does not exist.
            Validation: the time does not exist.
        """
        campaign = in_force(await self._campaigns.get_campaign(campaign_id), self._clock.now_ms())
        at_ms = self._clock.now_ms() if query.at is None else moment_ms(query.at, "at")
        if query.member_id is not None and not await self._members.exists(query.member_id):
            raise NotFound(NO_MEMBER)
        calendar = self._ledger.calendar
        caps = [_cap_usage(cap, at_ms, calendar) for cap in campaign.caps]
        names = [budget_account(campaign.id)] if campaign.budget is not None else []
        if query.member_id is not None:
            names += [cap_account(campaign.id, query.member_id, cap.window) for cap in caps if cap.window is not None]
        found = await self._ledger.find_accounts(names) if names else {}
        used = {name: found[name].balance if name in found else 0 for name in names}
        if query.member_id is not None:
            caps = [
                cap if cap.window is None else _used(cap, used[cap_account(campaign.id, query.member_id, cap.window)])
                for cap in caps
            ]
        await self._assets.exists(campaign.asset)
        return CampaignUsageView(
            campaign=campaign.id,
            version=campaign.version,
            asset=campaign.asset,
            scale=self._assets.scale_of(campaign.asset) or 0,
            at=rfc3339(at_ms),
            member_id=query.member_id,
            budget=None if campaign.budget is None else budget_usage(campaign.budget, used[budget_account(campaign.id)]),
            caps=caps,
        )


def budget_usage(limit: int, used: int) -> BudgetUsage:
    return BudgetUsage(limit, used, max(0, limit - used))


def _cap_usage(cap: Cap, at_ms: int, calendar: Calendar) -> CapUsage:
    """Return a cap without its usage."""
    if cap.scope == "event" or cap.period is None:
        return CapUsage(cap.scope, None, cap.limit, None, None, None, None)
    ends_at = optional_rfc3339(window_ends_at(cap.period, at_ms, calendar))
    return CapUsage(cap.scope, cap.period, cap.limit, window_name(cap.period, at_ms, calendar), ends_at, None, None)


def _used(cap: CapUsage, used: int) -> CapUsage:
    return replace(cap, used=used, left=max(0, cap.limit - used))
