"""One real mongod for a test process, emptied between tests; one event loop for the session; the clock is handed in, never patched."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from falcon.asgi import App
from pymongo.read_concern import ReadConcern

from guerdon import embedded
from guerdon.access.token_keys import TokenKeys
from guerdon.clock import SystemClock
from guerdon.collections import INDEXES
from guerdon.config import Settings, load
from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Database
from guerdon.logs import make_logger
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services, open_services
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


@pytest.fixture(scope="session")
def usual_settings(mongodb_url: str, token_keys: str, master_keys: str) -> Settings:
    secrets = {"mongodb_url": mongodb_url, "token_keys": token_keys, "master_keys": master_keys}
    return load({}, **secrets, mongodb_database=DATABASE, log_level="info", metrics="key")


@pytest.fixture
def settings(usual_settings: Settings) -> Settings:
    """What nobody can change: a test that wants others makes a copy."""
    return usual_settings


@pytest.fixture
def clock() -> ManualClock:
    """Real time until a test moves it."""
    return ManualClock(SystemClock())


@pytest_asyncio.fixture(scope="session")
async def indexed(mongodb_url: str) -> None:
    """Every collection and index is there; a test that drops one makes it again."""
    database = Database(mongodb_url, DATABASE)
    await database.sync_indexes(INDEXES)
    await database.close()


@pytest_asyncio.fixture
async def database(mongodb_url: str, indexed: None) -> AsyncIterator[Database]:
    """A connection of its own to the emptied test database."""
    database = Database(mongodb_url, DATABASE)
    for name in await filled(database):
        await database.raw[name].delete_many({})
    yield database
    await database.close()


async def filled(database: Database) -> list[str]:
    """The collections that hold something. One question costs a fraction of emptying the thirty that there are."""

    def first_of(name: str) -> list[dict[str, Any]]:
        return [{"$limit": 1}, {"$project": {"_id": 0, "name": {"$literal": name}}}]

    start, *others = INDEXES
    pipeline = [*first_of(start), *({"$unionWith": {"coll": name, "pipeline": first_of(name)}} for name in others)]
    # What an abandoned task has left is to go too, whether or not a majority has it.
    at_once = database.raw[start].with_options(read_concern=ReadConcern("local"))
    return [row["name"] async for row in await at_once.aggregate(pipeline)]


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
