"""Four eyes: where approval is required, a campaign's version decides only after somebody else has approved it."""

from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.api.test_audit_log import PASSWORD, records
from tests.api.test_sessions import logged_in
from tests.clients import Caller, problem
from tests.factories import Factory

BODY: dict[str, Any] = {"name": "x", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 10}}


@pytest.fixture
def settings(usual_settings: Settings) -> Settings:
    return usual_settings.model_copy(update={"campaign_approval": "required"})


async def colleague(anonymous: Caller, services: Services, name: str) -> tuple[str, Caller]:
    person = {"email": f"{name}@example.com", "password": PASSWORD}
    member = await services.members.create_operator(person["email"], PASSWORD, "operator")
    return member.id, anonymous.with_token((await logged_in(anonymous, person))["access_token"])


async def test_campaign_version_requires_approval_by_another_person(
    anonymous: Caller, service: Caller, services: Services, factory: Factory
) -> None:
    ada_id, ada = await colleague(anonymous, services, "ada")
    bob_id, bob = await colleague(anonymous, services, "bob")
    drafted = (await ada.post("/v1/campaigns", BODY)).json()
    path = f"/v1/campaigns/{drafted['id']}"
    assert (drafted["created_by"], drafted["approved_by"]) == (ada_id, None)
    assert problem(await ada.post(f"{path}/activate"), 409, "approval-missing")["version"] == 1
    for wrong in (ada, service):
        problem(await wrong.post(f"{path}/approve", {"version": 1}), 403, "forbidden")
    problem(await bob.post(f"{path}/approve", {"version": 2}), 409, "invalid-state")
    for _ in range(2):
        assert (await bob.post(f"{path}/approve", {"version": 1})).json()["approved_by"] == bob_id
    assert (await ada.post(f"{path}/activate")).json()["status"] == "active"

    async def pays() -> int:
        return sum(award["amount"] for award in (await service.post("/v1/events", factory.event(), key=None)).json()["awards"])

    # A new version waits beside the one that decides, until whoever has not made it approves it.
    waiting = (await bob.put(path, {**BODY, "award": {"type": "fixed", "amount": 20}})).json()
    assert (waiting["version"], waiting["awaits_approval"], await pays()) == (1, 2, 10)
    problem(await bob.post(f"{path}/approve", {"version": 2}), 403, "forbidden")
    assert (await bob.post(f"{path}/pause")).json()["awaits_approval"] == 2
    assert (await bob.post(f"{path}/activate")).json()["version"] == 1
    now = (await ada.post(f"{path}/approve", {"version": 2})).json()
    assert (now["version"], now["approved_by"], now["awaits_approval"], now["status"], await pays()) == (
        2,
        ada_id,
        None,
        "active",
        20,
    )
    told = [(record.actor, record.status) for record in await records(services) if record.action == "approveCampaign"]
    assert (ada_id, 403) in told
    assert (bob_id, 200) in told
    await factory.assert_books_balance()
