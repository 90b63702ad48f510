"""Amounts: bounded integers of minor units, never floats."""

from typing import Annotated, Literal

from msgspec import Meta

AMOUNT_MAX = 10**15
BALANCE_CEILING = 10**18
"""Maximum balance. The sum of any two balances is below 2^63, the limit of BSON integers."""

Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Whole minor units of the asset, 1 to 10^15.", examples=[500])]
AssetCode = Annotated[
    str, Meta(pattern=r"^[A-Z][A-Z0-9]{1,11}$(?!\n)", description="Asset code, for example PTS or GBP.", examples=["PTS"])
]
Rounding = Literal["floor", "ceil", "half_even"]


def divide(numerator: int, denominator: int, rounding: Rounding) -> int:
    """Return the quotient, rounded once in the given direction (`floor` is toward minus infinity)."""
    quotient, remainder = divmod(numerator, denominator)
    if not remainder or rounding == "floor":
        return quotient
    if rounding == "ceil":
        return quotient + 1
    twice = remainder * 2 - denominator
    return quotient + (twice > 0 or (twice == 0 and quotient % 2))
