"""Everybody wants the same voucher, through the services of two processes: exact numbers of winners, and nobody else loses a point."""

import asyncio
from collections import Counter

from guerdon.errors import GuerdonError
from guerdon.http.idempotency import KeyedRequest
from guerdon.permissions import Actor
from guerdon.vouchers.models import RedeemCreate, Redeemed
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.factories import Factory

ACTOR = Actor("key_races", "service_key", frozenset({"*"}))
PRICE = {"asset": "PTS", "amount": 10}


async def redeem(services: Services, offer: str, member: str, key: str, reference: str | None = None) -> str:
    """The code of the voucher, or that of the refusal."""
    request = KeyedRequest(ACTOR, key, f"{offer}{member}{reference}".encode())
    try:
        redeemed, _ = await services.vouchers.redeem(request, offer, RedeemCreate(member, reference))
    except GuerdonError as error:
        return error.code
    assert isinstance(redeemed, Redeemed)
    return f"won {redeemed.voucher.code}"


async def members(services: Services, factory: Factory, count: int) -> list[str]:
    """So many, each with enough for one voucher."""
    made = list((await services.members.ensure_members({f"racer-{number}" for number in range(count)})).values())
    for member in made[:1]:
        await factory.wallet(10, member=member)
    commands = [{"type": "credit", "wallet": f"{member}:PTS", "amount": 10, "key": member} for member in made[1:]]
    if commands:
        answer = await factory.bulk(commands)
        assert {result["status"] for result in answer["results"]} == {201}
    return made


async def assert_sold(services: Services, offer: str, racers: list[str], winners: int) -> None:
    """So many vouchers, and so many points less."""
    vouchers = services.database.raw["vouchers"]
    holders = [row["member"] async for row in vouchers.find({"offer": offer})]
    assert len(holders) == len(set(holders)) == winners
    accounts = await services.ledger.find_accounts([f"{member}:PTS" for member in racers])
    assert {account.owner: account.balance for account in accounts.values()} == {
        member: 0 if member in holders else 10 for member in racers
    }
    assert await services.database.raw["outbox"].count_documents({"kind": "voucher.issued"}) == winners
    assert await services.database.raw["voucher_codes"].count_documents({"offer": offer}) == winners


async def test_two_hundred_members_race_for_the_last_voucher(
    services: Services, other_services: Services, factory: Factory
) -> None:
    """HOT-3 for vouchers: one winner."""
    offer = await factory.offer(stock=1, price=PRICE)
    racers = await members(services, factory, 200)
    processes = (services, other_services)
    answers = await asyncio.gather(*(redeem(processes[n % 2], offer, racer, f"k{n}") for n, racer in enumerate(racers)))
    assert Counter(answer.partition(" ")[0] for answer in answers) == {"won": 1, "sold-out": 199}
    await assert_sold(services, offer, racers, 1)
    await factory.assert_books_balance()


async def test_concurrent_redemptions_keep_the_limit_per_member(
    services: Services, other_services: Services, factory: Factory
) -> None:
    """K of N: forty redemptions of one member, of whom three may be."""
    offer, [racer] = await factory.offer(per_member_limit=3), await members(services, factory, 1)
    processes = (services, other_services)
    answers = await asyncio.gather(*(redeem(processes[n % 2], offer, racer, f"k{n}") for n in range(40)))
    assert Counter(answer.partition(" ")[0] for answer in answers) == {"won": 3, "limit-reached": 37}
    await factory.assert_books_balance()


async def test_repeated_concurrent_redemption_issues_one_voucher(
    services: Services, other_services: Services, factory: Factory
) -> None:
    """One key thirty times, and then one business fact under ten keys: one effect, and the same answer or a definite refusal."""
    offer, [racer] = await factory.offer(price=PRICE), await members(services, factory, 1)
    processes = (services, other_services)
    answers = await asyncio.gather(*(redeem(processes[n % 2], offer, racer, "once") for n in range(30)))
    assert len(set(answers)) == 1
    assert answers[0].startswith("won ")
    await assert_sold(services, offer, [racer], 1)
    free = await factory.offer()
    many = await asyncio.gather(*(redeem(processes[n % 2], free, racer, f"k{n}", "basket-1") for n in range(10)))
    assert Counter(answer.partition(" ")[0] for answer in many) == {"won": 1, "reference-reused": 9}
    await factory.assert_books_balance()


async def test_stock_lowered_during_redemptions_is_never_exceeded(
    services: Services, other_services: Services, service: Caller, factory: Factory
) -> None:
    """Whatever comes first: never more are issued than the stock was then, and never is it lowered below what is issued."""
    offer = await factory.offer(stock=30, price=PRICE)
    racers = await members(services, factory, 40)
    body = {"name": "n", "kind": "discount", "value": {"type": "fixed", "amount": 1, "currency": "GBP"}, "price": PRICE}

    async def lower() -> list[int]:
        return [(await service.put(f"/v1/offers/{offer}", {**body, "stock": stock})).status_code for stock in (25, 20, 15, 10)]

    processes = (services, other_services)
    sales = [redeem(processes[n % 2], offer, racer, f"k{n}") for n, racer in enumerate(racers)]
    statuses, *answers = await asyncio.gather(lower(), *sales)
    assert set(statuses) <= {200, 409}
    told = Counter(answer.partition(" ")[0] for answer in answers)
    assert set(told) <= {"won", "sold-out"}
    state = (await service.get(f"/v1/offers/{offer}")).json()
    assert state["issued"] == told["won"] <= state["stock"] <= 30
    await assert_sold(services, offer, racers, told["won"])
    await factory.assert_books_balance()
