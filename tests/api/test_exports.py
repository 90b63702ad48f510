"""Exports over HTTP: created, written by a worker, downloaded, read back by other programs, removed."""

import asyncio
import base64
import csv
import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import duckdb
import httpx
import openpyxl
import pytest

from guerdon.database import Database
from guerdon.exports.files import CHUNK_BYTES
from guerdon.exports.lists import LISTS
from guerdon.exports.models import EXPORT_CHUNKS, EXPORT_JOBS, OPEN_EACH_MAX
from guerdon.exports.running import STARTS_MAX, ExportLimits
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

LARGE = 9_876_543_210


class Exports:
    """Asks for exports, and does a worker's work."""

    def __init__(self, service: Caller, services: Services) -> None:
        self.service = service
        self.services = services

    async def create(self, **body: Any) -> dict[str, Any]:
        answer = await self.service.post("/v1/exports", body)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/v1/exports/{answer.json()['id']}"
        return dict(answer.json())

    async def read(self, export_id: str) -> dict[str, Any]:
        answer = await self.service.get(f"/v1/exports/{export_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def done(self, **body: Any) -> dict[str, Any]:
        """An export that a worker has written."""
        created = await self.create(**body)
        assert (created["status"], created["rows"], created["sha256"], created["expires_at"]) == ("waiting", 0, None, None)
        await self.services.exporter.work(1)
        export = await self.read(created["id"])
        assert (export["status"], export["error"]) == ("done", None), export
        return export

    async def file(self, export: dict[str, Any], **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"/v1/exports/{export['id']}/file"
        return await self.service.client.get(url, headers={"authorization": f"Bearer {self.service.token}", **named})

    async def content(self, export: dict[str, Any]) -> bytes:
        """The file, whose size and digest are what the export says."""
        answer = await self.file(export)
        assert answer.status_code == 200, answer.text
        assert (len(answer.content), hashlib.sha256(answer.content).hexdigest()) == (export["bytes"], export["sha256"])
        return answer.content

    async def rows(self, **body: Any) -> list[dict[str, str]]:
        """The rows of a CSV."""
        export = await self.done(format="csv", **body)
        rows = list(csv.DictReader(io.StringIO((await self.content(export)).decode(), newline="")))
        assert len(rows) == export["rows"]
        return rows


@pytest.fixture
def exports(service: Caller, services: Services) -> Exports:
    return Exports(service, services)


async def all_items(service: Caller, path: str, **params: Any) -> list[dict[str, Any]]:
    """Every item of a list, newest first."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        answer = await service.get(path, limit=100, **params, **({} if cursor is None else {"cursor": cursor}))
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return items


async def fill(service: Caller, factory: Factory) -> list[str]:
    """Wallets of assets with the scales 0, 2 and 3, with amounts of ten digits, negative amounts, lots, a hold and words of many kinds."""
    for code, scale in (("JPY", 0), ("KWD", 3)):
        assert (await service.post("/v1/assets", {"code": code, "scale": scale})).status_code == 201
    wallets = [await factory.wallet(LARGE, asset) for asset in ("PTS", "GBP", "JPY", "KWD")]
    for number, words in enumerate(("=1+1", "+44", "-2", "@SUM(A1)", "Grüße, «東京» 👋🏽", 'a "quoted", text', "'quoted")):
        body = {"amount": 7, "reason": words, "reference": f"{words}-{number}", "metadata": {"note": words}}
        assert (await service.post(f"/v1/wallets/{wallets[number % 4]}/debit", body)).status_code == 201
    lots = {"amount": 30, "expires_at": "2031-01-01T00:00:00Z", "source": "promotional"}
    assert (await service.post(f"/v1/wallets/{wallets[0]}/credit", lots)).status_code == 201
    assert (await service.post("/v1/holds", {"wallet": wallets[0], "amount": 5})).status_code == 201
    return wallets


async def expected_entries(service: Caller, wallets: list[str]) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for wallet in wallets:
        for entry in await all_items(service, f"/v1/wallets/{wallet}/entries"):
            entries[entry["id"]] = {
                **entry,
                "account": wallet,
                "member_id": wallet.partition(":")[0],
                "asset": wallet.partition(":")[2],
            }
    return entries


SCALES = {"PTS": 0, "GBP": 2, "JPY": 0, "KWD": 3}


# --- the same values as the API ------------------------------------------------------------------------------------------


async def test_entries_in_csv_are_those_of_the_api(exports: Exports, service: Caller, factory: Factory) -> None:
    wallets = await fill(service, factory)
    expected = await expected_entries(service, wallets)
    rows = await exports.rows(list="entries")
    assert [row["id"] for row in rows] == sorted(expected)
    for row in rows:
        entry = expected[row["id"]]
        for name in ("seq", "amount", "balance_after", "held_after"):
            assert int(row[name]) == entry[name]
        assert int(row["scale"]) == SCALES[row["asset"]]
        for name in ("account", "member_id", "asset", "kind", "counter", "transaction_id", "created_at", "hash"):
            assert row[name] == entry[name]
        for name in ("reference", "reason", "hold", "reverses", "effective_at", "rate"):
            assert plain(row[name]) == (entry.get(name) or ""), name
        assert bool(row["metadata"]) == bool(entry["metadata"])
        assert bool(row["lots"]) == bool(entry.get("lots"))
    await factory.assert_books_balance()


def plain(cell: str) -> str:
    """The text of a cell of a CSV. One that a spreadsheet would run as a formula has an apostrophe in front."""
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell
    return cell[1:] if cell.startswith(("'=", "'+", "'-", "'@")) else cell


async def test_entries_in_parquet_are_those_of_the_api(exports: Exports, service: Caller, factory: Factory, tmp_path: Path) -> None:
    """Read by another program, with its types: whole numbers of 64 bits, and times with a zone."""
    expected = await expected_entries(service, await fill(service, factory))
    export = await exports.done(list="entries", format="parquet")
    path = tmp_path / "entries.parquet"
    path.write_bytes(await exports.content(export))
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        table = connection.read_parquet(str(path))
        names = list(table.columns)
        types = dict(zip(names, map(str, table.types), strict=True))
        rows = [dict(zip(names, row, strict=True)) for row in table.fetchall()]
    assert names == [column.name for column in LISTS["entries"].columns]
    assert {types[name] for name in ("seq", "scale", "amount", "balance_after", "held_after")} == {"BIGINT"}
    assert {types[name] for name in ("created_at", "effective_at")} == {"TIMESTAMP WITH TIME ZONE"}
    assert [row["id"] for row in rows] == sorted(expected)
    for row in rows:
        entry = expected[row["id"]]
        for name in (
            "seq",
            "amount",
            "balance_after",
            "held_after",
            "account",
            "asset",
            "kind",
            "counter",
            "transaction_id",
            "hash",
        ):
            assert row[name] == entry[name]
        for name in ("reference", "reason", "hold", "reverses", "rate"):
            assert row[name] == entry.get(name)
        assert row["scale"] == SCALES[row["asset"]]
        assert row["created_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z") == entry["created_at"]


async def test_entries_in_a_workbook_are_those_of_the_api(exports: Exports, service: Caller, factory: Factory) -> None:
    expected = await expected_entries(service, await fill(service, factory))
    export = await exports.done(list="entries", format="xlsx")
    book = openpyxl.load_workbook(io.BytesIO(await exports.content(export)), read_only=True)
    header, *rows = book.worksheets[0].iter_rows(values_only=True)
    assert header == tuple(column.name for column in LISTS["entries"].columns)
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["id"] for row in cells] == sorted(expected)
    for row in cells:
        entry = expected[row["id"]]
        for name in ("seq", "amount", "balance_after", "held_after", "account", "kind", "counter", "created_at", "hash"):
            assert row[name] == entry[name]
        for name in ("reference", "reason", "hold"):
            assert row[name] == entry.get(name)
    formulas = [cell for row in openpyxl.load_workbook(io.BytesIO(await exports.content(export))).worksheets[0] for cell in row]
    assert all(cell.data_type != "f" for cell in formulas)
    book.close()


async def test_wallets_are_those_of_the_api(exports: Exports, service: Caller, factory: Factory) -> None:
    wallets = await fill(service, factory)
    rows = {row["id"]: row for row in await exports.rows(list="wallets")}
    assert sorted(rows) == sorted(wallets)
    for wallet in wallets:
        view = (await service.get(f"/v1/wallets/{wallet}")).json()
        row = rows[wallet]
        for name in ("balance", "held", "available", "pending", "expired", "seq"):
            assert int(row[name]) == view[name], name
        assert (row["status"], row["asset"], row["member_id"]) == (view["status"], view["asset"], view["member_id"])
        assert int(row["scale"]) == SCALES[row["asset"]]


async def test_events_are_those_of_the_api(exports: Exports, service: Caller, factory: Factory) -> None:
    await factory.campaign()
    bodies = [factory.event(occurred_at=f"2026-01-{day}T12:00:00Z") for day in (20, 10, 30)]
    for body in bodies:
        assert (await service.post("/v1/events", body)).status_code == 201
    assert (await service.post(f"/v1/events/{bodies[0]['id']}/void", {"reason": "sent twice"})).status_code in (200, 201)
    rows = await exports.rows(list="events")
    assert [row["id"] for row in rows] == [bodies[number]["id"] for number in (1, 0, 2)]
    for row in rows:
        event = (await service.get(f"/v1/events/{row['id']}")).json()
        for name in ("member_id", "type", "currency", "occurred_at", "recorded_at"):
            assert row[name] == event[name]
        assert (int(row["amount"]), row["scale"]) == (event["amount"], "2")
        assert row["status"] == event.get("status", "recorded")
        assert event["awards"][0]["transaction_id"] in row["awards"]
    assert [row["status"] for row in rows] == ["recorded", "voided", "recorded"]
    within = {"from": "2026-01-15T00:00:00Z", "to": "2026-01-25T00:00:00Z"}
    assert [row["id"] for row in await exports.rows(list="events", query=within)] == [bodies[0]["id"]]
    assert await exports.rows(list="events", query={"type": "refund"}) == []
    await factory.assert_books_balance()


async def test_vouchers_are_those_of_the_api(exports: Exports, service: Caller, factory: Factory) -> None:
    member = await factory.member()
    await factory.wallet(5000, "PTS", member)
    free = await factory.offer(voucher_valid_days=10)
    card = await factory.offer(
        kind="gift_card", value={"type": "fixed", "amount": 1000, "currency": "GBP"}, price={"asset": "PTS", "amount": 1000}
    )
    for offer in (free, card, free):
        await factory.voucher(offer, member)
    views = {each["id"]: each for each in await all_items(service, f"/v1/members/{member}/vouchers")}
    rows = await exports.rows(list="vouchers")
    assert {row["id"] for row in rows} == set(views)
    for row in rows:
        view = views[row["id"]]
        for name in ("offer", "kind", "name", "status", "issued_at", "member_id"):
            assert row[name] == view[name]
        assert (row["expires_at"] or None, row["transaction_id"] or None) == (view["expires_at"], view["transaction_id"])
        assert int(row["uses_left"]) == view["uses_left"]
        assert row["balance"] == ("" if view["balance"] is None else str(view["balance"]))
        assert row["price_amount"] == ("" if view["price"] is None else str(view["price"]["amount"]))
        assert view["code"] not in str(row), "codes are not exported: whoever reads the file could use them"
    assert [row["currency"] for row in rows if row["kind"] == "gift_card"] == ["GBP"]
    assert len(await exports.rows(list="vouchers", query={"offer": free})) == 2
    await factory.assert_books_balance()


async def test_campaigns_are_those_of_the_api(exports: Exports, service: Caller, factory: Factory) -> None:
    first = await factory.campaign(name="=cmd|' /C calc'!A0", budget=LARGE)
    second = await factory.campaign(active=False, starts_at="2031-01-01T00:00:00Z")
    rows = await exports.rows(list="campaigns")
    assert [row["id"] for row in rows] == [first, second]
    for row in rows:
        view = (await service.get(f"/v1/campaigns/{row['id']}")).json()
        assert plain(row["name"]) == view["name"]
        for name in ("status", "asset", "created_at", "changed_at"):
            assert row[name] == view[name]
        assert (int(row["version"]), row["budget"] or None) == (view["version"], view["budget"] and str(view["budget"]))
        assert (row["starts_at"] or None) == view["starts_at"]
    assert [row["id"] for row in await exports.rows(list="campaigns", query={"status": "draft"})] == [second]


@pytest.mark.parametrize("name", sorted(LISTS))
@pytest.mark.parametrize("form", ["csv", "parquet", "xlsx"])
async def test_an_empty_list_is_a_file_without_rows(exports: Exports, name: str, form: str, tmp_path: Path) -> None:
    export = await exports.done(list=name, format=form)
    assert export["rows"] == 0
    content = await exports.content(export)
    columns = [column.name for column in LISTS[name].columns]  # type: ignore[index]
    if form == "csv":
        assert content.decode() == ",".join(columns) + "\r\n"
    elif form == "parquet":
        path = tmp_path / "empty.parquet"
        path.write_bytes(content)
        with duckdb.connect() as connection:
            table = connection.read_parquet(str(path))
            assert (table.fetchall(), list(table.columns)) == ([], columns)
    else:
        assert [list(row) for row in openpyxl.load_workbook(io.BytesIO(content)).worksheets[0].values] == [columns]


# --- members, and what is personal ------------------------------------------------------------------------------------------


async def test_members_have_personal_columns_only_on_request(exports: Exports, service: Caller, anonymous: Caller) -> None:
    body = {"external_id": "17850", "email": "ada@example.com", "attributes": {"country": "GB"}}
    member = (await service.post("/v1/members", body)).json()
    [row] = await exports.rows(list="members")
    assert row == {
        "id": member["id"], "external_id": "17850", "role": "member", "status": "active", "tier": "", "created_at": member["created_at"],
    }  # fmt: skip
    [row] = await exports.rows(list="members", personal=True)
    assert (row["email"], row["attributes"]) == ("ada@example.com", '{"country":"GB"}')
    reader = anonymous.with_token(await exports.services.access.create_key("r", ["exports:write", "exports:read", "members:read"]))
    asked = {"list": "members", "format": "csv", "personal": True}
    assert "members:export" in problem(await reader.post("/v1/exports", asked), 403, "forbidden")["detail"]
    export = await exports.done(**asked)
    problem(await reader.get(f"/v1/exports/{export['id']}/file"), 403, "forbidden")


async def test_an_erased_member_has_no_personal_data_in_any_file(exports: Exports, service: Caller, database: Database) -> None:
    bodies = [{"external_id": name, "email": f"{name}@example.com", "attributes": {}} for name in ("ada", "bob")]
    members = [(await service.post("/v1/members", body)).json()["id"] for body in bodies]
    before = await exports.done(list="members", personal=True)
    others = await exports.done(list="wallets")
    stored = [bytes(chunk["data"]) async for chunk in database.raw[EXPORT_CHUNKS].find({})]
    assert not any(b"ada@" in data or b"created_at" in data for data in stored), "files are sealed at rest"

    assert (await service.post(f"/v1/members/{members[0]}/erase")).status_code == 200
    problem(await exports.file(before), 409, "invalid-state")
    withdrawn = await exports.read(before["id"])
    assert (withdrawn["status"], withdrawn["error"] is None) == ("expired", False)
    assert (await exports.file(others)).status_code == 200
    await exports.services.exporter.remove_due()
    assert await database.raw[EXPORT_CHUNKS].count_documents({"_id": {"$gt": before["id"], "$lt": before["id"] + "0"}}) == 0

    rows = {row["id"]: row for row in await exports.rows(list="members", personal=True)}
    assert (rows[members[0]]["status"], rows[members[0]]["external_id"], rows[members[0]]["email"]) == ("erased", "", "")
    assert rows[members[1]]["email"] == "bob@example.com"


async def test_a_file_that_is_written_during_an_erasure_is_written_again(
    exports: Exports, service: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"external_id": "ada", "email": "ada@example.com", "attributes": {}}
    member = (await service.post("/v1/members", body)).json()["id"]
    created = await exports.create(list="members", personal=True)
    files = exports.services.exporter._files
    make = files.writer

    def writer(*arguments: Any) -> Any:
        """A writer that is slow at the end of the first file: meanwhile the member is erased."""
        made = make(*arguments)
        finish = made.finish

        async def finish_late() -> Any:
            monkeypatch.undo()
            assert (await service.post(f"/v1/members/{member}/erase")).status_code == 200
            return await finish()

        made.finish = finish_late
        return made

    monkeypatch.setattr(files, "writer", writer)
    await exports.services.exporter.work(1)
    content = await exports.content(await exports.read(created["id"]))
    assert member in content.decode()
    assert b"ada" not in content


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

    monkeypatch.setattr(exports.services.exporter._sources, "open", fail)
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
    reading = exports.services.exporter._sources.open.__globals__["ListReader"].entries.__globals__
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


# --- who and what --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({}, "/list", "name either a list or a report"),
        ({"list": "entries", "report": "roll-forward"}, "/list", "name either a list or a report"),
        ({"list": "sessions"}, "/list", "must be one of"),
        ({"list": "entries", "format": "pdf"}, "/format", "must be one of"),
        ({"list": "entries", "personal": True}, "/personal", "only the list members"),
        ({"list": "entries", "query": {"since": "2026-01-01"}}, "/query/since", "is not a known field"),
        ({"list": "entries", "query": {"from": "yesterday"}}, "/query/from", "must be a time such as"),
        ({"list": "entries", "query": {"from": "2026-02-31T00:00:00Z"}}, "/query/from", "the time does not exist"),
        ({"list": "entries", "query": {"from": 5}}, "/query/from", "must be text"),
        (
            {"list": "events", "query": {"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}},
            "/query/to",
            "must not be before from",
        ),
        ({"list": "campaigns", "query": {"status": "gone"}}, "/query/status", "must be one of"),
        ({"list": "vouchers", "query": {"offer": "off_1"}}, "/query/offer", "must be an offer id"),
    ],
)
async def test_a_bad_request_names_the_field(exports: Exports, body: dict[str, Any], pointer: str, words: str) -> None:
    errors = problem(await exports.service.post("/v1/exports", body), 422, "validation")["errors"]
    assert [each["pointer"] for each in errors] == [pointer]
    assert words in errors[0]["detail"]


async def test_what_does_not_exist_is_not_found(exports: Exports) -> None:
    problem(await exports.service.post("/v1/exports", {"list": "entries", "query": {"asset": "NONE"}}), 404, "not-found")
    problem(await exports.service.post("/v1/exports", {"report": "no-such-report"}), 404, "not-found")


@pytest.mark.parametrize(("form", "module"), [("parquet", "arro3.io"), ("xlsx", "xlsxwriter")])
async def test_a_format_without_its_extra_is_refused(
    exports: Exports, form: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await exports.create(list="wallets", format=form)
    monkeypatch.setattr("guerdon.exports.formats.find_spec", lambda name: None if name == module else object())
    [error] = problem(await exports.service.post("/v1/exports", {"list": "wallets", "format": form}), 422, "validation")["errors"]
    assert error["pointer"] == "/format"
    assert f"pip install 'guerdon[{form}]'" in error["detail"]
    await exports.services.exporter.work(1)
    export = await exports.read(created["id"])
    assert export["status"] == "failed"
    assert f"guerdon[{form}]" in export["error"], "a worker that lacks it says so too"


@pytest.mark.parametrize("name", sorted(LISTS))
async def test_a_list_needs_the_scope_that_reads_it(exports: Exports, anonymous: Caller, name: str) -> None:
    create_key = exports.services.access.create_key
    alone = anonymous.with_token(await create_key("a", ["exports:write", "exports:read"]))
    both = anonymous.with_token(await create_key("b", ["exports:write", "exports:read", LISTS[name].scope]))  # type: ignore[index]
    reads = anonymous.with_token(await create_key("c", ["exports:read"]))
    problem(await alone.post("/v1/exports", {"list": name}), 403, "forbidden")
    problem(await reads.post("/v1/exports", {"list": name}), 403, "forbidden")
    problem(await anonymous.post("/v1/exports", {"list": name}), 401, "unauthenticated")
    answer = await both.post("/v1/exports", {"list": name})
    assert answer.status_code == 202
    await exports.services.exporter.work(1)
    path = f"/v1/exports/{answer.json()['id']}"
    assert (await both.get(f"{path}/file")).status_code == 200
    problem(await alone.get(f"{path}/file"), 403, "forbidden")
    assert (await reads.get(path)).status_code == 200, "what an export is, though not its file"
    problem(await reads.delete(path), 403, "forbidden")


async def test_creation_and_download_are_in_the_audit_log(exports: Exports) -> None:
    export = await exports.done(list="members", personal=True)
    await exports.file(export)
    await exports.service.delete(f"/v1/exports/{export['id']}")
    records = [each for each in (await exports.service.get("/v1/audit")).json()["items"] if "Export" in each["action"]]
    facts = {"export": export["id"], "content": "list members", "format": "csv", "personal": "yes"}
    assert [(each["action"], each["phase"], each["status"]) for each in records] == [
        ("deleteExport", "answered", 200), ("deleteExport", "asked", None), ("downloadExport", "answered", 200),
        ("downloadExport", "asked", None), ("createExport", "answered", 202), ("createExport", "asked", None),
    ]  # fmt: skip
    assert [each["facts"] for each in records if each["phase"] == "answered"][1:] == [facts, facts]


async def test_secondaries_are_asked_only_for_what_they_have(exports: Exports, factory: Factory) -> None:
    """With a single member there is no secondary, and the primary answers."""
    exports.services.export_sources._read_from = "secondaryPreferred"
    wallet = await factory.wallet(10)
    assert [row["id"] for row in await exports.rows(list="wallets")] == [wallet]
