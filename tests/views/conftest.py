"""The collections of the counting views."""

from collections.abc import AsyncIterator

import pytest_asyncio

from guerdon.database import Database
from tests.views import poisoned
from tests.views.counting import COLLECTIONS


@pytest_asyncio.fixture(autouse=True)
async def counting_collections(database: Database) -> AsyncIterator[None]:
    await database.sync_indexes(dict.fromkeys(COLLECTIONS, ()))
    yield
    poisoned.REFUSED.clear()
    for name in COLLECTIONS:
        await database.raw[name].delete_many({})
