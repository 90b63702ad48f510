"""Reading of views in any process: the serving generation, sums of aggregates, and how far the views are."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from msgspec import Struct

from guerdon.clock import Clock
from guerdon.database import Database, Document
from guerdon.ledger.models import SYSTEM, entry_id, parse_location
from guerdon.ledger.store import ENTRIES
from guerdon.projections.applying import NOW_MS
from guerdon.projections.models import PARTITIONS, Aggregate, ViewGroup
from guerdon.projections.positions import GENERATIONS, POSITIONS, Generations, position_id

CACHE_SECONDS = 1.0
WAIT_SECONDS, POLL_SECONDS = 2.0, 0.02
T = TypeVar("T", bound=Struct)

ViewState = Literal["current", "behind", "building", "faulted"]
CURRENT_SECONDS = 10.0
"""Age up to which views are `current`."""


class Freshness(Struct, frozen=True):
    """Progress of the views. Every change that was committed before `as_of` is in them."""

    view_version: int
    """Generation that is read; 0 before the first one is complete."""
    state: ViewState
    """`current`; `behind`: older than ten seconds, or no worker has built them; `building`: the first build runs; `faulted`: a partition stopped."""
    as_of: int | None
    """Milliseconds by the clock of the process; None if the views have never been complete."""
    behind_seconds: float | None
    """Age of `as_of` when it was asked for."""


class Views:
    """Views of one group, as they are read."""

    def __init__(self, database: Database, clock: Clock, group: ViewGroup) -> None:
        self._database = database
        self._clock = clock
        self.group = group
        self._known: tuple[float, int] | None = None
        self._pinned: int | None = None

    def at(self, version: int) -> "Views":
        """Return the views of one generation, which need not serve yet."""
        views = Views(self._database, self._clock, self.group)
        views._pinned = version
        return views

    async def version(self) -> int:
        """Return the generation to read, which may be known for up to a second; 0 if none is complete."""
        if self._pinned is not None:
            return self._pinned
        now = asyncio.get_running_loop().time()
        if self._known is not None and now - self._known[0] < CACHE_SECONDS and self._known[1]:
            return self._known[1]
        row = await self._database.collection(GENERATIONS, Generations).get(self.group.name)
        serving = (
            None
            if row is None
            else next(
                (
                    each
                    for each in reversed(row.generations)
                    if each.state == "serving" and each.definition == self.group.definition
                ),
                None,
            )
        )
        self._known = (now, 0 if serving is None else serving.version)
        return self._known[1]

    async def sums(
        self, aggregate: Aggregate, match: Mapping[str, Any] | None = None, by: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the sums of an aggregate over the rows that match, for each combination of the fields `by`, in their order.

        A result has the fields of `by` and of `aggregate.sums`. Without `by` there is exactly one result, of zeros if no row matches.
        """
        version = await self.version()
        group: Document = {"_id": {name: f"${name}" for name in by} or None}
        group.update({name: {"$sum": f"${name}"} for name in aggregate.sums})
        pipeline: list[Document] = [{"$match": {"version": version, **(match or {})}}, {"$group": group}]
        rows = await self._database.raw[aggregate.collection].aggregate(pipeline)
        found: list[dict[str, Any]] = []
        async for row in rows:
            key: dict[str, Any] = row.pop("_id") or {}
            found.append({**key, **row})
        if not by and not found:
            return [dict.fromkeys(aggregate.sums, 0)]
        return sorted(found, key=lambda row: tuple(row[name] for name in by))

    async def find(
        self,
        collection: str,
        kind: type[T],
        match: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int,
    ) -> list[T]:
        """Return states of a source, or rows of an aggregate as a struct."""
        where = {"version": await self.version(), **(match or {})}
        return await self._database.collection(collection, kind).find(where, sort=sort, limit=limit)

    async def get(self, collection: str, kind: type[T], subject: str) -> T | None:
        """Return the state of a subject, or None."""
        return await self._database.collection(collection, kind).get(f"{await self.version()}|{subject}")

    async def freshness(self) -> Freshness:
        """Return how far the views are. Ask before the rows are read, so that `as_of` holds for them."""
        version = await self.version()
        ids = [position_id(self.group.name, version, part) for part in range(PARTITIONS)]
        rows = await self._database.raw[POSITIONS].aggregate(
            [
                {"$match": {"_id": {"$in": ids}}},
                {"$project": {"fault": 1, "at_ms": 1, "age_ms": {"$subtract": [NOW_MS, "$at_ms"]}}},
            ]
        )
        found = [row async for row in rows]
        if not version:
            return Freshness(0, await self._state_before_first(), None, None)
        # A position without a row is behind, not ahead.
        if len(found) < PARTITIONS or not all(row["at_ms"] for row in found):
            return Freshness(version, "behind", None, None)
        behind_ms = max(0, *(int(row["age_ms"]) for row in found))
        state: ViewState = "current" if behind_ms <= CURRENT_SECONDS * 1000 else "behind"
        if any(row.get("fault") for row in found):
            state = "faulted"
        return Freshness(version, state, self._clock.now_ms() - behind_ms, behind_ms / 1000)

    async def _state_before_first(self) -> ViewState:
        where = {"_id": {"$gt": f"{self.group.name}@", "$lt": f"{self.group.name}A"}}
        found = await self._database.raw[POSITIONS].find_one(where, {"phase": 1})
        return "behind" if found is None else "building"

    async def wait_for(self, transaction_id: str) -> bool:
        """Wait for up to two seconds until the views have the transaction; return True if they do.

        A text that names no transaction counts as one that the views do not have.
        """
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        missing = await self._entries_of(transaction_id)
        while missing:
            missing = [each for each in missing if not await self._has(*each)]
            if not missing:
                return True
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _entries_of(self, transaction_id: str) -> list[tuple[str, int]]:
        """Return (account, number) of the entries of a transaction; an empty list for an unknown transaction."""
        located = parse_location(transaction_id)
        if located is None:
            return []
        fields = {"counter": 1, "pair": 1, "sides": 1}
        row = await self._database.raw[ENTRIES].find_one({"_id": entry_id(*located)}, fields)
        if row is None:
            return []
        found = [located]
        if row.get("pair") is not None and not row["counter"].startswith(SYSTEM):
            found.append((row["counter"], int(row["pair"])))
        for side in row.get("sides") or ():
            account, _, number = side.rpartition("#")
            found.append((account, int(number)))
        return found

    async def _has(self, account: str, number: int) -> bool:
        """Return True if the views have an entry."""
        source = self.group.sources[0]
        version = await self.version()
        row = await self._database.raw[source.states].find_one({"_id": f"{version}|{account}"}, {source.watermark: 1})
        return row is not None and int(row.get(source.watermark, 0)) >= number
