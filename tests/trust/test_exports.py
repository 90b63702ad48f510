"""Exports by real workers that are killed with -9 while they write, each time at another moment."""

import asyncio
import csv
import io
import random
import sys
import time
from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.exports.models import EXPORT_CHUNKS, EXPORT_JOBS
from guerdon.wiring.services import Services
from guerdon.workers.models import LEASES
from tests.clients import Caller
from tests.exporting import LARGE, Exports
from tests.factories import Factory
from tests.invariants.retail import environment, places
from tests.trust.figures import record

ENTRIES, BULK, KILLS, SECONDS = 20_000, 500, 3, 120.0
pytestmark = [pytest.mark.trust, pytest.mark.timeout(900)]


async def started_worker(settings: Settings) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guerdon", "worker", env=environment(**places(settings)),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


async def until(database: Database, export_id: str, *, start: int, written: int) -> dict[str, Any]:
    """The row of the export once its start number `start` has written so many bytes, or it has ended."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        row = await database.raw[EXPORT_JOBS].find_one({"_id": export_id})
        assert row is not None
        if row.get("status") in {"done", "failed"} or (row.get("epoch", 0) >= start and row["bytes"] > written):
            return row
        await asyncio.sleep(0.005)
    raise AssertionError("the export does not advance")


async def test_killed_workers_never_leave_half_a_file(
    service: Caller, services: Services, settings: Settings, factory: Factory, database: Database
) -> None:
    wallet = await factory.wallet(LARGE)
    for number in range(ENTRIES // BULK):
        metadata = {"words": "z" * 150}
        debits = [
            {"type": "debit", "wallet": wallet, "amount": 1, "key": f"{number}-{each}", "metadata": metadata}
            for each in range(BULK)
        ]
        await factory.bulk(debits)
    exports, rng = Exports(service, services), random.Random(15)
    created = await exports.create(list="entries", query={"wallet": wallet})
    for start in range(1, KILLS + 1):
        worker = await started_worker(settings)
        try:
            row = await until(database, created["id"], start=start, written=rng.randrange(3 * 1024 * 1024))
        finally:
            worker.kill()
            await worker.wait()
        assert (row["status"], row["epoch"]) == ("running", start), "killed while it wrote"
        assert (await service.get(f"/v1/exports/{created['id']}/file")).status_code == 409
        # As if the lease had expired: that takes 30 s, each time.
        await database.raw[LEASES].delete_many({"_id": {"$in": ["exports-1", "exports-2"]}})
    worker = await started_worker(settings)
    try:
        await until(database, created["id"], start=KILLS + 1, written=2**40)
    finally:
        worker.terminate()
        await worker.wait()
    export = await exports.read(created["id"])
    assert export["status"] == "done", export
    rows = list(csv.DictReader(io.StringIO((await exports.content(export)).decode(), newline="")))
    assert [int(row["seq"]) for row in rows] == list(range(1, ENTRIES + 2)), "each entry once, in order"
    starts = {row["_id"].split("/")[1] async for row in database.raw[EXPORT_CHUNKS].find({}, {"_id": 1})}
    record("killed exports", {"entries": ENTRIES, "kills": KILLS})
    assert starts == {f"{KILLS + 1:06d}"}, "no chunk of an earlier start is left"
