"""Building views by scan."""

import asyncio

import pytest

from guerdon.projections import scan
from guerdon.projections.generations import GenerationStore
from guerdon.projections.models import PARTITIONS
from guerdon.projections.positions import POSITIONS
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.factories import Factory
from tests.views.build import build_views
from tests.views.counting import COUNTING, ENTRY_COUNTS, assert_equal_to_documents, counting_views


async def fill(factory: Factory, service: Caller, wallets: int = 12) -> None:
    """Entries of many kinds, events, a refund and a void, in all partitions with some probability."""
    await factory.campaign()
    for number in range(wallets):
        wallet = await factory.wallet(100 + number)
        assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 7})).status_code == 201
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1_000_000})  # Refused, and recorded as such.
    for number in range(4):
        event = factory.event(id=f"filled-{number}")
        assert (await service.post("/v1/events", event)).status_code == 201
        refund = factory.event(type="refund", refund_of=event["id"], member=event["member"], amount=1000)
        assert (await service.post("/v1/events", refund)).status_code == 201
    assert (await service.post("/v1/events/filled-0/void", {"reason": "wrong till"})).status_code in {200, 201}


async def test_build_counts_every_document_once(services: Services, factory: Factory, service: Caller) -> None:
    await fill(factory, service)
    version = await build_views(services, COUNTING)
    entries = await assert_equal_to_documents(services, version)
    assert entries > 30
    positions = await GenerationStore(services.database, COUNTING, services.clock).positions(version)
    assert len(positions) == PARTITIONS
    assert len([position for position in positions if position.applied]) > 3
    await factory.assert_books_balance()


async def test_second_build_applies_only_what_is_new(services: Services, factory: Factory, service: Caller) -> None:
    await fill(factory, service, wallets=3)
    version = await build_views(services, COUNTING)
    applied = await total(services, "applied")
    await build_views(services, COUNTING)
    assert await total(services, "applied") == applied
    await factory.wallet(5)
    await build_views(services, COUNTING)
    assert await total(services, "applied") == applied + 1
    await assert_equal_to_documents(services, version)


@pytest.mark.parametrize("documents", [1, 2, 3])
async def test_build_in_small_pages(
    services: Services, factory: Factory, service: Caller, monkeypatch: pytest.MonkeyPatch, documents: int
) -> None:
    monkeypatch.setattr(scan, "DOCUMENTS_MAX", documents)
    monkeypatch.setattr(scan, "SUBJECTS_MAX", 2)
    monkeypatch.setattr(scan, "ROWS_MAX", 1)
    await fill(factory, service, wallets=4)
    await assert_equal_to_documents(services, await build_views(services, COUNTING))


async def test_build_of_an_empty_database(services: Services) -> None:
    views = counting_views(services)
    assert (await views.freshness()).view_version == 0
    version = await build_views(services, COUNTING)
    assert await views.sums(ENTRY_COUNTS) == [{"count": 0, "amount": 0}]
    assert await views.sums(ENTRY_COUNTS, by=("asset",)) == []
    freshness = await views.freshness()
    assert (freshness.view_version, freshness.state) == (version, "current")
    assert freshness.as_of is not None
    assert 0 <= (freshness.behind_seconds or 0) < 60


async def test_view_with_a_missing_position_is_behind(services: Services) -> None:
    await build_views(services, COUNTING)
    await services.database.raw[POSITIONS].delete_one({"group": "counting", "part": 3})
    freshness = await counting_views(services).freshness()
    assert (freshness.state, freshness.as_of, freshness.behind_seconds) == ("behind", None, None)


async def test_waiting_for_a_transaction(services: Services, factory: Factory, service: Caller) -> None:
    first, second = await factory.wallet(50), await factory.wallet(1)
    await build_views(services, COUNTING)
    body = {"from": first, "to": second, "amount": 20}
    answer = await service.post("/v1/transfers", body)
    assert answer.status_code == 201, answer.text
    transaction = answer.json()["id"]
    views = counting_views(services)
    assert not await views.wait_for("txn_nothing:1")
    assert not await views.wait_for(transaction)
    waiting = asyncio.create_task(views.wait_for(transaction))
    await build_views(services, COUNTING)
    assert await waiting
    assert await views.wait_for(transaction)


async def total(services: Services, name: str) -> int:
    rows = services.database.raw[POSITIONS].find({"group": "counting"})
    return sum([row[name] async for row in rows])
