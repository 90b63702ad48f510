"""`guerdon reports check`: every sum of the views is computed a second time, and a planted error is found."""

import random
from typing import Any

import pytest

from guerdon.database import Database
from guerdon.reports.check.service import CheckReport, NotChecked, check_views
from guerdon.verification.service import verify
from guerdon.views import models
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.invariants.full_ledger import Shop, build
from tests.tier_fixtures import set_tiers
from tests.views.build import build_views

ADA, BOB = {"external_id": "ada"}, {"external_id": "bob"}


async def check(services: Services) -> CheckReport:
    return await check_views(services.database, services.views, services.ledger.calendar)


async def equal(services: Services) -> CheckReport:
    report = await check(services)
    assert report.equal, report.first
    return report


async def fill_events(service: Caller, factory: Factory) -> None:
    """Purchases in any order, refunds before and after, voids of each, a confirmation, events of another type, and changes of tier."""
    await set_tiers(service)
    await factory.campaign(clawback="debt")
    await factory.campaign(
        name="double", award={"type": "percent", "percent": "2.5"}, caps=[{"scope": "member", "period": "day", "limit": 120}]
    )
    await factory.campaign(
        name="after delivery", award={"type": "fixed", "amount": 30},
        pending={"type": "event", "event_type": "delivered", "within_days": 30}, expiry={"type": "after_days", "days": 90},
    )  # fmt: skip
    sent: list[tuple[str, dict[str, Any]]] = []

    async def send(name: str, **fields: Any) -> None:
        event = factory.event(**{"id": name, "member": ADA, "amount": 10_000, **fields})
        answer = await service.post("/v1/events", event, key=None)
        assert answer.status_code == 201, answer.text
        sent.append((name, answer.json()))

    async def void(name: str) -> None:
        answer = await service.post(f"/v1/events/{name}/void", {"reason": "a mistake"}, key=None)
        assert answer.status_code == 200, answer.text

    await send("march", occurred_at="2026-03-05T10:00:00Z")
    await send("january", occurred_at="2026-01-31T23:30:00Z", member=BOB)
    await send("january of ada", occurred_at="2026-01-15T10:00:00Z", amount=4_000)
    await send("february", occurred_at="2026-02-10T10:00:00Z", currency="EUR")
    await send("back", type="refund", refund_of="march", amount=2_500, occurred_at="2026-03-07T10:00:00Z")
    await send("early", type="refund", refund_of="late", amount=3_000, occurred_at="2026-03-08T10:00:00Z")
    await send("late", occurred_at="2026-03-01T10:00:00Z", amount=9_000)
    await send("without a purchase", type="refund", amount=700, occurred_at="2026-03-09T10:00:00Z")
    await send("arrived", type="delivered", confirms="march", amount=0, occurred_at="2026-03-10T10:00:00Z")
    await send("visit", type="visit", amount=500, occurred_at="2026-03-11T10:00:00Z")
    await void("january of ada")
    await void("march")
    await void("visit")
    await send("too late", type="refund", refund_of="march", amount=1_000, occurred_at="2026-03-12T10:00:00Z")
    await send("january again", occurred_at="2026-01-20T10:00:00Z", amount=2_000)


@pytest.fixture
def shop(service: Caller, services: Services, clock: ManualClock) -> Shop:
    return Shop(service, services, clock)


async def test_views_of_everything_are_what_the_entries_and_events_give(
    shop: Shop, service: Caller, services: Services, factory: Factory
) -> None:
    with pytest.raises(NotChecked, match="not built yet"):
        await check(services)
    await build(shop, random.Random(1))
    await fill_events(service, factory)
    await build_views(services)
    report = await equal(services)
    assert (report.pending, report.accounts, report.members, report.values > 200) == (0, 40, 2, True)
    assert report.trial_balance == (await verify(services.database)).balances
    assert {asset: sum(accounts.values()) for asset, accounts in report.trial_balance.items()} == {"PTS": 0, "GBP": 0}
    await factory.assert_books_balance()


async def test_documents_that_the_views_lack_are_added_before_the_comparison(
    shop: Shop, service: Caller, services: Services, factory: Factory
) -> None:
    await fill_events(service, factory)
    await build_views(services)
    await build(shop, random.Random(2))
    answer = await service.post("/v1/events", factory.event(id="one more", member=BOB), key=None)
    assert answer.status_code == 201
    await service.post("/v1/events/late/void", {"reason": "a mistake"}, key=None)
    report = await equal(services)
    assert report.pending > 150
    await build_views(services)
    assert (await equal(services)).pending == 0
    await factory.assert_books_balance()


AGGREGATES = {aggregate.collection: aggregate for aggregate in models.AGGREGATES}


async def test_planted_error_in_any_sum_is_found(shop: Shop, service: Caller, services: Services, factory: Factory) -> None:
    """In each sum of each aggregate, and a missing row of each; what was planted is put back each time."""
    await build(shop, random.Random(3))
    await fill_events(service, factory)
    await build_views(services)
    await equal(services)
    for collection, aggregate in AGGREGATES.items():
        rows = services.database.raw[collection]
        for name in aggregate.sums:
            row = await rows.find_one({name: {"$ne": 0}})
            assert row is not None, name
            await rows.update_one({"_id": row["_id"]}, {"$inc": {name: 1}})
            report = await check(services)
            await rows.replace_one({"_id": row["_id"]}, row)
            if (collection, name) not in UNCHECKED:
                assert collection in report.differences, (name, report)
        row = await rows.find_one({aggregate.sums[0]: {"$ne": 0}})
        assert row is not None
        await rows.delete_one({"_id": row["_id"]})
        assert collection in (await check(services)).differences
        await rows.insert_one(row)
    await equal(services)


UNCHECKED = {("read_cohorts", "count"), ("read_cohort_months", "count")}
"""Sums that nothing else gives: the number of changes of cohorts."""


async def corrupted(
    database: Database, collection: str, where: dict[str, Any], change: dict[str, Any], services: Services
) -> CheckReport:
    """The report with one state changed; the state is put back."""
    row = await database.raw[collection].find_one(where)
    assert row is not None
    await database.raw[collection].update_one({"_id": row["_id"]}, change)
    report = await check(services)
    await database.raw[collection].replace_one({"_id": row["_id"]}, row)
    return report


async def test_planted_errors_in_states_are_found(
    shop: Shop, service: Caller, services: Services, factory: Factory, database: Database
) -> None:
    await build(shop, random.Random(3))
    await fill_events(service, factory)
    await build_views(services)
    accounts, members = database.raw[models.ACCOUNT_STATES], database.raw[models.MEMBER_STATES]
    dated: dict[str, Any] = {"queues": {"$elemMatch": {"expires_at": {"$gt": 0}}}, "next_expires_at": {"$gt": 0}}
    planted: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
        (models.ACCOUNT_STATES, {"kind": "wallet"}, {"$inc": {"balance": 1}}, models.ACCOUNT_STATES),
        (models.ACCOUNT_STATES, {"held": {"$gt": 0}}, {"$inc": {"held": -1}}, models.ACCOUNT_STATES),
        (models.ACCOUNT_STATES, {"counts_money": False}, {"$inc": {"balance": 1}}, models.ACCOUNT_STATES),
        (models.ACCOUNT_STATES, {"kind": "gift_card"}, {"$set": {"kind": "wallet"}}, models.ACCOUNT_STATES),
        (models.ACCOUNT_STATES, {"seq": {"$gt": 1}}, {"$inc": {"seq": 1}}, "marks"),
        (models.ACCOUNT_STATES, dated, {"$inc": {"next_expires_at": -1}}, models.ACCOUNT_STATES),
        (
            models.ACCOUNT_STATES,
            {"queues.cohorts.amount": {"$gt": 1}},
            {"$inc": {"queues.0.cohorts.0.amount": 1}},
            "cohorts of lots",
        ),
        (
            models.ACCOUNT_STATES,
            {"queues.cohorts.campaign": {"$gt": ""}},
            {"$set": {"queues.0.cohorts.0.month": "2020-01"}},
            "read_cohorts",
        ),
        (models.MEMBER_STATES, {"number": {"$gt": 1}}, {"$inc": {"number": 100}}, "marks"),
        (models.MEMBER_STATES, {"spent.GBP": {"$gt": 0}}, {"$inc": {"spent.GBP": 5}}, models.MEMBER_STATES),
    ]
    for collection, where, change, view in planted:
        report = await corrupted(database, collection, where, change, services)
        assert view in report.differences, (change, report)
    for states in (accounts, members):
        row = await states.find_one({})
        assert row is not None
        await states.insert_one({**row, "_id": "1|mem_invented:PTS"})
        assert states.name in (await check(services)).differences
        await states.delete_one({"_id": "1|mem_invented:PTS"})
    await equal(services)
    # Without its state an account counts as one that the views do not have yet, so that its sums are there twice.
    row = await accounts.find_one({"kind": "wallet"})
    assert row is not None
    await accounts.delete_one({"_id": row["_id"]})
    assert {"read_days", "read_totals"} <= set((await check(services)).differences)
