"""Request deadlines."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from falcon.asgi import Request

from guerdon.errors import OutcomeUnknown

T = TypeVar("T")

CHECK_SECONDS = 0.1
"""Interval at which deadlines are checked: the maximum delay after one."""


class Deadlines:
    """Cancels requests at their deadlines. One timer serves all of them: a timer for each would cost 25 us a request."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[Any], float] = {}
        """Deadline of each task in the time of the loop."""
        self._timer: asyncio.TimerHandle | None = None

    async def hold(self, ends_at: float, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` until `ends_at`, or at most `CHECK_SECONDS` longer.

        Raises:
            TimeoutError: the deadline has passed.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        if task in self._ends:
            return await work  # The task has a deadline already.
        self._ends[task] = ends_at
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CHECK_SECONDS, self._check)
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._ends or task.uncancel() > 0:
                raise  # Another caller has cancelled the task.
            raise TimeoutError from None
        finally:
            self._ends.pop(task, None)

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task in [task for task, ends_at in self._ends.items() if ends_at <= now]:
            del self._ends[task]
            task.cancel()
        self._timer = loop.call_later(CHECK_SECONDS, self._check) if self._ends else None


async def in_time(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` until the deadline of the request.

    Commands of the ledger have a deadline of their own. Reads before them (the caller, the member) do not: the driver notices a silent
    connection after 7 s and then looks for a primary for up to 5 s.

    Raises:
        OutcomeUnknown: the deadline has passed.
    """
    deadlines: Deadlines = request.context.deadlines
    try:
        return await deadlines.hold(request.context.ends_at, work)
    except TimeoutError:
        if asyncio.get_running_loop().time() < request.context.ends_at:
            raise
        raise OutcomeUnknown(
            "the deadline passed before the database answered; repeat with the same key", retry_after_seconds=1
        ) from None
