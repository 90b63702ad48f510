"""One JSON object a line on standard output. Callers log codes, ids and durations; never bodies, tokens or personal data."""

import logging
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from guerdon.clock import Clock, rfc3339

LINE_MAX = 16_384
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_encode = msgspec.json.Encoder(enc_hook=repr).encode


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
        structlog.PrintLogger(stream),
        processors=[stamp, structlog.processors.format_exc_info, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=True,
    )
