"""Views under fire: workers die, stand still and lose the history of the database while value moves and the views are rebuilt.

Afterwards the views equal those that a quiet scan derives, row by row, and no document was applied twice.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from guerdon.clock import SystemClock
from guerdon.config import load
from guerdon.database import Database
from guerdon.logs import make_logger
from guerdon.projections.generations import GenerationStore, bring_up_to_date
from guerdon.projections.positions import POSITIONS
from guerdon.views.group import books_group
from guerdon.views.models import ACCOUNT_STATES, AGGREGATES, MEMBER_STATES
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, Log, client_of
from tests.factories import Factory
from tests.invariants.faults import FailPoints, started_mongod
from tests.invariants.retail import environment

ROOT = Path(__file__).parents[2]
SEEDS = range(10)
WORKERS, KILLS, LEASE_MS = 3, 20, 5_000
PAUSE_SECONDS = (0.2, 1.5)
CALLERS, BULK = 6, 200
WAIT_SECONDS = 300.0
POLL_SECONDS = 0.2


class Crowd:
    """Three workers, of which any may be killed or stopped at any time."""

    def __init__(self, url: str, database: str, log: Path) -> None:
        self._command = [sys.executable, "-m", "tests.views.worker", url, database, str(LEASE_MS)]
        self._log = log
        self._workers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        while len(self._workers) < WORKERS:
            with self._log.open("ab") as log:
                self._workers.append(
                    subprocess.Popen(self._command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                )

    def kill(self, count: int, chance: random.Random) -> None:
        """Kill some of them, as the machine does that runs out of memory."""
        for worker in chance.sample(self._workers, count):
            worker.kill()
            worker.wait()
            self._workers.remove(worker)

    async def suspend_one(self, chance: random.Random) -> None:
        """Let one of them stand still for longer than its lease. It then goes on with what it was doing."""
        worker = chance.choice(self._workers)
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(1.5 * LEASE_MS / 1000)
        os.kill(worker.pid, signal.SIGCONT)

    def stop(self) -> None:
        for worker in self._workers:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()
        self._workers.clear()


class Traffic:
    """Callers that move value of a few members and record, refund and void their events, as fast as they are answered."""

    def __init__(self, service: Caller, factory: Factory, seed: int) -> None:
        self._service = service
        self._factory = factory
        self._seed = seed
        self.stopping = False
        self.done = 0

    async def run(self) -> None:
        await self._factory.campaign(expiry={"type": "after_days", "days": 30})
        wallets = [await self._factory.wallet(1_000_000) for _ in range(40)]
        async with asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(self._call(random.Random(f"{self._seed}-{number}"), wallets))

    async def _call(self, chance: random.Random, wallets: list[str]) -> None:
        events: list[dict[str, Any]] = []
        while not self.stopping:
            wallet, other = chance.sample(wallets, 2)
            match chance.randrange(8):
                case 0:
                    event = self._factory.event(member={"id": wallet.partition(":")[0]}, amount=chance.randrange(100, 20_000))
                    answer = await self._service.post("/v1/events", event, key=None)
                    events.append(event)
                case 1 if events:
                    event = chance.choice(events)
                    refund = self._factory.event(
                        type="refund", refund_of=event["id"], member=event["member"], amount=chance.randrange(1, event["amount"])
                    )
                    answer = await self._service.post("/v1/events", refund, key=None)
                case 2 if len(events) > 3:
                    event = events.pop(chance.randrange(len(events)))
                    answer = await self._service.post(f"/v1/events/{event['id']}/void", {"reason": "wrong till"}, key=None)
                case 3:
                    body = {"from": wallet, "to": other, "amount": chance.randrange(1, 500)}
                    answer = await self._service.post("/v1/transfers", body)
                case 4 | 5:
                    answer = await self._service.post("/v1/bulk", {"commands": self._commands(chance, wallets)}, key=None)
                case _:
                    answer = await self._service.post(f"/v1/wallets/{wallet}/debit", {"amount": chance.randrange(1, 500)})
            assert answer.status_code < 500, answer.text
            self.done += 1

    def _commands(self, chance: random.Random, wallets: list[str]) -> list[dict[str, Any]]:
        self.done += 1
        return [
            {
                "type": chance.choice(("credit", "debit")),
                "wallet": chance.choice(wallets),
                "amount": chance.randrange(1, 500),
                "key": f"bulk-{self.done}-{chance.random()}",
            }
            for _ in range(BULK)
        ]


@pytest.fixture(scope="module")
def mongod_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with started_mongod(tmp_path_factory.mktemp("views") / "mongod") as port:
        yield port


@asynccontextmanager
async def serving(url: str, database: str, token_keys: str, master_keys: str) -> AsyncIterator[tuple[Services, Caller]]:
    secrets = {"mongodb_url": url, "token_keys": token_keys, "master_keys": master_keys}
    settings = load({}, **secrets, mongodb_database=database, log_level="error", rate_limit="off")
    async with open_services(settings, SystemClock()) as services:
        app = build_app(services, settings, make_logger(services.clock, "error", Log()))
        async with client_of(app) as client:
            yield services, Caller(client).with_token(await services.access.create_key("tests", ["*"]))


async def rows_of(database: Database, version: int) -> dict[str, dict[str, Any]]:
    """Every row of a generation, without its number. Rows whose sums are all zero are as good as absent."""
    found: dict[str, dict[str, Any]] = {}
    sums = {aggregate.collection: aggregate.sums for aggregate in AGGREGATES}
    for collection in (*sums, ACCOUNT_STATES, MEMBER_STATES):
        async for row in database.raw[collection].find({"version": version}, {"version": 0}):
            key = row.pop("_id").partition("|")[2]
            if collection not in sums or any(row[name] for name in sums[collection]):
                found[f"{collection}/{key}"] = row
    return found


async def documents(services: Services) -> int:
    raw = services.database.raw
    entries = await raw["entries"].count_documents({"balance_after": {"$exists": True}})
    return entries + await raw["events"].count_documents({}) + await raw["event_voids"].count_documents({})


async def applied(services: Services, version: int) -> int:
    return sum([row["applied"] async for row in services.database.raw[POSITIONS].find({"version": version, "group": "books"})])


async def wait_until_complete(services: Services, store: GenerationStore, expected: int) -> int:
    """Wait until the newest generation serves and has every document; return its version."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = await store.read()
        version = await services.views.version()
        if version == found.newest and await applied(services, version) >= expected:
            return version
        assert time.monotonic() < deadline, (version, found, await applied(services, version), expected)
        await asyncio.sleep(POLL_SECONDS)


async def hurt(crowd: Crowd, points: FailPoints, store: GenerationStore, chance: random.Random) -> None:
    """Kill two of three workers twenty times; now and then lose history, ask for a rebuild, and let a worker outlive its lease."""
    rebuilds, lost, suspended = (set(chance.sample(range(KILLS), count)) for count in (2, 3, 3))
    for number in range(KILLS):
        crowd.start()
        await asyncio.sleep(chance.uniform(*PAUSE_SECONDS) + (LEASE_MS / 1000 if chance.random() < 0.3 else 0))
        if number in rebuilds:
            await store.rebuild()
        if number in lost:
            await points.fail("getMore", times=chance.randrange(1, 4), errorCode=chance.choice((286, 280)))
        if number in suspended:
            await crowd.suspend_one(chance)
        crowd.kill(2, chance)
    crowd.start()
    await points.stop()


@pytest.mark.trust
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
async def test_views_equal_the_documents_whatever_happens(
    seed: int, mongod_port: int, tmp_path: Path, token_keys: str, master_keys: str
) -> None:
    url, name = f"mongodb://127.0.0.1:{mongod_port}/?replicaSet=faults", f"guerdon_views_{seed}"
    crowd = Crowd(url, name, tmp_path / "workers.log")
    async with (
        serving(url, name, token_keys, master_keys) as (services, service),
        AsyncMongoClient[dict[str, Any]]("127.0.0.1", mongod_port, directConnection=True) as client,
    ):
        group = books_group(services.ledger.calendar)
        store = GenerationStore(services.database, group, services.clock)
        traffic = Traffic(service, Factory(service, services), seed)
        running = asyncio.create_task(traffic.run())
        try:
            crowd.start()
            await wait_until_complete(services, store, 1)
            await hurt(crowd, FailPoints(client), store, random.Random(seed))
            traffic.stopping = True
            await running
            expected = await documents(services)
            version = await wait_until_complete(services, store, expected)
        finally:
            traffic.stopping = True
            crowd.stop()
        # Nothing was applied twice.
        assert await applied(services, version) == expected
        await assert_states_equal_accounts(services, version)
        # A quiet scan of everything, beside the generation that has seen all that, derives the same rows.
        await store.rebuild()
        quiet = await bring_up_to_date(services.database, group, services.clock, holder="judge")
        assert quiet != version
        assert await applied(services, quiet) == expected
        followed, scanned = await rows_of(services.database, version), await rows_of(services.database, quiet)
        different = {key for key in followed.keys() | scanned.keys() if followed.get(key) != scanned.get(key)}
        assert not different, [(key, followed.get(key), scanned.get(key)) for key in sorted(different)[:5]]
        positions = [row async for row in services.database.raw[POSITIONS].find({"version": version})]
        told = {name: sum(row[name] for row in positions) for name in ("redelivered", "repaired", "scans", "epoch")}
        print(f"seed {seed}: {expected:,} documents, {len(followed):,} rows, version {version}, {told}")
        await client.drop_database(name)


async def assert_states_equal_accounts(services: Services, version: int) -> None:
    raw = services.database.raw
    accounts = {row["_id"]: (row["seq"], row["balance"]) async for row in raw["accounts"].find({"seq": {"$gt": 0}})}
    rows = raw[ACCOUNT_STATES].find({"version": version})
    assert {row["account"]: (row["seq"], row.get("balance", 0)) async for row in rows} == accounts
