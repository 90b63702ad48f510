"""Months that tests move through, and what happens in them."""

from datetime import datetime
from typing import Any

from guerdon.clock import rfc3339, to_ms
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.views.build import build_views

Body = dict[str, Any]


def move_to(clock: ManualClock, moment: str) -> None:
    """Stop the clock at a time such as `2030-01-15T12:00:00Z`, which is not before the present."""
    clock.stop()
    clock.advance(seconds=(to_ms(datetime.fromisoformat(moment)) - clock.now_ms()) / 1000)


class Programme:
    """A programme that awards one point for each ten minor units of money, and what its members do."""

    def __init__(self, service: Caller, factory: Factory, services: Services, clock: ManualClock) -> None:
        self._service = service
        self._factory = factory
        self._services = services
        self._clock = clock

    async def start(self, **settings: Any) -> str:
        """Make the campaign and the settings: a point is worth 1, and 97 % are redeemed."""
        usual = {"currency": "GBP", "value_per_point": "1", "cost_per_point": "0.5", "redemption_rate": "0.97"}
        await self.set(**{**usual, **settings})
        return await self._factory.campaign(award={"type": "per_amount", "points": 1, "per": 10, "rounding": "floor"})

    async def set(self, **settings: Any) -> None:
        usual = {"currency": "GBP", "value_per_point": "1", "cost_per_point": "0.5"}
        answer = await self._service.put("/v1/report-settings/PTS", {**usual, **settings})
        assert answer.status_code == 200, answer.text

    async def buy(self, name: str, amount: int, **changes: Any) -> Body:
        """Record a purchase of a member now, or at `occurred_at`; return the event."""
        event = {"member": {"external_id": name}, "amount": amount, "occurred_at": rfc3339(self._clock.now_ms())}
        answer = await self._service.post("/v1/events", self._factory.event(**{**event, **changes}))
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def spend(self, name: str, amount: int) -> None:
        found = await self._service.get("/v1/members", external_id=name)
        wallet = f"{found.json()['items'][0]['id']}:PTS"
        answer = await self._service.post(f"/v1/wallets/{wallet}/debit", {"amount": amount})
        assert answer.status_code == 201, answer.text

    async def report(self, name: str, **query: Any) -> Body:
        """Bring the views up to date, and return a report on the points."""
        await build_views(self._services)
        answer = await self._service.get(f"/v1/reports/{name}", asset="PTS", **query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())
