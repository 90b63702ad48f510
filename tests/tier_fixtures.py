"""Members who climb: a till that records what one of them does, and the tiers that tests begin with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from guerdon.clock import rfc3339, to_ms
from guerdon.config import Settings
from guerdon.wiring.services import open_services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.serving import serve

LADDER: dict[str, Any] = {
    "asset": "PTS",
    "window": {"type": "rolling", "months": 12},
    "tiers": [{"code": "silver", "name": "Silver", "points": 100}, {"code": "gold", "name": "Gold", "points": 500}],
}
SHOPPER = {"external_id": "ada"}


async def set_tiers(service: Caller, **changes: Any) -> dict[str, Any]:
    answer = await service.put("/v1/tiers", {**LADDER, **changes})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


class Till:
    """Records what one member does, at the time that the clock shows."""

    def __init__(self, service: Caller, factory: Factory, clock: ManualClock) -> None:
        self.service = service
        self.factory = factory
        self.clock = clock
        self.member = ""

    async def record(self, amount: int, **changes: Any) -> dict[str, Any]:
        now = rfc3339(self.clock.now_ms())
        event = self.factory.event(**{"member": SHOPPER, "amount": amount, "occurred_at": now, **changes})
        answer = await self.service.post("/v1/events", event, key=None)
        assert answer.status_code == 201, answer.text
        self.member = answer.json()["member_id"]
        return dict(answer.json())

    async def refund(self, purchase: dict[str, Any], amount: int) -> dict[str, Any]:
        return await self.record(amount, type="refund", refund_of=purchase["id"])

    async def tier(self) -> dict[str, Any]:
        answer = await self.service.get(f"/v1/members/{self.member}/tier")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def changes(self) -> list[dict[str, Any]]:
        answer = await self.service.get(f"/v1/members/{self.member}/tier/changes")
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def steps(self) -> list[tuple[str | None, str | None, str]]:
        """The history, oldest first."""
        return [(each["from"], each["to"], each["reason"]) for each in reversed(await self.changes())]


def show(clock: ManualClock, moment: str) -> None:
    """Let the clock stand at a moment."""
    clock.stop()
    clock.offset_ms += to_ms(datetime.fromisoformat(moment)) - clock.now_ms()


@asynccontextmanager
async def open_there(settings: Settings, clock: ManualClock) -> AsyncIterator[Caller]:
    async with open_services(settings, clock) as services, serve(services, settings, clock) as anonymous:
        yield anonymous


async def earning(factory: Factory, **changes: Any) -> str:
    """A campaign of a point per penny."""
    return await factory.campaign(award={"type": "per_amount", "points": 1, "per": 1}, **changes)
