"""Follows the file of the token keys, so that rotating and revoking need no restart. Requests have no part in this."""

import asyncio
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from guerdon.access.token_keys import TokenKeys
from guerdon.clock import Clock
from guerdon.errors import StartupRefused

LOOK_SECONDS = 5.0
"""How often each process looks whether the file has changed."""

_Stamp = tuple[int, int, int, int]


class KeyFile:
    """The file that this process's token keys came from."""

    def __init__(self, path: Path, keys: TokenKeys, clock: Clock, log: FilteringBoundLogger) -> None:
        self._path = path
        self._keys = keys
        self._clock = clock
        self._log = log
        # Nothing was seen yet: the first look reads the file, which may have changed since the process read its settings.
        self._seen: _Stamp | str = "never"

    async def look(self) -> None:
        """Use what the file holds if it has changed. What is not usable leaves the keys as they are, and one line in the log."""
        # On a thread: the file may lie on a disk that does not answer.
        stamp, text = await asyncio.to_thread(self._read_if_changed)
        if stamp == self._seen:
            return
        self._seen = stamp
        if text is None:
            self._log.error("token_keys_unusable", detail=f"the file cannot be read: {stamp}")
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

    def _read_if_changed(self) -> tuple[_Stamp | str, str | None]:
        """Return what tells this state of the file from others, and its text if the state is a new one."""
        try:
            # Looked at before it is read: what is written in between is seen as a change the next time.
            facts = self._path.stat()
            stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            return stamp, None if stamp == self._seen else self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            return type(error).__name__, None
