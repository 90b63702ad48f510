"""State of the views for operators: lag, phases and faults of every partition, and the request for a rebuild."""

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pymongo.errors import OperationFailure

from guerdon.clock import Clock, optional_rfc3339, rfc3339
from guerdon.database import Database
from guerdon.errors import NotFound
from guerdon.projections.generations import GenerationStore
from guerdon.projections.models import PARTITIONS
from guerdon.projections.partitions import live_workers
from guerdon.projections.positions import VIEW_WORKERS, Fault, Generation, ViewPosition
from guerdon.projections.reading import Views, ViewState

REFRESH_SECONDS = 5.0
"""Interval at which an API process reads the state for its metrics."""


class FaultView(Struct, frozen=True):
    """Document that a partition cannot pass. The partition goes on when the cause is removed."""

    document: str
    """Id of the document."""
    error: str
    """Type of the error, and the place in the program that raised it."""
    since: str
    """Time of the stop, RFC 3339 in UTC."""
    attempts: int
    """Number of attempts so far. The pause between them grows to five minutes."""


class PartitionView(Struct, frozen=True):
    """Progress of one partition."""

    part: int
    """Number of the partition, from 0 to 15."""
    phase: Literal["missing", "scan", "stream", "faulted"]
    """`scan`: reads the documents; `stream`: follows what is written; `faulted`: a document stops it; `missing`: not begun."""
    behind_seconds: float | None
    """Age of the newest change up to which everything is applied; null before the first scan has ended."""
    heartbeat_age_seconds: float | None
    """Time since the worker last wrote the position; null if none has."""
    applied: int
    """Number of documents that were applied."""
    redelivered: int
    """Number of documents that arrived again and were passed over."""
    repaired: int
    """Number of documents that were missing in the stream and were read from their collection. It should stay 0."""
    scans: int
    """Number of scans after the first one: history was lost, or a fault was retried."""
    fault: FaultView | None
    """Fault, or null."""


class GenerationView(Struct, frozen=True):
    """One complete set of rows of the views."""

    version: int
    """Number of the generation."""
    definition: int
    """Version of what is derived."""
    state: Literal["building", "serving", "dropping"]
    """`serving`: it is read; `building`: it is built beside; `dropping`: its rows are being deleted."""
    created_at: str
    """Time of creation, RFC 3339 in UTC."""
    switched_at: str | None
    """Time at which it began to serve or stopped, RFC 3339 in UTC, or null."""
    applied: int
    """Number of documents that were applied in all partitions."""
    partitions: list[PartitionView]
    """Partitions by number; empty for rows that are being deleted."""


class ViewGroupView(Struct, frozen=True):
    """State of a group of views."""

    name: str
    """Name of the group."""
    state: ViewState
    """`current`; `behind`: older than ten seconds or never built; `building`: the first build runs; `faulted`: a partition is stopped."""
    view_version: int
    """Generation that is read; 0 before the first one is complete."""
    as_of: str | None
    """Every change committed before this time is included. RFC 3339 in UTC; null before the first build is complete."""
    behind_seconds: float | None
    """Age of `as_of`, or null."""
    workers: int
    """Number of workers that keep the views up to date."""
    oplog_window_seconds: int | None
    """Time that the replication log of the database reaches back; null if the user may not read it."""
    generations: list[GenerationView]
    """Generations, oldest first."""


class ViewGroupList(Struct, frozen=True):
    """All groups of views."""

    items: list[ViewGroupView]
    """Groups by name."""


class RebuildView(Struct, frozen=True):
    """Generation that is being built."""

    group: str
    """Name of the group."""
    view_version: int
    """Number of the new generation; reports name it when they are read from it."""
    created_at: str
    """Time at which the rebuild was asked for first, RFC 3339 in UTC."""


class ViewStatus:
    """State of one view group. The metrics show the state that was last read."""

    def __init__(self, database: Database, clock: Clock, views: Views) -> None:
        self._database = database
        self._views = views
        self._store = GenerationStore(database, views.group, clock)
        self.last: ViewGroupView | None = None

    async def refresh(self) -> None:
        """Read the state for the metrics."""
        self.last = await self.read()

    async def read(self) -> ViewGroupView:
        """Return the state now."""
        freshness = await self._views.freshness()
        now_ms = await self._store.now_ms()
        found = await self._store.read()
        positions = [[] if each.state == "dropping" else await self._store.positions(each.version) for each in found.generations]
        generations = [_view_generation(*pair, now_ms) for pair in zip(found.generations, positions, strict=True)]
        return ViewGroupView(
            name=self._views.group.name,
            state=freshness.state,
            view_version=freshness.view_version,
            as_of=optional_rfc3339(freshness.as_of),
            behind_seconds=freshness.behind_seconds,
            workers=await self._count_workers(),
            oplog_window_seconds=await self._oplog_window_seconds(),
            generations=generations,
        )

    async def rebuild(self, name: str) -> Generation:
        """Ask the workers for a new generation, unless one is being built; return it.

        Raises:
            NotFound: there is no such group.
        """
        if name != self._views.group.name:
            raise NotFound("there is no such group of views")
        return await self._store.rebuild()

    async def _count_workers(self) -> int:
        return len(await live_workers(self._database.raw[VIEW_WORKERS], self._views.group.name))

    async def _oplog_window_seconds(self) -> int | None:
        try:
            status = await self._database.client.admin.command({"serverStatus": 1, "oplog": 1, "metrics": 0, "wiredTiger": 0})
        except OperationFailure:
            return None
        oplog = status.get("oplog", {})
        if "earliestOptime" not in oplog or "latestOptime" not in oplog:
            return None
        return int(oplog["latestOptime"].time - oplog["earliestOptime"].time)


def _view_generation(generation: Generation, positions: Sequence[ViewPosition], now_ms: int) -> GenerationView:
    by_part = {position.part: position for position in positions}
    parts = range(PARTITIONS) if generation.state != "dropping" else ()
    return GenerationView(
        version=generation.version,
        definition=generation.definition,
        state=generation.state,
        created_at=rfc3339(generation.created_at),
        switched_at=rfc3339(generation.switched_at) if generation.switched_at else None,
        applied=sum(position.applied for position in positions),
        partitions=[_view_partition(part, by_part.get(part), now_ms) for part in parts],
    )


def _view_partition(part: int, position: ViewPosition | None, now_ms: int) -> PartitionView:
    if position is None:
        return PartitionView(part, "missing", None, None, 0, 0, 0, 0, None)
    return PartitionView(
        part=part,
        phase=position.phase,
        behind_seconds=max(0, now_ms - position.at_ms) / 1000 if position.at_ms else None,
        heartbeat_age_seconds=max(0, now_ms - position.heartbeat) / 1000 if position.heartbeat else None,
        applied=position.applied,
        redelivered=position.redelivered,
        repaired=position.repaired,
        scans=position.scans,
        fault=None if position.fault is None else _view_fault(position.fault, position.failures),
    )


def _view_fault(fault: Fault, attempts: int) -> FaultView:
    return FaultView(fault.document, fault.error, rfc3339(fault.since), attempts)


class ViewCollector(Collector):
    """Metrics of the views, from the state that was last read. Every API process exports the same values."""

    def __init__(self, status: ViewStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        state = self._status.last
        if state is None:
            return
        serving = next((each for each in state.generations if each.version == state.view_version), None)
        partitions = [] if serving is None else serving.partitions
        labels = (("view", state.name),)
        yield _gauge(
            "guerdon_view_state",
            "1 for the state of the views: current, behind, building or faulted.",
            (*labels, ("state", state.state)),
            1,
        )
        yield _gauge("guerdon_view_version", "Generation that is read.", labels, state.view_version)
        yield _gauge("guerdon_view_workers", "Workers that keep the views up to date.", labels, state.workers)
        if state.oplog_window_seconds is not None:
            yield _gauge(
                "guerdon_view_oplog_window_seconds", "Time that the oplog reaches back.", labels, state.oplog_window_seconds
            )
        lags = [each.behind_seconds for each in partitions if each.behind_seconds is not None]
        if lags:
            yield _gauge(
                "guerdon_view_lag_seconds", "Age of the newest complete change, of the slowest partition.", labels, max(lags)
            )
        faulted = [each.behind_seconds for each in partitions if each.fault is not None and each.behind_seconds is not None]
        yield _gauge(
            "guerdon_view_oldest_unapplied_seconds",
            "Age of the oldest change that a fault keeps out.",
            labels,
            max(faulted, default=0),
        )
        beats = [each.heartbeat_age_seconds for each in partitions if each.heartbeat_age_seconds is not None]
        if beats:
            yield _gauge("guerdon_view_heartbeat_age_seconds", "Time since the slowest position was written.", labels, max(beats))
        phases = GaugeMetricFamily(
            "guerdon_view_partitions", "Partitions of the serving generation by phase.", labels=["view", "phase"]
        )
        for phase in ("missing", "scan", "stream", "faulted"):
            phases.add_metric([state.name, phase], sum(each.phase == phase for each in partitions))
        yield phases
        for name in ("applied", "redelivered", "repaired", "scans"):
            counter = CounterMetricFamily(f"guerdon_view_{name}", f"See `{name}` of GET /v1/views.", labels=["view", "version"])
            for each in state.generations:
                counter.add_metric([state.name, str(each.version)], sum(getattr(part, name) for part in each.partitions))
            yield counter


def _gauge(name: str, text: str, labels: tuple[tuple[str, str], ...], value: float) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text, labels=[label for label, _ in labels])
    gauge.add_metric([value for _, value in labels], value)
    return gauge
