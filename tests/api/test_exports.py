"""Exports over HTTP: the rows of each list, read back by other programs; who may ask for what."""

import csv
import io
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pytest

from guerdon.database import Database
from guerdon.exports.lists import LISTS
from guerdon.exports.models import EXPORT_CHUNKS
from guerdon.wiring.services import Services
from tests.clients import Caller, problem
from tests.exporting import LARGE, Exports
from tests.factories import Factory
from tests.views.build import build_views


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


# --- reports ------------------------------------------------------------------------------------------------------------


async def test_every_report_is_that_of_the_api(exports: Exports, service: Caller, factory: Factory, tmp_path: Path) -> None:
    """The CSV of an export is the CSV of the report; in Parquet figures are numbers."""
    await fill(service, factory)
    await factory.campaign()
    assert (await service.post("/v1/events", factory.event())).status_code == 201
    await build_views(exports.services)
    listed = (await service.get("/v1/reports")).json()["items"]
    assert {"roll-forward", "liability"} <= {each["name"] for each in listed}
    for report in listed:
        needs = {parameter["name"] for parameter in report["parameters"] if parameter["required"]}
        if not needs <= {"asset"} or "{" in report["path"]:
            continue
        query = {"asset": "PTS"} if needs else {}
        answer = await service.client.get(
            report["path"], params=query, headers={"authorization": f"Bearer {service.token}", "accept": "text/csv"}
        )
        assert answer.status_code == 200, answer.text
        export = await exports.done(report=report["name"], query=query, format="csv")
        assert (await exports.content(export)).decode() == answer.text, report["name"]
        assert export["rows"] == len(answer.text.splitlines()) - 1
        path = tmp_path / f"{report['name']}.parquet"
        path.write_bytes(await exports.content(await exports.done(report=report["name"], query=query, format="parquet")))
        with duckdb.connect() as connection:
            table = connection.read_parquet(str(path))
            types = dict(zip(table.columns, map(str, table.types), strict=True))
            assert list(types) == answer.text.splitlines()[0].split(",")
            assert types["scale"] == "BIGINT"
            rows = [[str(each) for each in row if isinstance(each, int) and not isinstance(each, bool)] for row in table.fetchall()]
        cells = list(csv.reader(io.StringIO(answer.text, newline="")))[1:]
        assert all(set(figures) <= set(line) for figures, line in zip(rows, cells, strict=True)), report["name"]


async def test_a_report_that_cannot_be_made_fails_with_its_reason(exports: Exports, service: Caller) -> None:
    body = {"report": "roll-forward", "query": {"asset": "PTS", "from": "2026-02-01", "to": "2026-01-01"}}
    created = await exports.create(**body)
    await build_views(exports.services)
    await exports.services.exporter.work(1)
    export = await exports.read(created["id"])
    assert export["status"] == "failed"
    assert "to: must not be before" in export["error"]
    problem(await service.post("/v1/exports", {"report": "roll-forward"}), 422, "validation")


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
    exports.services.exporter.sources._read_from = "secondaryPreferred"
    wallet = await factory.wallet(10)
    assert [row["id"] for row in await exports.rows(list="wallets")] == [wallet]
