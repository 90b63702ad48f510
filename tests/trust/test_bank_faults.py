"""BANK-2: while members are killed, stopped, cut off and made to fail, every snapshot of all wallets holds the same total."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient, ReadPreference
from pymongo.errors import PyMongoError
from pymongo.read_preferences import Primary, Secondary

from tests.invariants.faults import FailPoints
from tests.trust.failover_scenario import Roles, under_load
from tests.trust.figures import record
from tests.trust.load import report
from tests.trust.networks import Doors
from tests.trust.replica_set import ReplicaSet

SEED = 20_261_125
SECONDS, FAULT_EVERY_SECONDS, FAULT_SECONDS = 300.0, 10.0, 5.0
WALLETS, BALANCE = 10, 100
READS_MIN = 1000
FAIL_POINTS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("aggregate", 5, {"closeConnection": True}),
    ("insert", 20, {"errorCode": 112}),
    ("insert", 3, {"blockConnection": True, "blockTimeMS": 2000}),
    ("update", 5, {"errorCode": 11602}),
    ("update", 5, {"closeConnection": True}),
    ("commitTransaction", 5, {"closeConnection": True}),
    ("commitTransaction", 5, {"writeConcernError": {"code": 64, "errmsg": "waiting for replication"}}),
    ("commitTransaction", 5, {"errorCode": 91}),
)
pytestmark = [pytest.mark.trust, pytest.mark.timeout(600)]


async def kill(members: ReplicaSet, primary: int, rng: random.Random) -> None:
    members.kill(primary)
    await asyncio.sleep(FAULT_SECONDS / 2)
    members.launch(primary)


async def stop(members: ReplicaSet, primary: int, rng: random.Random) -> None:
    members.pause(primary)
    await asyncio.sleep(FAULT_SECONDS)
    members.resume(primary)


async def refuse(members: ReplicaSet, primary: int, rng: random.Random) -> None:
    await members.cut(primary, kind="refuse")
    await asyncio.sleep(FAULT_SECONDS)
    await members.heal()


async def silence(members: ReplicaSet, primary: int, rng: random.Random) -> None:
    await members.cut(primary, kind="silence")
    await asyncio.sleep(FAULT_SECONDS)
    await members.heal()


async def fail(members: ReplicaSet, primary: int, rng: random.Random) -> None:
    command, times, data = rng.choice(FAIL_POINTS)
    async with AsyncMongoClient[dict[str, Any]](members.direct_url(primary)) as client:
        points = FailPoints(client)
        await points.fail(command, times=times, **data)
        await points.fired(1)
        await asyncio.sleep(FAULT_SECONDS / 2)
        await points.stop()


FAULTS: tuple[Callable[[ReplicaSet, int, random.Random], Awaitable[None]], ...] = (kill, stop, refuse, silence, fail, fail)


async def hurt(members: ReplicaSet, until: float) -> Counter[str]:
    """A fault every ten seconds, one at a time, always to the primary, each as often as the others."""
    rng = random.Random(SEED)
    done = Counter[str]()
    plan: list[Callable[[ReplicaSet, int, random.Random], Awaitable[None]]] = []
    while (began := time.monotonic()) < until - FAULT_EVERY_SECONDS:
        if not plan:
            plan = rng.sample(FAULTS, len(FAULTS))
        fault, primary = plan.pop(), await members.primary()
        await fault(members, primary, rng)
        done[fault.__name__] += 1
        await members.settled(primary)
        await asyncio.sleep(began + FAULT_EVERY_SECONDS - time.monotonic())
    return done


class Reader:
    """Reads all wallets in one snapshot, again and again, from the primary or from a secondary.

    It asks in two halves: one query alone is nearly a snapshot even where the sessions gave none.
    """

    def __init__(self, url: str, wallets: Sequence[str], preference: Primary | Secondary) -> None:
        self._url = url
        self._wallets = list(wallets)
        self._preference = preference
        self.reads = self.failed = 0
        self.bad: list[dict[str, int]] = []

    async def run(self, until: float) -> None:
        await asyncio.to_thread(self._run, until)

    def _run(self, until: float) -> None:
        limits = {"serverSelectionTimeoutMS": 1000, "connectTimeoutMS": 1000, "socketTimeoutMS": 2000, "heartbeatFrequencyMS": 500}
        with MongoClient[dict[str, Any]](self._url, **limits) as client:
            accounts = client["guerdon"].get_collection("accounts", read_preference=self._preference)
            while time.monotonic() < until:
                try:
                    with client.start_session(snapshot=True) as session:
                        seen = {
                            row["_id"]: row["balance"]
                            for half in (self._wallets[::2], self._wallets[1::2])
                            for row in accounts.find({"_id": {"$in": half}}, session=session)
                        }
                except PyMongoError:
                    self.failed += 1
                    continue
                self.reads += 1
                if len(seen) != WALLETS or sum(seen.values()) != WALLETS * BALANCE or min(seen.values()) < 0:
                    self.bad.append(seen)
                time.sleep(0.02)


async def test_total_is_constant_in_every_snapshot_under_faults(tmp_path: Path) -> None:
    async with under_load(tmp_path, Doors(), SEED, roles=Roles(["transfer"], WALLETS, BALANCE)) as (members, _, load, _):
        until = time.monotonic() + SECONDS
        preferences = [ReadPreference.PRIMARY, ReadPreference.SECONDARY]
        readers = [Reader(members.url, load.wallets, preference) for preference in preferences]
        faults, *_ = await asyncio.gather(hurt(members, until), *(reader.run(until) for reader in readers))
    reads = {"primary": readers[0].reads, "secondary": readers[1].reads}
    record("BANK-2 snapshots with a wrong total", sum(len(reader.bad) for reader in readers), 0)
    record("BANK-2 snapshots read on each member", min(reads.values()), f">= {READS_MIN}")
    record("BANK-2 faults", sum(faults.values()), f"{len(set(FAULTS))} kinds")
    assert [reader.bad for reader in readers] == [[], []]
    assert min(reads.values()) >= READS_MIN
    assert set(faults) == {fault.__name__ for fault in FAULTS}
    assert load.refused
    failed = {"primary": readers[0].failed, "secondary": readers[1].failed}
    report("BANK-2", SEED, seconds=SECONDS, faults=faults, reads=reads, failed_reads=failed, bad_reads=0, **load.facts())
