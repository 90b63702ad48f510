"""Events happen once: the same again, other content, refunds, and many at the same moment."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve


async def test_repeated_event_returns_the_first_response(service: Caller, factory: Factory, clock: ManualClock) -> None:
    campaign, event = await factory.campaign(), factory.event(attributes={"b": 1, "a": True})
    first = await service.post("/v1/events", event, key=None)
    await service.post(f"/v1/campaigns/{campaign}/pause")
    clock.advance(days=400)
    again = await service.post("/v1/events", event, key=None)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.content == first.content
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    reordered = {**dict(reversed(event.items())), "attributes": {"a": True, "b": 1}, "occurred_at": "2026-01-31T13:00:00+01:00"}
    assert (await service.post("/v1/events", reordered)).content == first.content
    assert await factory.balance(f"{first.json()['member_id']}:PTS") == 139
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 13913}, {"type": "refund"}, {"currency": "EUR"}, {"occurred_at": "2026-01-31T12:00:00.001Z"}, {"attributes": {"a": "b"}},
        {"items": [{"sku": "a", "quantity": 1}]}, {"member": {"external_id": "somebody-else"}},
    ],
)  # fmt: skip
async def test_the_same_id_with_other_content_is_refused(service: Caller, factory: Factory, changes: dict[str, Any]) -> None:
    await factory.campaign()
    event = factory.event()
    first = await service.post("/v1/events", event)
    problem(await service.post("/v1/events", {**event, **changes}), 422, "event-id-reused")
    problem(await service.post("/v1/events/preview", {**event, **changes}), 422, "event-id-reused")
    assert (await service.get(f"/v1/events/{event['id']}")).content == first.content
    assert await factory.balance(f"{first.json()['member_id']}:PTS") == 139
    await factory.assert_books_balance()


async def test_event_is_the_same_under_either_id_of_its_member(service: Caller, factory: Factory) -> None:
    event = factory.event()
    first = await service.post("/v1/events", event)
    again = await service.post("/v1/events", {**event, "member": {"id": first.json()["member_id"]}})
    assert (again.status_code, again.content) == (200, first.content)


async def test_a_refused_event_leaves_no_member_behind(service: Caller, factory: Factory, database: Database) -> None:
    event = factory.event()
    await service.post("/v1/events", event)
    problem(await service.post("/v1/events", {**event, "member": {"external_id": "never-seen"}}), 422, "event-id-reused")
    assert (await service.get("/v1/members", external_id="never-seen")).json()["items"] == []


@pytest.mark.parametrize("event_id", ["preview", "bulk", ".", "..", "order\n", "a\u0085b"])
async def test_event_id_that_could_not_be_read_back_is_refused(service: Caller, factory: Factory, event_id: str) -> None:
    assert problem(await service.post("/v1/events", factory.event(id=event_id)), 422, "validation")["errors"][0]["pointer"] == "/id"


@pytest.mark.parametrize("event_id", ["?x=1", "#", "%2F", "order-1:GB", "x" * 128])
async def test_every_event_that_is_recorded_can_be_read(service: Caller, factory: Factory, event_id: str) -> None:
    recorded = await service.post("/v1/events", factory.event(id=event_id))
    assert recorded.status_code == 201
    assert (await service.get(f"/v1/events/{quote(event_id, safe='')}")).json() == recorded.json()


REFUNDS = {
    ("none", 200): (0, "refused"), ("up_to_balance", 200): (-139, "awarded"), ("up_to_balance", 50): (-50, "awarded"),
    ("up_to_balance", 0): (0, "refused"), ("debt", 200): (-139, "awarded"), ("debt", 50): (-139, "awarded"), ("debt", 0): (-139, "awarded"),
}  # fmt: skip


@pytest.mark.parametrize(("clawback", "balance"), REFUNDS)
async def test_refund_follows_the_clawback_policy(service: Caller, factory: Factory, clawback: str, balance: int) -> None:
    taken, outcome = REFUNDS[clawback, balance]
    await factory.campaign(clawback=clawback)
    wallet = await factory.wallet(balance)
    refund = factory.event(type="refund", member={"id": wallet.partition(":")[0]})
    recorded = (await service.post("/v1/events", refund)).json()
    assert [award["amount"] for award in recorded["awards"]] == ([taken] if taken else [])
    [decision] = recorded["decisions"]
    assert (decision["outcome"], decision["amount"]) == (outcome, taken)
    read = (await service.get(f"/v1/wallets/{wallet}")).json()
    assert (read["balance"], read["available"]) == (balance + taken, max(balance + taken, 0))
    newest = (await service.get(f"/v1/wallets/{wallet}/entries", limit=1)).json()["items"][0]
    assert (newest["kind"] == "clawback") == (taken != 0)
    await factory.assert_books_balance()


async def test_debt_blocks_spending_until_the_next_purchase_repays_it(service: Caller, factory: Factory) -> None:
    await factory.campaign()
    wallet = await factory.wallet(0)
    member = {"id": wallet.partition(":")[0]}
    await service.post("/v1/events", factory.event(type="refund", member=member))
    assert await factory.balance(wallet) == -139
    refused = problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "insufficient-funds")
    assert (refused["available"], refused["needed"]) == (0, 1)
    other = await factory.wallet(1)
    problem(await service.post("/v1/transfers", {"from": wallet, "to": other, "amount": 1}), 409, "insufficient-funds")
    await service.post("/v1/events", factory.event(member=member, amount=20_000))
    assert await factory.balance(wallet) == 61
    spent = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 61})
    assert (spent.status_code, spent.json()["balance"]) == (201, 0)
    await factory.assert_books_balance()


@pytest.mark.parametrize(("clawback", "balance"), [("up_to_balance", 0), ("none", 0), ("debt", -139)])
async def test_refund_by_a_new_member_makes_a_debt_only_by_policy(
    service: Caller, factory: Factory, clawback: str, balance: int
) -> None:
    await factory.campaign(clawback=clawback)
    recorded = (await service.post("/v1/events", factory.event(type="refund"))).json()
    assert await factory.balance(f"{recorded['member_id']}:PTS") == balance
    await factory.assert_books_balance()


async def test_fifty_parallel_posts_of_one_event_record_it_once(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    await service.post("/v1/events", factory.event())
    event = factory.event()
    answers = await asyncio.gather(*(service.post("/v1/events", event) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.content for answer in answers}) == 1
    assert await database.raw["events"].count_documents({"_id": event["id"]}) == 1
    assert await factory.balance(f"{answers[0].json()['member_id']}:PTS") == 139
    await factory.assert_books_balance()


async def test_two_processes_record_one_event_once(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign()
    event = factory.event()
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        other = anonymous.with_token(service.token)
        for caller in (service, other):
            await caller.post("/v1/events", factory.event())
        answers = await asyncio.gather(*(caller.post("/v1/events", event) for _ in range(25) for caller in (service, other)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.content for answer in answers}) == 1
    assert await factory.balance(f"{answers[0].json()['member_id']}:PTS") == 139
    await factory.assert_books_balance()


async def test_fifty_parallel_events_of_a_new_member_create_one_member(
    service: Caller, factory: Factory, database: Database
) -> None:
    await factory.campaign()
    await service.post("/v1/events", factory.event())
    events = [factory.event(member={"external_id": "newcomer"}, amount=100) for _ in range(50)]
    answers = await asyncio.gather(*(service.post("/v1/events", event) for event in events))
    assert [answer.status_code for answer in answers] == [201] * 50
    [member] = {answer.json()["member_id"] for answer in answers}
    assert await database.raw["members"].count_documents({}) == 2, "the newcomer, and who came before"
    assert await factory.balance(f"{member}:PTS") == 50
    await factory.assert_books_balance()


async def test_events_right_after_an_activation_use_the_campaign(service: Caller, factory: Factory) -> None:
    await service.post("/v1/events", factory.event())
    await factory.campaign()
    answers = await asyncio.gather(*(service.post("/v1/events", factory.event()) for _ in range(30)))
    assert [len(answer.json()["awards"]) for answer in answers] == [1] * 30
    await factory.assert_books_balance()


async def test_first_events_of_a_new_process_use_the_active_campaigns(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign()
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        other = anonymous.with_token(service.token)
        assert (await other.get("/v1/members")).status_code == 200
        answers = await asyncio.gather(*(other.post("/v1/events", factory.event()) for _ in range(30)))
    assert [len(answer.json()["awards"]) for answer in answers] == [1] * 30
    await factory.assert_books_balance()
