"""Room for long answers: so many of them at most, and none for longer than so long."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar
from weakref import WeakSet

from guerdon.errors import Overloaded

T = TypeVar("T")


class _Slot:
    """One place; whoever holds the answer holds it."""

    __slots__ = ("__weakref__",)


class StreamSlots:
    """The places of one process for answers of one sort. A place is free again when its answer has ended, or was dropped unread."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._taken: WeakSet[_Slot] = WeakSet()

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, answer: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Return `answer`, ended together with its request when it takes longer than the places' time.

        Raises:
            Overloaded: every place is taken.
        """
        if len(self._taken) >= self._most:
            raise Overloaded(f"{self._most} answers of this sort are being sent already; try again", retry_after_seconds=5)
        place = _Slot()
        self._taken.add(place)
        return self._within(place, answer)

    async def _within(self, place: _Slot, answer: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """A client that does not read holds its request up in the middle of sending, where only cancelling reaches it."""
        request = asyncio.current_task()
        assert request is not None

        def end() -> None:
            self._taken.discard(place)
            request.cancel()

        timer = asyncio.get_running_loop().call_later(self._seconds, end)
        try:
            async for part in answer:
                yield part
        finally:
            timer.cancel()
            self._taken.discard(place)
            await answer.aclose()
