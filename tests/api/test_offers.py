"""Offers and what is redeemed from them, over HTTP."""

from typing import Any

from tests.clients import Caller, problem
from tests.factories import Factory


async def test_a_voucher_costs_its_price_and_counts_against_stock_and_limit(service: Caller, factory: Factory) -> None:
    offer = await factory.offer(stock=2, per_member_limit=1, price={"asset": "PTS", "amount": 300}, voucher_valid_days=90)
    wallet = await factory.wallet(1000)
    member = wallet.partition(":")[0]
    answer = await service.post(f"/v1/offers/{offer}/redeem", {"member_id": member})
    assert answer.status_code == 201, answer.text
    redeemed: dict[str, Any] = answer.json()
    assert redeemed["voucher"]["status"] == "issued"
    assert redeemed["transaction"]["kind"] == "redeem"
    assert redeemed["transaction"]["balance"] == 700
    assert await factory.balance(wallet) == 700
    limited = problem(await service.post(f"/v1/offers/{offer}/redeem", {"member_id": member}), 409, "limit-reached")
    assert (limited["period"], limited["limit"], limited["redeemed"]) == ("ever", 1, 1)
    shown = (await service.get(f"/v1/vouchers/{redeemed['voucher']['code']}")).json()
    assert shown == redeemed["voucher"]
    assert (await service.get(f"/v1/members/{member}/vouchers")).json()["items"] == [shown]
    seen = (await service.get(f"/v1/offers/{offer}")).json()
    assert (seen["stock"], seen["issued"], seen["left"]) == (2, 1, 1)
    await factory.assert_books_balance()
