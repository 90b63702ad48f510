"""Transactions of several postings over HTTP: all or nothing, balanced by asset, with the guards and lots of single movements."""

from typing import Any

import pytest

from guerdon.ledger.models import EXCHANGE
from guerdon.transactions.models import POSTINGS_MAX
from tests.api.test_access import log_in
from tests.api.test_lots import later, lots
from tests.api.test_wallets import entries_of
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY

Body = dict[str, Any]


def posting(wallet: str, amount: int) -> Body:
    return {"wallet": wallet, "amount": amount}


def system(account: str, asset: str, amount: int) -> Body:
    return {"account": f"system:{account}", "asset": asset, "amount": amount}


async def post(service: Caller, *postings: Body, **more: Any) -> Body:
    answer = await service.post("/v1/transactions", {"postings": list(postings), **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def refuse(service: Caller, status: int, code: str, *postings: Body, **more: Any) -> Body:
    return problem(await service.post("/v1/transactions", {"postings": list(postings), **more}), status, code)


def pointers(refused: Body) -> list[str]:
    return [error["pointer"] for error in refused["errors"]]


async def test_exchange_of_two_assets_is_balanced_against_the_exchange_account(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    points = await factory.wallet(600, member=member)
    money = f"{member}:GBP"
    body = {
        "kind": "exchange", "postings": [posting(points, -500), posting(money, 500)], "reference": "order-1", "metadata": {"till": "4"},
    }  # fmt: skip
    answer = await service.post("/v1/transactions", body, key="k")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["id"] == f"txn_{points}:2"
    assert made["postings"] == [
        {"wallet": points, "asset": "PTS", "amount": -500, "balance": 100, "available": 100, "seq": 2},
        {"wallet": money, "asset": "GBP", "amount": 500, "balance": 500, "available": 500, "seq": 1},
    ]
    assert made["accounts"] == [
        {"account": EXCHANGE, "asset": "PTS", "amount": 500},
        {"account": EXCHANGE, "asset": "GBP", "amount": -500},
    ]
    assert (made["kind"], made["reference"], made["metadata"]) == ("exchange", "order-1", {"till": "4"})
    again = await service.post("/v1/transactions", body, key="k")
    assert (again.status_code, again.content, again.headers["idempotency-replayed"]) == (201, answer.content, "true")
    problem(await service.post("/v1/transactions", {**body, "kind": "sale"}, key="k"), 422, "idempotency-key-reused")
    await refuse(service, 409, "reference-reused", *body["postings"], reference="order-1")
    for wallet, amount in ((points, -500), (money, 500)):
        entry = (await entries_of(service, wallet))[0]
        assert (entry["transaction_id"], entry["kind"], entry["amount"], entry["counter"]) == (
            made["id"],
            "exchange",
            amount,
            EXCHANGE,
        )
    assert [entry["seq"] for entry in await entries_of(service, points, kind="exchange")] == [2]
    read = (await service.get(f"/v1/transactions/{made['id']}")).json()
    assert (read["transaction"]["postings"], read["transaction"]["accounts"]) == (made["postings"], made["accounts"])
    assert (read["reversed"], read["left"]) == (0, 500)
    await factory.assert_books_balance()


async def test_named_system_accounts_are_the_counterparties(service: Caller, factory: Factory) -> None:
    """A sale paid by points and a fee: one wallet against two accounts makes two entries, and one posting of the answer."""
    wallet = await factory.wallet(100)
    made = await post(service, system("merchant", "PTS", 70), posting(wallet, -100), system("breakage", "PTS", 30), kind="sale")
    assert made["postings"] == [{"wallet": wallet, "asset": "PTS", "amount": -100, "balance": 0, "available": 0, "seq": 3}]
    assert made["accounts"] == [
        {"account": "system:merchant", "asset": "PTS", "amount": 70},
        {"account": "system:breakage", "asset": "PTS", "amount": 30},
    ]
    assert [(entry["amount"], entry["counter"]) for entry in (await entries_of(service, wallet))[:2]] == [
        (-30, "system:breakage"),
        (-70, "system:merchant"),
    ]
    single = await post(service, posting(wallet, 5), system("issuer", "PTS", -5), kind="donation")
    assert (single["postings"][0]["balance"], single["accounts"][0]["amount"]) == (5, -5)
    reversal = (await service.post(f"/v1/transactions/{single['id']}/reverse")).json()
    assert reversal["postings"][0]["balance"] == 0
    await factory.assert_books_balance()


async def test_value_between_wallets_keeps_its_dates(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """In the order of the request, and whole lots or parts of them: several postings are no way around an expiry."""
    clock.stop()
    soon, late = later(clock, days=3), later(clock, days=30)
    payer, one, two = [await factory.wallet(1) for _ in range(3)]
    for amount, date in ((30, soon), (30, late)):
        assert (await service.post(f"/v1/wallets/{payer}/credit", {"amount": amount, "expires_at": date})).status_code == 201
    made = await post(service, posting(one, 40), posting(two, 21), posting(payer, -61), kind="split")
    assert [each["wallet"] for each in made["postings"]] == [one, two, payer], "in the order of the request"
    assert [each["amount"] for each in made["postings"]] == [40, 21, -61]
    assert made["accounts"] == []
    assert await lots(service, one) == [(30, "paid", None, soon), (10, "paid", None, late), (1, "paid", None, None)]
    assert await lots(service, two) == [(20, "paid", None, late), (2, "paid", None, None)]
    assert await factory.balance(payer) == 0
    reversal = await service.post(f"/v1/transactions/{made['id']}/reverse")
    assert reversal.status_code == 201, reversal.text
    assert {each["wallet"]: each["balance"] for each in reversal.json()["postings"]} == {one: 1, two: 1, payer: 61}
    assert await lots(service, payer) == [(30, "paid", None, soon), (30, "paid", None, late), (1, "paid", None, None)]
    await factory.assert_books_balance()


async def test_several_payers_and_receivers_in_several_assets(service: Caller, factory: Factory) -> None:
    payers = [await factory.wallet(100) for _ in range(3)]
    receivers = [f"{await factory.member()}:PTS" for _ in range(2)]
    money = [await factory.wallet(50, asset="GBP"), f"{await factory.member()}:GBP"]
    made = await post(
        service,
        *(posting(payer, -50) for payer in payers), posting(receivers[0], 80), posting(receivers[1], 60),
        system("cash", "PTS", 10), posting(money[0], -50), posting(money[1], 50),
    )  # fmt: skip
    balances = {each["wallet"]: each["balance"] for each in made["postings"]}
    assert balances == dict(zip((*payers, *receivers, *money), (50, 50, 50, 80, 60, 0, 50), strict=True))
    assert made["accounts"] == [{"account": "system:cash", "asset": "PTS", "amount": 10}]
    for wallet, balance in balances.items():
        assert await factory.balance(wallet) == balance
        assert (await entries_of(service, wallet))[0]["transaction_id"] == made["id"]
    await factory.assert_books_balance()


async def test_refused_posting_refuses_all(service: Caller, factory: Factory) -> None:
    """A refusal states the whole amount of the wallet, also if several entries would take it."""
    payer, other = await factory.wallet(90), await factory.wallet(10)
    money = await factory.wallet(5, asset="GBP")
    refused = await refuse(
        service,
        409,
        "insufficient-funds",
        posting(payer, -100),
        posting(other, 60),
        system("merchant", "PTS", 40),
        posting(money, 7),
    )
    assert (refused["wallet"], refused["available"], refused["needed"]) == (payer, 90, 100)
    await service.put(f"/v1/wallets/{payer}/terms", {"day_limit": 50})
    refused = await refuse(service, 409, "limit-reached", posting(payer, -60), posting(other, 30), system("merchant", "PTS", 30))
    assert refused["limit"] == 50
    await post(service, posting(payer, -50), posting(other, 30), system("merchant", "PTS", 20))
    problem(await service.post(f"/v1/wallets/{payer}/debit", {"amount": 1}), 409, "limit-reached")
    await service.put(f"/v1/wallets/{money}/terms", {"ceiling": 6})
    await refuse(service, 409, "balance-limit", posting(other, -1), posting(money, 7))
    await service.post(f"/v1/wallets/{money}/freeze")
    await refuse(service, 409, "wallet-frozen", posting(other, -1), posting(money, 1))
    empty = await factory.wallet(0)
    await service.post(f"/v1/wallets/{empty}/close")
    await refuse(service, 409, "wallet-closed", posting(other, -1), posting(empty, 1))
    for missing in (f"{NOBODY}:PTS", "nonsense", f"{await factory.member()}:XYZ"):
        await refuse(service, 404, "not-found", posting(other, -1), posting(missing, 1))
        await refuse(service, 404, "not-found", posting(missing, -1), posting(other, 1))
    assert [await factory.balance(wallet) for wallet in (payer, other, money)] == [40, 40, 5]
    key = await service.post("/v1/transactions", {"postings": [posting(payer, -999), posting(other, 999)]}, key="late")
    problem(key, 409, "insufficient-funds")
    await service.post(f"/v1/wallets/{payer}/credit", {"amount": 5000})
    again = await service.post("/v1/transactions", {"postings": [posting(payer, -999), posting(other, 999)]}, key="late")
    problem(again, 409, "insufficient-funds")
    assert again.headers["idempotency-replayed"] == "true"
    await factory.assert_books_balance()


async def test_postings_are_checked_before_anything_happens(service: Caller, factory: Factory, clock: ManualClock) -> None:
    one, two = await factory.wallet(100), await factory.wallet(100)
    money = await factory.wallet(100, asset="GBP")
    cases: list[tuple[list[Body], list[str]]] = [
        ([posting(one, -5), posting(two, 4)], ["/postings"]),
        ([posting(one, -5), system("merchant", "PTS", 6)], ["/postings"]),
        ([posting(one, -5), posting(two, 5), posting(money, 3), system("issuer", "GBP", -2)], ["/postings"]),
        ([posting(one, 0), posting(two, 0)], ["/postings/0/amount", "/postings/1/amount"]),
        ([posting(one, 5), posting(one, -5)], ["/postings/1/wallet"]),
        ([posting(one, -5), {"amount": 5}], ["/postings/1"]),
        ([posting(one, -5), {"account": "system:merchant", "amount": 5}], ["/postings/1/asset"]),
        ([posting(one, -5), {**posting(two, 5), "account": "system:merchant"}], ["/postings/1"]),
        ([posting(one, -5), {**posting(two, 5), "asset": "GBP"}], ["/postings/1/asset"]),
        ([system("issuer", "PTS", -5), system("cash", "PTS", 5)], ["/postings/0"]),
        ([posting(one, 5), system("issuer", "PTS", -8), system("cash", "PTS", 3)], ["/postings/1"]),
        ([posting(one, 5), system("issuer", "PTS", 8)], ["/postings/1"]),
        ([posting(one, -5), system("counted", "PTS", 5)], ["/postings/1/account"]),
        ([posting(one, -5)], ["/postings"]),
        ([posting(one, -5), posting(two, 10**15 + 1)], ["/postings/1/amount"]),
        ([posting(one, -5), *[posting(two, 5)] * POSTINGS_MAX], ["/postings"]),
    ]
    for postings, expected in cases:
        assert pointers(await refuse(service, 422, "validation", *postings)) == expected, postings
    fine = [posting(one, -5), posting(two, 5)]
    for kind in ("debit", "credit", "expiry", "reversal", "", "Exchange", "nonsense"):
        assert pointers(await refuse(service, 422, "validation", *fine, kind=kind)) == ["/kind"], kind
    assert pointers(await refuse(service, 422, "validation", *fine, effective_at=later(clock, days=1))) == ["/effective_at"]
    assert [await factory.balance(wallet) for wallet in (one, two, money)] == [100, 100, 100]
    for kind in ("transaction", "exchange", "transfer", "payout"):
        assert (await post(service, *fine, kind=kind))["kind"] == kind
    for wallet in (one, two, money):
        assert len(await entries_of(service, wallet)) == (1 if wallet == money else 5)
    await factory.assert_books_balance()


async def test_most_postings_in_one_transaction(service: Caller, factory: Factory) -> None:
    half = POSTINGS_MAX // 2
    payers = [await factory.wallet(19) for _ in range(half)]
    receivers = [f"{await factory.member()}:PTS" for _ in range(half)]
    amounts = [19] * half
    shares = [sum(amounts) - 9 * (half - 1), *[9] * (half - 1)]
    made = await post(
        service,
        *(posting(wallet, -amount) for wallet, amount in zip(payers, amounts, strict=True)),
        *(posting(wallet, amount) for wallet, amount in zip(receivers, shares, strict=True)),
    )
    assert [each["balance"] for each in made["postings"]] == [*[0] * half, *shares]
    reversal = await service.post(f"/v1/transactions/{made['id']}/reverse")
    assert reversal.status_code == 201, reversal.text
    assert [await factory.balance(wallet) for wallet in (*payers, *receivers)] == [*amounts, *[0] * half]
    await factory.assert_books_balance()


async def test_reversal_is_whole_and_happens_once(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    member = await factory.member()
    points, money = f"{member}:PTS", f"{member}:GBP"
    soon = later(clock, days=3)
    await service.post(f"/v1/wallets/{points}/credit", {"amount": 100, "expires_at": soon, "source": "promotional"})
    made = await post(service, posting(points, -100), posting(money, 50), kind="exchange", effective_at=later(clock, days=-3))
    path = f"/v1/transactions/{made['id']}/reverse"
    for amount in (1, 50, 100):
        assert "whole" in problem(await service.post(path, {"amount": amount}), 409, "not-reversible")["detail"]
    await service.post(f"/v1/wallets/{money}/debit", {"amount": 20})
    refused = problem(await service.post(path), 409, "insufficient-funds")
    assert (refused["wallet"], refused["available"], refused["needed"]) == (money, 30, 50)
    assert await factory.balance(points) == 0, "nothing was returned"
    await service.post(f"/v1/wallets/{money}/credit", {"amount": 20})
    answer = await service.post(path, {"reason": "order cancelled"}, key="r")
    assert answer.status_code == 201, answer.text
    reversal = answer.json()
    assert (reversal["kind"], reversal["reverses"], reversal["reason"]) == ("reversal", made["id"], "order cancelled")
    assert [(each["wallet"], each["amount"], each["balance"]) for each in reversal["postings"]] == [
        (points, 100, 100),
        (money, -50, 0),
    ]
    again = await service.post(path, {"reason": "order cancelled"}, key="r")
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    problem(await service.post(path), 409, "reversal-limit")
    assert await lots(service, points) == [(100, "promotional", None, soon)]
    read = (await service.get(f"/v1/transactions/{made['id']}")).json()
    assert (read["reversed"], read["left"], read["transaction"]["effective_at"]) == (100, 0, made["effective_at"])
    twice = await service.post(f"/v1/transactions/{reversal['id']}/reverse")
    assert twice.status_code == 201, twice.text
    assert [await factory.balance(wallet) for wallet in (points, money)] == [0, 50]
    await factory.assert_books_balance()


async def test_members_read_their_transactions_and_post_none(service: Caller, factory: Factory, anonymous: Caller) -> None:
    ada, bob, eve = [await log_in(anonymous, f"{name}@example.com") for name in ("ada", "bob", "eve")]
    one, two = [f"{(await caller.get('/v1/me')).json()['id']}:PTS" for caller in (ada, bob)]
    await service.post(f"/v1/wallets/{one}/credit", {"amount": 9})
    made = await post(service, posting(one, -9), posting(two, 9))
    for caller, own in ((ada, made["postings"][0]), (bob, made["postings"][1])):
        read = (await caller.get(f"/v1/transactions/{made['id']}")).json()["transaction"]
        assert read["postings"] == [own], "the balance of the other member is not shown"
        assert (read["id"], read["wallet"], read["balance"]) == (made["id"], own["wallet"], own["balance"])
        problem(await caller.post("/v1/transactions", {"postings": [posting(one, -1), posting(two, 1)]}), 403, "forbidden")
    problem(await eve.get(f"/v1/transactions/{made['id']}"), 404, "not-found")
    sent = (await service.post("/v1/transfers", {"from": two, "to": one, "amount": 4})).json()
    read = (await ada.get(f"/v1/transactions/{sent['id']}")).json()["transaction"]
    assert (read["wallet"], read["to"], read["amount"], read["balance"]) == (one, one, 4, 4), "nor is that of who has paid"
    assert (await bob.get(f"/v1/transactions/{sent['id']}")).json()["transaction"] == sent


@pytest.mark.parametrize("reverse", [False, True])
async def test_statement_and_history_have_every_entry(service: Caller, factory: Factory, clock: ManualClock, reverse: bool) -> None:
    payer, one, two = [await factory.wallet(50) for _ in range(3)]
    made = await post(service, posting(payer, -50), posting(one, 20), posting(two, 30), kind="split")
    if reverse:
        assert (await service.post(f"/v1/transactions/{made['id']}/reverse")).status_code == 201
    month = later(clock)[:7]
    statement = (await service.get(f"/v1/wallets/{payer}/statements/{month}")).json()
    totals = {total["kind"]: (total["count"], total["in"], total["out"]) for total in statement["totals"]}
    expected = {"credit": (1, 50, 0), "split": (2, 0, 50)}
    assert totals == (expected | {"reversal": (2, 50, 0)} if reverse else expected)
    assert statement["closing"]["balance"] == (50 if reverse else 0)


async def test_dry_run_decides_and_writes_nothing(service: Caller, factory: Factory) -> None:
    payer, other = await factory.wallet(50), await factory.wallet(1)
    body = {"postings": [posting(payer, -20), posting(other, 20)]}
    answer = await service.post("/v1/transactions?dry_run=true", body)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["dry_run"], [each["balance"] for each in made["postings"]]) == (True, [30, 21])
    assert "id" not in made
    assert "seq" not in made["postings"][0]
    problem(
        await service.post("/v1/transactions?dry_run=true", {"postings": [posting(payer, -51), posting(other, 51)]}),
        409,
        "insufficient-funds",
    )
    written = await post(service, *body["postings"])
    answer = await service.post(f"/v1/transactions/{written['id']}/reverse?dry_run=true")
    assert (answer.status_code, [each["balance"] for each in answer.json()["postings"]]) == (200, [50, 1])
    bulk = {"commands": [{"type": "reverse", "transaction": written["id"], "key": "b"}], "atomic": True}
    result = (await service.post("/v1/bulk", bulk, key=None)).json()["results"][0]
    assert (result["status"], result["transaction"]["balance"]) == (201, 50)
    assert [await factory.balance(wallet) for wallet in (payer, other)] == [50, 1]
    await factory.assert_books_balance()
