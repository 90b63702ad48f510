"""Month close over HTTP: the order, the times, frozen figures, corrections, races, and what verification finds."""

import asyncio
import hashlib
import json
from typing import Any

import pytest

from guerdon.calendar import first_of_month
from guerdon.config import Settings
from guerdon.logs import make_logger
from guerdon.verification.closings import CLOSINGS
from guerdon.verification.service import verify
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, Log, ManualClock, client_of, problem
from tests.commands import guerdon_here
from tests.factories import Factory
from tests.invariants.retail import guerdon
from tests.months import Programme, move_to
from tests.views.build import build_views

Body = dict[str, Any]
SETTLED = "2030-02-01T00:01:30Z"


@pytest.fixture
def programme(service: Caller, factory: Factory, services: Services, clock: ManualClock) -> Programme:
    move_to(clock, "2030-01-15T12:00:00Z")
    return Programme(service, factory, services, clock)


async def close(service: Caller, services: Services, month: str, status: int = 201) -> Body:
    await build_views(services)
    answer = await service.post("/v1/closings", {"month": month})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def of_points(closing: Body) -> Body:
    return next(dict(each) for each in closing["assets"] if each["asset"] == "PTS")


# --- when a month can be closed -------------------------------------------------------------------------------------


async def test_month_must_be_over_and_settled(service: Caller, services: Services, clock: ManualClock) -> None:
    for moment in ("2030-01-31T12:00:00Z", "2030-01-31T23:59:59Z", "2030-02-01T00:01:29Z"):
        move_to(clock, moment)
        await build_views(services)
        refused = problem(await service.post("/v1/closings", {"month": "2030-01"}), 409, "month-not-over")
        assert (refused["month"], refused["closable_at"]) == ("2030-01", "2030-02-01T00:01:30.000Z")
    move_to(clock, "2030-02-01T01:00:00Z")
    closing = await close(service, services, "2030-01")
    assert (closing["month"], closing["time_zone"], closing["previous"], closing["checkpoint"]) == ("2030-01", "UTC", None, None)
    assert closing["assets"] == [], "an empty database closes with no figures"


async def test_views_must_have_reached_the_end_of_the_month(service: Caller, services: Services, clock: ManualClock) -> None:
    move_to(clock, "2030-02-10T00:00:00Z")
    refused = problem(await service.post("/v1/closings", {"month": "2030-01"}), 503, "views-not-built")
    assert "worker" in refused["detail"]
    await build_views(services)
    # The views stop ten days before the present: the position is as old as that.
    positions = services.database.raw["view_positions"]
    await positions.update_many({}, [{"$set": {"at_ms": {"$subtract": ["$at_ms", 10 * 86_400_000]}}}])
    answer = await service.post("/v1/closings", {"month": "2030-01"})
    refused = problem(answer, 503, "views-behind")
    assert (refused["needed"], int(answer.headers["retry-after"])) == ("2030-02-01T00:01:30.000Z", 5)
    assert refused["as_of"].startswith("2030-01-3")
    assert (await service.get("/v1/closings")).json()["items"] == []


async def test_months_are_closed_in_order(service: Caller, services: Services, clock: ManualClock) -> None:
    move_to(clock, "2030-06-15T12:00:00Z")
    await close(service, services, "2030-02")
    refused = problem(await service.post("/v1/closings", {"month": "2030-05"}), 409, "closing-order")
    assert (refused["month"], refused["next"]) == ("2030-05", "2030-03")
    refused = problem(await service.post("/v1/closings", {"month": "2030-01"}), 409, "closing-order")
    assert refused["next"] == "2030-03"
    await close(service, services, "2030-03")
    await close(service, services, "2030-04")
    page = (await service.get("/v1/closings", limit=2)).json()
    assert [each["month"] for each in page["items"]] == ["2030-04", "2030-03"]
    rest = (await service.get("/v1/closings", limit=2, cursor=page["next_cursor"])).json()
    assert ([each["month"] for each in rest["items"]], rest["next_cursor"]) == (["2030-02"], None)
    newest, middle = page["items"]
    assert (newest["previous"], middle["previous"]) == (middle["sha256"], rest["items"][0]["sha256"])


async def test_months_that_cannot_be_named(service: Caller, services: Services) -> None:
    for month in ("2030-13", "2030-1", "30-01", "", None):
        refused = problem(await service.post("/v1/closings", {"month": month}), 422, "validation")
        assert [error["pointer"] for error in refused["errors"]] == ["/month"]
    for month in ("2030-01", "never"):
        problem(await service.get(f"/v1/closings/{month}"), 404, "not-found")
    problem(await service.get("/v1/closings", cursor="x"), 422, "validation")


# --- figures --------------------------------------------------------------------------------------------------------


async def test_closed_figures(programme: Programme, service: Caller, services: Services, clock: ManualClock) -> None:
    await programme.start()
    await programme.buy("anna", 100_000)
    await programme.spend("anna", 4_500)
    move_to(clock, "2030-02-15T12:00:00Z")
    await programme.spend("anna", 1_000)
    closing = await close(service, services, "2030-01")
    points = of_points(closing)
    roll = points["roll_forward"]
    assert (roll["opening"], roll["earned"], roll["redeemed"], roll["closing"]) == (0, 10_000, 4_500, 5_500)
    assert points["trial_balance"] == {
        "accounts": [
            {"account": "system:issuer", "balance": -10_000},
            {"account": "system:merchant", "balance": 4_500},
            {"account": "wallets", "balance": 5_500},
        ],
        "sum": 0,
    }
    liability = points["liability"]["total"]
    # 5,500 points at 0.5; 9,700 - 4,500 of them are expected to be redeemed.
    assert (liability["outstanding"], liability["maximum_cost"], liability["expected_cost"]) == (5_500, 2_750, 2_600)
    deferred = points["deferred_revenue"]
    assert (deferred["total"]["deferred"], deferred["total"]["closing"], deferred["settings_version"]) == (8_842, 4_740, 1)
    assert points["breakage"]["triangle"] == [{"month": "2030-01", "redeemed": [4_500]}]
    report = await programme.report("deferred-revenue", month="2030-01")
    assert (report["status"], report["rows"], report["total"]) == ("closed", deferred["rows"], deferred["total"])
    report = await programme.report("breakage", month="2030-01")
    assert (report["status"], report["rows"]) == ("closed", points["breakage"]["rows"])


async def test_digest_can_be_computed_from_the_answer(
    programme: Programme, service: Caller, services: Services, clock: ManualClock
) -> None:
    await programme.start()
    await programme.buy("anna", 100_000)
    move_to(clock, "2030-02-15T12:00:00Z")
    closing = await close(service, services, "2030-01")
    sha256 = closing.pop("sha256")
    text = json.dumps(closing, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == sha256
    records, _ = await services.audit_log.list_records(10, None)
    assert next(record for record in records if record.action == "monthClosed").facts == {"sha256": sha256}
    answered = next(record for record in records if record.action == "closeMonth" and record.phase == "answered")
    assert answered.facts == {"month": "2030-01", "sha256": sha256}


async def test_corrections_are_part_of_the_open_month(
    programme: Programme, service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    await programme.start(redemption_rate="1")
    await programme.buy("anna", 90_000)
    move_to(clock, "2030-02-10T12:00:00Z")
    first = await close(service, services, "2030-01")
    before = (await service.get("/v1/closings/2030-01")).content
    assert of_points(first)["deferred_revenue"]["total"]["closing"] == 8_182
    # A purchase of January arrives late, and a credit is dated back into it.
    await programme.buy("anna", 90_000, occurred_at="2030-01-20T12:00:00Z")
    member = (await service.get("/v1/members", external_id="anna")).json()["items"][0]["id"]
    credit = {"amount": 300, "effective_at": "2030-01-05T00:00:00Z"}
    assert (await service.post(f"/v1/wallets/{member}:PTS/credit", credit)).status_code == 201

    january = await programme.report("deferred-revenue", month="2030-01")
    assert (january["status"], january["total"]["closing"]) == ("closed", 8_182)
    again = await close(service, services, "2030-01", 200)
    assert again == first, "a closed month is not closed again"

    move_to(clock, "2030-03-10T12:00:00Z")
    second = of_points(await close(service, services, "2030-02"))
    assert (second["roll_forward"]["opening"], second["roll_forward"]["earned"]) == (9_000, 9_000)
    assert (second["roll_forward"]["loaded"], second["roll_forward"]["closing"]) == (300, 18_300)
    deferred = second["deferred_revenue"]
    # The points of the late purchase were awarded in February, and so their price is deferred in February.
    assert [(row["month"], row["opening"], row["deferred"], row["closing"]) for row in deferred["rows"]] == [
        ("2030-01", 8_182, 0, 8_182),
        ("2030-02", 0, 8_182, 8_182),
    ]
    assert (await service.get("/v1/closings/2030-01")).content == before
    await factory.assert_books_balance()


async def test_settings_cannot_change_a_closed_month(
    programme: Programme, service: Caller, services: Services, clock: ManualClock
) -> None:
    await programme.start()
    move_to(clock, "2030-02-15T12:00:00Z")
    await close(service, services, "2030-01")
    body = {"currency": "GBP", "value_per_point": "2", "cost_per_point": "1"}
    for month in ("2029-12", "2030-01"):
        refused = problem(await service.put("/v1/report-settings/PTS", {**body, "valid_from": month}), 409, "month-closed")
        assert (refused["month"], refused["closed_through"]) == (month, "2030-01")
    assert (await service.put("/v1/report-settings/PTS", {**body, "valid_from": "2030-02"})).status_code == 200


# --- months of a zone -----------------------------------------------------------------------------------------------


@pytest.mark.own_app
async def test_months_are_those_of_the_time_zone(services: Services, settings: Settings, clock: ManualClock, log: Log) -> None:
    move_to(clock, "2030-01-15T12:00:00Z")
    zoned = settings.model_copy(update={"time_zone": "America/New_York"})
    async with open_services(zoned, clock) as others:
        app = build_app(others, zoned, make_logger(clock, "info", log))
        async with client_of(app) as client:
            service = Caller(client, await others.access.create_key("zones", ["*"]))
            factory = Factory(service, others)
            programme = Programme(service, factory, others, clock)
            await programme.start()
            move_to(clock, "2030-02-01T04:30:00Z")
            await programme.buy("anna", 100_000)
            await build_views(others)
            refused = problem(await service.post("/v1/closings", {"month": "2030-01"}), 409, "month-not-over")
            assert refused["closable_at"] == "2030-02-01T05:01:30.000Z"
            move_to(clock, "2030-02-01T06:00:00Z")
            await programme.buy("anna", 50_000)
            closing = await close(service, others, "2030-01")
            assert (closing["time_zone"], of_points(closing)["roll_forward"]["closing"]) == ("America/New_York", 10_000)


# --- races and verification -----------------------------------------------------------------------------------------


async def test_one_of_two_closes_wins(
    programme: Programme, services: Services, other_services: Services, clock: ManualClock
) -> None:
    await programme.start()
    await programme.buy("anna", 100_000)
    move_to(clock, "2030-03-15T12:00:00Z")
    await build_views(services)
    results = await asyncio.gather(
        *(each.closings.close("key_tests", "2030-01", f"req_{n}") for n, each in enumerate([services, other_services] * 4))
    )
    assert len({closing.sha256 for closing, _ in results}) == 1
    assert [made for _, made in results].count(True) == 1
    months = await asyncio.gather(
        services.closings.close("key_tests", "2030-02", "req_a"),
        other_services.closings.close("key_tests", "2030-02", "req_b"),
    )
    assert sorted(made for _, made in months) == [False, True]
    records, _ = await services.audit_log.list_records(100, None)
    assert len([record for record in records if record.action == "monthClosed"]) == 2


async def test_first_closes_of_different_months_leave_no_gap(
    services: Services, other_services: Services, clock: ManualClock
) -> None:
    move_to(clock, "2030-06-15T12:00:00Z")
    await build_views(services)
    await asyncio.gather(
        services.closings.close("key_tests", "2030-01", "req_a"),
        other_services.closings.close("key_tests", "2030-04", "req_b"),
        return_exceptions=True,
    )
    assert await services.database.raw[CLOSINGS].count_documents({}) == 1


@pytest.mark.parametrize(
    "tampered",
    [
        ({"$set": {"content": "{}"}}, "differ from its digest"),
        ({"$set": {"sha256": "0" * 64}}, "differ from its digest"),
        ({"$set": {"record": 1}}, "audit log does not contain"),
        ({"$unset": {"content": ""}}, "damaged"),
    ],
)
async def test_verification_names_a_changed_month(
    programme: Programme, service: Caller, services: Services, clock: ManualClock, tampered: tuple[Body, str]
) -> None:
    change, detail = tampered
    await programme.start()
    await programme.buy("anna", 100_000)
    move_to(clock, "2030-03-15T12:00:00Z")
    await close(service, services, "2030-01")
    await close(service, services, "2030-02")
    report = await verify(services.database, calendar=services.ledger.calendar)
    assert report.violations == 0, report.first
    await services.database.raw[CLOSINGS].update_one({"_id": "2030-02"}, change)
    report = await verify(services.database, calendar=services.ledger.calendar)
    assert (report.first["L16"].where, detail in report.first["L16"].detail) == ("closings/2030-02", True), report.first


async def test_verification_finds_rewritten_and_removed_months(
    programme: Programme, service: Caller, services: Services, clock: ManualClock
) -> None:
    await programme.start()
    move_to(clock, "2030-04-15T12:00:00Z")
    for month in ("2030-01", "2030-02", "2030-03"):
        await close(service, services, month)
    closings = services.database.raw[CLOSINGS]
    stored = await closings.find_one({"_id": "2030-02"})
    assert stored is not None
    content = json.loads(stored["content"]) | {"closed_by": "key_other"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    await closings.update_one({"_id": "2030-02"}, {"$set": {"content": text, "sha256": digest}})
    report = await verify(services.database, calendar=services.ledger.calendar)
    assert report.first["L16"].where == "closings/2030-02"
    assert report.violations == 2, "the month itself, and the month after it"
    await closings.delete_one({"_id": "2030-03"})
    await closings.replace_one({"_id": "2030-02"}, stored)
    report = await verify(services.database, calendar=services.ledger.calendar)
    assert (report.violations, report.first["L16"].where) == (1, "closings/2030-03")
    assert "does not exist" in report.first["L16"].detail


async def test_closing_needs_its_scopes(service: Caller, services: Services, anonymous: Caller) -> None:
    reader = anonymous.with_token(await services.access.create_key("reader", ["closings:read"]))
    assert (await reader.get("/v1/closings")).status_code == 200
    problem(await reader.post("/v1/closings", {"month": "2020-01"}), 403, "forbidden")
    problem(await anonymous.get("/v1/closings"), 401, "unauthenticated")


async def test_command_closes_a_month(
    service: Caller, services: Services, factory: Factory, settings: Settings, mongodb_url: str
) -> None:
    """The command follows the clock of the database, so it closes the month before the present one."""
    await factory.wallet(100)
    await build_views(services)
    where = {"GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": settings.mongodb_database}
    today = services.ledger.calendar.local(services.clock.now_ms()).date()
    present, before = today.isoformat()[:7], first_of_month(today, -1).isoformat()[:7]
    run = await guerdon("close", before, **where)
    closed = (await service.get(f"/v1/closings/{before}")).json()
    assert (run.status, run.out) == (0, f"{before} is closed, sha256 {closed['sha256']}\n"), run.err
    run = await guerdon_here("close", before, "--json", **where)
    assert (run.status, json.loads(run.out)) == (0, closed)
    assert (await guerdon_here("close", before, **where)).out.startswith(f"{before} was closed at {closed['closed_at']}")
    for month, words in ((present, "can be closed from"), ("2030", "is not a month")):
        run = await guerdon_here("close", month, **where)
        assert (run.status, words in run.err) == (2, True), run.err
    assert closed["closed_by"] == "terminal"
    await factory.assert_books_balance()
