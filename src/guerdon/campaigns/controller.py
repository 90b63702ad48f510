"""Routes of campaigns."""

from typing import Any

from msgspec.structs import replace

from guerdon.campaigns.models import (
    Campaign,
    CampaignApprove,
    CampaignCreate,
    CampaignPage,
    CampaignQuery,
    CampaignView,
    view_campaign,
)
from guerdon.campaigns.service import Campaigns
from guerdon.campaigns.usage import CampaignUsageQuery, CampaignUsages, CampaignUsageView
from guerdon.changes import changed_fields
from guerdon.clock import Clock
from guerdon.errors import ApprovalMissing, InvalidState, NotFound, Validation
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.types import DefinitionStatus

_CAMPAIGN = {
    "name": "1 point per pound",
    "asset": "PTS",
    "event_types": ["purchase", "refund"],
    "condition": "event.amount > 0",
    "award": {"type": "per_amount", "points": 1, "per": 100, "rounding": "floor"},
    "clawback": "debt",
}
_NOT_COMPARED = (Campaign.NOT_CONTENT - {"effective_at"}) | {"_id", "version", "created_at", "created_by", "bounded"}
"""Fields that differ between any two versions, or belong to none."""


class CampaignsResource:
    """`/v1/campaigns`"""

    def __init__(self, campaigns: Campaigns, usages: CampaignUsages, clock: Clock) -> None:
        self._campaigns = campaigns
        self._usages = usages
        self._clock = clock

    async def _views(self, *campaigns: Campaign) -> list[CampaignView]:
        now_ms = self._clock.now_ms()
        used = await self._usages.budgets_used(campaigns, now_ms)
        return [view_campaign(campaign, now_ms, used.get(campaign.id)) for campaign in campaigns]

    async def _send(self, resp: Response, campaign: Campaign) -> None:
        [view] = await self._views(campaign)
        send(resp, view)

    @operation(
        "createCampaign",
        scope("campaigns:write"),
        tag="campaigns",
        body=CampaignCreate,
        answers={201: CampaignView},
        errors=(Validation,),
        example=_CAMPAIGN,
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a campaign as a draft. Its expressions are compiled and type-checked."""
        body, _ = await read(req, CampaignCreate)
        warnings = await self._campaigns.find_warnings(body)
        campaign = await self._campaigns.create(actor_of(req), body)
        note(req, campaign=campaign.id)
        [view] = await self._views(campaign)
        send(resp, replace(view, warnings=warnings), 201)

    @operation("listCampaigns", scope("campaigns:read"), tag="campaigns", query=CampaignQuery, answers={200: CampaignPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List campaigns, newest first."""
        campaigns, cursor = await self._campaigns.list_campaigns(read_query(req, CampaignQuery))
        send(resp, CampaignPage(await self._views(*campaigns), cursor))

    @operation("getCampaign", scope("campaigns:read"), tag="campaigns", answers={200: CampaignView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Return the version of a campaign that is in force."""
        await self._send(resp, await self._campaigns.get_campaign(campaign_id))

    @operation(
        "replaceCampaign",
        scope("campaigns:write"),
        tag="campaigns",
        body=CampaignCreate,
        answers={200: CampaignView},
        errors=(NotFound, InvalidState),
        example=_CAMPAIGN,
    )
    async def on_put_one(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Create a new version, which evaluates events from now on or from `effective_at`. Awards that were paid keep their version."""
        body, _ = await read(req, CampaignCreate)
        warnings = await self._campaigns.find_warnings(body)
        change = await self._campaigns.replace(actor_of(req), campaign_id, body)
        version = change.after.coming or change.after
        note(req, version=str(version.version), **changed_fields(change.before, version, left_out=_NOT_COMPARED))
        [view] = await self._views(change.after)
        send(resp, replace(view, warnings=warnings))

    @operation(
        "approveCampaign",
        scope("campaigns:write"),
        tag="campaigns",
        body=CampaignApprove,
        answers={200: CampaignView},
        errors=(NotFound, InvalidState),
        example={"version": 1},
    )
    async def on_post_approve(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Approve a version that another person created. Service keys cannot approve."""
        body, _ = await read(req, CampaignApprove)
        note(req, version=str(body.version))
        await self._send(resp, await self._campaigns.approve(actor_of(req), campaign_id, body.version))

    @operation(
        "activateCampaign",
        scope("campaigns:write"),
        tag="campaigns",
        answers={200: CampaignView},
        errors=(NotFound, InvalidState, ApprovalMissing),
    )
    async def on_post_activate(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Activate a campaign, so that it evaluates events."""
        await self._set_status(req, resp, campaign_id, "active")

    @operation(
        "pauseCampaign", scope("campaigns:write"), tag="campaigns", answers={200: CampaignView}, errors=(NotFound, InvalidState)
    )
    async def on_post_pause(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Pause a campaign, so that it evaluates no events."""
        await self._set_status(req, resp, campaign_id, "paused")

    @operation(
        "endCampaign", scope("campaigns:write"), tag="campaigns", answers={200: CampaignView}, errors=(NotFound, InvalidState)
    )
    async def on_post_end(self, req: Request, resp: Response, campaign_id: str) -> None:
        """End a campaign permanently. Awards that were paid stay."""
        await self._set_status(req, resp, campaign_id, "ended")

    async def _set_status(self, req: Request, resp: Response, campaign_id: str, status: DefinitionStatus) -> None:
        change = await self._campaigns.set_status(campaign_id, status)
        note(req, before=change.before.status, after=change.after.status)
        await self._send(resp, change.after)

    @operation(
        "getCampaignUsage",
        scope("campaigns:read"),
        tag="campaigns",
        query=CampaignUsageQuery,
        answers={200: CampaignUsageView},
        errors=(NotFound,),
    )
    async def on_get_usage(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Return how much of a campaign's budget is used and, with `member_id`, how much of its caps one member has used."""
        send(resp, await self._usages.get_usage(campaign_id, read_query(req, CampaignUsageQuery)))


def routes(campaigns: Campaigns, usages: CampaignUsages, clock: Clock) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of campaigns."""
    campaign = CampaignsResource(campaigns, usages, clock)
    return [
        ("/v1/campaigns", campaign, None),
        ("/v1/campaigns/{campaign_id}", campaign, "one"),
        ("/v1/campaigns/{campaign_id}/approve", campaign, "approve"),
        ("/v1/campaigns/{campaign_id}/activate", campaign, "activate"),
        ("/v1/campaigns/{campaign_id}/pause", campaign, "pause"),
        ("/v1/campaigns/{campaign_id}/end", campaign, "end"),
        ("/v1/campaigns/{campaign_id}/usage", campaign, "usage"),
    ]
