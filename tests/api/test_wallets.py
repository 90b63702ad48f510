"""Wallets over HTTP: what goes in, out and across, and the history that it leaves."""

import re
from typing import Any

import pytest

from guerdon.http.cursor import encode_cursor
from guerdon.money import AMOUNT_MAX, BALANCE_CEILING
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def entries_of(service: Caller, wallet: str, **query: Any) -> list[dict[str, Any]]:
    """All entries, page by page to the end."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        wanted = query if cursor is None else {**query, "cursor": cursor}
        answer = await service.get(f"/v1/wallets/{wallet}/entries", **wanted)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


async def test_the_first_credit_opens_the_wallet(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    wallet = f"{member}:PTS"
    problem(await service.get(f"/v1/wallets/{wallet}"), 404, "not-found")
    body = {"amount": 500, "reason": "welcome", "reference": "r-1", "expires_at": None, "metadata": {"till": "4"}}
    answer = await service.post(f"/v1/wallets/{wallet}/credit", body)
    assert answer.status_code == 201
    transaction = answer.json()
    assert transaction.pop("id") == f"txn_{wallet}:1"
    assert TIME.fullmatch(transaction.pop("created_at"))
    assert transaction == {
        "kind": "credit", "wallet": wallet, "asset": "PTS", "amount": 500, "balance": 500, "available": 500, "seq": 1,
        "reference": "r-1", "reason": "welcome", "metadata": {"till": "4"},
    }  # fmt: skip
    read = await service.get(f"/v1/wallets/{wallet}")
    assert read.json() == {
        "id": wallet, "member_id": member, "asset": "PTS", "balance": 500, "held": 0, "available": 500, "pending": 0, "expired": 0,
        "status": "open", "seq": 1, "terms": {"credit_limit": 0, "ceiling": None, "day_limit": None, "month_limit": None},
        "expires_next": None,
    }  # fmt: skip
    await factory.assert_books_balance()


async def test_a_debit_takes_down_to_zero_and_no_further(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    taken = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 40, "reference": "order-1"})
    assert taken.status_code == 201
    assert (taken.json()["kind"], taken.json()["amount"], taken.json()["balance"]) == ("debit", 40, 60)
    refused = problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 61}), 409, "insufficient-funds")
    assert (refused["asset"], refused["available"], refused["needed"]) == ("PTS", 60, 61)
    emptied = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 60})
    assert (emptied.json()["balance"], emptied.json()["seq"]) == (0, 3)
    await factory.assert_books_balance()


async def test_a_transfer_moves_value_and_opens_its_target(service: Caller, factory: Factory) -> None:
    source, target = await factory.wallet(100), f"{await factory.member()}:PTS"
    answer = await service.post("/v1/transfers", {"from": source, "to": target, "amount": 30, "reference": "gift"})
    assert answer.status_code == 201
    sent = answer.json()
    assert (sent["kind"], sent["wallet"], sent["to"], sent["amount"], sent["balance"]) == ("transfer", source, target, 30, 70)
    assert (await factory.balance(source), await factory.balance(target)) == (70, 30)
    [arrived] = await entries_of(service, target)
    assert (arrived["amount"], arrived["counter"], arrived["transaction_id"]) == (30, source, sent["id"])
    [left, _] = await entries_of(service, source)
    assert (left["amount"], left["counter"], left["transaction_id"]) == (-30, target, sent["id"])
    await factory.assert_books_balance()


async def test_a_transfer_needs_two_wallets_of_one_asset(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    points, pounds = await factory.wallet(10, member=member), await factory.wallet(10, "GBP", member)
    for target in (points, pounds):
        refused = problem(await service.post("/v1/transfers", {"from": points, "to": target, "amount": 1}), 422, "validation")
        assert refused["errors"][0]["pointer"] == "/to"
    assert (await factory.balance(points), await factory.balance(pounds)) == (10, 10)
    await factory.assert_books_balance()


async def test_a_transfer_of_too_much_opens_nothing(service: Caller, factory: Factory) -> None:
    source, target = await factory.wallet(10), f"{await factory.member()}:PTS"
    problem(await service.post("/v1/transfers", {"from": source, "to": target, "amount": 11}), 409, "insufficient-funds")
    problem(await service.get(f"/v1/wallets/{target}"), 404, "not-found")
    assert await factory.balance(source) == 10
    await factory.assert_books_balance()


@pytest.mark.parametrize("wallet", [f"{NOBODY}:PTS", "{member}:NOSUCH", "{member}:pts", "{member}", "nonsense", "system:issuer"])
async def test_unknown_member_or_asset_moves_no_value(service: Caller, factory: Factory, wallet: str) -> None:
    other = await factory.wallet(10)
    unknown = wallet.format(member=await factory.member())
    problem(await service.post(f"/v1/wallets/{unknown}/credit", {"amount": 1}), 404, "not-found")
    problem(await service.post(f"/v1/wallets/{unknown}/debit", {"amount": 1}), 404, "not-found")
    problem(await service.get(f"/v1/wallets/{unknown}"), 404, "not-found")
    problem(await service.get(f"/v1/wallets/{unknown}/entries"), 404, "not-found")
    target = other.replace("PTS", unknown.partition(":")[2] or "PTS")
    problem(await service.post("/v1/transfers", {"from": unknown, "to": target, "amount": 1}), 404, "not-found")
    assert await factory.balance(other) == 10
    await factory.assert_books_balance()


async def test_transfer_to_an_unknown_member_is_refused(service: Caller, factory: Factory) -> None:
    source = await factory.wallet(10)
    problem(await service.post("/v1/transfers", {"from": source, "to": f"{NOBODY}:PTS", "amount": 1}), 404, "not-found")
    assert await factory.balance(source) == 10
    await factory.assert_books_balance()


async def test_a_debit_does_not_open_a_wallet(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    problem(await service.post(f"/v1/wallets/{member}:PTS/debit", {"amount": 1}), 404, "not-found")
    problem(await service.get(f"/v1/wallets/{member}:PTS"), 404, "not-found")
    await factory.assert_books_balance()


async def test_reference_is_accepted_once_per_member_permanently(service: Caller, factory: Factory, clock: ManualClock) -> None:
    member, other = await factory.member(), await factory.member()
    first = await service.post(f"/v1/wallets/{member}:PTS/credit", {"amount": 5, "reference": "order-1"})
    clock.advance(days=400)
    for path, amount in ((f"{member}:PTS/credit", 5), (f"{member}:GBP/credit", 9), (f"{member}:PTS/debit", 1)):
        again = problem(
            await service.post(f"/v1/wallets/{path}", {"amount": amount, "reference": "order-1"}), 409, "reference-reused"
        )
        assert again["transaction_id"] == first.json()["id"]
    elsewhere = await service.post(f"/v1/wallets/{other}:PTS/credit", {"amount": 5, "reference": "order-1"})
    assert elsewhere.status_code == 201
    assert await factory.balance(f"{member}:PTS") == 5
    await factory.assert_books_balance()


async def test_a_balance_reaches_its_ceiling_and_no_more(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(AMOUNT_MAX), await factory.wallet(7)
    fill = [{"type": "credit", "wallet": wallet, "amount": AMOUNT_MAX, "key": f"fill-{n}"} for n in range(999)]
    filled = (await service.post("/v1/bulk", {"commands": fill, "atomic": True})).json()["results"]
    assert filled[-1]["transaction"]["balance"] == BALANCE_CEILING
    problem(await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1}), 409, "balance-limit")
    problem(await service.post("/v1/transfers", {"from": other, "to": wallet, "amount": 1}), 409, "balance-limit")
    assert (await factory.balance(wallet), await factory.balance(other)) == (BALANCE_CEILING, 7)
    await factory.assert_books_balance()


async def test_amounts_stay_exact_beyond_what_a_float_holds(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(AMOUNT_MAX)
    for n in range(9):
        await service.post(f"/v1/wallets/{wallet}/credit", {"amount": AMOUNT_MAX - n})
    assert await factory.balance(wallet) == 10 * AMOUNT_MAX - 36
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).json()["balance"] == 10 * AMOUNT_MAX - 37
    await factory.assert_books_balance()


async def test_history_pages_to_the_end_without_gap_while_it_grows(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1)
    for _ in range(24):
        await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1})
    page = (await service.get(f"/v1/wallets/{wallet}/entries", limit=4)).json()
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1})
    rest = await entries_of(service, wallet, limit=4, cursor=page["next_cursor"])
    seen = page["items"] + rest
    assert [entry["seq"] for entry in seen] == list(range(25, 0, -1))
    assert [entry["balance_after"] for entry in seen] == list(range(25, 0, -1))
    assert len({entry["id"] for entry in seen}) == len({entry["hash"] for entry in seen}) == 25
    await factory.assert_books_balance()


async def test_exactly_full_last_page_has_no_next_cursor(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(0)
    page = (await service.get(f"/v1/wallets/{wallet}/entries", limit=2)).json()
    assert [entry["seq"] for entry in page["items"]] == [2, 1]
    assert page["next_cursor"] is None
    await factory.assert_books_balance()


async def test_the_history_of_one_wallet_does_not_show_another(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    points, pounds = await factory.wallet(3, member=member), await factory.wallet(4, "GBP", member)
    assert [entry["amount"] for entry in await entries_of(service, points)] == [3]
    assert [entry["amount"] for entry in await entries_of(service, pounds)] == [4]
    await factory.assert_books_balance()


async def test_history_is_filtered_by_kind_across_pages(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(50)
    for _ in range(5):
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 2})
        await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1})
    debits = await entries_of(service, wallet, kind="debit", limit=2)
    assert [entry["seq"] for entry in debits] == [10, 8, 6, 4, 2]
    assert await entries_of(service, wallet, kind="transfer") == []
    await factory.assert_books_balance()


async def test_history_is_filtered_by_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    wallet = await factory.wallet(1)
    for amount in (2, 3, 4):
        clock.advance(days=1)
        await service.post(f"/v1/wallets/{wallet}/credit", {"amount": amount})
    times = {entry["amount"]: entry["created_at"] for entry in await entries_of(service, wallet)}
    window = await entries_of(service, wallet, **{"from": times[2], "to": times[4]})
    assert [entry["amount"] for entry in window] == [3, 2]
    assert [entry["amount"] for entry in await entries_of(service, wallet, **{"from": times[4]})] == [4]
    assert [entry["amount"] for entry in await entries_of(service, wallet, to=times[2])] == [1]
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"), ("limit", "101"), ("limit", "-1"), ("limit", "1000000000"), ("limit", "1.5"), ("limit", "many"), ("limit", ""),
        ("cursor", "!!"), ("cursor", ""), ("cursor", encode_cursor("abc")), ("cursor", encode_cursor("-1")),
        ("cursor", encode_cursor("9" * 13)), ("cursor", "é"), ("cursor", "A" * 201), ("kind", ""), ("kind", "$ne"), ("kind", "Debit"),
        ("from", "yesterday"), ("from", "2026-01-31T12:00:00"), ("to", "2026-13-01T00:00:00Z"), ("to", "0001-01-01T00:00:00+14:00"),
        ("from", "9999-12-31T23:59:59-14:00"), ("page", "2"), ("limit[$gt]", "1"),
    ],
)  # fmt: skip
async def test_invalid_query_parameter_is_refused(service: Caller, factory: Factory, name: str, value: str) -> None:
    wallet = await factory.wallet(1)
    refused = problem(await service.get(f"/v1/wallets/{wallet}/entries", **{name: value}), 422, "validation")
    assert refused["errors"][0]["pointer"] == name
    await factory.assert_books_balance()


async def test_a_repeated_parameter_is_refused(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1)
    problem(await service.get(f"/v1/wallets/{wallet}/entries", limit=["1", "2"]), 422, "validation")
    await factory.assert_books_balance()


async def test_a_members_wallets_are_listed(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    assert (await service.get(f"/v1/members/{member}/wallets")).json() == {"items": [], "next_cursor": None}
    await factory.wallet(3, member=member)
    await factory.wallet(4, "GBP", member)
    items = (await service.get(f"/v1/members/{member}/wallets")).json()["items"]
    assert [(item["asset"], item["balance"]) for item in items] == [("GBP", 4), ("PTS", 3)]
    problem(await service.get(f"/v1/members/{NOBODY}/wallets"), 404, "not-found")
    await factory.assert_books_balance()


async def test_an_asset_is_made_once_and_used(service: Caller, factory: Factory) -> None:
    made = await service.post("/v1/assets", {"code": "STARS", "scale": 3})
    assert (made.status_code, made.json()) == (201, {"code": "STARS", "scale": 3})
    again = problem(await service.post("/v1/assets", {"code": "STARS", "scale": 0}), 409, "already-exists")
    assert again["field"] == "code"
    codes = {item["code"]: item["scale"] for item in (await service.get("/v1/assets")).json()["items"]}
    assert codes == {"GBP": 2, "PTS": 0, "STARS": 3}
    assert await factory.balance(await factory.wallet(12, "STARS")) == 12
    await factory.assert_books_balance()
