"""One offset for all processes of a database; each follows it."""

from pymongo import ReturnDocument

from guerdon.clock import SimulatedClock
from guerdon.database import Database
from guerdon.errors import Validation
from guerdon.simulated_clock.models import ADVANCE_SECONDS_MAX, CLOCK_ID, CLOCKS, StoredClock

FOLLOW_SECONDS = 0.25
"""How often the other processes look."""


class ClockControl:
    """Puts the clock of a development service forward: tokens, holds, lots, windows and jobs all ask the same clock."""

    def __init__(self, database: Database, clock: SimulatedClock) -> None:
        self._collection = database.collection(CLOCKS, StoredClock)
        self._clock = clock

    async def advance(self, seconds: int) -> tuple[int, int]:
        """Put the clock forward; return the new time (milliseconds) and by how much it is ahead altogether.

        This process believes in it at once, the others within `FOLLOW_SECONDS`.

        Raises:
            Validation: altogether it would be more than ten years.
        """
        most = (ADVANCE_SECONDS_MAX - seconds) * 1000
        await self._collection.raw.update_one({"_id": CLOCK_ID}, {"$setOnInsert": {"offset_ms": 0}}, upsert=True)
        moved = await self._collection.raw.find_one_and_update(
            {"_id": CLOCK_ID, "offset_ms": {"$lte": most}},
            {"$inc": {"offset_ms": seconds * 1000}},
            return_document=ReturnDocument.AFTER,
        )
        if moved is None:
            raise Validation.at("/seconds", "the clock would be more than ten years ahead; begin with an empty database")
        self._clock.follow(moved["offset_ms"])
        return self._clock.now_ms(), moved["offset_ms"] // 1000

    async def follow(self) -> None:
        """Believe what another process has been told."""
        stored = await self._collection.get(CLOCK_ID)
        if stored is not None:
            self._clock.follow(stored.offset_ms)
