"""Bulk creation of wallets and entries, which is not measured: decided by the ledger's rules and written past its queue.

Every id, unique key and hash is what the product would have written, so `guerdon verify` passes. As a program, it opens the wallets of the
`Job` on its command line, because millions of wallets need several processes.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from pymongo import MongoClient, WriteConcern

from bench.processes import BenchFailed, Processes
from bench.running import say
from guerdon.calendar import Calendar
from guerdon.collections import INDEXES
from guerdon.database import Database
from guerdon.http.idempotency import fingerprint
from guerdon.ids import IdSource
from guerdon.ledger.decide import post_transaction
from guerdon.ledger.models import Account, Entry, Idempotency, Transaction
from guerdon.ledger.store import ACCOUNTS, ENTRIES, encode
from guerdon.members.models import MEMBERS, Member
from guerdon.wallets.rules import postings_of
from guerdon.wallets.service import new_account

ASSET = "PTS"
ACTOR = "system:bench"
OPENING_BALANCE = 10**9
"""Ten million of them add up to a 64-bit integer; above it, MongoDB's `$sum` returns a float."""
BATCH = 2000
PROGRESS_SECONDS = 10.0
SEED = 20_261_122
DAY_MS = 86_400_000
_CALENDAR = Calendar()


class Past:
    """Clock with a settable time."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000


class Job(Struct, frozen=True):
    """Wallets to open, in order of time, and the size of the uniform sample to return."""

    url: str
    database: str
    wallets: int
    since_ms: int
    until_ms: int
    sample: int
    sample_file: str


class Writer:
    """Writer of large unordered batches, acknowledged by the primary only, because the data may be lost."""

    def __init__(self, url: str, database: str) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(url)
        self._raw = self._client.get_database(database, write_concern=WriteConcern(1, j=False))
        self._waiting: dict[str, list[dict[str, Any]]] = {}

    def add(self, collection: str, document: dict[str, Any]) -> None:
        waiting = self._waiting.setdefault(collection, [])
        waiting.append(document)
        if len(waiting) >= BATCH:
            self._flush(collection)

    def close(self) -> None:
        for collection in list(self._waiting):
            self._flush(collection)
        self._client.close()

    def _flush(self, collection: str) -> None:
        self._raw[collection].insert_many(self._waiting.pop(collection), ordered=False)


def make_empty(url: str, database: str) -> None:
    """Create the product's collections and indexes, before the wallets, so that indexes grow as in use."""

    async def within() -> None:
        handle = Database(url, database)
        try:
            await handle.sync_indexes(INDEXES)
        finally:
            await handle.close()

    asyncio.run(within())


def book(account: Account, transaction: Transaction, at_ms: int) -> tuple[Account, Entry]:
    """Decide a transaction with one posting by the ledger's rules."""
    moved: dict[str, Account] = {}
    [entry] = post_transaction(transaction, lambda _: account, moved, at_ms, _CALENDAR)
    return moved[account.id], entry


def movement(wallet: str, kind: str, amount: int, key: str, reference: str | None = None) -> Transaction:
    """Return a credit or debit as the wallets service hands it to the ledger."""
    owner = wallet.partition(":")[0]
    body = b'{"amount":%d}' % amount
    idempotency = Idempotency(owner, ACTOR, key, fingerprint(f"POST /v1/wallets/{wallet}/{kind}", body), reference)
    return Transaction(kind, postings_of(kind, wallet, amount, None), ACTOR, idempotency)


def open_wallets(processes: Processes, jobs: list[Job], label: str) -> list[str]:
    """Run the jobs in parallel, each in its own process, and return the sample.

    Raises:
        BenchFailed: A job failed.
    """
    started, wanted = time.monotonic(), sum(job.wallets for job in jobs)
    names = [f"{label} {number}" for number in range(len(jobs))]
    encoded = [msgspec.json.encode(job).decode() for job in jobs]
    running = [processes.spawn(name, "-m", "bench.filling", job) for name, job in zip(names, encoded, strict=True)]
    told = started
    with MongoClient[dict[str, Any]](jobs[0].url) as client:
        while any(process.poll() is None for process in running):
            time.sleep(0.1)
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                done = client[jobs[0].database][ENTRIES].estimated_document_count()
                say(f"{label}: {done:,} of {wanted:,} wallets, {done / (told - started):,.0f}/s")
    for name, process in zip(names, running, strict=True):
        if process.returncode:
            raise BenchFailed(f"{name} ended with {process.returncode}\n{processes.log_tail(name)}")
    say(f"{label}: {wanted:,} wallets in {time.monotonic() - started:.0f} s")
    return [wallet for job in jobs for wallet in Path(job.sample_file).read_text(encoding="ascii").split()]


def _opened(job: Job) -> Iterator[tuple[Member, Account, Entry]]:
    clock = Past(job.since_ms)
    ids = IdSource(clock)
    for number in range(job.wallets):
        clock.at_ms = job.since_ms + (job.until_ms - job.since_ms) * number // job.wallets
        member = Member(id=ids.new("mem"), created_at=clock.at_ms)
        account = new_account(member.id, ASSET, clock.at_ms)
        opening = movement(account.id, "credit", OPENING_BALANCE, f"open-{member.id}")
        yield member, *book(account, opening, clock.at_ms)


def main() -> None:
    """Run the job on the command line."""
    job = msgspec.json.decode(sys.argv[1], type=Job)
    chosen = set(random.Random(f"{SEED}-{job.since_ms}").sample(range(job.wallets), job.sample))
    sample: list[str] = []
    writer = Writer(job.url, job.database)
    for number, (member, account, entry) in enumerate(_opened(job)):
        writer.add(MEMBERS, msgspec.to_builtins(member))
        writer.add(ACCOUNTS, encode(account))
        writer.add(ENTRIES, encode(entry))
        if number in chosen:
            sample.append(account.id)
    writer.close()
    Path(job.sample_file).write_text("\n".join(sample) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
