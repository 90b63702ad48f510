"""docs/reports.md has a section for every report, with its formula."""

from pathlib import Path
from typing import Any, cast

from guerdon.reports.money.controller import definitions

PAGE = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")


def test_every_report_on_value_has_a_section() -> None:
    class Named:
        def __getattr__(self, name: str) -> str:
            return name

    for report in definitions(cast(Any, Named())):
        assert f"\n## {report.name.replace('-', ' ').capitalize()}\n" in PAGE or f"\n## {report.name.capitalize()}\n" in PAGE, (
            report.name
        )
