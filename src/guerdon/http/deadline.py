"""Request deadlines."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from falcon.asgi import Request

from guerdon.errors import OutcomeUnknown

T = TypeVar("T")

DEADLINE_LOOK_SECONDS = 0.1
"""How late a request's deadline may be noticed."""


class Deadlines:
    """Ends what requests wait for at their own ends. One timer looks after all of them, since one each would cost a request 25 us."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[Any], float] = {}
        """Until when each task may wait, in the loop's time."""
        self._timer: asyncio.TimerHandle | None = None

    async def hold(self, ends_at: float, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` until `ends_at`, or up to `DEADLINE_LOOK_SECONDS` longer.

        Raises:
            TimeoutError: the time is over.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        if task in self._ends:
            return await work  # It is held already.
        self._ends[task] = ends_at
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DEADLINE_LOOK_SECONDS, self._look)
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._ends or task.uncancel() > 0:
                raise  # It was not us.
            raise TimeoutError from None
        finally:
            self._ends.pop(task, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task in [task for task, ends_at in self._ends.items() if ends_at <= now]:
            del self._ends[task]
            task.cancel()
        self._timer = loop.call_later(DEADLINE_LOOK_SECONDS, self._look) if self._ends else None


async def in_time(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Hold whatever a request waits for to the request's own end.

    The ledger holds its commands to their deadline. What a request reads before it gets there (who calls, whether a member exists) has no
    deadline of its own: a connection on which nothing comes back is noticed after 7 s, and a primary is then looked for during 5 s more.

    Raises:
        OutcomeUnknown: the time is over.
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
