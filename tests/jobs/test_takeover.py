"""What happens to the lease of a worker that is killed, that hangs, that loses the database, or that is robbed."""

import asyncio
import signal

import pytest
from pymongo.uri_parser import parse_uri

from guerdon.database import Database
from guerdon.workers.models import LEASES
from guerdon.workers.service import RETRY_MS
from tests.clients import Log
from tests.invariants.faults import lossy_wire
from tests.jobs.workers import LEASE_MS, cable_to, connected, hanging, lease_of, process, server_ms, working
from tests.waiting import until

LEASE_SECONDS = LEASE_MS / 1000
SLACK_SECONDS = 15.0
"""For a busy machine. A lease that is not taken over ends the test after `WAIT_SECONDS`."""
DIRECT = "directConnection=true&retryWrites=false"


def port_of(url: str) -> int:
    return int(parse_uri(url)["nodelist"][0][1])


@pytest.mark.parametrize(("fate", "offset_seconds"), [(signal.SIGKILL, 600), (signal.SIGSTOP, -600)])
async def test_another_worker_takes_over_within_the_lease(
    database: Database, mongodb_url: str, log: Log, fate: signal.Signals, offset_seconds: int
) -> None:
    """No sooner and no later, though the time of day in the first one's process is wrong by ten minutes (CLK-2)."""
    loop = asyncio.get_running_loop()
    said: list[str] = []
    async with process(mongodb_url, "shared", offset_seconds) as first:
        await first.says("began")
        async with working(database, hanging("shared", said.append), log=log):
            # It renews: nothing happens for longer than the lease lasts.
            await asyncio.sleep(1.5 * LEASE_SECONDS)
            assert said == []
            first.signal(fate)
            stricken = loop.time()
            await until(lambda: said == ["began"])
            assert loop.time() - stricken < LEASE_SECONDS + SLACK_SECONDS
            if fate == signal.SIGSTOP:
                # Awake again, it sees that its lease is gone, cuts its job off, and does not get it back.
                first.signal(signal.SIGCONT)
                await first.says("cut")
                await asyncio.sleep(1.5 * LEASE_SECONDS)
                first.signal(signal.SIGTERM)
                assert await first.ended() == 0
            assert said == ["began"]
    assert said == ["began", "cut"]


async def test_disconnected_worker_ends_its_job_before_another_starts_it(database: Database, mongodb_url: str, log: Log) -> None:
    """Cut off, it cannot know who has the lease, but it knows how long it can have been its own."""
    happened: list[str] = []
    async with (
        cable_to(port_of(mongodb_url)) as (cable, port),
        connected(f"mongodb://127.0.0.1:{port}/?{DIRECT}") as remote,
        working(remote, hanging("shared", lambda word: happened.append(f"remote {word}")), log=log),
    ):
        await until(lambda: happened == ["remote began"])
        async with working(database, hanging("shared", happened.append)):
            await asyncio.sleep(LEASE_SECONDS)
            cable.cut()
            await until(lambda: "began" in happened, LEASE_SECONDS + SLACK_SECONDS)
            cable.mend()
            await remote.ping()
            await asyncio.sleep(1.5 * LEASE_SECONDS)
            assert happened == ["remote began", "remote cut", "began"]
    assert "job_interrupted" in {line["event"] for line in log.lines}


async def test_a_worker_whose_lease_was_given_to_another_cuts_its_job_off(database: Database, log: Log) -> None:
    said: list[str] = []
    async with working(database, hanging("shared", said.append), log=log):
        await until(lambda: said == ["began"])
        robber = {"holder": "wrk_other", "expires_at": await server_ms(database) + 60_000}
        await database.raw[LEASES].update_one({"_id": "shared"}, {"$set": robber})
        await until(lambda: said == ["began", "cut"])
        await asyncio.sleep(2 * LEASE_SECONDS)
    assert said == ["began", "cut"]
    # It has not released what was no longer its own.
    assert (await lease_of(database, "shared"))["holder"] == "wrk_other"
    assert [line["event"] for line in log.lines] == ["job_interrupted"]


async def test_lease_with_a_lost_grant_reply_is_acquired_again(database: Database, mongodb_url: str, log: Log) -> None:
    """It would last for a minute, and nobody would use it."""
    said: list[str] = []
    began_ms = await server_ms(database)
    async with lossy_wire(port_of(mongodb_url)) as (wire, port), connected(f"mongodb://127.0.0.1:{port}/?{DIRECT}") as remote:
        wire.lose_replies_to(b"findAndModify", times=1)
        async with working(remote, hanging("shared", said.append), log=log, lease_ms=60_000):
            await until(lambda: said == ["began"])
            # Anew: what is counted on is the second grant.
            assert (await lease_of(database, "shared"))["last_run_at"] >= began_ms + RETRY_MS
    assert wire.lost == 1
    assert [(line["event"], line["job"]) for line in log.lines] == [("lease_failed", "shared"), ("job_interrupted", "shared")]
