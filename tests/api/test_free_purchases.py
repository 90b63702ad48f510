"""Purchases of 0, which vouchers or gift cards have paid, lines of 0, and their refunds."""

from typing import Any

import pytest

from tests.clients import Caller, problem
from tests.factories import Factory

ADA = {"external_id": "ada"}
CUP, TEA = {"sku": "cup", "quantity": 1, "unit_price": 0}, {"sku": "tea", "quantity": 3}
STAMP = {"type": "fixed", "amount": 6}


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


def total(recorded: dict[str, Any]) -> int:
    return sum(award["amount"] for award in recorded["awards"])


def refund(factory: Factory, purchase: str, amount: int = 0, **changes: Any) -> dict[str, Any]:
    return factory.event(type="refund", refund_of=purchase, member=ADA, amount=amount, **changes)


async def test_a_purchase_of_0_earns_what_does_not_depend_on_its_amount(service: Caller, factory: Factory) -> None:
    awards = (
        (STAMP, 6), ({"type": "percent", "percent": "10"}, 0), ({"type": "per_amount", "points": 1, "per": 100}, 0),
        ({"type": "formula", "expression": "event.amount + 2"}, 2),
    )  # fmt: skip
    expected = {await factory.campaign(award=award): amount for award, amount in awards}
    event = factory.event(member=ADA, amount=0, items=[CUP, TEA])
    preview = (await service.post("/v1/events/preview", event, key=None)).json()
    bought = await record(service, event)
    for answer in (preview, bought):
        assert {each["campaign"]: each["amount"] for each in answer["decisions"]} == expected
        assert {each["outcome"] for each in answer["decisions"] if not each["amount"]} == {"not_matched"}
    results = (await service.post("/v1/events/bulk", {"events": [factory.event(member=ADA, amount=0)]}, key=None)).json()["results"]
    assert [result["status"] for result in results] == [201]
    await factory.assert_books_balance()


async def test_a_purchase_of_0_is_the_first_and_the_last_purchase(service: Caller, factory: Factory) -> None:
    await factory.campaign(award=STAMP, condition="member.first_purchase", event_types=["purchase"])
    await factory.campaign(
        award={"type": "fixed", "amount": 100}, condition="member.days_since_last >= 2", event_types=["purchase"]
    )
    assert total(await record(service, factory.event(member=ADA, amount=0, occurred_at="2026-01-01T12:00:00Z"))) == 6
    later = await record(service, factory.event(member=ADA, occurred_at="2026-01-04T12:00:00Z"))
    assert (total(later), later["inputs"]["purchases"]) == (100, 1)
    await factory.assert_books_balance()


async def test_purchases_of_0_count_towards_a_streak_and_stop_counting_when_refunded(service: Caller, factory: Factory) -> None:
    await factory.campaign(
        award=STAMP, event_types=["purchase"], achievement={"events": 3, "within": {"type": "streak", "unit": "day"}}
    )
    days = [f"2026-01-0{day}T12:00:00Z" for day in (1, 2, 3)]
    bought = [await record(service, factory.event(member=ADA, amount=0, occurred_at=day, items=[TEA])) for day in days]
    assert [total(each) for each in bought] == [0, 0, 6]
    third = [{"sku": "tea", "quantity": 1}]
    assert total(await record(service, refund(factory, bought[0]["id"], items=third))) == 0
    assert total(await record(service, refund(factory, bought[0]["id"], items=third))) == -6
    # A refund that came first: half of the purchase does not count.
    await record(service, refund(factory, "early"))
    early = await record(service, factory.event(id="early", member=ADA, amount=0, occurred_at=days[0]))
    assert early["decisions"][0]["reasons"] == ["half of it was refunded before it arrived"]
    await factory.assert_books_balance()


@pytest.mark.parametrize("items", [[], [TEA], [CUP, TEA]])
@pytest.mark.parametrize("amount", [0, 500])
async def test_a_refund_without_items_takes_back_all_of_a_purchase_of_0(
    service: Caller, factory: Factory, items: list[dict[str, Any]], amount: int
) -> None:
    await factory.campaign(award=STAMP)
    await factory.campaign(award={"type": "fixed", "amount": 30}, items={"skus": ["tea"]})
    for early in (False, True):
        bought = factory.event(member=ADA, amount=0, items=items)
        first, second = (
            (refund(factory, bought["id"], amount), bought) if early else (bought, refund(factory, bought["id"], amount))
        )
        assert total(await record(service, first)) + total(await record(service, second)) == 0
        again = await record(service, refund(factory, bought["id"]))
        assert total(again) == 0
    await factory.assert_books_balance()


async def test_refunds_with_items_take_back_the_share_of_the_items(service: Caller, factory: Factory) -> None:
    await factory.campaign(award=STAMP)
    await factory.campaign(award={"type": "fixed", "amount": 30}, items={"skus": ["tea"]})
    one = [{"sku": "tea", "quantity": 1}]
    for early in (False, True):
        bought = factory.event(member=ADA, amount=0, items=[TEA])
        if early:
            await record(service, refund(factory, bought["id"], items=one))
            assert total(await record(service, bought)) == 24
        else:
            assert total(await record(service, bought)) == 36
            assert total(await record(service, refund(factory, bought["id"], items=one))) == -12
        assert [total(await record(service, refund(factory, bought["id"], items=one))) for _ in range(3)] == [-12, -12, 0]
    # A purchase that did not state its items.
    bought = await record(service, factory.event(member=ADA, amount=0))
    assert total(await record(service, refund(factory, bought["id"], items=one))) == -6
    await factory.assert_books_balance()


async def test_a_line_of_0_is_free_and_refunds_take_back_all_that_was_earned(service: Caller, factory: Factory) -> None:
    await factory.campaign(items={"skus": ["pen"]}, award={"type": "per_amount", "points": 1, "per": 10})
    pen = {"sku": "pen", "quantity": 1}
    bought = await record(
        service, factory.event(member=ADA, amount=1000, items=[{**pen, "unit_price": 1000}, {**pen, "unit_price": 0}, {**CUP}])
    )
    assert total(bought) == 100
    assert total(await record(service, refund(factory, bought["id"], items=[{"sku": "cup", "quantity": 1}]))) == 0
    taken = [total(await record(service, refund(factory, bought["id"], 500, items=[pen]))) for _ in range(3)]
    assert taken == [-50, -50, 0]
    await factory.assert_books_balance()


async def test_amounts_and_prices_that_are_refused(service: Caller, factory: Factory) -> None:
    for event, pointer in (
        (factory.event(amount=-1), "/amount"),
        (factory.event(amount=0, currency=None), "/currency"),
        (factory.event(type="refund", amount=0), "/amount"),
        (factory.event(items=[{**CUP, "unit_price": -1_000_000_000_000_001}]), "/items/0/unit_price"),
    ):
        answer = await service.post("/v1/events", event, key=None)
        assert [fault["pointer"] for fault in problem(answer, 422, "validation")["errors"]] == [pointer]
    assert (await service.get("/v1/events/none")).status_code == 404
