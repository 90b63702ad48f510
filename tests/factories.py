"""Things that tests need to exist, made through the API, and the check that ends every test that moves value."""

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec

from guerdon.campaigns.domain import EVENTS, RecordedEvent
from guerdon.events.models import EventCreate
from guerdon.events.replay import ERASED
from guerdon.events.service import shop_event
from guerdon.permissions import Actor
from guerdon.verification.service import verify
from guerdon.wiring.services import Services
from tests.clients import Caller

REPLAYS_MAX = 25
"""So many decisions are made again at the end of a test."""
_numbers = itertools.count(1)


class Factory:
    """Makes members, wallets and campaigns."""

    def __init__(self, service: Caller, services: Services) -> None:
        self._service = service
        self._services = services

    async def member(self, external_id: str | None = None) -> str:
        """A new member's id."""
        name = external_id or f"customer-{next(_numbers)}"
        answer = await self._service.post("/v1/members", {"external_id": name, "email": None, "attributes": {}})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def wallet(self, balance: int = 0, asset: str = "PTS", member: str | None = None) -> str:
        """A wallet with a balance; a balance of 0 is made by a credit and a debit, since only a credit opens a wallet."""
        wallet = f"{member or await self.member()}:{asset}"
        answer = await self._service.post(f"/v1/wallets/{wallet}/credit", {"amount": balance or 1})
        assert answer.status_code == 201, answer.text
        if balance == 0:
            answer = await self._service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})
            assert answer.status_code == 201, answer.text
        return wallet

    async def campaign(self, *, active: bool = True, **changes: Any) -> str:
        """A campaign's id: 1 point per pound unless `changes` say otherwise."""
        body = {
            "name": "1 point per pound",
            "asset": "PTS",
            "event_types": ["purchase", "refund"],
            "award": {"type": "per_amount", "points": 1, "per": 100, "rounding": "floor"},
            **changes,
        }
        answer = await self._service.post("/v1/campaigns", body)
        assert answer.status_code == 201, answer.text
        campaign_id = str(answer.json()["id"])
        if active:
            answer = await self._service.post(f"/v1/campaigns/{campaign_id}/activate")
            assert answer.status_code == 200, answer.text
        return campaign_id

    async def offer(self, *, active: bool = True, **changes: Any) -> str:
        """An offer's id: 5 pounds off for nothing, as many as are wanted, unless `changes` say otherwise."""
        value = {"type": "fixed", "amount": 500, "currency": "GBP"}
        answer = await self._service.post("/v1/offers", {"name": "5 pounds off", "kind": "discount", "value": value, **changes})
        assert answer.status_code == 201, answer.text
        offer_id = str(answer.json()["id"])
        if active:
            answer = await self._service.post(f"/v1/offers/{offer_id}/activate")
            assert answer.status_code == 200, answer.text
        return offer_id

    async def bulk(self, commands: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer to many commands."""
        answer = await self._service.post("/v1/bulk", {"commands": commands})
        assert answer.status_code == 200, answer.text
        results: dict[str, Any] = answer.json()
        return results

    async def voucher(self, offer: str, member: str) -> dict[str, Any]:
        """A voucher that a member has just redeemed."""
        answer = await self._service.post(f"/v1/offers/{offer}/redeem", {"member_id": member})
        assert answer.status_code == 201, answer.text
        voucher: dict[str, Any] = answer.json()["voucher"]
        return voucher

    async def pool(self, offer: str, codes: Sequence[str]) -> None:
        """Import codes of another house into the pool of an offer, and do the worker's part."""
        text = "\n".join(("code", *codes)).encode()
        answer = await self._service.send("POST", f"/v1/offers/{offer}/codes/import", text, content_type="text/csv")
        assert answer.status_code == 202, answer.text
        await self._services.code_generation.generate_open()

    def event(self, **changes: Any) -> dict[str, Any]:
        """The body of a purchase of 139.12 pounds by somebody new."""
        number = next(_numbers)
        return {
            "id": f"order-{number}",
            "type": "purchase",
            "member": {"external_id": f"shopper-{number}"},
            "occurred_at": "2026-01-31T12:00:00Z",
            "amount": 13912,
            "currency": "GBP",
            **changes,
        }

    async def record_at_any_time(self, services: Services | None = None, **changes: Any) -> dict[str, Any]:
        """Record an event as versions did that had no bound for its time, by these services or the usual ones, and read it."""
        services = services or self._services
        body = msgspec.convert(self.event(**changes), EventCreate)
        actor = Actor("key_tests", "service_key")
        live = await services.campaigns.list_live()
        [result] = await services.events.record_all(actor, [shop_event(body, 2**62)], live)
        assert isinstance(result, tuple), result
        return dict((await self._service.get(f"/v1/events/{body.id}")).json())

    async def balance(self, wallet: str) -> int:
        answer = await self._service.get(f"/v1/wallets/{wallet}")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["balance"])

    async def assert_books_balance(self) -> None:
        """Every law holds over the whole database, and what was decided about events comes out again."""
        report = await verify(self._services.database, calendar=self._services.ledger.calendar)
        assert report.violations == 0, report.first
        for event in await self._services.database.collection(EVENTS, RecordedEvent).find({}, limit=REPLAYS_MAX):
            replay = await self._services.event_replays.replay(event)
            assert replay.outcome == "equal" or replay.missing == [ERASED], replay
