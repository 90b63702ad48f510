"""Circuit breaker of the store, and the bound on reads of the database that take its place."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

from guerdon.clock import Clock
from guerdon.errors import Overloaded

FAILURES_MAX = 3
"""Number of failures in a row after which the store is not asked for a while."""
PAUSE_SECONDS = 1.0
"""Minimum time between two attempts at a store that has failed; up to twice as long, so that processes do not try together."""
READS_MAX = 24
"""Number of reads of the database that run at the same time in one process."""
READS_WAITING_MAX = 2_000
"""Number of reads that wait for one of these. Above it the answer is `503 overloaded`."""
READ_WAIT_SECONDS = 2.0
"""Time after which a waiting read is refused."""


class CircuitBreaker:
    """Stops asking a store that fails. While it is open, one attempt after each pause finds out whether the store has returned."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._next_attempt_at = 0.0
        self.opened = 0
        """Number of times that it opened."""

    @property
    def state(self) -> Literal["closed", "open"]:
        return "open" if self._failures >= FAILURES_MAX else "closed"

    def allows(self) -> bool:
        """Return True if the store may be asked. While the breaker is open, that is so once in each pause."""
        if self._failures < FAILURES_MAX:
            return True
        if self._clock.monotonic() < self._next_attempt_at:
            return False
        self._pause()
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            if self._failures == FAILURES_MAX:
                self.opened += 1
            self._pause()

    def _pause(self) -> None:
        self._next_attempt_at = self._clock.monotonic() + PAUSE_SECONDS * random.uniform(1, 2)


class ReadGate:
    """Bounds the reads of the database, so that all readers of a store that fails do not reach the primary at once."""

    def __init__(
        self, slots: int = READS_MAX, *, waiting_max: int = READS_WAITING_MAX, wait_seconds: float = READ_WAIT_SECONDS
    ) -> None:
        self._free = slots
        self._waiting_max = waiting_max
        self._wait_seconds = wait_seconds
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self.refused = 0
        """Number of reads that were refused."""

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Hold one of the slots.

        Raises:
            Overloaded: Too many reads wait, or this one has waited too long.
        """
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._release()

    async def _wait(self) -> None:
        granted = False
        if len(self._waiting) < self._waiting_max:
            loop = asyncio.get_running_loop()
            turn: asyncio.Future[bool] = loop.create_future()
            self._waiting.append(turn)
            timer = loop.call_later(self._wait_seconds, lambda: turn.done() or turn.set_result(False))
            try:
                granted = await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.result():
                    self._release()  # The slot was passed on just as the caller disconnected.
                raise
            finally:
                timer.cancel()
        if not granted:
            self.refused += 1
            raise Overloaded("too many reads are waiting for the database", retry_after_seconds=1)

    def _release(self) -> None:
        """Pass the slot to the next read that waits, or free it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._free += 1
