"""`guerdon reports list` and `guerdon reports show`."""

import csv
import io
import json

from guerdon.views.models import TOTALS
from guerdon.wiring.services import Services
from tests.api.report_fixtures import read_report
from tests.clients import Caller
from tests.commands import guerdon_here
from tests.conftest import DATABASE
from tests.factories import Factory
from tests.views.build import build_views


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


async def test_check_prints_what_it_compared_and_the_first_difference(
    service: Caller, services: Services, factory: Factory, mongodb_url: str
) -> None:
    own = {"GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": DATABASE}
    wallet = await factory.wallet(100)
    missing = await guerdon_here("reports", "check", **own)
    assert (missing.status, "not built yet" in missing.out) == (1, True)
    await build_views(services)
    equal = await guerdon_here("reports", "check", **own)
    assert equal.status == 0, equal.out
    assert "trial balance of PTS: system:issuer -100, wallets 100; together 0" in equal.out
    assert equal.out.endswith("equal\n")
    await services.database.raw[TOTALS.collection].update_one({}, {"$inc": {"balance": 7}})
    different = await guerdon_here("reports", "check", **own)
    assert different.status == 3
    assert "read_totals: 1 difference, the first at PTS\n  balance is 107, the entries and events give 100" in different.out
    as_json = await guerdon_here("reports", "check", "--json", **own)
    assert (as_json.status, json.loads(as_json.out)["differences"]["read_totals"]) == (3, 1)
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).status_code == 201
    rebuilt = await guerdon_here("reports", "rebuild", "--check", **own)
    assert rebuilt.status == 0, rebuilt.out + rebuilt.err
    assert rebuilt.out.endswith("equal\n")


async def test_wrong_reports_are_refused_in_words(services: Services, mongodb_url: str) -> None:
    own = {"GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": DATABASE}
    for arguments, words in (
        (("nothing",), "there is no such report"),
        (("roll-forward",), "asset: is required"),
        (("roll-forward", "--asset", "PTS", "--with", "days"), "--with takes NAME=VALUE"),
    ):
        refused = await guerdon_here("reports", "show", *arguments, **own)
        assert (refused.status, words in refused.err) == (2, True), refused.err
