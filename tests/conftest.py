"""One real mongod for a test process, emptied between tests; one event loop for the session; the clock is handed in, never patched."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from falcon.asgi import App

from guerdon import embedded
from guerdon.app import Services, build_app, open_services
from guerdon.catalogue.collections import INDEXES
from guerdon.clock import SystemClock
from guerdon.config import Settings, load
from guerdon.database import Database
from guerdon.identity.token_keys import TokenKeys
from guerdon.logs import make_logger
from guerdon.sealing import MasterKeys
from tests.clients import Caller, Log, ManualClock, client_of
from tests.factories import Factory
from tests.leaks import assert_keeps_secrets

DATABASE = "guerdon_test"


@pytest.fixture(scope="session", autouse=True)
def compiled_modules(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where compiled modules must not be kept, each of the many processes that tests start would compile everything anew (2 s)."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        os.environ["PYTHONPYCACHEPREFIX"] = str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def mongodb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mongod of this test process's own."""
    data_dir: Path = tmp_path_factory.mktemp("mongod")
    lock = embedded.DataDirLock.acquire(data_dir, command="tests")
    mongo = embedded.start(data_dir)
    yield mongo.url
    mongo.stop()
    lock.release()


@pytest.fixture(scope="session")
def token_keys() -> str:
    return TokenKeys.generate()


@pytest.fixture(scope="session")
def master_keys() -> str:
    return MasterKeys.generate()


@pytest.fixture
def settings(mongodb_url: str, token_keys: str, master_keys: str) -> Settings:
    secrets = {"mongodb_url": mongodb_url, "token_keys": token_keys, "master_keys": master_keys}
    return load({}, **secrets, mongodb_database=DATABASE, log_level="info", metrics="key")


@pytest.fixture
def clock() -> ManualClock:
    """Real time until a test moves it."""
    return ManualClock(SystemClock())


@pytest_asyncio.fixture
async def database(mongodb_url: str) -> AsyncIterator[Database]:
    """A connection of its own to the emptied test database."""
    database = Database(mongodb_url, DATABASE)
    await database.sync_indexes(INDEXES)
    for name in INDEXES:
        await database.raw[name].delete_many({})
    yield database
    await database.close()


@pytest_asyncio.fixture
async def second_database(database: Database, mongodb_url: str) -> AsyncIterator[Database]:
    """Another client on the same data, as another process would have."""
    other = Database(mongodb_url, DATABASE)
    yield other
    await other.close()


@pytest_asyncio.fixture
async def services(database: Database, settings: Settings, clock: ManualClock) -> AsyncIterator[Services]:
    """The services of one process, on the emptied database."""
    async with open_services(settings, clock) as services:
        yield services


@pytest_asyncio.fixture
async def other_services(services: Services, settings: Settings, clock: ManualClock) -> AsyncIterator[Services]:
    """The services of a second process on the same data."""
    async with open_services(settings, clock) as others:
        yield others


@pytest.fixture
def log() -> Iterator[Log]:
    """Everything the application logs, as parsed lines."""
    log = Log()
    yield log
    assert_keeps_secrets(log.getvalue(), "the log")


@pytest.fixture
def app(services: Services, settings: Settings, log: Log, clock: ManualClock) -> App[Any, Any]:
    return build_app(services, settings, make_logger(clock, "info", log))


@pytest_asyncio.fixture
async def anonymous(app: App[Any, Any]) -> AsyncIterator[Caller]:
    """A caller without credentials."""
    async with client_of(app) as client:
        yield Caller(client)


@pytest_asyncio.fixture
async def service(anonymous: Caller, services: Services) -> Caller:
    """A caller with a service key that may do everything."""
    return anonymous.with_token(await services.access.create_key("tests", ["*"]))


@pytest.fixture
def factory(service: Caller, services: Services) -> Factory:
    return Factory(service, services)
