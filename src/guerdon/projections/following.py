"""Application of changes to the positions of this worker: the stream says when, the number of a document says whether."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from structlog.typing import FilteringBoundLogger

from guerdon.database import Database
from guerdon.projections.applying import NOW_MS, commit
from guerdon.projections.batch import Batch, Gap, Poison, States
from guerdon.projections.models import Range, Source, ViewGroup
from guerdon.projections.positions import POSITIONS, Fault, ViewPosition
from guerdon.projections.scan import read_ranges, read_states
from guerdon.projections.stream import Change, ChangeReader

HEARTBEAT_SECONDS = 1.0
"""Interval at which positions without changes are moved to the time up to which the stream is complete."""
STATES_MAX = 20_000
Key = tuple[int, int]
"""Version and partition of a position."""


class _Prepared(NamedTuple):
    batch: Batch
    fields: dict[str, Any]


class Follower:
    """Follows the stream for a set of positions. `positions` are the newest ones that were written; a faulted one no longer moves."""

    def __init__(
        self,
        database: Database,
        group: ViewGroup,
        positions: Iterable[ViewPosition],
        *,
        holder: str,
        lock: asyncio.Lock,
        log: FilteringBoundLogger,
    ) -> None:
        """`lock` is held while a transaction is written."""
        self._database = database
        self._group = group
        self.positions: dict[Key, ViewPosition] = {(each.version, each.part): each for each in positions}
        self._holder = holder
        self._lock = lock
        self._log = log
        self._states: dict[Key, States] = {key: {} for key in self.positions}
        """States that were read or derived. They are valid for as long as the positions are, because no other process changes them."""
        self._beaten_at = 0.0

    @property
    def start(self) -> int:
        """Cluster time from which the stream has to be read."""
        return min(position.at for position in self.positions.values())

    @property
    def parts(self) -> set[int]:
        """Partitions of the positions."""
        return {part for _, part in self.positions}

    def drop(self, key: Key) -> None:
        """Follow a position no longer, which another task continues."""
        self.positions.pop(key, None)

    async def run(self, reader: ChangeReader) -> None:
        """Apply changes until cancelled.

        Raises:
            HistoryLost: the stream cannot be continued.
            Fenced: another worker has taken a position over.
        """
        while True:
            pulled = await reader.pull()
            if pulled.changes:
                async with self._lock:
                    await self._apply(pulled.changes)
            await self._beat(pulled.time, pulled.at_ms)

    async def _apply(self, changes: list[Change]) -> None:
        by_part: defaultdict[int, list[Change]] = defaultdict(list)
        for change in changes:
            by_part[change.part].append(change)
        prepared: list[_Prepared] = []
        for key, position in list(self.positions.items()):
            if position.fault is None and key[1] in by_part:
                prepared.append(await self._prepare(key, position, by_part[key[1]]))
        written = [each for each in prepared if each.batch.applied or each.batch.redelivered or each.fields.get("fault")]
        if written:
            for position in await commit(self._database, written):
                self.positions[position.version, position.part] = position
                if position.fault is not None:
                    self._log.error(
                        "view_faulted", position=position.id, document=position.fault.document, error=position.fault.error
                    )

    async def _prepare(self, key: Key, position: ViewPosition, changes: list[Change]) -> _Prepared:
        """Fold the changes for one position; stop at a document that cannot be applied."""
        states = self._states[key]
        if len(states) > STATES_MAX:
            states.clear()
        await self._read_states(position.version, states, changes)
        batch = Batch(self._group, position, states)
        last = changes[-1]
        try:
            for change in changes:
                # Everything before `at` was applied. At `at` itself the number decides: a transaction may have been applied in part.
                if change.time < position.at:
                    batch.redelivered += 1
                else:
                    await self._add(batch, change)
        except Poison as poison:
            same = position.fault if position.fault and position.fault.document == poison.document else None
            fault = same or Fault(document=poison.document, error=poison.error, since=last.at_ms)
            if batch.broken:
                states.clear()
                batch = Batch(self._group, position, states)
            return _Prepared(batch, {"phase": "faulted", "fault": fault, "failures": position.failures + 1})
        return _Prepared(batch, {"at": max(position.at, last.time), "at_ms": max(position.at_ms, last.at_ms)})

    async def _add(self, batch: Batch, change: Change) -> None:
        source, feed, row = change.source, change.feed, change.row
        try:
            # A document without a number is older than the numbers: the scan has read it.
            batch.add(source, feed, row)
        except Gap as gap:
            await self._repair(batch, source, gap.missing)
            batch.fold(source, gap.missing.subject, feed.number_of(row), feed, row)

    async def _repair(self, batch: Batch, source: Source[Any], missing: Range) -> None:
        """Apply documents that the stream has not delivered. The gap of a source whose numbers are not dense is usually empty."""
        found = (await read_ranges(self._database, source, [missing])).get(missing.subject, [])
        if source.dense and len(found) != missing.upto - missing.after:
            raise Poison(f"{missing.subject} after {missing.after}", "a document is missing")
        for number, _, feed, row in found:
            batch.fold(source, missing.subject, number, feed, row)
        if found:
            batch.repaired += len(found)
            self._log.error("view_gap_repaired", position=batch.position.id, documents=len(found))

    async def _read_states(self, version: int, states: States, changes: list[Change]) -> None:
        unknown: dict[str, tuple[Source[Any], set[str]]] = {}
        for change in changes:
            subject = change.feed.subject_of(change.row)
            if (change.source.name, subject) not in states:
                unknown.setdefault(change.source.name, (change.source, set()))[1].add(subject)
        for source, subjects in unknown.values():
            states.update(await read_states(self._database, source, {version}, sorted(subjects)))

    async def _beat(self, time: int, at_ms: int) -> None:
        """Move all positions to a time up to which everything was applied, at most once a second."""
        now = asyncio.get_running_loop().time()
        if now - self._beaten_at < HEARTBEAT_SECONDS:
            return
        self._beaten_at = now
        behind = [each for each in self.positions.values() if each.fault is None]
        if not behind:
            return
        step = {"$set": {"at": {"$max": ["$at", time]}, "at_ms": {"$max": ["$at_ms", at_ms]}, "heartbeat": NOW_MS}}
        where = {"_id": {"$in": [each.id for each in behind]}, "holder": self._holder, "phase": "stream"}
        await self._database.raw[POSITIONS].update_many(where, [step])
        for each in behind:
            key = (each.version, each.part)
            if key in self.positions:
                self.positions[key] = msgspec.structs.replace(each, at=max(each.at, time), at_ms=max(each.at_ms, at_ms))
