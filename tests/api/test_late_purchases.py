"""Conditions on earlier purchases, for purchases that arrive late: in preview, record, replay and simulation alike."""

from typing import Any

from guerdon.campaigns.domain import MEMBER_STATES, MemberState
from guerdon.campaigns.purchase_history import PURCHASES_KEPT, last_purchase_before, with_purchase
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.factories import Factory

ADA = {"external_id": "ada"}
BACK = {"award": {"type": "fixed", "amount": 7}, "event_types": ["purchase"]}


def on(day: str) -> str:
    return f"2026-{day}T12:00:00Z"


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


async def test_a_late_purchase_counts_from_the_purchase_before_it(service: Caller, services: Services, factory: Factory) -> None:
    days = {"01-01": -1, "05-01": 120, "03-15": 73, "02-01": 31, "01-01T": 0, "05-03": 2}
    exact = await factory.campaign(**BACK, condition="member.days_since_last >= 60")
    other = await factory.campaign(**BACK, active=False, condition="member.days_since_last >= 60")
    paid, seen = 0, list[str | None]()
    for day, since in days.items():
        event = factory.event(id=f"on-{day}", member=ADA, occurred_at=on(day[:5]))
        preview = (await service.post("/v1/events/preview", event, key=None)).json()
        bought = await record(service, event)
        assert preview["inputs"]["last_purchase_at"] == bought["inputs"]["last_purchase_at"]
        amounts = [[each["amount"] for each in answer["awards"]] for answer in (preview, bought)]
        assert amounts == [[7] if since >= 60 else []] * 2, day
        replay = (await service.post(f"/v1/events/{event['id']}/replay")).json()
        assert (replay["outcome"], replay["missing"]) == ("equal", [])
        paid += sum(amounts[1])
        seen.append(bought["inputs"]["last_purchase_at"])
    assert seen == [
        None if day is None else on(day).replace("Z", ".000Z") for day in (None, "01-01", "01-01", "01-01", "01-01", "05-01")
    ]
    for campaign in (exact, other):
        answer = await service.post(f"/v1/campaigns/{campaign}/simulate", {}, key=None)
        assert await services.simulator.work(1) > 0
        report = (await service.get(f"/v1/simulations/{answer.json()['id']}")).json()["report"]
        assert report["total"]["campaign"]["simulated"]["awarded"] == paid
        assert {row["name"]: row["events"] for row in report["by_segment"]} == {"none": 6}
    await factory.assert_books_balance()


async def test_a_state_from_before_the_times_were_kept_knows_its_last_purchase(
    service: Caller, services: Services, factory: Factory
) -> None:
    first = await record(service, factory.event(member=ADA, occurred_at=on("02-01")))
    await record(service, factory.event(member=ADA, occurred_at=on("03-01")))
    states = services.database.raw[MEMBER_STATES]
    await states.update_one({"_id": first["member_id"]}, {"$unset": {"purchase_times": ""}})
    last = [
        (await record(service, factory.event(member=ADA, occurred_at=on(day))))["inputs"]["last_purchase_at"]
        for day in ("02-15", "03-15", "03-10")
    ]
    # On 15 February the purchase of 1 February is not known any more: the member counts as one who has just bought.
    assert [day[5:10] for day in last] == ["03-01", "03-01", "03-01"]
    assert (await states.find_one({"_id": first["member_id"]}))["purchases"] == 5
    await factory.assert_books_balance()


def test_the_newest_purchases_are_kept_in_any_order_of_arrival() -> None:
    whole = MemberState(id="mem_1", owner="mem_1")
    times = [number * 37 % 101 * 1000 for number in range(101)]
    for number, at in enumerate(times):
        expected = max((each for each in times[:number] if each <= at), default=None)
        found = last_purchase_before(whole, at)
        known = sorted(times[:number])[-PURCHASES_KEPT:]
        if number <= PURCHASES_KEPT or at >= known[0]:
            assert found == expected
        else:
            assert found == known[0] > at
        whole = with_purchase(whole, at)
        assert list(whole.purchase_times) == sorted(times[: number + 1])[-PURCHASES_KEPT:]
        assert (whole.purchases, whole.last_purchase_at) == (number + 1, max(times[: number + 1]))
