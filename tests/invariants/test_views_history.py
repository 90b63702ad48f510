"""What the projector does when the database no longer has the changes since its position."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from guerdon.config import load
from guerdon.logs import make_logger
from guerdon.projections.positions import GENERATIONS, POSITIONS
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services
from tests.clients import Caller, Log, client_of
from tests.factories import Factory
from tests.invariants.faults import FailPoints
from tests.views.counting import COLLECTIONS, assert_equal_to_documents, counting_views
from tests.views.projecting import projecting, until_true
from tests.views.test_follow import caught_up, fill_more


@pytest_asyncio.fixture
async def faulty_service(faulty: Services) -> AsyncIterator[Caller]:
    for name in (*COLLECTIONS, GENERATIONS, POSITIONS):
        await faulty.database.raw[name].delete_many({})
    await faulty.database.sync_indexes(dict.fromkeys(COLLECTIONS, ()))
    logger = make_logger(faulty.clock, "info", Log())
    async with client_of(build_app(faulty, load({}), logger)) as client:
        yield Caller(client).with_token(await faulty.access.create_key("tests", ["*"]))


@pytest.mark.parametrize("code", [286, 280])
async def test_lost_history_is_read_from_the_documents(
    faulty: Services, faulty_service: Caller, points: FailPoints, log: Log, code: int
) -> None:
    factory = Factory(faulty_service, faulty)
    async with projecting(faulty.database, log=log):
        await fill_more(factory, faulty_service)
        await until_true(lambda: caught_up(faulty))
        await points.fail("getMore", times=1, errorCode=code)
        await fill_more(factory, faulty_service)
        await points.fired(1)

        async def scanned_again() -> bool:
            return await faulty.database.raw[POSITIONS].count_documents({"scans": 1}) == 16

        await until_true(scanned_again)
        await fill_more(factory, faulty_service)
        await until_true(lambda: caught_up(faulty))
        version = await counting_views(faulty).version()
    await assert_equal_to_documents(faulty, version)
    assert "view_history_lost" in {line["event"] for line in log.lines if line["level"] == "error"}
