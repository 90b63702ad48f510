"""Simulated clock of a development service. All processes of a database follow one stored offset."""

from pymongo import ReturnDocument

from guerdon.clock import SimulatedClock
from guerdon.database import Database
from guerdon.errors import Validation
from guerdon.simulated_clock.models import ADVANCE_SECONDS_MAX, CLOCK_ID, CLOCKS, StoredClock

FOLLOW_SECONDS = 0.25
"""Interval at which each process reads the offset."""


class ClockControl:
    """Control of the simulated clock, which tokens, holds, lots, windows and jobs use."""

    def __init__(self, database: Database, clock: SimulatedClock) -> None:
        self._collection = database.collection(CLOCKS, StoredClock)
        self._clock = clock

    async def advance(self, seconds: int) -> tuple[int, int]:
        """Advance the clock. Return the new time in milliseconds and the total offset in seconds.

        This process uses the new time at once, the other processes within `FOLLOW_SECONDS`.

        Raises:
            Validation: the total offset would exceed ten years.
        """
        offset_ms_max = (ADVANCE_SECONDS_MAX - seconds) * 1000
        await self._collection.raw.update_one({"_id": CLOCK_ID}, {"$setOnInsert": {"offset_ms": 0}}, upsert=True)
        moved = await self._collection.raw.find_one_and_update(
            {"_id": CLOCK_ID, "offset_ms": {"$lte": offset_ms_max}},
            {"$inc": {"offset_ms": seconds * 1000}},
            return_document=ReturnDocument.AFTER,
        )
        if moved is None:
            raise Validation.at(
                "/seconds", "the clock would be more than ten years ahead; use a smaller number, or an empty database"
            )
        self._clock.follow(moved["offset_ms"])
        return self._clock.now_ms(), moved["offset_ms"] // 1000

    async def follow(self) -> None:
        """Apply the stored offset to the clock of this process."""
        stored = await self._collection.get(CLOCK_ID)
        if stored is not None:
            self._clock.follow(stored.offset_ms)
