"""Database of a command: `GUERDON_MONGODB_URL`, the database of a running `guerdon up`, or the embedded database, started for the command."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import SecretStr

from guerdon import embedded
from guerdon.access.token_keys import TokenKeys
from guerdon.cli.key_files import TokenKeySettings, master_keys, own_token_keys
from guerdon.clock import DatabaseClock, SystemClock
from guerdon.config import Settings, require_safe
from guerdon.errors import DatabaseLost, DataDirectoryBusy, StartupRefused
from guerdon.logs import make_logger
from guerdon.server import follow_clocks
from guerdon.wiring.services import Services, open_services

T = TypeVar("T")
STOP_SECONDS = 8.0
"""Maximum time for the embedded database of `guerdon up` to stop; then it is killed, which loses no acknowledged write."""
ANNOUNCE_SECONDS = 60.0
"""Maximum time to wait until another process has started the database of the data directory."""


def check_profile(settings: Settings) -> None:
    """Refuse unsafe settings in production; print a warning for each of them in other profiles.

    Raises:
        StartupRefused: see `require_safe`.
    """
    for doubt in require_safe(settings):
        typer.echo(f"guerdon: production would refuse this: {doubt}", err=True)


def run_with_services(settings: Settings, command: str, work: Callable[[Services], Awaitable[T]], *, create: bool = False) -> T:
    """Open the database and the services for `command`, run `work` on them and return its result.

    Only a command that writes the first data of a database passes `create`: elsewhere, a new database is a mistyped directory or name.

    Raises:
        StartupRefused: no database can be found or started.
    """
    with local_database(settings, command, create=create) as completed:
        return run_on_database(completed, work, create=create)


def run_on_database(settings: Settings, work: Callable[[Services], Awaitable[T]], *, create: bool = True) -> T:
    """Open the services on settings with a database URL, run `work` on them and return its result."""

    async def run() -> T:
        async with local_services(settings, create=create) as services:
            return await work(services)

    return asyncio.run(run())


@contextmanager
def local_database(settings: Settings, command: str, *, create: bool = False) -> Generator[Settings]:
    """Yield the settings, completed with a database URL and token keys.

    Raises:
        StartupRefused: no database can be found or started; or the database does not exist yet, and `create` is not set.
    """
    if settings.mongodb_url is not None:
        # Commands issue no tokens, so they do not need the keys of the deployment.
        yield _completed(settings, settings.mongodb_url.get_secret_value(), {"token_keys": TokenKeys.generate()})
        return
    if not create:
        require_database(settings)
    elif _lacks_database(settings):
        typer.echo(f"guerdon: creating a new database in {settings.data_dir.absolute()}", err=True)
    with _running_or_started(settings.data_dir, command) as url:
        yield _completed(settings, url, own_token_keys(settings))


def require_database(settings: Settings) -> None:
    """Check that the database of a command exists, as far as files show it. Nothing is created.

    Raises:
        StartupRefused: no URL is configured, and the data directory has no database; the message names the directory.
    """
    if _lacks_database(settings):
        data_dir = settings.data_dir.absolute()
        raise StartupRefused(
            f"there is no database in {data_dir} (looked for {embedded.files_of(data_dir)}); pass the data directory of `guerdon up` "
            "with --data-dir or GUERDON_DATA_DIR, or set GUERDON_MONGODB_URL"
        )


def _lacks_database(settings: Settings) -> bool:
    """Return True if the command would start the embedded database on a directory that has none."""
    return (
        settings.mongodb_url is None and embedded.holder(settings.data_dir) is None and not embedded.has_database(settings.data_dir)
    )


@asynccontextmanager
async def local_services(settings: Settings, *, create: bool = False) -> AsyncGenerator[Services]:
    """Open the services on settings that `local_database` has completed."""
    clock = DatabaseClock(SystemClock())
    async with (
        open_services(settings, clock, create=create) as services,
        follow_clocks(services, make_logger(clock, "error", sys.stderr)),
    ):
        yield services


@contextmanager
def _running_or_started(data_dir: Path, command: str) -> Generator[str]:
    deadline = time.monotonic() + ANNOUNCE_SECONDS
    while time.monotonic() < deadline:
        held = embedded.holder(data_dir)
        if held is not None and held.get("mongodb_url"):
            yield str(held["mongodb_url"])
            return
        if held is embedded.LOCK_FILE_DELETED:
            raise embedded.busy(data_dir)
        if held is None:
            try:
                lock = embedded.DataDirLock.acquire(data_dir, command=command)
            except DataDirectoryBusy:
                continue
            with started_database(data_dir, lock) as url:
                yield url
            return
        time.sleep(0.1)
    raise StartupRefused(
        f"another process holds {data_dir}, but its database has not started within {ANNOUNCE_SECONDS:.0f} seconds; stop that process"
    )


class OwnDatabase:
    """Database of `guerdon up`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.supervisor: embedded.MongoSupervisor | None = None
        """None if the database is not the embedded one."""
        self.stop_by = float("inf")
        """Time of the monotonic clock until which the embedded database may take to stop."""


@contextmanager
def own_or_embedded(settings: Settings, lock: embedded.DataDirLock) -> Generator[OwnDatabase]:
    """Yield the configured database, or start and supervise the embedded one.

    Raises:
        DatabaseLost: the embedded database has failed repeatedly. The process gets a SIGINT when that happens, and the work inside ends.
    """
    try:
        if settings.mongodb_url is None:
            with _supervised_database(settings, lock) as database:
                yield database
        else:
            # The URL is not written to the lock file: it may contain a password.
            yield OwnDatabase(settings.mongodb_url.get_secret_value())
    finally:
        lock.release()


@contextmanager
def _supervised_database(settings: Settings, lock: embedded.DataDirLock) -> Generator[OwnDatabase]:
    mongo = embedded.start(settings.data_dir)
    database = OwnDatabase(mongo.url)
    log = make_logger(SystemClock(), settings.log_level, sys.stderr)
    supervisor = embedded.MongoSupervisor(settings.data_dir, mongo, log, lambda: os.kill(os.getpid(), signal.SIGINT))
    database.supervisor = supervisor
    try:
        lock.announce(mongodb_url=mongo.url)
        yield database
    except BaseException as error:
        if supervisor.lost is not None:
            raise DatabaseLost(supervisor.lost) from error
        raise
    finally:
        supervisor.stop(min(database.stop_by - time.monotonic(), STOP_SECONDS))
    if supervisor.lost is not None:
        raise DatabaseLost(supervisor.lost)


@contextmanager
def started_database(data_dir: Path, lock: embedded.DataDirLock) -> Generator[str]:
    """Start the embedded database under `lock` and yield its URL; at the end stop it and release the lock."""
    try:
        mongo = embedded.start(data_dir)
        try:
            lock.announce(mongodb_url=mongo.url)
            yield mongo.url
        finally:
            mongo.stop()
    finally:
        lock.release()


def _completed(settings: Settings, url: str, keys: TokenKeySettings) -> Settings:
    update: dict[str, Any] = {"mongodb_url": SecretStr(url)}
    if settings.token_keys is None:
        update |= keys
        update["token_keys"] = SecretStr(keys.get("token_keys", ""))
    sealing_keys = master_keys(settings)
    update["master_keys"] = None if sealing_keys is None else SecretStr(sealing_keys)
    return settings.model_copy(update=update)
