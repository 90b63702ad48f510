"""Events of two processes that race for what a campaign has left, and for what a member has."""

import asyncio
from typing import Any

from guerdon.config import Settings
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.serving import serve

ADA = {"external_id": "ada"}


def total(recorded: dict[str, Any]) -> int:
    return sum(award["amount"] for award in recorded["awards"])


async def race_for_a_budget(
    caller: Caller, factory: Factory, settings: Settings, clock: ManualClock, *, events: int, whole: int, rest: int
) -> None:
    """So many events, each of which wants 7, meet in two processes; the budget has `whole` such awards, and a rest."""
    budget = 7 * whole + rest
    campaign = await factory.campaign(award={"type": "fixed", "amount": 7}, budget=budget)
    assert caller.token is not None
    patient = settings.model_copy(update={"ledger_deadline_ms": 60_000})
    async with open_services(patient, clock) as one, open_services(patient, clock) as two:
        async with serve(one, patient, clock) as first, serve(two, patient, clock) as second:
            callers = (first.with_token(caller.token), second.with_token(caller.token))
            posts = [callers[n % 2].post("/v1/events", factory.event(), key=None) for n in range(events)]
            answers = await asyncio.gather(*posts)
        used = await one.ledger.get_account(f"{campaign}:budget", campaign)
    assert {answer.status_code for answer in answers} == {201}
    recorded = [answer.json() for answer in answers]
    paid = sorted(filter(None, map(total, recorded)))
    assert paid == sorted([7] * whole + [rest] * bool(rest))
    for each in recorded:
        [decision] = each["decisions"]
        assert (decision["outcome"], decision["amount"]) == ("awarded" if total(each) else "capped", total(each))
        assert total(each) or decision["reasons"][1:] == [f"0 of {budget} are left in the budget"]
    assert used is not None
    assert (used.balance, used.seq) == (budget, len(paid))
    await factory.assert_books_balance()


async def test_events_of_two_processes_race_for_a_budget(
    service: Caller, factory: Factory, settings: Settings, clock: ManualClock
) -> None:
    await race_for_a_budget(service, factory, settings, clock, events=200, whole=20, rest=5)


async def test_refunds_and_debits_race_for_one_balance(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """What is taken back obeys the guard of the wallet like whoever spends: up to the balance, never below."""
    await factory.campaign(clawback="up_to_balance")
    bought = (await service.post("/v1/events", factory.event(member=ADA, amount=10_000), key=None)).json()
    wallet = f"{bought['member_id']}:PTS"
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        other = anonymous.with_token(service.token)
        refunds = [factory.event(type="refund", refund_of=bought["id"], member=ADA, amount=500) for _ in range(20)]
        answers = await asyncio.gather(
            *(service.post("/v1/events", event, key=None) for event in refunds),
            *(other.post(f"/v1/wallets/{wallet}/debit", {"amount": 5}) for _ in range(20)),
        )
    taken = -sum(total(answer.json()) for answer in answers[:20])
    spent = 5 * sum(answer.status_code == 201 for answer in answers[20:])
    assert {answer.status_code for answer in answers[20:]} <= {201, 422}
    assert (taken + spent, await factory.balance(wallet)) == (100, 0)
    await factory.assert_books_balance()
