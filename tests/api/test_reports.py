"""What all reports share: the list of reports, their ranges of days, and their rows as CSV."""

import csv
import io
from datetime import date
from typing import Any

import pytest
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.errors import Validation
from guerdon.reports.models import RangeQuery, ReportHead
from guerdon.reports.periods import range_of
from guerdon.reports.rows import csv_of
from tests.clients import Caller, problem

TODAY = date(2026, 11, 22)
LONDON = Calendar("Europe/London")


class Row(Struct, frozen=True):
    day: str
    name: str | None
    amount: int
    share: float
    open: bool


class Sample(ReportHead, frozen=True, kw_only=True):
    rows: list[Row]


def query(**changes: str) -> RangeQuery:
    renamed = {"starts" if name == "start" else "ends" if name == "end" else name: value for name, value in changes.items()}
    return RangeQuery(**renamed)  # type: ignore[arg-type]


def refused(**changes: str) -> tuple[str, str]:
    with pytest.raises(Validation) as caught:
        range_of(query(**changes), TODAY, LONDON)
    [fault] = caught.value.members["errors"]  # type: ignore[misc]
    return fault["pointer"], fault["detail"]


async def test_reports_are_listed(service: Caller, anonymous: Caller) -> None:
    answer = await service.get("/v1/reports")
    assert answer.status_code == 200
    listed = {each["name"]: each for each in answer.json()["items"]}
    for name, each in listed.items():
        assert each["definition"] == f"/docs/reports#{name}"
        assert each["summary"].endswith(".")
        assert all(parameter["description"] for parameter in each["parameters"])
        assert each["columns"][-1] == "scale"
    problem(await anonymous.get("/v1/reports"), 401, "unauthenticated")


def test_a_range_without_bounds_is_the_present_month() -> None:
    days = range_of(query(), TODAY, LONDON)
    assert (days.first, days.after, days.periods) == (date(2026, 11, 1), date(2026, 11, 23), ["2026-11"])


def test_a_range_ends_before_its_last_day() -> None:
    days = range_of(query(start="2026-10-30", end="2026-11-02", group="day"), TODAY, LONDON)
    assert days.periods == ["2026-10-30", "2026-10-31", "2026-11-01"]
    assert range_of(query(start="2026-10-30", end="2026-11-02"), TODAY, LONDON).periods == ["2026-10", "2026-11"]
    assert range_of(query(end="2026-11-01"), TODAY, LONDON).periods == ["2026-10"]


def test_an_empty_range_has_one_period() -> None:
    assert range_of(query(start="2026-11-05", end="2026-11-05"), TODAY, LONDON).periods == ["2026-11"]
    assert range_of(query(start="2026-11-05", end="2026-11-05", group="day"), TODAY, LONDON).periods == ["2026-11-05"]


def test_ten_years_have_120_months() -> None:
    assert len(range_of(query(start="2016-12-01", end="2026-12-01"), TODAY, LONDON).periods) == 120


def test_a_midnight_of_the_time_zone_is_a_date() -> None:
    """In July the day of London begins an hour before that of UTC."""
    days = range_of(query(start="2026-06-30T23:00:00Z", end="2026-07-02T00:00:00+01:00"), TODAY, LONDON)
    assert (days.first, days.after) == (date(2026, 7, 1), date(2026, 7, 2))
    assert refused(start="2026-07-01T00:00:00Z", end="2026-07-02") == (
        "from",
        "a day of Europe/London begins at 2026-07-01T00:00:00+01:00; send a date or such a midnight",
    )


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"start": "2026-11-31"}, "from"),
        ({"start": "2026-11-01T25:00:00Z"}, "from"),
        ({"start": "2026-11-01T00:00:00"}, "from"),
        ({"end": "1969-12-31"}, "to"),
        ({"end": "9999-01-01"}, "to"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "to"),
        ({"start": "2025-11-01", "end": "2026-11-03", "group": "day"}, "group"),
        ({"start": "1970-01-01", "end": "2026-11-03"}, "from"),
    ],
)
def test_other_ranges_are_refused(changes: dict[str, Any], pointer: str) -> None:
    assert refused(**changes)[0] == pointer


def test_rows_are_csv() -> None:
    """What a spreadsheet would run is text, and a negative amount stays a number."""
    rows = [Row("2026-11-01", '=cmd("x")', -5, 0.25, open=True), Row("2026-11-02", None, 7, 1.0, open=False)]
    report = Sample(
        report="sample", asset="GBP", scale=2, starts=None, ends=None, time_zone="UTC", as_of="", behind_seconds=0, stale=False,
        view_version=1, definition="", rows=rows,
    )  # fmt: skip
    table = list(csv.DictReader(io.StringIO(csv_of(report).decode(), newline="")))
    assert table == [
        {"day": "2026-11-01", "name": '\'=cmd("x")', "amount": "-5", "share": "0.25", "open": "true", "asset": "GBP", "scale": "2"},
        {"day": "2026-11-02", "name": "", "amount": "7", "share": "1.0", "open": "false", "asset": "GBP", "scale": "2"},
    ]
