"""Segments over HTTP: runs, groups, segments of the programme's own, and what reads them."""

from typing import Any

from guerdon.clock import rfc3339
from guerdon.segments.models import RFM_GROUPS
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

IN_CHAMPIONS = '"champions" in member.segments'


def days_ago(clock: ManualClock, days: float) -> str:
    return rfc3339(clock.now_ms() - int(days * 86_400_000))


async def buy(service: Caller, factory: Factory, clock: ManualClock, member: str, **changes: Any) -> dict[str, Any]:
    days = changes.pop("days", 1)
    event = factory.event(member={"id": member}, occurred_at=days_ago(clock, days), **changes)
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


async def refresh(service: Caller, services: Services, name: str = "champions") -> dict[str, Any]:
    """Request a run and do the worker's part; return the run."""
    answer = await service.post(f"/v1/segments/{name}/refresh", key=None)
    assert answer.status_code == 202, answer.text
    while await services.segment_runner.work():
        pass
    run = (await service.get(answer.headers["location"])).json()
    assert run["status"] == "done", run
    return dict(run)


async def segments_of(service: Caller, member: str) -> list[str]:
    answer = await service.get(f"/v1/members/{member}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["segments"])


async def fans(service: Caller, factory: Factory, clock: ManualClock, number: int = 5) -> list[str]:
    """Members of whom each has bought more, more often and later than the one before; the last one is a champion."""
    members = [await factory.member() for _ in range(number)]
    for rank, member in enumerate(members, start=1):
        for turn in range(rank):
            await buy(service, factory, clock, member, days=(number - rank) * 30 + 1 + turn, amount=1000 * rank)
    return members


async def test_a_run_puts_every_member_into_exactly_one_group(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    members = await fans(service, factory, clock)
    nobody = await factory.member()
    assert await segments_of(service, members[-1]) == []
    run = await refresh(service, services)
    assert (run["kind"], run["currency"], run["members"], run["scored"]) == ("refresh", "GBP", 6, 5)
    assert run["bounds"]["purchases"] == [1, 2, 3, 4]
    assert run["bounds"]["spent"] == [1000, 4000, 9000, 16000]
    assert run["bounds"]["days_since_last"] == [1, 31, 61, 91]
    assert await segments_of(service, members[-1]) == ["champions"]
    assert await segments_of(service, members[0]) == ["dormant"]
    assert await segments_of(service, nobody) == ["prospects"]
    assert set(run["counts"]) == set(RFM_GROUPS)
    assert sum(run["counts"].values()) == 6
    page = (await service.get("/v1/segments/champions/members")).json()
    assert page["count"] == 1
    [champion] = page["items"]
    assert champion == {
        "member_id": members[-1],
        "segments": ["champions"],
        "recency": 5,
        "frequency": 5,
        "monetary": 5,
        "days_since_last": 1,
        "purchases": 5,
        "spent": 25000,
    }
    await factory.assert_books_balance()


async def test_the_lists_have_pages(service: Caller, services: Services, factory: Factory) -> None:
    members = sorted([await factory.member() for _ in range(5)])
    await refresh(service, services)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = (await service.get("/v1/segments/prospects/members", limit=2, **({"cursor": cursor} if cursor else {}))).json()
        found += [each["member_id"] for each in page["items"]]
        assert page["count"] == 5
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == members
    names: list[str] = []
    while True:
        page = (await service.get("/v1/segments", limit=4, **({"cursor": cursor} if cursor else {}))).json()
        names += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == sorted(RFM_GROUPS)
    await refresh(service, services)
    first = (await service.get("/v1/segment-runs", limit=1)).json()
    second = (await service.get("/v1/segment-runs", limit=1, cursor=first["next_cursor"])).json()
    assert first["items"][0]["id"] > second["items"][0]["id"]
    problem(await service.get("/v1/segments/prospects/members", cursor="x"), 422, "validation")
    problem(await service.get("/v1/segment-runs", cursor="x"), 422, "validation")
    problem(await service.get("/v1/segment-runs/sgr_1"), 404, "not-found")
