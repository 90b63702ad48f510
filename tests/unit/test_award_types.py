"""Refunds of every award type, in any number of parts, take back what its rule says: neither more nor less."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.campaigns.award_types import AWARD_TYPES, REFUND_SHARES, AwardType, taken_back
from guerdon.campaigns.domain import Award, AwardWallet, Item, PurchaseRefunds, Refundable, ReturnedItem
from guerdon.campaigns.models import ItemsOf
from guerdon.campaigns.refunds import RefundRequest, refund
from tests.tidy.award_types import amount_of

OPEN = AwardWallet(balance=10**12, available=10**12)
UNREFUNDED = PurchaseRefunds(id="mem_1/order-1", owner="mem_1")
SKUS = ("tea", "cup", "pot")
every_type = pytest.mark.parametrize("award_type", AWARD_TYPES.values(), ids=lambda each: each.name)
amounts = st.integers(1, 20_000)
items = st.lists(st.builds(Item, sku=st.sampled_from(SKUS), quantity=st.integers(1, 9), unit_price=st.integers(0, 500)), min_size=1)


def award_of(award_type: AwardType[Any], amount: int, wanted: ItemsOf | None = None) -> Award:
    """An award of this type, of the amount of its example or of another one."""
    paid = amount or amount_of(award_type) or 0
    return Award(campaign="cmp_1", version=1, asset="PTS", amount=paid, items=wanted, refund_rule=award_type.refund_rule)


def refund_all(purchase: Refundable, parts: Sequence[RefundRequest]) -> tuple[PurchaseRefunds, list[int]]:
    """Refund a purchase in parts; return its refunds, and what each part took."""
    known, taken = UNREFUNDED, list[int]()
    for part in parts:
        outcome = refund(known, part, purchase, {"PTS": OPEN}, 0)
        known = outcome.refunded
        taken.append(sum(each.amount for each in outcome.taken))
    return known, taken


@every_type
@settings(deadline=None)
@given(paid=st.integers(0, 10**9), whole=amounts, parts=st.lists(amounts, min_size=1, max_size=6))
def test_refunds_by_amount(award_type: AwardType[Any], paid: int, whole: int, parts: list[int]) -> None:
    award = award_of(award_type, paid)
    purchase = Refundable(whole, [award])
    known, taken = refund_all(purchase, [RefundRequest(part) for part in parts])
    share = REFUND_SHARES[award.refund_rule](award, known, purchase)
    assert 0 <= share <= 1
    assert sum(taken) == award.amount - int(award.amount * (1 - share)), "the member keeps the rest, rounded down"
    assert all(part >= 0 for part in taken)
    if sum(parts) >= whole:
        assert sum(taken) == award.amount, "nothing stays of a purchase that is wholly refunded"
    _, at_once = refund_all(purchase, [RefundRequest(sum(parts))])
    assert sum(at_once) == sum(taken), "the number of refunds does not matter"


@every_type
@settings(deadline=None)
@given(paid=st.integers(0, 10**9), bought=items, wanted=st.sets(st.sampled_from(SKUS), min_size=1), data=st.data())
def test_refunds_by_item(award_type: AwardType[Any], paid: int, bought: list[Item], wanted: set[str], data: st.DataObject) -> None:
    whole = max(1, sum(item.quantity * item.unit_price for item in bought))
    award = award_of(award_type, paid, ItemsOf(skus=sorted(wanted)))
    purchase = Refundable(whole, [award], bought)
    if not wanted.intersection(item.sku for item in bought):
        return  # The campaign would not have paid.
    returned = [ReturnedItem(sku=item.sku, quantity=data.draw(st.integers(0, item.quantity))) for item in bought]
    prices = [back.quantity * item.unit_price for back, item in zip(returned, bought, strict=True)]
    parts = [RefundRequest(price, price, (back,)) for price, back in zip(prices, returned, strict=True) if back.quantity]
    known, taken = refund_all(purchase, parts)
    share = REFUND_SHARES[award.refund_rule](award, known, purchase)
    assert 0 <= share <= 1
    assert sum(taken) == award.amount - int(award.amount * (1 - share))
    assert all(part >= 0 for part in taken)
    if not any(back.quantity and back.sku in wanted for back in returned):
        assert sum(taken) == 0, "other articles cost nothing of it"
    if all(back.quantity == item.quantity for back, item in zip(returned, bought, strict=True) if item.sku in wanted):
        assert sum(taken) == award.amount, "nothing stays when all of its articles are returned"


@every_type
@settings(deadline=None)
@given(first=amounts, second=amounts)
def test_more_refunded_is_more_taken_back(award_type: AwardType[Any], first: int, second: int) -> None:
    award, purchase = award_of(award_type, 0), Refundable(40_000, [award_of(award_type, 0)])
    less, more = (
        taken_back(award, PurchaseRefunds(id="mem_1/order-1", owner="mem_1", amount=amount), purchase)
        for amount in (first, first + second)
    )
    assert 0 <= less <= more <= award.amount
    assert more - less <= award.amount * Fraction(second, 40_000) + 1
