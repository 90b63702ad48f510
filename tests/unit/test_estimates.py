"""Redemption triangle, chain ladder and breakage, against figures worked out by hand and against their own bounds."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.reports.accounting.estimates import (
    RATE_ONE,
    CohortHistory,
    DevelopmentFactor,
    cost_of,
    development_factors,
    expected_redemption,
    expected_value,
    months_through,
    rate_of,
    rate_text,
    realised_breakage,
    ultimate_estimates,
)

TRIANGLE = [
    CohortHistory("2026-01", 1000, (100, 300, 450, 540)),
    CohortHistory("2026-02", 2000, (300, 700, 1000)),
    CohortHistory("2026-03", 1000, (100, 200), expired=650),
    CohortHistory("2026-04", 4000, (500,)),
]


def rates_of(cohorts: list[CohortHistory]) -> list[int]:
    return [each.rate for each in ultimate_estimates(cohorts, development_factors(cohorts))]


def test_triangle_worked_out_by_hand() -> None:
    # f(0) = (300 + 700 + 200) / (100 + 300 + 100), f(1) = (450 + 1000) / (300 + 700), f(2) = 540 / 450.
    factors = [DevelopmentFactor(0, 1200, 500), DevelopmentFactor(1, 1450, 1000), DevelopmentFactor(2, 540, 450)]
    assert development_factors(TRIANGLE) == factors
    # 540 / 1000; 1000 * 1.2 / 2000; 200 * 1.45 * 1.2 / 1000 = 0.348, not above 1 - 0.65; 500 * 2.4 * 1.45 * 1.2 / 4000.
    assert rates_of(TRIANGLE) == [540_000, 600_000, 348_000, 522_000]
    assert [expected_value(cohort, rate) for cohort, rate in zip(TRIANGLE, rates_of(TRIANGLE), strict=True)] == [0, 200, 148, 1588]


def test_rate_does_not_exceed_what_has_not_expired() -> None:
    third = CohortHistory("2026-03", 1000, (100, 200), expired=700)
    assert rates_of([*TRIANGLE[:2], third, TRIANGLE[3]])[2] == 300_000


@pytest.mark.parametrize(
    ("cohorts", "rates"),
    [
        ([], []),
        # Nothing to estimate from: no breakage is expected of what has not expired.
        ([CohortHistory("2026-01", 1000, (50,))], [RATE_ONE]),
        ([CohortHistory("2026-01", 1000, (0, 0)), CohortHistory("2026-02", 1000, (0,), expired=100)], [RATE_ONE, 900_000]),
        # A cohort that is finished is known without an estimate.
        ([CohortHistory("2026-01", 1000, (0, 0), expired=1000)], [0]),
        ([CohortHistory("2026-01", 1000, (250, 400), expired=600)], [400_000]),
        # Tail: the oldest cohort is not developed any further, also at an age at which nothing more was redeemed.
        ([CohortHistory("2026-01", 1000, (100, 200, 200)), CohortHistory("2026-02", 1000, (50, 100))], [200_000, 100_000]),
        # A cohort that has redeemed nothing yet gets the rate of the older ones: (200 + 100) / 2000.
        (
            [
                CohortHistory("2026-01", 1000, (100, 200, 200)),
                CohortHistory("2026-02", 1000, (50, 100)),
                CohortHistory("2026-03", 500, (0,)),
            ],
            [200_000, 100_000, 150_000],
        ),
        # Value that was wholly taken back is no value to redeem.
        ([CohortHistory("2026-01", 1000, (100, 200)), CohortHistory("2026-02", 0, (0,))], [200_000, 0]),
        ([CohortHistory("2026-01", -10, (0, 0))], [0]),
    ],
)
def test_degenerate_cohorts(cohorts: list[CohortHistory], rates: list[int]) -> None:
    assert rates_of(cohorts) == rates


def test_realised_breakage_is_that_of_finished_cohorts_only() -> None:
    assert realised_breakage(CohortHistory("2026-01", 1000, (250, 400), expired=600)) == 600_000
    assert realised_breakage(CohortHistory("2026-01", 1000, (250, 400), expired=500)) is None
    assert realised_breakage(CohortHistory("2026-01", 0, (0,))) is None


def test_amounts_are_rounded_half_to_even_once() -> None:
    assert [cost_of(amount, Fraction("0.5")) for amount in (1, 3, 5, 7)] == [0, 2, 2, 4]
    assert expected_redemption(5, 0, 0, 500_000) == 2
    assert expected_redemption(1000, 600, 0, 500_000) == 600
    assert expected_redemption(1000, 100, 700, 500_000) == 300


def test_rates_are_written_as_decimals() -> None:
    for text in ("0", "1", "0.97", "0.000001", "0.999999"):
        assert rate_text(rate_of(text)) == text
    assert list(months_through("2025-11", "2026-02")) == ["2025-11", "2025-12", "2026-01", "2026-02"]


@st.composite
def triangles(draw: st.DrawFn) -> list[CohortHistory]:
    """Cohorts of consecutive months, each redeemed and expired within what was issued."""
    count = draw(st.integers(0, 8))
    cohorts: list[CohortHistory] = []
    for position in range(count):
        issued = draw(st.integers(0, 10**12))
        left, redeemed = issued, [0]
        for _ in range(count - position):
            step = draw(st.integers(0, left))
            left -= step
            redeemed.append(redeemed[-1] + step)
        expired = draw(st.integers(0, left))
        cohorts.append(CohortHistory(f"2026-{position + 1:02}", issued, tuple(redeemed[1:]), expired))
    return cohorts


@given(triangles())
def test_every_rate_lies_between_what_was_redeemed_and_what_has_not_expired(cohorts: list[CohortHistory]) -> None:
    for cohort, rate in zip(cohorts, rates_of(cohorts), strict=True):
        assert 0 <= rate <= RATE_ONE
        if cohort.issued:
            low, high = cohort.redeemed_to_date, cohort.issued - cohort.expired
            assert round(Fraction(low * RATE_ONE, cohort.issued)) <= rate <= round(Fraction(high * RATE_ONE, cohort.issued))
        expected = expected_redemption(cohort.issued, cohort.redeemed_to_date, cohort.expired, rate)
        assert cohort.redeemed_to_date <= expected <= max(cohort.issued - cohort.expired, cohort.redeemed_to_date)
        assert 0 <= expected_value(cohort, rate) <= cohort.outstanding
