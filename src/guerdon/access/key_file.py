"""Watches the file of the token keys, so that rotating and revoking keys needs no restart. Requests never read the file."""

import asyncio
from pathlib import Path

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from guerdon.access.token_keys import TokenKeys
from guerdon.clock import Clock
from guerdon.errors import StartupRefused

CHECK_SECONDS = 5.0
"""Interval at which each process checks the file for changes."""


class _Status(Struct, frozen=True):
    """The metadata of the file by which a change is recognised."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class _Unreadable(Struct, frozen=True):
    """The file cannot be read because of an error with this name."""

    cause: str


class KeyFile:
    """The file from which this process has loaded its token keys."""

    def __init__(self, path: Path, keys: TokenKeys, clock: Clock, log: FilteringBoundLogger) -> None:
        self._path = path
        self._keys = keys
        self._clock = clock
        self._log = log
        # The first check reads the file, which may have changed since the process read its settings.
        self._seen: _Status | _Unreadable | None = None

    async def check(self) -> None:
        """Load the keys if the file has changed. If they are not usable, keep the current keys and log an error once."""
        # On a thread: the disk of the file may not respond.
        state, text = await asyncio.to_thread(self._read_if_changed)
        if state == self._seen:
            return
        self._seen = state
        if isinstance(state, _Unreadable):
            self._log.error("token_keys_unusable", detail=f"the file cannot be read: {state.cause}")
            return
        try:
            changed = self._keys.replace(text)
        except StartupRefused as error:
            self._log.error("token_keys_unusable", detail=error.detail)
            return
        if changed:
            kids = [key.kid for key in self._keys.described()]
            signing = self._keys.get_signing(self._clock.now_ms()).described.kid
            self._log.info("token_keys_changed", kids=kids, signing=signing)

    def _read_if_changed(self) -> tuple[_Status | _Unreadable, str]:
        """Return the state of the file, and its text if the file is readable and has changed."""
        try:
            # The status is read first: a write between the two reads then shows as a change at the next check.
            stat = self._path.stat()
            status = _Status(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            return status, "" if status == self._seen else self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            return _Unreadable(type(error).__name__), ""
