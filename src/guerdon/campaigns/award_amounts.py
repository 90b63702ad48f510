"""What an event is worth to a campaign before any limit is looked at. Pure, in whole numbers; rounded once."""

from fractions import Fraction
from math import isfinite
from typing import Any

from guerdon.campaigns.cel import Formula
from guerdon.campaigns.models import Campaign, FixedAward, FormulaAward, PerAmountAward, PercentAward
from guerdon.money import AMOUNT_MAX, Rounding, divide

PLACES = 10_000
"""Decimals have at most four places, so that ten-thousandths hold them exactly."""


def scaled(decimal: str) -> int:
    """Return a decimal of at most four places in ten-thousandths."""
    whole, _, places = decimal.partition(".")
    return int(whole) * PLACES + int(places.ljust(4, "0"))


def award_amount(
    campaign: Campaign, formula: Formula | None, event_amount: int, tier: str | None, facts: Any
) -> tuple[int | None, str]:
    """Return (what the campaign wants to pay, why); None where that could not be said.

    `event_amount` is positive, or zero for an event without one. The multiplier of the member's tier is in the same rounding.
    """
    award = campaign.award
    multiplier = campaign.tier_multipliers.get(tier or "")
    times = PLACES if multiplier is None else scaled(multiplier)
    by_tier = "" if multiplier is None else f", times {multiplier} for tier {tier}"
    match award:
        case FixedAward(fixed):
            amount = divide(fixed * times, PLACES, "floor")
            why = f"fixed award of {fixed}{by_tier}"
            if multiplier is not None:
                why += f" gives {amount} (rounding floor)"
            return _bounded(amount, why)
        case PerAmountAward(points, per, rounding):
            amount = divide(event_amount * points * times, per * PLACES, rounding)
            return _bounded(amount, f"{points} for every {per}{by_tier}: {event_amount} gives {amount} (rounding {rounding})")
        case PercentAward(percent, rounding):
            amount = divide(event_amount * scaled(percent) * times, 100 * PLACES * PLACES, rounding)
            return _bounded(amount, f"{percent} percent{by_tier}: {event_amount} gives {amount} (rounding {rounding})")
        case FormulaAward(_, rounding):
            assert formula is not None
            return _by_formula(formula, facts, times, rounding, by_tier)


def _by_formula(formula: Formula, facts: Any, times: int, rounding: Rounding, by_tier: str) -> tuple[int | None, str]:
    value, error = formula.evaluate(facts)
    if error is None and isinstance(value, float) and not isfinite(value):
        error = "it is no number"
    if error is not None or value is None:
        return None, f"the award could not be evaluated: {error}"
    exact = Fraction(value) * times / PLACES
    if abs(exact) > AMOUNT_MAX:
        return None, "the award's formula gives more than one award may be"
    amount = divide(exact.numerator, exact.denominator, rounding)
    why = f"the formula gives {value}{by_tier}"
    return _bounded(amount, why if value == amount else f"{why}, so {amount} (rounding {rounding})")


def _bounded(amount: int, why: str) -> tuple[int | None, str]:
    if amount > AMOUNT_MAX:
        return None, f"{why}, more than one award may be"
    return max(amount, 0), why
