"""The projector of one worker process: it builds the views of the partitions that it holds, and follows what is written."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from pymongo.errors import PyMongoError
from structlog.typing import FilteringBoundLogger

from guerdon.clock import Clock
from guerdon.database import Database, end_tasks
from guerdon.ids import IdSource
from guerdon.projections.applying import Fenced, commit, take_over
from guerdon.projections.batch import Batch
from guerdon.projections.following import Follower, Key
from guerdon.projections.generations import GenerationStore, scan_again
from guerdon.projections.models import ViewGroup
from guerdon.projections.partitions import LEASE_MS, PartitionLeases
from guerdon.projections.positions import Fault, ViewPosition
from guerdon.projections.scan import Scan, Stopped
from guerdon.projections.stream import HistoryLost, reading
from guerdon.workers.rules import pause_ms

ROUND_SECONDS, RETRY_MS = 0.5, 250
SCANS_MAX = 2
"""Maximum number of partitions that a worker scans at the same time."""
TEND_SECONDS, WARN_SECONDS, STALLED_SECONDS = 1.0, 60.0, 60.0


class Projector:
    """Keeps the views of one group up to date, together with the projectors of other workers."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        log: FilteringBoundLogger,
        group: ViewGroup,
        *,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self.holder = ids.new("vwr")
        self._database = database
        self._log = log
        self._group = group
        self._store = GenerationStore(database, group, clock)
        self._partitions = PartitionLeases(database, group.name, self.holder, log=log, lease_ms=lease_ms)
        self._positions: dict[Key, ViewPosition] = {}
        """Positions that this worker has taken over."""
        self._building: set[int] = set()
        """Versions that are being built."""
        self._scans: dict[Key, asyncio.Task[ViewPosition]] = {}
        self._follower: Follower | None = None
        self._following: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[int] | None = None
        self._retry_at: dict[Key, float] = {}
        self._tended_at = self._warned_at = 0.0

    @property
    def held(self) -> frozenset[int]:
        """Partitions that this worker holds."""
        return self._partitions.held

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set; then give the partitions back."""
        leasing = asyncio.create_task(self._partitions.run(), name="view-leases")
        errors = 0
        try:
            while not stopping.is_set():
                try:
                    await self._round()
                    errors = 0
                except Exception as error:  # Any error: the projector must go on, otherwise the views would never move again.
                    errors += 1
                    self._log.error("view_round_failed", group=self._group.name, exc_info=error)
                    await self._forget(list(self._positions))
                await self._pause(stopping, errors)
        finally:
            await self._forget(list(self._positions))
            if self._tending is not None:
                await end_tasks(self._tending)
            await end_tasks(leasing)
            await self._partitions.close()

    async def _pause(self, stopping: asyncio.Event, errors: int) -> None:
        """Wait for the next round: until something has ended or changed, or for a moment."""
        seconds = pause_ms(RETRY_MS, errors) / 1000 if errors else ROUND_SECONDS
        changed = self._partitions.changed
        waiting = {asyncio.create_task(stopping.wait()), asyncio.create_task(changed.wait())}
        others: set[asyncio.Task[object]] = {*self._scans.values(), *([self._following] if self._following else [])}
        try:
            await asyncio.wait({*waiting, *(others if not errors else ())}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*waiting)
        changed.clear()

    async def _round(self) -> None:
        await self._collect()
        await self._take_over_wanted()
        self._tend()
        self._start_scans()
        await self._restart_following()
        self._warn()

    # --- what has ended -----------------------------------------------------------------------------------------------

    async def _collect(self) -> None:
        """Take the results of scans and of the follower."""
        for key, scan in list(self._scans.items()):
            if scan.done():
                del self._scans[key]
                try:
                    self._positions[key] = scan.result()
                except (Fenced, PyMongoError) as error:
                    self._log.warning("view_position_lost", position=self._positions[key].id, cause=type(error).__name__)
                    await self._forget([key])
        if self._follower is not None:
            self._positions.update(self._follower.positions)
        if self._following is not None and self._following.done():
            following, self._following = self._following, None
            keys = [] if self._follower is None else list(self._follower.positions)
            self._follower = None
            try:
                following.result()
            except HistoryLost:
                self._log.error("view_history_lost", group=self._group.name, detail="the views catch up from the documents")
                for key in keys:
                    self._positions[key] = scan_again(self._positions[key])
            except (Fenced, PyMongoError) as error:
                self._log.warning("view_position_lost", group=self._group.name, cause=type(error).__name__)
                await self._forget(keys)
        for key, position in self._positions.items():
            if position.fault is None:
                self._retry_at.pop(key, None)
            elif position.phase == "faulted":
                self._retry_at.setdefault(key, _now() + pause_ms(RETRY_MS, position.failures) / 1000)

    async def _forget(self, keys: Iterable[Key]) -> None:
        """Stop work on positions. They are taken over again if this worker still holds their partitions."""
        gone = {key for key in keys if key in self._positions}
        scans = [self._scans.pop(key) for key in gone if key in self._scans]
        await end_tasks(*scans)
        if self._follower is not None and not gone.isdisjoint(self._follower.positions):
            await self._stop_following()
        for key in gone:
            del self._positions[key]
            self._retry_at.pop(key, None)

    async def _stop_following(self) -> None:
        """Stop between two transactions, so that the positions are known."""
        follower, following = self._follower, self._following
        self._follower = self._following = None
        if follower is None or following is None:
            return
        async with self._partitions.releasing:
            await end_tasks(following)
        if not following.cancelled() and (error := following.exception()) is not None:
            self._log.warning("view_position_lost", group=self._group.name, cause=type(error).__name__)
            for key in follower.positions:
                self._positions.pop(key, None)
        else:
            self._positions.update(follower.positions)

    # --- what is wanted -----------------------------------------------------------------------------------------------

    async def _take_over_wanted(self) -> None:
        found = await self._store.read()
        held = self._partitions.held
        own = [each for each in found.generations if each.definition == self._group.definition and each.state != "dropping"]
        self._building = {each.version for each in own if each.state == "building"}
        wanted = {(each.version, part) for each in own for part in held}
        await self._forget([key for key in self._positions if key not in wanted])
        for version, part in sorted(wanted - self._positions.keys()):
            position = await take_over(self._database, self._group.name, version, part, holder=self.holder)
            self._positions[version, part] = position

    def _tend(self) -> None:
        """Let the holder of the first partition create, switch and drop generations."""
        if self._tending is not None and self._tending.done():
            tending, self._tending = self._tending, None
            with suppress(PyMongoError):
                tending.result()
        if self._tending is None and 0 in self._partitions.held and _now() - self._tended_at >= TEND_SECONDS:
            self._tended_at = _now()
            self._tending = asyncio.create_task(self._store.tend())

    def _start_scans(self) -> None:
        for key, position in sorted(self._positions.items()):
            if len(self._scans) >= SCANS_MAX:
                return
            if position.phase == "faulted" and _now() >= self._retry_at.get(key, 0):
                self._positions[key] = scan_again(position)
                if self._follower is not None:
                    self._follower.drop(key)
            if self._positions[key].phase == "scan" and key not in self._scans:
                self._scans[key] = asyncio.create_task(self._scan(self._positions[key]), name=f"scan {position.id}")

    async def _scan(self, position: ViewPosition) -> ViewPosition:
        scan = Scan(self._database, self._group, [position])
        try:
            await scan.run()
        except Stopped as stopped:
            poison = stopped.poison
            self._log.error("view_faulted", position=position.id, document=poison.document, error=poison.error)
            known = position.fault is not None and position.fault.document == poison.document
            since = position.fault.since if known and position.fault else stopped.position.at_ms
            fault = Fault(document=poison.document, error=poison.error, since=since)
            fields = {"phase": "faulted", "fault": fault, "failures": position.failures + 1}
            [faulted] = await commit(self._database, [(Batch(self._group, stopped.position, {}), fields)])
            return faulted
        return scan.positions[position.part]

    async def _restart_following(self) -> None:
        """Open the stream again if the set of positions that follow it has changed."""
        scanning = {version for (version, _), position in self._positions.items() if position.phase == "scan"}
        # The partitions of a new generation join together: each change of the set reads a part of the stream again.
        ready = {
            key
            for key, position in self._positions.items()
            if position.phase == "stream" and not (key[0] in self._building and key[0] in scanning)
        }
        follower = self._follower
        followed: set[Key] = set()
        if follower is not None:
            followed = {key for key, position in follower.positions.items() if position.phase == "stream"}
        if ready == followed:
            return
        await self._stop_following()
        ready &= self._positions.keys()
        if ready:
            positions = [self._positions[key] for key in ready]
            follower = Follower(
                self._database, self._group, positions, holder=self.holder, lock=self._partitions.releasing, log=self._log
            )
            self._follower = follower
            self._following = asyncio.create_task(self._follow(follower), name="follow")

    async def _follow(self, follower: Follower) -> None:
        async with reading(self._database, self._group, follower.parts, follower.start) as reader:
            await follower.run(reader)

    def _warn(self) -> None:
        """Log positions that do not move, once a minute."""
        if _now() - self._warned_at < WARN_SECONDS:
            return
        stalled = [position for position in self._positions.values() if position.fault is not None]
        if stalled:
            self._warned_at = _now()
            for position in stalled:
                fault = position.fault
                assert fault is not None
                self._log.error("view_stalled", position=position.id, document=fault.document, error=fault.error)


def _now() -> float:
    return asyncio.get_running_loop().time()
