"""Supervision of the embedded database of a process: it is restarted when it ends."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from guerdon.embedded.mongod import EmbeddedMongo, log_tail, restart
from guerdon.errors import StartupRefused

PAUSES_SECONDS = (0.0, 0.5, 1.0, 2.0)
"""Pauses before the restarts that follow each other; the last one is repeated."""
FAILURES_MAX = 3
STEADY_SECONDS = 10.0
"""A database that has run for this long ends a series of restarts and failures."""
JOIN_SECONDS = 1.0
_STOPPED_FROM_OUTSIDE = (0, -signal.SIGTERM, -signal.SIGKILL)
"""Exit statuses of a mongod that another process has ended. They do not show a fault of the database."""


class MongoSupervisor:
    """Keeps a started mongod running, on the same port.

    After three failures in a row it gives up. A failure is a restart that does not succeed, or a database that ends by itself soon after one.
    """

    def __init__(self, data_dir: Path, mongo: EmbeddedMongo, log: FilteringBoundLogger, on_lost: Callable[[], None]) -> None:
        """`on_lost` is called in another thread when the supervisor has given up."""
        self.lost: str | None = None
        """Reason for which the supervisor has given up, or None."""
        self._data_dir = data_dir
        self._mongo = mongo
        self._log = log
        self._on_lost = on_lost
        self._stopping = threading.Event()
        # The kernel ends a child together with the thread that started it, so this thread runs until the last mongod has ended.
        self._thread = threading.Thread(target=self._supervise, name="mongod", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the supervision and the database. After `seconds` the database is killed, which loses no acknowledged write."""
        deadline = time.monotonic() + seconds
        self._stopping.set()
        self._mongo.stop(max(deadline - time.monotonic(), 0.0))
        self._thread.join(max(deadline - time.monotonic(), JOIN_SECONDS))
        self._mongo.stop(0.0)  # Another one, if it was just being started.

    def _supervise(self) -> None:
        failures = restarts = 0
        began = float("-inf")
        """Time at which the present mongod was ready; the first one has started without a failure."""
        while True:
            offset = self._log_size()
            status = self._mongo.wait()
            if self._stopping.is_set():
                return
            by_itself = status not in _STOPPED_FROM_OUTSIDE
            if time.monotonic() - began >= STEADY_SECONDS:
                failures = restarts = 0
            elif by_itself:
                failures += 1
            lines = log_tail(self._data_dir / "mongod.log", offset) if by_itself else ""
            cause = ended = f"mongod ended with status {status}.{lines}"
            self._log.error("database_ended", status=status, failures=failures, detail=_first_lines(cause))
            while True:
                if failures >= FAILURES_MAX:
                    self._give_up(cause if cause == ended else f"{ended}\nThen: {cause}")
                    return
                if self._stopping.wait(PAUSES_SECONDS[min(restarts, len(PAUSES_SECONDS) - 1)]):
                    return
                restarts += 1
                started_at = time.monotonic()
                try:
                    self._mongo = restart(self._data_dir, self._mongo, self._stopping)
                except (StartupRefused, OSError) as error:
                    if self._stopping.is_set():
                        return
                    failures += 1
                    cause = str(error)
                    self._log.error("database_not_restarted", failures=failures, detail=_first_lines(cause))
                else:
                    began = time.monotonic()
                    self._log.warning("database_restarted", ms=round((began - started_at) * 1000))
                    break

    def _give_up(self, cause: str) -> None:
        self.lost = f"the embedded database has failed {FAILURES_MAX} times in a row, so this process ends. {cause}"
        self._on_lost()

    def _log_size(self) -> int:
        with contextlib.suppress(OSError):
            return (self._data_dir / "mongod.log").stat().st_size
        return 0


def _first_lines(text: str) -> str:
    return " ".join(text.split())[:1000]
