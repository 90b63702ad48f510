"""Many events in one request: each is recorded or refused by itself."""

from typing import Any

from guerdon.database import Database
from tests.clients import Caller, problem
from tests.factories import Factory
from tests.serving import NOBODY, count_rows


async def send(service: Caller, *events: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await service.post("/v1/events/bulk", {"events": list(events)}, key=None)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def test_each_event_has_its_own_outcome(service: Caller, factory: Factory) -> None:
    await factory.campaign(event_types=["purchase"])
    good, bad = factory.event(member={"external_id": "ada"}), factory.event(amount=0, currency=None)
    nobodys, returned = (
        factory.event(member={"id": NOBODY}),
        factory.event(type="refund", refund_of=good["id"], member=good["member"]),
    )
    other = {**good, "amount": 1}
    results = await send(service, returned, good, bad, nobodys, good, other)
    assert [result["status"] for result in results] == [201, 201, 422, 404, 200, 422]
    assert [sum(award["amount"] for award in results[place]["event"]["awards"]) for place in (0, 1)] == [-139, 139]
    assert results[2]["problem"]["errors"][0]["pointer"] == "/currency"
    assert (results[3]["problem"]["code"], results[5]["problem"]["code"]) == ("not-found", "event-id-reused")
    assert (results[4]["event"], results[4]["replayed"]) == (results[1]["event"], True)
    assert await factory.balance(f"{results[1]['event']['member_id']}:PTS") == 0
    await factory.assert_books_balance()


async def test_repeated_bulk_request_changes_nothing(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign(condition="member.first_purchase")
    events = [factory.event(member={"external_id": f"m{number % 3}"}) for number in range(9)]
    first = await send(service, *events)
    assert [result["status"] for result in first] == [201] * 9
    assert [len(result["event"]["awards"]) for result in first] == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    before = await count_rows(database)
    again = await send(service, *events)
    assert [result["event"] for result in again] == [result["event"] for result in first]
    stranger = {**events[0], "member": {"external_id": "somebody-new"}}
    [refused] = await send(service, stranger)
    assert refused["problem"]["code"] == "event-id-reused"
    assert await count_rows(database) == before
    await factory.assert_books_balance()


async def test_number_of_bulk_events_is_bounded(service: Caller, factory: Factory, database: Database) -> None:
    before = await count_rows(database)
    for events in ([], [factory.event() for _ in range(501)]):
        problem(await service.post("/v1/events/bulk", {"events": events}, key=None), 422, "validation")
    wrong = problem(await service.post("/v1/events/bulk", {"events": [factory.event(), {}]}, key=None), 422, "validation")
    assert wrong["errors"][0]["pointer"].startswith("/events/1")
    assert await count_rows(database) == before
