"""`guerdon reports list` and `guerdon reports show`."""

import csv
import io
import json

from guerdon.wiring.services import Services
from tests.api.report_fixtures import read_report
from tests.clients import Caller
from tests.commands import guerdon_here
from tests.conftest import DATABASE
from tests.factories import Factory


async def test_reports_are_printed(service: Caller, services: Services, factory: Factory, mongodb_url: str) -> None:
    own = {"GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": DATABASE}
    await factory.wallet(123_456, asset="GBP")
    found = await read_report(service, services, "/v1/reports/roll-forward", asset="GBP", start="2026-01-01")
    arguments = ("reports", "show", "roll-forward", "--asset", "GBP", "--from", "2026-01-01")
    printed = await guerdon_here(*arguments, "--format", "json", **own)
    assert printed.status == 0, printed.err
    assert json.loads(printed.out)["rows"] == found["rows"]
    as_csv = await guerdon_here(*arguments, "--format", "csv", **own)
    rows = list(csv.DictReader(io.StringIO(as_csv.out, newline="")))
    assert [row["closing"] for row in rows] == [str(row["closing"]) for row in found["rows"]]
    assert {(row["asset"], row["scale"]) for row in rows} == {("GBP", "2")}
    table = await guerdon_here(*arguments, **own)
    assert "1,234.56" in table.out
    assert "/docs/reports#roll-forward" in table.out
    days = await guerdon_here("reports", "show", "expiring", "--asset", "GBP", "--with", "days=60", "--format", "json", **own)
    assert json.loads(days.out)["days"] == 60
    listed = await guerdon_here("reports", "list", **own)
    for name in ("roll-forward", "liability", "expiring", "leaderboard", "trial-balance"):
        assert name in listed.out


async def test_wrong_reports_are_refused_in_words(services: Services, mongodb_url: str) -> None:
    own = {"GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": DATABASE}
    for arguments, words in (
        (("nothing",), "there is no such report"),
        (("roll-forward",), "asset: is required"),
        (("roll-forward", "--asset", "PTS", "--with", "days"), "--with takes NAME=VALUE"),
    ):
        refused = await guerdon_here("reports", "show", *arguments, **own)
        assert (refused.status, words in refused.err) == (2, True), refused.err
