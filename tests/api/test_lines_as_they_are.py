"""Lines of orders as shops have them: weighed goods, and discounts as lines below zero."""

from typing import Any

import pytest

from guerdon.database import Database
from tests.clients import Caller, problem
from tests.factories import Factory

GBP = {"currency": "GBP"}
CHEESE: dict[str, Any] = {"sku": "CHEESE", "quantity": "0.352", "unit_price": 2490, "category": "cheese"}
CUP: dict[str, Any] = {"sku": "CUP", "quantity": 1, "unit_price": 1000}
TEA: dict[str, Any] = {"sku": "TEA", "quantity": 1, "unit_price": 2000, "category": "tea"}
COUPON: dict[str, Any] = {"sku": "COUPON", "quantity": 1, "unit_price": -500, "category": "discount"}


async def earn(service: Caller, event: dict[str, Any], status: int = 201) -> int:
    answer = await service.post("/v1/events", {**event, "member": {"external_id": "ada"}})
    assert answer.status_code == status, answer.text
    return sum(award["amount"] for award in answer.json()["awards"])


async def test_weighed_goods_earn_by_their_exact_cost_and_are_returned_in_parts(
    service: Caller, factory: Factory, database: Database
) -> None:
    await factory.campaign(items={"categories": ["cheese"]}, award={"type": "per_amount", "points": 1, "per": 1})
    event = factory.event(amount=1876, member={"external_id": "ada"}, items=[CHEESE, CUP])
    assert await earn(service, event) == 876, "0.352 times 24.90 is 8.7648"
    same = {**event, "items": [{**CHEESE, "quantity": "0.3520"}, CUP]}
    assert (await service.post("/v1/events", same)).status_code == 200, "the content is compared, not its spelling"
    problem(await service.post("/v1/events", {**event, "items": [{**CHEESE, "quantity": "0.353"}, CUP]}), 422, "event-id-reused")
    [stored] = [row async for row in database.raw["events"].find({})]
    assert [line["quantity"] for line in stored["items"]] == ["0.352", 1]
    assert (await service.post(f"/v1/events/{event['id']}/replay")).json()["outcome"] == "equal"
    back = {"type": "refund", "refund_of": event["id"]}
    taken = 0
    for number, (part, amount) in enumerate([("0.1", 249), ("0.052", 129), ("0.2", 498)]):
        items = [{**CHEESE, "quantity": part}]
        taken -= await earn(service, factory.event(id=f"back-{number}", amount=amount, items=items, **back))
        assert taken >= 876 * [0.1, 0.152, 0.352][number] / 0.352 - 1e-6
    assert taken == 876
    assert await earn(service, factory.event(id="cup", amount=1000, items=[CUP], **back)) == 0
    await factory.assert_books_balance()


@pytest.mark.parametrize("quantity", [0.352, "0.0000001", "1e3", "NaN", "0", "-0.5", -1, 0, "1,5", 10**7, True])
async def test_other_quantity_is_refused_in_purchases_and_baskets(service: Caller, factory: Factory, quantity: Any) -> None:
    items = [{**CUP, "quantity": quantity}]
    refused = problem(await service.post("/v1/events", factory.event(items=items)), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/items/0/quantity"]
    if quantity == 0.352:
        words = 'must be a whole number, or a decimal above 0 with at most six places, in quotes, such as "0.352"'
        assert refused["errors"][0]["detail"] == words
    code = (await factory.voucher(await factory.offer(), await factory.member()))["code"]
    answer = await service.post(f"/v1/vouchers/{code}/validate", {"amount": 1000, **GBP, "items": items})
    assert [error["pointer"] for error in problem(answer, 422, "validation")["errors"]] == ["/items/0/quantity"]


async def test_order_with_a_discount_line_earns_what_was_paid_for_its_articles(service: Caller, factory: Factory) -> None:
    await factory.campaign(items={"categories": ["tea"]}, award={"type": "per_amount", "points": 1, "per": 1})
    assert await earn(service, factory.event(id="1", amount=1500, items=[TEA, COUPON])) == 1500
    assert await earn(service, factory.event(id="2", amount=2500, items=[TEA, CUP, COUPON])) == 1667, "a third of it is for the cup"
    assert await earn(service, factory.event(id="3", amount=2500, items=[TEA, CUP, {**COUPON, "sku": "CUP"}])) == 2000
    assert await earn(service, factory.event(id="4", amount=2500, items=[TEA, CUP, {**COUPON, "category": "tea"}])) == 1500
    assert await earn(service, factory.event(id="5", amount=1, items=[TEA, {**COUPON, "unit_price": -9000}])) == 0, (
        "never below zero"
    )
    for number, earned in ((1, 1500), (2, 1667), (3, 2000), (4, 1500)):
        replayed = (await service.post(f"/v1/events/{number}/replay")).json()
        assert replayed["outcome"] == "equal"
        lines = [TEA, COUPON] if number == 1 else [TEA]
        back = factory.event(id=f"back-{number}", type="refund", refund_of=str(number), amount=1500, items=lines)
        assert await earn(service, back) == -earned, "all of the tea is returned, and its award with it"
    await factory.assert_books_balance()


async def test_refund_by_amount_of_an_order_with_a_discount_line(service: Caller, factory: Factory) -> None:
    await factory.campaign(items={"categories": ["tea"]}, award={"type": "per_amount", "points": 1, "per": 1})
    assert await earn(service, factory.event(id="1", amount=2500, items=[TEA, CUP, COUPON])) == 1667
    back = {"type": "refund", "refund_of": "1", "amount": 1250}
    taken = [await earn(service, factory.event(id=f"back-{number}", **back)) for number in (1, 2)]
    assert (sum(taken), taken[0]) == (-1667, -834)
    await factory.assert_books_balance()


async def test_item_voucher_in_a_basket_with_weights_and_discounts(service: Caller, factory: Factory) -> None:
    offer = await factory.offer(kind="item", value={"type": "item", "sku": "CHEESE", "quantity": 1})
    member = await factory.member()
    cheese = {name: value for name, value in CHEESE.items() if name != "category"}
    for items, discount in (
        ([cheese, CUP], 876),
        ([cheese, {**cheese, "quantity": "0.9", "unit_price": 3000}], 2700 + 249),
        ([{**cheese, "quantity": 3}], 2490),
        ([cheese, {**cheese, "unit_price": -100}], 876),
    ):
        code = (await factory.voucher(offer, member))["code"]
        answer = await service.post(f"/v1/vouchers/{code}/use", {"amount": 5000, **GBP, "items": items})
        assert answer.status_code == 200, answer.text
        assert answer.json()["discount"] == discount
    code = (await factory.voucher(offer, member))["code"]
    basket = {"amount": 5000, **GBP, "items": [CUP, {**cheese, "unit_price": -100}]}
    problem(await service.post(f"/v1/vouchers/{code}/use", basket), 409, "not-applicable")
    await factory.assert_books_balance()


async def test_conditions_read_quantities_with_decimals(service: Caller, factory: Factory) -> None:
    await factory.campaign(
        condition="event.items.exists(i, i.quantity > 0.35 && i.quantity < 1)", award={"type": "fixed", "amount": 7}
    )
    assert await earn(service, factory.event(id="1", amount=876, items=[CHEESE])) == 7
    assert await earn(service, factory.event(id="2", amount=1000, items=[CUP])) == 0
    await factory.assert_books_balance()
