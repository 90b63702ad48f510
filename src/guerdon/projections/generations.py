"""Generations of a view group: create one, let it serve when it is complete, drop the one before. Any worker may do each step, again and again."""

from collections.abc import Callable
from typing import Any

import msgspec

from guerdon.clock import Clock
from guerdon.database import Database, DuplicateKeyError
from guerdon.projections.applying import encode, take_over
from guerdon.projections.models import PARTITIONS, ViewGroup
from guerdon.projections.positions import GENERATIONS, POSITIONS, Generation, Generations, ViewPosition
from guerdon.projections.scan import Scan

DROP_PAGE = 1_000
DROP_AFTER_MS = 10_000
"""Time from the end of serving to the first deletion. Readers know the serving generation for at most a second."""
RETIRE_AFTER_MS = 3_600_000
"""Time for which a generation of an older definition goes on serving the processes of an earlier release during a roll-out."""


class GenerationStore:
    """Generations of one view group in the database."""

    def __init__(self, database: Database, group: ViewGroup, clock: Clock) -> None:
        self._database = database
        self._group = group
        self._clock = clock
        self._rows = database.collection(GENERATIONS, Generations)
        self._positions = database.collection(POSITIONS, ViewPosition)

    async def read(self) -> Generations:
        return await self._rows.get(self._group.name) or Generations(id=self._group.name)

    async def positions(self, version: int) -> list[ViewPosition]:
        """Return the positions of a generation that exist, by partition."""
        where = {"_id": {"$gt": f"{self._group.name}@{version}/", "$lt": f"{self._group.name}@{version}0"}}
        return sorted(await self._positions.find(where, limit=PARTITIONS), key=lambda position: position.part)

    async def ensure(self) -> Generations:
        """Return the generations. The first one is created, and one for a definition that is newer than all of them."""
        now_ms = await self.now_ms()

        def change(found: Generations) -> Generations:
            missing = all(each.definition < self._group.definition for each in found.generations)
            return self._with_new(found, now_ms) if missing else found

        return await self._change(change)

    async def rebuild(self, *, waits: bool = False) -> Generation:
        """Return the generation that is being built. It is created if it does not exist. With `waits` it serves only after `approve`."""
        now_ms = await self.now_ms()

        def change(found: Generations) -> Generations:
            found = found if self._own_building(found) else self._with_new(found, now_ms)
            building = self._own_building(found)
            assert building is not None
            return _replaced(found, building.version, waits=waits)

        building = self._own_building(await self._change(change))
        assert building is not None
        return building

    async def approve(self, version: int) -> None:
        """Let a generation serve as soon as it is complete."""
        await self._change(lambda found: _replaced(found, version, waits=False))

    async def reject(self, version: int) -> None:
        """Drop a generation that does not serve."""
        now_ms = await self.now_ms()
        await self._change(lambda found: _replaced(found, version, state="dropping", switched_at=now_ms))

    async def tend(self) -> int:
        """Create a missing generation, switch to a complete one, and drop rows of an old one. Return the number of steps."""
        found = await self.ensure()
        building = self._own_building(found)
        if building is not None and not building.waits and await self.switch(building.version):
            return 1
        now_ms = await self.now_ms()
        await self._retire(found, now_ms)
        for each in found.generations:
            if each.state == "dropping" and now_ms >= each.switched_at + DROP_AFTER_MS:
                return await self._drop(each.version)
        return 0

    async def switch(self, version: int) -> bool:
        """Let a generation serve if it is complete and not behind the one that serves; return True if it does."""
        if not await self.is_complete(version):
            return False
        now_ms = await self.now_ms()

        def changed(each: Generation) -> Generation:
            if each.version == version:
                return msgspec.structs.replace(each, state="serving", switched_at=now_ms)
            if each.definition == self._group.definition and each.state != "dropping":
                return msgspec.structs.replace(each, state="dropping", switched_at=now_ms)
            return each

        await self._change(lambda found: msgspec.structs.replace(found, generations=tuple(map(changed, found.generations))))
        return True

    async def is_complete(self, version: int) -> bool:
        """Return True if a generation is built and is not behind the one that serves."""
        serving = (await self.read()).serving()
        old = [] if serving is None else await self.positions(serving.version)
        new = await self.positions(version)
        if len(new) < PARTITIONS or any(position.at == 0 or position.phase != "stream" for position in new):
            return False
        at = {position.part: position.at for position in old}
        return all(position.at >= at.get(position.part, 0) for position in new)

    async def _retire(self, found: Generations, now_ms: int) -> None:
        """Drop generations of older definitions that processes of an earlier release have read during a roll-out."""
        serving = found.serving()
        if serving is None or now_ms < serving.switched_at + RETIRE_AFTER_MS:
            return
        newest = serving

        def changed(each: Generation) -> Generation:
            if each.definition < newest.definition and each.state != "dropping":
                return msgspec.structs.replace(each, state="dropping", switched_at=now_ms)
            return each

        await self._change(lambda found: msgspec.structs.replace(found, generations=tuple(map(changed, found.generations))))

    async def _drop(self, version: int) -> int:
        """Delete a page of rows of each collection; at the end the positions, and the generation from the list."""
        collections = {source.states for source in self._group.sources} | {each.collection for each in self._group.aggregates}
        where = {"_id": {"$gte": f"{version}|", "$lt": f"{version}}}"}}
        deleted = 0
        for name in sorted(collections):
            rows = self._database.raw[name]
            while ids := [row["_id"] async for row in rows.find(where, {"_id": 1}, limit=DROP_PAGE).sort("_id")]:
                deleted += (await rows.delete_many({"_id": {"$in": ids}})).deleted_count
        await self._database.raw[POSITIONS].delete_many(
            {"_id": {"$gt": f"{self._group.name}@{version}/", "$lt": f"{self._group.name}@{version}0"}}
        )

        def change(found: Generations) -> Generations:
            left = tuple(each for each in found.generations if each.version != version)
            return msgspec.structs.replace(found, generations=left)

        await self._change(change)
        return deleted + 1

    def _own_building(self, found: Generations) -> Generation | None:
        building = found.building()
        return building if building is not None and building.definition == self._group.definition else None

    def _with_new(self, found: Generations, now_ms: int) -> Generations:
        version = found.newest + 1
        new = Generation(version=version, definition=self._group.definition, created_at=now_ms)
        return msgspec.structs.replace(found, newest=version, generations=(*found.generations, new))

    async def _change(self, change: Callable[[Generations], Generations]) -> Generations:
        """Change the document, which no other process may have changed since it was read; otherwise try again."""
        while True:
            found = await self.read()
            after = change(found)
            if after == found:
                return found
            after = msgspec.structs.replace(after, count=found.count + 1)
            if found.count == 0:
                try:
                    await self._rows.insert(after)
                    return after
                except DuplicateKeyError:
                    continue
            result = await self._rows.raw.replace_one({"_id": found.id, "count": found.count}, encode(after))
            if result.matched_count == 1:
                return after

    async def now_ms(self) -> int:
        """Return the time of the database in milliseconds, which a simulated clock does not move."""
        hello = await self._database.client.admin.command("hello")
        return int(hello["localTime"].timestamp() * 1000)


def _replaced(found: Generations, version: int, **fields: Any) -> Generations:
    changed = [msgspec.structs.replace(each, **fields) if each.version == version else each for each in found.generations]
    return msgspec.structs.replace(found, generations=tuple(changed))


async def bring_up_to_date(database: Database, group: ViewGroup, clock: Clock, *, holder: str) -> int:
    """Apply every document that is missing in the views, and let them serve; return the version.

    The positions are taken over, so a projector that runs meanwhile starts again from them.

    Raises:
        Stopped: a document cannot be applied.
    """
    store = GenerationStore(database, group, clock)
    found = await store.ensure()
    own = [each for each in found.generations if each.definition == group.definition and each.state != "dropping"]
    generation = own[-1]
    positions = [await take_over(database, group.name, generation.version, part, holder=holder) for part in range(PARTITIONS)]
    await Scan(database, group, [scan_again(position) for position in positions]).run()
    if generation.state == "building":
        await store.switch(generation.version)
    return generation.version


def scan_again(position: ViewPosition) -> ViewPosition:
    """Return a position from which a scan begins at the first subject."""
    return msgspec.structs.replace(position, phase="scan", source=0, after="", start=0, scans=position.scans + 1)
