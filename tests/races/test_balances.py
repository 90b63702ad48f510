"""Many at once: balances hold to the last unit, and every answer is definite."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable

import httpx

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve


def tally(answers: Iterable[httpx.Response]) -> Counter[tuple[int, str]]:
    """How many answers of each status and problem code."""
    return Counter((answer.status_code, answer.json().get("code", "")) for answer in answers)


async def test_two_thousand_debits_race_for_a_thousand_points(
    service: Caller, factory: Factory, settings: Settings, clock: ManualClock, database: Database
) -> None:
    """Through one process; ten thousand through four are `tests/trust/test_hot_wallet.py`."""
    wallet = await factory.wallet(1000)
    path = f"/v1/wallets/{wallet}/debit"
    assert service.token is not None
    # Two thousand clients share this process with the server, so the deadline has to allow for their time too.
    patient = settings.model_copy(update={"ledger_deadline_ms": 60_000})
    async with open_services(patient, clock) as services, serve(services, patient, clock) as anonymous:
        caller = anonymous.with_token(service.token)
        answers = await asyncio.gather(*(caller.post(path, {"amount": 1}) for _ in range(2000)))
    assert tally(answers) == {(201, ""): 1000, (409, "insufficient-funds"): 1000}
    won = [answer.json() for answer in answers if answer.status_code == 201]
    assert sorted(transaction["balance"] for transaction in won) == list(range(1000))
    assert sorted(transaction["seq"] for transaction in won) == list(range(2, 1002))
    assert await factory.balance(wallet) == 0
    assert await database.raw["entries"].count_documents({"balance_after": {"$exists": True}}) == 1001
    await factory.assert_books_balance()


async def test_two_processes_race_for_one_wallet(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    wallet = await factory.wallet(200)
    path = f"/v1/wallets/{wallet}/debit"
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        answers = await asyncio.gather(*(caller.post(path, {"amount": 1}) for _ in range(200) for caller in callers))
    assert tally(answers) == {(201, ""): 200, (409, "insufficient-funds"): 200}
    assert sorted(answer.json()["balance"] for answer in answers if answer.status_code == 201) == list(range(200))
    assert await factory.balance(wallet) == 0
    await factory.assert_books_balance()


async def test_two_hundred_race_for_the_last_unit(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(1), await factory.wallet(5)
    debits = [service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}) for _ in range(100)]
    transfers = [service.post("/v1/transfers", {"from": wallet, "to": other, "amount": 1}) for _ in range(100)]
    answers = await asyncio.gather(*itertools.chain(*zip(debits, transfers, strict=True)))
    assert tally(answers) == {(201, ""): 1, (409, "insufficient-funds"): 199}
    assert await factory.balance(wallet) == 0
    await factory.assert_books_balance()


async def test_transfers_in_a_ring_keep_the_total(service: Caller, factory: Factory) -> None:
    wallets = [await factory.wallet(50) for _ in range(10)]
    moves = [(i, (i + step) % 10, 1 + (i * step) % 20) for step in (1, 3, 7, 9) for i in range(10)] * 5
    answers = await asyncio.gather(
        *(service.post("/v1/transfers", {"from": wallets[a], "to": wallets[b], "amount": amount}) for a, b, amount in moves)
    )
    counted = tally(answers)
    assert counted[201, ""] + counted[409, "insufficient-funds"] == len(moves) == 200
    assert counted[201, ""] >= 50
    assert sum([await factory.balance(wallet) for wallet in wallets]) == 500
    await factory.assert_books_balance()


async def test_opposite_transfers_in_two_processes_do_not_block_each_other(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    one, two = await factory.wallet(100), await factory.wallet(100)
    assert service.token is not None
    there, back = {"from": one, "to": two, "amount": 1}, {"from": two, "to": one, "amount": 1}
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        answers = await asyncio.gather(
            *(caller.post("/v1/transfers", body) for _ in range(50) for caller in callers for body in (there, back))
        )
    assert tally(answers) == {(201, ""): 200}
    assert (await factory.balance(one), await factory.balance(two)) == (100, 100)
    await factory.assert_books_balance()


async def test_credits_race_to_the_ceiling(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10**15)
    fill = [{"type": "credit", "wallet": wallet, "amount": 10**15, "key": f"fill-{n}"} for n in range(998)]
    assert (await service.post("/v1/bulk", {"commands": fill})).status_code == 200
    answers = await asyncio.gather(*(service.post(f"/v1/wallets/{wallet}/credit", {"amount": 10**15}) for _ in range(20)))
    assert tally(answers) == {(201, ""): 1, (409, "balance-limit"): 19}
    assert await factory.balance(wallet) == 10**18
    await factory.assert_books_balance()


async def test_one_reference_under_many_keys_is_applied_once(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    body = {"amount": 1, "reference": "order-1"}
    answers = await asyncio.gather(*(service.post(f"/v1/wallets/{wallet}/debit", body) for _ in range(50)))
    assert tally(answers) == {(201, ""): 1, (409, "reference-reused"): 49}
    assert await factory.balance(wallet) == 99
    await factory.assert_books_balance()


async def test_atomic_bulks_race_all_or_nothing(service: Caller, factory: Factory) -> None:
    wallets = [await factory.wallet(10) for _ in range(3)]

    def body(number: int) -> dict[str, object]:
        turned = wallets[number % 3 :] + wallets[: number % 3]
        commands = [{"type": "debit", "wallet": wallet, "amount": 3, "key": f"{number}-{i}"} for i, wallet in enumerate(turned)]
        return {"commands": commands, "atomic": True}

    answers = await asyncio.gather(*(service.post("/v1/bulk", body(number)) for number in range(20)))
    applied = Counter(tuple(result["status"] for result in answer.json()["results"]) for answer in answers)
    assert applied == {(201, 201, 201): 3, (409, 409, 409): 17}
    assert [await factory.balance(wallet) for wallet in wallets] == [1, 1, 1]
    await factory.assert_books_balance()


async def test_requests_refused_by_a_full_queue_write_nothing(
    service: Caller, factory: Factory, settings: Settings, clock: ManualClock, database: Database
) -> None:
    wallet = await factory.wallet(1000)
    assert service.token is not None
    small = settings.model_copy(update={"ledger_queue_max": 16, "ledger_batch_max": 1, "ledger_in_flight_max": 1})
    async with open_services(small, clock) as services, serve(services, small, clock) as anonymous:
        caller = anonymous.with_token(service.token)
        assert (await caller.get("/v1/members")).status_code == 200
        keys = [f"k{n}" for n in range(200)]
        path = f"/v1/wallets/{wallet}/debit"
        answers = await asyncio.gather(*(caller.post(path, {"amount": 1}, key=key) for key in keys))
        won = tally(answers)[201, ""]
        assert 16 <= won < 200
        assert tally(answers) == {(201, ""): won, (503, "overloaded"): 200 - won}
        for answer in answers:
            if answer.status_code == 503:
                assert problem(answer, 503, "overloaded")["detail"]
                assert int(answer.headers["retry-after"]) >= 1
        assert await factory.balance(wallet) == 1000 - won
        assert await database.raw["entries"].count_documents({"kind": "debit"}) == won
        too_many = [{"type": "debit", "wallet": wallet, "amount": 1, "key": f"b{n}"} for n in range(17)]
        problem(await caller.post("/v1/bulk", {"commands": too_many}), 503, "overloaded")
        for key in keys:
            assert (await caller.post(path, {"amount": 1}, key=key)).status_code == 201
    assert await factory.balance(wallet) == 800
    await factory.assert_books_balance()
