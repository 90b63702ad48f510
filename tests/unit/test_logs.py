"""Log lines leave later and on a thread; none may be lost on the way."""

import subprocess
import sys

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


def test_what_still_waits_is_written_when_the_process_ends() -> None:
    done = subprocess.run([sys.executable, "-c", SAYS_AND_ENDS], capture_output=True, text=True, timeout=60, check=True)
    assert [f'"number":{number}' in line for number, line in enumerate(done.stdout.splitlines())] == [True] * 3
