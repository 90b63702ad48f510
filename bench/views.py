"""`python -m bench.views`: speed of the views: build by scan, following, lag, and what the projector costs the ledger.

The history is decided by the ledger's rules and written in bulk. One `guerdon worker --pool views` builds the views, then follows what one
`guerdon serve` commits. At the end the views are compared with the entries.
"""

import argparse
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from pymongo import MongoClient, UpdateOne

from bench.deployment import Deployment
from bench.filling import ASSET, DAY_MS, Past, Writer, book, make_empty, movement
from bench.load import Plan
from bench.processes import BenchFailed, load
from bench.running import machine, run_in, say
from guerdon.clock import SystemClock
from guerdon.ids import IdSource
from guerdon.ledger.models import Account
from guerdon.ledger.store import ACCOUNTS, ENTRIES, encode
from guerdon.members.models import MEMBERS, Member
from guerdon.projections.positions import GENERATIONS, POSITIONS
from guerdon.views.models import ACCOUNT_STATES, DAYS
from guerdon.wallets.service import new_account

DATABASE = "guerdon"
YEARS = 2
BALANCE = 1_000_000
WAIT_SECONDS = 3_600.0
POLL_SECONDS = 0.02
LAG_CONNECTIONS = 8
TARGETS = {"rebuild": 20_000, "follow": 2_500, "lag": 2.0, "ledger": 0.85}


class Options(Struct, frozen=True):
    """Command line options."""

    wallets: int
    entries: int
    backlog: int
    seconds: float
    rounds: int
    cache_mib: int
    work_dir: Path | None


class Bench:
    """One run: the history, and the process of the projector."""

    def __init__(self, deployment: Deployment, options: Options, directory: Path) -> None:
        self._deployment = deployment
        self._options = options
        self._wallets_file = directory / "wallets.txt"
        self._accounts: list[Account] = []
        self._clock = Past(SystemClock().now_ms() - YEARS * 365 * DAY_MS)
        self._random = random.Random(2026)
        self._plans = self._workers = 0
        client: MongoClient[dict[str, Any]] = deployment.client
        self.raw = client[DATABASE]

    def fill(self) -> None:
        """Write members, wallets and their entries, spread over two years."""
        make_empty(self._deployment.url, DATABASE)
        options, ids = self._options, IdSource(self._clock)
        writer = Writer(self._deployment.url, DATABASE)
        end_ms = SystemClock().now_ms()
        for number in range(options.wallets):
            member = Member(id=ids.new("mem"), created_at=self._clock.at_ms)
            account, entry = self._move(new_account(member.id, ASSET, self._clock.at_ms), "credit", BALANCE)
            writer.add(MEMBERS, encode(member))
            writer.add(ENTRIES, encode(entry))
            each = options.entries // options.wallets - 1
            started_ms = self._clock.at_ms
            for step in range(each):
                self._clock.at_ms = started_ms + (end_ms - started_ms) * (step + 1) // (each + 1)
                account, entry = self._move(account, *self._change())
                writer.add(ENTRIES, encode(entry))
            writer.add(ACCOUNTS, encode(account))
            self._accounts.append(account)
            self._clock.at_ms = end_ms - (options.wallets - number) * YEARS * 365 * DAY_MS // options.wallets
        writer.close()
        self._clock.at_ms = end_ms
        self._wallets_file.write_text("\n".join(account.id for account in self._accounts), encoding="ascii")

    def write_backlog(self) -> int:
        """Write entries of random wallets, as the ledger does in batches of 500; return their number."""
        left = self._options.backlog
        while left > 0:
            entries: list[dict[str, Any]] = []
            moved: dict[str, Account] = {}
            for index in self._random.sample(range(len(self._accounts)), min(500, left, len(self._accounts))):
                self._accounts[index], entry = self._move(self._accounts[index], *self._change())
                moved[self._accounts[index].id] = self._accounts[index]
                entries.append(encode(entry))
            with self._deployment.client.start_session() as session, session.start_transaction():
                self.raw[ENTRIES].insert_many(entries, session=session)
                updates = [UpdateOne({"_id": name}, {"$set": encode(account)}) for name, account in moved.items()]
                self.raw[ACCOUNTS].bulk_write(updates, session=session)
            left -= len(entries)
        return self._options.backlog

    def _move(self, account: Account, kind: str, amount: int) -> tuple[Account, Any]:
        key = f"{account.id}-{account.seq}"
        return book(account, movement(account.id, kind, amount, key), self._clock.at_ms)

    def _change(self) -> tuple[str, int]:
        return ("credit" if self._random.random() < 0.6 else "debit", self._random.randrange(1, 1_000))

    @contextmanager
    def projecting(self) -> Generator[subprocess.Popen[bytes]]:
        """Run a worker of the pool `views` meanwhile."""
        self._workers += 1
        settings = {"GUERDON_MONGODB_URL": self._deployment.url, "GUERDON_MONGODB_DATABASE": DATABASE}
        arguments = ("-m", "guerdon", "worker", "--pool", "views")
        worker = self._deployment.processes.spawn(f"worker {self._workers}", *arguments, **settings)
        try:
            yield worker
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(30)

    def wait(self, condition: Callable[[], bool]) -> float:
        """Wait until the condition holds; return the time of the monotonic clock."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise BenchFailed(f"the views do not arrive\n{self._deployment.processes.log_tail(f'worker {self._workers}')}")
            time.sleep(POLL_SECONDS)
        return time.monotonic()

    def version(self) -> int:
        row = self.raw[GENERATIONS].find_one({"_id": "books"}) or {"generations": []}
        return max((each["version"] for each in row["generations"] if each["state"] == "serving"), default=0)

    def applied(self) -> int:
        """Return the number of entries in the views that serve."""
        group = {"_id": None, "count": {"$sum": "$count"}}
        rows = list(self.raw[DAYS.collection].aggregate([{"$match": {"version": self.version()}}, {"$group": group}]))
        return int(rows[0]["count"]) if rows else 0

    def stored(self) -> int:
        return self.raw[ENTRIES].estimated_document_count()

    def build(self) -> float:
        """Build the views; return entries per second from the first position to the switch."""
        with self.projecting():
            started = self.wait(lambda: self.raw[POSITIONS].find_one({"group": "books"}) is not None)
            ended = self.wait(lambda: self.version() > 0)
        return self.stored() / (ended - started)

    def follow(self) -> float:
        """Let a worker read a backlog from the stream; return entries per second."""
        backlog = self.write_backlog()
        before = self.applied()
        with self.projecting():
            started = self.wait(lambda: self.applied() > before)
            first = self.applied() - before
            ended = self.wait(lambda: self.applied() >= before + backlog)
        return (backlog - first) / (ended - started)

    def lag(self, port: int, token: str) -> tuple[float, float, float]:
        """Measure how long entries take to arrive under load; return debits per second, and the median and 99th percentile in seconds."""
        written: list[tuple[float, int]] = []
        seen: list[tuple[float, int]] = []
        plan = self._plan(port, token, LAG_CONNECTIONS)
        with self.projecting():
            self.wait(lambda: self.applied() >= self.stored())
            began = time.monotonic()
            with ThreadPoolExecutor(1) as threads:
                generator = threads.submit(load, plan)
                while not generator.done():
                    written.append((time.monotonic(), self.stored()))
                    seen.append((time.monotonic(), self.applied()))
                    time.sleep(POLL_SECONDS)
            sample = generator.result()
        lags = sorted(lags_of(written, [each for each in seen if each[0] > began + plan.warmup_seconds]))
        return sample.units / sample.seconds, statistics.median(lags), lags[int(len(lags) * 0.99)]

    def ledger(self, port: int, token: str) -> tuple[float, float]:
        """Measure debits per second without and with a projector, in turn."""
        rates: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * self._options.rounds):
            projected = number % 4 in {1, 2}
            if projected:
                with self.projecting():
                    self.wait(lambda: self.applied() >= self.stored())
                    rates[True].append(self._rate(port, token))
            else:
                rates[False].append(self._rate(port, token))
            say(f"{rates[projected][-1]:,.0f} debits/s {'with' if projected else 'without'} a projector")
        return statistics.median(rates[False]), statistics.median(rates[True])

    def check(self) -> str:
        """Let the views arrive, and compare them with the accounts.

        Raises:
            BenchFailed: A state differs, or a document was applied twice.
        """
        with self.projecting():
            self.wait(lambda: self.applied() >= self.stored())
        version = self.version()
        accounts = {f"{version}|{row['_id']}": (row["seq"], row["balance"]) for row in self.raw[ACCOUNTS].find()}
        states = {row["_id"]: (row["seq"], row.get("balance", 0)) for row in self.raw[ACCOUNT_STATES].find({"version": version})}
        applied = sum(row["applied"] for row in self.raw[POSITIONS].find({"version": version}))
        if accounts != states or applied != self.raw[ENTRIES].count_documents({}):
            raise BenchFailed("the views differ from the entries")
        return f"every account of the views equals the ledger's, and {applied:,} documents were applied once each"

    def _rate(self, port: int, token: str) -> float:
        sample = load(self._plan(port, token, 64))
        if sample.errors or not sample.units:
            raise BenchFailed(f"errors {sample.errors}\n{self._deployment.processes.log_tail(DATABASE)}")
        return sample.units / sample.seconds

    def _plan(self, port: int, token: str, connections: int) -> Plan:
        self._plans += 1
        return Plan(
            port=port,
            token=token,
            wallets_file=str(self._wallets_file),
            kind="debit",
            connections=connections,
            seconds=self._options.seconds,
            tag=f"v{self._plans}",
        )


def lags_of(written: Sequence[tuple[float, int]], seen: Sequence[tuple[float, int]]) -> list[float]:
    """Return for each time at which the views were read how long the oldest entry that was missing had been stored."""
    found: list[float] = []
    index = 0
    for at, count in seen:
        while index < len(written) and written[index][1] <= count:
            index += 1
        found.append(max(0.0, at - written[index][0]) if index < len(written) else 0.0)
    return found


def main() -> None:
    """Run and print; exit with 1 if the views differ from the entries."""
    options = parse()
    run_in(options.work_dir, lambda directory: run(options, directory))


def run(options: Options, directory: Path) -> None:
    """Do the whole run inside a temporary directory."""
    started, facts = time.monotonic(), machine()
    rows: list[tuple[str, str, str, bool]] = []

    def add(what: str, figure: str, target: str, *, reached: bool) -> None:
        say(f"{what}: {figure}")
        rows.append((what, figure, target, reached))

    with Deployment(directory, options.cache_mib) as deployment:
        bench = Bench(deployment, options, directory)
        bench.fill()
        say(f"{bench.stored():,} entries in {time.monotonic() - started:.0f} s")
        rate = bench.build()
        add("build by scan, entries/s", f"{rate:,.0f}", f"≥ {TARGETS['rebuild']:,}", reached=rate >= TARGETS["rebuild"])
        rate = bench.follow()
        add("follow the stream, entries/s", f"{rate:,.0f}", f"≥ {TARGETS['follow']:,}", reached=rate >= TARGETS["follow"])
        if options.rounds:
            target = deployment.serve(DATABASE, "wallets:write")
            debits, median, late = bench.lag(target.port, target.token)
            lag = f"{median:.2f} and {late:.2f} at {debits:,.0f} debits/s"
            add("lag, median and p99, seconds", lag, f"p99 ≤ {TARGETS['lag']:g}", reached=late <= TARGETS["lag"])
            without, beside = bench.ledger(target.port, target.token)
            ratio = beside / without
            figure = f"{beside:,.0f} of {without:,.0f} debits/s: {ratio:.2f}x"
            add("ledger with a projector", figure, f"≥ {TARGETS['ledger']:g}x", reached=ratio >= TARGETS["ledger"])
        facts["checked"] = bench.check()
    facts["took"] = f"{time.monotonic() - started:.0f} s in all; {options.wallets:,} wallets"
    print("| what | figure | target | |\n|---|--:|---|---|")
    for what, figure, goal, reached in rows:
        print(f"| {what} | {figure} | {goal} | {'reached' if reached else '**missed**'} |")
    print("\n".join(["", *(f"- {fact}" for fact in facts.values())]))


def parse() -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.views", description=__doc__)
    parser.add_argument("--wallets", type=int, default=100_000, help="number of wallets (default 100000)")
    parser.add_argument("--entries", type=int, default=1_000_000, help="number of entries to build from (default 1000000)")
    parser.add_argument("--backlog", type=int, default=50_000, help="entries that the stream is followed over (default 50000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of each load (default 8)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds with and without a projector; 0: no load (default 4)")
    parser.add_argument("--cache-mib", type=int, default=256, help="cache of mongod (default 256, as `guerdon up` starts it)")
    parser.add_argument("--dir", type=Path, help="where to make the temporary directory")
    given = parser.parse_args()
    if not 1 <= given.wallets <= given.entries:
        parser.error("--wallets takes 1 to the number of entries")
    return Options(given.wallets, given.entries, given.backlog, given.seconds, given.rounds, given.cache_mib, given.dir)


if __name__ == "__main__":
    main()
