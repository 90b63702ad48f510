"""Logs: one JSON object per line on standard output. Callers log codes, ids and durations; never bodies, tokens or personal data.

An exception is logged by its type and its stack, without its message: the message of a driver may contain the database password, that of a
duplicate key an e-mail address.
"""

import asyncio
import errno
import json
import logging
import re
import sys
import traceback
from collections import deque
from collections.abc import Iterator
from multiprocessing.util import Finalize
from threading import Lock
from typing import Any, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from guerdon.clock import Clock, rfc3339
from guerdon.crypto.redaction import redacted
from guerdon.errors import OperationsError

LINE_MAX = 16_384
FIELD_MAX = 1000
FRAMES_MAX, CHAIN_MAX, DESCRIPTION_MAX = 20, 4, 8000
FLUSH_SECONDS = 0.05
_INVISIBLE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that control a terminal or change its display and that JSON does not escape: DEL, C1 controls, Unicode line ends and directions."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_encode = msgspec.json.Encoder(enc_hook=repr).encode


class _LineWriter:
    """Writer of lines. Lines up to `info` are written in groups on a thread, so that a slow file does not block the server."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # The loop appends and the thread pops; a deque is safe for that.
        self._waiting: deque[str] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._writing = Lock()
        # Write the remaining lines at the end of the process. Forked workers run this; they do not run `atexit`.
        Finalize(None, self._flush, exitpriority=0)

    def info(self, line: str) -> None:
        self._waiting.append(line)
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_later)
            except RuntimeError:  # No loop is running, so nothing would flush later.
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
    """Return a new logger, without global configuration. `stream` defaults to standard output."""

    def stamp(_logger: Any, method: str, event: EventDict) -> EventDict:
        # structlog puts the event last, where a long line is cut.
        return {"at": rfc3339(clock.now_ms()), "level": method, "event": event.pop("event", None), **event}

    def render(_logger: Any, _method: str, event: EventDict) -> str:
        error = event.pop("exc_info", None)
        if isinstance(error, BaseException):
            event["exception"] = describe(error)
        line = _line_of(event)
        if len(line) > LINE_MAX:
            fields = list(event.items())[: LINE_MAX // FIELD_MAX // 2]
            line = _line_of({str(name)[:50]: str(value)[: FIELD_MAX // 6] for name, value in fields} | {"cut": True})
        return line

    class Logger(structlog.make_filtering_bound_logger(_LEVELS[level])):
        def always(self, event: str, **facts: Any) -> None:
            """Write a line at any log level."""
            cast(Any, self)._proxy_to_logger("info", event, **facts)

    return structlog.wrap_logger(
        _LineWriter(stream or sys.stdout),
        processors=[stamp, render],
        wrapper_class=Logger,
        cache_logger_on_first_use=True,
    )


def _line_of(event: EventDict) -> str:
    try:
        line = _encode(event).decode()
    except UnicodeEncodeError:
        return json.dumps(event, default=repr, separators=(",", ":"))  # A lone surrogate cannot be encoded, so it is escaped.
    if line.isascii() and "\x7f" not in line:
        return line
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def log_security_event(
    log: FilteringBoundLogger, name: str, *, actor: str, subject: dict[str, str], result: str, request_id: str, **facts: object
) -> None:
    """Write the line of a security event at any log level. Pass ids and codes only."""
    always = cast(Any, log).always
    shown = {key: redacted(value) for key, value in subject.items()}
    always("security_event", name=name, actor=actor, object=shown, result=result, request_id=request_id, **facts)


def describe(error: BaseException) -> str:
    """Return the types and stacks of an exception and its causes, innermost frame last, without messages."""
    return "\n".join(_describe_chain(error))[:DESCRIPTION_MAX]


def _describe_chain(error: BaseException) -> Iterator[str]:
    current: BaseException | None = error
    for number in range(CHAIN_MAX):
        if current is None:
            return
        yield f"{'caused by ' if number else ''}{_error_name(current)}"
        frames = traceback.extract_tb(current.__traceback__)
        for frame in frames[-FRAMES_MAX:]:
            yield f"  {frame.filename.rpartition('site-packages/')[2]}:{frame.lineno} in {frame.name}"
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _error_name(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    number = getattr(error, "code", None)
    if isinstance(error, OperationsError):
        return f"{name}: {error.detail}"  # The detail is written by this code, for operators.
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} {errno.errorcode.get(error.errno, error.errno)}"
    return f"{name} {number}" if isinstance(number, int) else name


class _LibraryHandler(logging.Handler):
    """Handler that logs records of libraries by logger, level, message template and exception, without their arguments."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        wording = record.msg if isinstance(record.msg, str) and record.args else None
        self._log.warning("library", logger=record.name, grade=record.levelname.lower(), wording=wording, exc_info=error)


def adopt_libraries(log: FilteringBoundLogger) -> None:
    """Route the log records of libraries, from warnings up, to `log`. Lower levels of a driver contain commands and their values.

    Exceptions that no task awaited are logged too.
    """
    root = logging.getLogger()
    root.handlers = [_LibraryHandler(log)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    for name in ("pymongo", "asyncio", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)

    def log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        log.error("loop", wording=context.get("message"), exc_info=context.get("exception"))

    asyncio.get_running_loop().set_exception_handler(log_unhandled)
