"""Roll-forward, liability, expiring value, leaderboard and books: figures worked by hand."""

from typing import Any

from guerdon.wiring.services import Services
from tests.clients import Caller, problem
from tests.factories import Factory
from tests.views.build import build_views

ROLL = "/v1/reports/roll-forward"


async def report(service: Caller, path: str, **query: Any) -> dict[str, Any]:
    answer = await service.get(path, asset="PTS", **query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def without_zeros(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value}


async def test_reports_of_an_empty_database_are_zeros(service: Caller, services: Services) -> None:
    problem(await service.get(ROLL, asset="PTS"), 503, "views-not-built")
    await build_views(services)
    roll = await report(service, ROLL, **{"from": "2026-01-01", "to": "2026-02-01"})
    [row] = roll["rows"]
    assert without_zeros(row) == {"period": "2026-01"}
    assert without_zeros(roll["total"]) == {"period": "total"}
    assert roll["check"] == {"closing": 0, "system_accounts": 0, "wallets": None, "debt": None, "difference": 0}
    assert (roll["report"], roll["asset"], roll["scale"], roll["from"], roll["to"]) == (
        "roll-forward",
        "PTS",
        0,
        "2026-01-01",
        "2026-02-01",
    )
    assert (roll["view_version"], roll["stale"], roll["definition"]) == (1, False, "/docs/reports#roll-forward")
    liability = await report(service, "/v1/reports/liability")
    assert liability["rows"] == []
    assert liability["total"]["outstanding"] == 0
    expiring = await report(service, "/v1/reports/expiring")
    assert (expiring["rows"], expiring["members"], expiring["total"]["amount"]) == ([], [], 0)
    assert (await report(service, "/v1/reports/leaderboard"))["rows"] == []
    books = await report(service, "/v1/books/trial-balance")
    assert (books["accounts"], books["sum"]) == ([{"account": "wallets", "balance": 0}], 0)


async def test_unknown_asset(service: Caller, services: Services) -> None:
    await build_views(services)
    for path in (ROLL, "/v1/reports/liability", "/v1/reports/expiring", "/v1/reports/leaderboard", "/v1/books/trial-balance"):
        problem(await service.get(path, asset="NONE"), 404, "not-found")
        problem(await service.get(path), 422, "validation")
    problem(await service.get("/v1/books/accounts/system:nothing", asset="PTS"), 404, "not-found")


async def test_one_entry(service: Caller, services: Services, factory: Factory) -> None:
    await factory.wallet(500)
    await build_views(services)
    roll = await report(service, ROLL)
    [row] = roll["rows"]
    assert without_zeros(row) == {"period": row["period"], "loaded": 500, "closing": 500, "closing_paid": 500}
    assert roll["check"] == {"closing": 500, "system_accounts": -500, "wallets": 500, "debt": 0, "difference": 0}
