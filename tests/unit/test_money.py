"""Exact division and times, against the standard library's own arithmetic."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guerdon.clock import rfc3339, to_datetime, to_ms
from guerdon.ids import base62, checksum62, digest, random_base62
from guerdon.money import AMOUNT_MAX, AmountText, Rounding, display, divide, scale_unknown

# Fractions are exact, and Python rounds them half to even.
_MODES: dict[Rounding, Callable[[Fraction], int]] = {"floor": math.floor, "ceil": math.ceil, "half_even": round}


@given(st.integers(-(AMOUNT_MAX**2), AMOUNT_MAX**2), st.integers(1, AMOUNT_MAX), st.sampled_from(sorted(_MODES)))
@example(5, 2, "half_even")
@example(-5, 2, "half_even")
@example(7, 2, "half_even")
def test_division_rounds_like_an_exact_fraction(numerator: int, denominator: int, rounding: Rounding) -> None:
    assert divide(numerator, denominator, rounding) == _MODES[rounding](Fraction(numerator, denominator))


@given(st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_times_keep_their_milliseconds(moment: datetime) -> None:
    cut = moment - timedelta(microseconds=moment.microsecond % 1000)
    assert to_datetime(to_ms(moment)) == cut
    assert datetime.fromisoformat(rfc3339(to_ms(moment))) == cut


@given(st.integers(0, 2**128))
def test_base62_can_be_read_back(number: int) -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    value = 0
    for digit in base62(number, 1):
        value = value * 62 + digits.index(digit)
    assert value == number


def test_digests_keep_their_parts_apart() -> None:
    assert digest("a", "bc") != digest("ab", "c")
    assert digest("a", b"b") == digest("a", "b")
    assert len({random_base62(43) for _ in range(1000)}) == 1000
    assert len(checksum62("anything")) == 6


@pytest.mark.parametrize(
    ("amount", "asset", "scale", "text"),
    [
        (699, "GBP", 2, "£6.99"),
        (5, "GBP", 2, "£0.05"),
        (-150_000, "EUR", 2, "-€1,500.00"),
        (1000, "JPY", 0, "¥1,000"),
        (1250, "KWD", 3, "KWD 1.250"),
        (-1250, "KWD", 3, "KWD -1.250"),
        (189, "PTS", 0, "189 PTS"),
        (-1_234_567, "PTS", 0, "-1,234,567 PTS"),
        (150, "MILES", 1, "15.0 MILES"),
        (0, "USD", 2, "$0.00"),
    ],
)
def test_an_amount_is_written_as_people_read_it(amount: int, asset: str, scale: int, text: str) -> None:
    assert display(amount, asset, scale) == text


def test_a_text_writes_its_amounts_with_the_scale_or_in_minor_units() -> None:
    text = AmountText("{available} available, {needed} needed", "GBP", available=699, needed=1)
    assert text.text({"GBP": 2}.get) == "£6.99 available, £0.01 needed"
    assert text.text(scale_unknown) == "699 minor units of GBP available, 1 minor unit of GBP needed"
