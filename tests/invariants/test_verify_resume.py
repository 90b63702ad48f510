"""`verify` goes on where it was cut off: with what it had found, and without reading that part again."""

import random
from pathlib import Path

import pytest

from guerdon.campaigns.domain import EVENTS
from guerdon.collections import INDEXES
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS
from guerdon.verification import documents as answers
from guerdon.verification import lookups
from guerdon.verification import service as proof
from guerdon.verification import state_file as resume
from guerdon.verification.report import VerificationReport
from guerdon.verification.service import verify
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.invariants.full_ledger import KEYS, Shop, build


class CutOff(Exception):
    """Stands for a kill -9: nothing of the run is left but its file."""


@pytest.fixture
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One account a page, two documents a batch, and the place kept after each."""
    monkeypatch.setattr(proof, "PAGE_ACCOUNTS", 1)
    monkeypatch.setattr(answers, "BATCH", 2)
    monkeypatch.setattr(resume, "SAVE_EVERY_SECONDS", -1)


async def run(database: Database, file: Path, steps: int) -> VerificationReport | None:
    """Verify until the run is cut off after so many steps; return the report, if it came to one."""
    left = steps

    def tell(done: int, total: int) -> None:
        nonlocal left
        assert done <= total
        left -= 1
        if left < 0:
            raise CutOff

    try:
        return await verify(database, tell, keys=KEYS, state_file=file, resume=True)
    except CutOff:
        return None


@pytest.mark.usefixtures("in_small_steps")
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
async def test_repeatedly_interrupted_verification_equals_a_full_run(
    service: Caller, services: Services, clock: ManualClock, tmp_path: Path, steps: int
) -> None:
    database, file = services.database, tmp_path / "new" / "verify.json"
    await build(Shop(service, services, clock), random.Random(steps))
    assert (await verify(database, keys=KEYS)).violations == 0
    # Something wrong at the beginning, in the middle, in the documents and in the newest checkpoint's part.
    accounts = [str(row["_id"]) async for row in database.raw[ACCOUNTS].find({"seq": {"$gt": 0}}).sort("_id")]
    await database.raw[ACCOUNTS].update_one({"_id": accounts[0]}, {"$inc": {"balance": 1}})
    await database.raw[ENTRIES].delete_one({"_id": f"{accounts[len(accounts) // 2]}#000000000001"})
    await database.raw[ACCOUNTS].update_one({"_id": accounts[-1]}, {"$set": {"kind": "purse"}})
    await database.raw[EVENTS].update_one({"_id": "e-2"}, {"$set": {"awards.0.amount": 1}})
    await database.raw[REVERSALS].update_one({}, {"$inc": {"reversed": 1}})
    whole = await verify(database, keys=KEYS)
    assert {"L2", "L5", "L6", "CP"} <= set(whole.first)
    report, runs = None, 0
    while report is None:
        report = await run(database, file, steps)
        runs += 1
        assert runs < 500, "it begins at the beginning every time"
    assert report == whole
    assert runs >= 3
    assert not file.exists()
    assert list(file.parent.iterdir()) == []


async def test_mismatched_verification_state_is_refused(
    service: Caller, services: Services, clock: ManualClock, tmp_path: Path, in_small_steps: None
) -> None:
    database, file = services.database, tmp_path / "verify.json"
    shop = Shop(service, services, clock)
    for _ in range(3):
        await shop.wallet({"amount": 5})
    assert await run(database, file, 2) is None
    good = file.read_text()
    assert (await verify(database, state_file=file)).accounts == 3, "without `resume` it begins at the beginning"
    for text, why in (
        ("", "cannot be read"),
        ("{}", "cannot be read"),
        (good.replace('"books":"', '"books":"0'), "another database"),
    ):
        file.write_text(text)
        with pytest.raises(StartupRefused, match=why):
            await verify(database, state_file=file, resume=True)
    file.unlink()
    assert (await verify(database, state_file=file, resume=True)).accounts == 3
    with pytest.raises(StartupRefused, match="cannot be written"):
        await verify(database, state_file=Path("/dev/null/verify.json"))


async def test_keys_are_compared_across_pages_and_beyond_memory(
    service: Caller, services: Services, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One member's wallets lie in one page however small that is; what does not fit into memory is looked up."""
    database, shop = services.database, Shop(service, services, clock)
    member = await shop.wallet({"amount": 50}, asset="GBP")
    owner = member.partition(":")[0]
    for asset in ("PTS", "PTS", "GBP"):
        await shop.credit(f"{owner}:{asset}", 5)
    await database.raw[ENTRIES].drop_index("once")
    first = await database.raw[ENTRIES].find_one({"_id": f"{owner}:GBP#000000000001"})
    last = await database.raw[ENTRIES].find_one({"_id": f"{owner}:PTS#000000000002"})
    assert first is not None
    assert last is not None
    stolen = {name: first[name] for name in ("key", "once", "fingerprint")}
    await database.raw[ENTRIES].replace_one({"_id": last["_id"]}, {**last, **stolen})
    named = []
    for page, memory, batch in ((1000, 10**6, 500), (1, 10**6, 500), (1000, 0, 500), (1000, 1, 1), (1, 3, 2)):
        monkeypatch.setattr(proof, "PAGE_ACCOUNTS", page)
        monkeypatch.setattr(proof, "UNIQUE_KEYS_IN_MEMORY", memory)
        monkeypatch.setattr(lookups, "BATCH", batch)
        named.append({law: violation.detail.split(" is also used")[0] for law, violation in (await verify(database)).first.items()})
    await database.raw[ENTRIES].delete_many({})
    await database.sync_indexes(INDEXES)
    assert all(found.get("L4") == "its key or reference" for found in named), named
