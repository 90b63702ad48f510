"""Transactions of several postings at once, from two processes: every winner is paid for, and no order of the wallets matters."""

import asyncio
import random
from typing import Any

from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.races.test_balances import tally
from tests.serving import serve


def postings(*changes: tuple[str, int]) -> dict[str, Any]:
    return {"postings": [{"wallet": wallet, "amount": amount} for wallet, amount in changes]}


async def test_exchanges_race_for_the_last_points(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    member = await factory.member()
    points, money = await factory.wallet(50, member=member), await factory.wallet(7, asset="GBP", member=member)
    assert service.token is not None
    body = postings((points, -5), (money, 2))
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        answers = await asyncio.gather(*(caller.post("/v1/transactions", body) for _ in range(20) for caller in callers))
    assert tally(answers) == {(201, ""): 10, (409, "insufficient-funds"): 30}
    assert (await factory.balance(points), await factory.balance(money)) == (0, 27)
    won = [answer.json()["postings"] for answer in answers if answer.status_code == 201]
    assert (
        sorted((debit["balance"], credit["balance"]) for debit, credit in won) == [(45 - 5 * n, 9 + 2 * n) for n in range(10)][::-1]
    )
    await factory.assert_books_balance()


async def test_crossing_transactions_keep_the_total(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """The same few wallets in every order, also against single transfers."""
    rng = random.Random(14)
    wallets = [await factory.wallet(60) for _ in range(5)]
    requests: list[tuple[str, dict[str, Any]]] = []
    for _ in range(60):
        one, two, three = rng.sample(wallets, 3)
        requests.append(("/v1/transactions", postings((one, -7), (two, 4), (three, 3))))
        requests.append(("/v1/transfers", {"from": three, "to": one, "amount": 5}))
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        answers = await asyncio.gather(*(callers[n % 2].post(path, body) for n, (path, body) in enumerate(requests)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert sum([await factory.balance(wallet) for wallet in wallets]) == 300
    await factory.assert_books_balance()


async def test_one_request_and_one_reversal_win(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """The same key from both processes is one transaction; of many reversals of it one is done."""
    payer, one, two = [await factory.wallet(30) for _ in range(3)]
    body = postings((payer, -30), (one, 10), (two, 20))
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        answers = await asyncio.gather(*(caller.post("/v1/transactions", body, key="one") for _ in range(10) for caller in callers))
        assert tally(answers) == {(201, ""): 20}
        assert len({answer.content for answer in answers}) == 1
        path = f"/v1/transactions/{answers[0].json()['id']}/reverse"
        answers = await asyncio.gather(*(caller.post(path) for _ in range(10) for caller in callers))
    assert tally(answers) == {(201, ""): 1, (409, "reversal-limit"): 19}
    assert [await factory.balance(wallet) for wallet in (payer, one, two)] == [30, 30, 30]
    problem(await service.post(path), 409, "reversal-limit")
    await factory.assert_books_balance()


async def test_exchanges_race_with_changes_of_their_rate(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """Versions have no gap and no double, and every exchange has the amount of the version that it names."""
    member = await factory.member()
    await factory.wallet(400, member=member)
    assert (await service.put("/v1/rates/PTS-GBP", {"from_amount": 1, "to_amount": 1})).status_code == 200
    body = {"member_id": member, "from": "PTS", "to": "GBP", "from_amount": 10}
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        changes = [callers[n % 2].put("/v1/rates/PTS-GBP", {"from_amount": 1, "to_amount": n}) for n in range(2, 10)]
        exchanges = [callers[n % 2].post("/v1/exchanges", body) for n in range(50)]
        answers = await asyncio.gather(*changes, *exchanges)
    stored = [answer.json() for answer in answers[: len(changes)] if answer.status_code == 200]
    assert tally(answers[: len(changes)]).keys() <= {(200, ""), (409, "invalid-state")}
    assert sorted(rate["version"] for rate in stored) == list(range(2, len(stored) + 2))
    assert await other_services.database.raw["rate_versions"].count_documents({}) == len(stored) + 1
    assert tally(answers[len(changes) :]) == {(201, ""): 40, (409, "insufficient-funds"): 10}
    worth = {1: 1} | {rate["version"]: rate["to_amount"] for rate in stored}
    made = [answer.json() for answer in answers[len(changes) :] if answer.status_code == 201]
    assert all(each["to_amount"] == 10 * worth[each["rate"]["version"]] for each in made)
    assert await factory.balance(f"{member}:GBP") == sum(each["to_amount"] for each in made)
    await factory.assert_books_balance()
