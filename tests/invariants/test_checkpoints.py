"""Signed checkpoints: what they cover, who may make them, and what is seen when they, or the books below them, are changed."""

import base64
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from guerdon.access.token_keys import TokenKeys
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.verification import checkpoints
from guerdon.verification.checkpoint_file import Line, append_missing, read_lines
from guerdon.verification.checkpoints import CHECKPOINTS, CheckpointKeys, LedgerChanged, write_checkpoint
from guerdon.verification.service import verify
from guerdon.verification.signing import BadSignature
from guerdon.wiring.services import Services
from tests.clients import ManualClock
from tests.invariants.balance_model import Spec
from tests.invariants.movements import IS_ENTRY, fresh_key, move, open_wallets

KEYS = CheckpointKeys(TokenKeys.generate())
SETTLED_SECONDS = 91


async def sign(services: Services, clock: ManualClock, file: Path | None = None, keys: CheckpointKeys = KEYS) -> int:
    """A checkpoint over all that there is now."""
    clock.advance(seconds=SETTLED_SECONDS)
    return await write_checkpoint(services.database, clock, keys, file)


async def faults(database: Database, file: Path | None = None, keys: CheckpointKeys | None = KEYS) -> dict[str, str]:
    """Where a law is broken, by law."""
    report = await verify(database, keys=keys, checkpoint_file=file)
    return {law: violation.where for law, violation in report.first.items()}


def payload_of(jws: str) -> dict[str, Any]:
    part = jws.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


async def stored(database: Database) -> list[dict[str, Any]]:
    return [dict(row) async for row in database.raw[CHECKPOINTS].find({}).sort("_id")]


async def test_checkpoint_has_the_documented_content(services: Services, clock: ManualClock) -> None:
    """Counts, digest and the name of the one before it, worked out here again from the entries."""
    clock.stop()
    wallets = await open_wallets(services, 3, 100)
    assert await sign(services, clock) == 1
    await move(services, Spec("debit", wallets[0], 7, fresh_key()))
    as_of = clock.now_ms()
    assert await sign(services, clock) == 1
    await move(services, Spec("debit", wallets[1], 7, fresh_key()))
    first, second = [row["jws"] for row in await stored(services.database)]
    said = payload_of(second)
    digest, entries = bytes(32), 0
    async for account in services.database.raw[ACCOUNTS].find({}).sort("_id"):
        old = {"_id": {"$gt": account["_id"] + "#", "$lt": account["_id"] + "$"}, "at": {"$lte": said["as_of"]}}
        newest = await services.database.raw[ENTRIES].find_one(old, sort=[("_id", -1)])
        assert newest is not None
        seq = int(newest["_id"][-12:])
        line = json.dumps([account["_id"], account["kind"], account["opened_at"], seq, newest["hash"].hex()], separators=(",", ":"))
        digest, entries = hashlib.sha256(digest + line.encode()).digest(), entries + seq
    assert said == {
        "number": 2, "made_at": clock.now_ms(), "as_of": clock.now_ms() - 90_000, "accounts": 3, "entries": 4, "digest": digest.hex(),
        "previous": hashlib.sha256(first.encode()).hexdigest(),
    }  # fmt: skip
    assert entries == 4
    assert said["as_of"] >= as_of
    assert await faults(services.database) == {}
    header = json.loads(base64.urlsafe_b64decode(second.split(".")[0] + "=="))
    assert (header["alg"], header["typ"]) == ("EdDSA", "guerdon-checkpoint")


async def test_recent_entries_are_left_for_the_next_checkpoint(services: Services, clock: ManualClock) -> None:
    """Nothing younger than a minute and a half is signed, and a wallet without older entries is not counted."""
    clock.stop()
    [old] = await open_wallets(services, 1, 100)
    clock.advance(seconds=89)
    [new] = await open_wallets(services, 1, 100)
    await move(services, Spec("debit", old, 1, fresh_key()))
    clock.advance(seconds=1)
    assert await write_checkpoint(services.database, clock, KEYS, None) == 1
    assert await write_checkpoint(services.database, clock, KEYS, None) == 0, "at the same moment there is nothing new to say"
    [row] = await stored(services.database)
    assert (payload_of(row["jws"])["accounts"], payload_of(row["jws"])["entries"]) == (1, 1)
    assert new
    assert await faults(services.database) == {}


@pytest.mark.parametrize("page", [1, 3, 1000])
async def test_account_heads_are_found_as_of_any_time(
    services: Services, clock: ManualClock, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a scan, on wallets of very different lengths, at moments before, between, at and after the entries."""
    monkeypatch.setattr(checkpoints, "PAGE_ACCOUNTS", page)
    clock.stop()
    rng = random.Random(90)
    wallets = await open_wallets(services, 5, 500)
    times = [clock.now_ms()]
    for number in range(60):
        clock.advance(seconds=rng.choice([0, 0.001, 5]))
        await move(services, Spec("debit", wallets[0 if number % 3 else rng.randrange(4)], 1, fresh_key()))
        times.append(clock.now_ms())
    entries = [row async for row in services.database.raw[ENTRIES].find(IS_ENTRY).sort("_id")]
    pages = [page async for page in checkpoints._pages(services.database)]
    assert [len(each) for each in pages][:1] == [min(page, 5)]
    for as_of in {0, times[0] - 1, *times, times[-1] + 1}:
        expected = {row["_id"][:-13]: (int(row["_id"][-12:]), row["hash"]) for row in entries if row["at"] <= as_of}
        heads = {}
        for rows in pages:
            heads |= await checkpoints._heads_as_of(services.database, rows, as_of)
        assert {name: head for name, head in heads.items() if head[0]} == expected


async def test_removal_of_the_newest_entries_is_detected(services: Services, clock: ManualClock) -> None:
    """BIT-3: entries and every trace of them on the account's row; a newer checkpoint is not signed over it."""
    [wallet, other] = await open_wallets(services, 2, 100)
    for _ in range(3):
        await move(services, Spec("debit", wallet, 1, fresh_key()))
    await sign(services, clock)
    database = services.database
    await database.raw[ENTRIES].delete_many({"_id": {"$gt": f"{wallet}#000000000002", "$lt": f"{wallet}$"}})
    last = await database.raw[ENTRIES].find_one({"_id": f"{wallet}#000000000002"})
    assert last is not None
    row = {"seq": 2, "head": last["hash"], "balance": last["balance_after"], "at": last["at"]}
    await database.raw[ACCOUNTS].update_one({"_id": wallet}, {"$set": row})
    assert await faults(database) == {"CP": "checkpoint 1"}
    for _ in range(5):
        await move(services, Spec("debit", other, 1, fresh_key()))
    with pytest.raises(LedgerChanged, match="checkpoint 1"):
        await sign(services, clock)
    assert len(await stored(database)) == 1


async def test_removal_of_checkpoints_is_detected_with_the_file(services: Services, clock: ManualClock, tmp_path: Path) -> None:
    file = tmp_path / "kept" / "checkpoints.jsonl"
    [wallet] = await open_wallets(services, 1, 100)
    for _ in range(3):
        await move(services, Spec("debit", wallet, 1, fresh_key()))
        assert await sign(services, clock, file) == 1
    rows = await stored(services.database)
    assert read_lines(file) == [Line(row["_id"], row["jws"]) for row in rows]
    assert await faults(services.database, file) == {}
    await services.database.raw[CHECKPOINTS].delete_one({"_id": 3})
    assert await faults(services.database) == {}, "nobody can miss what nobody has kept"
    assert await faults(services.database, file) == {"CP": "checkpoints.jsonl, checkpoint 3"}
    with pytest.raises(LedgerChanged, match="checkpoint 3"):
        await sign(services, clock, file)
    await services.database.raw[CHECKPOINTS].delete_many({})
    assert await faults(services.database, file) == {"CP": "checkpoints.jsonl, checkpoint 1"}
    await services.database.raw[ENTRIES].delete_many({})
    await services.database.raw[ACCOUNTS].delete_many({})
    report = await verify(services.database, keys=KEYS, checkpoint_file=file)
    assert report.violations == 4, "three checkpoints are gone, and the books do not come to the newest"


async def test_changed_checkpoint_chain_is_detected(services: Services, clock: ManualClock) -> None:
    [wallet] = await open_wallets(services, 1, 100)
    for _ in range(3):
        await move(services, Spec("debit", wallet, 1, fresh_key()))
        await sign(services, clock)
    rows = await stored(services.database)
    collection = services.database.raw[CHECKPOINTS]

    async def with_second(jws: object) -> dict[str, str]:
        await collection.update_one({"_id": 2}, {"$set": {"jws": jws}})
        found = await faults(services.database)
        await collection.update_one({"_id": 2}, {"$set": {"jws": rows[1]["jws"]}})
        return found

    def resigned(**changes: Any) -> str:
        return KEYS.sign(json.dumps({**payload_of(rows[1]["jws"]), **changes}).encode())

    head, body, signature = rows[1]["jws"].split(".")
    forged = base64.urlsafe_b64encode(json.dumps({**payload_of(rows[1]["jws"]), "entries": 1}).encode()).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"guerdon-checkpoint","kid":"x"}').decode().rstrip("=")
    for jws in (
        f"{head}.{forged}.{signature}", f"{none}.{body}.{signature}", CheckpointKeys(TokenKeys.generate()).sign(b"{}"), rows[0]["jws"],
        f"{head}.{body}", "", None, 7, resigned(entries=1), resigned(accounts=0), resigned(number=3), resigned(as_of=1),
        resigned(previous=None), resigned(previous="00"), resigned(digest=None), KEYS.sign(b"[]"),
    ):  # fmt: skip
        assert set(await with_second(jws)) == {"CP"}, jws
    await collection.delete_one({"_id": 2})
    assert await faults(services.database) == {"CP": "checkpoint 3"}
    await collection.delete_one({"_id": 1})
    assert await faults(services.database) == {"CP": "checkpoint 3"}
    assert await faults(services.database, keys=None) == {"CP": "checkpoint 3"}


async def test_report_states_that_signatures_were_not_checked(services: Services, clock: ManualClock) -> None:
    await open_wallets(services, 1, 100)
    assert (await verify(services.database, keys=KEYS)).signatures == "no checkpoints"
    await sign(services, clock)
    report = await verify(services.database)
    assert (report.violations, report.checkpoints, report.signatures) == (0, 1, "not checked: no key")
    public = CheckpointKeys(KEYS.public_set())
    report = await verify(services.database, keys=public)
    assert (report.violations, report.checkpoints, report.signatures) == (0, 1, "verified")
    with pytest.raises(StartupRefused, match="public key"):
        await sign(services, clock, keys=public)
    with pytest.raises(LedgerChanged, match="not among the checkpoint keys"):
        await sign(services, clock, keys=CheckpointKeys(TokenKeys.generate()))


async def test_checkpoint_keys_can_be_rotated(services: Services, clock: ManualClock) -> None:
    await open_wallets(services, 1, 100)
    old, new = TokenKeys.generate(), TokenKeys.generate()
    await sign(services, clock, keys=CheckpointKeys(old))
    both = json.dumps({"keys": json.loads(new)["keys"] + json.loads(CheckpointKeys(old).public_set())["keys"]})
    assert await sign(services, clock, keys=CheckpointKeys(both)) == 1
    assert await faults(services.database, keys=CheckpointKeys(both)) == {}
    assert await faults(services.database, keys=CheckpointKeys(new)) == {"CP": "checkpoint 1"}


async def test_checkpoint_signed_by_a_faster_process_is_not_repeated(
    services: Services, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_wallets(services, 1, 100)
    await sign(services, clock)
    count_ledger = checkpoints._count_ledger

    async def overtaken(database: Database, recounts: Any) -> None:
        await count_ledger(database, recounts)
        monkeypatch.setattr(checkpoints, "_count_ledger", count_ledger)
        assert await sign(services, clock) == 1

    monkeypatch.setattr(checkpoints, "_count_ledger", overtaken)
    assert await sign(services, clock) == 0
    assert len(await stored(services.database)) == 2
    assert await faults(services.database) == {}


async def test_no_checkpoint_is_signed_on_a_broken_ledger(services: Services, clock: ManualClock) -> None:
    clock.stop()
    [wallet] = await open_wallets(services, 1, 100)
    clock.advance(seconds=200)
    for _ in range(8):
        await move(services, Spec("debit", wallet, 1, fresh_key()))
    await services.database.raw[ENTRIES].delete_many({"_id": {"$lt": f"{wallet}#000000000008"}})
    with pytest.raises(LedgerChanged, match="missing"):
        await write_checkpoint(services.database, clock, KEYS, None)
    await services.database.raw[ACCOUNTS].update_one({"_id": wallet}, {"$set": {"seq": "8"}})
    with pytest.raises(LedgerChanged, match="cannot be read"):
        await write_checkpoint(services.database, clock, KEYS, None)
    assert await stored(services.database) == []


def test_checkpoint_file_survives_a_killed_writer(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints.jsonl"
    lines = [Line(number, f"jws-{number}") for number in range(1, 6)]
    assert append_missing(file, lines[:3]) is None
    whole = file.read_bytes()
    for cut in range(1, len(whole) + 1):
        file.write_bytes(whole[:cut])
        assert read_lines(file) == lines[: whole[:cut].count(b"\n")]
        assert append_missing(file, lines) is None
        assert read_lines(file) == lines
    assert append_missing(file, lines[:4]) == f"the database does not have checkpoint 5 of {file}, or has a different one"
    assert append_missing(file, [*lines[:4], Line(5, "other")]) is not None
    assert read_lines(file) == lines


def test_invalid_checkpoint_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints.jsonl"
    with pytest.raises(StartupRefused, match="cannot be read"):
        read_lines(file)
    file.write_text("a poem\n")
    with pytest.raises(StartupRefused, match="not a checkpoint file"):
        read_lines(file)
    with pytest.raises(StartupRefused, match="not a checkpoint file"):
        append_missing(file, [])
    with pytest.raises(StartupRefused, match="cannot be written"):
        append_missing(tmp_path, [])
    assert file.read_text() == "a poem\n"


def test_invalid_checkpoint_keys_are_refused() -> None:
    good = json.loads(TokenKeys.generate())["keys"][0]
    other = json.loads(TokenKeys.generate())["keys"][0]
    for bad in (
        "", "{}", '{"keys":[]}', json.dumps({"keys": [good, good]}), json.dumps({"keys": [{**good, "x": other["x"]}]}),
        json.dumps({"keys": [{**good, "crv": "X25519"}]}), json.dumps({"keys": [{**good, "x": "AA"}]}),
        json.dumps({"keys": [{**good, "d": "AA"}]}), json.dumps({"keys": [good] * 17}),
    ):  # fmt: skip
        with pytest.raises(StartupRefused, match="checkpoint keys"):
            CheckpointKeys(bad)
    keys = CheckpointKeys(json.dumps({"keys": [good]}))
    assert good["d"] not in keys.public_set()
    jws = keys.sign(b"{}")
    assert keys.read(jws) == b"{}"
    with pytest.raises(BadSignature):
        CheckpointKeys(json.dumps({"keys": [{**other, "kid": good["kid"]}]})).read(jws)
