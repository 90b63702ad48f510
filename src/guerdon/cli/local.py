"""Where a command finds its database: `GUERDON_MONGODB_URL`, the running `guerdon up` of the data directory, or a start of its own."""

import os
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr

from guerdon import embedded
from guerdon.access.token_keys import TokenKeys
from guerdon.clock import SystemClock
from guerdon.config import Settings, require_safe
from guerdon.crypto.sealing import MasterKeys
from guerdon.errors import DataDirectoryBusy, StartupRefused
from guerdon.wiring.services import Services, open_services

ANNOUNCE_SECONDS = 60.0


def hold_to_profile(settings: Settings) -> None:
    """Refuse in production what is not safe there; elsewhere say it.

    Raises:
        StartupRefused: see `require_safe`.
    """
    for doubt in require_safe(settings):
        typer.echo(f"guerdon: production would refuse this: {doubt}", err=True)


@contextmanager
def local_database(settings: Settings, command: str) -> Generator[Settings]:
    """Yield the settings with a database URL and token keys that can be used now.

    Raises:
        StartupRefused: no database can be found or started.
    """
    if settings.mongodb_url is not None:
        # Commands at a terminal issue no tokens, so they need no keys of the deployment.
        yield _completed(settings, settings.mongodb_url.get_secret_value(), {"token_keys": TokenKeys.generate()})
        return
    with _borrowed_or_started(settings.data_dir, command) as url:
        yield _completed(settings, url, own_token_keys(settings))


@asynccontextmanager
async def local_services(settings: Settings) -> AsyncGenerator[Services]:
    """Open the services on settings that `local_database` has completed."""
    async with open_services(settings, SystemClock()) as services:
        yield services


@contextmanager
def _borrowed_or_started(data_dir: Path, command: str) -> Generator[str]:
    deadline = time.monotonic() + ANNOUNCE_SECONDS
    while time.monotonic() < deadline:
        held = embedded.holder(data_dir)
        if held is not None and held.get("mongodb_url"):
            yield str(held["mongodb_url"])
            return
        if held is None:
            try:
                lock = embedded.DataDirLock.acquire(data_dir, command=command)
            except DataDirectoryBusy:
                continue
            with started_database(data_dir, lock) as url:
                yield url
            return
        time.sleep(0.1)
    raise StartupRefused(f"another process holds {data_dir} but does not get its database started")


@contextmanager
def own_or_embedded(settings: Settings, lock: embedded.DataDirLock) -> Generator[str]:
    """Yield the URL of the database that the operator brings, or of the embedded one."""
    if settings.mongodb_url is None:
        with started_database(settings.data_dir, lock) as url:
            yield url
        return
    url = settings.mongodb_url.get_secret_value()
    try:
        # Not announced in the lock file: the operator's URL may hold a password.
        yield url
    finally:
        lock.release()


@contextmanager
def started_database(data_dir: Path, lock: embedded.DataDirLock) -> Generator[str]:
    """Start the embedded database under a lock that is held already; stop it and release the lock at the end."""
    try:
        mongo = embedded.start(data_dir)
        try:
            lock.announce(mongodb_url=mongo.url)
            yield mongo.url
        finally:
            mongo.stop()
    finally:
        lock.release()


def own_token_keys(settings: Settings) -> dict[str, Any]:
    """Return the settings that name the data directory's own token keys, unless others are configured.

    They are made at the first use and readable by their owner only.
    """
    if settings.token_keys is not None:
        return {}
    path = token_keys_path(settings.data_dir)
    if not path.exists():
        write_private(path, TokenKeys.generate())
    return {"token_keys": path.read_text(encoding="utf-8"), "token_keys_file": path}


def token_keys_path(data_dir: Path) -> Path:
    return data_dir.resolve() / "secrets" / "token_keys.json"


def master_keys(settings: Settings) -> str | None:
    """Return the master keys: the configured ones or, with the embedded database, the data directory's own.

    Those are made at the first use. Nothing stands in for the keys of a database that the operator brings: what it holds is sealed by them.
    """
    if settings.master_keys is not None:
        return settings.master_keys.get_secret_value()
    if settings.mongodb_url is not None:
        return None
    path = settings.data_dir / "secrets" / "master_keys.json"
    if not path.exists():
        write_private(path, MasterKeys.generate())
    return path.read_text(encoding="utf-8")


def checkpoint_key(settings: Settings, *, make: bool) -> str | None:
    """Return the key set of checkpoints: the configured one or, with the embedded database, the data directory's own.

    That is made at the first use if `make` says so.
    """
    if settings.checkpoint_key is not None:
        return settings.checkpoint_key.get_secret_value()
    if settings.mongodb_url is not None:
        return None
    path = settings.data_dir / "secrets" / "checkpoint_key.json"
    if not path.exists():
        if not make:
            return None
        write_private(path, TokenKeys.generate())
    return path.read_text(encoding="utf-8")


def checkpoint_file(settings: Settings) -> Path | None:
    """Return where checkpoints are kept outside of the database, if anywhere."""
    if settings.checkpoint_file is not None or settings.mongodb_url is not None:
        return settings.checkpoint_file
    return settings.data_dir / "checkpoints.jsonl"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, completely or not at all.

    Where one is replaced, it keeps its owner and its group's right to read: the service may run as somebody else than who writes.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                before = path.stat()
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, 0o600 | before.st_mode & 0o040)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _completed(settings: Settings, url: str, keys: dict[str, Any]) -> Settings:
    known = {} if settings.token_keys is not None else {**keys, "token_keys": SecretStr(keys["token_keys"])}
    sealing = master_keys(settings)
    update = {**known, "mongodb_url": SecretStr(url), "master_keys": None if sealing is None else SecretStr(sealing)}
    return settings.model_copy(update=update)
