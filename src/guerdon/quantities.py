"""Quantities of line items: whole numbers or exact decimals, and the cost of a line. Pure, without floats.

A whole quantity is a JSON number. A quantity with decimals is text, so that no program between the shop and the ledger reads it as a binary
number. Both are stored in one form: `"2.500"` as `"2.5"`, `"2.0"` as 2.
"""

from fractions import Fraction
from typing import Annotated

from msgspec import Meta

from guerdon.types import EXPECTED

QUANTITY_MAX, PLACES = 1_000_000, 6
WholeQuantity = Annotated[int, Meta(ge=1, le=QUANTITY_MAX, examples=[6])]
DecimalQuantity = Annotated[
    str,
    Meta(
        max_length=13,
        pattern=r"^(?!0(?:\.0+)?$)(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?$(?!\n)",
        extra={EXPECTED: 'must be a decimal above 0 with at most six places, in quotes, such as "0.352"'},
        examples=["0.352"],
    ),
]
Quantity = WholeQuantity | DecimalQuantity
AnyQuantity = int | str
"""A quantity as stored: an integer, or a decimal without zeros at its end."""


def exact(quantity: AnyQuantity) -> Fraction:
    return Fraction(quantity)


def is_positive(quantity: AnyQuantity) -> bool:
    """Return whether a stored quantity is above 0. Only integers, of imports, may not be."""
    return isinstance(quantity, str) or quantity > 0


def stored(quantity: AnyQuantity | Fraction) -> AnyQuantity:
    """Return the one form in which a quantity is stored. It has at most six decimal places."""
    if isinstance(quantity, int):
        return quantity
    whole, millionths = divmod(int(Fraction(quantity) * 10**PLACES), 10**PLACES)
    return f"{whole}.{millionths:06}".rstrip("0") if millionths else whole


def line_cost(quantity: AnyQuantity | Fraction, unit_price: int) -> int:
    """Return the cost of a line in minor units, rounded half up; for a price below zero, half away from zero."""
    if isinstance(quantity, int):
        return quantity * unit_price
    cost = Fraction(quantity) * abs(unit_price)
    rounded = (2 * cost.numerator + cost.denominator) // (2 * cost.denominator)
    return rounded if unit_price >= 0 else -rounded
