"""Deferred revenue of awarded value: allocation, revenue to date and the roll-forward of one month. Pure; integers and fractions only.

Sources: IFRS 15.B39 to B47 and examples IE267 to IE270; ASC 606-10-55-42 to 49. docs/reports.md has the formulas.
"""

from fractions import Fraction

from msgspec import Struct

from guerdon.reports.accounting.estimates import RATE_ONE, expected_redemption


class Deferral(Struct, frozen=True, kw_only=True):
    """Deferred revenue of the value that was awarded in one month, as it is at the end of a month. Amounts are minor units."""

    month: str
    """Month in which the value was awarded."""
    initial_points: int
    """Value that was awarded in the month, less what was taken back in it."""
    initial: int
    """Price that was allocated to it at the end of the month: minor units of the currency."""
    points: int
    """Value that was awarded, less what was taken back until now."""
    redeemed: int
    expired: int
    transferred: int = 0
    """Value that went to other wallets or was exchanged. It is deferred still, and expected to be redeemed as the rest is."""
    rate: int
    """Ultimate redemption rate in millionths."""

    @property
    def deferred(self) -> int:
        """Price that is allocated to what was not taken back, rounded half to even."""
        return scaled(self.initial, self.points, self.initial_points)

    @property
    def expected(self) -> int:
        """Part of the value that was not transferred which is expected to be redeemed in total."""
        return expected_redemption(self.points - self.transferred, self.redeemed, self.expired, self.rate)

    @property
    def revenue(self) -> int:
        """Revenue that was recognised until now."""
        return revenue_to_date(self.deferred, self.redeemed, self.expected)

    @property
    def balance(self) -> int:
        """Contract liability that is left."""
        return self.deferred - self.revenue


class DeferredChange(Struct, frozen=True, kw_only=True):
    """Roll-forward of deferred revenue: opening + deferred - reversed - recognised + change of estimate = closing."""

    opening: int = 0
    deferred: int = 0
    reversed: int = 0
    recognised_by_redemption: int = 0
    recognised_by_expiry: int = 0
    change_of_estimate: int = 0
    closing: int = 0


def stand_alone_price(points: int, value_per_point: Fraction, rate: int) -> Fraction:
    """Return the stand-alone selling price of points: points * value * URR (IFRS 15.B42)."""
    return points * value_per_point * rate / RATE_ONE


def allocated(price_paid: int, points_price: Fraction) -> int:
    """Return the part of the price paid that is allocated to the points: D = price * P / (goods + P), rounded half to even.

    The stand-alone selling price of the goods is the price paid for them. Points for which nothing was paid are allocated nothing.
    """
    if price_paid <= 0 or points_price <= 0:
        return 0
    return round(price_paid * points_price / (price_paid + points_price))


def revenue_to_date(deferred: int, redeemed: int, expected: int) -> int:
    """Return the revenue of `deferred` when `redeemed` of `expected` points were redeemed: D * R / U, rounded half to even.

    If no redemption is expected, all of it is revenue (IFRS 15.B46: redemption is remote).
    """
    if expected <= 0:
        return deferred
    return scaled(deferred, max(0, min(redeemed, expected)), expected)


def scaled(amount: int, part: int, whole: int) -> int:
    """Return `amount * part / whole`, rounded half to even; 0 if the whole is not above 0."""
    return round(Fraction(amount * max(0, part), whole)) if whole > 0 else 0


def roll_forward(before: Deferral | None, after: Deferral) -> DeferredChange:
    """Return the change from the end of one month to the end of the next.

    The steps are, in this order: the allocation of the purchases (`deferred`), what was taken back (`reversed`), what expired beyond the
    estimate (`recognised_by_expiry`), the new estimate for what was redeemed before (`change_of_estimate`, which raises the liability if it is
    positive; a cumulative catch-up), and what was redeemed (`recognised_by_redemption`, which includes the share of breakage: IFRS 15.B46).
    """
    if before is None:
        before = Deferral(
            month=after.month,
            initial_points=after.initial_points,
            initial=0,
            points=after.initial_points,
            redeemed=0,
            expired=0,
            rate=after.rate,
        )
    allocation = after.initial - before.initial
    # A later correction of the allocation counts as a whole; its effect on what was taken back before is part of `reversed`.
    taken_back = before.deferred + allocation - after.deferred
    recognised = before.revenue
    # What was redeemed before, at the present allocation of the present points, with the estimate and the expiry of before; then with the expiry
    # of now; then with the estimate of now.
    kept = after.points - after.transferred
    rescaled = revenue_to_date(
        after.deferred, before.redeemed, expected_redemption(kept, before.redeemed, before.expired, before.rate)
    )
    after_expiry = revenue_to_date(
        after.deferred, before.redeemed, expected_redemption(kept, before.redeemed, after.expired, before.rate)
    )
    after_estimate = revenue_to_date(after.deferred, before.redeemed, after.expected)
    return DeferredChange(
        opening=before.balance,
        deferred=allocation,
        reversed=taken_back,
        recognised_by_redemption=after.revenue - after_estimate,
        recognised_by_expiry=after_expiry - rescaled,
        change_of_estimate=(recognised - rescaled) - (after_estimate - after_expiry),
        closing=after.balance,
    )


def total_of(changes: "list[DeferredChange]") -> DeferredChange:
    """Return the sum of roll-forwards."""
    return DeferredChange(**{name: sum(getattr(each, name) for each in changes) for name in DeferredChange.__struct_fields__})
