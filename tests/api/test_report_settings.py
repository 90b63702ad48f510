"""Settings of the reports: versions by month, their checks, the audit log, and who may do what."""

from typing import Any

import pytest

from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem

Body = dict[str, Any]
PATH = "/v1/report-settings/PTS"
USUAL: Body = {"currency": "GBP", "value_per_point": "1", "cost_per_point": "0.6"}


async def put(service: Caller, **changes: Any) -> Body:
    answer = await service.put(PATH, {**USUAL, **changes})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_settings_apply_from_their_month_on(service: Caller) -> None:
    problem(await service.get(PATH), 404, "not-found")
    first = await put(service, valid_from="2026-01", redemption_rate="0.97")
    assert (first["version"], first["valid_from"], first["value_per_point"], first["redemption_rate"]) == (
        1,
        "2026-01",
        "1",
        "0.97",
    )
    second = await put(service, valid_from="2026-06", value_per_point="1.25")
    assert (second["version"], second["redemption_rate"]) == (2, None)
    assert await put(service, valid_from="2026-06", value_per_point="1.25") == second, "the same content makes no version"
    third = await put(service, valid_from="2026-01", redemption_rate="0.9")
    problem(await service.get(PATH, month="2025-12"), 404, "not-found")
    for month, settings in (("2026-01", third), ("2026-05", third), ("2026-06", second), ("2999-12", second)):
        assert (await service.get(PATH, month=month)).json() == settings
    assert (await service.get(f"{PATH}/versions")).json() == {"items": [third, second, first], "next_cursor": None}


async def test_settings_apply_to_the_present_month_by_default(service: Caller, services: Services, clock: ManualClock) -> None:
    month = services.ledger.calendar.names(clock.now_ms())[1]
    assert (await put(service))["valid_from"] == month
    assert (await service.get(PATH)).json()["valid_from"] == month


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"currency": "PTS1"}, "/currency"),
        ({"value_per_point": 1}, "/value_per_point"),
        ({"value_per_point": "-1"}, "/value_per_point"),
        ({"cost_per_point": "0.00001"}, "/cost_per_point"),
        ({"redemption_rate": "1.01"}, "/redemption_rate"),
        ({"redemption_rate": "97%"}, "/redemption_rate"),
        ({"valid_from": "2026-13"}, "/valid_from"),
        ({"valid_from": "2026-11-01"}, "/valid_from"),
        ({"unknown": 1}, "/unknown"),
    ],
)
async def test_settings_are_checked(service: Caller, change: Body, pointer: str) -> None:
    refused = problem(await service.put(PATH, {**USUAL, **change}), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == [pointer]
    problem(await service.get(PATH), 404, "not-found")


async def test_currency_stays_the_same(service: Caller) -> None:
    await put(service, valid_from="2026-01")
    refused = problem(await service.put(PATH, {**USUAL, "currency": "EUR"}), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/currency"]


async def test_unknown_assets_have_no_settings(service: Caller) -> None:
    for path in ("/v1/report-settings/XYZ", "/v1/report-settings/pts"):
        problem(await service.put(path, USUAL), 404, "not-found")
        problem(await service.get(path), 404, "not-found")
        problem(await service.get(f"{path}/versions"), 404, "not-found")


async def test_changes_of_settings_are_audited(service: Caller, services: Services) -> None:
    await put(service, valid_from="2026-03")
    records, _ = await services.audit_log.list_records(10, None)
    answered = next(record for record in records if record.action == "setReportSettings" and record.phase == "answered")
    assert (answered.subject, answered.facts) == ({"asset": "PTS"}, {"version": "1", "valid_from": "2026-03"})


async def test_settings_need_their_scopes(service: Caller, services: Services, anonymous: Caller) -> None:
    reader = anonymous.with_token(await services.access.create_key("reader", ["reports:read"]))
    await put(service)
    assert (await reader.get(PATH)).status_code == 200
    problem(await reader.put(PATH, USUAL), 403, "forbidden")
    other = anonymous.with_token(await services.access.create_key("other", ["reports:write"]))
    problem(await other.get(PATH), 403, "forbidden")
