"""Estimates of redemption: the triangle of cohorts, the chain ladder, breakage and the cost of what is outstanding.

Pure; integers and fractions only. A rate is a whole number of millionths, rounded half to even. docs/reports.md has the formulas.

Sources: the chain ladder on redemption triangles is that of L. Gault, L. Llaguno, M. Ménard, "Loyalty Rewards and Gift Card Programs: Basic
Actuarial Estimation Techniques", Casualty Actuarial Society E-Forum, Summer 2012. Breakage is recognised as IFRS 15.B44 to B47 and
ASC 606-10-55-46 to 49 state.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction

from msgspec import Struct

from guerdon.money import divide

RATE_ONE = 1_000_000
"""The rate 1, in millionths."""


class CohortHistory(Struct, frozen=True):
    """Value that was earned in one month, and what became of it. Amounts are minor units."""

    month: str
    """Month in which it was earned, such as `2026-11`."""
    issued: int
    """Value that was earned, less what was taken back, adjusted or transferred away."""
    redeemed: tuple[int, ...]
    """Value that was redeemed up to the end of each age in months: the month itself first, the newest month last."""
    expired: int = 0
    """Value that expired."""

    @property
    def redeemed_to_date(self) -> int:
        return self.redeemed[-1] if self.redeemed else 0

    @property
    def outstanding(self) -> int:
        """Value that is left. It cannot be negative: a debt is shown in the month that caused it, and nothing can be redeemed of it."""
        return max(0, self.issued - self.redeemed_to_date - self.expired)


class DevelopmentFactor(Struct, frozen=True):
    """Growth of the redeemed value from one age to the next: `later / earlier`."""

    age: int
    """Age in months from which the value grows."""
    later: int
    """Value that the cohorts which are old enough had redeemed at `age + 1`."""
    earlier: int
    """Value that the same cohorts had redeemed at `age`."""

    @property
    def known(self) -> bool:
        return self.earlier > 0 and self.later > 0


class Estimate(Struct, frozen=True):
    """Ultimate redemption rate of one cohort, in millionths of what was issued."""

    rate: int
    """Estimate by chain ladder; without one, what has not expired."""
    by_chain_ladder: bool
    """False while there is nothing to estimate from, so that no breakage is expected."""


def development_factors(cohorts: Sequence[CohortHistory]) -> list[DevelopmentFactor]:
    """Return f(k) = sum of R(c, k + 1) / sum of R(c, k) over the cohorts that have reached the age k + 1, by ascending age k."""
    oldest = max((len(cohort.redeemed) for cohort in cohorts), default=0)
    factors: list[DevelopmentFactor] = []
    for age in range(oldest - 1):
        reached = [cohort.redeemed for cohort in cohorts if len(cohort.redeemed) > age + 1]
        factors.append(DevelopmentFactor(age, sum(each[age + 1] for each in reached), sum(each[age] for each in reached)))
    return factors


def ultimate_estimates(cohorts: Sequence[CohortHistory], factors: Sequence[DevelopmentFactor]) -> list[Estimate]:
    """Return URR(c) = min(1 - expired, R(c, k) * f(k) * f(k + 1) * ... / E(c)) of each cohort, oldest first as they are given.

    There is no tail factor: what the oldest cohort has not redeemed at the last age is expected to be redeemed no more. A factor that is not
    known (nothing was redeemed at that age) counts as 1. A cohort that has redeemed nothing has nothing to develop; it gets the rate of the
    older cohorts together. While there is no factor at all, no breakage is expected (IFRS 15.B46: without an estimate of breakage it is
    recognised when redemption becomes remote).
    """
    products = _products(factors)
    developed = any(factor.known for factor in factors)
    estimates: list[Estimate] = []
    older_ultimate, older_issued = 0, 0
    for cohort in cohorts:
        # Estimated values are millionths of a minor unit.
        ceiling, redeemed = max(0, cohort.issued - cohort.expired) * RATE_ONE, max(0, cohort.redeemed_to_date) * RATE_ONE
        known = True
        if cohort.outstanding == 0:
            ultimate = redeemed
        elif developed and redeemed > 0:
            later, earlier = products[len(cohort.redeemed) - 1]
            ultimate = divide(redeemed * later, earlier, "half_even")
        elif developed and older_issued > 0:
            ultimate = divide(cohort.issued * older_ultimate, older_issued, "half_even")
        else:
            ultimate, known = ceiling, False
        ultimate = min(ceiling, max(ultimate, redeemed))
        estimates.append(Estimate(share(ultimate, cohort.issued * RATE_ONE), known))
        if cohort.issued > 0:
            older_ultimate, older_issued = older_ultimate + ultimate, older_issued + cohort.issued
    return estimates


def _products(factors: Sequence[DevelopmentFactor]) -> list[tuple[int, int]]:
    """Return the product of all factors from each age on, as numerator and denominator; the last is 1, that of the oldest age."""
    products = [(1, 1)]
    for factor in reversed(factors):
        later, earlier = products[-1]
        products.append((later * factor.later, earlier * factor.earlier) if factor.known else (later, earlier))
    return products[::-1]


def share(part: int, whole: int) -> int:
    """Return `part / whole` in millionths, between 0 and 1, rounded half to even; 0 if the whole is not above 0."""
    return min(RATE_ONE, max(0, divide(part * RATE_ONE, whole, "half_even"))) if whole > 0 else 0


def expected_redemption(issued: int, redeemed: int, expired: int, rate: int) -> int:
    """Return the value of a cohort that is expected to be redeemed in total: `issued * rate`, but no less than was redeemed already, and no
    more than has not expired. Rounded half to even."""
    return max(redeemed, min(divide(issued * rate, RATE_ONE, "half_even"), issued - expired), 0)


def realised_breakage(cohort: CohortHistory) -> int | None:
    """Return the share of a cohort that expired, in millionths, if nothing of it is left; otherwise None."""
    return share(cohort.expired, cohort.issued) if cohort.outstanding == 0 and cohort.issued > 0 else None


def expected_value(cohort: CohortHistory, rate: int) -> int:
    """Return max(0, E * URR - R): the value of a cohort that is still expected to be redeemed."""
    return min(
        cohort.outstanding,
        max(0, expected_redemption(cohort.issued, cohort.redeemed_to_date, cohort.expired, rate) - cohort.redeemed_to_date),
    )


def cost_of(amount: int, unit_cost: Fraction) -> int:
    """Return the cost of an amount in minor units of money, rounded half to even."""
    return round(amount * unit_cost)


def rate_text(rate: int) -> str:
    """Return a rate in millionths as a decimal, such as `0.97`."""
    whole, millionths = divmod(rate, RATE_ONE)
    return f"{whole}.{millionths:06}".rstrip("0") if millionths else str(whole)


def rate_of(text: str) -> int:
    """Return a decimal of at most six places in millionths."""
    return int(Fraction(text) * RATE_ONE)


# --- months ---------------------------------------------------------------------------------------------------------


def month_number(month: str) -> int:
    """Return the number of a month such as `2026-11`; the next month has the next number."""
    return int(month[:4]) * 12 + int(month[5:]) - 1


def month_name(number: int) -> str:
    return f"{number // 12:04}-{number % 12 + 1:02}"


def months_through(first: str, last: str) -> Iterable[str]:
    """Return the months from `first` to `last`, both included."""
    return (month_name(number) for number in range(month_number(first), month_number(last) + 1))
