"""`python -m bench`: start the product and a baseline, load both, verify the ledger, and print one table.

The product is `guerdon up --no-demo` with its defaults, including the access log. The baseline (bench/baseline.py) does the same debit with
one MongoDB transaction per request, in the same mongod. Each row measures product, baseline and product again, so that a drift of the
machine affects both. Rows 5 and 6 measure one process and four processes of the product on one database.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import msgspec

from bench import books
from bench.load import Plan, Sample
from bench.processes import BenchFailed, Target, load
from bench.running import machine, run_in, say
from bench.servers import Servers
from bench.table import CEILINGS, SCENARIOS, Line, Scenario, judge, render, say_four, say_generator, summarise

ROWS = frozenset({1, 2, 3, 4, 5, 6})
FOUR_ROWS = frozenset({5, 6})
QUICK_SECONDS, QUICK_WALLETS, QUICK_CALLERS_MAX = 0.7, 2_000, 64
BULK_SECONDS_MIN = 5.0
"""The baseline needs more than a second for one bulk request, so a shorter window might contain no response."""


class Options(msgspec.Struct, frozen=True):
    """Command line options."""

    seconds: float
    warmup_seconds: float
    wallets: int
    rows: frozenset[int]
    quick: bool
    as_json: bool
    work_dir: Path | None


class Bench:
    """One run: the servers, the wallets, and the acknowledged debits by server."""

    def __init__(self, servers: Servers, options: Options, wallets_file: Path) -> None:
        self._servers = servers
        self._options = options
        self._wallets_file = wallets_file
        self._plans = 0
        self.transferred = 0
        self.acknowledged: Counter[str] = Counter({"product": 0, "baseline": 0})

    def run(self) -> list[Line]:
        """Measure every requested row."""
        lines: list[Line] = []
        for scenario in CEILINGS:
            say(f"{scenario.what}, {scenario.connections} connections")
            summary = summarise([self._load(self._servers.baseline, scenario, min(self._options.seconds, 3))])
            lines.append(Line(scenario, summary, None, None, []))
        for scenario in SCENARIOS:
            # The baseline needs many seconds until the last of 256 callers of one wallet has a response.
            tedious = scenario.one_wallet and scenario.connections > QUICK_CALLERS_MAX
            if scenario.row in self._options.rows and not (self._options.quick and tedious):
                say(f"row {scenario.row}, {scenario.connections} connections")
                lines.append(self._measure(scenario, lines))
        return lines

    def _measure(self, scenario: Scenario, before: list[Line]) -> Line:
        servers, seconds = self._servers, self._options.seconds
        measured, against = (servers.four, servers.product) if scenario.four else (servers.product, servers.baseline)
        first = self._load(measured, scenario, seconds / 2)
        other = self._load(against, scenario, max(seconds, BULK_SECONDS_MIN) if scenario.kind == "bulk" else seconds)
        second = self._load(measured, scenario, seconds / 2)
        return judge(scenario, summarise([first, second]), summarise([other]), before)

    def _load(self, target: Target, scenario: Scenario, seconds: float) -> Sample:
        self._plans += 1
        sample = load(
            Plan(
                port=target.port,
                token=target.token,
                wallets_file=str(self._wallets_file),
                kind=scenario.kind,
                connections=scenario.connections,
                seconds=seconds,
                tag=f"b{self._plans}",
                warmup_seconds=self._options.warmup_seconds,
                one_wallet=scenario.one_wallet,
                watch={"API": target.pids, "mongod": self._servers.mongod_pids},
            )
        )
        if scenario.kind == "transfer":
            self.transferred += sample.done
        elif scenario.kind != "noop":
            self.acknowledged[target.books] += sample.done
        if sample.errors or not sample.units:
            raise BenchFailed(
                f"{target.name}, row {scenario.row}, {scenario.connections} connections: {sample.units} answers in the window, "
                f"errors {sample.errors}\n{self._servers.processes.log_tail(target.name)}"
            )
        return sample


def main() -> None:
    """Run and print; exit with 1 if a response was wrong or the verification failed."""
    options = parse()
    run_in(options.work_dir, lambda directory: run(options, directory))


def run(options: Options, directory: Path) -> None:
    """Do the whole run inside a temporary directory."""
    started, facts = time.monotonic(), machine()
    wallets_file = directory / "wallets.txt"
    with Servers(directory) as servers:
        say(f"product and baseline answer; opening {options.wallets:,} wallets")
        books.seed(servers, options.wallets, wallets_file)
        bench = Bench(servers, options, wallets_file)
        lines = bench.run()
        say("verifying the books")
        verified = books.check(servers, options.wallets, bench.acknowledged, bench.transferred)
    facts |= {
        "generator": say_generator(lines),
        **({"processes": say_four(lines)} if options.rows & FOUR_ROWS else {}),
        "books": f"books verified: {verified.entries:,} entries, {verified.violations} violations",
        "balances": f"acknowledged debits equal the fall of the balances: {bench.acknowledged['product']:,} in the product, "
        f"{bench.acknowledged['baseline']:,} in the baseline",
        "took": f"{time.monotonic() - started:.0f} s in all, {options.seconds:g} s a server and line",
    }
    if options.as_json:
        print(json.dumps({"lines": msgspec.to_builtins(lines), "wallets": options.wallets, **facts}, ensure_ascii=False, indent=1))
    else:
        print("\n".join([render(lines, options.wallets), "", *(f"- {fact}" for fact in facts.values())]))


def parse() -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time for each line and server (default 8)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: short, fewer wallets, figures worth little")
    parser.add_argument("--rows", default="1,2,3,4,5,6", help="which rows of the speed table, with commas between (default all)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--dir", type=Path, help="where to make the temporary directory; it decides which disk takes the journal")
    given = parser.parse_args()
    try:
        rows = frozenset(int(row) for row in given.rows.split(","))
    except ValueError:
        parser.error("--rows takes numbers with commas between")
    if not rows or not rows <= ROWS:
        parser.error("--rows takes 1, 2, 3, 4, 5 and 6")
    if not 0.2 <= given.seconds <= 600:
        parser.error("--seconds takes 0.2 to 600")
    if given.quick:
        return Options(QUICK_SECONDS, 0.2, QUICK_WALLETS, rows, True, given.json, given.dir)
    return Options(given.seconds, min(1.0, given.seconds / 4), 10_000, rows, False, given.json, given.dir)


if __name__ == "__main__":
    main()
