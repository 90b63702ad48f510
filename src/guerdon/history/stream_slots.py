"""A bound on the number and the duration of long responses."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar
from weakref import WeakSet

from guerdon.errors import Overloaded

T = TypeVar("T")


class _Slot:
    """Slot token; it is free when the response that holds it is collected."""

    __slots__ = ("__weakref__",)


class StreamSlots:
    """Slots of one process for one sort of response. A slot is free again when its response has ended or was dropped unread."""

    def __init__(self, slots_max: int, seconds: float) -> None:
        self._slots_max = slots_max
        self._seconds = seconds
        self._taken: WeakSet[_Slot] = WeakSet()

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, answer: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Return `answer` in a slot; it ends with its request when the time of the slot is over.

        Raises:
            Overloaded: Every slot is taken.
        """
        if len(self._taken) >= self._slots_max:
            raise Overloaded(f"{self._slots_max} responses of this sort are being sent; try again", retry_after_seconds=5)
        slot = _Slot()
        self._taken.add(slot)
        return self._within(slot, answer)

    async def _within(self, slot: _Slot, answer: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield the parts of an answer, and cancel the request at the end: a client that does not read blocks it while sending."""
        request = asyncio.current_task()
        assert request is not None

        def end() -> None:
            self._taken.discard(slot)
            request.cancel()

        timer = asyncio.get_running_loop().call_later(self._seconds, end)
        try:
            async for part in answer:
                yield part
        finally:
            timer.cancel()
            self._taken.discard(slot)
            await answer.aclose()
