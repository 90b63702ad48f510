"""Formulas with decimals give what the written decimals give, and not what their binary neighbours give."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.campaigns.award_types import AWARD_TYPES, PLACES, AwardBasis, decimal_of
from guerdon.campaigns.cel import compile_formula, facts_of
from guerdon.campaigns.models import FormulaAward, PercentAward
from guerdon.money import Rounding, divide

ROUNDINGS: tuple[Rounding, ...] = ("floor", "ceil", "half_even")


def facts(amount: int) -> Any:
    event = {"id": "1", "type": "purchase", "amount": amount, "currency": "GBP", "items": [], "attributes": {}, "occurred_at": ""}
    return facts_of(event, {}, 0)


def award(expression: str, amount: int, rounding: Rounding, multiplier: int = PLACES) -> tuple[int | None, str]:
    formula = compile_formula(expression, "/award/expression")
    basis = AwardBasis(amount, multiplier, formula=formula, facts=facts(amount))
    amount_of: Any = AWARD_TYPES[FormulaAward].amount
    paid: tuple[int | None, str] = amount_of(FormulaAward(expression, rounding), basis)
    return paid


@pytest.mark.parametrize(
    ("expression", "rounding", "amount", "paid"),
    [
        ("double(event.amount) * 0.29", "floor", 100, 29),
        ("double(event.amount) * 1.1", "ceil", 100, 110),
        ("double(event.amount) * 0.57", "floor", 100, 57),
        ("double(event.amount) / 100.0 * 1.15", "floor", 10_000, 115),
        ("double(event.amount) * 0.005", "half_even", 500, 2),
        ("double(event.amount) * 0.045", "half_even", 100, 4),
        ("double(event.amount) / 3.0", "ceil", 100, 34),
        ("double(event.amount) / 3.0 * 3.0", "ceil", 100, 100),
        ("0.1 + 0.2 + 0.7", "floor", 1, 1),
        ("double(event.amount)", "floor", 10**15, 10**15),
        ("event.amount / 7", "ceil", 20, 2),
    ],
)
def test_a_decimal_is_rounded_as_it_is_written(expression: str, rounding: Rounding, amount: int, paid: int) -> None:
    assert award(expression, amount, rounding)[0] == paid


def test_the_reason_states_the_decimal() -> None:
    assert award("double(event.amount) * 0.29", 100, "floor") == (29, "the formula gives 29.0")
    assert award("double(event.amount) * 0.29", 101, "ceil") == (30, "the formula gives 29.29, so 30 (rounding ceil)")


@given(st.integers(0, 10**8), st.decimals("0.0001", "99.9999", places=4), st.sampled_from(ROUNDINGS), st.integers(1, 3 * PLACES))
@settings(max_examples=300, deadline=None)
def test_a_formula_equals_the_exact_decimals(amount: int, rate: Decimal, rounding: Rounding, multiplier: int) -> None:
    exact = Fraction(rate) * amount
    for expression, value in ((f"double(event.amount) * {rate}", exact), (f"double(event.amount) / 100.0 * {rate}", exact / 100)):
        wanted = value * multiplier / PLACES
        assert award(expression, amount, rounding, multiplier)[0] == divide(wanted.numerator, wanted.denominator, rounding)


@given(st.integers(0, 10**15), st.decimals("0", "100", places=4), st.sampled_from(ROUNDINGS))
def test_percent_is_exact(amount: int, percent: Decimal, rounding: Rounding) -> None:
    wanted = Fraction(percent) * amount / 100
    paid: Any = AWARD_TYPES[PercentAward].amount
    assert paid(PercentAward(f"{percent:f}", rounding), AwardBasis(amount))[0] == divide(
        wanted.numerator, wanted.denominator, rounding
    )


@given(st.decimals(-(10**9), 10**9, places=5))
def test_a_decimal_survives_its_binary_form(decimal: Decimal) -> None:
    assert decimal_of(float(decimal)) == Fraction(decimal)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e15, -1e15, 1e300, 5e-324, 2.0**53])
def test_extreme_numbers(value: float) -> None:
    assert decimal_of(value) == (0 if abs(value) < 1 else Fraction(value))
