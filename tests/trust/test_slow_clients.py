"""SLOW-1..3: clients that take their time, against `guerdon serve` as it is shipped, with nothing in front; and an end under load."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from guerdon import embedded
from guerdon.access.token_keys import TokenKeys
from guerdon.crypto.sealing import MasterKeys
from tests.trust.deployment import Server, operator
from tests.trust.figures import record
from tests.trust.groups import ALONE
from tests.trust.load import Load, report
from tests.trust.slow_clients import Behaviour, Healthy, Outcome, crowd, drip, facts, say, watched

pytestmark = [pytest.mark.trust, pytest.mark.timeout(600), ALONE]
SEED = 20_261_123
CLOSED_SECONDS, GROWTH_MIB, P99_SECONDS, STOP_SECONDS = 15.0, 50.0, 1.0, 10.0
HEAD = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s"
_keys = itertools.count(1)


class House(NamedTuple):
    """A server on a database of its own, and a wallet."""

    server: Server
    database_url: str
    token: str
    wallet: str


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Server, str, str]]:
    lock = embedded.DataDirLock.acquire(folder, command="test_slow")
    mongo = embedded.start(folder)
    keys = {"GUERDON_TOKEN_KEYS": TokenKeys.generate(), "GUERDON_MASTER_KEYS": MasterKeys.generate()}
    server = Server(folder / "serve.log", ["serve"], {"GUERDON_MONGODB_URL": mongo.url, **keys})
    try:
        await server.start()
        made = await operator(mongo.url, "keys", "create", "--name", "load", "--scopes", "*")
        assert made.status == 0, made.err
        yield server, mongo.url, made.out.splitlines()[-1]
    finally:
        server.kill()
        mongo.stop()
        lock.release()


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with serving(tmp_path) as (server, url, token):
        load = Load([server.url], token, SEED)
        [wallet] = await load.open_wallets(1, 10**6)
        yield House(server, url, token, wallet)


async def suffer(
    house: House, name: str, count: int, behave: Behaviour, *, seconds: float = 20.0, reads: int = 65_536
) -> list[Outcome]:
    """Let a crowd behave like this while somebody debits the wallet, and hold the server to what it owes that one."""

    async def debit(client: httpx.AsyncClient) -> httpx.Response:
        headers = {"authorization": f"Bearer {house.token}", "idempotency-key": f"healthy-{next(_keys)}"}
        return await client.post(f"/v1/wallets/{house.wallet}/debit", json={"amount": 1}, headers=headers)

    async with httpx.AsyncClient(base_url=house.server.url, timeout=30) as client:
        with watched(sorted(house.server.pids())) as memory:
            async with Healthy(client, debit) as healthy:
                outcomes = await crowd(house.server.port, count, behave, seconds=seconds, reads=reads)
                await asyncio.sleep(1)
    found = facts(outcomes, healthy, memory)
    report(name, SEED, **found)
    record(f"{name}: others' debits, p99", f"{healthy.percentile(99) * 1000:.0f} ms", f"< {P99_SECONDS * 1000:.0f} ms")
    record(f"{name}: growth of the server", f"{memory.growth:.0f} MiB", f"< {GROWTH_MIB:.0f} MiB")
    assert set(healthy.statuses) == {201}, found
    assert healthy.percentile(99) < P99_SECONDS, found
    assert memory.growth < GROWTH_MIB, found
    return outcomes


def assert_closed(outcomes: list[Outcome], said: set[str]) -> None:
    late = [each for each in outcomes if each.closed_after is None or each.closed_after > CLOSED_SECONDS]
    assert not late, (len(late), late[:3])
    # A connection that is reset may take its answer along.
    assert {each.said for each in outcomes} <= {"", *said}


async def test_slow_request_heads_are_closed(house: House) -> None:
    """SLOW-1: 500 sockets send one byte of a head every 5 s; 300 say nothing at all; 300 send a head that is much too long."""
    begun = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: "
    assert_closed(await suffer(house, "SLOW-1 heads", 500, drip(begun, b"a", 5)), set())
    assert_closed(await suffer(house, "SLOW-1 silent", 300, say(b"")), set())
    too_long = "HTTP/1.1 431 Request Header Fields Too Large"
    assert_closed(await suffer(house, "SLOW-1 long heads", 300, drip(begun + b"a" * 31_000, b"a" * 500, 5)), {too_long})


async def test_slow_request_bodies_are_refused(house: House) -> None:
    """SLOW-2: 300 bodies of 1 B/s for the very wallet that somebody debits meanwhile; 300 that never begin; 100 that break off."""
    path = f"/v1/wallets/{house.wallet}/debit".encode()
    late = "HTTP/1.1 408 Request Timeout"
    head = HEAD % (path, b"Content-Length: 2000\r\n\r\n")
    with_key = HEAD % (
        path,
        f"Authorization: Bearer {house.token}\r\nIdempotency-Key: slow\r\n".encode() + b"Content-Length: 200000\r\n\r\n",
    )
    transactions: list[int] = []

    async def count_transactions() -> None:
        async with AsyncMongoClient(house.database_url) as client:
            while True:
                status = await client.admin.command("serverStatus")
                transactions.append(status["transactions"]["currentInactive"])
                await asyncio.sleep(0.5)

    counting = asyncio.create_task(count_transactions())
    assert_closed(await suffer(house, "SLOW-2 bodies", 300, drip(head, b" ", 1)), {late})
    assert_closed(await suffer(house, "SLOW-2 no bodies", 300, say(head)), {late})
    # Those who have a key and send more than is gathered at the door: they wait inside, and hold nothing there either.
    assert_closed(await suffer(house, "SLOW-2 large bodies", 200, drip(with_key + b" " * 70_000, b" ", 1)), {late})
    assert_closed(await suffer(house, "SLOW-2 half-closed", 100, say(head + b"{", half_close=True)), {"HTTP/1.1 400 Bad Request"})
    counting.cancel()
    assert sorted(transactions)[-3:] <= [1, 1, 1], "a transaction that waits for bytes"


async def test_idle_connections_and_slow_readers_do_not_delay_others(house: House) -> None:
    """SLOW-2: 10,000 connections that have been answered and stay; and 100 that read a large answer byte by byte.

    The server closes idle connections, and beyond 3,000 each with its answer. It does not close a connection that reads slowly: that is left to the gateway (docs/gateway.md),
    so here only what it costs the others is held to its bound.
    """
    assert_closed(
        await suffer(house, "SLOW-2 idle", 10_000, say(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")), {"HTTP/1.1 200 OK"}
    )
    await suffer(house, "SLOW-2 readers", 100, say(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"), seconds=15, reads=1)


async def test_shutdown_under_load_loses_nothing(tmp_path: Path) -> None:
    """SLOW-3: SIGTERM under load, five times. What was acknowledged is on the books, once; whoever was answered nothing is told by the key."""
    stopped: list[float] = []
    async with serving(tmp_path) as (server, url, token):
        load = Load([server.url], token, SEED)
        load.wallets = await load.open_wallets(6)
        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(load.client(number))
            for _ in range(5):
                await load.more(150)
                began = time.monotonic()
                assert await server.stopped() == 0
                stopped.append(time.monotonic() - began)
                await server.start()
            await load.more(150)
            load.stop = True
        await load.assert_promises(url)
        verified = await operator(url, "verify", "--json")
        assert (verified.status, verified.summary["violations"]) == (0, 0), verified.out
    record("SLOW-3 stopped under load after", f"{max(stopped):.1f} s", f"<= {STOP_SECONDS:.0f} s")
    assert max(stopped) <= STOP_SECONDS
    report("SLOW-3", SEED, **load.facts(), stopped_after_seconds=[round(each, 2) for each in stopped])
