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
    """Amount of these purchases, in minor units of the currency."""
    free_points: int = 0
    """Value that was awarded in the month without a purchase, or for purchases in other currencies."""


class _Window:
    """Decisions and sales of a span of time."""

    def __init__(self) -> None:
        self.awarded: defaultdict[str, int] = defaultdict(int)
        """Awards less what was taken back, by campaign."""
        self.in_currency: defaultdict[str, int] = defaultdict(int)
        self.revenue: defaultdict[str, int] = defaultdict(int)
        """Purchases in the currency less refunds, by campaign."""
        self.sales = 0

    def add(self, decisions: Iterable[Document], sales: int, currency: str) -> None:
        for row in decisions:
            self.awarded[row["campaign"]] += row["amount"]
            if row["currency"] == currency:
                self.in_currency[row["campaign"]] += row["amount"]
                self.revenue[row["campaign"]] += row["revenue"]
        self.sales += sales

    def has(self, campaign: str) -> bool:
        return self.awarded[campaign] > 0

    def price(self, campaign: str, amount: int) -> tuple[int, int]:
        """Return the part of `amount`, which the campaign awarded, that has a price, and the purchases that belong to it."""
        awarded, revenue = self.awarded[campaign], self.revenue[campaign]
        if awarded <= 0 or revenue <= 0:
            return 0, 0
        in_currency = max(0, min(self.in_currency[campaign], awarded))
        total = sum(each for each in self.revenue.values() if each > 0)
        # A purchase that several campaigns awarded is part of the revenue of each.
        counted = revenue * max(0, min(self.sales, total)) // total
        return amount * in_currency // awarded, amount * counted // awarded


def priced_months(
    awards: Iterable[Document], decisions: Iterable[Document], sales: Mapping[str, int], currency: str
) -> dict[str, Priced]:
    """Return what was paid for the awards of each month. Pure.

    `awards` are the net awards by month (`earned_month`), campaign and amount; `decisions` the net awards and revenue by month of the event,
    campaign and currency; `sales` the purchases less refunds in the currency by month.

    A campaign has a price per awarded unit: its revenue divided by its awards, over the events of the month, or over all events up to its end
    if the month has none. An event that is recorded late is awarded in the month of its record, and so its price follows its award.
    """
    by_month: defaultdict[str, list[Document]] = defaultdict(list)
    for row in decisions:
        by_month[row["month"]].append(row)
    earned: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in awards:
        earned[row["earned_month"]][row["campaign"]] = max(0, row["amount"])
    priced: dict[str, Priced] = {}
    until = _Window()
    for month in sorted(by_month.keys() | sales.keys() | earned.keys()):
        within = _Window()
        for window in (within, until):
            window.add(by_month[month], sales.get(month, 0), currency)
        if month in earned:
            priced[month] = _priced(earned[month], within, until)
    return priced


def _priced(earned: Mapping[str, int], within: _Window, until: _Window) -> Priced:
    points, goods = 0, 0
    for campaign, amount in earned.items():
        paid, price = (within if within.has(campaign) else until).price(campaign, amount)
        points, goods = points + paid, goods + price
    return Priced(points, goods, sum(earned.values()) - points)


async def read_priced_months(snapshot: Snapshot, asset: str, month: str, currency: str) -> dict[str, Priced]:
    """Return what was paid for the awards of each month up to `month`."""
    moves = {"$in": ["earned", "clawed_back", "adjusted"]}
    where = {**up_to(asset, month), "move": moves, **AWARDED}
    rows = await snapshot.sums(COHORTS, where, ("earned_month", "campaign", "month"))
    awards = [row for row in rows if row["month"] == row["earned_month"]]
    before = first_of_month(date(int(month[:4]), int(month[5:]), 1), 1).isoformat()
    campaigns = sorted({row["campaign"] for row in awards})
    outcomes = {"campaign": {"$in": campaigns}, "day": {"$lt": before}, "outcome": {"$in": ["awarded", "taken_back"]}}
    decisions = await snapshot.sums(DECISIONS, outcomes, ("day", "campaign", "currency"))
    days = await snapshot.sums(PURCHASES, {"day": {"$lt": before}, "currency": currency, "type": {"$in": list(SALES)}}, ("day",))
    sales: defaultdict[str, int] = defaultdict(int)
    for row in days:
        sales[row["day"][:7]] += row["amount"]
    return priced_months(awards, ({**row, "month": row["day"][:7]} for row in decisions), sales, currency)
