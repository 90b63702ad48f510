"""Routes of events and campaigns."""

from typing import Any

from guerdon.clock import Clock
from guerdon.errors import ApprovalMissing, EventReused, InvalidState, NotFound, Overloaded, Validation
from guerdon.http import BULK_BODY_BYTES_MAX, Request, Response, actor_of, operation, read, read_query, send
from guerdon.rewards.campaign_models import (
    Campaign,
    CampaignApprove,
    CampaignCreate,
    CampaignPage,
    CampaignQuery,
    CampaignView,
    view_campaign,
)
from guerdon.rewards.campaigns import Campaigns
from guerdon.rewards.event_views import EventResults, EventView, view_event, view_result
from guerdon.rewards.models import EventCreate, EventsCreate, RecordedEvent
from guerdon.rewards.replaying import Replay, Replays
from guerdon.rewards.service import Events, shop_event
from guerdon.security import scope

_EVENT = {
    "id": "order-1001",
    "type": "purchase",
    "member": {"external_id": "17850"},
    "occurred_at": "2026-01-31T12:00:00Z",
    "amount": 13912,
    "currency": "GBP",
    "items": [{"sku": "85123A", "quantity": 6, "unit_price": 255, "category": None}],
    "refund_of": None,
    "attributes": {},
}
_CAMPAIGN = {
    "name": "1 point per pound",
    "asset": "PTS",
    "event_types": ["purchase", "refund"],
    "condition": "event.amount > 0",
    "award": {"type": "per_amount", "points": 1, "per": 100, "rounding": "floor"},
    "clawback": "debt",
}


class EventsResource:
    """`/v1/events`"""

    def __init__(self, events: Events, replays: Replays) -> None:
        self._events = events
        self._replays = replays

    @operation(
        "recordEvent",
        scope("events:write"),
        tag="events",
        body=EventCreate,
        answers={201: EventView, 200: EventView},
        errors=(EventReused, NotFound, Overloaded),
        example=_EVENT,
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Record a shop event once and pay what it earns in the same commit. Its id is the key: the same event again answers 200."""
        body, _ = await read(req, EventCreate)
        event, before = await self._events.record(actor_of(req), shop_event(body))
        send(resp, _view(req, event), 200 if before else 201, replayed=before)

    @operation(
        "previewEvent",
        scope("events:write"),
        tag="events",
        body=EventCreate,
        answers={200: EventView},
        errors=(EventReused, NotFound),
        example=_EVENT,
    )
    async def on_post_preview(self, req: Request, resp: Response) -> None:
        """Say what an event would earn now, by the real path without the commit."""
        body, _ = await read(req, EventCreate)
        send(resp, _view(req, await self._events.preview(actor_of(req), shop_event(body))))

    @operation(
        "recordEvents",
        scope("events:write"),
        tag="events",
        body=EventsCreate,
        answers={200: EventResults},
        errors=(Overloaded,),
        example={"events": [_EVENT]},
    )
    async def on_post_bulk(self, req: Request, resp: Response) -> None:
        """Record up to 500 events, each with its own outcome. Those that refund or confirm another one are recorded after the rest."""
        body, _ = await read(req, EventsCreate, bytes_max=BULK_BODY_BYTES_MAX)
        results = await self._events.record_bulk(actor_of(req), body.events)
        send(resp, EventResults([view_result(result, whole=_sees_whole(req)) for result in results]))

    @operation("getEvent", scope("events:read", own=True), tag="events", answers={200: EventView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, event_id: str) -> None:
        """Read a recorded event with its awards, the reasons of every decision, and what it was judged on."""
        event, since = await self._events.get_event_and_since(actor_of(req), event_id)
        send(resp, view_event(event, whole=_sees_whole(req), since=since))

    @operation("replayEvent", scope("events:read"), tag="events", answers={200: Replay}, errors=(NotFound,))
    async def on_post_replay(self, req: Request, resp: Response, event_id: str) -> None:
        """Judge a recorded event again with its stored inputs and versions, and compare byte for byte; nothing is written."""
        send(resp, await self._replays.replay(await self._events.get_event(actor_of(req), event_id)))


class CampaignsResource:
    """`/v1/campaigns`"""

    def __init__(self, campaigns: Campaigns, clock: Clock) -> None:
        self._campaigns = campaigns
        self._clock = clock

    def _view(self, campaign: Campaign) -> CampaignView:
        return view_campaign(campaign, self._clock.now_ms())

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
        """Draft a campaign; its conditions are compiled and type-checked now."""
        body, _ = await read(req, CampaignCreate)
        send(resp, self._view(await self._campaigns.create(actor_of(req), body)), 201)

    @operation("listCampaigns", scope("campaigns:read"), tag="campaigns", query=CampaignQuery, answers={200: CampaignPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List campaigns, newest first."""
        campaigns, cursor = await self._campaigns.list_campaigns(read_query(req, CampaignQuery))
        send(resp, CampaignPage([self._view(campaign) for campaign in campaigns], cursor))

    @operation("getCampaign", scope("campaigns:read"), tag="campaigns", answers={200: CampaignView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Read a campaign's newest version."""
        send(resp, self._view(await self._campaigns.get_campaign(campaign_id)))

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
        """Make a new version that decides events from now on; what was paid keeps the version it was born with."""
        body, _ = await read(req, CampaignCreate)
        send(resp, self._view(await self._campaigns.replace(actor_of(req), campaign_id, body)))

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
        """Approve a version that somebody else has made. Service keys cannot."""
        body, _ = await read(req, CampaignApprove)
        send(resp, self._view(await self._campaigns.approve(actor_of(req), campaign_id, body.version)))

    @operation(
        "activateCampaign",
        scope("campaigns:write"),
        tag="campaigns",
        answers={200: CampaignView},
        errors=(NotFound, InvalidState, ApprovalMissing),
    )
    async def on_post_activate(self, _req: Request, resp: Response, campaign_id: str) -> None:
        """Let a campaign decide events."""
        send(resp, self._view(await self._campaigns.set_status(campaign_id, "active")))

    @operation(
        "pauseCampaign", scope("campaigns:write"), tag="campaigns", answers={200: CampaignView}, errors=(NotFound, InvalidState)
    )
    async def on_post_pause(self, _req: Request, resp: Response, campaign_id: str) -> None:
        """Stop a campaign from deciding events."""
        send(resp, self._view(await self._campaigns.set_status(campaign_id, "paused")))

    @operation(
        "endCampaign", scope("campaigns:write"), tag="campaigns", answers={200: CampaignView}, errors=(NotFound, InvalidState)
    )
    async def on_post_end(self, _req: Request, resp: Response, campaign_id: str) -> None:
        """End a campaign for good; what it has paid stays as it is."""
        send(resp, self._view(await self._campaigns.set_status(campaign_id, "ended")))


def _view(req: Request, event: RecordedEvent) -> EventView:
    return view_event(event, whole=_sees_whole(req))


def _sees_whole(req: Request) -> bool:
    return actor_of(req).kind != "member"


def routes(events: Events, replays: Replays, campaigns: Campaigns, clock: Clock) -> list[tuple[str, Any, str | None]]:
    """(path, resource, suffix) of every route of this room."""
    event, campaign = EventsResource(events, replays), CampaignsResource(campaigns, clock)
    return [
        ("/v1/events", event, None),
        ("/v1/events/preview", event, "preview"),
        ("/v1/events/bulk", event, "bulk"),
        ("/v1/events/{event_id}", event, "one"),
        ("/v1/events/{event_id}/replay", event, "replay"),
        ("/v1/campaigns", campaign, None),
        ("/v1/campaigns/{campaign_id}", campaign, "one"),
        ("/v1/campaigns/{campaign_id}/approve", campaign, "approve"),
        ("/v1/campaigns/{campaign_id}/activate", campaign, "activate"),
        ("/v1/campaigns/{campaign_id}/pause", campaign, "pause"),
        ("/v1/campaigns/{campaign_id}/end", campaign, "end"),
    ]
