"""Deferred revenue: the published examples of IFRS 15 and ASC 606, each step of the roll-forward, and its identity."""

from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from guerdon.reports.accounting.deferrals import (
    Deferral,
    DeferredChange,
    allocated,
    revenue_to_date,
    roll_forward,
    scaled,
    stand_alone_price,
    total_of,
)

RATE = 970_000


def deferral(**changes: Any) -> Deferral:
    """9,000 that were deferred for 10,000 points, of which 9,700 are expected to be redeemed."""
    usual: dict[str, Any] = {
        "month": "2026-01", "initial_points": 10_000, "initial": 9_000, "points": 10_000, "redeemed": 0, "expired": 0, "rate": RATE,
    }  # fmt: skip
    return Deferral(**(usual | changes))


def test_allocation_of_the_published_example() -> None:
    """Example 52 (IE267 to IE270): goods for 100,000 and 10,000 points at 1 each, of which 9,500 are expected to be redeemed: 8,676."""
    assert stand_alone_price(10_000, Fraction(1), 950_000) == 9_500
    assert allocated(100_000, Fraction(9_500)) == 8_676
    # 97 percent: exactly 8,842.3. The handbooks round the shares to 91 and 9 percent, which gives 9,000.
    assert allocated(100_000, stand_alone_price(10_000, Fraction(1), RATE)) == 8_842
    assert scaled(100_000, round(Fraction(100 * 9_700, 109_700)), 100) == 9_000


def test_revenue_of_the_published_example() -> None:
    """IE268 to IE270: 4,500 of 9,500, then 8,500 of 9,700."""
    first = revenue_to_date(8_676, 4_500, 9_500)
    assert (first, revenue_to_date(8_676, 8_500, 9_700) - first) == (4_110, 3_493)


def test_revenue_of_the_handbook_examples() -> None:
    """9,000 deferred: 4,500 of 9,700; then 8,500 of 9,900, or of 9,200 if fewer are expected."""
    opened = roll_forward(None, deferral())
    assert opened == DeferredChange(deferred=9_000, closing=9_000)
    first = deferral(redeemed=4_500)
    assert first.revenue == 4_175
    assert roll_forward(None, first) == DeferredChange(deferred=9_000, recognised_by_redemption=4_175, closing=4_825)
    for rate, recognised in ((990_000, 3_552), (920_000, 4_140)):
        second = deferral(redeemed=8_500, rate=rate)
        assert second.revenue - first.revenue == recognised
        change = roll_forward(first, second)
        assert change.recognised_by_redemption - change.change_of_estimate == recognised
        assert (change.opening, change.closing) == (4_825, 4_825 - recognised)


def test_more_expected_redemption_raises_the_liability() -> None:
    # 9,000 * 4,500 / 9,900 = 4,091 instead of 4,175 for what was redeemed before; then 4,000 more of 9,900.
    change = roll_forward(deferral(redeemed=4_500), deferral(redeemed=8_500, rate=990_000))
    assert (change.change_of_estimate, change.recognised_by_redemption) == (84, 3_636)
    change = roll_forward(deferral(redeemed=4_500), deferral(redeemed=8_500, rate=920_000))
    assert (change.change_of_estimate, change.recognised_by_redemption) == (-227, 3_913)


def test_expected_expiry_recognises_nothing_and_further_expiry_does() -> None:
    before = deferral(redeemed=4_500)
    assert roll_forward(before, deferral(redeemed=4_500, expired=300)) == DeferredChange(opening=4_825, closing=4_825)
    # 700 more than the estimate allows: 9,000 of 9,000 points are left, 4,500 of them redeemed.
    change = roll_forward(before, deferral(redeemed=4_500, expired=1_000))
    assert change == DeferredChange(opening=4_825, recognised_by_expiry=325, closing=4_500)
    # Everything has ended: the rest is revenue.
    change = roll_forward(before, deferral(redeemed=4_500, expired=5_500))
    assert change == DeferredChange(opening=4_825, recognised_by_expiry=4_825, closing=0)
    never_redeemed = roll_forward(deferral(), deferral(expired=10_000))
    assert never_redeemed == DeferredChange(opening=9_000, recognised_by_expiry=9_000, closing=0)


def test_value_that_is_taken_back_is_no_revenue() -> None:
    change = roll_forward(deferral(), deferral(points=5_000))
    assert change == DeferredChange(opening=9_000, reversed=4_500, closing=4_500)
    assert roll_forward(deferral(), deferral(points=0)) == DeferredChange(opening=9_000, reversed=9_000, closing=0)


def test_correction_of_the_allocation_is_deferred_when_it_is_known() -> None:
    change = roll_forward(deferral(redeemed=4_850), deferral(redeemed=4_850, initial=9_200))
    # Half of 9,700 was redeemed: 100 of the 200 are revenue of the past.
    assert change == DeferredChange(opening=4_500, deferred=200, change_of_estimate=-100, closing=4_600)


def test_points_without_a_price_defer_nothing() -> None:
    assert allocated(0, Fraction(100)) == allocated(-5, Fraction(100)) == allocated(100, Fraction(0)) == 0
    free = deferral(initial=0, redeemed=5_000)
    assert (free.deferred, free.revenue, free.balance) == (0, 0, 0)


def test_no_expected_redemption_makes_all_of_it_revenue() -> None:
    change = roll_forward(deferral(), deferral(rate=0))
    assert change == DeferredChange(opening=9_000, change_of_estimate=-9_000, closing=0)


AMOUNTS = st.integers(0, 10**12)


@st.composite
def histories(draw: st.DrawFn) -> list[Deferral]:
    """States of one award at the ends of consecutive months."""
    points = initial = draw(AMOUNTS)
    price, redeemed, expired = draw(AMOUNTS), 0, 0
    states: list[Deferral] = []
    for _ in range(draw(st.integers(1, 6))):
        points -= draw(st.integers(0, (points - redeemed - expired) // 2))
        redeemed += draw(st.integers(-redeemed, points - redeemed - expired))
        expired += draw(st.integers(0, points - redeemed - expired))
        rate = draw(st.integers(0, 1_000_000))
        states.append(
            Deferral(
                month="2026-01", initial_points=initial, initial=price, points=points, redeemed=redeemed, expired=expired, rate=rate
            )
        )
    return states


@given(histories())
def test_every_roll_forward_ties(states: list[Deferral]) -> None:
    changes = [roll_forward(before, after) for before, after in zip([None, *states], states, strict=False)]
    opening = 0
    for change, state in zip(changes, states, strict=True):
        assert change.opening == opening
        recognised = change.recognised_by_redemption + change.recognised_by_expiry
        assert opening + change.deferred - change.reversed - recognised + change.change_of_estimate == change.closing
        assert 0 <= state.revenue <= state.deferred
        assert change.closing == state.balance
        opening = change.closing
    total = total_of(changes)
    assert total.closing - total.opening == (
        total.deferred - total.reversed - total.recognised_by_redemption - total.recognised_by_expiry + total.change_of_estimate
    )


@given(AMOUNTS, AMOUNTS, st.integers(0, 1_000_000), st.sampled_from(["0.01", "0.5", "1", "3.25"]))
def test_allocation_never_exceeds_the_price(price: int, points: int, rate: int, value: str) -> None:
    part = stand_alone_price(points, Fraction(value), rate)
    assert 0 <= allocated(price, part) <= min(price, part + 1)
