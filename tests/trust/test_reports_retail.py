"""Reports on a year of real purchases: every figure equals one that is computed from the file alone."""

import json

import pytest

from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.invariants.retail import ask_oracle, require_data
from tests.invariants.retail_reports import assert_reports
from tests.trust.figures import record

CUSTOMERS = 4372
pytestmark = [pytest.mark.trust, pytest.mark.timeout(1500)]


async def test_reports_equal_the_figures_of_the_file(service: Caller, services: Services, settings: Settings) -> None:
    figures = await assert_reports(require_data(), service, services, settings)
    points, totals = ask_oracle(require_data())
    assert (len(points), dict(figures.points)) == (CUSTOMERS, points)
    assert sum(figures.purchases.values()) == totals["purchases"] + totals["refunds"]
    record("REPORTS figures that differ from those of the file", 0, 0)
    months = len(figures.points_by_month)
    print(
        json.dumps(
            {"check": "REPORTS", "customers": len(figures.points), "months": months, "earned": figures.earned, "result": "ok"}
        )
    )
