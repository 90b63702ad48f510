"""Reversals over HTTP: in parts or whole, at most the original, to the very lots, and never into an overdraft."""

import asyncio
from typing import Any

from tests.api.test_lots import credit, later, lots, state
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory


async def reverse(service: Caller, transaction: str, amount: int | None = None) -> dict[str, Any]:
    answer = await service.post(f"/v1/transactions/{transaction}/reverse", {"amount": amount})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def debit(service: Caller, wallet: str, amount: int) -> str:
    answer = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": amount})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_debit_is_reversed_in_parts_up_to_its_amount(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    spent = await debit(service, wallet, 60)
    first = await reverse(service, spent, 25)
    assert (first["kind"], first["amount"], first["balance"], first["reverses"]) == ("reversal", 25, 65, spent)
    refused = problem(await service.post(f"/v1/transactions/{spent}/reverse", {"amount": 36}), 409, "reversal-limit")
    assert (refused["left"], refused["amount"]) == (35, 60)
    assert (await reverse(service, spent))["amount"] == 35
    problem(await service.post(f"/v1/transactions/{spent}/reverse"), 409, "reversal-limit")
    read = (await service.get(f"/v1/transactions/{spent}")).json()
    assert (read["reversed"], read["left"], read["transaction"]["amount"]) == (60, 0, 60)
    assert await factory.balance(wallet) == 100
    await factory.assert_books_balance()


async def test_reversal_returns_value_to_its_original_lots(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """What was taken last comes back first."""
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    soon, late = later(clock, days=1), later(clock, days=30)
    for amount, dates in [(30, {"expires_at": soon}), (30, {"expires_at": late, "source": "promotional"}), (30, {})]:
        await credit(service, wallet, amount, **dates)
    spent = await debit(service, wallet, 80)
    assert await lots(service, wallet) == [(10, "paid", None, None)]
    await reverse(service, spent, 25)
    assert await lots(service, wallet) == [(5, "promotional", None, late), (30, "paid", None, None)]
    await reverse(service, spent, 30)
    assert await lots(service, wallet) == [(5, "paid", None, soon), (30, "promotional", None, late), (30, "paid", None, None)]
    clock.advance(days=2)
    await reverse(service, spent)
    grace = later(clock, days=7)
    assert (25, "paid", None, grace) in await lots(service, wallet), "a lapsed lot that comes back lives seven days more"
    await factory.assert_books_balance()


async def test_a_credit_is_taken_back_from_its_own_lot_first(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    soon, late = later(clock, days=1), later(clock, days=30)
    await credit(service, wallet, 10, expires_at=soon)
    wrong = (await credit(service, wallet, 50, expires_at=late))["id"]
    await reverse(service, wrong, 20)
    assert await lots(service, wallet) == [(10, "paid", None, soon), (30, "paid", None, late)]
    pending = (await credit(service, wallet, 40, available_at=late))["id"]
    await reverse(service, pending)
    assert await state(service, wallet) == {"balance": 40, "available": 40, "pending": 0, "expired": 0}
    await debit(service, wallet, 25)
    refused = problem(await service.post(f"/v1/transactions/{wrong}/reverse"), 409, "insufficient-funds")
    assert (refused["available"], refused["needed"]) == (15, 30)
    await reverse(service, wrong, 15)
    assert await factory.balance(wallet) == 0
    await factory.assert_books_balance()


async def test_reversal_of_a_spent_transfer_is_refused(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    source, target = f"{await factory.member()}:PTS", await factory.wallet(10)
    soon = later(clock, days=1)
    await credit(service, source, 100, expires_at=soon)
    sent = (await service.post("/v1/transfers", {"from": source, "to": target, "amount": 80})).json()["id"]
    await debit(service, target, 50)
    refused = problem(await service.post(f"/v1/transactions/{sent}/reverse"), 409, "insufficient-funds")
    assert (refused["available"], refused["needed"], refused["wallet"]) == (40, 80, target)
    assert await factory.balance(target) == 40
    answer = await reverse(service, sent, 40)
    assert (answer["wallet"], answer["balance"]) == (source, 60)
    assert await lots(service, source) == [(60, "paid", None, soon)]
    assert await factory.balance(target) == 0
    assert (await service.get(f"/v1/transactions/{sent}")).json()["left"] == 40
    await factory.assert_books_balance()


async def test_every_kind_that_moves_value_can_be_reversed(service: Caller, factory: Factory, clock: ManualClock) -> None:
    await factory.campaign()
    event = (await service.post("/v1/events", factory.event())).json()
    wallet = f"{event['member_id']}:PTS"
    paid = (await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 100})).json()["id"]
    assert (await reverse(service, paid, 39))["balance"] == 200
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 50})).json()
    capture = (await service.post(f"/v1/holds/{hold['id']}/capture", {"amount": 30, "final": True})).json()
    assert (await reverse(service, capture["id"]))["balance"] == 200
    again = await reverse(service, paid, 50)
    assert (await reverse(service, again["id"]))["balance"] == 200, "a reversal is a transaction as well"
    problem(await service.post(f"/v1/transactions/{hold['transaction_id']}/reverse"), 409, "not-reversible")
    assert (await service.post(f"/v1/wallets/{wallet}/freeze")).status_code == 200
    problem(await service.post(f"/v1/transactions/{capture['id']}/reverse"), 409, "reversal-limit")
    problem(await service.post(f"/v1/transactions/{paid}/reverse", {"amount": 1}), 409, "wallet-frozen")
    await factory.assert_books_balance()


async def test_award_is_taken_back_once_by_its_refund_and_not_by_a_reversal(service: Caller, factory: Factory) -> None:
    """A reversal of the award and a refund of its purchase would take it twice. Its siblings are tried too: in bulk, and as a dry run."""
    await factory.campaign()
    bought = (await service.post("/v1/events", factory.event())).json()
    wallet, award = f"{bought['member_id']}:PTS", bought["awards"][0]["transaction_id"]
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1000})
    path = f"/v1/transactions/{award}/reverse"
    for suffix in ("", "?dry_run=true"):
        refused = problem(await service.post(path + suffix, {"amount": None}), 409, "not-reversible")
        assert refused["detail"] == (
            "the transaction is an award of an event; void the event or refund its purchase, or debit the wallet"
        )
    command = {"type": "reverse", "transaction": award, "key": "k-1"}
    [result] = (await service.post("/v1/bulk", {"commands": [command]})).json()["results"]
    assert (result["status"], result["problem"]["code"]) == (409, "not-reversible")
    assert await factory.balance(wallet) == 1139
    refund = factory.event(type="refund", refund_of=bought["id"], member={"id": bought["member_id"]})
    clawback = (await service.post("/v1/events", refund)).json()["awards"][0]
    assert (clawback["amount"], await factory.balance(wallet)) == (-139, 1000)
    problem(await service.post(path), 409, "not-reversible")
    assert (await reverse(service, clawback["transaction_id"]))["balance"] == 1139, "a clawback can be given back"
    await factory.assert_books_balance()


async def test_fifty_reversals_at_once_give_back_the_original_once(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    spent = await debit(service, wallet, 95)
    answers = await asyncio.gather(*(service.post(f"/v1/transactions/{spent}/reverse", {"amount": 10}) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [201] * 9 + [409] * 41
    assert await factory.balance(wallet) == 95
    whole = await debit(service, wallet, 50)
    answers = await asyncio.gather(*(service.post(f"/v1/transactions/{whole}/reverse") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    await factory.assert_books_balance()


async def test_a_reversal_replays_its_first_answer(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    spent = await debit(service, wallet, 60)
    path = f"/v1/transactions/{spent}/reverse"
    first = await service.post(path, {"amount": 10}, key="refund-1")
    again = await service.post(path, {"amount": 10}, key="refund-1")
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    problem(await service.post(path, {"amount": 11}, key="refund-1"), 422, "idempotency-key-reused")
    problem(await service.post(path, {"amount": 1}, key=None), 400, "idempotency-key-missing")
    assert await factory.balance(wallet) == 50
    await factory.assert_books_balance()


async def test_unknown_transaction_is_not_found(service: Caller, factory: Factory) -> None:
    source, target = await factory.wallet(10), await factory.wallet(10)
    await service.post("/v1/transfers", {"from": source, "to": target, "amount": 5})
    nobody = "mem_" + "0" * 32
    for name in ("nothing", f"txn_{source}:99", f"txn_{nobody}:PTS:1", f"hld_{source}:1", f"txn_{target}:2", f"txn_{source}:0"):
        problem(await service.get(f"/v1/transactions/{name}"), 404, "not-found")
        problem(await service.post(f"/v1/transactions/{name}/reverse"), 404, "not-found")
    await factory.assert_books_balance()
