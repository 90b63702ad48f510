"""Refunds that name their items, and campaigns that are about certain items."""

from typing import Any

import pytest

from tests.clients import Caller, problem
from tests.factories import Factory

ADA = {"external_id": "ada"}
TEA, CUP = {"sku": "tea", "unit_price": 300, "category": "tea"}, {"sku": "cup", "unit_price": 1000, "category": "china"}
BASKET = [{**TEA, "quantity": 4}, {**CUP, "quantity": 2}]


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


def total(recorded: dict[str, Any]) -> int:
    return sum(award["amount"] for award in recorded["awards"])


def back(factory: Factory, purchase: str, amount: int, **items: int) -> dict[str, Any]:
    lines = [{"sku": sku, "quantity": quantity} for sku, quantity in items.items()]
    return factory.event(type="refund", refund_of=purchase, member=ADA, amount=amount, items=lines)


TENTH = {"type": "percent", "percent": "10"}


async def test_item_campaign_computes_its_award_from_matching_items(service: Caller, factory: Factory) -> None:
    await factory.campaign(award=TENTH, items={"categories": ["tea"]})
    bought = await record(service, factory.event(member=ADA, amount=3200, items=BASKET))
    assert total(bought) == 120
    assert bought["decisions"][0]["reasons"] == [
        "1200 of 3200 is of the campaign's items; 10 percent: 1200 gives 120 (rounding floor)"
    ]
    other = await record(service, factory.event(member=ADA, amount=2000, items=[{**CUP, "quantity": 2}]))
    assert (other["decisions"][0]["outcome"], total(other)) == ("not_matched", 0)
    # A price that was lowered at the till: no more than what was paid.
    assert total(await record(service, factory.event(member=ADA, amount=1000, items=BASKET))) == 100
    problem(await service.post("/v1/campaigns", {"name": "x", "asset": "PTS", "event_types": ["purchase"], "award": TENTH, "items": {}}), 422, "validation")  # fmt: skip
    await factory.assert_books_balance()


async def test_item_refund_takes_back_what_the_items_earned(service: Caller, factory: Factory) -> None:
    """Tea earns by its own campaign, everything by another: the one knows which items came back, the other only how much."""
    tea = await factory.campaign(award=TENTH, items={"skus": ["tea"]})
    await factory.campaign(award={"type": "per_amount", "points": 1, "per": 100})
    bought = await record(service, factory.event(member=ADA, amount=3200, items=BASKET))
    assert [award["amount"] for award in bought["awards"]] == [120, 32]
    cup = await record(service, back(factory, bought["id"], 1000, cup=1))
    assert [award["amount"] for award in cup["awards"]] == [-10]
    steps = [await record(service, back(factory, bought["id"], 300, tea=1)) for _ in range(2)]
    assert [award["amount"] for step in steps for award in step["awards"] if award["campaign"] == tea] == [-30, -30]
    # More tea than there was, and something that was not bought.
    rest = await record(service, back(factory, bought["id"], 900, tea=9, gin=1))
    assert [award["amount"] for award in rest["awards"] if award["campaign"] == tea] == [-60]
    again = await record(service, back(factory, bought["id"], 700, tea=1))
    assert [award["amount"] for award in again["awards"] if award["campaign"] == tea] == []
    assert await factory.balance(f"{bought['member_id']}:PTS") == 0
    await factory.assert_books_balance()


@pytest.mark.parametrize("early", [False, True])
async def test_refunds_with_and_without_items_take_each_award_once(service: Caller, factory: Factory, early: bool) -> None:
    await factory.campaign(award=TENTH, items={"skus": ["tea"]})
    purchase = factory.event(member=ADA, amount=3200, items=BASKET)
    refunds = [back(factory, purchase["id"], 600, tea=2), back(factory, purchase["id"], 800), back(factory, purchase["id"], 10**6)]
    order = [*refunds, purchase] if early else [purchase, *refunds]
    recorded = [await record(service, event) for event in order]
    if early:
        assert [award["amount"] for award in recorded[-1]["awards"]] == [120, -120]
    else:
        assert [total(each) for each in recorded] == [120, -60, -30, -30]
    assert await factory.balance(f"{recorded[0]['member_id']}:PTS") == 0
    await factory.assert_books_balance()


async def test_an_unlinked_refund_of_items_takes_back_what_they_earn(service: Caller, factory: Factory) -> None:
    await factory.campaign(award=TENTH, items={"categories": ["tea"]})
    bought = await record(service, factory.event(member=ADA, amount=3200, items=BASKET))
    cups = factory.event(type="refund", member=ADA, amount=1000, items=[{**CUP, "quantity": 1}])
    assert total(await record(service, cups)) == 0
    assert total(await record(service, factory.event(type="refund", member=ADA, amount=300, items=[{**TEA, "quantity": 1}]))) == -30
    assert await factory.balance(f"{bought['member_id']}:PTS") == 90
    await factory.assert_books_balance()


async def test_refused_expression_reports_line_and_column(service: Caller) -> None:
    body = {"name": "x", "asset": "PTS", "event_types": ["purchase"], "award": TENTH, "condition": "event.amount > 1\n  && foo"}
    [error] = problem(await service.post("/v1/campaigns", body), 422, "validation")["errors"]
    assert (error["pointer"], error["line"], error["column"]) == ("/condition", 2, 6)


async def test_birthday_award_follows_the_calendar_and_its_yearly_cap(service: Caller, factory: Factory) -> None:
    fixed = {"type": "fixed", "amount": 50}
    cap = {"scope": "member", "period": "year", "limit": 50}
    await factory.campaign(award=fixed, condition="member.birthday_today", caps=[cap])
    await service.post("/v1/members", {"external_id": "ada", "email": None, "attributes": {"birthday": "1992-02-29"}})
    days = ("2023-02-27", "2023-02-28", "2023-02-28", "2024-02-28", "2024-02-29", "2025-03-01")
    earned = [total(await record(service, factory.event(member=ADA, occurred_at=f"{day}T12:00:00Z"))) for day in days]
    assert earned == [0, 50, 0, 0, 50, 0]
    stranger = await record(service, factory.event(occurred_at="2023-02-28T12:00:00Z"))
    assert stranger["decisions"][0]["outcome"] == "not_matched"
    await factory.assert_books_balance()
