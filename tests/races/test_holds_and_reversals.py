"""Two processes race for the last of a hold, of a transaction, of a limit: the exact number of winners, and clean books."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from guerdon.config import Settings
from guerdon.ledger.jobs import sweep
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.serving import serve

Body = dict[str, Any] | None


@pytest_asyncio.fixture
async def both(service: Caller, other_services: Services, settings: Settings, clock: ManualClock) -> AsyncIterator[list[Caller]]:
    """Callers with the same key on two processes."""
    async with serve(other_services, settings, clock) as other:
        assert service.token is not None
        yield [service, other.with_token(service.token)]


async def race(both: list[Caller], path: str, body: Body, count: int) -> Counter[str]:
    """Ask both processes `count` times in all, at once; count the outcomes."""
    answers = await asyncio.gather(*(both[number % 2].post(path, body) for number in range(count)))
    return Counter("done" if answer.status_code in {200, 201} else answer.json()["code"] for answer in answers)


async def test_concurrent_captures_never_exceed_the_hold(both: list[Caller], service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(500)
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 105})).json()["id"]
    outcomes = await race(both, f"/v1/holds/{hold}/capture", {"amount": 10}, 60)
    assert outcomes == {"done": 10, "capture-limit": 50}
    assert (await race(both, f"/v1/holds/{hold}/capture", None, 20))["done"] == 1
    assert await factory.balance(wallet) == 395
    await factory.assert_books_balance()


async def test_capture_that_races_with_a_void_has_one_winner(both: list[Caller], service: Caller, factory: Factory) -> None:
    """Whoever comes first decides; the other one hears that the hold has ended."""
    for _ in range(10):
        wallet = await factory.wallet(100)
        hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 60})).json()["id"]
        capture, void = await asyncio.gather(
            both[0].post(f"/v1/holds/{hold}/capture", {"amount": 60}), both[1].post(f"/v1/holds/{hold}/void")
        )
        assert sorted((capture.status_code, void.status_code)) == [201, 409]
        status = (await service.get(f"/v1/holds/{hold}")).json()["status"]
        assert status == ("captured" if capture.status_code == 201 else "voided")
        assert await factory.balance(wallet) == (40 if capture.status_code == 201 else 100)
    await factory.assert_books_balance()


async def test_concurrent_reversals_never_exceed_the_transfer(both: list[Caller], service: Caller, factory: Factory) -> None:
    source, target = await factory.wallet(100), await factory.wallet(1000)
    sent = (await service.post("/v1/transfers", {"from": source, "to": target, "amount": 95})).json()["id"]
    assert await race(both, f"/v1/transactions/{sent}/reverse", {"amount": 10}, 40) == {"done": 9, "reversal-limit": 31}
    assert await race(both, f"/v1/transactions/{sent}/reverse", None, 40) == {"done": 1, "reversal-limit": 39}
    assert [await factory.balance(wallet) for wallet in (source, target)] == [100, 1000]
    await factory.assert_books_balance()


async def test_spending_limit_holds_across_two_processes(both: list[Caller], service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10_000)
    assert (await service.put(f"/v1/wallets/{wallet}/terms", {"day_limit": 100})).status_code == 200
    assert await race(both, f"/v1/wallets/{wallet}/debit", {"amount": 7}, 60) == {"done": 14, "limit-reached": 46}
    await factory.assert_books_balance()


async def test_a_freeze_stops_the_other_process_at_once(both: list[Caller], service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10_000)
    debits = [asyncio.ensure_future(both[1].post(f"/v1/wallets/{wallet}/debit", {"amount": 1})) for _ in range(100)]
    await asyncio.sleep(0.01)
    frozen = await both[0].post(f"/v1/wallets/{wallet}/freeze")
    assert frozen.status_code == 200
    assert (await both[1].post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).json()["code"] == "wallet-frozen"
    done = sum(answer.status_code == 201 for answer in await asyncio.gather(*debits))
    read = (await service.get(f"/v1/wallets/{wallet}")).json()
    assert (read["balance"], read["status"]) == (10_000 - done, "frozen")
    entries = (await service.get(f"/v1/wallets/{wallet}/entries?limit=1")).json()["items"]
    assert entries[0]["kind"] == "freeze", "nothing has moved after it"
    await factory.assert_books_balance()


async def test_two_sweepers_book_an_expiry_once(
    services: Services, other_services: Services, service: Caller, factory: Factory, clock: ManualClock
) -> None:
    wallets = [await factory.wallet(100) for _ in range(5)]
    for wallet in wallets:
        hold = {"wallet": wallet, "amount": 60, "expires_in_seconds": 1}
        assert (await service.post("/v1/holds", hold)).status_code == 201
    clock.advance(seconds=2)
    await asyncio.gather(*(sweep(each.ledger, each.database, clock) for each in (services, other_services) * 3))
    for wallet in wallets:
        kinds = [entry["kind"] for entry in (await service.get(f"/v1/wallets/{wallet}/entries")).json()["items"]]
        assert kinds == ["hold_expiry", "hold", "credit"]
    await factory.assert_books_balance()


async def test_bulk_captures_and_reversals_never_exceed_the_rest(both: list[Caller], service: Caller, factory: Factory) -> None:
    """Two processes send the same kinds of commands in bulk, one by one and atomically: the exact number of winners."""
    wallet = await factory.wallet(500)
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 100})).json()["id"]
    credit = f"txn_{wallet}:1"

    async def send(number: int) -> list[dict[str, Any]]:
        commands: list[dict[str, Any]] = [
            {"type": "capture", "hold": hold, "amount": 7, "key": f"c{number}"},
            {"type": "reverse", "transaction": credit, "amount": 11, "key": f"r{number}"},
        ]
        body = {"commands": commands, "atomic": number % 4 > 1}
        answer = await both[number % 2].post("/v1/bulk", body, key=None)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    answers = await asyncio.gather(*(send(number) for number in range(80)))
    captured = sum(first["status"] == 201 for first, _ in answers)
    reversed_ = sum(second["status"] == 201 for _, second in answers)
    assert captured == 14, "14 parts of 7 fit into 100"
    for number, (first, second) in enumerate(answers):
        if number % 4 > 1:
            assert (first["status"] == 201) == (second["status"] == 201), "all or nothing"
    # What is not held can be reversed: 400, and each part is 11.
    assert reversed_ == 400 // 11
    assert await factory.balance(wallet) == 500 - 7 * captured - 11 * reversed_
    await factory.assert_books_balance()
