"""One real mongod for a test process, emptied between tests; one event loop for the session; the clock is handed in, never patched."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from falcon.asgi import App
from pymongo import IndexModel
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
from tests.counter_store import Store, running_store
from tests.factories import Factory
from tests.secret_leaks import assert_keeps_secrets
from tests.shared_app import Apps

DATABASE = "guerdon_test"
MEMORY = Path("/dev/shm")
MEMORY_FREE_MIN = 6 * 1024**3
WAITING_FILES = {
    "test_embedded.py",
    "test_faults.py",
    "test_takeover.py",
    "test_runner.py",
    "test_startup.py",
    "test_production.py",
}
PASSWORD_MEMORY_KIB = 64
"""The setting allows no less than 19,456; `Settings.model_copy` does not validate."""


def is_long_run(config: pytest.Config) -> bool:
    """True for the long checks, which measure and so use real disks and real costs."""
    return config.getoption("markexpr") == "trust"


def pytest_configure(config: pytest.Config) -> None:
    """Keep temporary folders, and with them the databases, in memory where there is room: a journaled write need not wait for a disk."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_FREE_MIN
    if roomy and not is_long_run(config):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that mostly wait for processes and deadlines: at the end they would keep two processors idle."""
    items.sort(key=lambda item: item.path.name not in WAITING_FILES)


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
    shutil.rmtree(data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def store_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A server of shared counters and copies, of this test process's own."""
    with running_store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def store(store_process: Store) -> Store:
    """The running server, emptied."""
    store_process.kill()
    store_process.start()
    return store_process


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


@pytest.fixture(scope="session")
def cheap_settings(usual_settings: Settings) -> Settings:
    """The usual settings with password hashes that cost 0.1 ms instead of 30 ms."""
    return usual_settings.model_copy(update={"password_hash_memory_kib": PASSWORD_MEMORY_KIB})


@pytest.fixture
def settings(request: pytest.FixtureRequest, usual_settings: Settings, cheap_settings: Settings) -> Settings:
    """The settings of a test. They are shared: a test that needs others makes a copy."""
    real = any(request.node.get_closest_marker(name) for name in ("trust", "hash_cost"))
    return usual_settings if real else cheap_settings


@pytest.fixture
def clock() -> ManualClock:
    """Real time until a test moves it."""
    return ManualClock(SystemClock())


@pytest.fixture(scope="session", autouse=True)
def indexes_once(pytestconfig: pytest.Config) -> Iterator[None]:
    """Create the indexes of a database once: `open_services` asks for all of them, which takes thirty commands.

    They are created again when the number of collections or indexes has changed since.
    """
    create, known = Database.sync_indexes, dict[object, tuple[int, int]]()

    async def sync_indexes(self: Database, wanted: Mapping[str, Sequence[IndexModel]]) -> None:
        key = (await self.client.address, self.raw.name, id(wanted))
        if key not in known or await sizes(self) != known[key]:
            await create(self, wanted)
            known[key] = await sizes(self)

    async def sizes(database: Database) -> tuple[int, int]:
        stats = await database.raw.command("dbStats")
        return stats["collections"], stats["indexes"]

    with pytest.MonkeyPatch.context() as patch:
        if not is_long_run(pytestconfig):
            patch.setattr(Database, "sync_indexes", sync_indexes)
        yield


@pytest_asyncio.fixture(scope="session")
async def connection(mongodb_url: str) -> AsyncIterator[Database]:
    """A connection to the test database for the whole session. The database has all its collections and indexes."""
    database = Database(mongodb_url, DATABASE)
    await database.sync_indexes(INDEXES)
    yield database
    await database.close()


@pytest_asyncio.fixture
async def database(connection: Database) -> Database:
    """The emptied test database, over a connection that the services do not use."""
    for name in await filled(connection):
        await connection.raw[name].delete_many({})
    return connection


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


@pytest.fixture(scope="session")
def apps() -> Apps:
    return Apps()


@pytest.fixture
def app(request: pytest.FixtureRequest, apps: Apps, services: Services, settings: Settings, log: Log) -> App[Any, Any]:
    """The application over the services of the test."""
    build = build_app if request.node.get_closest_marker("own_app") else apps.app_over
    return build(services, settings, make_logger(services.clock, "info", log))


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
