"""One JSON object a line on standard output. Callers log codes, ids and durations; never bodies, tokens or personal data."""

import asyncio
import logging
import sys
from collections import deque
from multiprocessing.util import Finalize
from threading import Lock
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from guerdon.clock import Clock, rfc3339

LINE_MAX = 16_384
FLUSH_SECONDS = 0.05
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_encode = msgspec.json.Encoder(enc_hook=repr).encode


class _Lines:
    """Writes lines. Informative ones leave together, on a thread: a file that answers slowly must not hold a busy server up."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # Filled by the loop and emptied by the thread: each end of a deque is safe to use beside the other.
        self._waiting: deque[str] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._writing = Lock()
        # What still waits when a process ends. Forked workers run this; they do not run `atexit`.
        Finalize(None, self._flush, exitpriority=0)

    def info(self, line: str) -> None:
        self._waiting.append(line)
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_later)
            except RuntimeError:  # No loop runs: nobody would flush later.
                self._flush()

    def error(self, line: str) -> None:
        self._waiting.append(line)
        self._flush()

    debug = info
    warning = error

    def _flush_later(self) -> None:
        self._timer = None
        asyncio.get_running_loop().run_in_executor(None, self._flush)

    def _flush(self) -> None:
        with self._writing:
            lines: list[str] = []
            while self._waiting:
                lines.append(self._waiting.popleft())
            if lines:
                self._stream.write("\n".join([*lines, ""]))
                self._stream.flush()


def make_logger(clock: Clock, level: str, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Return a logger of its own; nothing global is configured. `stream` is standard output unless told."""

    def stamp(_logger: Any, method: str, event: EventDict) -> EventDict:
        return {"at": rfc3339(clock.now_ms()), "level": method, **event}

    def render(_logger: Any, _method: str, event: EventDict) -> str:
        line = _encode(event)
        if len(line) > LINE_MAX:
            line = _encode({name: str(item)[:1000] for name, item in event.items()} | {"cut": True})
        return line.decode()

    return structlog.wrap_logger(
        _Lines(stream or sys.stdout),
        processors=[stamp, structlog.processors.format_exc_info, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=True,
    )
