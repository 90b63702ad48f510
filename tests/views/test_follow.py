"""Following what is written: exactly once, whoever works and whatever happens to them."""

import pytest

from guerdon.database import Database
from guerdon.projections.generations import GenerationStore
from guerdon.projections.partitions import share_of
from guerdon.projections.positions import POSITIONS
from guerdon.wiring.services import Services
from tests.clients import Caller, Log
from tests.factories import Factory
from tests.views import poisoned
from tests.views.counting import COUNTING, ENTRY_COUNTS, assert_equal_to_documents, counting_views
from tests.views.projecting import projecting, until_true
from tests.views.test_build import fill, total


async def counted(services: Services) -> int:
    return int((await counting_views(services).sums(ENTRY_COUNTS))[0]["count"])


async def stored(services: Services) -> int:
    return await services.database.raw["entries"].count_documents({"amount": {"$exists": True}})


async def caught_up(services: Services) -> bool:
    """True when the views have the number of entries and the number of events that are stored."""
    views = counting_views(services)
    if not await views.version():
        return False
    events = await services.database.raw["events"].count_documents({})
    voids = await services.database.raw["event_voids"].count_documents({})
    states = services.database.raw["test_member_counts"].find({"version": await views.version()})
    return await counted(services) == await stored(services) and sum([row["events"] async for row in states]) == events + voids


async def test_projector_builds_then_follows(services: Services, factory: Factory, service: Caller, log: Log) -> None:
    await fill(factory, service, wallets=3)
    # A busy machine must not let it lose a lease.
    async with projecting(services.database, log=log, lease_ms=60_000):
        await until_true(lambda: caught_up(services))
        await fill_more(factory, service)
        await until_true(lambda: caught_up(services))
        version = await counting_views(services).version()
        freshness = await counting_views(services).freshness()
        assert freshness.state == "current"
    await assert_equal_to_documents(services, version)
    assert await total(services, "repaired") == 0
    assert [line for line in log.lines if line["level"] in {"warning", "error"}] == []
    await factory.assert_books_balance()


async def fill_more(factory: Factory, service: Caller) -> None:
    for number in range(6):
        wallet = await factory.wallet(40 + number)
        assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 3})).status_code == 201
        assert (await service.post("/v1/events", factory.event())).status_code == 201


async def test_stopped_projector_goes_on_where_it_was(services: Services, factory: Factory, service: Caller) -> None:
    for _ in range(3):
        async with projecting(services.database):
            await fill_more(factory, service)
            await until_true(lambda: caught_up(services))
        await fill_more(factory, service)
    async with projecting(services.database):
        await until_true(lambda: caught_up(services))
    await assert_equal_to_documents(services, 1)
    assert await total(services, "scans") == 0


async def test_two_workers_share_the_partitions(
    services: Services, second_database: Database, factory: Factory, service: Caller
) -> None:
    async with projecting(services.database) as first:
        await until_true(lambda: caught_up(services))
        async with projecting(second_database) as second:

            async def shared() -> bool:
                held = (first.projector.held, second.projector.held)
                return len(held[0]) == len(held[1]) == 8 and held[0].isdisjoint(held[1])

            await until_true(shared)
            await fill_more(factory, service)
            await until_true(lambda: caught_up(services))
        await fill_more(factory, service)
        await until_true(lambda: caught_up(services))
        assert len(first.projector.held) == 16
    await assert_equal_to_documents(services, 1)


async def test_poison_stops_its_partition_and_is_passed_when_its_cause_is_gone(
    services: Services, factory: Factory, service: Caller, log: Log
) -> None:
    wallet = await factory.wallet(50)
    poisoned.REFUSED.add(f"{wallet}#{2:012}")
    async with projecting(services.database, log=log):
        await until_true(lambda: caught_up(services))
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 3})
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 4})

        async def faulted() -> bool:
            return (
                await services.database.raw[POSITIONS].find_one({"fault.document": f"{wallet}#{2:012}", "failures": {"$gte": 3}})
                is not None
            )

        await until_true(faulted)
        others = [await factory.wallet(9) for _ in range(8)]
        assert (await counting_views(services).freshness()).state == "faulted"
        assert len(others) == 8
        poisoned.REFUSED.clear()
        await until_true(lambda: caught_up(services))
        assert (await counting_views(services).freshness()).state == "current"
    faults = [line for line in log.lines if line["event"] == "view_faulted"]
    assert len(faults) >= 3
    assert faults[0]["document"] == f"{wallet}#{2:012}"
    assert faults[0]["error"].startswith("Refused at check")
    await assert_equal_to_documents(services, 1)


async def test_worker_that_was_replaced_writes_nothing(services: Services, factory: Factory, service: Caller, log: Log) -> None:
    async with projecting(services.database, log=log):
        await until_true(lambda: caught_up(services))
        # Another worker has taken every position over, as it does when this one stands still for longer than its lease.
        await services.database.raw[POSITIONS].update_many({}, {"$inc": {"epoch": 1}})
        await fill_more(factory, service)
        await until_true(lambda: caught_up(services))
    assert "view_position_lost" in {line["event"] for line in log.lines if line["level"] == "warning"}
    await assert_equal_to_documents(services, 1)


async def test_rebuild_beside_writes(services: Services, factory: Factory, service: Caller) -> None:
    store = GenerationStore(services.database, COUNTING, services.clock)
    async with projecting(services.database):
        await fill(factory, service, wallets=3)
        await until_true(lambda: caught_up(services))
        new = await store.rebuild()
        assert (new.version, await store.rebuild()) == (2, new)
        await fill_more(factory, service)

        async def switched() -> bool:
            await fill_more(factory, service)
            return await counting_views(services).version() == 2

        await until_true(switched)
        await until_true(lambda: caught_up(services))
    await assert_equal_to_documents(services, 2)


async def test_position_ahead_of_a_restored_database_is_scanned_again(
    services: Services, factory: Factory, service: Caller
) -> None:
    async with projecting(services.database):
        await until_true(lambda: caught_up(services))
    ahead = {"$set": {"at": (2**31 - 1) << 32, "at_ms": 0}}
    await services.database.raw[POSITIONS].update_many({"group": "counting"}, ahead)
    await fill_more(factory, service)
    async with projecting(services.database):
        await until_true(lambda: caught_up(services))

        async def scanned() -> bool:
            return await total(services, "scans") == 16

        await until_true(scanned)


@pytest.mark.parametrize("workers", [1, 16, 40])
def test_shares_add_up(workers: int) -> None:
    shares = [share_of(index, workers) for index in range(workers)]
    assert sum(shares) == 16
    assert max(shares) - min(shares) <= 1
