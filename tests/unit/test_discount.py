"""What a voucher is worth to a basket, against fractions; and what it does not fit."""

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import NotApplicable, Validation
from guerdon.money import AMOUNT_MAX, Rounding
from guerdon.offers.models import BasketMinimum, FixedValue, ItemValue, PercentValue, Value
from guerdon.vouchers.models import OfferKind, Voucher
from guerdon.vouchers.pos.discount import Discount, discount_of, reserved_discount
from guerdon.vouchers.pos.models import Basket, BasketItem

amounts = st.integers(1, AMOUNT_MAX) | st.integers(1, 1000)
percents = st.decimals(0, 100, places=4).map(lambda number: f"{number:f}")


def voucher(value: Value | None, kind: OfferKind = "discount", minimum: BasketMinimum | None = None) -> Voucher:
    return Voucher(
        id="vch_1", owner="mem_1", member="mem_1", offer="off_1", offer_version=1, name="something", kind=kind, code="X", value=value,
        minimum_basket=minimum, account="mem_1:uses.vch_1", issued_at=0,
    )  # fmt: skip


def pounds(amount: int) -> Basket:
    return Basket(amount=amount, currency="GBP")


@given(amounts, percents, st.sampled_from(["floor", "ceil", "half_even"]), st.none() | amounts)
def test_a_percentage_is_exact_and_rounded_once(amount: int, percent: str, rounding: Rounding, maximum: int | None) -> None:
    exact = Fraction(percent) / 100 * amount
    rounded = {"floor": floor, "ceil": ceil, "half_even": round}[rounding](exact)
    expected = min(rounded, amount, AMOUNT_MAX if maximum is None else maximum)
    value = PercentValue(percent, rounding, maximum, None if maximum is None else "GBP")
    assert discount_of(voucher(value), pounds(amount), 1) == Discount(expected, 1, "GBP")


@given(amounts, amounts)
def test_a_fixed_discount_is_never_more_than_the_basket(amount: int, off: int) -> None:
    assert discount_of(voucher(FixedValue(off, "GBP")), pounds(amount), 1) == Discount(min(off, amount), 1, "GBP")


@given(amounts, st.integers(0, AMOUNT_MAX))
def test_gift_card_discount_is_bounded_by_its_balance(amount: int, left: int) -> None:
    card = voucher(FixedValue(AMOUNT_MAX, "GBP"), "gift_card")
    given = discount_of(card, pounds(amount), left)
    assert (given.discount, given.takes) == (min(amount, left), min(amount, left))
    assert reserved_discount(card, Basket(), left).takes == left


def test_item_voucher_discounts_the_price_in_the_basket() -> None:
    two = voucher(ItemValue("cup", 2), "item")
    items = [BasketItem("cup", 1, 300), BasketItem("tea", 9, 700), BasketItem("cup", 4, 250)]
    assert discount_of(two, Basket(items=items, currency="GBP"), 1) == Discount(550, 1, "GBP")
    assert discount_of(two, Basket(items=items[:1]), 1).discount == 300, "only as many as there are"
    assert discount_of(two, Basket(), 1).discount is None, "the till knows"
    with pytest.raises(NotApplicable):
        discount_of(two, Basket(items=items[1:2]), 1)
    assert discount_of(voucher(None, "external_code"), Basket(), 1) == Discount(None, 1)


def test_inapplicable_voucher_is_refused_with_its_reason() -> None:
    fixed = voucher(FixedValue(500, "GBP"), minimum=BasketMinimum(2000, "GBP"))
    assert discount_of(fixed, pounds(2000), 1).discount == 500
    with pytest.raises(NotApplicable) as refused:
        discount_of(fixed, pounds(1999), 1)
    assert refused.value.members == {"reason": "minimum_basket", "minimum": 2000, "currency": "GBP", "amount": 1999}
    with pytest.raises(NotApplicable) as refused:
        discount_of(fixed, Basket(amount=5000, currency="EUR"), 1)
    assert refused.value.members == {"reason": "currency", "currency": "GBP"}
    for incomplete in (Basket(), Basket(amount=5000)):
        with pytest.raises(Validation):
            discount_of(fixed, incomplete, 1)
