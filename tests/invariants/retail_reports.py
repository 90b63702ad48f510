"""Figures of an Online Retail file, computed without code of the product, and the reports that must equal them."""

import csv
import gzip
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

from guerdon.config import Settings
from guerdon.views.models import DECISIONS, MEMBER_MONTHS, PURCHASES
from guerdon.wiring.services import Services
from tests.api.report_fixtures import read_report, ties
from tests.clients import Caller
from tests.invariants.retail import guerdon, places, points_of_asset
from tests.views.build import build_views

TOP = 100


@dataclass
class Figures:
    """What the file says. Amounts are pence, points whole pounds of an invoice."""

    earned: int = 0
    taken_back: int = 0
    points: Counter[str] = field(default_factory=Counter[str])
    """By customer: earned less taken back."""
    points_by_month: Counter[str] = field(default_factory=Counter[str])
    """By month of the invoice: earned less taken back."""
    purchases: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Number of invoices by month and type."""
    amounts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Amount of the invoices by month and type; those of refunds are negative."""
    cohorts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Customers with a purchase in the second month, by the month of their first purchase."""


def figures_of(path: Path) -> Figures:
    """Compute all figures from the file: one invoice for each number and customer, at the time of its first line."""
    totals: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    times: dict[tuple[str, str], datetime] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            customer = row["CustomerID"].removesuffix(".0")
            if customer:
                key = (row["InvoiceNo"], customer)
                totals[key] += int(row["Quantity"]) * Decimal(row["UnitPrice"])
                times.setdefault(key, datetime.fromisoformat(row["InvoiceDate"]))
    figures, months = Figures(), defaultdict[str, set[str]](set)
    for (invoice, customer), total in totals.items():
        month = times[invoice, customer].strftime("%Y-%m")
        pence = int((total * 100).quantize(Decimal(1), ROUND_HALF_EVEN))
        kind, sign = ("refund", -1) if invoice.startswith("C") else ("purchase", 1)
        points = max(sign * pence, 0) // 100
        figures.purchases[month, kind] += 1
        figures.amounts[month, kind] += pence
        figures.points[customer] += sign * points
        figures.points_by_month[month] += sign * points
        if kind == "refund":
            figures.taken_back += points
        else:
            figures.earned += points
            if pence >= 0:
                months[customer].add(month)
    for bought in months.values():
        figures.cohorts.update((min(bought), month) for month in bought)
    return figures


def without_zeros(sums: dict[Any, int]) -> dict[Any, int]:
    return {key: value for key, value in sums.items() if value}


async def assert_reports(path: Path, service: Caller, services: Services, settings: Settings) -> Figures:
    """Replay the file, and compare every report with its figures; return them."""
    figures = figures_of(path)
    points = dict(figures.points)
    run = await guerdon("replay", str(path), "--json", **places(settings))
    assert run.status == 0, run.err
    people = await points_of_asset(services, "PTS")

    # Entries have the time of the replay, so all of them are in the range that ends with today.
    roll = await read_report(service, services, "/v1/reports/roll-forward", start="2026-01-01")
    total = roll["total"]
    assert (total["opening"], total["earned"], total["clawed_back"]) == (0, figures.earned, figures.taken_back)
    assert total["closing"] == sum(points.values()) == sum(people.points.values())
    assert roll["check"]["debt"] == sum(min(each, 0) for each in points.values())
    assert ties(roll)
    books = await read_report(service, services, "/v1/books/trial-balance")
    assert ({each["account"]: each["balance"] for each in books["accounts"]}, books["sum"]) == (
        {"system:issuer": -total["closing"], "wallets": total["closing"]},
        0,
    )
    liability = await read_report(service, services, "/v1/reports/liability")
    assert liability["total"]["outstanding"] == sum(max(each, 0) for each in points.values())
    for by in ("earning_month", "expiry_month"):
        assert sum(row["outstanding"] for row in liability["rows"] if row["by"] == by) == total["closing"]

    highest = sorted((each for each in points.values() if each > 0), reverse=True)[:TOP]
    board = await read_report(service, services, "/v1/reports/leaderboard", period="all", limit=TOP)
    assert [row["earned"] for row in board["rows"]] == highest
    assert all(points[people.names[row["member_id"]]] == row["earned"] for row in board["rows"])

    await assert_months(services, figures)
    checked = await guerdon("reports", "check", **places(settings))
    assert checked.status == 0, checked.out + checked.err
    return figures


async def assert_months(services: Services, figures: Figures) -> None:
    """Points, invoices and cohorts by the month of the invoice."""
    await build_views(services)
    awarded: Counter[str] = Counter()
    for row in await services.views.sums(DECISIONS, None, ("day",)):
        awarded[row["day"][:7]] += row["amount"]
    assert without_zeros(awarded) == without_zeros(figures.points_by_month)
    purchases, amounts = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in await services.views.sums(PURCHASES, {"currency": "GBP"}, ("day", "type")):
        purchases[row["day"][:7], row["type"]] += row["count"]
        amounts[row["day"][:7], row["type"]] += row["amount"]
    assert without_zeros(purchases) == without_zeros(figures.purchases)
    assert without_zeros(amounts) == without_zeros(figures.amounts)
    cohorts = await services.views.sums(MEMBER_MONTHS, None, ("first_month", "month"))
    assert without_zeros({(row["first_month"], row["month"]): row["members"] for row in cohorts}) == dict(figures.cohorts)
