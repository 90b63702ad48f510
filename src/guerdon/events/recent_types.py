"""Types of recent events, for warnings about campaigns that wait for a type that the shop does not send."""

from guerdon.campaigns.domain import EVENTS, RecordedEvent
from guerdon.database import Database

EVENTS_READ_MAX = 1000
"""Number of events that are read, the newest by the time at which they occurred."""


class RecentEventTypes:
    """Reads the types of recent events."""

    def __init__(self, database: Database) -> None:
        self._events = database.collection(EVENTS, RecordedEvent)

    async def read(self) -> frozenset[str]:
        """Return the types of the newest events. Reads an index and at most `EVENTS_READ_MAX` documents."""
        cursor = self._events.raw.find({}, {"type": 1}, limit=EVENTS_READ_MAX).sort([("occurred_at", -1), ("recorded_at", -1)])
        return frozenset([str(row["type"]) async for row in cursor])
