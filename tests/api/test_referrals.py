"""Referrals: recorded once, paid to both sides when the new member buys, and nothing for those who only sign up."""

import asyncio
from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve

FIRST = {"event_types": ["purchase"], "condition": "member.referred && member.first_purchase && event.amount >= 2000"}
CAP = {"scope": "member", "period": "month", "limit": 1000}


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


async def programme(factory: Factory, **changes: Any) -> None:
    await factory.campaign(award={"type": "fixed", "amount": 200}, **FIRST)
    await factory.campaign(award={"type": "fixed", "amount": 500}, pays="referrer", **{"caps": [CAP], **FIRST, **changes})


async def referrer(service: Caller, factory: Factory) -> tuple[str, str]:
    """A member who has bought something: their id and their code."""
    member = str((await record(service, factory.event(amount=100)))["member_id"])
    return member, str((await service.get(f"/v1/members/{member}/referral")).json()["code"])


async def refer(service: Caller, factory: Factory, code: str) -> str:
    member = await factory.member()
    answer = await service.post(f"/v1/members/{member}/referral", {"code": code}, key=None)
    assert answer.status_code == 201, answer.text
    return member


async def test_both_sides_are_paid_for_the_first_purchase(service: Caller, factory: Factory) -> None:
    await programme(factory)
    ada, code = await referrer(service, factory)
    bob = await refer(service, factory, code)
    again = await service.post(f"/v1/members/{bob}/referral", {"code": code}, key=None)
    assert (again.status_code, again.json()["referrer_id"]) == (200, ada)
    event = factory.event(member={"id": bob}, amount=2000)
    preview = (await service.post("/v1/events/preview", event, key=None)).json()
    bought = await record(service, event)
    assert preview["decisions"] == bought["decisions"]
    assert [(award["amount"], award.get("to")) for award in bought["awards"]] == [(200, None), (500, "referrer")]
    assert (await factory.balance(f"{ada}:PTS"), await factory.balance(f"{bob}:PTS")) == (500, 200)
    assert (await record(service, factory.event(member={"id": bob}, amount=2000)))["awards"] == []
    stranger = await record(service, factory.event(amount=2000))
    assert [each["outcome"] for each in stranger["decisions"]] == ["not_matched", "not_matched"]
    await factory.assert_books_balance()


async def test_refund_takes_back_both_referral_awards(service: Caller, factory: Factory) -> None:
    await programme(factory)
    ada, code = await referrer(service, factory)
    bob = await refer(service, factory, code)
    bought = await record(service, factory.event(member={"id": bob}, amount=2000))
    half = await record(service, factory.event(type="refund", refund_of=bought["id"], member={"id": bob}, amount=1000))
    assert sorted(award["amount"] for award in half["awards"]) == [-250, -100]
    await record(service, factory.event(type="refund", refund_of=bought["id"], member={"id": bob}, amount=1000))
    assert (await factory.balance(f"{ada}:PTS"), await factory.balance(f"{bob}:PTS")) == (0, 0)
    # A first purchase is the first for ever: buying and refunding again earns nothing.
    assert (await record(service, factory.event(member={"id": bob}, amount=2000)))["awards"] == []
    await factory.assert_books_balance()


async def test_self_circular_and_changed_referrals_are_refused(service: Caller, factory: Factory) -> None:
    ada, code = await referrer(service, factory)
    _, other = await referrer(service, factory)
    bob = await refer(service, factory, code)

    async def cause(member: str, code: str) -> str:
        return str(
            problem(await service.post(f"/v1/members/{member}/referral", {"code": code}, key=None), 409, "referral-refused")[
                "cause"
            ]
        )

    own = (await service.get(f"/v1/members/{bob}/referral")).json()["code"]
    assert await cause(bob, own) == "oneself"
    assert await cause(bob, other) == "referred-already"
    assert await cause(ada, own) == "not-new"
    assert await cause(await factory.member(), own) == "referrer-has-not-bought"
    await record(service, factory.event(member={"id": bob}, amount=100))
    assert await cause(ada, own) == "not-new"
    for wrong in ("R" + "0" * 22, "R" + "z" * 22):
        problem(await service.post(f"/v1/members/{bob}/referral", {"code": wrong}, key=None), 404, "not-found")
    problem(await service.post(f"/v1/members/mem_{'0' * 32}/referral", {"code": code}, key=None), 404, "not-found")
    await factory.assert_books_balance()


async def test_scripted_sign_ups_cannot_cash_out(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """Sign-ups alone earn nothing; purchases that are refunded earn nothing that is left; and a cap bounds what is left of the rest."""
    await programme(factory, pending={"type": "days", "days": 30})
    ada, code = await referrer(service, factory)
    farm = [await refer(service, factory, code) for _ in range(6)]
    assert (await service.get(f"/v1/wallets/{ada}:PTS")).status_code == 404
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        events = [factory.event(member={"id": member}, amount=2000) for member in farm]
        answers = await asyncio.gather(*(callers[n % 2].post("/v1/events", event, key=None) for n, event in enumerate(events)))
    to_ada = [award["amount"] for answer in answers for award in answer.json()["awards"] if award.get("to")]
    assert to_ada == [500, 500]
    wallet = (await service.get(f"/v1/wallets/{ada}:PTS")).json()
    assert (wallet["pending"], wallet["available"]) == (1000, 0)
    for event, member in zip(events, farm, strict=True):
        await record(service, factory.event(type="refund", refund_of=event["id"], member={"id": member}, amount=2000))
    assert await factory.balance(f"{ada}:PTS") == 0
    clock.advance(days=40)
    assert (await service.get(f"/v1/wallets/{ada}:PTS")).json()["available"] == 0
    await factory.assert_books_balance()


async def test_bulk_pays_the_referrer_too(service: Caller, factory: Factory) -> None:
    await programme(factory)
    ada, code = await referrer(service, factory)
    bob = await refer(service, factory, code)
    events = [factory.event(member={"id": bob}, amount=2000), factory.event(amount=2000)]
    answer = await service.post("/v1/events/bulk", {"events": events}, key=None)
    assert [result["status"] for result in answer.json()["results"]] == [201, 201]
    assert await factory.balance(f"{ada}:PTS") == 500
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [({}, "/caps"), ({"caps": [{"scope": "event", "limit": 5}]}, "/caps"), ({"caps": [CAP], "event_types": ["refund"]}, "/pays")],
)
async def test_referral_campaign_without_a_member_cap_is_refused(service: Caller, changes: dict[str, Any], pointer: str) -> None:
    body = {"name": "x", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 1}, "pays": "referrer"}
    assert problem(await service.post("/v1/campaigns", {**body, **changes}), 422, "validation")["errors"][0]["pointer"] == pointer
