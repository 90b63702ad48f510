"""`python -m bench.large`: disk space of ten million wallets, and the speed of debits on them compared with ten thousand.

Both databases are in one mongod, each with its own `guerdon serve`, and are measured in turn. The wallets are decided by the ledger's
rules and written in bulk; only the debits use HTTP. The generator cannot hold ten million prebuilt requests, so it draws from a uniform
random sample of the wallets of the large database, and from all of the small one.
"""

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.books import Verified
from bench.deployment import Deployment
from bench.filling import DAY_MS, OPENING_BALANCE, SEED, Job, make_empty, open_wallets
from bench.load import Plan, Sample
from bench.processes import BenchFailed, Target, load
from bench.running import machine, run_in, say
from bench.table import Summary, summarise
from guerdon.clock import SystemClock
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.members.models import MEMBERS

LARGE, SMALL = "guerdon_large", "guerdon_small"
SMALL_WALLETS, SAMPLE_WALLETS = 10_000, 200_000
CONNECTIONS = 64
TARGET_RATIO = 0.8
YEARS = 2
"""Time over which the wallets were opened evenly; their ids begin with it."""
LOADERS = 2
PROVED = 6


class Options(Struct, frozen=True):
    """Command line options."""

    wallets: int
    seconds: float
    rounds: int
    cache_mib: int
    verify: bool
    work_dir: Path | None


class Disk(Struct, frozen=True):
    """Size of one collection of the large database, in bytes."""

    name: str
    documents: int
    bson: int
    data: int
    indexes: int

    def each(self, size_bytes: int) -> str:
        return f"{size_bytes / self.documents:,.0f}"


class Large:
    """One run: two databases, their wallets, and the acknowledged debits of each."""

    def __init__(self, deployment: Deployment, options: Options, directory: Path) -> None:
        self._deployment = deployment
        self._options = options
        self._directory = directory
        self._wallets: dict[str, list[str]] = {}
        self._count = {LARGE: options.wallets, SMALL: SMALL_WALLETS}
        self._plans = 0
        self.acknowledged: Counter[str] = Counter({LARGE: 0, SMALL: 0})

    def fill(self, database: str, loaders: int) -> None:
        """Open the wallets of one database and keep those that will be debited."""
        make_empty(self._deployment.url, database)
        count = self._count[database]
        sample = min(count, SAMPLE_WALLETS)
        now_ms = SystemClock().now_ms()
        span_ms = YEARS * 365 * DAY_MS // loaders
        jobs = [
            Job(
                url=self._deployment.url,
                database=database,
                wallets=count * (part + 1) // loaders - count * part // loaders,
                since_ms=now_ms - span_ms * (loaders - part),
                until_ms=now_ms - span_ms * (loaders - part - 1),
                sample=sample * (part + 1) // loaders - sample * part // loaders,
                sample_file=str(self._directory / f"{database}-{part}.txt"),
            )
            for part in range(loaders)
        ]
        self._wallets[database] = open_wallets(self._deployment.processes, jobs, database)
        self._wallets_file(database).write_text("\n".join(self._wallets[database]), encoding="ascii")

    def measure_disk(self) -> list[Disk]:
        """Return the sizes after a checkpoint of the storage engine, so that all data is in the files."""
        self._deployment.client.admin.command("fsync")
        database = self._deployment.client[LARGE]
        found: list[Disk] = []
        for name in (ACCOUNTS, MEMBERS, ENTRIES):
            stats: dict[str, Any] = database.command("collStats", name)
            found.append(Disk(name, stats["count"], stats["size"], stats["storageSize"], stats["totalIndexSize"]))
        return found

    def measure_speed(self) -> dict[str, Summary]:
        """Measure both in turn, with alternating order, so that a drift of the machine affects both."""
        targets = [self._deployment.serve(database, "wallets:write") for database in (LARGE, SMALL)]
        samples: dict[str, list[Sample]] = {LARGE: [], SMALL: []}
        for number in range(self._options.rounds):
            for target in targets if number % 2 == 0 else targets[::-1]:
                say(f"round {number + 1} of {self._options.rounds}, {target.name}")
                samples[target.name].append(sample := self._load(target))
                say(f"{sample.units / sample.seconds:,.0f} debits/s")
        return {name: summarise(each) for name, each in samples.items()}

    def check(self) -> list[str]:
        """Check both databases against the acknowledged debits, and verify wallets of the large one.

        Raises:
            BenchFailed: The number of units or entries is wrong, or a law of the ledger is broken.
        """
        for name, wallets in self._count.items():
            database = self._deployment.client[name]
            total = next(iter(database[ACCOUNTS].aggregate([{"$group": {"_id": None, "total": {"$sum": "$balance"}}}])))["total"]
            spent = wallets * OPENING_BALANCE - int(total)
            if spent != self.acknowledged[name]:
                raise BenchFailed(f"{name}: {self.acknowledged[name]} debits were acknowledged, the balances fell by {spent}")
            entries = database[ENTRIES].count_documents({})
            if entries != wallets + self.acknowledged[name]:
                raise BenchFailed(f"{name}: {entries} entries, {wallets} credits and {self.acknowledged[name]} debits")
        proved = self._choose()
        for wallet in proved:
            self._verify(LARGE, 1, "--account", wallet)
        whole = [SMALL, LARGE] if self._options.verify else [SMALL]
        entries = sum(self._verify(name, self._count[name]).entries for name in whole)
        fell = " and ".join(f"{self.acknowledged[name]:,} in {name}" for name in self._count)
        books = f"`guerdon verify` finds 0 violations in {' and '.join(whole)} ({entries:,} entries)"
        alone = "" if self._options.verify else f", nor in {len(proved)} random wallets of {LARGE}, each proved alone"
        return [f"acknowledged debits equal the fall of the balances: {fell}", books + alone]

    def _load(self, target: Target) -> Sample:
        self._plans += 1
        sample = load(
            Plan(
                port=target.port,
                token=target.token,
                wallets_file=str(self._wallets_file(target.name)),
                kind="debit",
                connections=CONNECTIONS,
                seconds=self._options.seconds,
                tag=f"l{self._plans}",
                warmup_seconds=min(1.0, self._options.seconds / 4),
                watch={"API": target.pids, "mongod": self._deployment.mongod_pids},
            )
        )
        self.acknowledged[target.name] += sample.done
        if sample.errors or not sample.units:
            log = self._deployment.processes.log_tail(target.name)
            raise BenchFailed(f"{target.name}: {sample.units} answers in the window, errors {sample.errors}\n{log}")
        return sample

    def _choose(self) -> list[str]:
        """Return random wallets of the large database; half of them were debited."""
        draw = random.Random(SEED)
        wallets = self._wallets[LARGE]
        some = draw.sample(wallets, min(len(wallets), 20_000))
        moved = self._deployment.client[LARGE][ACCOUNTS].find({"_id": {"$in": some}, "seq": {"$gt": 1}}, {"_id": 1})
        debited = [str(row["_id"]) for row in moved.limit(PROVED // 2)]
        return debited + draw.sample(wallets, PROVED - len(debited))

    def _verify(self, database: str, accounts: int, *arguments: str) -> Verified:
        verified = msgspec.json.decode(self._deployment.guerdon(database, "verify", "--json", *arguments), type=Verified)
        if verified.violations or verified.accounts != accounts:
            raise BenchFailed(f"the books of {database} are broken: {verified}")
        if accounts > 1 and verified.entries != accounts + self.acknowledged[database]:
            raise BenchFailed(f"{database}: {verified.entries} entries were verified")
        return verified

    def _wallets_file(self, database: str) -> Path:
        return self._directory / f"{database}.txt"


def main() -> None:
    """Run and print; exit with 1 if a response was wrong or the verification failed."""
    options = parse()
    run_in(options.work_dir, lambda directory: run(options, directory))


def run(options: Options, directory: Path) -> None:
    """Do the whole run inside a temporary directory."""
    started, facts = time.monotonic(), machine()
    with Deployment(directory, options.cache_mib) as deployment:
        large = Large(deployment, options, directory)
        large.fill(LARGE, LOADERS)
        filled = time.monotonic() - started
        large.fill(SMALL, 1)
        disk = large.measure_disk()
        speed = large.measure_speed()
        say("checking the books")
        checked = large.check()
        whole = sum(file.stat().st_size for file in (directory / "data" / "mongodb").rglob("*") if file.is_file())
    facts["generator"] = (
        f"The generator draws from a uniform random sample of {min(options.wallets, SAMPLE_WALLETS):,} of the {options.wallets:,} wallets"
        f" and from all {SMALL_WALLETS:,} of the small database; mongod has a cache of {options.cache_mib} MiB"
    )
    took = (
        f"{time.monotonic() - started:.0f} s in all, {filled:.0f} s of them for filling; {whole / 1e9:.1f} GB on disk at the end, "
    )
    facts["took"] = took + "with the small database, mongod's journal and its replication log"
    print(
        "\n".join([render_disk(disk), "", render_speed(speed, options), "", *(f"- {fact}" for fact in [*facts.values(), *checked])])
    )


def render_disk(disk: list[Disk]) -> str:
    """Return the first Markdown table: bytes per document, per wallet and per entry."""
    lines = ["| collection | documents | BSON, bytes each | data on disk | indexes on disk | in all |", "|---|" + "--:|" * 5]
    for each in disk:
        sizes = [each.each(size) for size in (each.bson, each.data, each.indexes, each.data + each.indexes)]
        lines.append("| " + " | ".join([f"`{each.name}`", f"{each.documents:,}", *sizes]) + " |")
    on_disk = {each.name: (each.data + each.indexes) / each.documents for each in disk}
    wallet = on_disk[ACCOUNTS] + on_disk[MEMBERS]
    lines += ["", f"On disk a wallet takes {wallet:,.0f} bytes with its member, and each entry {on_disk[ENTRIES]:,.0f}."]
    return "\n".join(lines)


def render_speed(speed: dict[str, Summary], options: Options) -> str:
    """Return the second Markdown table."""
    large, small = speed[LARGE], speed[SMALL]
    ratio = large.rate / small.rate
    target = f"≥ {TARGET_RATIO:g}x: {'reached' if ratio >= TARGET_RATIO else '**missed**'}"
    lines = [
        "| what | conn. | debits/s | p50 ms | p99 ms | ratio | target | CPU: generator, API, mongod |",
        "|---|" + "--:|" * 5 + "---|---|",
    ]
    for wallets, one, more in ((options.wallets, large, [f"{ratio:.2f}x", target]), (SMALL_WALLETS, small, ["", ""])):
        shares = ", ".join(f"{share:.0%}" for share in one.cpu.values())
        figures = [f"{one.rate:,.0f}", f"{one.p50_ms:,.1f}", f"{one.p99_ms:,.1f}"]
        lines.append("| " + " | ".join([f"single debits, {wallets:,} wallets", str(CONNECTIONS), *figures, *more, shares]) + " |")
    return "\n".join(lines)


def parse() -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m bench.large", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wallets", type=int, default=10_000_000, help="wallets in the large database (default 10000000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time for each round and database (default 8)")
    parser.add_argument("--rounds", type=int, default=4, help="how often both are measured (default 4)")
    parser.add_argument("--cache-mib", type=int, default=256, help="cache of mongod (default 256, as `guerdon up` starts it)")
    parser.add_argument("--verify", action="store_true", help="verify the large database as a whole at the end")
    parser.add_argument("--dir", type=Path, help="where to make the temporary directory; it decides which disk is filled")
    given = parser.parse_args()
    if not 1000 <= given.wallets <= 100_000_000:
        parser.error("--wallets takes 1000 to 100000000")
    if not 0.2 <= given.seconds <= 600:
        parser.error("--seconds takes 0.2 to 600")
    if not 1 <= given.rounds <= 100:
        parser.error("--rounds takes 1 to 100")
    return Options(given.wallets, given.seconds, given.rounds, given.cache_mib, given.verify, given.dir)


if __name__ == "__main__":
    main()
