"""Awards that wait for an event: released once by what confirms their purchase, as far as it was not refunded, or lapsed for ever."""

import asyncio
from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.ledger.jobs import sweep
from guerdon.ledger.models import Idempotency, entry_id, parse_location
from guerdon.reversals.rules import Reversal, reversal_command
from guerdon.wiring.services import Services
from tests.api.test_refunds import ADA, record, refund, total
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve

WAITS = {"type": "event", "event_type": "delivered", "within_days": 10}


def confirmation(factory: Factory, purchase: str, **changes: Any) -> dict[str, Any]:
    plain = factory.event(**{"type": "delivered", "confirms": purchase, "member": ADA, **changes})
    del plain["amount"], plain["currency"]
    return plain


async def wallet_of(service: Caller, member: str, asset: str = "PTS") -> tuple[int, int, int]:
    wallet = (await service.get(f"/v1/wallets/{member}:{asset}")).json()
    return wallet["balance"], wallet["pending"], wallet["available"]


async def released(service: Caller, event: dict[str, Any]) -> list[int]:
    return [each["amount"] for each in (await record(service, event))["releases"]]


async def test_pending_award_can_be_spent_after_confirmation(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(pending=WAITS, expiry={"type": "never"})
    bought = await record(service, factory.event(member=ADA))
    [award] = bought["awards"]
    assert (award["status"], award["awaits"], award["available_at"]) == ("pending", "delivered", None)
    member = bought["member_id"]
    assert await wallet_of(service, member) == (139, 139, 0)
    problem(await service.post(f"/v1/wallets/{member}:PTS/debit", {"amount": 1}), 409, "insufficient-funds")

    preview = await service.post("/v1/events/preview", confirmation(factory, bought["id"]), key=None)
    assert [each["amount"] for each in preview.json()["releases"]] == [139]
    assert await wallet_of(service, member) == (139, 139, 0)
    arrived = confirmation(factory, bought["id"])
    answer = await record(service, arrived)
    [release] = answer["releases"]
    assert (release["campaign"], release["amount"], release["expires_at"], answer["awards"]) == (campaign, 139, None, [])
    assert answer["decisions"][0]["reasons"] == ["139 of 139 are released"]
    assert await wallet_of(service, member) == (139, 0, 139)
    again = await service.post("/v1/events", arrived, key=None)
    assert (again.status_code, again.json()) == (200, answer)

    [seen] = (await service.get(f"/v1/events/{bought['id']}")).json()["awards"]
    assert (seen["status"], seen["released_by"], seen["expires_at"]) == ("paid", arrived["id"], None)
    assert (await service.post(f"/v1/wallets/{member}:PTS/debit", {"amount": 139})).status_code == 201
    await factory.assert_books_balance()


async def test_expiry_of_an_award_counts_from_its_release(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    await factory.campaign(pending=WAITS, expiry={"type": "after_days", "days": 5})
    bought = await record(service, factory.event(member=ADA))
    clock.advance(days=9)
    [release] = (await record(service, confirmation(factory, bought["id"])))["releases"]
    assert release["expires_at"] > bought["awards"][0]["expires_at"]
    clock.advance(days=5)
    assert await wallet_of(service, bought["member_id"]) == (139, 0, 139)
    clock.advance(days=1)
    assert (await wallet_of(service, bought["member_id"]))[2] == 0
    await factory.assert_books_balance()


@pytest.mark.parametrize("owes", [0, 50])
async def test_unconfirmed_award_expires_unspent(
    service: Caller, factory: Factory, services: Services, clock: ManualClock, owes: int
) -> None:
    """Not even a debt is paid with it."""
    clock.stop()
    await factory.campaign(pending=WAITS, clawback="debt")
    bought = await record(service, factory.event(member=ADA))
    member = bought["member_id"]
    if owes:
        await service.put(f"/v1/wallets/{member}:PTS/terms", {"credit_limit": owes})
        assert (await service.post(f"/v1/wallets/{member}:PTS/debit", {"amount": owes})).status_code == 201
    clock.advance(days=11)
    if owes:
        await sweep(services.ledger, services.database, clock)
    late = await record(service, confirmation(factory, bought["id"]))
    assert (late["releases"], late["decisions"][0]["outcome"]) == ([], "refused")
    assert late["decisions"][0]["reasons"][0].startswith("it has lapsed: the event was to come before 20")
    back = await record(service, refund(factory, bought["id"], 13912))
    assert total(back) == 0
    assert "it has lapsed before anybody could spend it" in back["decisions"][0]["reasons"]
    await sweep(services.ledger, services.database, clock)
    assert await factory.balance(f"{member}:PTS") == -owes
    await factory.assert_books_balance()


async def test_second_confirmation_releases_nothing_and_states_the_reason(service: Caller, factory: Factory) -> None:
    await factory.campaign(pending=WAITS)
    bought = await record(service, factory.event(member=ADA))
    first = confirmation(factory, bought["id"])
    assert await released(service, first) == [139]
    second = await record(service, confirmation(factory, bought["id"]))
    assert second["releases"] == []
    assert second["decisions"][0]["reasons"] == [f"{first['id']} has released it before"]
    other = await record(service, confirmation(factory, bought["id"], type="unpacked"))
    assert (other["releases"], other["decisions"]) == ([], [])
    assert other["note"] == f"nothing of {bought['id']} waits for unpacked"
    await factory.assert_books_balance()


async def test_concurrent_confirmations_and_refunds_release_an_award_once(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign(pending=WAITS)
    bought = await record(service, factory.event(member=ADA))
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        events = [confirmation(factory, bought["id"]) for _ in range(30)] + [refund(factory, bought["id"], 1391) for _ in range(5)]
        answers = await asyncio.gather(*(callers[n % 2].post("/v1/events", event, key=None) for n, event in enumerate(events)))
    assert {answer.status_code for answer in answers} == {201}
    releases = [each for answer in answers for each in answer.json()["releases"]]
    taken = sum(total(answer.json()) for answer in answers)
    assert len(releases) == 1
    balance, pending, available = await wallet_of(service, bought["member_id"])
    assert (balance, pending, available) == (139 + taken, 0, 139 + taken)
    assert taken == -70
    await factory.assert_books_balance()


async def test_confirmation_releases_only_the_unrefunded_part(service: Caller, factory: Factory) -> None:
    await factory.campaign(pending=WAITS)
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    assert total(await record(service, refund(factory, bought["id"], 4000))) == -40
    assert await wallet_of(service, bought["member_id"]) == (60, 60, 0)
    assert await released(service, confirmation(factory, bought["id"])) == [60]
    assert total(await record(service, refund(factory, bought["id"], 3000))) == -30
    assert await wallet_of(service, bought["member_id"]) == (30, 0, 30)
    whole = await record(service, factory.event(member=ADA, amount=10_000))
    await record(service, refund(factory, whole["id"], 10_000))
    late = await record(service, confirmation(factory, whole["id"]))
    assert (late["releases"], late["decisions"][0]["reasons"]) == ([], ["nothing is left of it: its purchase was refunded"])
    await factory.assert_books_balance()


async def test_refund_without_clawback_keeps_the_pending_award_whole(service: Caller, factory: Factory) -> None:
    await factory.campaign(pending=WAITS, clawback="none")
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    assert total(await record(service, refund(factory, bought["id"], 10_000))) == 0
    assert await released(service, confirmation(factory, bought["id"])) == [100]
    await factory.assert_books_balance()


async def test_refund_takes_from_the_released_lot(service: Caller, factory: Factory) -> None:
    await factory.campaign(pending=WAITS, expiry={"type": "after_days", "days": 20})
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    member = bought["member_id"]
    assert (await service.post(f"/v1/wallets/{member}:PTS/credit", {"amount": 500})).status_code == 201
    await record(service, confirmation(factory, bought["id"]))
    await record(service, refund(factory, bought["id"], 10_000))
    lots = (await service.get(f"/v1/wallets/{member}:PTS/lots")).json()["items"]
    assert [(lot["amount"], lot["expires_at"]) for lot in lots] == [(500, None)]
    await factory.assert_books_balance()


async def test_confirmation_may_arrive_before_its_purchase(service: Caller, factory: Factory) -> None:
    await factory.campaign(pending=WAITS)
    purchase = factory.event(member=ADA, amount=10_000)
    early = await record(service, confirmation(factory, purchase["id"]))
    assert (early["releases"], early["note"]) == ([], f"it waits for its purchase, {purchase['id']}")
    await record(service, refund(factory, purchase["id"], 2000))
    bought = await record(service, purchase)
    assert bought["awards"][0]["status"] == "paid"
    assert f"{early['id']} had confirmed it before it arrived: it waits for nothing" in bought["decisions"][0]["reasons"]
    assert await wallet_of(service, bought["member_id"]) == (80, 0, 80)
    await factory.assert_books_balance()


async def test_concurrent_purchase_and_confirmation_release_the_award(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign(pending=WAITS)
    await record(service, factory.event(member=ADA, amount=100))
    purchases = [factory.event(member=ADA, amount=1000) for _ in range(10)]
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        events = [each for purchase in purchases for each in (purchase, confirmation(factory, purchase["id"]))]
        answers = await asyncio.gather(*(callers[n % 2].post("/v1/events", event, key=None) for n, event in enumerate(events)))
    assert {answer.status_code for answer in answers} == {201}
    member = answers[0].json()["member_id"]
    assert await wallet_of(service, member) == (101, 1, 100)
    await factory.assert_books_balance()


async def test_released_award_repays_a_debt(service: Caller, factory: Factory) -> None:
    await factory.campaign(pending=WAITS)
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    wallet = f"{bought['member_id']}:PTS"
    assert (await service.put(f"/v1/wallets/{wallet}/terms", {"credit_limit": 30})).status_code == 200
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 30})).status_code == 201
    assert await released(service, confirmation(factory, bought["id"])) == [100]
    assert (await wallet_of(service, bought["member_id"]))[:2] == (70, 0)
    await factory.assert_books_balance()


async def test_frozen_wallet_defers_the_release_to_another_event(service: Caller, factory: Factory) -> None:
    await factory.campaign(pending=WAITS)
    bought = await record(service, factory.event(member=ADA))
    wallet = f"{bought['member_id']}:PTS"
    assert (await service.post(f"/v1/wallets/{wallet}/freeze", {"reason": "looked at"})).status_code == 200
    held = await record(service, confirmation(factory, bought["id"]))
    assert (held["releases"], held["decisions"][0]["reasons"]) == ([], ["the wallet is frozen"])
    assert (await service.post(f"/v1/wallets/{wallet}/unfreeze", {"reason": "it is fine"})).status_code == 200
    assert await released(service, confirmation(factory, bought["id"])) == [139]
    await factory.assert_books_balance()


async def test_manually_reversed_award_is_not_released(service: Caller, factory: Factory, services: Services) -> None:
    """Even where two campaigns' awards wait in one lot. Awards could be reversed before; such reversals remain in the books."""

    async def reverse(award: str, amount: int | None) -> None:
        first = entry_id(*parse_location(award))
        sides = list((await services.ledger.find_entries([first])).values())
        idempotency = Idempotency(sides[0].owner, "usr_1", f"reverse-{award}", b"")
        await services.ledger.submit(reversal_command(Reversal(sides, amount, idempotency), services.ledger.calendar))

    await factory.campaign(pending=WAITS)
    await factory.campaign(pending=WAITS, award={"type": "fixed", "amount": 10})
    bought = await record(service, factory.event(member=ADA))
    by_hand = bought["awards"][0]["transaction_id"]
    await reverse(by_hand, 100)
    assert sum(await released(service, confirmation(factory, bought["id"]))) == 49
    assert await wallet_of(service, bought["member_id"]) == (49, 0, 49)
    other = await record(service, factory.event(member=ADA))
    for award in other["awards"]:
        await reverse(award["transaction_id"], None)
    late = await record(service, confirmation(factory, other["id"]))
    assert [each["reasons"] for each in late["decisions"]] == [["nothing is left of it: it was taken back by hand"]] * 2
    await factory.assert_books_balance()


async def test_bulk_confirms_a_purchase_of_the_same_request(service: Caller, factory: Factory) -> None:
    await factory.campaign(pending=WAITS)
    purchase = factory.event(member=ADA)
    body = {"events": [confirmation(factory, purchase["id"]), purchase]}
    results = (await service.post("/v1/events/bulk", body, key=None)).json()["results"]
    assert [result["status"] for result in results] == [201, 201]
    assert [each["amount"] for each in results[0]["event"]["releases"]] == [139]
    await factory.assert_books_balance()


async def test_expired_pending_award_still_counts_against_the_budget(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    await factory.campaign(pending=WAITS, budget=200)
    await record(service, factory.event(member=ADA))
    clock.advance(days=30)
    assert total(await record(service, factory.event(member=ADA))) == 61
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"type": "purchase", "amount": 1, "currency": "GBP"}, "/confirms"),
        ({"type": "refund", "amount": 1, "currency": "GBP"}, "/confirms"),
        ({"id": "itself", "confirms": "itself"}, "/confirms"),
        ({"confirms": "signup-1"}, "/confirms"),
        ({"confirms": "of-bob"}, "/confirms"),
        ({"confirms": "x" * 129}, "/confirms"),
        ({"refund_of": "order"}, "/refund_of"),
    ],
)
async def test_invalid_confirmation_is_refused(service: Caller, factory: Factory, changes: dict[str, Any], pointer: str) -> None:
    await record(service, {**confirmation(factory, "gone"), "id": "signup-1", "type": "signup"})
    await record(service, factory.event(id="of-bob", member={"external_id": "bob"}))
    refused = await service.post("/v1/events", {**confirmation(factory, "order"), **changes}, key=None)
    assert problem(refused, 422, "validation")["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"pending": {**WAITS, "event_type": "purchase"}}, "/pending/event_type"),
        ({"pending": {**WAITS, "within_days": 0}}, "/pending/within_days"),
        ({"pending": {**WAITS, "within_days": 367}}, "/pending/within_days"),
        ({"pending": {"type": "event", "event_type": "delivered"}}, "/pending/within_days"),
        ({"pending": WAITS, "event_types": ["signup"]}, "/pending"),
        (
            {"pending": WAITS, "event_types": ["purchase"], "achievement": {"events": 2, "within": {"type": "days", "days": 7}}},
            "/pending",
        ),
    ],
)
async def test_invalid_pending_rule_is_refused(service: Caller, changes: dict[str, Any], pointer: str) -> None:
    award = {"type": "fixed", "amount": 1}
    body = {"name": "waits", "asset": "PTS", "event_types": ["purchase"], "award": award, **changes}
    assert problem(await service.post("/v1/campaigns", body), 422, "validation")["errors"][0]["pointer"] == pointer
