"""Routes of events."""

from typing import Any

from guerdon.errors import EventReused, InvalidState, NotFound, Overloaded
from guerdon.events.models import EventCreate, EventsCreate, EventVoidCreate
from guerdon.events.replay import EventReplays, Replay
from guerdon.events.service import Events
from guerdon.events.views import EventResults, EventView, view_event, view_result
from guerdon.events.voiding import EventVoids
from guerdon.http.body import BULK_BODY_BYTES_MAX, read
from guerdon.http.operation import Request, Response, actor_of, is_dry_run, operation, send
from guerdon.permissions import scope

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


class EventsResource:
    """`/v1/events`"""

    def __init__(self, events: Events, replays: EventReplays, voids: EventVoids) -> None:
        self._events = events
        self._replays = replays
        self._voids = voids

    @operation(
        "recordEvent",
        scope("events:write"),
        tag="events",
        body=EventCreate,
        answers={201: EventView, 200: EventView},
        errors=(EventReused, NotFound, Overloaded),
        dry_run=(),
        example=_EVENT,
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Record an event and pay its awards in one commit. Its id is the key: the same event again answers 200."""
        body, _ = await read(req, EventCreate)
        event, before = await self._events.record(actor_of(req), body, dry_run=is_dry_run(req))
        send(resp, view_event(event, whole=_sees_whole(req)), 200 if before else 201, replayed=before)

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
        """Preview the awards of an event. The event is evaluated as if it were recorded, and nothing is written."""
        body, _ = await read(req, EventCreate)
        event = await self._events.preview(actor_of(req), body)
        send(resp, view_event(event, whole=_sees_whole(req)))

    @operation(
        "recordEvents",
        scope("events:write"),
        tag="events",
        body=EventsCreate,
        answers={200: EventResults},
        errors=(Overloaded,),
        dry_run=(),
        example={"events": [_EVENT]},
    )
    async def on_post_bulk(self, req: Request, resp: Response) -> None:
        """Record up to 500 events, each with its own result. Refunds of a purchase and confirmations are recorded after all others."""
        body, _ = await read(req, EventsCreate, bytes_max=BULK_BODY_BYTES_MAX)
        whole, dry_run = _sees_whole(req), is_dry_run(req)
        results = await self._events.record_bulk(actor_of(req), body.events, dry_run=dry_run)
        send(resp, EventResults([view_result(result, whole=whole, dry_run=dry_run) for result in results]))

    @operation("getEvent", scope("events:read", own=True), tag="events", answers={200: EventView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, event_id: str) -> None:
        """Return a recorded event with its awards, the reasons of each decision, and what the decisions depended on."""
        event, since = await self._events.get_event_and_since(actor_of(req), event_id)
        send(resp, view_event(event, whole=_sees_whole(req), since=since))

    @operation("replayEvent", scope("events:read"), tag="events", answers={200: Replay}, errors=(NotFound,))
    async def on_post_replay(self, req: Request, resp: Response, event_id: str) -> None:
        """Evaluate a recorded event again on its stored inputs and campaign versions, and compare the decisions byte for byte."""
        send(resp, await self._replays.replay(await self._events.get_event(actor_of(req), event_id)))

    @operation(
        "voidEvent",
        scope("events:void"),
        tag="events",
        body=EventVoidCreate,
        answers={200: EventView},
        errors=(NotFound, InvalidState, Overloaded),
        dry_run=(),
        example={"reason": "the till's clock was wrong"},
        audited=True,
    )
    async def on_post_void(self, req: Request, resp: Response, event_id: str) -> None:
        """Void an event: take back what it paid, as a full refund would, and everything that it counted for. A second void changes nothing."""
        body, _ = await read(req, EventVoidCreate)
        event, result = await self._voids.void(actor_of(req), event_id, body.reason, dry_run=is_dry_run(req))
        send(resp, view_event(event, whole=True, since=result.since), replayed=result.replayed)


def _sees_whole(req: Request) -> bool:
    return actor_of(req).kind != "member"


def routes(events: Events, replays: EventReplays, voids: EventVoids) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of events."""
    event = EventsResource(events, replays, voids)
    return [
        ("/v1/events", event, None),
        ("/v1/events/preview", event, "preview"),
        ("/v1/events/bulk", event, "bulk"),
        ("/v1/events/{event_id}", event, "one"),
        ("/v1/events/{event_id}/replay", event, "replay"),
        ("/v1/events/{event_id}/void", event, "void"),
    ]
