"""Campaigns decide events, pay in the same commit, and say why."""

from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY, count_rows, serve


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


def per(points: int, per_amount: int, rounding: str) -> dict[str, Any]:
    return {"type": "per_amount", "points": points, "per": per_amount, "rounding": rounding}


async def test_purchase_pays_its_award_and_states_the_reasons(service: Caller, factory: Factory) -> None:
    campaign, event = await factory.campaign(), factory.event()
    recorded = await record(service, event)
    [award], [decision] = recorded["awards"], recorded["decisions"]
    wallet = f"{recorded['member_id']}:PTS"
    [entry] = (await service.get(f"/v1/wallets/{wallet}/entries")).json()["items"]
    assert award == {
        "campaign": campaign, "version": 1, "asset": "PTS", "amount": 139, "status": "paid", "transaction_id": entry["transaction_id"],
        "available_at": None, "expires_at": None,
    }  # fmt: skip
    assert decision == {
        "campaign": campaign, "version": 1, "outcome": "awarded", "amount": 139,
        "reasons": ["1 for every 100: 13912 gives 139 (rounding floor)"],
    }  # fmt: skip
    assert (entry["kind"], entry["amount"]) == ("award", 139)
    assert entry["metadata"] == {"event": event["id"], "campaign": campaign, "version": "1"}
    assert (await service.get(f"/v1/events/{event['id']}")).json() == recorded
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("award", "amount", "expected"),
    [
        (per(1, 100, "floor"), 13999, 139), (per(1, 100, "ceil"), 13901, 140), (per(1, 100, "ceil"), 13900, 139),
        (per(1, 100, "half_even"), 13950, 140), (per(1, 100, "half_even"), 13850, 138), (per(1, 100, "half_even"), 13851, 139),
        (per(3, 7, "floor"), 10**15, 3 * 10**15 // 7), (per(10**15, 10**15, "floor"), 10**15, 10**15),
        ({"type": "fixed", "amount": 25}, 1, 25),
    ],
)  # fmt: skip
async def test_awards_are_exact(service: Caller, factory: Factory, award: dict[str, Any], amount: int, expected: int) -> None:
    await factory.campaign(award=award)
    recorded = await record(service, factory.event(amount=amount))
    assert recorded["decisions"][0]["outcome"] == "awarded"
    assert recorded["awards"][0]["amount"] == expected
    assert await factory.balance(f"{recorded['member_id']}:PTS") == expected
    await factory.assert_books_balance()


@pytest.mark.parametrize(("award", "outcome"), [(per(1, 20_000, "floor"), "not_matched"), (per(10**15, 1, "floor"), "refused")])
async def test_zero_or_oversized_award_is_not_paid(service: Caller, factory: Factory, award: dict[str, Any], outcome: str) -> None:
    await factory.campaign(award=award)
    recorded = await record(service, factory.event())
    assert (recorded["awards"], recorded["decisions"][0]["outcome"]) == ([], outcome)
    wallet = (await service.get(f"/v1/wallets/{recorded['member_id']}:PTS")).json()
    assert (wallet["balance"], wallet["seq"]) == (0, 0)
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("award", "expected"),
    [
        ({"type": "percent", "percent": "5"}, None),
        (per(1, 20, "floor"), None),
        ({"type": "formula", "expression": "event.amount / 20"}, None),
        ({"type": "formula", "expression": "event['amount'] / 20"}, None),
        ({"type": "formula", "expression": "event.items.map(item, item['unit_price'])[0] / 20"}, None),
        # These do not depend on money.
        ({"type": "fixed", "amount": 100}, 100),
        ({"type": "formula", "expression": "size(event.items) * 100"}, 100),
        ({"type": "formula", "expression": "event.attributes.nights * 50 // event.amount"}, 100),
    ],
)
async def test_money_is_not_paid_for_an_amount_in_another_currency(
    service: Caller, factory: Factory, award: dict[str, Any], expected: int | None
) -> None:
    """The refund of such a purchase, and one without a purchase, take nothing."""
    for pays in ("GBP", "PTS"):
        await factory.campaign(award=award, asset=pays)
    facts = {
        "member": {"external_id": "ada"},
        "items": [{"sku": "a", "quantity": 1, "unit_price": 2000}],
        "attributes": {"nights": 2},
    }
    yen = factory.event(amount=2000, currency="JPY", **facts)
    back = factory.event(type="refund", amount=2000, currency="JPY", **facts)
    preview = (await service.post("/v1/events/preview", yen, key=None)).json()
    events = [
        await record(service, yen),
        await record(service, {**back, "refund_of": yen["id"]}),
        await record(service, back | {"id": "b"}),
    ]
    assert preview["decisions"] == events[0]["decisions"]
    money, points = events[0]["decisions"]
    assert (points["outcome"], points["amount"]) == ("awarded", 100)
    if expected is None:
        assert (money["outcome"], money["reasons"]) == (
            "not_matched",
            ["the award is a part of an amount in GBP; the event is in JPY"],
        )
        assert {each["asset"] for event in events for each in event["awards"]} == {"PTS"}
        problem(await service.get(f"/v1/wallets/{events[0]['member_id']}:GBP"), 404, "not-found")
    else:
        assert (money["outcome"], money["amount"]) == ("awarded", expected)
    pounds = await record(service, factory.event(amount=2000, **facts))
    assert [award["amount"] for award in pounds["awards"]] == [100, 100]
    await factory.assert_books_balance()


async def test_an_event_that_no_campaign_considers_opens_no_wallet(service: Caller, factory: Factory) -> None:
    await factory.campaign(condition="false")
    await factory.campaign(event_types=["refund"])
    recorded = await record(service, factory.event())
    assert [decision["outcome"] for decision in recorded["decisions"]] == ["not_matched", "not_matched"]
    problem(await service.get(f"/v1/wallets/{recorded['member_id']}:PTS"), 404, "not-found")
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        ("event.amount > 13911", "awarded"), ("event.amount > 13912", "not_matched"), ("event.currency == 'GBP'", "awarded"),
        ("event.items.exists(i, i.sku == '85123A')", "awarded"), ("event.items.exists(i, i.sku == 'other')", "not_matched"),
        ("event.attributes.channel == 'web'", "awarded"), ("event.attributes.missing == 'web'", "refused"),
        ("event['nothing'] == 1", "refused"), ("event.amount / 0 == 1", "refused"), ("event.amount + 'x' == 'x'", "refused"),
        ("has(event.attributes.missing)", "not_matched"), ("event.occurred_at.startsWith('2026-01-31')", "awarded"),
        ("now > timestamp('2020-01-01T00:00:00Z')", "awarded"), ("event.type in ['refund']", "not_matched"),
        ("'event.nothing' == 'event.nothing'", "awarded"),
    ],
)  # fmt: skip
async def test_a_condition_is_true_false_or_refused(service: Caller, factory: Factory, condition: str, outcome: str) -> None:
    await factory.campaign(condition=condition)
    item = {"sku": "85123A", "quantity": 6, "unit_price": 255, "category": None}
    recorded = await record(service, factory.event(items=[item], attributes={"channel": "web"}))
    [decision] = recorded["decisions"]
    assert decision["outcome"] == outcome
    assert len(recorded["awards"]) == (outcome == "awarded")
    assert ("could not be evaluated" in decision["reasons"][0]) == (outcome == "refused")
    await factory.assert_books_balance()


@pytest.mark.parametrize("field", ["condition", "audience"])
@pytest.mark.parametrize(
    "expression",
    [
        "event.nothing > 0", "member.password == 'x'", "event.amount", "'yes'", "1", "null", "event.amount >", "event.amount = 1", "((true)",
        "unknown > 1", "system('ls')", "event.amount > 0.5.5", "true; true", "\x00", "('" + "a" * 1990, "(" * 1500 + "true" + ")" * 400, "",
        "x" * 2001, "event . nothing > 0",
    ],
)  # fmt: skip
async def test_invalid_expression_is_refused_when_saved(service: Caller, database: Database, field: str, expression: str) -> None:
    award = {"type": "fixed", "amount": 1}
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": award, field: expression}
    refused = problem(await service.post("/v1/campaigns", body), 422, "validation")
    assert refused["errors"][0]["pointer"] == f"/{field}"
    assert await database.raw["campaigns"].count_documents({}) == 0


@pytest.mark.parametrize(
    "condition",
    [
        "[[1, 1]]" + ".map(x, x + x)" * 24 + ".size() > 0",
        "[1].map(x, [x, x]).map(x, [x, x]).all(x, x == x)",
        "event.items.all(a, event.items.all(b, size(event.items + event.items) > 0))",
        "event.items.all(a, size(event.items + event.items + event.items + event.items) > 0)",
        "event.items.exists(a, a.sku == 'x') || " * 4 + "true",
        "event.items. // what\n exists // where\n (a, a.sku == 'x') || " * 4 + "true",
        "event.items.all(a, event.items == event.items)",
        "event.items.all(a, .event['items'] == [])",
        "event.items.all(a, [event].all(e, e.items == e.items))",
        "event.items.all(a, a in event . // where\n items)",
        "event.items.all(a, !a.sku.matches('[^x]'))",
        "matches (event.id, event.type)",
    ],
)
async def test_an_expression_that_could_grow_without_bound_is_refused(service: Caller, condition: str) -> None:
    award = {"type": "fixed", "amount": 1}
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": award, "condition": condition}
    refused = problem(await service.post("/v1/campaigns", body), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/condition"


@pytest.mark.parametrize(
    "condition",
    [
        "event.items.exists(i, i.quantity + 1 > 1)",
        "event.amount + 1 + 1 + 1 > 1",
        "'a.map(x) + ' != ''",
        "event.items == event.items && event == event",
        "event.items.all(i, size( event . items ) == event.items.size() && .event.amount > 1 && !has(event.attributes.event))",
        "'matches(' != event.id",
    ],
)
async def test_bounded_expression_is_accepted(service: Caller, factory: Factory, condition: str) -> None:
    await factory.campaign(condition=condition)
    recorded = await record(service, factory.event(items=[{"sku": "a", "quantity": 1}]))
    assert recorded["decisions"][0]["outcome"] == "awarded"
    await factory.assert_books_balance()


async def test_campaign_saved_before_the_expression_rules_is_still_evaluated(
    service: Caller, factory: Factory, database: Database, clock: ManualClock
) -> None:
    campaign = await factory.campaign(condition="event.amount > 999999")
    saved_before = {"condition": "event.type.matches('^pur')" + " && event.items.all(a, true)" * 4}
    await database.raw["campaigns"].update_one({"_id": campaign}, {"$set": saved_before})
    archived = {f"campaign.{name}": value for name, value in saved_before.items()}
    await database.raw["campaign_versions"].update_one({"_id": f"{campaign}/1"}, {"$set": archived, "$unset": {"proof": ""}})
    clock.advance(seconds=2)
    recorded = await record(service, factory.event(items=[{"sku": "a", "quantity": 1}]))
    assert recorded["decisions"][0]["outcome"] == "awarded"
    await factory.assert_books_balance()


WALKS = "event.items.all(a, true) && event.items.all(a, true) && event.items.all(a, true) && event.items.all(a, true)"


@pytest.mark.parametrize(
    "hidden",
    [
        f"true // it's\n&& {WALKS}",
        f'true // "\n&& {WALKS} // "',
        f'r"\\\\" == "" || {WALKS} || "" == ""',
        f"R'\\d' == '' || {WALKS}",
        f'"""a"b""" == "" || {WALKS}',
        f"'''a\\'''' == '' || {WALKS}",
        f'br"a" == b"" || {WALKS}',
        f'"\\"" == "" || {WALKS}',
    ],
)
async def test_comments_and_strings_do_not_hide_an_unbounded_expression(service: Caller, hidden: str) -> None:
    award = {"type": "fixed", "amount": 1}
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": award}
    problem(await service.post("/v1/campaigns", {**body, "condition": hidden}), 422, "validation")
    open_text = hidden.replace(WALKS, "event.items.all(a, true)")
    assert (await service.post("/v1/campaigns", {**body, "condition": open_text})).status_code == 201, "it is no expression at all"


async def test_audience_condition_reads_the_member(service: Caller, factory: Factory) -> None:
    await factory.campaign(audience="member.attributes.country == 'GB' && member.external_id.startsWith('vip')")
    outcomes: list[str] = []
    for external_id, attributes in (
        ("vip-1", {"country": "GB"}),
        ("vip-2", {"country": "FR"}),
        ("dull-1", {"country": "GB"}),
        ("vip-3", {}),
    ):
        await service.post("/v1/members", {"external_id": external_id, "attributes": attributes})
        recorded = await record(service, factory.event(member={"external_id": external_id}))
        outcomes.append(recorded["decisions"][0]["outcome"])
    assert outcomes == ["awarded", "not_matched", "not_matched", "refused"]
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("audience", "reason"),
    [
        ("event[member.external_id] == 1", "NOT_FOUND: Key not found in map"),
        ("timestamp(member.attributes.name) < now", "INVALID_ARGUMENT (it reads the member, so it is not quoted)"),
        ("timestamp( . member.attributes.name) < now", "INVALID_ARGUMENT (it reads the member, so it is not quoted)"),
    ],
)  # fmt: skip
async def test_a_decision_does_not_quote_the_member(service: Caller, factory: Factory, audience: str, reason: str) -> None:
    """It is kept for ever, and what is known about a member is not."""
    await factory.campaign(audience=audience)
    await service.post("/v1/members", {"external_id": "marker-id", "attributes": {"name": "marker-name"}})
    recorded = await record(service, factory.event(member={"external_id": "marker-id"}))
    assert recorded["decisions"][0]["reasons"] == [f"the audience could not be evaluated: {reason}"]


async def test_a_window_is_open_from_its_start_until_just_before_its_end(service: Caller, factory: Factory) -> None:
    await factory.campaign(starts_at="2026-01-01T00:00:00Z", ends_at="2026-02-01T00:00:00+01:00")
    moments = {
        "2025-12-31T23:59:59.999Z": "not_matched", "2026-01-01T00:00:00Z": "awarded", "2026-01-01T00:30:00+01:00": "not_matched",
        "2026-01-31T22:59:59.999Z": "awarded", "2026-01-31T23:00:00Z": "not_matched",
    }  # fmt: skip
    recorded = {at: await record(service, factory.event(occurred_at=at)) for at in moments}
    assert {at: event["decisions"][0]["outcome"] for at, event in recorded.items()} == moments
    await factory.assert_books_balance()


async def test_an_empty_window_and_an_unknown_asset_are_refused(service: Caller, database: Database) -> None:
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 1}}
    wrong = {"/ends_at": {"starts_at": "2026-01-01T00:00:00Z", "ends_at": "2026-01-01T00:00:00Z"}, "/asset": {"asset": "NOSUCH"}}
    for pointer, changes in wrong.items():
        refused = problem(await service.post("/v1/campaigns", {**body, **changes}), 422, "validation")
        assert refused["errors"][0]["pointer"] == pointer
    assert await database.raw["campaigns"].count_documents({}) == 0


async def test_campaigns_are_evaluated_independently(service: Caller, factory: Factory) -> None:
    fixed = await factory.campaign(award={"type": "fixed", "amount": 10})
    pounds = await factory.campaign(asset="GBP", award=per(1, 100, "floor"))
    never = await factory.campaign(condition="false")
    recorded = await record(service, factory.event())
    assert {d["campaign"]: d["outcome"] for d in recorded["decisions"]} == {
        fixed: "awarded",
        pounds: "awarded",
        never: "not_matched",
    }
    wallets = (await service.get(f"/v1/members/{recorded['member_id']}/wallets")).json()["items"]
    assert {wallet["asset"]: wallet["balance"] for wallet in wallets} == {"PTS": 10, "GBP": 139}
    await factory.assert_books_balance()


async def test_only_active_campaigns_are_evaluated(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(active=False)
    refused = problem(await service.post(f"/v1/campaigns/{campaign}/pause"), 409, "invalid-state")
    assert refused["status_now"] == "draft"
    outcomes: list[int] = []
    for action in (None, "activate", "activate", "pause", "pause", "activate"):
        if action is not None:
            changed = await service.post(f"/v1/campaigns/{campaign}/{action}", key=None)
            assert (changed.status_code, changed.json()["status"]) == (200, "active" if action == "activate" else "paused")
        outcomes.append(len((await record(service, factory.event()))["decisions"]))
    assert outcomes == [0, 1, 1, 0, 0, 1]
    await factory.assert_books_balance()


async def test_new_campaign_version_applies_to_later_events_only(service: Caller, factory: Factory, database: Database) -> None:
    campaign = await factory.campaign(award={"type": "fixed", "amount": 1})
    first = factory.event()
    before = await service.post("/v1/events", first)
    body = {"name": "twice", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 2}}
    changed = await service.put(f"/v1/campaigns/{campaign}", body)
    assert (changed.status_code, changed.json()["version"], changed.json()["status"]) == (200, 2, "active")
    after = await record(service, factory.event())
    assert [(a["version"], a["amount"]) for a in after["awards"]] == [(2, 2)]
    assert (await service.get(f"/v1/events/{first['id']}")).content == before.content
    assert (await service.post("/v1/events", first)).content == before.content
    assert [(a["version"], a["amount"]) for a in before.json()["awards"]] == [(1, 1)]
    archived = [row["_id"] async for row in database.raw["campaign_versions"].find().sort("_id")]
    assert archived == [f"{campaign}/1", f"{campaign}/2"]
    problem(await service.put("/v1/campaigns/cmp_none", body), 404, "not-found")
    await factory.assert_books_balance()


async def test_campaigns_are_listed_page_by_page_and_by_status(service: Caller, factory: Factory, clock: ManualClock) -> None:
    made: list[str] = []
    for number in range(5):
        clock.advance(seconds=1)
        made.append(await factory.campaign(active=number % 2 == 0))
    first = (await service.get("/v1/campaigns", limit=3)).json()
    second = (await service.get("/v1/campaigns", limit=3, cursor=first["next_cursor"])).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    drafts = (await service.get("/v1/campaigns", status="draft")).json()["items"]
    assert [item["id"] for item in drafts] == [made[3], made[1]]
    assert (await service.get(f"/v1/campaigns/{made[0]}")).json()["status"] == "active"
    problem(await service.get("/v1/campaigns", status="gone"), 422, "validation")


async def test_activation_and_pause_apply_immediately_in_the_same_process(service: Caller, factory: Factory) -> None:
    assert (await record(service, factory.event()))["decisions"] == []
    campaign = await factory.campaign()
    assert [d["outcome"] for d in (await record(service, factory.event()))["decisions"]] == ["awarded"]
    assert (await service.post(f"/v1/campaigns/{campaign}/pause")).status_code == 200
    assert (await record(service, factory.event()))["decisions"] == []
    await factory.assert_books_balance()


async def test_activation_and_pause_apply_everywhere_after_one_second(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        other = anonymous.with_token(service.token)
        assert (await record(other, factory.event()))["decisions"] == []
        campaign = await factory.campaign()
        clock.advance(seconds=1.001)
        assert [d["outcome"] for d in (await record(other, factory.event()))["decisions"]] == ["awarded"]
        assert (await service.post(f"/v1/campaigns/{campaign}/pause")).status_code == 200
        clock.advance(seconds=1.001)
        assert (await record(other, factory.event()))["decisions"] == []
    await factory.assert_books_balance()


async def test_preview_writes_nothing_and_equals_the_later_answer(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    await factory.campaign(condition="event.amount > 1000000")
    event = factory.event()
    before = await count_rows(database)
    answer = await service.post("/v1/events/preview", event, key=None)
    assert answer.status_code == 200
    assert await count_rows(database) == before
    preview, recorded = answer.json(), await record(service, event)
    assert preview["member_id"] is None
    assert preview["decisions"] == recorded["decisions"]
    assert [(a["amount"], a["status"], a["transaction_id"]) for a in preview["awards"]] == [(139, "preview", None)]
    moments = {"judged_at": None, "decided_at": None}
    assert {**preview["inputs"], **moments} == {**recorded["inputs"], **moments}
    neutral = {"member_id": None, "recorded_at": None, "awards": None, "inputs": None}
    assert {**preview, **neutral} == {**recorded, **neutral}
    await factory.assert_books_balance()


async def test_preview_of_a_known_member_looks_at_their_balance(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign(clawback="up_to_balance")
    wallet = await factory.wallet(20)
    refund = factory.event(type="refund", member={"id": wallet.partition(":")[0]})
    before = await count_rows(database)
    preview = (await service.post("/v1/events/preview", refund)).json()
    assert [award["amount"] for award in preview["awards"]] == [-20]
    assert (await count_rows(database), await factory.balance(wallet)) == (before, 20)
    assert [award["amount"] for award in (await record(service, refund))["awards"]] == [-20]
    again = (await service.post("/v1/events/preview", refund)).json()
    assert [(award["amount"], award["status"]) for award in again["awards"]] == [(-20, "paid")]
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "member", [{}, {"external_id": "a", "id": NOBODY}, {"external_id": None}, {"id": "mem_1"}, {"id": {"$gt": ""}}, None, "a"]
)
async def test_an_event_names_exactly_one_member(service: Caller, factory: Factory, database: Database, member: object) -> None:
    before = await count_rows(database)
    for path in ("/v1/events", "/v1/events/preview"):
        refused = problem(await service.post(path, factory.event(member=member)), 422, "validation")
        assert refused["errors"][0]["pointer"].startswith("/member")
        problem(await service.post(path, factory.event(member={"id": NOBODY})), 404, "not-found")
    assert await count_rows(database) == before


async def test_formula_rounds_the_decimal_that_was_written(service: Caller, factory: Factory) -> None:
    rates = {("0.29", "floor"): 29, ("1.1", "ceil"): 110, ("0.57", "floor"): 57, ("0.005", "half_even"): 0}
    for (rate, rounding), amount in rates.items():
        award = {"type": "formula", "expression": f"double(event.amount) * {rate}", "rounding": rounding}
        await factory.campaign(award=award, stacking={"group": "decimals", "policy": "all", "priority": 1000 - amount})
    event = factory.event(amount=100)
    for path in ("/v1/events/preview", "/v1/events"):
        answer = (await service.post(path, event, key=None)).json()
        assert sorted(each["amount"] for each in answer["decisions"]) == sorted(rates.values())
    await factory.assert_books_balance()
