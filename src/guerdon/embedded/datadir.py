"""Lock of a data directory: an flock, which the kernel releases when its holder ends for any reason."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

from guerdon.errors import DataDirectoryBusy, StartupRefused

_POLL_SECONDS = 0.02
_LOCK_PATIENCE_SECONDS = 0.25


class DataDirLock:
    """Exclusive lock of a data directory, held until `release` or the end of the process.

    The descriptor is close-on-exec and a forked child closes its copy, so the lock ends with its holder and not with the last child process.
    """

    def __init__(self, descriptor: int, facts: dict[str, Any]) -> None:
        self._descriptor: int | None = descriptor
        self._owner = os.getpid()
        self._facts = facts

    @classmethod
    def acquire(cls, data_dir: Path, *, command: str) -> "DataDirLock":
        """Take the lock, and create the directory if it does not exist.

        `command` names this process to others, such as "guerdon up".

        Raises:
            DataDirectoryBusy: another process holds the lock; the message contains its pid, command and URL.
            StartupRefused: the directory cannot be created or written.
        """
        with readable(data_dir):
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(_lock_file(data_dir), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Retried for a short time: `holder` in another process takes the lock for an instant to test it.
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise _busy(data_dir)
            time.sleep(_POLL_SECONDS)
        lock = cls(descriptor, {"pid": os.getpid(), "command": command, "url": None})
        os.register_at_fork(after_in_child=lock.release)
        try:
            with readable(data_dir):
                os.ftruncate(descriptor, 0)  # Remove the facts of an earlier holder.
                lock._write()
        except StartupRefused:
            lock.release()
            raise
        return lock

    def announce(self, **facts: str) -> None:
        """Add facts to the lock file for other processes, such as `url` and `mongodb_url`. Do not add secrets."""
        self._facts.update(facts)
        self._write()

    def release(self) -> None:
        """Release the lock. Does nothing if it was released before; in a forked child it only closes the descriptor."""
        if self._descriptor is None:
            return
        # The file is not deleted: otherwise two processes could lock two different files of the same name. A forked child does not
        # unlock the file, because that would release the lock of the parent.
        if os.getpid() == self._owner:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = None

    def _write(self) -> None:
        if self._descriptor is None:
            return
        # Written in place, because a rename would change the locked inode, and in one write, so a reader sees the old or the new text.
        # For an instant the end of a longer old text remains; readers ignore it.
        text = json.dumps(self._facts).encode()
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))


def holder(data_dir: Path) -> dict[str, Any] | None:
    """Return the facts of the holder of the lock (`pid`, `command`, `url`, ...), or None if the lock is free.

    The dict is empty if the lock is held but its file cannot be decoded.

    Raises:
        StartupRefused: the lock file cannot be read.
    """
    try:
        with readable(data_dir):
            descriptor = os.open(_lock_file(data_dir), os.O_RDONLY | os.O_CLOEXEC)
    except StartupRefused as refusal:
        if isinstance(refusal.__cause__, (FileNotFoundError, NotADirectoryError)):
            return None
        raise
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_SH):
            with contextlib.suppress(ValueError):
                text = os.pread(descriptor, 65536, 0).decode(errors="replace")
                facts: Any = json.JSONDecoder().raw_decode(text)[0]
                if isinstance(facts, dict):
                    return cast("dict[str, Any]", facts)
            if time.monotonic() > deadline:
                return {}
            time.sleep(_POLL_SECONDS)
        return None
    finally:
        os.close(descriptor)


def files_of(data_dir: Path) -> Path:
    """Return the directory of the database files in a data directory."""
    return data_dir / "mongodb"


def has_database(data_dir: Path) -> bool:
    """Return True if the data directory contains a database. Nothing is created.

    Raises:
        StartupRefused: the directory cannot be read.
    """
    with readable(data_dir):
        # Its storage engine writes this file first.
        return (files_of(data_dir) / "WiredTiger").exists()


def _lock_file(data_dir: Path) -> Path:
    return data_dir / "guerdon.lock"


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy(data_dir: Path) -> DataDirectoryBusy:
    facts = holder(data_dir) or {}
    address = f", listening at {facts['url']}" if facts.get("url") else ", which has not announced a URL yet"
    return DataDirectoryBusy(
        f"The data directory {data_dir} is in use by `{facts.get('command', 'an unknown command')}` "
        f"(pid {facts.get('pid', 'unknown')}){address}. Use that process, stop it, or choose another data directory."
    )


@contextlib.contextmanager
def readable(path: Path) -> Generator[None]:
    """Convert an OSError about files of the data directory into StartupRefused."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartupRefused(
            f"The data directory {path} cannot be used: {reason} ({error.filename or path}). "
            "Choose a directory that this user may create and write to."
        ) from error
