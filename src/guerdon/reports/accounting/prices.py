"""Prices that members paid for awarded value: the purchases of a month, and the part of the awarded value that belongs to them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date

from msgspec import Struct

from guerdon.calendar import first_of_month
from guerdon.database import Document
from guerdon.reports.accounting.cohorts import AWARDED, up_to
from guerdon.reports.reading import Snapshot
from guerdon.views.models import COHORTS, DECISIONS, PURCHASES

SALES = ("purchase", "refund", "void")


class Priced(Struct, frozen=True):
    """Awarded value of one month for which something was paid, and what was paid."""

    points: int = 0
    """Value that was awarded in the month for purchases in the currency."""
    goods: int = 0
    """Amount of these purchases less the refunds of the month, in minor units of the currency."""
    free_points: int = 0
    """Value that was awarded in the month without a purchase, or for purchases in other currencies."""


def priced_months(
    awards: Iterable[Document], decisions: Iterable[Document], sales: Mapping[str, int], currency: str
) -> dict[str, Priced]:
    """Return what was paid for the awards of each month. Pure.

    `awards` are the net awards by month (`earned_month`), campaign and amount; `decisions` the awards and revenue by month, campaign,
    currency and outcome; `sales` the purchases less refunds in the currency by month.

    The awards of a campaign are shared between currencies as its decisions of the month are. Awards of a campaign without revenue in the
    month and the currency have no price. A purchase that several campaigns awarded is part of the revenue of each, so the revenue of all
    campaigns together counts only up to the sales of the month.
    """
    awarded: defaultdict[tuple[str, str], int] = defaultdict(int)
    in_currency: defaultdict[tuple[str, str], int] = defaultdict(int)
    revenue: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in decisions:
        key = (row["month"], row["campaign"])
        amount = row["amount"] if row["outcome"] == "awarded" else 0
        awarded[key] += amount
        if row["currency"] == currency:
            in_currency[key] += amount
            revenue[key] += row["revenue"]
    points: defaultdict[str, int] = defaultdict(int)
    goods: defaultdict[str, int] = defaultdict(int)
    free: defaultdict[str, int] = defaultdict(int)
    for row in awards:
        month, key = row["earned_month"], (row["earned_month"], row["campaign"])
        amount, paid = row["amount"], 0
        if revenue[key] > 0 and awarded[key] > 0:
            paid = amount * max(0, min(in_currency[key], awarded[key])) // awarded[key]
            goods[month] += revenue[key]
        points[month] += paid
        free[month] += amount - paid
    return {
        month: Priced(max(0, points[month]), max(0, min(goods[month], sales.get(month, 0))), max(0, free[month]))
        for month in points.keys() | free.keys()
    }


async def read_priced_months(snapshot: Snapshot, asset: str, month: str, currency: str) -> dict[str, Priced]:
    """Return what was paid for the awards of each month up to `month`. Purchases belong to the month in which they occurred."""
    moves = {"$in": ["earned", "clawed_back", "adjusted"]}
    where = {**up_to(asset, month), "move": moves, **AWARDED}
    rows = await snapshot.sums(COHORTS, where, ("earned_month", "campaign", "month"))
    awards = [row for row in rows if row["month"] == row["earned_month"]]
    before = first_of_month(date(int(month[:4]), int(month[5:]), 1), 1).isoformat()
    campaigns = sorted({row["campaign"] for row in awards})
    outcomes = {"campaign": {"$in": campaigns}, "day": {"$lt": before}, "outcome": {"$in": ["awarded", "taken_back"]}}
    decisions = await snapshot.sums(DECISIONS, outcomes, ("day", "campaign", "currency", "outcome"))
    days = await snapshot.sums(PURCHASES, {"day": {"$lt": before}, "currency": currency, "type": {"$in": list(SALES)}}, ("day",))
    sales: defaultdict[str, int] = defaultdict(int)
    for row in days:
        sales[row["day"][:7]] += row["amount"]
    return priced_months(awards, ({**row, "month": row["day"][:7]} for row in decisions), sales, currency)
