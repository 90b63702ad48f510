"""`python -m bench.history`: time to read and to verify the history of one wallet with a million entries.

The entries are decided by the ledger's rules and written in bulk. One caller then reads over HTTP, one request after another, and every
response is checked against the written entries. At the end `guerdon verify` checks the whole database.
"""

import argparse
import http.client
import json
import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from bench.books import Verified
from bench.deployment import Deployment
from bench.filling import ASSET, DAY_MS, SEED, Past, Writer, book, make_empty, movement
from bench.processes import BenchFailed, Target
from bench.running import machine, run_in, say
from bench.table import percentile
from guerdon.clock import SystemClock, rfc3339
from guerdon.http.cursor import encode_cursor
from guerdon.ids import IdSource
from guerdon.ledger.models import Account
from guerdon.ledger.store import ACCOUNTS, ENTRIES, encode
from guerdon.members.models import MEMBERS, Member
from guerdon.wallets.service import new_account

DATABASE = "guerdon_history"
DEPTHS = (0, 1_000, 100_000, 500_000)
PAGE, PAGE_MAX, EXAMINED = 50, 100, 1_000
"""Default and maximum page size, and the entries examined for a page filtered by kind (docs/api/history.md)."""
JITTER = 500
"""Range of random offsets added to the depth of a page, so that different pages are read."""
AGE_DAYS = 365
CREDIT, DEBIT = 7, 5
REFERENCE_EVERY = 100
TARGET_READ_MS, TARGET_VERIFY_SECONDS = 20.0, 120.0
PROGRESS_EVERY = 100_000


class Options(Struct, frozen=True):
    """Command line options."""

    entries: int
    requests: int
    cache_mib: int
    work_dir: Path | None


class Written(Struct):
    """Written entries: times and balances by `seq`, each with a zero before the first entry."""

    wallet: str
    times: list[int]
    balances: list[int]

    @property
    def size(self) -> int:
        return len(self.times) - 1


class Question(Struct, frozen=True):
    """A request and its expected response: the `seq` of each entry, or of the entry with the balance."""

    path: str
    query: dict[str, str]
    seqs: list[int]
    balance: int | None = None
    seq: int = 0


class Row(Struct, frozen=True):
    """Measurement of one kind of query."""

    what: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    asked: int
    judged: bool


def write(deployment: Deployment, entries: int) -> Written:
    """Write one wallet with `entries` credits and debits at random times over the last year."""
    make_empty(deployment.url, DATABASE)
    draw, started = random.Random(SEED), time.monotonic()
    now_ms = SystemClock().now_ms()
    times = sorted(draw.randrange(now_ms - AGE_DAYS * DAY_MS, now_ms) for _ in range(entries))
    member = Member(id=IdSource(Past(times[0])).new("mem"), created_at=times[0])
    account = new_account(member.id, ASSET, times[0])
    written = Written(account.id, [0], [0])
    writer = Writer(deployment.url, DATABASE)
    writer.add(MEMBERS, msgspec.to_builtins(member))
    for seq, at_ms in enumerate(times, 1):
        account = _append(writer, account, seq, at_ms)
        written.times.append(at_ms)
        written.balances.append(account.balance)
        if seq % PROGRESS_EVERY == 0:
            say(f"{seq:,} of {entries:,} entries, {seq / (time.monotonic() - started):,.0f}/s")
    writer.add(ACCOUNTS, encode(account))
    writer.close()
    deployment.client.admin.command("fsync")
    return written


def _append(writer: Writer, account: Account, seq: int, at_ms: int) -> Account:
    comes = kind_of(seq) == "credit"
    reference = reference_of(seq) if seq % REFERENCE_EVERY == 0 else None
    moved, entry = book(account, movement(account.id, kind_of(seq), CREDIT if comes else DEBIT, f"key-{seq}", reference), at_ms)
    writer.add(ENTRIES, encode(entry))
    return moved


def kind_of(seq: int) -> str:
    return "credit" if seq % 2 else "debit"


def reference_of(seq: int) -> str:
    return f"order-{seq}"


# --- questions ------------------------------------------------------------------------------------------------------------


class Questions:
    """Source of random queries with their expected responses."""

    def __init__(self, written: Written) -> None:
        self._written = written
        self._draw = random.Random(SEED)
        self._entries = f"/v1/wallets/{written.wallet}/entries"

    def all(self) -> list[tuple[str, Callable[[], Question], bool]]:
        """Return the kinds of queries: name, function, and whether a target applies."""
        size = self._written.size
        depths = [*(depth for depth in DEPTHS if depth + 2 * JITTER <= size), size - 2 * JITTER]
        return [
            *((f"entries, page of {PAGE} at depth {depth:,}", self._at_depth(depth), True) for depth in dict.fromkeys(depths)),
            (f"entries, page of {PAGE_MAX} at any depth", self._page, True),
            (f"entries, `kind=debit` (every second one), page of {PAGE} at any depth", self._debits, True),
            (f"entries, a `kind` that there is not ({EXAMINED:,} looked at), at any depth", self._none, True),
            (f"entries, page of {PAGE} of a random hour to month", self._window, True),
            ("entries, `reference`", self._reference, True),
            ("balance as of a random moment", self._balance_at, True),
            ("balance now", self._balance, False),
        ]

    def _at_depth(self, depth: int) -> Callable[[], Question]:
        def ask() -> Question:
            newest = self._written.size - depth - (self._draw.randrange(JITTER) if depth else 0)
            query = {"cursor": encode_cursor(str(newest + 1))} if depth else {}
            return Question(self._entries, query, _down(newest, PAGE))

        return ask

    def _page(self) -> Question:
        newest = self._draw.randrange(PAGE_MAX, self._written.size)
        return Question(self._entries, {"cursor": encode_cursor(str(newest + 1)), "limit": str(PAGE_MAX)}, _down(newest, PAGE_MAX))

    def _debits(self) -> Question:
        newest = self._draw.randrange(EXAMINED, self._written.size)
        seqs = [seq for seq in _down(newest, EXAMINED) if kind_of(seq) == "debit"][:PAGE]
        return Question(self._entries, {"cursor": encode_cursor(str(newest + 1)), "kind": "debit"}, seqs)

    def _none(self) -> Question:
        newest = self._draw.randrange(EXAMINED, self._written.size)
        return Question(self._entries, {"cursor": encode_cursor(str(newest + 1)), "kind": "clawback"}, [])

    def _window(self) -> Question:
        since = self._moment()
        until = since + self._draw.randrange(3_600_000, 30 * DAY_MS)
        times = self._written.times
        before, last = bisect_left(times, since, 1) - 1, bisect_left(times, until, 1) - 1
        return Question(self._entries, {"from": rfc3339(since), "to": rfc3339(until)}, _down(last, min(PAGE, last - before)))

    def _reference(self) -> Question:
        seq = REFERENCE_EVERY * self._draw.randrange(1, self._written.size // REFERENCE_EVERY + 1)
        return Question(self._entries, {"reference": reference_of(seq)}, [seq])

    def _balance_at(self) -> Question:
        moment = self._moment()
        seq = bisect_right(self._written.times, moment, 1) - 1
        return Question(self._balance_path(), {"at": rfc3339(moment)}, [], self._written.balances[seq], seq)

    def _balance(self) -> Question:
        return Question(self._balance_path(), {}, [], self._written.balances[-1], self._written.size)

    def _balance_path(self) -> str:
        return f"/v1/wallets/{self._written.wallet}/balance"

    def _moment(self) -> int:
        return self._draw.randrange(self._written.times[1], self._written.times[-1])


def _down(newest: int, count: int) -> list[int]:
    return list(range(newest, max(newest - count, 0), -1))


# --- measuring ------------------------------------------------------------------------------------------------------------


def measure(target: Target, written: Written, requests: int) -> list[Row]:
    """Send every query, one request after another on one connection.

    Raises:
        BenchFailed: A response is wrong.
    """
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    headers = {"Authorization": f"Bearer {target.token}"}
    rows: list[Row] = []
    for what, ask, judged in Questions(written).all():
        say(what)
        took_us: list[int] = []
        for number in range(requests + requests // 10):
            question = ask()
            path = f"{question.path}?{urlencode(question.query)}" if question.query else question.path
            started = time.perf_counter()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if number >= requests // 10:  # The first tenth is the warm-up.
                took_us.append(int((time.perf_counter() - started) * 1e6))
            _require_true(question, answer.status, body, written)
        took_us.sort()
        rows.append(Row(what, percentile(took_us, 0.5), percentile(took_us, 0.99), took_us[-1] / 1000, len(took_us), judged))
    connection.close()
    return rows


def _require_true(question: Question, status: int, body: bytes, written: Written) -> None:
    found: dict[str, Any] = json.loads(body)
    if status == 200 and question.balance is not None:
        right = (found["balance"], found["seq"]) == (question.balance, question.seq)
    else:
        items = [(item["seq"], item["balance_after"]) for item in found.get("items", ())]
        right = status == 200 and items == [(seq, written.balances[seq]) for seq in question.seqs]
    if not right:
        raise BenchFailed(f"{question.path} {question.query}: a wrong answer, {status} {body[:500].decode('utf-8', 'replace')}")


def main() -> None:
    """Run and print; exit with 1 if a response was wrong or the verification failed."""
    options = parse()
    run_in(options.work_dir, lambda directory: run(options, directory))


def run(options: Options, directory: Path) -> None:
    """Do the whole run inside a temporary directory."""
    started, facts = time.monotonic(), machine()
    with Deployment(directory, options.cache_mib) as deployment:
        written = write(deployment, options.entries)
        filled = time.monotonic() - started
        rows = measure(deployment.serve(DATABASE, "wallets:read"), written, options.requests)
        say("verifying the books")
        before = time.monotonic()
        verified = msgspec.json.decode(deployment.guerdon(DATABASE, "verify", "--json"), type=Verified)
        seconds = time.monotonic() - before
    if (verified.accounts, verified.entries, verified.violations) != (1, options.entries, 0):
        raise BenchFailed(f"the books are broken: {verified}")
    facts["caller"] = (
        f"one caller, one request after another; every answer was held against what was written; cache of mongod {options.cache_mib} MiB"
    )
    facts["took"] = f"{time.monotonic() - started:.0f} s in all, {filled:.0f} s of them for writing the entries"
    print("\n".join([render(rows, options.entries, seconds), "", *(f"- {fact}" for fact in facts.values())]))


def render(rows: list[Row], entries: int, verify_seconds: float) -> str:
    """Return the Markdown table and the sentence on `guerdon verify`."""
    lines = [
        f"| one wallet with {entries:,} entries | requests | p50 ms | p99 ms | max ms | target |",
        "|---|" + "--:|" * 4 + "---|",
    ]
    for row in rows:
        verdict = f"p99 ≤ {TARGET_READ_MS:g} ms: {_verdict(reached=row.p99_ms <= TARGET_READ_MS)}" if row.judged else ""
        figures = [f"{row.asked:,}", f"{row.p50_ms:,.1f}", f"{row.p99_ms:,.1f}", f"{row.max_ms:,.1f}"]
        lines.append("| " + " | ".join([row.what, *figures, verdict]) + " |")
    said = f"`guerdon verify`: {entries:,} entries, 0 violations, in {verify_seconds:.1f} s ({entries / verify_seconds:,.0f} entries/s)"
    target = f"≤ {TARGET_VERIFY_SECONDS:g} s: {_verdict(reached=verify_seconds <= TARGET_VERIFY_SECONDS)}"
    return "\n".join([*lines, "", f"{said}; {target}."])


def _verdict(*, reached: bool) -> str:
    return "reached" if reached else "**missed**"


def parse() -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m bench.history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries of the wallet (default 1000000)")
    parser.add_argument("--requests", type=int, default=1000, help="measured requests of each kind (default 1000)")
    parser.add_argument("--cache-mib", type=int, default=256, help="cache of mongod (default 256, as `guerdon up` starts it)")
    parser.add_argument("--dir", type=Path, help="where to make the temporary directory; it decides which disk takes the data")
    given = parser.parse_args()
    if not 5000 <= given.entries <= 100_000_000:
        parser.error("--entries takes 5000 to 100000000")
    if not 10 <= given.requests <= 1_000_000:
        parser.error("--requests takes 10 to 1000000")
    return Options(given.entries, given.requests, given.cache_mib, given.dir)


if __name__ == "__main__":
    main()
