"""Queries on the recorded events of one member."""

from collections.abc import Collection

from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, RecordedEvent, RecordedVoid
from guerdon.database import Database, Document

_NEWEST_FIRST = [("recorded_at", -1), ("proof.number", -1)]


class RecordedEvents:
    """Lists of a member's events by the time of recording."""

    def __init__(self, database: Database) -> None:
        self._events = database.collection(EVENTS, RecordedEvent)
        self._voids = database.collection(EVENT_VOIDS, RecordedVoid)

    async def list_back(self, member_id: str, before_ms: int | None, limit: int) -> list[RecordedEvent]:
        """Return the events that were recorded before a time, newest first."""
        where: Document = {"owner": member_id}
        if before_ms is not None:
            where["recorded_at"] = {"$lt": before_ms}
        return await self._events.find(where, sort=_NEWEST_FIRST, limit=limit)

    async def list_same_time(self, member_id: str, recorded_ms: int, number: int, limit: int) -> list[RecordedEvent]:
        """Return the events that were recorded at a time and stand before a number in the member's chain, newest first."""
        where: Document = {"owner": member_id, "recorded_at": recorded_ms, "proof.number": {"$lt": number}}
        return await self._events.find(where, sort=_NEWEST_FIRST, limit=limit)

    async def voided_at(self, member_id: str, event_ids: Collection[str]) -> dict[str, int]:
        """Return the time of the void of each of these events that was voided, by the id of the event."""
        ids = [f"{member_id}/{event_id}" for event_id in event_ids]
        found = await self._voids.find({"_id": {"$in": ids}}, limit=len(ids)) if ids else []
        return {void.event: void.recorded_at for void in found}
