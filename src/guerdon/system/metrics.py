"""Prometheus metrics. Labels are methods, route templates and statuses: no ids, no paths, no personal data."""

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from guerdon.clock_sync import ClockSync
from guerdon.ledger.service import Ledger
from guerdon.read_cache.service import RESULTS, ReadCache
from guerdon.read_cache.store import CopyStore

BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Metrics of one process. With several workers, each scrape reads one of them (see docs/operations.md)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self._requests = Counter("guerdon_http_requests", "Requests answered.", names, registry=self._registry)
        self._seconds = Histogram(
            "guerdon_http_request_seconds",
            "Time from the first byte to the answer.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def watch(self, ledger: Ledger, clock_sync: ClockSync | None, read_cache: ReadCache) -> None:
        """Export the counters of the ledger, of the read cache if there is one, and the difference of the clocks if one follows the database."""
        self._registry.register(_LedgerCollector(ledger))
        if read_cache.store is not None:
            self._registry.register(_ReadCacheCollector(read_cache, read_cache.store))
        if clock_sync is not None:
            self._registry.register(_ClockCollector(clock_sync))

    def register(self, collector: Collector) -> None:
        """Export further metrics."""
        self._registry.register(collector)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. Labelled children are kept, because looking one up costs more than counting."""
        child = self._children.get((method, route, status))
        if child is None:
            child = (self._requests.labels(method, route, str(status)), self._seconds.labels(method, route))
            self._children[method, route, status] = child
        child[0].inc()
        child[1].observe(seconds)

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)


class _LedgerCollector(Collector):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        stats = self._ledger.stats
        yield CounterMetricFamily("guerdon_ledger_commands", "Commands decided.", value=stats.commands)
        yield CounterMetricFamily("guerdon_ledger_batches", "Commits and refusal-only batches.", value=stats.batches)
        yield CounterMetricFamily("guerdon_ledger_conflicts", "Batches read again after losing a race.", value=stats.conflicts)
        yield GaugeMetricFamily("guerdon_ledger_queued", "Commands waiting for a commit.", value=stats.queued)
        yield GaugeMetricFamily("guerdon_ledger_in_flight", "Batches being committed.", value=stats.in_flight)


class _ReadCacheCollector(Collector):
    def __init__(self, cache: ReadCache, store: CopyStore) -> None:
        self._cache = cache
        self._store = store

    def collect(self) -> Iterator[Metric]:
        reads = CounterMetricFamily("guerdon_read_cache_reads", "Reads of a wallet, by what became of its copy.", labels=["result"])
        for result in RESULTS:
            reads.add_metric([result], self._cache.results[result])
        yield reads
        copies = CounterMetricFamily("guerdon_read_cache_copies", "Copies for the store.", labels=["result"])
        copies.add_metric(["written"], self._store.written)
        copies.add_metric(["dropped"], self._store.dropped)
        yield copies
        yield CounterMetricFamily("guerdon_read_cache_errors", "Exchanges with the store that failed.", value=self._store.errors)
        yield CounterMetricFamily(
            "guerdon_read_cache_refused", "Reads refused because too many waited for the database.", value=self._cache.refused
        )
        breaker = self._store.breaker
        yield GaugeMetricFamily(
            "guerdon_read_cache_breaker_open",
            "1 while the store is not asked because it failed.",
            value=int(breaker.state == "open"),
        )


class _ClockCollector(Collector):
    def __init__(self, clock_sync: ClockSync) -> None:
        self._clock_sync = clock_sync

    def collect(self) -> Iterator[Metric]:
        sync = self._clock_sync
        yield GaugeMetricFamily(
            "guerdon_clock_skew_seconds", "Time of the machine minus time of the database.", value=sync.skew_ms / 1000
        )
        yield CounterMetricFamily(
            "guerdon_clock_skewed_measurements", "Measurements that found too large a difference.", value=sync.skewed_measurements
        )
