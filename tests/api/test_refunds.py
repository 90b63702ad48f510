"""Refunds that name their purchase: proportional, to the very lot, in any order, and never more than there was."""

import asyncio
from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import count_rows, serve

ADA = {"external_id": "ada"}


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


def refund(factory: Factory, purchase: str, amount: int, **changes: Any) -> dict[str, Any]:
    return factory.event(type="refund", refund_of=purchase, member=ADA, amount=amount, **changes)


def total(recorded: dict[str, Any]) -> int:
    return sum(award["amount"] for award in recorded["awards"])


async def test_partial_refunds_take_back_exactly_the_whole_award(service: Caller, factory: Factory) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA, amount=10_001))
    assert total(bought) == 100
    taken = [total(await record(service, refund(factory, bought["id"], amount))) for amount in (3333, 3333, 3334, 1)]
    assert taken == [-34, -33, -33, 0]
    assert await factory.balance(f"{bought['member_id']}:PTS") == 0
    late = await record(service, refund(factory, bought["id"], 5000))
    assert (total(late), late["decisions"][0]["outcome"]) == (0, "not_matched")
    assert "5000 more than the purchase are left out" in late["decisions"][0]["reasons"]
    await factory.assert_books_balance()


async def test_refund_larger_than_its_purchase_takes_back_only_its_award(service: Caller, factory: Factory) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA, amount=5000))
    assert total(await record(service, refund(factory, bought["id"], 10**9))) == -50
    await factory.assert_books_balance()


async def test_the_same_refund_twice_is_one(service: Caller, factory: Factory) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA, amount=5000))
    event = refund(factory, bought["id"], 5000)
    answers = await asyncio.gather(*(service.post("/v1/events", event, key=None) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert await factory.balance(f"{bought['member_id']}:PTS") == 0
    await factory.assert_books_balance()


async def test_many_refunds_at_once_take_the_award_once(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        events = [refund(factory, bought["id"], 1000) for _ in range(40)]
        answers = await asyncio.gather(*(callers[n % 2].post("/v1/events", event, key=None) for n, event in enumerate(events)))
    assert sorted(total(answer.json()) for answer in answers) == [-10] * 10 + [0] * 30
    await factory.assert_books_balance()


@pytest.mark.parametrize("amounts", [(4000,), (1000, 3000), (20_000,)])
async def test_a_refund_may_come_before_its_purchase(service: Caller, factory: Factory, amounts: tuple[int, ...]) -> None:
    await factory.campaign()
    for amount in amounts:
        early = await record(service, refund(factory, "order-x", amount))
        assert (early["awards"], early["decisions"], early["note"]) == ([], [], "it waits for its purchase, order-x")
    bought = await record(service, factory.event(id="order-x", member=ADA, amount=10_000))
    kept = 100 - min(sum(amounts), 10_000) // 100
    assert (bought["awards"][0]["amount"], total(bought)) == (100, kept)
    assert await factory.balance(f"{bought['member_id']}:PTS") == kept
    assert total(await record(service, refund(factory, "order-x", 10_000))) == -kept
    await factory.assert_books_balance()


async def test_concurrent_purchase_and_full_refund_leave_no_award(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign()
    await factory.member("ada")
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        other = anonymous.with_token(service.token)
        for number in range(30):
            bought = factory.event(id=f"meet-{number}", member=ADA, amount=1000)
            back = refund(factory, f"meet-{number}", 1000)
            first, second = (bought, back) if number % 2 else (back, bought)
            answers = await asyncio.gather(service.post("/v1/events", first, key=None), other.post("/v1/events", second, key=None))
            assert [answer.status_code for answer in answers] == [201, 201]
            assert sum(total(answer.json()) for answer in answers) == 0
            member = answers[0].json()["member_id"]
    assert await factory.balance(f"{member}:PTS") == 0
    await factory.assert_books_balance()


async def test_refund_takes_value_from_the_lot_of_its_award(service: Caller, factory: Factory, clock: ManualClock) -> None:
    short = await factory.campaign(award={"type": "fixed", "amount": 10}, expiry={"type": "after_days", "days": 2})
    bought = await record(service, factory.event(member=ADA, amount=1000))
    await service.post(f"/v1/campaigns/{short}/end")
    await factory.campaign(award={"type": "fixed", "amount": 90}, pending={"type": "days", "days": 3})
    second = await record(service, factory.event(member=ADA, amount=1000))
    wallet = f"/v1/wallets/{bought['member_id']}:PTS"
    assert total(await record(service, refund(factory, second["id"], 1000))) == -90
    read = (await service.get(wallet)).json()
    assert (read["balance"], read["available"], read["pending"]) == (10, 10, 0)
    clock.advance(days=4)
    assert (await service.get(wallet)).json()["available"] == 0
    await factory.assert_books_balance()


@pytest.mark.parametrize(("clawback", "balance"), [("none", 40), ("up_to_balance", 0), ("debt", -60)])
async def test_spent_awards_follow_the_clawback_policy(service: Caller, factory: Factory, clawback: str, balance: int) -> None:
    await factory.campaign(clawback=clawback)
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    wallet = f"{bought['member_id']}:PTS"
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 60})).status_code == 201
    await record(service, refund(factory, bought["id"], 10_000))
    assert await factory.balance(wallet) == balance
    await factory.assert_books_balance()


async def test_clawback_policy_of_the_purchase_outlives_campaign_changes(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(clawback="none")
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 1}, "clawback": "debt"}
    assert (await service.put(f"/v1/campaigns/{campaign}", body)).status_code == 200
    assert (await service.post(f"/v1/campaigns/{campaign}/end")).status_code == 200
    assert total(await record(service, refund(factory, bought["id"], 10_000))) == 0
    await factory.assert_books_balance()


async def test_refund_restores_caps_and_budget_in_the_purchase_period(service: Caller, factory: Factory) -> None:
    await factory.campaign(budget=150, caps=[{"scope": "member", "period": "day", "limit": 100}])
    bought = await record(service, factory.event(member=ADA, amount=50_000, occurred_at="2026-01-31T12:00:00Z"))
    assert total(bought) == 100
    assert total(await record(service, factory.event(member=ADA, amount=50_000, occurred_at="2026-01-31T13:00:00Z"))) == 0
    back = refund(factory, bought["id"], 25_000, occurred_at="2026-02-15T12:00:00Z")
    assert total(await record(service, back)) == -50
    again = [
        total(await record(service, factory.event(member=ADA, amount=50_000, occurred_at=f"2026-{day}T14:00:00Z")))
        for day in ("01-31", "01-31", "02-15")
    ]
    assert again == [50, 0, 50]
    await factory.assert_books_balance()


async def test_early_refund_restores_caps_and_budget(service: Caller, factory: Factory) -> None:
    await factory.campaign(budget=100, caps=[{"scope": "member", "period": "day", "limit": 100}])
    await record(service, refund(factory, "order-x", 10_000))
    assert total(await record(service, factory.event(id="order-x", member=ADA, amount=10_000))) == 0
    assert total(await record(service, factory.event(member=ADA, amount=10_000))) == 100
    await factory.assert_books_balance()


async def test_refund_never_repays_a_debt_of_another_campaign(service: Caller, factory: Factory) -> None:
    for priority, clawback in ((5, "debt"), (1, "up_to_balance")):
        await factory.campaign(clawback=clawback, stacking={"priority": priority})
    recorded = await record(service, factory.event(type="refund", member=ADA, amount=10_000))
    assert [decision["amount"] for decision in recorded["decisions"]] == [-100, 0]
    assert await factory.balance(f"{recorded['member_id']}:PTS") == -100
    bought = factory.event(id="order-y", member=ADA, amount=3000)
    await record(service, refund(factory, "order-y", 3000))
    assert [award["amount"] for award in (await record(service, bought))["awards"]] == [30, 30, -30]
    assert await factory.balance(f"{recorded['member_id']}:PTS") == -70
    await factory.assert_books_balance()


async def test_earning_refunding_and_spending_in_a_loop_nets_nothing(service: Caller, factory: Factory) -> None:
    await factory.campaign()
    spent = 0
    for _ in range(6):
        bought = await record(service, factory.event(member=ADA, amount=10_000))
        wallet = f"{bought['member_id']}:PTS"
        available = (await service.get(f"/v1/wallets/{wallet}")).json()["available"]
        if available > 0:
            assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": available})).status_code == 201
            spent += available
        await record(service, refund(factory, bought["id"], 10_000))
    assert spent + await factory.balance(wallet) <= 0
    await factory.assert_books_balance()


async def test_member_can_refund_only_their_own_purchase(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    returned = await record(service, refund(factory, bought["id"], 1))
    await factory.member("bob")
    before = await count_rows(database)
    unknown = {"member": {"external_id": "unknown"}}
    answer = await service.post("/v1/events/bulk", {"events": [{**refund(factory, bought["id"], 1), **unknown}]}, key=None)
    assert [result["status"] for result in answer.json()["results"]] == [422]
    for changes in (
        unknown,
        {"member": {"external_id": "bob"}},
        {"refund_of": returned["id"]},
        {"type": "purchase"},
        {"id": bought["id"]},
    ):
        refused = problem(
            await service.post("/v1/events", {**refund(factory, bought["id"], 1), **changes}, key=None), 422, "validation"
        )
        assert refused["errors"][0]["pointer"] == "/refund_of"
    assert await count_rows(database) == before
    await factory.assert_books_balance()


# --- the currency of the purchase -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bulk", [False, True])
async def test_refund_in_another_currency_than_its_purchase_is_refused(
    service: Caller, factory: Factory, database: Database, bulk: bool
) -> None:
    """Also by a preview. The id of the event stays free."""
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    event = refund(factory, bought["id"], 10_000, currency="JPY")
    before = await count_rows(database)
    preview = problem(await service.post("/v1/events/preview", event, key=None), 422, "validation")
    refused = preview
    if bulk:
        answer = await service.post("/v1/events/bulk", {"events": [event]}, key=None)
        [result] = answer.json()["results"]
        assert (result["status"], "event" in result) == (422, False)
        refused = result["problem"]
    else:
        refused = problem(await service.post("/v1/events", event, key=None), 422, "validation")
    for each in (preview, refused):
        assert [(error["pointer"], error["detail"]) for error in each["errors"]] == [
            ("/currency", "the purchase is in GBP; refund it in the same currency")
        ]
    assert await count_rows(database) == before
    assert total(await record(service, {**event, "currency": "GBP"})) == -100
    await factory.assert_books_balance()


async def test_early_refund_in_another_currency_is_not_combined_with_its_purchase(service: Caller, factory: Factory) -> None:
    """Only refunds in the currency of the purchase count when it arrives, and half of it is not refunded for an achievement either."""
    await factory.campaign()
    await factory.campaign(
        event_types=["purchase"],
        award={"type": "fixed", "amount": 7},
        achievement={"events": 2, "within": {"type": "days", "days": 30}},
    )
    for amount, currency in ((9000, "JPY"), (2000, "GBP"), (500, "JPY"), (1000, "GBP")):
        early = await record(service, refund(factory, "order-x", amount, currency=currency))
        assert (early["awards"], early["note"]) == ([], "it waits for its purchase, order-x")
    assert early["inputs"]["refunded_before"] == 2000
    await record(service, factory.event(member=ADA, amount=99))
    event = factory.event(id="order-x", member=ADA, amount=10_000)
    preview = (await service.post("/v1/events/preview", event, key=None)).json()
    bought = await record(service, event)
    assert [award["amount"] for award in bought["awards"]] == [100, 7, -30]
    assert (
        bought["note"]
        == preview["note"]
        == ("3000 were refunded before it arrived; refunds of 9500 in JPY that arrived before it are left out: it is in GBP")
    )
    assert total(await record(service, refund(factory, "order-x", 10_000))) == -77
    await factory.assert_books_balance()


async def test_purchase_keeps_its_award_if_all_early_refunds_are_in_other_currencies(service: Caller, factory: Factory) -> None:
    await factory.campaign()
    event = refund(factory, "order-x", 10_000, currency="EUR")
    await record(service, event)
    bought = await record(service, factory.event(id="order-x", member=ADA, amount=10_000))
    assert (total(bought), bought["inputs"]["refunded_before"]) == (100, 0)
    assert bought["note"] == "refunds of 10000 in EUR that arrived before it are left out: it is in GBP"
    again = await service.post("/v1/events", event, key=None)
    assert (again.status_code, again.json()["note"]) == (200, "it waits for its purchase, order-x")
    problem(await service.post("/v1/events", {**event, "id": "other"}, key=None), 422, "validation")
    assert total(await record(service, refund(factory, "order-x", 10_000))) == -100
    await factory.assert_books_balance()


async def test_early_refunds_wait_in_a_bounded_number_of_currencies(service: Caller, factory: Factory) -> None:
    for currency in ("JPY", "EUR", "USD", "CHF", "SEK", "SEK"):
        await record(service, refund(factory, "order-x", 100, currency=currency))
    refused = problem(await service.post("/v1/events", refund(factory, "order-x", 100), key=None), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/currency"


async def test_purchase_that_races_with_refunds_in_two_currencies_counts_only_its_own(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign()
    await factory.member("ada")
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        other = anonymous.with_token(service.token)
        for number in range(15):
            name = f"meet-{number}"
            bought, back = factory.event(id=name, member=ADA, amount=1000), refund(factory, name, 1000)
            wrong = refund(factory, name, 1000, currency="JPY")
            events = [(service, bought), (other, wrong), (other, back)]
            answers = await asyncio.gather(*(caller.post("/v1/events", event, key=None) for caller, event in events))
            assert (answers[0].status_code, answers[2].status_code) == (201, 201)
            assert answers[1].status_code in (201, 422)
            assert sum(total(answer.json()) for answer in answers if answer.status_code == 201) == 0
    assert await factory.balance(f"{answers[0].json()['member_id']}:PTS") == 0
    await factory.assert_books_balance()
