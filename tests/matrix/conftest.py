"""Two members with one of everything, and callers of every kind; quotas have tests of their own and are off here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from falcon.asgi import App

from guerdon.audit_log.models import AUDIT
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.factories import Factory
from tests.serving import Route, count_rows, routes_of

PASSWORD = "correct horse battery"


class Somebody(NamedTuple):
    """A member who has logged in, and the id of one of everything that is theirs, by the name it has in paths."""

    caller: Caller
    ids: Mapping[str, str]


class Scene(NamedTuple):
    """Everybody who calls, and the routes of the application."""

    anonymous: Caller
    service: Caller
    ada: Somebody
    bob: Somebody
    olga: Caller
    """She works here."""
    routes: list[Route]

    def caller_of(self, route: Route) -> Caller:
        """Somebody whom the route lets in."""
        policy = route.operation.policy
        if policy.staff:
            return self.olga
        return self.anonymous if policy.public else self.service if policy.scope else self.ada.caller

    async def send(self, route: Route, content: bytes, *, url: str = "", content_type: str = "application/json") -> Any:
        return await self.caller_of(route).send(route.method, url or route.url, content, content_type=content_type)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"rate_limit": "off"})


async def rows(database: Database) -> dict[str, int]:
    """How many documents each collection holds; but that something was asked for is written down even when it is refused."""
    return {name: count for name, count in (await count_rows(database)).items() if name != AUDIT}


async def somebody(anonymous: Caller, service: Caller, factory: Factory, email: str, offer: str) -> Somebody:
    person = {"email": email, "password": PASSWORD}
    assert (await anonymous.post("/v1/auth/register", person)).status_code == 201
    tokens = (await anonymous.post("/v1/auth/login", person)).json()
    member = tokens["member_id"]
    wallet = await factory.wallet(1000, member=member)
    credited = (await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 7, "reason": email})).json()
    held = (await service.post("/v1/holds", {"wallet": wallet, "amount": 5})).json()
    event = factory.event(member={"id": member})
    assert (await service.post("/v1/events", event)).status_code == 201
    ids = {
        "member_id": member,
        "wallet_id": wallet,
        "hold_id": held["id"],
        "transaction_id": credited["id"],
        "event_id": event["id"],
        "session_id": tokens["session_id"],
        "offer_id": offer,
        "code": (await factory.voucher(offer, member))["code"],
    }
    return Somebody(anonymous.with_token(tokens["access_token"]), ids)


@pytest_asyncio.fixture
async def scene(app: App[Any, Any], anonymous: Caller, service: Caller, services: Services, factory: Factory) -> Scene:
    await factory.campaign()
    offer = await factory.offer()
    ada, bob = [await somebody(anonymous, service, factory, f"{name}@example.com", offer) for name in ("ada", "bob")]
    works_here = {"email": "olga@example.com", "password": PASSWORD}
    await services.members.create_operator(works_here["email"], PASSWORD, "support")
    olga = anonymous.with_token((await anonymous.post("/v1/auth/login", works_here)).json()["access_token"])
    return Scene(anonymous, service, ada, bob, olga, routes_of(app))
