"""Reports on offers, with figures worked out by hand; and the counts of refusals that they show."""

import csv
import io
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from guerdon.errors import SoldOut
from guerdon.ledger.jobs import sweep
from guerdon.offers import refusals
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.tier_fixtures import show
from tests.views.build import build_views

NOTHING = {
    "issued": 0, "reserved": 0, "released": 0, "used": 0, "unused": 0, "loaded": 0, "cancelled": 0, "expired": 0, "use_share": None,
    "issued_amount": 0, "used_amount": 0, "price_paid": {}, "refusals": {}, "use_refusals": {},
}  # fmt: skip
BASKET = {"amount": 4000, "currency": "GBP"}


@pytest.fixture(autouse=True)
def november(clock: ManualClock) -> None:
    show(clock, "2026-11-22T10:00:00Z")


async def report(service: Caller, services: Services, path: str = "", **params: Any) -> dict[str, Any]:
    await services.refusals.write()
    await build_views(services)
    answer = await service.get(f"/v1/reports/offers{path}", **params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def step(service: Caller, voucher: dict[str, Any], name: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = await service.post(f"/v1/vouchers/{voucher['code']}/{name}", body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def figures(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in NOTHING}


async def test_funnel_of_a_discount(service: Caller, services: Services, factory: Factory) -> None:
    offer = await factory.offer(name="5 off", price={"asset": "PTS", "amount": 30}, stock=10)
    member = (await factory.wallet(1000)).partition(":")[0]
    first, second, third, fourth = [await factory.voucher(offer, member) for _ in range(4)]
    await step(service, first, "use", BASKET)
    reserved = await step(service, second, "reserve", BASKET)
    await step(service, second, "use", {**BASKET, "reservation": reserved["reservation"]})
    await step(service, third, "reserve", BASKET)
    await step(service, third, "release", {})
    await step(service, third, "cancel", {})
    await step(service, fourth, "use", BASKET)
    await step(service, fourth, "unuse", {})
    read = await report(service, services)
    [row] = read["rows"]
    assert figures(row) == {
        **NOTHING, "issued": 4, "reserved": 2, "released": 1, "used": 3, "unused": 1, "cancelled": 1, "use_share": 0.5, "used_amount": 1500,
        "price_paid": {"PTS": 120},
    }  # fmt: skip
    assert {name: value for name, value in row.items() if name not in NOTHING} == {
        "offer": offer, "name": "5 off", "kind": "discount", "status": "active", "version": 1, "currency": "GBP", "stock": 10, "left": 7,
    }  # fmt: skip
    await factory.assert_books_balance()


async def test_gift_card_is_used_in_parts(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    value = {"type": "fixed", "amount": 2500, "currency": "GBP"}
    offer = await factory.offer(kind="gift_card", value=value, voucher_valid_days=30)
    member = await factory.member()
    card = await factory.voucher(offer, member)
    await step(service, card, "use", {"amount": 900, "currency": "GBP"})
    await step(service, card, "load", {"member_id": member, "amount": 600})
    clock.advance(days=40)
    one = await report(service, services, f"/{offer}", **{"from": "2026-11-01", "to": "2027-02-01"})
    november, december, january = one["rows"]
    assert figures(november) == {
        **NOTHING,
        "issued": 1,
        "used": 1,
        "loaded": 1,
        "use_share": 1.0,
        "issued_amount": 2500,
        "used_amount": 900,
    }
    assert figures(december) == figures(january) == NOTHING
    assert (one["currency"], one["stock"], one["left"], one["kind"]) == ("GBP", None, None, "gift_card")
    await factory.assert_books_balance()


async def test_expired_voucher_counts_on_the_day_of_its_entry(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    offer = await factory.offer(voucher_valid_days=2)
    await factory.voucher(offer, await factory.member())
    clock.advance(days=4)
    await sweep(services.ledger, services.database, services.clock)
    one = await report(service, services, f"/{offer}", **{"from": "2026-11-22", "to": "2026-11-28", "group": "day"})
    assert [(row["period"], row["issued"], row["expired"]) for row in one["rows"] if row["issued"] or row["expired"]] == [
        ("2026-11-22", 1, 0), ("2026-11-26", 0, 1),
    ]  # fmt: skip
    await factory.assert_books_balance()


async def test_codes_of_a_batch_are_issued(service: Caller, services: Services, factory: Factory) -> None:
    offer = await factory.offer(stock=100)
    answer = await service.post(f"/v1/offers/{offer}/codes", {"count": 7})
    assert answer.status_code == 202, answer.text
    await services.code_generation.generate_open()
    [row] = (await report(service, services))["rows"]
    assert (row["issued"], row["left"], row["use_share"]) == (7, 93, 0.0)
    await factory.assert_books_balance()


async def test_refusals_are_counted_by_reason(service: Caller, services: Services, factory: Factory) -> None:
    offer = await factory.offer(stock=1, per_member_limit=1, price={"asset": "PTS", "amount": 30})
    rich, poor = (await factory.wallet(1000)).partition(":")[0], await factory.member()
    path = f"/v1/offers/{offer}/redeem"
    problem(await service.post(path, {"member_id": poor}), 409, "insufficient-funds")
    problem(await service.post(f"{path}?dry_run=true", {"member_id": poor}), 409, "insufficient-funds")
    voucher = await factory.voucher(offer, rich)
    problem(await service.post(path, {"member_id": rich}), 409, "limit-reached")
    for _ in range(2):
        problem(await service.post(path, {"member_id": poor}), 409, "sold-out")
    problem(await service.post(path, {"member_id": "mem_" + "f" * 32}), 404, "not-found")
    first = await service.post(path, {"member_id": poor, "reference": "r"}, key="once")
    problem(first, 409, "sold-out")
    problem(await service.post(path, {"member_id": poor}, key="once"), 422, "idempotency-key-reused")
    await step(service, voucher, "use", BASKET)
    for _ in range(2):
        await step(service, voucher, "use", BASKET, 409)
    await step(service, voucher, "validate", BASKET)
    [row] = (await report(service, services))["rows"]
    assert row["refusals"] == {"insufficient-funds": 1, "limit-reached": 1, "sold-out": 3}
    assert row["use_refusals"] == {"invalid-state": 2}
    await factory.assert_books_balance()


async def test_counts_are_added_up_over_processes_and_failures(
    service: Caller, services: Services, other_services: Services, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = await factory.offer(stock=0)
    member = await factory.member()
    path = f"/v1/offers/{offer}/redeem"
    problem(await service.post(path, {"member_id": member}), 409, "sold-out")

    async def fail(*_: Any, **__: Any) -> None:
        raise AutoReconnect("no primary")

    with monkeypatch.context() as patch, pytest.raises(AutoReconnect):
        patch.setattr(type(services.database.raw["offer_refusals"]), "bulk_write", fail)
        await services.refusals.write()
    problem(await service.post(path, {"member_id": member}), 409, "sold-out")
    await services.refusals.write()
    await services.refusals.write()
    with other_services.refusals.counting(offer, "redeem", dry_run=False):
        pass
    [row] = (await report(service, services))["rows"]
    assert row["refusals"] == {"sold-out": 2}


async def test_memory_for_counts_is_bounded(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "COUNTS_MAX", 2)
    for offer in ("off_1", "off_2", "off_3", "off_1"):
        with pytest.raises(SoldOut), services.refusals.counting(offer, "redeem", dry_run=False):
            raise SoldOut("none left", stock=0)
    await services.refusals.write()
    found = await services.refusals.sums(["off_1", "off_2", "off_3"], "2026-11-22", "2026-11-23")
    assert {row["offer"]: row["count"] for row in found} == {"off_1": 2, "off_2": 1}
    assert await services.refusals.sums(["off_1"], "2026-11-23", "2026-11-24") == []


async def test_empty_database_drafts_and_empty_ranges(service: Caller, services: Services, factory: Factory) -> None:
    empty = await report(service, services)
    assert (empty["report"], empty["rows"], empty["complete"], empty["asset"]) == ("offers", [], True, None)
    draft = await factory.offer(active=False)
    offer = await factory.offer()
    await factory.voucher(offer, await factory.member())
    for between in ({"from": "2026-11-22", "to": "2026-11-22"}, {"from": "2030-01-01", "to": "2031-01-01"}):
        assert [figures(row) for row in (await report(service, services, **between))["rows"]] == [NOTHING]
        one = await report(service, services, f"/{offer}", **between)
        assert figures(one["total"]) == NOTHING
        assert all(figures(row) == NOTHING for row in one["rows"])
    assert [row["offer"] for row in (await report(service, services, status="draft"))["rows"]] == [draft]
    assert len((await report(service, services, f"/{offer}", **{"from": "2017-01-01", "to": "2027-01-01"}))["rows"]) == 120


async def test_rows_as_csv(service: Caller, services: Services, factory: Factory) -> None:
    offer = await factory.offer(name="5 off")
    await factory.voucher(offer, await factory.member())
    await build_views(services)
    for path in ("/v1/reports/offers", f"/v1/reports/offers/{offer}"):
        answer = await service.client.get(path, headers={"authorization": f"Bearer {service.token}", "accept": "text/csv"})
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        [row] = csv.DictReader(io.StringIO(answer.text, newline=""))
        assert (row["issued"], row["refusals"]) == ("1", "{}")


async def test_missing_offer_views_and_scope(service: Caller, anonymous: Caller, services: Services, factory: Factory) -> None:
    offer = await factory.offer()
    for path in ("", f"/{offer}"):
        problem(await service.get(f"/v1/reports/offers{path}"), 503, "views-not-built")
    await build_views(services)
    problem(await service.get("/v1/reports/offers/off_none"), 404, "not-found")
    problem(await service.get("/v1/reports/offers", status="x"), 422, "validation")
    other = anonymous.with_token(await services.access.create_key("other", ["offers:read"]))
    problem(await other.get(f"/v1/reports/offers/{offer}"), 403, "forbidden")
    reader = anonymous.with_token(await services.access.create_key("reader", ["reports:read"]))
    assert (await reader.get("/v1/reports/offers")).status_code == 200
