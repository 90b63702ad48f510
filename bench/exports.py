"""`python -m bench.exports`: time, memory and size of an export of a million entries, in every format.

The entries of many wallets are decided by the ledger's rules and written in bulk. Each format is then written by `guerdon export` in a process of
its own, whose largest resident memory is that of the kernel. An export of few entries shows the memory that does not depend on their number.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.deployment import Deployment
from bench.filling import ASSET, DAY_MS, SEED, Past, Writer, book, make_empty, movement
from bench.processes import BenchFailed
from bench.running import machine, run_in, say
from guerdon.clock import SystemClock
from guerdon.exports.formats import FileFormat
from guerdon.ids import IdSource
from guerdon.ledger.store import ACCOUNTS, ENTRIES, encode
from guerdon.members.models import MEMBERS, Member
from guerdon.wallets.service import new_account

DATABASE = "guerdon_exports"
EACH, AGE_DAYS = 100, 300
"""Entries of a wallet, and days before now at which the first one was booked."""
MEMORY_MIB_MAX = 128
"""Largest permitted difference between the memory of the large and the small export."""


class Options(Struct, frozen=True):
    """Command line options."""

    entries: int
    cache_mib: int
    work_dir: Path | None


class Measured(Struct, frozen=True):
    """One export."""

    format: str
    rows: int
    mib: float
    seconds: float
    rows_per_second: int
    memory_mib: int


def write(deployment: Deployment, entries: int) -> str:
    """Write wallets with `EACH` entries each; return the wallet with the lowest id."""
    make_empty(deployment.url, DATABASE)
    draw, now_ms = random.Random(SEED), SystemClock().now_ms()
    writer, first = Writer(deployment.url, DATABASE), ""
    for number in range(entries // EACH):
        opened = now_ms - AGE_DAYS * DAY_MS + number
        member = Member(id=IdSource(Past(opened)).new("mem"), created_at=opened)
        account = new_account(member.id, ASSET, opened)
        first = first or account.id
        writer.add(MEMBERS, msgspec.to_builtins(member))
        for seq in range(1, EACH + 1):
            comes = seq % 2 == 1
            moved = movement(
                account.id, "credit" if comes else "debit", draw.randrange(5, 9) if comes else 4, f"key-{number}-{seq}"
            )
            account, entry = book(account, moved, opened + seq * DAY_MS)
            writer.add(ENTRIES, encode(entry))
        writer.add(ACCOUNTS, encode(account))
        if number * EACH % 100_000 == 0:
            say(f"{number * EACH:,} of {entries:,} entries")
    writer.close()
    return first


def measure(deployment: Deployment, directory: Path, form: FileFormat, *query: str) -> Measured:
    """Run `guerdon export` once.

    Raises:
        BenchFailed: The command failed.
    """
    out = directory / f"entries.{form}"
    command = [sys.executable, "-m", "guerdon", "export", "entries", "--format", form, "--out", str(out), "--json", "--force"]
    for each in query:
        command += ["--query", each]
    environment = {**os.environ, "GUERDON_DATA_DIR": str(directory / "data"), **deployment._settings(DATABASE)}
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise BenchFailed(f"guerdon export {form} ended with {process.returncode}")
    done: dict[str, Any] = json.loads(text)
    size = out.stat().st_size
    out.unlink()
    return Measured(form, done["rows"], round(size / 2**20, 1), round(seconds, 1), round(done["rows"] / seconds), _mib(usage))


def _mib(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss // 1024


def run(options: Options, directory: Path) -> None:
    """Do the whole run inside a temporary directory."""
    facts = machine()
    with Deployment(directory, options.cache_mib) as deployment:
        wallet = write(deployment, options.entries)
        small = [measure(deployment, directory, form, f"wallet={wallet}") for form in ("csv", "parquet", "xlsx")]
        large = [measure(deployment, directory, form) for form in ("csv", "parquet")]
    print(json.dumps({**facts, "small": msgspec.to_builtins(small), "large": msgspec.to_builtins(large)}, indent=1))
    for one, other in zip(small, large, strict=False):
        if other.rows != options.entries // EACH * EACH:
            raise BenchFailed(f"{other.format} has {other.rows:,} rows")
        if other.memory_mib - one.memory_mib > MEMORY_MIB_MAX:
            raise BenchFailed(f"{other.format} needs {other.memory_mib - one.memory_mib} MiB more for more rows")


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--cache-mib", type=int, default=512)
    parser.add_argument("--work-dir", type=Path)
    given = parser.parse_args()
    return Options(given.entries, given.cache_mib, given.work_dir)


def main() -> None:
    """Run and print; exit with 1 if an export is wrong or needs more memory for more rows."""
    options = parse()
    run_in(options.work_dir, lambda directory: run(options, directory))


if __name__ == "__main__":
    main()
