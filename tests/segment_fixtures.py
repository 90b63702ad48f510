"""Members who buy, and the worker's part of a run of segments."""

from typing import Any

from guerdon.clock import rfc3339
from guerdon.segments.models import RFM_GROUPS
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
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


async def row_of(service: Caller, member: str) -> dict[str, Any]:
    """What the last run has computed of a member."""
    [group] = [name for name in await segments_of(service, member) if name in RFM_GROUPS]
    page = (await service.get(f"/v1/segments/{group}/members", limit=100)).json()
    return next(each for each in page["items"] if each["member_id"] == member)


async def refunded(service: Caller, factory: Factory, clock: ManualClock, *, member: str, purchase: str, amount: int) -> None:
    refund = factory.event(type="refund", refund_of=purchase, member={"id": member}, amount=amount, occurred_at=days_ago(clock, 0))
    assert (await service.post("/v1/events", refund, key=None)).status_code == 201


async def runs_of(service: Caller) -> list[dict[str, Any]]:
    return list((await service.get("/v1/segment-runs", limit=100)).json()["items"])
