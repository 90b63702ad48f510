"""Lock of a data directory: flocks, which the kernel releases when their holder ends for any reason."""

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

from guerdon.errors import DataDirectoryBusy, StartupRefused

_POLL_SECONDS = 0.02
_LOCK_PATIENCE_SECONDS = 0.25
LOCK_FILE_DELETED: dict[str, Any] = {"lock_file": "deleted"}
"""Facts of a holder whose lock file was deleted: nothing else is known of it."""


class DataDirLock:
    """Exclusive lock of a data directory, held until `release` or the end of the process.

    The descriptor is close-on-exec and a forked child closes its copy, so the lock ends with its holder and not with the last child process.
    """

    def __init__(self, descriptor: int, directory: int, facts: dict[str, Any]) -> None:
        self._descriptor: int | None = descriptor
        self._directory = directory
        self._owner = os.getpid()
        self._facts = facts

    @classmethod
    def acquire(cls, data_dir: Path, *, command: str) -> "DataDirLock":
        """Take the lock, and create the directory if it does not exist.

        `command` names this process to others, such as "guerdon up".

        Raises:
            DataDirectoryBusy: another process holds the lock; the message contains its pid, command and URL.
            StartupRefused: the directory cannot be created or written, or other users can use it.
        """
        with readable(data_dir):
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(data_dir)
            directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            descriptor = os.open(_lock_file(data_dir), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Both are locked: the file can be deleted while its holder runs, and the directory cannot contain the facts. The file is locked
        # first and unlocked last, so a free file in a locked directory is a new one.
        # Retried for a short time: `holder` in another process takes the locks for an instant to test them.
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while not (_try_lock(descriptor, fcntl.LOCK_EX) and _try_lock(directory, fcntl.LOCK_EX)):
            if time.monotonic() > deadline:
                os.close(descriptor)
                os.close(directory)
                raise busy(data_dir)
            time.sleep(_POLL_SECONDS)
        lock = cls(descriptor, directory, {"pid": os.getpid(), "command": command, "url": None})
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
            for descriptor in (self._directory, self._descriptor):
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        os.close(self._directory)
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

    The dict is empty if the lock is held but its file cannot be decoded, and `LOCK_FILE_DELETED` if the holder's file was deleted.

    Raises:
        StartupRefused: the lock file cannot be read.
    """
    try:
        with readable(data_dir):
            descriptor = os.open(_lock_file(data_dir), os.O_RDONLY | os.O_CLOEXEC)
    except StartupRefused as refusal:
        if isinstance(refusal.__cause__, (FileNotFoundError, NotADirectoryError)):
            return LOCK_FILE_DELETED if _directory_is_held(data_dir) else None
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
    finally:
        os.close(descriptor)
    return LOCK_FILE_DELETED if _directory_is_held(data_dir) else None


def _directory_is_held(data_dir: Path) -> bool:
    """Return True if a process holds the directory, although its lock file is free or gone."""
    try:
        descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                return True
            time.sleep(_POLL_SECONDS)
        return False
    finally:
        os.close(descriptor)


def _require_private(data_dir: Path) -> None:
    """Check that only the owner, and readers of the owner's group, can use the directory.

    Raises:
        StartupRefused: other users can read or change it.
    """
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    if mode & 0o027:
        raise StartupRefused(
            f"The data directory {data_dir.absolute()} is open to other users (mode {mode:04o}). It contains the database and the secrets: run "
            f"`chmod 700 {data_dir.absolute()}`. Modes 0700 and 0750 are accepted."
        )


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
    except OSError:
        # Network file systems cannot lock a directory. There, the lock file alone counts.
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    return True


def busy(data_dir: Path) -> DataDirectoryBusy:
    """Return the error that names the holder of the directory."""
    facts = holder(data_dir) or {}
    if facts is LOCK_FILE_DELETED:
        return DataDirectoryBusy(
            f"The data directory {data_dir} is in use by a process whose lock file {_lock_file(data_dir)} was deleted. Stop that process, or "
            "choose another data directory."
        )
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
