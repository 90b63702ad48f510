"""Budgets and caps as the ledger has counted them: on the campaign, and for one member."""

from typing import Any

import pytest

from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.tier_fixtures import show

FIXED = {"type": "fixed", "amount": 100}


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def usage(service: Caller, campaign: str, **params: Any) -> dict[str, Any]:
    answer = await service.get(f"/v1/campaigns/{campaign}/usage", **params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def budget_of(service: Caller, campaign: str) -> tuple[int | None, int | None, int | None]:
    read = (await service.get(f"/v1/campaigns/{campaign}")).json()
    [listed] = [each for each in (await service.get("/v1/campaigns")).json()["items"] if each["id"] == campaign]
    assert listed == read
    return read["budget"], read["budget_used"], read["budget_left"]


async def test_budget_is_counted_over_versions_and_refunds(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(award=FIXED, budget=250, event_types=["purchase"])
    assert await budget_of(service, campaign) == (250, 0, 250)
    first = factory.event()
    await record(service, first)
    await record(service, factory.event())
    assert await budget_of(service, campaign) == (250, 200, 50)
    assert (await usage(service, campaign))["budget"] == {"limit": 250, "used": 200, "left": 50}
    await record(service, factory.event())  # 50 of the 100 are left
    assert await budget_of(service, campaign) == (250, 250, 0)
    await record(service, {**first, "id": f"{first['id']}-back", "type": "refund", "refund_of": first["id"]})
    assert await budget_of(service, campaign) == (250, 150, 100)
    changed = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": FIXED, "budget": 120}
    answer = await service.put(f"/v1/campaigns/{campaign}", changed)
    assert [answer.json()[name] for name in ("version", "budget", "budget_used", "budget_left")] == [2, 120, 150, 0]
    assert (await usage(service, campaign))["budget"] == {"limit": 120, "used": 150, "left": 0}
    paused = (await service.post(f"/v1/campaigns/{campaign}/pause")).json()
    assert (paused["budget_used"], paused["budget_left"]) == (150, 0)
    await factory.assert_books_balance()


async def test_preview_uses_nothing(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(award=FIXED, budget=250)
    assert (await service.post("/v1/events/preview", factory.event(), key=None)).status_code == 200
    assert await budget_of(service, campaign) == (250, 0, 250)


async def test_campaign_without_budget_has_no_usage_of_it(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(award=FIXED)
    await record(service, factory.event())
    assert await budget_of(service, campaign) == (None, None, None)
    read = await usage(service, campaign)
    assert (read["budget"], read["caps"], read["member_id"], read["asset"], read["scale"]) == (None, [], None, "PTS", 0)


async def test_caps_of_a_member_are_shown_for_the_periods_of_a_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    show(clock, "2026-11-30T10:00:00Z")
    periods = ("day", "week", "month", "year", "ever")
    caps = [{"scope": "event", "limit": 90}, *({"scope": "member", "period": period, "limit": 1000} for period in periods)]
    campaign = await factory.campaign(award=FIXED, caps=caps)
    ada, bob = await factory.member(), await factory.member()
    for day in ("2026-11-30", "2026-11-29", "2026-10-31", "2025-12-31"):
        await record(service, factory.event(member={"id": ada}, occurred_at=f"{day}T09:00:00Z"))
    await record(service, factory.event(member={"id": bob}, occurred_at="2026-11-30T09:00:00Z"))
    unnamed = await usage(service, campaign)
    assert [(cap["scope"], cap["limit"], cap["used"], cap["left"]) for cap in unnamed["caps"]] == [
        ("event", 90, None, None), *[("member", 1000, None, None)] * 5,
    ]  # fmt: skip
    read = await usage(service, campaign, member_id=ada)
    assert read["member_id"] == ada
    assert [(cap["period"], cap["window"], cap["ends_at"], cap["used"], cap["left"]) for cap in read["caps"]] == [
        (None, None, None, None, None),
        ("day", "2026-11-30", "2026-12-01T00:00:00.000Z", 90, 910),
        ("week", "2026-W49", "2026-12-07T00:00:00.000Z", 90, 910),
        ("month", "2026-11", "2026-12-01T00:00:00.000Z", 180, 820),
        ("year", "2026", "2027-01-01T00:00:00.000Z", 270, 730),
        ("ever", "ever", None, 360, 640),
    ]
    earlier = await usage(service, campaign, member_id=ada, at="2026-11-29T23:59:59Z")
    assert [(cap["window"], cap["used"]) for cap in earlier["caps"][1:]] == [
        ("2026-11-29", 90), ("2026-W48", 90), ("2026-11", 180), ("2026", 270), ("ever", 360),
    ]  # fmt: skip
    assert [cap["used"] for cap in (await usage(service, campaign, member_id=bob))["caps"]] == [None, 90, 90, 90, 90, 90]
    nothing = await usage(service, campaign, member_id=await factory.member())
    assert [(cap["used"], cap["left"]) for cap in nothing["caps"][1:]] == [(0, 1000)] * 5
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"member_id": "ada"}, "member_id"),
        ({"at": "yesterday"}, "at"),
        ({"at": "2026-02-30T00:00:00Z"}, "at"),
        ({"mem": "x"}, "mem"),
    ],
)
async def test_invalid_parameters_are_named(service: Caller, factory: Factory, params: dict[str, str], pointer: str) -> None:
    campaign = await factory.campaign()
    refused = problem(await service.get(f"/v1/campaigns/{campaign}/usage", **params), 422, "validation")
    assert refused["errors"][0]["pointer"] == pointer


async def test_missing_campaign_or_member_is_not_found(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign()
    problem(await service.get("/v1/campaigns/cmp_none/usage"), 404, "not-found")
    problem(await service.get(f"/v1/campaigns/{campaign}/usage", member_id=f"mem_{'f' * 32}"), 404, "not-found")


async def test_usage_needs_the_scope_of_campaigns(anonymous: Caller, service: Caller, factory: Factory, services: Any) -> None:
    campaign = await factory.campaign()
    problem(await anonymous.get(f"/v1/campaigns/{campaign}/usage"), 401, "unauthenticated")
    other = anonymous.with_token(await services.access.create_key("till", ["wallets:read"]))
    problem(await other.get(f"/v1/campaigns/{campaign}/usage"), 403, "forbidden")
    reader = anonymous.with_token(await services.access.create_key("reader", ["campaigns:read"]))
    assert (await reader.get(f"/v1/campaigns/{campaign}/usage")).status_code == 200
