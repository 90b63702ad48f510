"""Two processes and one voucher: one consistent history, the exact number of winners, and nothing taken or given back twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest_asyncio

from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.serving import serve

GBP = {"currency": "GBP"}
CARD = {"name": "a card", "kind": "gift_card", "value": {"type": "fixed", "amount": 1000, **GBP}}
Ask = tuple[str, dict[str, Any]]
"""The last part of a path, and a body."""


@pytest_asyncio.fixture
async def both(service: Caller, other_services: Services, settings: Settings, clock: ManualClock) -> AsyncIterator[list[Caller]]:
    """Callers with the same key on two processes."""
    async with serve(other_services, settings, clock) as other:
        assert service.token is not None
        yield [service, other.with_token(service.token)]


async def redeem(service: Caller, offer: str, member: str) -> str:
    answer = await service.post(f"/v1/offers/{offer}/redeem", {"member_id": member})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["voucher"]["code"])


async def ask_all(both: Sequence[Caller], code: str, asks: Sequence[Ask]) -> list[dict[str, Any]]:
    """Ask both processes in turns, all at once; an answer says its `step`, or the `status_now` that refused it."""
    answers = await asyncio.gather(
        *(both[number % 2].post(f"/v1/vouchers/{code}/{step}", body) for number, (step, body) in enumerate(asks))
    )
    assert all(answer.status_code == 200 or answer.json()["code"] == "invalid-state" for answer in answers), answers
    return [answer.json() for answer in answers]


def steps_of(answers: Sequence[dict[str, Any]]) -> Counter[str]:
    return Counter(answer["step"] for answer in answers if "step" in answer)


async def history_of(service: Caller, code: str) -> list[dict[str, Any]]:
    """Oldest first."""
    answer = await service.get(f"/v1/vouchers/{code}/history", limit=100)
    return list(reversed(answer.json()["items"]))


AFTER: dict[tuple[str, str], str] = {
    ("issued", "reserve"): "reserved", ("issued", "use"): "used", ("issued", "cancel"): "cancelled", ("reserved", "use"): "used",
    ("reserved", "release"): "issued", ("used", "unuse"): "issued",
}  # fmt: skip


async def test_fifty_concurrent_voucher_steps_have_one_history(both: list[Caller], service: Caller, factory: Factory) -> None:
    """Uses, releases, cancels and the rest: whatever wins, the steps fit each other, and every answer is one of them."""
    wallet = await factory.wallet(300)
    offer = await factory.offer(price={"asset": "PTS", "amount": 100}, stock=3)
    basket = {"amount": 2000, **GBP}
    kinds: list[Ask] = [("use", basket), ("reserve", basket), ("release", {}), ("unuse", {}), ("use", basket)]
    for cancels in (0, 1, 10):
        code = await redeem(service, offer, wallet.partition(":")[0])
        asks = [("cancel", {}) if number < cancels else kinds[number % 5] for number in range(50)]
        answers = await ask_all(both, code, asks)
        steps = (await history_of(service, code))[1:]
        assert Counter(step["step"] for step in steps) == steps_of(answers)
        assert {step["transaction_id"] for step in steps} == {answer["transaction_id"] for answer in answers if "step" in answer}
        status = "issued"
        for step in steps:
            status = AFTER[status, step["step"]]
        assert (await service.get(f"/v1/vouchers/{code}")).json()["status"] == status
    cancelled = (await service.get(f"/v1/offers/{offer}")).json()
    assert await factory.balance(wallet) == 300 - 100 * cancelled["issued"]
    await factory.assert_books_balance()


async def test_concurrent_cancellations_return_the_price_once(both: list[Caller], service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(500)
    offer = await factory.offer(price={"asset": "PTS", "amount": 400}, stock=1)
    code = await redeem(service, offer, wallet.partition(":")[0])
    answers = await ask_all(both, code, [("cancel", {})] * 30)
    assert steps_of(answers) == {"cancel": 1}
    assert Counter(answer.get("status_now") for answer in answers) == {None: 1, "cancelled": 29}
    assert await factory.balance(wallet) == 500
    await factory.assert_books_balance()


async def test_concurrent_redemptions_and_cancellations_lose_nothing(both: list[Caller], service: Caller, factory: Factory) -> None:
    """Everybody redeems what others give back, out of a stock of three."""
    offer = await factory.offer(price={"asset": "PTS", "amount": 10}, stock=3)
    wallets = [await factory.wallet(100) for _ in range(6)]

    async def shop(number: int) -> Counter[str]:
        member, caller = wallets[number].partition(":")[0], both[number % 2]
        done: Counter[str] = Counter()
        for _ in range(6):
            redeemed = await caller.post(f"/v1/offers/{offer}/redeem", {"member_id": member})
            done["redeemed" if redeemed.status_code == 201 else redeemed.json()["code"]] += 1
            if redeemed.status_code == 201 and number:
                gone = await caller.post(f"/v1/vouchers/{redeemed.json()['voucher']['code']}/cancel")
                assert gone.status_code == 200, gone.text
                done["kept"] -= 1
            done["kept"] += redeemed.status_code == 201
        return done

    done = sum(await asyncio.gather(*map(shop, range(6))), Counter())
    assert set(done) <= {"redeemed", "sold-out", "kept"}
    issued = (await service.get(f"/v1/offers/{offer}")).json()["issued"]
    assert issued == done["kept"] <= 3
    assert sum([await factory.balance(wallet) for wallet in wallets]) == 600 - 10 * issued
    await factory.assert_books_balance()


async def test_two_reservations_never_exceed_one_balance(both: list[Caller], service: Caller, factory: Factory) -> None:
    """What the first has set aside the second does not see."""
    code = await redeem(service, await factory.offer(**CARD), await factory.member())
    answers = await ask_all(both, code, [("reserve", {"amount": 1000, **GBP})] * 2)
    assert Counter(answer.get("reserved") for answer in answers) == {1000: 1, None: 1}
    [refused] = [answer for answer in answers if "step" not in answer]
    assert refused["status_now"] == "reserved"
    [held] = [answer for answer in answers if "step" in answer]
    await ask_all(both, code, [("release", {"reservation": held["reservation"]})])
    parts = await ask_all(both, code, [("reserve", {"amount": 700, **GBP})] * 2)
    assert sorted(part["reserved"] for part in parts) == [300, 700], "together what there is, and no more"
    uses = await ask_all(both, code, [("use", {"amount": 700, "reservation": part["reservation"], **GBP}) for part in parts] * 5)
    assert sorted(use["discount"] for use in uses if "step" in use) == [300, 700]
    await factory.assert_books_balance()


async def test_two_gift_cards_pay_for_one_order(both: list[Caller], service: Caller, factory: Factory) -> None:
    """The remainder stays on the last; the order's reference is good once for each card."""
    member, offer = await factory.member(), await factory.offer(**CARD)
    cards = [await redeem(service, offer, member) for _ in range(2)]
    due, left = 1300, []
    for card in cards:
        body = {"amount": due, "reference": "order-7", **GBP}
        answers = await asyncio.gather(*(both[number % 2].post(f"/v1/vouchers/{card}/use", body) for number in range(6)))
        codes = Counter(answer.json().get("code", "done") for answer in answers)
        [used] = [answer.json() for answer in answers if answer.status_code == 200]
        assert codes["done"] == 1
        assert set(codes) <= {"done", "reference-reused", "invalid-state"}
        due -= used["discount"]
        left.append(used["voucher"]["balance"])
    assert (due, left) == (0, [0, 700])
    await factory.assert_books_balance()


async def test_repeated_voucher_step_takes_effect_once(both: list[Caller], service: Caller, factory: Factory) -> None:
    """The same key at both processes at once: one answer, whichever step it is."""
    code = await redeem(service, await factory.offer(), await factory.member())
    basket = {"amount": 2000, **GBP}
    asks: list[Ask] = [("reserve", basket), ("release", {}), ("use", basket), ("unuse", {}), ("cancel", {})]
    for step, body in asks:
        answers = await asyncio.gather(*(each.post(f"/v1/vouchers/{code}/{step}", body, key=step) for each in both * 4))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {None: 1, "true": 7}
    assert [step["step"] for step in await history_of(service, code)] == ["issue", *(step for step, _ in asks)]
    await factory.assert_books_balance()


async def test_new_attempts_after_an_undone_use_race_for_one(both: list[Caller], service: Caller, factory: Factory) -> None:
    """The same order pays again with a gift card that it gave back: one of ten requests with keys of their own wins."""
    card = await redeem(service, await factory.offer(**CARD), await factory.member())
    body = {"amount": 100, "reference": "order-7", **GBP}
    for attempt in range(3):
        answers = await asyncio.gather(*(both[number % 2].post(f"/v1/vouchers/{card}/use", body) for number in range(10)))
        codes = Counter(answer.json().get("code", "done") for answer in answers)
        assert codes == {"done": 1, "reference-reused": 9}, attempt
        await ask_all(both, card, [("unuse", {})])
    await factory.assert_books_balance()
