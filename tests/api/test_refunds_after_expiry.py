"""Refunds of awards that have expired: what expired is not taken a second time, in whatever order things happen."""

import asyncio
from typing import Any

import pytest

from guerdon.clock import rfc3339
from guerdon.config import Settings
from guerdon.ledger.jobs import sweep
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.serving import serve

ADA = {"external_id": "ada"}
FIVE_DAYS = {"type": "after_days", "days": 5}
every_policy = pytest.mark.parametrize("clawback", ["debt", "up_to_balance"])
every_order = pytest.mark.parametrize("late", [False, True], ids=["before the expiry", "after the expiry"])


class Shopper:
    """A member with 30 bought points, and purchases that earn a point per pound for five days."""

    def __init__(self, service: Caller, factory: Factory, member: str) -> None:
        self._service, self._factory = service, factory
        self.member, self.wallet = member, f"{member}:PTS"

    async def send(self, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self._service.post(path, body, key=None if path.startswith("/v1/events") else "")
        assert answer.status_code in (200, 201), answer.text
        sent: dict[str, Any] = answer.json()
        return sent

    async def buy(self, name: str = "buy", amount: int = 10_000) -> dict[str, Any]:
        return await self.send("/v1/events", self._factory.event(id=name, member={"id": self.member}, amount=amount))

    async def refund(self, name: str = "buy", amount: int = 10_000) -> dict[str, Any]:
        event = self._factory.event(type="refund", refund_of=name, member={"id": self.member}, amount=amount)
        preview = await self.send("/v1/events/preview", event)
        recorded = await self.send("/v1/events", event)
        assert (preview["decisions"], preview["note"]) == (recorded["decisions"], recorded["note"])
        return recorded

    async def spend(self, amount: int) -> str:
        return str((await self.send(f"/v1/wallets/{self.wallet}/debit", {"amount": amount}))["id"])

    async def hold(self, amount: int) -> str:
        return str(
            (await self.send("/v1/holds", {"wallet": self.wallet, "amount": amount, "expires_in_seconds": 30 * 86_400}))["id"]
        )

    async def available(self) -> int:
        """Available value, less what is owed."""
        answer = (await self._service.get(f"/v1/wallets/{self.wallet}")).json()
        return int(answer["balance"] - answer["expired"] - answer["held"] - answer["pending"])


async def shopper(service: Caller, factory: Factory, **campaign: Any) -> Shopper:
    await factory.campaign(event_types=["purchase"], expiry=FIVE_DAYS, **campaign)
    wallet = await factory.wallet(30)
    return Shopper(service, factory, wallet.partition(":")[0])


@every_policy
@every_order
async def test_expired_award_is_not_taken_from_bought_points(
    service: Caller, factory: Factory, clock: ManualClock, clawback: str, late: bool
) -> None:
    ada = await shopper(service, factory, clawback=clawback)
    await ada.buy()
    clock.advance(days=10 if late else 0)
    recorded = await ada.refund()
    if late:
        [decision] = recorded["decisions"]
        assert (recorded["awards"], decision["outcome"], decision["amount"]) == ([], "refused", 0)
        assert decision["reasons"][1:] == ["100 of it have expired and are not taken again"]
    clock.advance(days=10)
    assert await ada.available() == 30
    await factory.assert_books_balance()


@every_policy
@every_order
async def test_only_the_spent_part_of_an_expired_award_is_taken(
    service: Caller, factory: Factory, clock: ManualClock, clawback: str, late: bool
) -> None:
    """In three parts: the expired value counts first, so the bought points are touched last."""
    ada = await shopper(service, factory, clawback=clawback)
    await ada.buy()
    await ada.spend(40)
    clock.advance(days=10 if late else 0)
    taken = [sum(award["amount"] for award in (await ada.refund(amount=part))["awards"]) for part in (5000, 2500, 2500)]
    clock.advance(days=10)
    rest = -30 if clawback == "up_to_balance" else -40
    assert taken == ([0, -15, rest + 15] if late else [-50, -25, rest + 15])
    assert await ada.available() == 30 + rest
    await factory.assert_books_balance()


async def test_refunds_before_and_after_the_expiry_add_up(service: Caller, factory: Factory, clock: ManualClock) -> None:
    ada = await shopper(service, factory)
    await ada.buy()
    await ada.spend(40)
    first = await ada.refund(amount=5000)
    clock.advance(days=10)
    second = await ada.refund(amount=5000)
    assert [sum(award["amount"] for award in event["awards"]) for event in (first, second)] == [-50, -40]
    assert await ada.available() == -10
    await factory.assert_books_balance()


async def test_awards_that_share_a_lot_share_what_has_expired(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """Each expired point counts for one refund only."""
    ada = await shopper(service, factory)
    await ada.buy("first")
    await ada.buy("second", 5000)
    await ada.spend(90)
    clock.advance(days=10)
    assert (await ada.refund("second", 5000))["awards"] == []
    assert [award["amount"] for award in (await ada.refund("first"))["awards"]] == [-90]
    assert await ada.available() == 30 - 90
    await factory.assert_books_balance()


@pytest.mark.parametrize("how", ["void", "reverse"])
async def test_value_that_returns_after_the_expiry_is_still_known(
    service: Caller, factory: Factory, clock: ManualClock, how: str
) -> None:
    """It returns for seven days; a refund takes it first within them, and counts it as taken after them."""
    ada = await shopper(service, factory)
    await ada.buy("within")
    first = await ada.hold(60) if how == "void" else await ada.spend(60)
    clock.advance(days=8)
    path = {"void": "/v1/holds/{}/void", "reverse": "/v1/transactions/{}/reverse"}[how]
    await ada.send(path.format(first), {})
    assert await ada.available() == 90
    tomorrow = rfc3339(clock.now_ms() + 86_400_000)
    await ada.send(f"/v1/wallets/{ada.wallet}/credit", {"amount": 10, "expires_at": tomorrow})
    assert [award["amount"] for award in (await ada.refund("within"))["awards"]] == [-60]
    lots = (await service.get(f"/v1/wallets/{ada.wallet}/lots")).json()["items"]
    assert [(lot["amount"], lot["expires_at"]) for lot in lots] == [(10, tomorrow), (30, None)]
    await ada.spend(10)

    await ada.buy("beyond")
    second = await ada.hold(70) if how == "void" else await ada.spend(70)
    clock.advance(days=8)
    await ada.send(path.format(second), {})
    assert (await ada.refund("beyond", 3000))["awards"] == []
    clock.advance(days=8)
    assert (await ada.refund("beyond", 7000))["awards"] == []
    assert await ada.available() == 30
    await factory.assert_books_balance()


async def test_held_value_of_an_expired_award_is_not_expired(service: Caller, factory: Factory, clock: ManualClock) -> None:
    ada = await shopper(service, factory)
    await ada.buy()
    hold = await ada.hold(60)
    clock.advance(days=8)
    assert [award["amount"] for award in (await ada.refund())["awards"]] == [-60]
    assert await ada.available() == -30
    await ada.send(f"/v1/holds/{hold}/void", {})
    assert await ada.available() == 30
    await factory.assert_books_balance()


async def test_transferred_value_that_expires_elsewhere_was_used(service: Caller, factory: Factory, clock: ManualClock) -> None:
    ada = await shopper(service, factory)
    await ada.buy()
    bob = await factory.wallet(5)
    await ada.send("/v1/transfers", {"from": ada.wallet, "to": bob, "amount": 60})
    clock.advance(days=10)
    assert [award["amount"] for award in (await ada.refund())["awards"]] == [-60]
    assert (await ada.available(), await Shopper(service, factory, bob.partition(":")[0]).available()) == (-30, 5)
    await factory.assert_books_balance()


async def test_expiry_that_was_reversed_does_not_count(service: Caller, factory: Factory, clock: ManualClock) -> None:
    ada = await shopper(service, factory)
    await ada.buy()
    clock.advance(days=8)
    await ada.spend(1)
    entries = (await service.get(f"/v1/wallets/{ada.wallet}/entries", kind="expiry")).json()["items"]
    await ada.send(f"/v1/transactions/{entries[0]['transaction_id']}/reverse", {"amount": 80})
    assert await ada.available() == 109
    assert [award["amount"] for award in (await ada.refund())["awards"]] == [-80]
    assert await ada.available() == 29
    await factory.assert_books_balance()


async def test_frozen_wallet_and_policy_none_take_and_count_nothing(service: Caller, factory: Factory, clock: ManualClock) -> None:
    ada = await shopper(service, factory, clawback="none")
    await factory.campaign(event_types=["purchase"], expiry=FIVE_DAYS)
    await ada.buy()
    clock.advance(days=10)
    await ada.send(f"/v1/wallets/{ada.wallet}/freeze", {"reason": "lost card"})
    reasons = [decision["reasons"][1] for decision in (await ada.refund(amount=1000))["decisions"]]
    assert reasons == ["the wallet is frozen"] * 2
    await ada.send(f"/v1/wallets/{ada.wallet}/unfreeze", {"reason": "found"})
    reasons = [decision["reasons"][1] for decision in (await ada.refund(amount=9000))["decisions"]]
    assert reasons == ["this campaign takes nothing back on refunds", "90 of it have expired and are not taken again"]
    assert await ada.available() == 30
    await factory.assert_books_balance()


async def test_expired_award_of_a_referrer_is_not_taken_again(service: Caller, factory: Factory, clock: ManualClock) -> None:
    caps = [{"scope": "member", "period": "day", "limit": 500}]
    ada = await shopper(service, factory, pays="referrer", caps=caps)
    await ada.buy("earlier", 1)
    friend = await factory.member()
    code = (await service.get(f"/v1/members/{ada.member}/referral")).json()["code"]
    assert (await service.post(f"/v1/members/{friend}/referral", {"code": code}, key=None)).status_code == 201
    shop = Shopper(service, factory, friend)
    bought = await shop.buy()
    assert [award["to"] for award in bought["awards"]] == ["referrer"]
    await ada.spend(40)
    clock.advance(days=10)
    assert [award["amount"] for award in (await shop.refund(amount=7000))["awards"]] == [-10]
    assert await ada.available() == 20
    await factory.assert_books_balance()


async def test_expired_award_of_an_achievement_is_not_taken_again(service: Caller, factory: Factory, clock: ManualClock) -> None:
    goal = {"events": 2, "within": {"type": "days", "days": 30}}
    ada = await shopper(service, factory, award={"type": "fixed", "amount": 70}, achievement=goal)
    for name in ("one", "two"):
        await ada.buy(name)
    await ada.spend(20)
    clock.advance(days=10)
    assert [award["amount"] for award in (await ada.refund("one"))["awards"]] == [-20]
    assert await ada.available() == 10
    await factory.assert_books_balance()


async def test_confirmed_award_that_has_expired_is_not_taken_again(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """It waits first, so its expiry is that of its release."""
    pending = {"type": "event", "event_type": "delivered", "within_days": 20}
    ada = await shopper(service, factory, pending=pending)
    await ada.buy()
    clock.advance(days=10)
    delivered = {"id": "there", "type": "delivered", "member": {"id": ada.member}, "confirms": "buy"}
    await ada.send("/v1/events", {**delivered, "occurred_at": "2026-01-31T12:00:00Z"})
    await ada.spend(25)
    clock.advance(days=10)
    assert [award["amount"] for award in (await ada.refund())["awards"]] == [-25]
    assert await ada.available() == 5
    await factory.assert_books_balance()


async def test_concurrent_refunds_count_each_expired_point_once(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """Two processes, twenty purchases in one lot of which half was spent, and the sweep meanwhile."""
    ada = await shopper(service, factory)
    for number in range(20):
        await ada.buy(f"buy-{number}", 1000)
    await ada.spend(100)
    clock.advance(days=10)
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        refunds = [
            factory.event(type="refund", refund_of=f"buy-{number}", member={"id": ada.member}, amount=1000) for number in range(20)
        ]
        answers = await asyncio.gather(
            *(callers[number % 2].post("/v1/events", event, key=None) for number, event in enumerate(refunds)),
            sweep(other_services.ledger, other_services.database, clock),
        )
    taken = [-sum(award["amount"] for award in answer.json()["awards"]) for answer in answers[:20]]
    assert sorted(taken) == [0] * 10 + [10] * 10
    assert await ada.available() == 30 - 100
    await factory.assert_books_balance()
