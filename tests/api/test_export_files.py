"""The files of exports over HTTP: written by a worker, downloaded, started again, removed."""

import asyncio
import base64
import csv
import gzip
import hashlib
import io
from typing import Any

import pytest

from guerdon.database import Database
from guerdon.exports.files import CHUNK_BYTES
from guerdon.exports.models import EXPORT_CHUNKS, EXPORT_JOBS, OPEN_EACH_MAX
from guerdon.exports.running import STARTS_MAX, ExportLimits
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.exporting import LARGE, Exports
from tests.factories import Factory


@pytest.fixture
def exports(service: Caller, services: Services) -> Exports:
    return Exports(service, services)


# --- downloads ----------------------------------------------------------------------------------------------------------


async def test_a_download_says_what_it_is(exports: Exports, factory: Factory) -> None:
    await factory.wallet(100)
    export = await exports.done(list="entries", format="csv")
    answer = await exports.file(export, accept_encoding="identity")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="entries-{export["id"]}.csv"'
    assert int(answer.headers["content-length"]) == len(answer.content) == export["bytes"]
    digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert answer.headers["etag"] == f'"{export["sha256"]}"'
    assert "content-encoding" not in answer.headers
    types = {
        "parquet": "application/vnd.apache.parquet",
        "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    }
    for form, wanted in types.items():
        answer = await exports.file(await exports.done(list="entries", format=form))
        assert answer.headers["content-type"] == wanted
        assert "content-encoding" not in answer.headers


async def test_a_csv_is_sent_compressed_to_those_who_accept_it(exports: Exports, service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(LARGE)
    debit = {"type": "debit", "wallet": wallet, "amount": 1, "metadata": {"words": "x" * 200}}
    for _ in range(10):
        await factory.bulk([{**debit, "key": f"k{number}-{_}"} for number in range(300)])
    export = await exports.done(list="entries", format="csv")
    assert export["bytes"] > CHUNK_BYTES, "several chunks"
    whole = (await exports.file(export, accept_encoding="identity")).content
    url = f"/v1/exports/{export['id']}/file"
    headers = {"authorization": f"Bearer {service.token}", "accept-encoding": "br, gzip;q=0.5"}
    async with service.client.stream("GET", url, headers=headers) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(raw).digest()).decode()}:"
    assert gzip.decompress(raw) == whole
    assert len(raw) < len(whole) / 3
    assert hashlib.sha256(whole).hexdigest() == export["sha256"]
    refusing = await exports.file(export, accept_encoding="gzip;q=0")
    assert "content-encoding" not in refusing.headers
    for first, last in ((0, 0), (5, 99), (CHUNK_BYTES - 3, CHUNK_BYTES + 3), (CHUNK_BYTES, len(whole) - 1)):
        answer = await exports.file(export, range=f"bytes={first}-{last}", accept_encoding="gzip")
        assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes {first}-{last}/{len(whole)}")
        assert answer.content == whole[first : last + 1]
    assert (await exports.file(export, range="bytes=-7")).content == whole[-7:]
    assert (await exports.file(export, range=f"bytes={CHUNK_BYTES}-")).content == whole[CHUNK_BYTES:]
    etag = f'"{export["sha256"]}"'
    assert (await exports.file(export, range="bytes=1-2", if_range=etag)).status_code == 206
    for ignored in ("bytes=2-1", "bytes=0-1,3-4", "bytes=-", "lines=1-2", f"bytes={len(whole)}-"):
        assert (await exports.file(export, range=ignored)).status_code == 200
    assert (await exports.file(export, range="bytes=1-2", if_range='"other"')).status_code == 200


async def test_a_file_exists_only_when_it_is_complete(exports: Exports) -> None:
    created = await exports.create(list="wallets")
    problem(await exports.file(created), 409, "invalid-state")
    problem(await exports.service.get("/v1/exports/exp_1/file"), 404, "not-found")
    problem(await exports.service.get("/v1/exports/exp_1"), 404, "not-found")


# --- life --------------------------------------------------------------------------------------------------------------


async def test_a_file_expires_and_is_removed(exports: Exports, database: Database, clock: ManualClock) -> None:
    export = await exports.done(list="wallets")
    assert await exports.services.exporter.remove_due() == 0
    clock.advance(days=1)
    assert (await exports.read(export["id"]))["status"] == "expired", "before a worker has removed it"
    problem(await exports.file(export), 409, "invalid-state")
    assert await exports.services.exporter.remove_due() == 1
    assert await exports.services.exporter.remove_due() == 0
    assert await database.raw[EXPORT_CHUNKS].count_documents({}) == 0
    row = await database.raw[EXPORT_JOBS].find_one({"_id": export["id"]})
    assert row is not None
    assert "wrapped" not in row
    assert (await exports.read(export["id"]))["status"] == "expired"


async def test_an_export_can_be_deleted_at_any_time(exports: Exports, database: Database) -> None:
    waiting, done = await exports.create(list="wallets"), await exports.done(list="campaigns")
    assert (await exports.read(waiting["id"]))["status"] == "done", "the oldest one was written first"
    for export in (waiting, done):
        answer = await exports.service.delete(f"/v1/exports/{export['id']}")
        assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (200, export["id"], "expired")
        problem(await exports.service.get(f"/v1/exports/{export['id']}"), 404, "not-found")
        problem(await exports.service.delete(f"/v1/exports/{export['id']}"), 404, "not-found")
    assert await database.raw[EXPORT_JOBS].count_documents({}) == 0
    assert await database.raw[EXPORT_CHUNKS].count_documents({}) == 0


async def test_exports_are_listed_newest_first(exports: Exports) -> None:
    ids = [(await exports.create(list="wallets"))["id"] for _ in range(3)]
    page = (await exports.service.get("/v1/exports", limit=2)).json()
    assert [each["id"] for each in page["items"]] == [ids[2], ids[1]]
    page = (await exports.service.get("/v1/exports", limit=2, cursor=page["next_cursor"])).json()
    assert ([each["id"] for each in page["items"]], page["next_cursor"]) == ([ids[0]], None)
    problem(await exports.service.get("/v1/exports", cursor="x"), 422, "validation")


async def test_one_caller_cannot_fill_the_queue(exports: Exports, services: Services, anonymous: Caller) -> None:
    for _ in range(OPEN_EACH_MAX):
        await exports.create(list="wallets")
    problem(await exports.service.post("/v1/exports", {"list": "wallets"}), 409, "invalid-state")
    other = anonymous.with_token(await services.access.create_key("other", ["*"]))
    assert (await other.post("/v1/exports", {"list": "wallets"})).status_code == 202
    await services.exporter.work(1)
    assert (await exports.service.post("/v1/exports", {"list": "wallets"})).status_code == 202


async def test_a_worker_starts_the_file_of_a_dead_worker_again(
    exports: Exports, factory: Factory, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet = await factory.wallet(LARGE)
    for number in range(6):
        debits = [
            {
                "type": "debit",
                "wallet": wallet,
                "amount": 1,
                "key": f"d{number}-{each}",
                "metadata": {"words": "y" * 200},
            }
            for each in range(500)
        ]
        await factory.bulk(debits)
    created = await exports.create(list="entries")
    exporter = exports.services.exporter
    task = asyncio.create_task(exporter.work(1))
    while not (await exports.read(created["id"]))["bytes"]:
        await asyncio.sleep(0)
        assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    half = await exports.read(created["id"])
    assert (half["status"], half["sha256"]) == ("running", None)
    problem(await exports.file(created), 409, "invalid-state")
    await exporter.work(2)
    assert (await exports.read(created["id"]))["status"] == "running", "another lane leaves it alone"
    await exporter.work(1)
    export = await exports.read(created["id"])
    assert (export["status"], export["rows"]) == ("done", 3001)
    ids = [row["id"] for row in csv.DictReader(io.StringIO((await exports.content(export)).decode(), newline=""))]
    assert len(set(ids)) == len(ids) == 3001
    chunks = [row["_id"] async for row in database.raw[EXPORT_CHUNKS].find({}, {"_id": 1})]
    assert {each.split("/")[1] for each in chunks} == {"000002"}, "the half file is gone"


async def test_a_worker_without_the_lease_writes_nothing(
    exports: Exports, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers at the same lane: the later start wins, and the earlier one ends without a word."""
    created = await exports.create(list="wallets")
    files = exports.services.exporter._files
    make = files.writer

    def writer(*arguments: Any) -> Any:
        made = make(*arguments)
        finish = made.finish

        async def finish_late() -> Any:
            monkeypatch.undo()
            await exports.services.exporter.work(1)
            return await finish()

        made.finish = finish_late
        return made

    monkeypatch.setattr(files, "writer", writer)
    await exports.services.exporter.work(1)
    export = await exports.read(created["id"])
    await exports.content(export)
    chunks = [row["_id"] async for row in database.raw[EXPORT_CHUNKS].find({}, {"_id": 1})]
    assert {each.split("/")[1] for each in chunks} == {"000002"}


async def test_an_export_fails_after_several_starts(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    created = await exports.create(list="wallets")

    async def fail(*_: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(exports.services.exporter.sources, "open", fail)
    for _ in range(STARTS_MAX):
        with pytest.raises(RuntimeError):
            await exports.services.exporter.work(1)
    await exports.services.exporter.work(1)
    export = await exports.read(created["id"])
    assert (export["status"], export["error"]) == ("failed", f"the export was started {STARTS_MAX} times without an end")
    problem(await exports.file(created), 409, "invalid-state")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ExportLimits(hours=24, rows_max=1, mib_max=1), "an export has at most 1 rows; narrow the query"),
        (ExportLimits(hours=24, rows_max=100, mib_max=0), "no room left"),
    ],
)
async def test_an_export_beyond_the_limits_fails_and_says_why(
    exports: Exports, factory: Factory, database: Database, limits: ExportLimits, words: str
) -> None:
    await factory.wallet(0)
    exports.services.exporter._limits = limits
    created = await exports.create(list="entries")
    await exports.services.exporter.work(1)
    export = await exports.read(created["id"])
    assert export["status"] == "failed"
    assert words in export["error"]
    await exports.services.exporter.remove_due()
    assert await database.raw[EXPORT_CHUNKS].count_documents({}) == 0
    assert (await exports.read(created["id"]))["status"] == "failed"


async def test_a_workbook_with_too_many_rows_is_refused(
    exports: Exports, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await factory.wallet(0)
    spec = exports.services.exporter.__class__._counted.__globals__["FORMATS"]
    monkeypatch.setitem(spec, "xlsx", spec["xlsx"].__class__(spec["xlsx"].media_type, spec["xlsx"].encode, (), rows_max=1))
    created = await exports.create(list="entries", format="xlsx")
    await exports.services.exporter.work(1)
    export = await exports.read(created["id"])
    assert (export["status"], export["error"]) == (
        "failed", "xlsx holds at most 1 rows; use csv or parquet, or narrow the query",
    )  # fmt: skip


async def test_writes_during_an_export_neither_repeat_nor_omit_rows(
    exports: Exports, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallets = [await factory.wallet(10) for _ in range(4)]
    before = {row["id"] for row in await exports.rows(list="entries")}
    reading = exports.services.exporter.sources.open.__globals__["ListReader"].entries.__globals__
    monkeypatch.setitem(reading, "PAGE_ROWS", 1)
    created = await exports.create(list="entries")
    task = asyncio.create_task(exports.services.exporter.work(1))
    number = 0
    while not task.done():
        number += 1
        await exports.service.post(f"/v1/wallets/{wallets[number % 4]}/credit", {"amount": 1})
        await factory.wallet(5)
    await task
    content = await exports.content(await exports.read(created["id"]))
    ids = [row["id"] for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]
    assert len(ids) == len(set(ids))
    assert before <= set(ids)
    as_of = (await exports.read(created["id"]))["as_of"]
    times = [row["created_at"] for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]
    assert all(time <= as_of for time in times)


async def test_the_export_of_a_past_period_is_the_same_file_each_time(
    exports: Exports, factory: Factory, clock: ManualClock
) -> None:
    await factory.wallet(10)
    clock.advance(days=1)
    query = {"to": "2031-01-01T00:00:00Z", "asset": "PTS"}
    first, second = [await exports.done(list="entries", query=query) for _ in range(2)]
    assert first["sha256"] == second["sha256"]
