"""Everything that happened to a member in one list: merged by time, each item with its cause, and pages that neither skip nor repeat."""

import itertools
from typing import Any

import pytest

from guerdon.clock import rfc3339
from guerdon.timeline.rules import RANKS, TimelinePosition, parse_position, position_text
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.tier_fixtures import set_tiers, show

NOBODY = f"mem_{'f' * 32}"


async def page(caller: Caller, member: str, **params: Any) -> dict[str, Any]:
    answer = await caller.get(f"/v1/members/{member}/timeline", **params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def items(caller: Caller, member: str, **params: Any) -> list[dict[str, Any]]:
    """All items, by pages of the largest size."""
    return await walk(caller, member, limit=100, **params)


async def walk(caller: Caller, member: str, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        read = await page(caller, member, **params, **cursor)
        assert len(read["items"]) <= params["limit"]
        found += read["items"]
        if read["next_cursor"] is None:
            return found
        cursor = {"cursor": read["next_cursor"]}


def name_of(item: dict[str, Any]) -> str:
    return str(
        {
            "entry": lambda: item["entry"]["id"],
            "event": lambda: item["event"]["id"],
            "voucher": lambda: item["voucher"]["id"],
            "tier": lambda: f"{item['at']} {item['change']['from']} {item['change']['to']}",
        }[item["type"]]()
    )


def cause(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item["why"].items() if value is not None}


async def shopper(service: Caller, factory: Factory, clock: ManualClock) -> tuple[str, str, str]:
    """A member with a purchase, a credit and a voucher, a minute apart; with the ids of the campaign and the offer."""
    show(clock, "2026-11-20T10:00:00Z")
    await set_tiers(service)
    campaign = await factory.campaign(name="1 for 1", award={"type": "per_amount", "points": 1, "per": 1})
    await factory.campaign(name="never", condition="event.amount < 0")
    offer = await factory.offer(price={"asset": "PTS", "amount": 30})
    member = await factory.member()
    event = factory.event(id="order-a", member={"id": member}, amount=150, occurred_at="2026-11-20T09:30:00Z")
    assert (await service.post("/v1/events", event, key=None)).status_code == 201
    clock.advance(seconds=60)
    credit = {"amount": 7, "reason": "goodwill", "metadata": {"campaign": "mine", "event": "mine"}}
    assert (await service.post(f"/v1/wallets/{member}:GBP/credit", credit)).status_code == 201
    clock.advance(seconds=60)
    await factory.voucher(offer, member)
    return member, campaign, offer


async def test_each_item_says_why(service: Caller, factory: Factory, clock: ManualClock) -> None:
    member, campaign, offer = await shopper(service, factory, clock)
    found = await items(service, member)
    assert [(item["type"], item["at"][11:19]) for item in found] == [
        ("entry", "10:02:00"), ("voucher", "10:02:00"), ("entry", "10:01:00"), ("tier", "10:00:00"), ("entry", "10:00:00"), ("event", "10:00:00"),
    ]  # fmt: skip
    paid, voucher, credit, tier, award, event = found
    assert (paid["entry"]["kind"], paid["entry"]["amount"], paid["wallet"], paid["asset"]) == (
        "redeem",
        -30,
        f"{member}:PTS",
        "PTS",
    )
    assert cause(paid) == {"offer": offer, "version": 1, "voucher": voucher["voucher"]["id"]}
    assert cause(voucher) == {"offer": offer, "version": 1, "transaction_id": paid["entry"]["transaction_id"]}
    assert voucher["voucher"]["status"] == "issued"
    assert cause(credit) == {"reason": "goodwill"}, "the metadata of a credit is the caller's own"
    assert cause(tier) == {"event": "order-a", "version": 1, "reason": "earned"}
    assert (tier["change"]["from"], tier["change"]["to"]) == (None, "silver")
    assert cause(award) == {"event": "order-a", "campaign": campaign, "version": 1, "name": "1 for 1"}
    assert (award["entry"]["kind"], award["entry"]["amount"]) == ("award", 150)
    assert cause(event) == {}
    assert event["event"]["occurred_at"] == "2026-11-20T09:30:00.000Z"
    assert [(each["campaign"], each["outcome"]) for each in event["event"]["decisions"]] == [(campaign, "awarded")]
    assert [each["amount"] for each in event["event"]["awards"]] == [150]
    await factory.assert_books_balance()


async def test_refund_and_void_are_causes(service: Caller, factory: Factory, clock: ManualClock) -> None:
    member, campaign, _ = await shopper(service, factory, clock)
    clock.advance(seconds=60)
    back = factory.event(id="back-a", member={"id": member}, type="refund", refund_of="order-a", amount=50)
    assert (await service.post("/v1/events", back, key=None)).status_code == 201
    clock.advance(seconds=60)
    wrong = factory.event(id="order-b", member={"id": member}, amount=20)
    assert (await service.post("/v1/events", wrong, key=None)).status_code == 201
    clock.advance(seconds=60)
    assert (await service.post("/v1/events/order-b/void", {"reason": "a test"}, key=None)).status_code == 200
    void, award, recorded, clawback, refund, *_ = await items(service, member)
    assert cause(void) == {"event": "order-b", "campaign": campaign, "version": 1, "name": "1 for 1", "reason": "voided"}
    assert void["entry"]["amount"] == -20
    assert cause(award) == {"event": "order-b", "campaign": campaign, "version": 1, "name": "1 for 1"}
    assert recorded["event"]["voided_at"] == void["at"]
    assert cause(clawback)["event"] == "back-a"
    assert clawback["entry"]["amount"] == -50
    assert cause(refund) == {"event": "order-a"}
    assert refund["event"]["voided_at"] is None
    await factory.assert_books_balance()


async def test_preview_is_not_listed(service: Caller, factory: Factory, clock: ManualClock) -> None:
    member, *_ = await shopper(service, factory, clock)
    before = await items(service, member)
    preview = factory.event(member={"id": member})
    assert (await service.post("/v1/events/preview", preview, key=None)).status_code == 200
    assert await items(service, member) == before


@pytest.mark.parametrize("kind", ["entry", "event", "voucher", "tier"])
async def test_filter_shows_one_type(service: Caller, factory: Factory, clock: ManualClock, kind: str) -> None:
    member, *_ = await shopper(service, factory, clock)
    everything = await items(service, member)
    wanted = [item for item in everything if item["type"] == kind]
    assert wanted
    assert await walk(service, member, limit=1, type=kind) == wanted
    # A cursor of the whole list continues in a filtered one.
    cursor = (await page(service, member, limit=3))["next_cursor"]
    rest = (await page(service, member, type=kind, cursor=cursor))["items"]
    assert rest == [item for item in everything[3:] if item["type"] == kind]


async def busy(service: Caller, factory: Factory, member: str, size: int) -> None:
    """Many things at the same time: awards in three wallets, entries of one commit, vouchers and changes of tier."""
    events = [factory.event(member={"id": member}, amount=100 + number) for number in range(size)]
    answer = await service.post("/v1/events/bulk", {"events": events}, key=None)
    assert {each["status"] for each in answer.json()["results"]} == {201}
    commands = [
        {"type": "credit", "wallet": f"{member}:{asset}", "amount": 1, "key": f"{asset}-{number}-{events[0]['id']}"}
        for number, asset in itertools.product(range(size), ("GBP", "PTS"))
    ]
    await factory.bulk(commands)


async def test_pages_neither_skip_nor_repeat_items_of_the_same_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    show(clock, "2026-11-20T10:00:00Z")
    await set_tiers(service)
    await factory.campaign()
    await factory.campaign(asset="GBP", award={"type": "fixed", "amount": 3})
    offer = await factory.offer()
    member = await factory.member()
    for _ in range(2):
        await busy(service, factory, member, 4)
        for _ in range(3):
            await factory.voucher(offer, member)
        clock.advance(seconds=1)
    whole = await items(service, member)
    assert len(whole) == len({name_of(item) for item in whole}) >= 2 * (4 + 8 + 8 + 3)
    assert [item["at"] for item in whole] == sorted((item["at"] for item in whole), reverse=True)
    for limit in (1, 2, 3, 7):
        assert await walk(service, member, limit=limit) == whole
    entries = [item for item in whole if item["type"] == "entry"]
    for asset in ("GBP", "PTS"):
        seqs = [item["entry"]["seq"] for item in entries if item["asset"] == asset]
        assert seqs == list(range(len(seqs), 0, -1))
    await factory.assert_books_balance()


async def test_pages_continue_while_data_is_written(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """What existed when the walk began is shown once, however much is recorded between two pages."""
    show(clock, "2026-11-20T10:00:00Z")
    await set_tiers(service)
    await factory.campaign()
    offer = await factory.offer()
    member = await factory.member()
    await busy(service, factory, member, 3)
    await factory.voucher(offer, member)
    before = [name_of(item) for item in await items(service, member)]
    shown: list[str] = []
    cursor: dict[str, str] = {}
    for step in itertools.count():
        read = await page(service, member, limit=2, **cursor)
        shown += [name_of(item) for item in read["items"]]
        if read["next_cursor"] is None:
            break
        cursor = {"cursor": read["next_cursor"]}
        clock.advance(seconds=step % 2)  # Some of it at the same time as what is listed.
        await busy(service, factory, member, 2)
        await factory.voucher(offer, member)
    assert len(shown) == len(set(shown))
    assert [name for name in shown if name in before] == before
    await factory.assert_books_balance()


async def test_member_sees_their_own_timeline_only(
    service: Caller, anonymous: Caller, factory: Factory, clock: ManualClock, services: Services
) -> None:
    person = {"email": "ada@example.com", "password": "correct horse battery"}
    ada = (await anonymous.post("/v1/auth/register", person)).json()["id"]
    caller = anonymous.with_token((await anonymous.post("/v1/auth/login", person)).json()["access_token"])
    campaign = await factory.campaign(name="Win back")
    now = rfc3339(clock.now_ms())
    assert (await service.post("/v1/events", factory.event(member={"id": ada}, occurred_at=now), key=None)).status_code == 201
    own = (await caller.get("/v1/me/timeline")).json()["items"]
    assert own == await items(caller, ada)
    [award] = [item for item in own if item["type"] == "entry"]
    assert (award["why"]["campaign"], award["why"]["name"]) == (campaign, None), "names of campaigns are internal"
    bob = await factory.member()
    problem(await caller.get(f"/v1/members/{bob}/timeline"), 404, "not-found")
    problem(await caller.get(f"/v1/members/{NOBODY}/timeline"), 404, "not-found")
    problem(await service.get(f"/v1/members/{NOBODY}/timeline"), 404, "not-found")
    problem(await anonymous.get(f"/v1/members/{ada}/timeline"), 401, "unauthenticated")
    assert await items(service, bob) == []


async def test_each_type_needs_its_scope(anonymous: Caller, factory: Factory, services: Services) -> None:
    member = await factory.member()
    path = f"/v1/members/{member}/timeline"
    reader = anonymous.with_token(await services.access.create_key("reader", ["members:read", "events:read"]))
    refused = problem(await reader.get(path), 403, "forbidden")
    assert "wallets:read" in refused["detail"]
    problem(await reader.get(path, type="voucher"), 403, "forbidden")
    assert (await reader.get(path, type="event")).status_code == 200
    assert (await reader.get(path, type="tier")).status_code == 200
    other = anonymous.with_token(await services.access.create_key("other", ["wallets:read", "events:read", "vouchers:read"]))
    problem(await other.get(path, type="event"), 403, "forbidden")


@pytest.mark.parametrize(
    "params", [{"type": "hold"}, {"cursor": "MTI"}, {"cursor": "MS90aWVyL1BUUzox"}, {"limit": 101}, {"kind": "entry"}]
)
async def test_invalid_parameters_are_named(service: Caller, factory: Factory, params: dict[str, Any]) -> None:
    refused = problem(await service.get(f"/v1/members/{await factory.member()}/timeline", **params), 422, "validation")
    assert refused["errors"][0]["pointer"] == next(iter(params))


def test_positions_are_read_back() -> None:
    positions = [
        TimelinePosition(0, RANKS["event"], "", 0),
        TimelinePosition(1_796_066_628_800, RANKS["entry"], "PTS", 999_999_999_999),
        TimelinePosition(5, RANKS["voucher"], f"vch_{'0' * 31}a"),
        TimelinePosition(5, RANKS["tier"], "", 12),
    ]
    assert [parse_position(position_text(each)) for each in positions] == positions
    wrong = [
        "",
        "5",
        "5/tier/PTS:1",
        "5/entry/7",
        "5/voucher/7",
        "5/event/vch_" + "0" * 32,
        "5/hold/1",
        "-5/tier/1",
        "5/tier/1\n",
        "٥/tier/1",
    ]
    assert [parse_position(each) for each in wrong] == [None] * len(wrong)
