"""Amounts: whole numbers of minor units, bounded, and never a float."""

from typing import Annotated, Literal

from msgspec import Meta

AMOUNT_MAX = 10**15
BALANCE_CEILING = 10**18
"""No balance goes above this, so 2^63 (where BSON integers end) is out of reach of any sum of two."""

Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Whole minor units of the asset, 1 to 10^15.", examples=[500])]
AssetCode = Annotated[
    str, Meta(pattern=r"^[A-Z][A-Z0-9]{1,11}$(?!\n)", description="Asset code, for example PTS or GBP.", examples=["PTS"])
]
Rounding = Literal["floor", "ceil", "half_even"]


def divide(numerator: int, denominator: int, rounding: Rounding) -> int:
    """Divide exactly and round once, in the stated direction (`floor` is toward minus infinity)."""
    quotient, remainder = divmod(numerator, denominator)
    if not remainder or rounding == "floor":
        return quotient
    if rounding == "ceil":
        return quotient + 1
    twice = remainder * 2 - denominator
    return quotient + (twice > 0 or (twice == 0 and quotient % 2))
