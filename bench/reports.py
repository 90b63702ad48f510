"""`python -m bench.reports`: time of every report over views of a million entries and a hundred thousand members.

The entries and purchases are made up (awards that expire after a year, redemptions, expiry), folded by the rules of the views, and the rows are
written in bulk. Only the reports are measured, each as the registry makes it, one after another. Exit code 1: a report took longer than the
target, or its figures do not add up.
"""

import argparse
import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.deployment import Deployment
from bench.filling import ASSET, DAY_MS, SEED, Writer, make_empty
from bench.processes import BenchFailed
from bench.running import machine, run_in, say
from bench.table import percentile
from guerdon.access.token_keys import TokenKeys
from guerdon.calendar import Calendar, first_of_month
from guerdon.campaigns.domain import PURCHASE
from guerdon.clock import SystemClock, to_datetime
from guerdon.config import load
from guerdon.http.query import query_of
from guerdon.ledger.models import BREAKAGE, ISSUER, MERCHANT, entry_id
from guerdon.projections.batch import Batch
from guerdon.projections.models import PARTITIONS, Feed, Source, ViewGroup
from guerdon.projections.positions import GENERATIONS, POSITIONS, Generation, Generations, ViewPosition, position_id
from guerdon.reports.registry import ReportDefinition, describe_report
from guerdon.views.group import books_group
from guerdon.wiring.services import Services, open_services

DATABASE = "guerdon_reports"
TARGET_MS = 200
MONTHS, CAMPAIGNS, OFFERS = 24, 20, 10
LIFE_DAYS = 365
REPEATS = 20
Row = dict[str, Any]


class Options(Struct, frozen=True):
    """Command line options."""

    entries: int
    members: int
    cache_mib: int
    work_dir: Path | None


# --- data -----------------------------------------------------------------------------------------------------------


class Wallet:
    """One member's wallet while its entries are made up: lots by expiry, and the number of the newest entry."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.account = f"{owner}:{ASSET}"
        self.seq = self.balance = 0
        self.lots: dict[int, int] = {}

    def move(self, kind: str, counter: str, at: int, changes: dict[int, int], metadata: dict[str, str]) -> Row:
        """Return the stored entry that changes the lots with these expiry times."""
        for expires_at, change in changes.items():
            self.lots[expires_at] = self.lots.get(expires_at, 0) + change
            if not self.lots[expires_at]:
                del self.lots[expires_at]
        self.seq += 1
        amount = sum(changes.values())
        self.balance += amount
        return {
            "_id": entry_id(self.account, self.seq),
            "owner": self.owner,
            "asset": ASSET,
            "kind": kind,
            "amount": amount,
            "balance_after": self.balance,
            "held_after": 0,
            "counter": counter,
            "at": at,
            "metadata": metadata,
            "lots": [
                {"amount": change, "source": "promotional", "expires_at": expires_at} for expires_at, change in changes.items()
            ],
        }


def entries_of(wallet: Wallet, count: int, since_ms: int, until_ms: int, chance: random.Random) -> Iterator[Row]:
    """Yield the entries of a wallet in order of time: what has expired is written off first, and every third entry spends."""
    calendar = Calendar()
    times = sorted(chance.randrange(since_ms, until_ms) for _ in range(count))
    for number, at in enumerate(times):
        expired = {expires_at: -amount for expires_at, amount in wallet.lots.items() if expires_at <= at}
        if expired:
            yield wallet.move("expiry", BREAKAGE, at, expired, {})
        elif number % 3 == 2 and wallet.balance > 1:
            left, taken = chance.randrange(1, wallet.balance), dict[int, int]()
            for expires_at, amount in sorted(wallet.lots.items()):
                part = min(left, amount)
                left -= part
                if part:
                    taken[expires_at] = -part
            kind, metadata = ("redeem", {"offer": f"off_{chance.randrange(OFFERS)}"}) if number % 2 else ("debit", {})
            yield wallet.move(kind, MERCHANT, at, taken, metadata)
        else:
            metadata = {"campaign": f"cmp_{chance.randrange(CAMPAIGNS)}", "version": "1"}
            yield wallet.move("award", ISSUER, at, {calendar.end_of_day(at, LIFE_DAYS): chance.randrange(5, 500)}, metadata)


def purchases_of(owner: str, count: int, since_ms: int, until_ms: int, chance: random.Random) -> Iterator[Row]:
    """Yield recorded purchases of a member."""
    for number in range(1, count + 1):
        decision = {
            "campaign": f"cmp_{chance.randrange(CAMPAIGNS)}",
            "version": 1,
            "outcome": "awarded",
            "amount": 5,
            "reasons": [],
        }
        yield {
            "_id": f"{owner}-{number}",
            "owner": owner,
            "type": PURCHASE,
            "occurred_at": chance.randrange(since_ms, until_ms),
            "amount": chance.randrange(100, 20_000),
            "currency": "GBP",
            "decisions": [decision],
            "proof": {"number": number, "prev": ""},
        }


class Views:
    """The rows of the views, in one batch for each partition."""

    def __init__(self, group: ViewGroup) -> None:
        self._group = group
        positions = [
            ViewPosition(id=position_id(group.name, 1, part), group=group.name, version=1, part=part) for part in range(PARTITIONS)
        ]
        self._positions = positions
        self._batches = [Batch(group, position, {}) for position in positions]

    def add(self, source: Source[Any], feed: Feed, part: int, rows: Iterator[Row]) -> int:
        count = 0
        for row in rows:
            self._batches[part].fold(source, feed.subject_of(row), feed.number_of(row), feed, row)
            count += 1
        return count

    def write(self, writer: Writer, now_ms: int) -> int:
        """Write all rows; return their number."""
        count = 0
        for batch in self._batches:
            for collection, statements in batch.writes().items():
                for statement in statements:
                    change = statement["u"]
                    row = {"_id": statement["q"]["_id"], **change["$setOnInsert"], **change["$inc"]} if "$inc" in change else change
                    writer.add(collection, row)
                    count += 1
        serving = Generation(version=1, definition=self._group.definition, state="serving", created_at=now_ms, switched_at=now_ms)
        writer.add(GENERATIONS, msgspec.to_builtins(Generations(id=self._group.name, newest=1, generations=(serving,))))
        for position in self._positions:
            done = msgspec.structs.replace(position, phase="stream", at=now_ms // 1000 << 32, at_ms=now_ms, heartbeat=now_ms)
            writer.add(POSITIONS, msgspec.to_builtins(done))
        return count


def fill(options: Options, url: str) -> int:
    """Make up the entries and purchases, fold them, and write the views. Return the number of rows."""
    group, chance, now_ms = books_group(Calendar()), random.Random(SEED), SystemClock().now_ms()
    since_ms = now_ms - MONTHS * 30 * DAY_MS
    views, entries, events = Views(group), group.sources[0], group.sources[1]
    made, began = 0, time.monotonic()
    each = max(1, options.entries // options.members)
    for number in range(options.members):
        owner, part = f"mem_{number:032x}", number % PARTITIONS
        made += views.add(entries, entries.feeds[0], part, entries_of(Wallet(owner), each, since_ms, now_ms, chance))
        views.add(events, events.feeds[0], part, purchases_of(owner, max(1, each // 2), since_ms, now_ms, chance))
        if number % 20_000 == 0:
            say(f"{made:,} entries folded")
    say(f"{made:,} entries and {options.members * max(1, each // 2):,} purchases folded in {time.monotonic() - began:.0f} s")
    writer = Writer(url, DATABASE)
    rows = views.write(writer, now_ms)
    writer.close()
    say(f"{rows:,} rows written")
    return rows


# --- measurement ----------------------------------------------------------------------------------------------------


def queries_of(report: ReportDefinition, today: str, years: str, year: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (words, parameters) of the queries of a report that are measured."""
    names = {each.name: each for each in describe_report(report).parameters}
    own = {"asset": ASSET} if "asset" in names else {}
    if "from" not in names:
        yield "", own
        if "period" in names:
            for period in names["period"].values:
                yield period, {**own, "period": period}
        return
    yield "this month", own
    yield "ten years by month", {**own, "from": years, "to": today}
    if "group" in names:
        yield "a year by day", {**own, "from": year, "to": today, "group": "day"}


async def measure(services: Services) -> list[tuple[str, float, float]]:
    """Return (report and query, median, 95th percentile) in milliseconds of all reports."""
    today = to_datetime(services.clock.now_ms()).date() + timedelta(days=1)
    years = first_of_month(today, -119)
    ranges = (today.isoformat(), years.isoformat(), (today - timedelta(days=366)).isoformat())
    found: list[tuple[str, float, float]] = []
    for report in services.reports.list_reports():
        for words, parameters in queries_of(report, *ranges):
            query, times = query_of(parameters, report.query), list[int]()
            for _ in range(REPEATS):
                began = time.perf_counter()
                answer = await services.reports.make(report.name, query)
                times.append(int((time.perf_counter() - began) * 1_000_000))
            check = getattr(answer, "check", None)
            if check is not None and check.difference:
                raise BenchFailed(f"{report.name} differs from the balances by {check.difference}")
            found.append((f"{report.name} {words}".strip(), percentile(sorted(times), 0.5), percentile(sorted(times), 0.95)))
    return found


@asynccontextmanager
async def _services(url: str) -> AsyncGenerator[Services]:
    keys = TokenKeys.generate()
    async with open_services(load({}, mongodb_url=url, mongodb_database=DATABASE, token_keys=keys), SystemClock()) as services:
        yield services


async def _measure(url: str) -> list[tuple[str, float, float]]:
    async with _services(url) as services:
        return await measure(services)


def run(options: Options, directory: Path) -> None:
    """Do the whole run inside a temporary directory."""
    facts = machine()
    with Deployment(directory, options.cache_mib) as deployment:
        make_empty(deployment.url, DATABASE)
        rows = fill(options, deployment.url)
        results = asyncio.run(_measure(deployment.url))
    print(
        f"| reports over {options.entries:,} entries of {options.members:,} members | p50 ms | p95 ms | target |\n|---|--:|--:|---|"
    )
    slow: list[str] = []
    for what, median, high in results:
        reached = high <= TARGET_MS
        slow += [] if reached else [what]
        print(f"| {what} | {median:,.1f} | {high:,.1f} | p95 ≤ {TARGET_MS} ms: {'reached' if reached else '**missed**'} |")
    facts["caller"] = (
        f"one caller, {REPEATS} times each; {rows:,} rows of the views over {MONTHS} months; cache of mongod {options.cache_mib} MiB"
    )
    print("\n" + "\n".join(f"- {fact}" for fact in facts.values()))
    if slow:
        raise BenchFailed(f"slower than {TARGET_MS} ms: {', '.join(slow)}")


def main() -> None:
    options = parse()
    run_in(options.work_dir, lambda directory: run(options, directory))


def parse() -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.reports", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries (default 1000000)")
    parser.add_argument("--members", type=int, default=100_000, help="members (default 100000)")
    parser.add_argument("--cache-mib", type=int, default=256, help="cache of mongod (default 256, as `guerdon up` starts it)")
    parser.add_argument("--dir", type=Path, help="where to make the temporary directory; it decides which disk takes the data")
    given = parser.parse_args()
    if not 1000 <= given.members <= given.entries <= 100_000_000:
        parser.error("--members takes 1000 to the number of entries, which is at most 100000000")
    return Options(given.entries, given.members, given.cache_mib, given.dir)


if __name__ == "__main__":
    main()
