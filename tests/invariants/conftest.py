"""A second mongod, one with fail points, and services on it."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from guerdon.clock import SystemClock
from guerdon.config import Settings, load
from guerdon.wiring.services import Services, open_services
from tests.invariants.faults import FailPoints, started_mongod

DEADLINE_MS = 3000


@pytest.fixture(scope="session")
def faulty_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a mongod that obeys fail points."""
    with started_mongod(tmp_path_factory.mktemp("faulty") / "mongod") as port:
        yield port


@pytest.fixture
def faulty_settings(faulty_port: int, token_keys: str, master_keys: str) -> Settings:
    url = f"mongodb://127.0.0.1:{faulty_port}/?replicaSet=faults&heartbeatFrequencyMS=500"
    secrets = {"mongodb_url": url, "token_keys": token_keys, "master_keys": master_keys}
    return load({}, **secrets, log_level="info", ledger_deadline_ms=DEADLINE_MS)


@pytest_asyncio.fixture
async def points(faulty_port: int) -> AsyncIterator[FailPoints]:
    """The fail points, off at the beginning and at the end."""
    async with AsyncMongoClient("127.0.0.1", faulty_port, directConnection=True) as client:
        points = FailPoints(client)
        await points.stop()
        yield points
        await points.stop()


@pytest_asyncio.fixture
async def faulty(faulty_settings: Settings) -> AsyncIterator[Services]:
    """The services of one process on the faulty server."""
    async with open_services(faulty_settings, SystemClock()) as services:
        yield services


@pytest_asyncio.fixture
async def other_faulty(faulty: Services, faulty_settings: Settings) -> AsyncIterator[Services]:
    """The services of a second process on the faulty server."""
    async with open_services(faulty_settings, SystemClock()) as services:
        yield services
