"""Voids of events: a correction takes back what an event paid, and everything that it counted for."""

import asyncio
from typing import Any

import pytest

from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, MEMBER_STATES
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.ledger.store import ENTRIES
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import count_rows, serve

ADA = {"external_id": "ada"}
REASON = {"reason": "the till's clock was wrong"}
TIERS = {"asset": "PTS", "window": {"type": "rolling", "months": 12}, "tiers": [{"code": "gold", "name": "Gold", "points": 100}]}


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


async def void(service: Caller, event_id: str, body: dict[str, Any] = REASON) -> dict[str, Any]:
    answer = await service.post(f"/v1/events/{event_id}/void", body, key=None)
    assert answer.status_code == 200, answer.text
    voided: dict[str, Any] = answer.json()
    return voided


def total(recorded: dict[str, Any]) -> int:
    return sum(award["amount"] for award in recorded["awards"])


async def test_void_takes_back_the_award_and_shows_it(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign()
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    assert (bought.get("status"), "voided" in bought) == (None, False)
    path = f"/v1/events/{bought['id']}"
    assert (await service.get(path)).json() == bought
    dry = await service.post(f"{path}/void?dry_run=true", REASON, key=None)
    assert (dry.status_code, dry.json()["dry_run"], total(dry.json()["voided"])) == (200, True, -100)
    assert dry.json()["voided"]["awards"][0]["transaction_id"] is None
    assert (await service.get(path)).json() == bought
    voided = await void(service, bought["id"])
    assert voided == (await service.get(path)).json()
    assert (voided["status"], voided["awards"], voided["decisions"]) == ("voided", bought["awards"], bought["decisions"])
    shown = voided["voided"]
    assert (shown["reason"], total(shown), shown["decisions"]) == (
        REASON["reason"],
        -100,
        [
            {
                "campaign": campaign, "version": 1, "outcome": "awarded", "amount": -100,
                "reasons": ["the event was voided: 100 of 100 to take back now"],
            }
        ],
    )  # fmt: skip
    wallet = f"{bought['member_id']}:PTS"
    assert await factory.balance(wallet) == 0
    [entry, _] = (await service.get(f"/v1/wallets/{wallet}/entries")).json()["items"]
    assert (entry["kind"], entry["transaction_id"]) == ("clawback", shown["awards"][0]["transaction_id"])
    await factory.assert_books_balance()


async def test_a_second_void_answers_the_first_answer(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA))
    first = await void(service, bought["id"])
    before = {name: count for name, count in (await count_rows(database)).items() if name != AUDIT}
    answer = await service.post(f"/v1/events/{bought['id']}/void", {"reason": "another"}, key=None)
    assert (answer.status_code, answer.json(), answer.headers["idempotency-replayed"]) == (200, first, "true")
    assert {name: count for name, count in (await count_rows(database)).items() if name != AUDIT} == before
    # The event itself stays recorded: it cannot be sent again to earn again.
    again = await service.post("/v1/events", factory.event(id=bought["id"], member=ADA), key=None)
    assert (again.status_code, await factory.balance(f"{bought['member_id']}:PTS")) == (200, 0)
    await factory.assert_books_balance()


async def test_void_of_an_event_of_another_year_gives_back_caps_tier_and_last_purchase(
    service: Caller, services: Services, factory: Factory
) -> None:
    """A purchase of 2062 that an earlier version has recorded, in a state that this version has not written yet."""
    await service.put("/v1/tiers", TIERS)
    cap = {"scope": "member", "period": "ever", "limit": 500}
    await factory.campaign(event_types=["purchase"], caps=[cap], budget=1000)
    back = await factory.campaign(
        event_types=["purchase"], award={"type": "fixed", "amount": 7}, condition="member.days_since_last >= 30"
    )
    first = await record(service, factory.event(member=ADA, amount=10_000, occurred_at="2026-01-01T12:00:00Z"))
    member = first["member_id"]
    assert await factory.balance(f"{member}:PTS") == 100
    wrong = await factory.record_at_any_time(member=ADA, amount=40_000, occurred_at="2062-01-01T12:00:00Z")
    assert total(wrong) == 407
    states = services.database.raw[MEMBER_STATES]
    await states.update_one({"_id": member}, {"$unset": {"purchase_times": ""}})
    voided = await void(service, wrong["id"])
    assert total(voided["voided"]) == -407
    state = await states.find_one({"_id": member})
    assert state is not None
    assert (state["purchases"], len(state["purchase_times"]), state["last_purchase_at"]) == (1, 1, state["purchase_times"][0])
    assert sum(state["qualifying"]["PTS"].values()) == 100
    accounts = {
        row["_id"]: row["balance"] async for row in services.database.raw["accounts"].find({"kind": {"$in": ["cap", "budget"]}})
    }
    assert sorted(accounts.values()) == [100, 100]
    bought = await record(service, factory.event(member=ADA, amount=40_000, occurred_at="2026-02-01T12:00:00Z"))
    assert total(bought) == 407
    assert [each["amount"] for each in bought["decisions"] if each["campaign"] == back] == [7]
    await factory.assert_books_balance()


async def test_void_of_the_only_purchase_makes_the_next_one_the_first(service: Caller, factory: Factory) -> None:
    await factory.campaign(event_types=["purchase"], award={"type": "fixed", "amount": 50}, condition="member.first_purchase")
    bought = await record(service, factory.event(member=ADA))
    await void(service, bought["id"])
    following = await record(service, factory.event(member=ADA))
    assert (total(bought), total(following), following["inputs"]["purchases"]) == (50, 50, 0)
    assert following["inputs"]["last_purchase_at"] is None
    assert await factory.balance(f"{bought['member_id']}:PTS") == 50
    await factory.assert_books_balance()


async def test_void_removes_the_event_from_achievements_and_tiers(service: Caller, factory: Factory) -> None:
    await service.put("/v1/tiers", TIERS)
    goal = {"events": 2, "within": {"type": "days", "days": 9}}
    await factory.campaign(event_types=["visit"], award={"type": "fixed", "amount": 120}, achievement=goal)
    visits = [
        await record(
            service, factory.event(type="visit", amount=0, currency=None, member=ADA, occurred_at=f"2026-01-0{day}T12:00:00Z")
        )
        for day in (1, 2)
    ]
    member = visits[0]["member_id"]
    assert ([total(each) for each in visits], visits[1]["tier_change"]) == ([0, 120], {"from": None, "to": "gold"})
    voided = await void(service, visits[0]["id"])
    assert total(voided["voided"]) == -120
    assert await factory.balance(f"{member}:PTS") == 0
    assert (await service.get(f"/v1/members/{member}/tier")).json()["tier"] is None
    third = await record(
        service, factory.event(type="visit", amount=0, currency=None, member=ADA, occurred_at="2026-01-03T12:00:00Z")
    )
    assert total(third) == 120
    await factory.assert_books_balance()


@pytest.mark.parametrize("clawback", ["debt", "up_to_balance", "none"])
@pytest.mark.parametrize("refunded", [0, 2500, 10_000])
async def test_void_takes_what_earlier_refunds_have_left_by_the_clawback_policy(
    service: Caller, factory: Factory, clawback: str, refunded: int
) -> None:
    await factory.campaign(clawback=clawback, event_types=["purchase"])
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    wallet = f"{bought['member_id']}:PTS"
    if refunded:
        await record(service, factory.event(type="refund", refund_of=bought["id"], member=ADA, amount=refunded))
    left = await factory.balance(wallet)
    if left:
        assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": min(left, 40)})).status_code == 201
    voided = await void(service, bought["id"])
    due = 100 - refunded // 100
    after = max(left - 40, 0)
    assert -total(voided["voided"]) == {"debt": due, "up_to_balance": min(due, after), "none": 0}[clawback]
    # Nothing is left for later refunds, of the event or before it was known, and for confirmations.
    late = await record(service, factory.event(type="refund", refund_of=bought["id"], member=ADA, amount=5000))
    assert (late["awards"], late["decisions"]) == ([], [])
    assert late["note"] == f"{bought['id']} was voided: nothing is left to take back"
    await factory.assert_books_balance()


async def test_void_of_a_waiting_award_and_of_a_referrers_award(service: Caller, factory: Factory) -> None:
    await factory.campaign(event_types=["purchase"], pending={"type": "event", "event_type": "delivered", "within_days": 30})
    await factory.campaign(
        event_types=["purchase"], award={"type": "fixed", "amount": 9}, pays="referrer",
        caps=[{"scope": "member", "period": "ever", "limit": 90}],
    )  # fmt: skip
    bob, ada = await factory.member("bob"), await factory.member("ada")
    await record(service, factory.event(member={"id": bob}, amount=100))
    code = (await service.get(f"/v1/members/{bob}/referral")).json()["code"]
    assert (await service.post(f"/v1/members/{ada}/referral", {"code": code})).status_code in (200, 201)
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    assert [award["amount"] for award in bought["awards"]] == [100, 9]
    assert await factory.balance(f"{bob}:PTS") == 10
    assert total(await void(service, bought["id"]))
    assert (await factory.balance(f"{ada}:PTS"), await factory.balance(f"{bob}:PTS")) == (0, 1)
    confirmed = await record(service, factory.event(type="delivered", confirms=bought["id"], member=ADA, amount=0, currency=None))
    assert (confirmed["releases"], confirmed["note"]) == ([], f"{bought['id']} was voided: nothing of it waits")
    await factory.assert_books_balance()


async def test_void_of_an_expired_award_takes_nothing_else(service: Caller, factory: Factory, clock: ManualClock) -> None:
    await factory.campaign(event_types=["purchase"], expiry={"type": "after_days", "days": 1})
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    wallet = await factory.wallet(70, member=bought["member_id"])
    clock.advance(days=3)
    voided = await void(service, bought["id"])
    available = (await service.get(f"/v1/wallets/{wallet}")).json()["available"]
    assert (total(voided["voided"]), available) == (0, 70)
    await factory.assert_books_balance()


async def test_simulations_leave_voided_events_out(service: Caller, services: Services, factory: Factory) -> None:
    campaign = await factory.campaign(event_types=["purchase"], caps=[{"scope": "member", "period": "ever", "limit": 150}])
    events = [factory.event(member=ADA, amount=10_000, occurred_at=f"2026-01-0{day}T12:00:00Z") for day in (1, 2, 3)]
    first = await record(service, events[0])
    await record(
        service, factory.event(type="refund", refund_of=first["id"], member=ADA, amount=5000, occurred_at=events[1]["occurred_at"])
    )
    await void(service, first["id"])
    assert [total(await record(service, event)) for event in events[1:]] == [100, 50]
    answer = await service.post(f"/v1/campaigns/{campaign}/simulate", {}, key=None)
    assert await services.simulator.work(1) > 0
    row = (await service.get(f"/v1/simulations/{answer.json()['id']}")).json()["report"]["total"]
    assert (row["events"], row["campaign"]["simulated"], row["campaign"]["difference"]["awarded"]) == (
        4,
        row["campaign"]["real"],
        0,
    )
    assert (row["campaign"]["real"]["awarded"], row["campaign"]["real"]["taken_back"]) == (150, 0)
    await factory.assert_books_balance()


async def test_void_of_an_event_that_is_older_than_the_proofs_begins_the_chain(
    service: Caller, factory: Factory, database: Database
) -> None:
    visit = await record(service, factory.event(member=ADA, type="visit", amount=0, currency=None))
    await database.raw[EVENTS].update_one({"_id": visit["id"]}, {"$unset": {"proof": 1}})
    await database.raw[MEMBER_STATES].update_one({"_id": visit["member_id"]}, {"$unset": {"links": 1, "head": 1}})
    await void(service, visit["id"])
    [row] = await database.raw[EVENT_VOIDS].find({}).to_list()
    assert (row["_id"], row["proof"]["number"]) == (f"{visit['member_id']}/{visit['id']}", 1)
    await record(service, factory.event(member=ADA))
    await factory.assert_books_balance()


async def test_void_leaves_the_event_as_it_was_stored(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA, amount=10_000))
    stored = await database.raw[EVENTS].find_one({"_id": bought["id"]})
    voided = await void(service, bought["id"])
    assert await database.raw[EVENTS].find_one({"_id": bought["id"]}) == stored
    entry = (await service.get(f"/v1/wallets/{bought['member_id']}:PTS/entries")).json()["items"][0]
    assert (entry["amount"], entry["metadata"]["void"]) == (total(voided["voided"]), "true")
    [row] = await database.raw[ENTRIES].find({"metadata.void": "true"}).to_list()
    assert len(row["evidence"]) == 64
    await factory.assert_books_balance()


async def test_voids_that_are_refused(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA))
    refund = await record(service, factory.event(type="refund", refund_of=bought["id"], member=ADA, amount=1))
    plain = await record(service, factory.event(type="refund", member=ADA, amount=100))
    visit = await record(service, factory.event(type="visit", confirms=bought["id"], member=ADA, amount=0, currency=None))
    before = {name: count for name, count in (await count_rows(database)).items() if name != AUDIT}
    for event in (refund, plain, visit):
        refused = problem(await service.post(f"/v1/events/{event['id']}/void", REASON, key=None), 409, "invalid-state")
        assert "cannot be voided" in refused["detail"]
    problem(await service.post("/v1/events/none/void", REASON, key=None), 404, "not-found")
    for body in ({}, {"reason": ""}, {"reason": "x" * 201}, {"reason": "why", "amount": 1}):
        problem(await service.post(f"/v1/events/{bought['id']}/void", body, key=None), 422, "validation")
    assert {name: count for name, count in (await count_rows(database)).items() if name != AUDIT} == before
    await factory.assert_books_balance()


async def test_void_is_audited_and_has_a_scope_of_its_own(service: Caller, services: Services, factory: Factory) -> None:
    await factory.campaign()
    bought = await record(service, factory.event(member=ADA))
    key = await services.access.create_key("till", frozenset({"events:write", "events:read"}))
    problem(await service.with_token(key).post(f"/v1/events/{bought['id']}/void", REASON, key=None), 403, "forbidden")
    await void(service, bought["id"])
    records = await services.database.raw[AUDIT].find({"action": "voidEvent"}).to_list()
    assert [(row["phase"], row["subject"]) for row in records] == [
        (phase, {"event_id": bought["id"]}) for phase in ("asked", "answered")
    ]
    await factory.assert_books_balance()


async def test_concurrent_voids_refunds_and_purchases_take_back_once(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign(event_types=["purchase"])
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        for _ in range(8):
            bought = await record(service, factory.event(member=ADA, amount=10_000))
            path = f"/v1/events/{bought['id']}/void"
            refund = factory.event(type="refund", refund_of=bought["id"], member=ADA, amount=5000)
            answers = await asyncio.gather(
                *(callers[number % 2].post(path, REASON, key=None) for number in range(6)),
                callers[1].post("/v1/events", refund, key=None),
            )
            *voids, refunded = answers
            assert refunded.status_code == 201
            assert {answer.status_code for answer in voids} == {200}
            assert sum("idempotency-replayed" not in answer.headers for answer in voids) == 1
            assert len({answer.text for answer in voids}) == 1
            assert total(voids[0].json()["voided"]) + total(refunded.json()) == -100
            assert await factory.balance(f"{bought['member_id']}:PTS") == 0
    await factory.assert_books_balance()
