"""One JSON object a line on standard output. Callers log codes, ids and durations; never bodies, tokens or personal data.

An exception is logged by its type and the places it came through, without its message: a driver's names the database with its password, and
one about a duplicate names the e-mail address.
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
_UNSEEN = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What a terminal obeys, or shows as something else, and JSON does not escape: DEL, the C1 controls, line ends and directions of Unicode."""
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
        # structlog puts the event last, where it would be the first to be cut off.
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
            """Write a line that no level hides."""
            cast(Any, self)._proxy_to_logger("info", event, **facts)

    return structlog.wrap_logger(
        _Lines(stream or sys.stdout),
        processors=[stamp, render],
        wrapper_class=Logger,
        cache_logger_on_first_use=True,
    )


def _line_of(event: EventDict) -> str:
    try:
        line = _encode(event).decode()
    except UnicodeEncodeError:
        return json.dumps(event, default=repr, separators=(",", ":"))  # Half of a surrogate pair is no text; so it is escaped.
    if line.isascii() and "\x7f" not in line:
        return line
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def tell_security(
    log: FilteringBoundLogger, name: str, *, actor: str, subject: dict[str, str], result: str, request_id: str, **facts: object
) -> None:
    """Write the one line of a security event, whatever the log's level. Ids and codes only."""
    always = cast(Any, log).always
    shown = {key: redacted(value) for key, value in subject.items()}
    always("security_event", name=name, actor=actor, object=shown, result=result, request_id=request_id, **facts)


def describe(error: BaseException) -> str:
    """Return the types of an exception and of what caused it, and where they were raised, innermost last."""
    return "\n".join(_lines_about(error))[:DESCRIPTION_MAX]


def _lines_about(error: BaseException) -> Iterator[str]:
    current: BaseException | None = error
    for number in range(CHAIN_MAX):
        if current is None:
            return
        yield f"{'caused by ' if number else ''}{_name_of(current)}"
        frames = traceback.extract_tb(current.__traceback__)
        for frame in frames[-FRAMES_MAX:]:
            yield f"  {frame.filename.rpartition('site-packages/')[2]}:{frame.lineno} in {frame.name}"
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _name_of(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    number = getattr(error, "code", None)
    if isinstance(error, OperationsError):
        return f"{name}: {error.detail}"  # Our own words, for people who operate.
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} {errno.errorcode.get(error.errno, error.errno)}"
    return f"{name} {number}" if isinstance(number, int) else name


class _Adopted(logging.Handler):
    """Log lines of libraries, without what they were about: who, how grave, the wording, and the exception if there is one."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        wording = record.msg if isinstance(record.msg, str) and record.args else None
        self._log.warning("library", logger=record.name, grade=record.levelname.lower(), wording=wording, exc_info=error)


def adopt_libraries(log: FilteringBoundLogger) -> None:
    """Send this process's other log lines through ours, and never more than warnings: a driver's own details hold commands and their values.

    A loop that runs tells us of exceptions that nobody has awaited.
    """
    root = logging.getLogger()
    root.handlers = [_Adopted(log)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    for name in ("pymongo", "asyncio", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)

    def tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        log.error("loop", wording=context.get("message"), exc_info=context.get("exception"))

    asyncio.get_running_loop().set_exception_handler(tell)
