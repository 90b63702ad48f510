"""Award types: the amount of each, and the share of it that a refund takes back. Pure, in whole numbers, rounded once.

Everything that depends on the type of an award is one `AwardType` here: evaluation, refunds, validation, the API page and the property tests
read it. A type is a tagged struct in the union `Award` of `models.py`; one that is not registered stops the import.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import isfinite
from typing import Any, Generic, TypeVar, get_args

from msgspec import Struct

from guerdon.campaigns.cel import Formula
from guerdon.campaigns.domain import Award as PaidAward
from guerdon.campaigns.domain import PurchaseRefunds, Refundable
from guerdon.campaigns.line_items import chosen, returned_share
from guerdon.campaigns.models import Award, Campaign, FixedAward, FormulaAward, PerAmountAward, PercentAward, RefundRule
from guerdon.money import AMOUNT_MAX, divide

PLACES = 10_000
"""Decimals have at most four places, so ten-thousandths hold them exactly."""
_DECIMAL_PLACES, _DECIMAL_DIGITS = 9, 15
"""Precision to which the value of a formula is rounded before the one rounding. A double holds any 15 digits."""
AwardT = TypeVar("AwardT", bound=Struct)
Amount = tuple[int | None, str]
"""Amount in minor units with its reason; None if it could not be computed."""


class AwardBasis(Struct, frozen=True):
    """Values that an award is computed from."""

    amount: int
    """Amount of the event, or of the line items that the campaign applies to, in minor units; 0 for an event without an amount."""
    multiplier: int = PLACES
    """Multiplier of the member's tier, in ten-thousandths."""
    by_tier: str = ""
    """The multiplier as worded in a reason."""
    formula: Formula | None = None
    facts: Any = None
    """Variables of the formula."""


class AwardType(Struct, Generic[AwardT], frozen=True):
    """A type of award: everything that depends on it."""

    struct: type[AwardT]
    """Wire and stored form. Its tag is the name of the type, and its docstring the documentation."""
    amount: Callable[[AwardT, AwardBasis], Amount]
    """Returns the amount before caps and budget. It is rounded once, after the multiplier of the tier."""
    refund_rule: RefundRule
    """Share of the award that a refund takes back."""
    example: AwardT
    formula: Callable[[AwardT], str] | None = None
    """Returns the CEL expression that computes the amount, if the type has one."""

    @property
    def name(self) -> str:
        return str(self.struct.__struct_config__.tag)

    @property
    def documentation(self) -> str:
        return (self.struct.__doc__ or "").strip()


# --- amounts --------------------------------------------------------------------------------------------------------


def award_amount(campaign: Campaign, formula: Formula | None, event_amount: int, tier: str | None, facts: Any) -> Amount:
    """Return the amount of the campaign's award and its reason. `event_amount` is not negative.

    The multiplier of the member's tier is applied before the one rounding.
    """
    multiplier = campaign.tier_multipliers.get(tier or "")
    basis = AwardBasis(event_amount, formula=formula, facts=facts)
    if multiplier is not None:
        basis = AwardBasis(event_amount, scaled(multiplier), f", times {multiplier} for tier {tier}", formula, facts)
    amount, reason = AWARD_TYPES[type(campaign.award)].amount(campaign.award, basis)
    if amount is not None and amount > AMOUNT_MAX:
        return None, f"{reason}, more than one award may be"
    return None if amount is None else max(amount, 0), reason


def scaled(decimal: str) -> int:
    """Return a decimal of at most four places in ten-thousandths."""
    whole, _, places = decimal.partition(".")
    return int(whole) * PLACES + int(places.ljust(4, "0"))


def formula_of(award: Award) -> str | None:
    """Return the CEL expression that computes the award, or None."""
    expression = AWARD_TYPES[type(award)].formula
    return None if expression is None else expression(award)


def _fixed(award: FixedAward, basis: AwardBasis) -> Amount:
    amount = divide(award.amount * basis.multiplier, PLACES, "floor")
    reason = f"fixed award of {award.amount}{basis.by_tier}"
    return amount, f"{reason} gives {amount} (rounding floor)" if basis.by_tier else reason


def _per_amount(award: PerAmountAward, basis: AwardBasis) -> Amount:
    points, per, rounding = award.points, award.per, award.rounding
    amount = divide(basis.amount * points * basis.multiplier, per * PLACES, rounding)
    return amount, f"{points} for every {per}{basis.by_tier}: {basis.amount} gives {amount} (rounding {rounding})"


def _percent(award: PercentAward, basis: AwardBasis) -> Amount:
    amount = divide(basis.amount * scaled(award.percent) * basis.multiplier, 100 * PLACES * PLACES, award.rounding)
    return amount, f"{award.percent} percent{basis.by_tier}: {basis.amount} gives {amount} (rounding {award.rounding})"


def decimal_of(value: float) -> Fraction:
    """Return the decimal that a binary number stands for: 29 for 28.999999999999996, which `100.0 * 0.29` gives.

    It is the nearest number of nine decimal places, and of at most 15 digits. The error of a formula is far below that, and every decimal
    that a formula can hold is far above it.
    """
    places = min(_DECIMAL_PLACES, max(0, _DECIMAL_DIGITS - len(str(abs(int(value))))))
    return Fraction(round(Fraction(value) * 10**places), 10**places)


def _formula(award: FormulaAward, basis: AwardBasis) -> Amount:
    assert basis.formula is not None
    value, error = basis.formula.evaluate(basis.facts)
    if error is None and isinstance(value, float) and not isfinite(value):
        error = "it is no number"
    if error is not None or value is None:
        return None, f"the award could not be evaluated: {error}"
    if isinstance(value, float):
        decimal = decimal_of(value)
        value = float(decimal)
    else:
        decimal = Fraction(value)
    exact = decimal * basis.multiplier / PLACES
    if abs(exact) > AMOUNT_MAX:
        return None, "the award's formula gives more than one award may be"
    amount = divide(exact.numerator, exact.denominator, award.rounding)
    reason = f"the formula gives {value}{basis.by_tier}"
    return amount, reason if value == amount else f"{reason}, so {amount} (rounding {award.rounding})"


# --- refunds --------------------------------------------------------------------------------------------------------


def taken_back(award: PaidAward, refunded: PurchaseRefunds, purchase: Refundable) -> int:
    """Return the amount of an award that all refunds of its purchase take back together. The member keeps the rest, rounded down."""
    share = REFUND_SHARES[award.refund_rule](award, refunded, purchase)
    return award.amount - award.amount * (share.denominator - share.numerator) // share.denominator


def refunded_share(refunded: PurchaseRefunds, purchase: Refundable) -> Fraction:
    """Return the refunded share of a purchase, which is 1 if all of it is refunded.

    A purchase of 0, which a voucher or a gift card has paid, is refunded as a whole by a refund without line items, and otherwise by the
    share of the returned line items.
    """
    if purchase.amount:
        return Fraction(refunded.amount, purchase.amount)
    lines = chosen(purchase.items)
    if refunded.without_items or refunded.amount > refunded.itemised or (refunded.items and not lines):
        return Fraction(1)
    return returned_share(lines, refunded.items)


def _proportional(award: PaidAward, refunded: PurchaseRefunds, purchase: Refundable) -> Fraction:
    """Return the refunded share of the purchase, 0 to 1.

    For an award on certain items, a refund that names its items counts by their share of these items, and any other refund by the share of
    its amount in the purchase.
    """
    if award.items is None:
        return refunded_share(refunded, purchase)
    share = returned_share(chosen(purchase.items, award.items), refunded.items)
    if not purchase.amount:
        return Fraction(1) if refunded.without_items else share
    return min(Fraction(1), share + Fraction(refunded.amount - refunded.itemised, purchase.amount))


REFUND_SHARES: Mapping[RefundRule, Callable[[PaidAward, PurchaseRefunds, Refundable], Fraction]] = {"proportional": _proportional}
"""By refund rule: the share of an award, 0 to 1, that all refunds of its purchase take back together."""


# --- the registry ---------------------------------------------------------------------------------------------------

_REGISTERED: tuple[AwardType[Any], ...] = (
    AwardType(FixedAward, _fixed, "proportional", FixedAward(50)),
    AwardType(PerAmountAward, _per_amount, "proportional", PerAmountAward(1, 100)),
    AwardType(PercentAward, _percent, "proportional", PercentAward("2.5")),
    AwardType(FormulaAward, _formula, "proportional", FormulaAward("event.amount / 50"), formula=lambda award: award.expression),
)
AWARD_TYPES: Mapping[type[Struct], AwardType[Any]] = {each.struct: each for each in _REGISTERED}
"""Award types by struct."""
if set(AWARD_TYPES) != set(get_args(Award)):
    raise TypeError("every struct of the union Award needs one AwardType, and every AwardType a struct of the union")
