"""What a voucher is worth to a basket: exact in minor units, rounded once. Pure."""

from msgspec import Struct

from guerdon.campaigns.award_types import PLACES, scaled
from guerdon.errors import NotApplicable, Validation
from guerdon.money import divide
from guerdon.offers.models import FixedValue, ItemValue, PercentValue
from guerdon.vouchers.models import GIFT_CARD, Voucher
from guerdon.vouchers.pos.models import Basket, BasketItem


class Discount(Struct, frozen=True):
    """What a voucher takes off a basket, and what that takes off the voucher."""

    discount: int | None
    """In minor units of the basket's currency. None where the till knows it and we do not: what an item or another house's code is worth."""
    takes: int
    """Money of a gift card, or one use."""
    currency: str | None = None


def discount_of(voucher: Voucher, basket: Basket, left: int) -> Discount:
    """Return what the voucher gives to this basket, of the `left` that may be taken off it.

    A discount is never more than the basket, and a gift card gives what it has: the remainder of either stays where it is.

    Raises:
        Validation: the basket does not say what the voucher has to know.
        NotApplicable: it is too small, in another currency, or without the voucher's item.
    """
    _require_minimum(voucher, basket)
    match voucher.value:
        case FixedValue(amount, currency):
            basket_amount = _amount_in(basket, currency)
            if voucher.kind == GIFT_CARD:
                given = min(left, basket_amount)
                return Discount(given, given, currency)
            return Discount(min(amount, basket_amount), 1, currency)
        case PercentValue(_, _, maximum, currency) as value:
            basket_amount = _amount_in(basket, currency)
            given = divide(basket_amount * scaled(value.percent), 100 * PLACES, value.rounding)
            return Discount(min(given, basket_amount if maximum is None else min(maximum, basket_amount)), 1, basket.currency)
        case ItemValue(sku, quantity):
            return Discount(_price_of(basket.items, sku, quantity), 1, basket.currency)
        case None:
            return Discount(None, 1, basket.currency)


def reserved_discount(voucher: Voucher, basket: Basket, left: int) -> Discount:
    """Return what a reservation sets aside. Without a basket that is one use, or all that a gift card has left."""
    if basket.amount is None and not basket.items:
        return Discount(None, left if voucher.kind == GIFT_CARD else 1)
    return discount_of(voucher, basket, left)


def _amount_in(basket: Basket, currency: str | None) -> int:
    """
    Raises:
        Validation: the amount or its currency is missing. NotApplicable: it is in another currency.
    """
    if basket.amount is None:
        raise Validation.at("/amount", "this voucher needs the basket's amount in minor units")
    if basket.currency is None:
        raise Validation.at("/currency", "this voucher needs the currency of the basket")
    if currency is not None and basket.currency != currency:
        raise NotApplicable(
            f"the voucher is good for {currency}, the basket is in {basket.currency}", reason="currency", currency=currency
        )
    return basket.amount


def _require_minimum(voucher: Voucher, basket: Basket) -> None:
    minimum = voucher.minimum_basket
    if minimum is not None and (amount := _amount_in(basket, minimum.currency)) < minimum.amount:
        raise NotApplicable(
            f"the basket must come to {minimum.amount} {minimum.currency}, it comes to {amount}",
            reason="minimum_basket",
            minimum=minimum.amount,
            currency=minimum.currency,
            amount=amount,
        )


def _price_of(items: list[BasketItem], sku: str, quantity: int) -> int | None:
    """The price of the voucher's item, as far as the basket holds it, the dearest first; None where the basket lists no items.

    Raises:
        NotApplicable: the basket does not hold it.
    """
    if not items:
        return None
    there = sorted((item for item in items if item.sku == sku), key=lambda item: -item.unit_price)
    if not there:
        raise NotApplicable(f"the basket does not hold {sku}", reason="item", sku=sku)
    total = 0
    for item in there:
        taken = min(item.quantity, quantity)
        total, quantity = total + taken * item.unit_price, quantity - taken
    return total
