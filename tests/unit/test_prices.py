"""Prices of awarded value: which purchases belong to the awards of a month."""

from typing import Any

from guerdon.reports.accounting.prices import Priced, priced_months

Row = dict[str, Any]


def award(month: str, amount: int, campaign: str = "cmp_a") -> Row:
    return {"earned_month": month, "campaign": campaign, "amount": amount}


def decision(month: str, amount: int, revenue: int, campaign: str = "cmp_a", currency: str = "GBP") -> Row:
    return {"month": month, "campaign": campaign, "currency": currency, "amount": amount, "revenue": revenue}


def test_goods_are_the_purchases_of_the_month() -> None:
    awards = [award("2026-01", 100), award("2026-02", 50)]
    decisions = [decision("2026-01", 100, 1_000), decision("2026-02", 50, 2_000)]
    sales = {"2026-01": 1_000, "2026-02": 2_000}
    assert priced_months(awards, decisions, sales, "GBP") == {"2026-01": Priced(100, 1_000), "2026-02": Priced(50, 2_000)}


def test_price_of_a_late_purchase_follows_its_award() -> None:
    # A purchase of January was recorded in March: its 100 points are of March, and cost 10 each as those of January did.
    awards = [award("2026-01", 100), award("2026-03", 100)]
    priced = priced_months(awards, [decision("2026-01", 200, 2_000)], {"2026-01": 2_000}, "GBP")
    assert priced == {"2026-01": Priced(100, 1_000), "2026-03": Priced(100, 1_000)}


def test_refund_lowers_awards_and_revenue_alike() -> None:
    priced = priced_months([award("2026-01", 60)], [decision("2026-01", 60, 600)], {"2026-01": 600}, "GBP")
    assert priced == {"2026-01": Priced(60, 600)}
    # More refunds than purchases in a month leave the price of before.
    decisions = [decision("2026-01", 100, 1_000), decision("2026-02", -40, -400)]
    priced = priced_months([award("2026-02", 10)], decisions, {"2026-01": 1_000, "2026-02": -400}, "GBP")
    assert priced == {"2026-02": Priced(10, 100)}


def test_purchase_that_two_campaigns_award_counts_once() -> None:
    awards = [award("2026-01", 100), award("2026-01", 300, "cmp_b")]
    decisions = [decision("2026-01", 100, 1_000), decision("2026-01", 300, 1_000, "cmp_b")]
    assert priced_months(awards, decisions, {"2026-01": 1_000}, "GBP") == {"2026-01": Priced(400, 1_000)}


def test_awards_without_a_purchase_in_the_currency_have_no_price() -> None:
    awards = [award("2026-01", 90), award("2026-01", 500, "cmp_review"), award("2026-02", 7)]
    decisions = [
        decision("2026-01", 60, 600),
        decision("2026-01", 30, 900, currency="EUR"),
        decision("2026-01", 500, 0, "cmp_review", ""),
    ]
    priced = priced_months(awards, decisions, {"2026-01": 600}, "GBP")
    assert priced["2026-01"] == Priced(60, 600, 530)
    assert priced["2026-02"] == Priced(4, 46, 3)
    assert priced_months([], [], {}, "GBP") == {}
    assert priced_months([award("2026-01", 5)], [], {}, "GBP") == {"2026-01": Priced(0, 0, 5)}
