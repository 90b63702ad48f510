"""Generations of a view group: create one, let it serve when it is complete, drop the one before. Any worker may do each step, again and again."""

from collections.abc import Callable

import msgspec

from guerdon.clock import Clock
from guerdon.database import Database, DuplicateKeyError
from guerdon.projections.applying import encode, take_over
from guerdon.projections.models import PARTITIONS, ViewGroup
from guerdon.projections.positions import GENERATIONS, POSITIONS, Generation, Generations, Position
from guerdon.projections.scan import Scan

DROP_PAGE = 1_000
DROP_AFTER_MS = 10_000
"""Time from the end of serving to the first deletion. Readers know the serving generation for at most a second."""
FOREIGN_AFTER_MS = 3_600_000
"""The same for a generation of an older definition, which processes of the release before still read during a roll-out."""


class GenerationStore:
    """Generations of one view group in the database."""

    def __init__(self, database: Database, group: ViewGroup, clock: Clock) -> None:
        self._database = database
        self._group = group
        self._clock = clock
        self._rows = database.collection(GENERATIONS, Generations)
        self._positions = database.collection(POSITIONS, Position)

    async def read(self) -> Generations:
        return await self._rows.get(self._group.name) or Generations(id=self._group.name)

    async def positions(self, version: int) -> list[Position]:
        """Return the positions of a generation that exist, by partition."""
        where = {"_id": {"$gt": f"{self._group.name}@{version}/", "$lt": f"{self._group.name}@{version}0"}}
        return sorted(await self._positions.find(where, limit=PARTITIONS), key=lambda position: position.part)

    async def ensure(self) -> Generations:
        """Return the generations. The first one is created, and one for a definition that is newer than all of them."""
        found = await self.read()
        if all(each.definition < self._group.definition for each in found.generations):
            found = await self._change(self._with_new)
        return found

    async def rebuild(self) -> Generation:
        """Return the generation that is being built. It is created if there is none."""

        def change(found: Generations) -> Generations:
            return found if self._own_building(found) else self._with_new(found)

        building = self._own_building(await self._change(change))
        assert building is not None
        return building

    async def tend(self) -> int:
        """Create a missing generation, switch to a complete one, and drop rows of an old one. Return the number of steps."""
        found = await self.ensure()
        building = self._own_building(found)
        if building is not None and await self.switch(building.version):
            return 1
        for each in found.generations:
            if each.state == "dropping" and await self._is_due(each):
                return await self._drop(each.version)
        return 0

    async def switch(self, version: int) -> bool:
        """Let a generation serve if it is complete and not behind the one that serves; return True if it does."""
        found = await self.read()
        new = await self.positions(version)
        if len(new) < PARTITIONS or any(position.at == 0 or position.phase != "stream" for position in new):
            return False
        serving = found.serving()
        old = [] if serving is None else await self.positions(serving.version)
        # A faulted partition of the old generation does not move: the new one must not wait for more than it has.
        at = {position.part: position.at for position in old}
        if any(position.at < at.get(position.part, 0) for position in new):
            return False
        now_ms = await self._now_ms()

        def change(found: Generations) -> Generations:
            def changed(each: Generation) -> Generation:
                if each.version == version:
                    return msgspec.structs.replace(each, state="serving", switched_at=now_ms)
                if each.state == "serving" or (each.state == "building" and each.definition <= self._group.definition):
                    return msgspec.structs.replace(each, state="dropping", switched_at=now_ms)
                return each

            return msgspec.structs.replace(found, generations=tuple(map(changed, found.generations)))

        await self._change(change)
        return True

    async def _is_due(self, old: Generation) -> bool:
        wait_ms = DROP_AFTER_MS if old.definition == self._group.definition else FOREIGN_AFTER_MS
        return await self._now_ms() >= old.switched_at + wait_ms

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

    def _with_new(self, found: Generations) -> Generations:
        version = found.newest + 1
        new = Generation(version=version, definition=self._group.definition, created_at=self._clock.now_ms())
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

    async def _now_ms(self) -> int:
        """Return the time of the database in milliseconds, which a simulated clock does not move."""
        hello = await self._database.client.admin.command("hello")
        return int(hello["localTime"].timestamp() * 1000)


async def bring_up_to_date(database: Database, group: ViewGroup, clock: Clock, *, holder: str) -> int:
    """Apply every document that is missing in the views, and let them serve; return the version.

    The positions are taken over, so a projector that runs meanwhile starts again from them.

    Raises:
        Stopped: a document cannot be applied.
    """
    store = GenerationStore(database, group, clock)
    found = await store.ensure()
    generation = found.building() or found.serving()
    assert generation is not None
    positions = [await take_over(database, group.name, generation.version, part, holder=holder) for part in range(PARTITIONS)]
    await Scan(database, group, [scan_again(position) for position in positions]).run()
    if generation.state == "building":
        await store.switch(generation.version)
    return generation.version


def scan_again(position: Position) -> Position:
    """Return a position from which a scan begins at the first subject."""
    return msgspec.structs.replace(position, phase="scan", source=0, after="", start=0, scans=position.scans + 1)
