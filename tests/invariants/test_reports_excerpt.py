"""Reports on the first lines of the real purchases; tests/trust/test_reports_retail.py does the same with all of them."""

from pathlib import Path

from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.invariants.retail import head, write_csv
from tests.invariants.retail_reports import assert_reports


async def test_reports_equal_the_figures_of_an_excerpt(
    service: Caller, services: Services, settings: Settings, tmp_path: Path
) -> None:
    figures = await assert_reports(write_csv(tmp_path / "excerpt.csv.gz", head(3000)), service, services, settings)
    assert figures.earned > 0
