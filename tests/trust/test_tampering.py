"""BIT-1 and BIT-2: one thing changed in the database, or one bit of its files, and never a silent wrong balance. And `verify --resume`."""

import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from guerdon import embedded
from guerdon.calendar import Calendar
from guerdon.collections import INDEXES
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.ledger.decide import decide_batch
from guerdon.ledger.models import Idempotency, Transaction
from guerdon.ledger.store import ACCOUNTS, ENTRIES, encode
from guerdon.verification.checkpoint_file import Line, append_missing
from guerdon.verification.checkpoints import CHECKPOINTS
from guerdon.verification.service import verify
from guerdon.wallets.rules import Movement, command_of, postings_of
from guerdon.wallets.service import new_account
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.invariants.faults import FailPoints, started_mongod
from tests.invariants.full_ledger import KEYS, Shop, build
from tests.invariants.retail import environment, guerdon
from tests.invariants.tampering import TAMPERS, Copy
from tests.trust.figures import record

SEED = 19_700_101
TRIALS = 1000
FLIPS = 50
DATABASE = "guerdon"
pytestmark = [pytest.mark.trust, pytest.mark.timeout(600)]


async def test_a_thousand_tamperings_are_all_found(service: Caller, services: Services, clock: ManualClock, tmp_path: Path) -> None:
    """BIT-1: whatever is changed, deleted, inserted, swapped or retyped is found, and nothing else ever is."""
    await build(Shop(service, services, clock), random.Random(SEED))
    database, file = services.database, tmp_path / "checkpoints.jsonl"
    copy = await Copy.of(database)
    assert append_missing(file, [Line(row["_id"], row["jws"]) for row in copy.table(CHECKPOINTS)]) is None
    # Whoever can write behind the ledger's back can drop an index as well.
    await database.raw[ENTRIES].drop_index("once")
    rng = random.Random(SEED)
    names = sorted(TAMPERS)
    missed: list[tuple[int, str, dict[str, Any]]] = []
    alarms = 0
    began = time.monotonic()
    for trial in range(TRIALS):
        name = names[trial % len(names)]
        tamper, laws = TAMPERS[name]
        changes = tamper(rng, copy)
        await copy.put(database, changes)
        report = await verify(database, keys=KEYS, checkpoint_file=file)
        if not report.violations or not laws <= set(report.first):
            missed.append((trial, name, dict(report.first)))
        await copy.restore(database, changes)
        if trial % 10 == 9:
            alarms += (await verify(database, keys=KEYS, checkpoint_file=file)).violations
    print(json.dumps({
        "check": "BIT-1", "seed": SEED, "trials": TRIALS, "ways": len(names), "misses": len(missed), "false_alarms": alarms,
        "untouched": TRIALS // 10, "entries": len(copy.entries), "seconds": round(time.monotonic() - began, 1),
        "result": "ok" if not missed and not alarms else "failed",
    }))  # fmt: skip
    record("BIT-1 missed manipulations", f"{len(missed)} of {TRIALS}", 0)
    record("BIT-1 false alarms", f"{alarms} of {TRIALS // 10}", 0)
    assert (missed, alarms) == ([], 0)


# --- BIT-2 --------------------------------------------------------------------------------------------------------------


class Files:
    """A data directory at rest, and copies of it to damage."""

    def __init__(self, data_dir: Path) -> None:
        self._pristine = data_dir / "pristine"
        self._damaged = data_dir / "damaged"
        self._files: list[str] = []

    async def fill(self, whole: Copy) -> None:
        """Write the books, and leave them at rest."""
        with running(self._pristine) as mongo:
            database = Database(mongo.url, DATABASE)
            await database.sync_indexes(INDEXES)
            await whole.write(database)
            for name in (ACCOUNTS, ENTRIES):
                stats = await database.raw.command("collStats", name)
                self._files.append(stats["wiredTiger"]["uri"].rpartition(":")[2] + ".wt")
            await database.close()
            mongo.stop()

    def copy(self) -> None:
        shutil.rmtree(self._damaged, ignore_errors=True)
        # The journal is mostly a reserve of zeros.
        subprocess.run(["cp", "-a", "--sparse=always", str(self._pristine), str(self._damaged)], check=True)

    def damage(self, rng: random.Random) -> tuple[str, int]:
        """Flip one bit of a fresh copy; return the file and the place."""
        self.copy()
        name = rng.choice(self._files)
        file = self._damaged / "mongodb" / name
        place = rng.randrange(file.stat().st_size)
        with file.open("r+b") as opened:
            opened.seek(place)
            [byte] = opened.read(1)
            opened.seek(place)
            opened.write(bytes([byte ^ (1 << rng.randrange(8))]))
        return name, place

    async def who_notices(self, whole: Copy) -> str | None:
        """Start on the copy; return None when everything can be read and is as it was."""
        try:
            with running(self._damaged) as mongo:
                reading = asyncio.ensure_future(read_again(mongo.url, whole))
                while mongo.alive():
                    if (await asyncio.wait({reading}, timeout=0.05))[0]:
                        return reading.result()
                reading.cancel()
                await asyncio.wait({reading})
                return "mongod has ended"
        except StartupRefused:
            return "mongod does not start"


@contextmanager
def running(data_dir: Path) -> Iterator[embedded.EmbeddedMongo]:
    lock = embedded.DataDirLock.acquire(data_dir, command="tests")
    try:
        mongo = embedded.start(data_dir)
        try:
            yield mongo
        finally:
            mongo.kill()
    finally:
        lock.release()


async def read_again(url: str, whole: Copy) -> str | None:
    database = Database(url, DATABASE)
    try:
        for name in (ACCOUNTS, ENTRIES):
            if not (await database.raw.command("validate", name, full=True))["valid"]:
                return "validate"
        if (await verify(database, keys=KEYS)).violations:
            return "verify"
        return None if (await Copy.of(database)).rows == whole.rows else "nobody"
    except PyMongoError:
        return "mongod answers with an error"
    finally:
        await database.close()


async def test_a_flipped_bit_is_never_a_silent_wrong_balance(
    service: Caller, services: Services, clock: ManualClock, tmp_path: Path
) -> None:
    """BIT-2: in a file of accounts or entries, with mongod at rest."""
    await build(Shop(service, services, clock), random.Random(SEED))
    whole = await Copy.of(services.database)
    files, rng, began = Files(tmp_path), random.Random(SEED), time.monotonic()
    await files.fill(whole)
    files.copy()
    assert await files.who_notices(whole) is None, "a copy that is not damaged"
    noticed: Counter[str] = Counter()
    for _ in range(FLIPS):
        place = files.damage(rng)
        who = await files.who_notices(whole)
        assert who != "nobody", place
        noticed[who or "without effect"] += 1
    summary = {"check": "BIT-2", "seed": SEED, "trials": FLIPS, **noticed, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({**summary, "silent": 0, "result": "ok"}))
    record("BIT-2 silent wrong balances", f"0 of {FLIPS}", 0)
    record("BIT-2 flips without effect", noticed["without effect"], f"<= {FLIPS // 2}")
    assert noticed["without effect"] <= FLIPS // 2


# --- cut off ------------------------------------------------------------------------------------------------------------

MEMBERS, ENTRIES_EACH = 6000, 8


async def write_many(database: Database) -> list[str]:
    """So many wallets that verifying takes some seconds; return them in the order of their ids."""
    wallets = [f"mem_{number:032x}:PTS" for number in range(MEMBERS)]
    for start in range(0, MEMBERS, 500):
        commands = []
        for wallet in wallets[start : start + 500]:
            owner = wallet.partition(":")[0]
            for number in range(ENTRIES_EACH):
                once = Idempotency(owner, "key_tests", f"key-{number}", b"0" * 16)
                kind = "debit" if number else "credit"
                transaction = Transaction(kind, postings_of(kind, wallet, 1 if number else 100, None), "key_tests", once)
                commands.append(command_of(Movement(transaction, once, (wallet,), (new_account(owner, "PTS", 1),)), (owner,)))
        plan = decide_batch(commands, ({}, {}, {}), 1_769_860_800_000, Calendar())
        await database.raw[ENTRIES].insert_many([encode(entry) for entry in plan.entries], ordered=False)
        await database.raw[ACCOUNTS].insert_many([encode(account) for account in plan.moved.values()])
    return wallets


FIND_MS = 400
"""Each `find` of the verification takes this long, so that it lasts several seconds on any machine and is still running when it is killed."""


@asynccontextmanager
async def slow_mongod(folder: Path) -> AsyncIterator[tuple[str, Database, FailPoints]]:
    """A mongod of its own that can be made slow: its address, an indexed database on it, and its fail points."""
    with started_mongod(folder) as port:
        url = f"mongodb://127.0.0.1:{port}/?directConnection=true"
        database = Database(url, DATABASE)
        async with AsyncMongoClient[dict[str, Any]](url) as client:
            try:
                await database.sync_indexes(INDEXES)
                yield url, database, FailPoints(client)
            finally:
                await database.close()


async def test_a_killed_verification_goes_on(tmp_path: Path) -> None:
    """kill -9 in the middle. Findings are kept although they have been corrected since, and the rest is checked too."""
    state = tmp_path / "verify.json"
    async with slow_mongod(tmp_path / "mongod") as (url, database, points):
        wallets = await write_many(database)
        for wallet in (wallets[5], wallets[-5]):
            await database.raw[ACCOUNTS].update_one({"_id": wallet}, {"$inc": {"balance": 1}})
        places = {"GUERDON_MONGODB_URL": url, "GUERDON_MONGODB_DATABASE": DATABASE}
        command = ["verify", "--json", "--data-dir", str(tmp_path)]
        await points.fail("find", times=10_000, blockConnection=True, blockTimeMS=FIND_MS)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "guerdon", *command, env=environment(**places), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not state.exists():
            assert process.returncode is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        await points.stop()
        place = json.loads(state.read_text())["place"]
        record("VERIFY-KILL killed at entry", place["report"]["entries"], f"< {MEMBERS * ENTRIES_EACH}")
        assert 0 < place["report"]["entries"] < MEMBERS * ENTRIES_EACH
        assert place["report"]["violations"] == 1
        await database.raw[ACCOUNTS].update_one({"_id": wallets[5]}, {"$inc": {"balance": -1}})
        run = await guerdon(*command, "--resume", **places)
        assert run.status == 1, run.err
        assert (run.summary["accounts"], run.summary["entries"]) == (MEMBERS, MEMBERS * ENTRIES_EACH)
        assert (run.summary["violations"], run.summary["first"]["L2"]["where"]) == (2, wallets[5])
        assert not state.exists()
        alone = await guerdon("verify", "--json", "--account", wallets[-5], "--data-dir", str(tmp_path), **places)
        assert (alone.status, alone.summary["accounts"], alone.summary["violations"]) == (1, 1, 1)
        unknown = await guerdon("verify", "--account", f"{wallets[0]}X", "--data-dir", str(tmp_path), **places)
        assert (unknown.status, unknown.out) == (2, "")
