"""ASGI server of a worker process: the application, built inside the running loop, and its periodic work."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from pymongo.errors import PyMongoError
from structlog.typing import FilteringBoundLogger

from guerdon.access.key_file import CHECK_SECONDS, KeyFile
from guerdon.clock import Clock, DatabaseClock, SystemClock
from guerdon.clock_sync import MEASURE_SECONDS
from guerdon.config import Settings, load, require_safe
from guerdon.database import end_tasks
from guerdon.embedded import die_with_parent
from guerdon.errors import StartupRefused
from guerdon.logs import adopt_libraries, make_logger
from guerdon.offers.refusals import WRITE_SECONDS
from guerdon.simulated_clock.service import FOLLOW_SECONDS
from guerdon.wiring.routes import Asgi, build_app, with_limits
from guerdon.wiring.services import Services, open_services

EXIT_STARTUP_REFUSED = 78
"""Exit code `EX_CONFIG` of sysexits.h."""
LAST_USES_SECONDS, LAST_WRITE_SECONDS = 10.0, 2.0
"""Interval at which the use of service keys is written, and the time that the last write may take at shutdown."""
Works = list[tuple[float, Callable[[], Awaitable[None]]]]
"""(interval in seconds, function) pairs."""


class Server:
    """ASGI callable. It builds the application at the start of the loop, because a MongoDB client belongs to one loop."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._stack = AsyncExitStack()
        self._app: Asgi | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is not None and scope["type"] != "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)

    async def _run_lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._stack.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        """Start the application, or end the process: otherwise the server would continue without answering."""
        log = make_logger(self._clock, self._settings.log_level)
        adopt_libraries(log)
        try:
            services = await self._stack.enter_async_context(open_services(self._settings, self._clock))
            app = build_app(services, self._settings, log)
            self._app = with_limits(app, self._settings, self._clock, log)
            await self._stack.enter_async_context(run_beside_requests(services, self._settings, log))
            _on_stop_signal(services.streams.end)
            _tune_gc()
        except StartupRefused as error:
            log.error("startup_refused", detail=error.detail)
            os._exit(EXIT_STARTUP_REFUSED)
        except BaseException as error:
            log.error("startup_failed", exc_info=error)
            os._exit(EXIT_STARTUP_REFUSED)


@asynccontextmanager
async def run_beside_requests(services: Services, settings: Settings, log: FilteringBoundLogger) -> AsyncGenerator[None]:
    """Run the periodic work of a serving process: follow the file of token keys, and write the use of service keys and counts of refusals."""
    works: Works = [(LAST_USES_SECONDS, services.access.write_last_uses), (WRITE_SECONDS, services.refusals.write)]
    if settings.token_keys_file is not None:
        file = KeyFile(settings.token_keys_file, services.token_keys, services.clock, log)
        works.append((CHECK_SECONDS, file.check))
    async with follow_clocks(services, log):
        try:
            async with _run_all(works, log):
                yield
        finally:
            with suppress(PyMongoError, TimeoutError):
                last_writes = asyncio.gather(services.access.write_last_uses(), services.refusals.write())
                await asyncio.wait_for(last_writes, LAST_WRITE_SECONDS)


@asynccontextmanager
async def follow_clocks(services: Services, log: FilteringBoundLogger) -> AsyncGenerator[None]:
    """Follow the clock of the database and, if there is one, the simulated clock when another process moves it forward.

    Both were read when the services were opened, so the first of the periodic reads waits for its interval.
    """
    works: Works = [] if services.clock_control is None else [(FOLLOW_SECONDS, services.clock_control.follow)]
    if (clock_sync := services.clock_sync) is not None:
        clock_sync.report(log)

        async def follow_database() -> None:
            await clock_sync.follow(log)

        works.append((MEASURE_SECONDS, follow_database))
    async with _run_all(works, log, at_once=False):
        yield


@asynccontextmanager
async def _run_all(works: Works, log: FilteringBoundLogger, *, at_once: bool = True) -> AsyncGenerator[None]:
    tasks = [asyncio.create_task(_run_periodically(seconds, work, log, at_once=at_once)) for seconds, work in works]
    try:
        yield
    finally:
        await end_tasks(*tasks)


async def _run_periodically(
    seconds: float, work: Callable[[], Awaitable[None]], log: FilteringBoundLogger, *, at_once: bool
) -> None:
    if not at_once:
        await asyncio.sleep(seconds)
    while True:
        try:
            await work()
        except PyMongoError as error:
            log.warning("put_off", work=work.__qualname__, cause=type(error).__name__)
        except Exception as error:
            # Try again later: a process must not stop following its keys.
            log.error("unhandled", work=work.__qualname__, exc_info=error)
        await asyncio.sleep(seconds)


def _on_stop_signal(act: Callable[[], None]) -> None:
    """Call `act` on SIGTERM and SIGINT, in addition to the server's own handler.

    The server waits for open connections before it sends `lifespan.shutdown`, and an event stream does not end by itself.
    """
    loop = asyncio.get_running_loop()

    def chained(previous: Any) -> Callable[[int, Any], None]:
        def handle(number: int, frame: Any) -> None:
            loop.call_soon_threadsafe(act)
            if callable(previous):
                previous(number, frame)

        return handle

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, chained(signal.getsignal(number)))
        signal.siginterrupt(number, False)


def _tune_gc() -> None:
    """Exclude the objects of the start-up from garbage collection, and collect less often than every 700 allocations."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def create_server() -> Server:
    """Return the ASGI application of a worker process, with settings from the environment."""
    # First of all: an orphan would keep the port open and wait for a database that ended with the parent.
    die_with_parent(by=signal.SIGKILL)
    settings = load()
    require_safe(settings)
    return Server(settings, DatabaseClock(SystemClock()))
