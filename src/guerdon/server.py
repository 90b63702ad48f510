"""What a worker of the HTTP server runs: the application, built inside the running loop, and what is done beside the requests."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from pymongo.errors import PyMongoError
from structlog.typing import FilteringBoundLogger

from guerdon.access.key_file import LOOK_SECONDS, KeyFile
from guerdon.clock import Clock, SystemClock
from guerdon.config import Settings, load, require_safe
from guerdon.embedded import die_with_parent
from guerdon.errors import StartupRefused
from guerdon.logs import adopt_libraries, make_logger
from guerdon.simulated_clock.service import FOLLOW_SECONDS
from guerdon.wiring.routes import Asgi, build_app, with_limits
from guerdon.wiring.services import Services, open_services

EXIT_STARTUP_REFUSED = 78
"""EX_CONFIG of sysexits.h."""
LAST_USES_SECONDS, LAST_WORD_SECONDS = 10.0, 2.0
"""How often it is written which service keys were used, and how long that may hold up the end of a process."""
Works = list[tuple[float, Callable[[], Awaitable[None]]]]
"""(seconds between two times, work)"""


class Server:
    """The ASGI callable: it builds the application when the server's loop starts, since a Mongo client belongs to one loop."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._stack = AsyncExitStack()
        self._app: Asgi | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is not None and scope["type"] != "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
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
        """A worker that cannot start ends its process: the server would go on without it, answering nothing."""
        log = make_logger(self._clock, self._settings.log_level)
        adopt_libraries(log)
        try:
            services = await self._stack.enter_async_context(open_services(self._settings, self._clock))
            app = build_app(services, self._settings, log)
            self._app = with_limits(app, self._settings, self._clock, log)
            await self._stack.enter_async_context(beside_requests(services, self._settings, log))
            _on_stop_signal(services.streams.end)
            _tune_gc()
        except StartupRefused as error:
            log.error("startup_refused", detail=error.detail)
            os._exit(EXIT_STARTUP_REFUSED)
        except BaseException as error:
            log.error("startup_failed", exc_info=error)
            os._exit(EXIT_STARTUP_REFUSED)


@asynccontextmanager
async def beside_requests(services: Services, settings: Settings, log: FilteringBoundLogger) -> AsyncGenerator[None]:
    """What a process that serves does besides: it follows the file of its token keys, and writes down which service keys are used."""
    works: Works = [(LAST_USES_SECONDS, services.access.write_last_uses)]
    if settings.token_keys_file is not None:
        file = KeyFile(settings.token_keys_file, services.token_keys, services.clock, log)
        works.append((LOOK_SECONDS, file.look))
    async with clock_followed(services, log):
        try:
            async with _repeated(works, log):
                yield
        finally:
            with suppress(PyMongoError, TimeoutError):
                await asyncio.wait_for(services.access.write_last_uses(), LAST_WORD_SECONDS)


@asynccontextmanager
async def clock_followed(services: Services, log: FilteringBoundLogger) -> AsyncGenerator[None]:
    """Follow the simulated clock, where there is one, when another process puts it forward."""
    works: Works = [] if services.clock_control is None else [(FOLLOW_SECONDS, services.clock_control.follow)]
    async with _repeated(works, log):
        yield


@asynccontextmanager
async def _repeated(works: Works, log: FilteringBoundLogger) -> AsyncGenerator[None]:
    tasks = [asyncio.create_task(_run_periodically(seconds, work, log)) for seconds, work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_periodically(seconds: float, work: Callable[[], Awaitable[None]], log: FilteringBoundLogger) -> None:
    while True:
        try:
            await work()
        except PyMongoError as error:
            log.warning("put_off", work=work.__qualname__, cause=type(error).__name__)
        except Exception as error:
            # It comes again: a process that no longer follows its keys would be noticed too late.
            log.error("unhandled", work=work.__qualname__, exc_info=error)
        await asyncio.sleep(seconds)


def _on_stop_signal(act: Callable[[], None]) -> None:
    """Call `act` when the process is asked to stop, besides what the server does then.

    The server waits for its open connections before it sends `lifespan.shutdown`, and an event stream would never end by itself.
    """
    loop = asyncio.get_running_loop()

    def also(before: Any) -> Callable[[int, Any], None]:
        def handle(number: int, frame: Any) -> None:
            loop.call_soon_threadsafe(act)
            if callable(before):
                before(number, frame)

        return handle

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, also(signal.getsignal(number)))
        signal.siginterrupt(number, False)


def _tune_gc() -> None:
    """What exists now lives as long as the process: the collector need not walk it, nor run every 700 allocations."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def create_server() -> Server:
    """Return the ASGI application of a worker process; the settings come from the environment."""
    # At once: an orphan would go on holding the port, waiting for a database that has died with the parent as well.
    die_with_parent(by=signal.SIGKILL)
    settings = load()
    require_safe(settings)
    return Server(settings, SystemClock())
