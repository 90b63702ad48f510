"""Deferred revenue over HTTP, with figures that were worked out by hand."""

from typing import Any

import pytest

from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.months import Programme, move_to
from tests.views.build import build_views

FLOW = ("opening", "deferred", "reversed", "recognised_by_redemption", "recognised_by_expiry", "change_of_estimate", "closing")


@pytest.fixture
def programme(service: Caller, factory: Factory, services: Services, clock: ManualClock) -> Programme:
    move_to(clock, "2030-01-15T12:00:00Z")
    return Programme(service, factory, services, clock)


def flow(total: dict[str, Any]) -> tuple[int, ...]:
    return tuple(total[name] for name in FLOW)


async def test_allocation_and_recognition_month_by_month(programme: Programme, factory: Factory, clock: ManualClock) -> None:
    await programme.start()
    await programme.buy("anna", 100_000)
    await programme.spend("anna", 4_500)
    # 100,000 * 9,700 / 109,700 = 8,842; 8,842 * 4,500 / 9,700 = 4,102.
    january = await programme.report("deferred-revenue")
    assert (january["month"], january["status"], january["currency"], january["settings_version"]) == ("2030-01", "open", "GBP", 1)
    assert flow(january["total"]) == (0, 8_842, 0, 4_102, 0, 0, 4_740)
    [row] = january["rows"]
    assert flow(row) == flow(january["total"])
    assert (row["month"], row["goods"], row["priced_points"], row["free_points"]) == ("2030-01", 100_000, 10_000, 0)
    assert (row["points"], row["redeemed"], row["expected"], row["ultimate_rate"], row["allocated"]) == (
        10_000, 4_500, 9_700, "0.97", 8_842,
    )  # fmt: skip

    move_to(clock, "2030-02-15T12:00:00Z")
    await programme.set(redemption_rate="0.99")
    await programme.spend("anna", 4_000)
    # 8,842 * 8,500 / 9,900 = 7,592. Of it 8,842 * 4,500 / 9,900 = 4,019 are for what was redeemed before: 83 less than 4,102.
    february = await programme.report("deferred-revenue")
    assert flow(february["total"]) == (4_740, 0, 0, 3_573, 0, 83, 1_250)
    assert flow((await programme.report("deferred-revenue", month="2030-01"))["total"]) == flow(january["total"])

    move_to(clock, "2030-03-15T12:00:00Z")
    await programme.buy("bert", 20_000)
    march = await programme.report("deferred-revenue")
    # 20,000 * 1,980 / 21,980 = 1,802 for the points of March.
    assert [(row["month"], flow(row)) for row in march["rows"]] == [
        ("2030-01", (1_250, 0, 0, 0, 0, 0, 1_250)),
        ("2030-03", (0, 1_802, 0, 0, 0, 0, 1_802)),
    ]
    assert flow(march["total"]) == (1_250, 1_802, 0, 0, 0, 0, 3_052)
    await factory.assert_books_balance()


async def test_refund_takes_back_what_was_deferred(programme: Programme, factory: Factory, clock: ManualClock) -> None:
    await programme.start(redemption_rate="1")
    purchase = await programme.buy("anna", 90_000)
    assert flow((await programme.report("deferred-revenue"))["total"]) == (0, 8_182, 0, 0, 0, 0, 8_182)
    move_to(clock, "2030-02-15T12:00:00Z")
    await programme.buy("anna", 45_000, type="refund", refund_of=purchase["id"])
    february = await programme.report("deferred-revenue")
    # Half of the points were taken back: 8,182 / 2.
    assert flow(february["total"]) == (8_182, 0, 4_091, 0, 0, 0, 4_091)
    await factory.assert_books_balance()


async def test_expired_points_are_revenue(programme: Programme, factory: Factory, service: Caller, clock: ManualClock) -> None:
    await programme.set(redemption_rate="1")
    await factory.campaign(
        award={"type": "per_amount", "points": 1, "per": 10, "rounding": "floor"}, expiry={"type": "after_days", "days": 30}
    )
    await programme.buy("anna", 90_000)
    await programme.spend("anna", 3_000)
    assert flow((await programme.report("deferred-revenue"))["total"]) == (0, 8_182, 0, 2_727, 0, 0, 5_455)
    move_to(clock, "2030-02-20T12:00:00Z")
    # The expiry is booked with the next movement of the wallet.
    await programme.buy("anna", 90_000)
    february = await programme.report("deferred-revenue")
    assert [(row["month"], flow(row)) for row in february["rows"]] == [
        ("2030-01", (5_455, 0, 0, 0, 5_455, 0, 0)),
        ("2030-02", (0, 8_182, 0, 0, 0, 0, 8_182)),
    ]
    await factory.assert_books_balance()


async def test_points_without_a_purchase_in_the_currency_have_no_price(
    programme: Programme, factory: Factory, service: Caller
) -> None:
    await programme.start(redemption_rate="1")
    await factory.campaign(event_types=["review"], award={"type": "fixed", "amount": 700})
    await programme.buy("anna", 90_000)
    await programme.buy("anna", 30_000, currency="EUR")
    answer = await service.post(
        "/v1/events", factory.event(type="review", member={"external_id": "anna"}, amount=None, currency=None)
    )
    assert answer.status_code in (201, 422), answer.text
    member = (await service.get("/v1/members", external_id="anna")).json()["items"][0]["id"]
    assert (await service.post(f"/v1/wallets/{member}:PTS/credit", {"amount": 5_000})).status_code == 201
    [row] = (await programme.report("deferred-revenue"))["rows"]
    # Only the 9,000 points of the purchase in pounds: 90,000 * 9,000 / 99,000 = 8,182.
    assert (row["goods"], row["priced_points"], row["allocated"]) == (90_000, 9_000, 8_182)


async def test_without_settings_nothing_is_deferred(programme: Programme, service: Caller, services: Services) -> None:
    empty = dict.fromkeys(FLOW, 0)
    report = await programme.report("deferred-revenue")
    assert (report["currency"], report["settings_version"], report["total"]) == (None, None, empty)
    assert [row["month"] for row in report["rows"]] == ["2030-01"]
    for month in ("1970-01", "2030-02", "8999-12"):
        assert (await programme.report("deferred-revenue", month=month))["total"] == empty
    problem(await service.get("/v1/reports/deferred-revenue", asset="XYZ"), 404, "not-found")
    refused = problem(await service.get("/v1/reports/deferred-revenue", asset="PTS", month="2030-1"), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["month"]
    await build_views(services)


async def test_rows_as_csv(programme: Programme, service: Caller) -> None:
    await programme.start()
    await programme.buy("anna", 100_000)
    await programme.report("deferred-revenue")
    answer = await service.client.get(
        "/v1/reports/deferred-revenue",
        params={"asset": "PTS"},
        headers={"accept": "text/csv", "authorization": f"Bearer {service.token}"},
    )
    header, row = answer.text.splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert (cells["deferred"], cells["closing"], cells["month"], cells["asset"]) == ("8842", "8842", "2030-01", "PTS")
