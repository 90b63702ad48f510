"""Discount of a voucher on a basket: exact in minor units, rounded once. Pure."""

from fractions import Fraction

from msgspec import Struct

from guerdon.campaigns.award_types import PLACES, scaled
from guerdon.errors import NotApplicable, Validation
from guerdon.money import AmountText, divide
from guerdon.offers.models import FixedValue, ItemValue, PercentValue
from guerdon.quantities import exact, line_cost
from guerdon.vouchers.models import GIFT_CARD, Voucher
from guerdon.vouchers.pos.models import Basket, BasketItem


class Discount(Struct, frozen=True):
    """Discount on a basket, and what it takes from the voucher."""

    discount: int | None
    """Minor units of `currency`. None when only the shop knows it: for an external code, or an item without a price."""
    takes: int
    """Minor units of a gift card, or one use."""
    currency: str | None = None


def discount_of(voucher: Voucher, basket: Basket, left: int) -> Discount:
    """Return the discount of a voucher on a basket. `left` is the part of the voucher that can be taken.

    A discount is at most the amount of the basket, and a gift card pays at most its balance.

    Raises:
        Validation: the basket lacks a field that the voucher needs.
        NotApplicable: the basket is too small, in another currency, or without the voucher's item.
    """
    _require_minimum(voucher, basket)
    match voucher.value:
        case FixedValue(amount, currency):
            basket_amount = _amount_in(basket, currency)
            if voucher.kind == GIFT_CARD:
                paid = min(left, basket_amount)
                return Discount(paid, paid, currency)
            return Discount(min(amount, basket_amount), 1, currency)
        case PercentValue(_, _, maximum, currency) as value:
            basket_amount = _amount_in(basket, currency)
            share = divide(basket_amount * scaled(value.percent), 100 * PLACES, value.rounding)
            return Discount(min(share, basket_amount if maximum is None else min(maximum, basket_amount)), 1, basket.currency)
        case ItemValue(sku, quantity):
            return Discount(_price_of(basket.items, sku, quantity), 1, basket.currency)
        case None:
            return Discount(None, 1, basket.currency)


def reserved_discount(voucher: Voucher, basket: Basket, left: int) -> Discount:
    """Return the discount to reserve. Without a basket it is one use, or the whole balance of a gift card."""
    if basket.amount is None and not basket.items:
        return Discount(None, left if voucher.kind == GIFT_CARD else 1)
    return discount_of(voucher, basket, left)


def _amount_in(basket: Basket, currency: str | None) -> int:
    """
    Raises:
        Validation: the amount or its currency is missing. NotApplicable: the basket is in another currency.
    """
    if basket.amount is None:
        raise Validation.at("/amount", "the voucher needs the amount of the basket in minor units")
    if basket.currency is None:
        raise Validation.at("/currency", "the voucher needs the currency of the basket")
    if currency is not None and basket.currency != currency:
        raise NotApplicable(
            f"the voucher is for baskets in {currency}; this basket is in {basket.currency}", reason="currency", currency=currency
        )
    return basket.amount


def _require_minimum(voucher: Voucher, basket: Basket) -> None:
    minimum = voucher.minimum_basket
    if minimum is not None and (amount := _amount_in(basket, minimum.currency)) < minimum.amount:
        raise NotApplicable(
            AmountText(
                "the basket must be at least {minimum}; it is {amount}", minimum.currency, minimum=minimum.amount, amount=amount
            ),
            reason="minimum_basket",
            minimum=minimum.amount,
            currency=minimum.currency,
            amount=amount,
        )


def _price_of(items: list[BasketItem], sku: str, quantity: int) -> int | None:
    """Return the price of the voucher's items in the basket, the most expensive ones first. None for a basket without items.

    Each line is rounded half up to minor units. Lines with a price below zero are not items.

    Raises:
        NotApplicable: the basket does not have the item.
    """
    if not items:
        return None
    matching = sorted((item for item in items if item.sku == sku and item.unit_price >= 0), key=lambda item: -item.unit_price)
    if not matching:
        raise NotApplicable(f"the basket does not have the item {sku}", reason="item", sku=sku)
    total, left = 0, Fraction(quantity)
    for item in matching:
        taken = min(exact(item.quantity), left)
        total, left = total + line_cost(taken, item.unit_price), left - taken
    return total
