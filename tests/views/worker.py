"""A worker process that only projects the views, with short leases: `python -m tests.views.worker URL DATABASE LEASE_MS`."""

import asyncio
import signal
import sys

from guerdon.calendar import Calendar
from guerdon.clock import SystemClock
from guerdon.database import Database
from guerdon.embedded import die_with_parent
from guerdon.ids import IdSource
from guerdon.logs import make_logger
from guerdon.projections.service import Projector
from guerdon.views.group import books_group


async def run(url: str, name: str, lease_ms: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    clock = SystemClock()
    database = Database(url, name)
    log = make_logger(clock, "info", sys.stderr)
    try:
        await Projector(database, clock, IdSource(clock), log, books_group(Calendar()), lease_ms=lease_ms).run(stopping)
    finally:
        await database.close()


if __name__ == "__main__":
    die_with_parent(by=signal.SIGKILL)
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
