"""Breakage over HTTP: cohorts, triangle and ultimate redemption rates that were worked out by hand."""

import pytest

from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.months import Programme, move_to


@pytest.fixture
def programme(service: Caller, factory: Factory, services: Services, clock: ManualClock) -> Programme:
    move_to(clock, "2030-01-15T12:00:00Z")
    return Programme(service, factory, services, clock)


async def test_triangle_and_rates(programme: Programme, factory: Factory, clock: ManualClock) -> None:
    await programme.start(redemption_rate=None)
    # anna earns 1,000 points in January and redeems 100, 200 and 150; bert earns 2,000 in February and redeems 300 and 500; carl 4,000.
    await programme.buy("anna", 10_000)
    await programme.spend("anna", 100)
    first = await programme.report("breakage")
    assert [(row["chain_ladder_rate"], row["ultimate_rate"]) for row in first["rows"]] == [(None, "1")], "one month shows nothing"
    move_to(clock, "2030-02-15T12:00:00Z")
    await programme.buy("bert", 20_000)
    await programme.spend("anna", 200)
    await programme.spend("bert", 300)
    move_to(clock, "2030-03-15T12:00:00Z")
    await programme.buy("carl", 40_000)
    await programme.spend("anna", 150)
    await programme.spend("bert", 500)
    await programme.spend("carl", 500)
    report = await programme.report("breakage")
    assert (report["month"], report["status"], report["override"], report["settings_version"]) == ("2030-03", "open", None, 1)
    assert report["triangle"] == [
        {"month": "2030-01", "redeemed": [100, 300, 450]},
        {"month": "2030-02", "redeemed": [300, 800]},
        {"month": "2030-03", "redeemed": [500]},
    ]
    # f(0) = (300 + 800) / (100 + 300) = 2.75; f(1) = 450 / 300 = 1.5.
    assert report["factors"] == [{"age": 0, "earlier": 400, "later": 1100}, {"age": 1, "earlier": 300, "later": 450}]
    rows = report["rows"]
    assert [row["redemption_rate"] for row in rows] == ["0.45", "0.4", "0.125"]
    # 450 / 1,000; 800 * 1.5 / 2,000; 500 * 2.75 * 1.5 / 4,000.
    assert [row["chain_ladder_rate"] for row in rows] == ["0.45", "0.6", "0.515625"]
    assert [row["breakage_rate"] for row in rows] == ["0.55", "0.4", "0.484375"]
    # 2,062.5 points of carl are rounded to the even number.
    assert [row["expected_redemption"] for row in rows] == [0, 400, 1562]
    assert [row["realised_breakage"] for row in rows] == [None, None, None]
    assert report["total"] == {
        "issued": 7000, "redeemed": 1750, "expired": 0, "outstanding": 5250, "expected_redemption": 1962, "ultimate_rate": "0.530286",
    }  # fmt: skip
    assert (await programme.report("breakage", month="2030-01"))["rows"] == first["rows"], "an earlier month is as it was"

    await programme.set(redemption_rate="0.97")
    report = await programme.report("breakage")
    assert (report["override"], [row["ultimate_rate"] for row in report["rows"]]) == ("0.97", ["0.97"] * 3)
    assert [row["chain_ladder_rate"] for row in report["rows"]] == ["0.45", "0.6", "0.515625"], "the estimate is shown beside it"
    await factory.assert_books_balance()


async def test_finished_cohort_has_realised_breakage(programme: Programme, factory: Factory, clock: ManualClock) -> None:
    await factory.campaign(
        award={"type": "per_amount", "points": 1, "per": 10, "rounding": "floor"}, expiry={"type": "after_days", "days": 20}
    )
    await programme.buy("anna", 10_000)
    await programme.spend("anna", 250)
    move_to(clock, "2030-02-15T12:00:00Z")
    await programme.buy("anna", 10)
    rows = (await programme.report("breakage"))["rows"]
    assert [(row["month"], row["expired"], row["realised_breakage"], row["ultimate_rate"]) for row in rows] == [
        ("2030-01", 750, "0.75", "0.25"),
        # Nothing of it was redeemed yet, so it gets the rate of the older cohorts.
        ("2030-02", 0, None, "0.25"),
    ]
    await factory.assert_books_balance()


async def test_empty_and_unknown_assets(programme: Programme, service: Caller) -> None:
    report = await programme.report("breakage")
    assert (report["rows"], report["triangle"], report["factors"]) == ([], [], [])
    assert report["total"]["ultimate_rate"] == "0"
    assert (await programme.report("breakage", month="2099-01"))["rows"] == []
    problem(await service.get("/v1/reports/breakage", asset="XYZ"), 404, "not-found")
    names = [each["name"] for each in (await service.get("/v1/reports")).json()["items"]]
    assert {"breakage", "deferred-revenue"} <= set(names)
