"""Log lines leave later and on a thread; none may be lost on the way. Each is one line of JSON, whatever it is about, and tells no values."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from pymongo.errors import DuplicateKeyError, OperationFailure

from guerdon.clock import SystemClock
from guerdon.errors import DatabaseUnavailable
from guerdon.logs import LINE_MAX, adopt_libraries, describe, log_security_event, make_logger
from tests.waiting import until

CANARY = "mongodb://root:canary@db.internal"
HOSTILE = (
    "line\nfeed", "return\r\nHTTP/1.1 200 OK", "\x1b[2J\x1b[31mred", "\x9b31mC1", "\x7f", "nul\x00", "\u2028separator\u2029", "\u202eoverride",
    "\u2066isolate\u2069", "x" * 1_000_000, "\U0001f600" * 100_000, "\x00" * 100_000, "\ud800", '"},{"event":"forged"',
)  # fmt: skip

SAYS_AND_ENDS = """
import asyncio
from guerdon.clock import SystemClock
from guerdon.logs import make_logger

async def main():
    log = make_logger(SystemClock(), "info")
    for number in range(3):
        log.info("said", number=number)

asyncio.run(main())
"""


def test_pending_log_lines_are_written_at_exit() -> None:
    done = subprocess.run([sys.executable, "-c", SAYS_AND_ENDS], capture_output=True, text=True, timeout=60, check=True)
    assert [f'"number":{number}' in line for number, line in enumerate(done.stdout.splitlines())] == [True] * 3


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was written, with the proof that each line is one event."""
    text = stream.getvalue()
    for line in text.split("\n")[:-1]:
        assert len(line.encode()) <= LINE_MAX
        assert line.isprintable(), ascii(line[:200])
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_text_is_one_line_of_harmless_json(text: str) -> None:
    """LOG-2: in a value, in a name, and in many values at once."""
    stream = io.StringIO()
    log = make_logger(SystemClock(), "info", stream)
    log.info("said", request_id="req_1", text=text)
    log.info("said", **{text[:2000]: 1, "nested": {"deep": [text] * 3}})
    log.info("said", **{f"f{number}": text for number in range(50)})
    found = lines_of(stream)
    assert [line["event"] for line in found] == ["said"] * 3
    assert found[0]["request_id"] == "req_1"
    assert len(text) > 2000 or found[0]["text"] == text


def test_exception_is_logged_by_its_types_and_locations() -> None:
    def deep() -> None:
        try:
            raise OperationFailure(CANARY, 11000, {"errmsg": CANARY})
        except OperationFailure as error:
            raise RuntimeError(CANARY) from error

    with pytest.raises(RuntimeError) as raised:
        deep()
    told = describe(raised.value)
    assert "canary" not in told
    assert [
        word
        for word in ("RuntimeError", "test_logs.py", "in deep", "caused by pymongo.errors.OperationFailure 11000")
        if word not in told
    ] == []
    assert "ENOENT" in describe(FileNotFoundError(2, CANARY))
    assert "our words" in describe(DatabaseUnavailable("our words"))
    assert "canary" not in describe(DuplicateKeyError(f"E11000 {CANARY}", 11000))
    endless: Any = RuntimeError(CANARY)
    endless.__cause__ = endless
    assert len(describe(endless)) < LINE_MAX


@pytest.mark.parametrize("level", ["debug", "error"])
def test_a_security_event_is_written_at_every_level(level: str) -> None:
    stream = io.StringIO()
    log = make_logger(SystemClock(), level, stream)
    log.info("said")
    log_security_event(log, "login", actor="anonymous", subject={"member": "mem_1"}, result="done", request_id="req_1")
    events = [line for line in lines_of(stream) if line["event"] == "security_event"]
    assert [(event["name"], event["object"]) for event in events] == [("login", {"member": "mem_1"})]


async def test_library_warnings_are_logged_without_their_values() -> None:
    root = logging.getLogger()
    before, loop = (root.handlers, root.level), asyncio.get_running_loop()
    stream = io.StringIO()
    try:
        adopt_libraries(make_logger(SystemClock(), "debug", stream))
        logging.getLogger("pymongo.command").debug("Command started %s", CANARY)
        logging.getLogger("pymongo.serverSelection").info(CANARY)
        logging.getLogger("somebody").warning("cannot reach %s", CANARY)
        logging.getLogger("somebody").error(CANARY)
        logging.getLogger("somebody").error("failed", exc_info=RuntimeError(CANARY))
        loop.call_exception_handler({"message": "nobody awaited it", "exception": RuntimeError(CANARY)})
        await until(lambda: stream.getvalue().count("\n") >= 4)
    finally:
        root.handlers, root.level = before
        logging.captureWarnings(capture=False)
        loop.set_exception_handler(None)
    found = lines_of(stream)
    assert "canary" not in stream.getvalue()
    assert [(line["event"], line.get("logger"), line["wording"]) for line in found] == [
        ("library", "somebody", "cannot reach %s"),
        ("library", "somebody", None),
        ("library", "somebody", None),
        ("loop", None, "nobody awaited it"),
    ]
    assert ["RuntimeError" in line.get("exception", "") for line in found] == [False, False, True, True]
