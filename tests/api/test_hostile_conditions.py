"""Conditions that want too much: refused when they are saved, or an error of their campaign, which pays nothing; nobody else is stopped."""

from typing import Any

import pytest

from guerdon.campaigns.cel_cost import CONDITION_US_MAX, cost_us
from guerdon.database import Database
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

ALL = "event.items.all"
HOSTILE = {
    "nested walks": f"{ALL}(a, {ALL}(b, {ALL}(c, a.quantity > 0)))",
    "a walk in a walk": f"{ALL}(a, {ALL}(b, a.sku != b.sku || a == b || a.quantity > 0 || b.quantity > 0))",
    "a walk that does much": f"{ALL}(a, " + " && ".join(["a == a"] * 150) + ")",
    "lists in a walk": f"{ALL}(a, [" + ",".join(["1"] * 800) + "].size() > 0)",
    "maps in a walk": f"{ALL}(a, {{" + ",".join(f"{n}:1" for n in range(300)) + "}.size() > 0)",
    "a written list": "[" + ",".join(["1"] * 800) + "].filter(a, true).all(b, b > 0)",
    "everything compared": " && ".join(["event == event"] * 100),
    "all items compared": " && ".join(["event.items == event.items"] * 70),
    "attributes compared": f"{ALL}(a, " + " && ".join(["event.attributes == event.attributes"] * 20) + ")",
    "brackets": "(" * 900 + "true" + ")" * 900,
    "lists of lists": "[" * 900 + "]" * 900 + " == []",
    "a pattern": "event.id.matches('(a+)+$')",
    "doubled lists": "[1]" + ".map(x, [x, x])" * 20 + ".size() > 0",
    "terms": "+".join(["1"] * 900) + " > 0",
    "an unknown name": "evnt.amount > 0",
    "an unknown function": "event.items.sort().size() > 0",
    "an unknown field": "event.amout > 0",
    "no bool": "event.amount + 1",
    "types": "'a' + 1 == 2",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_condition_is_refused_when_saved(service: Caller, database: Database, name: str) -> None:
    award = {"type": "fixed", "amount": 1}
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": award, "condition": HOSTILE[name]}
    refused = problem(await service.post("/v1/campaigns", body), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/condition"
    as_formula = {**body, "condition": "true", "award": {"type": "formula", "expression": f"({HOSTILE[name]}) ? 1 : 2"}}
    problem(await service.post("/v1/campaigns", as_formula), 422, "validation")
    assert await database.raw["campaigns"].count_documents({}) == 0


ERRORS = [
    "event.amount * 9223372036854775807 > 0", "event.amount / 0 == 1", "event.amount % 0 == 1", "-(-9223372036854775807 - event.amount) > 0",
    "event.attributes.missing == 1", "event.attributes['missing'] == 1", "event.items[9].quantity > 0", "event.items[-1].quantity > 0",
    "event.currency > 1", "int(event.currency) > 0", "uint(0 - event.amount) > 0u", "timestamp('9999-12-31T23:59:59Z') + duration('1s') > now",
    "timestamp(event.id) < now", "duration(event.id) > duration('1s')", "timestamp('0001-01-01T00:00:00Z') - duration('1s') < now",
    "now.getHours('No/Where') > 0", "event.amount && true", "double(event.id) > 0.0", "event.items.exists(i, i.missing == 1)", "bytes(event.items) == b''",
    "int(1e300 * double(event.amount)) > 0",
]  # fmt: skip
FORMULAS = [
    "double(event.amount) / 0.0", "0.0 / 0.0 * double(event.amount)", "-1.0 / 0.0 * double(event.amount)", "1e308 * double(event.amount)",
    "9223372036854775807", "-event.amount", "-1e300", "event.amount * 9223372036854775807", "event.attributes.missing", "0.0 * double(event.amount)",
    "event.amount / 0",
]  # fmt: skip


async def test_evaluation_error_affects_its_own_campaign_only(service: Caller, factory: Factory) -> None:
    for condition in ERRORS:
        await factory.campaign(condition=condition)
    for expression in FORMULAS:
        await factory.campaign(award={"type": "formula", "expression": expression})
    sound = await factory.campaign()
    answer = await service.post("/v1/events", factory.event(items=[{"sku": "a", "quantity": 1}]), key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    assert [award["campaign"] for award in recorded["awards"]] == [sound]
    said = [decision["outcome"] for decision in recorded["decisions"]]
    assert said[: len(ERRORS)] == ["refused"] * len(ERRORS), list(zip(ERRORS, recorded["decisions"], strict=False))
    assert set(said[len(ERRORS) : -1]) <= {"refused", "not_matched"}, recorded["decisions"][len(ERRORS) :]
    assert said[-1] == "awarded"
    await factory.assert_books_balance()


TEA = "event.items.exists(i, i.category == 'tea' && i.quantity >= 2 && i.unit_price > 100)"


async def test_ordinary_conditions_are_evaluated_on_large_baskets(service: Caller, factory: Factory) -> None:
    kept = "event.items.filter(i, i.category == 'tea').size() >= 2"
    for condition in (TEA, "event.items.all(i, i.category in ['tea', 'toys'])", f"{TEA} && member.first_purchase", kept):
        await factory.campaign(condition=condition)
    for count, last in ((400, "awarded"), (1000, "refused")):
        items = [
            {"sku": "a", "quantity": 2, "unit_price": 200, "category": "toys" if n < count - 2 else "tea"} for n in range(count)
        ]
        recorded = (await service.post("/v1/events", factory.event(items=items), key=None)).json()
        assert [decision["outcome"] for decision in recorded["decisions"]] == ["awarded"] * 3 + [last]
    assert recorded["decisions"][-1]["reasons"] == ["its conditions could take too long on an event of 1000 items"]
    await factory.assert_books_balance()


async def test_total_condition_cost_in_a_commit_is_bounded(service: Caller, factory: Factory) -> None:
    for _ in range(8):
        await factory.campaign(condition=f"{TEA} && member.first_purchase")
    items = [{"sku": "a", "quantity": 2, "unit_price": 200, "category": "tea"}] * 700
    recorded = (await service.post("/v1/events", factory.event(items=items), key=None)).json()
    said = [decision["outcome"] for decision in recorded["decisions"]]
    paid = said.count("awarded")
    assert (0 < paid < 8, said) == (True, ["awarded"] * paid + ["refused"] * (8 - paid))
    await factory.assert_books_balance()


async def test_campaign_saved_without_cost_bounds_is_still_evaluated(
    service: Caller, factory: Factory, database: Database, clock: ManualClock
) -> None:
    campaign = await factory.campaign()
    condition = "event.items.filter(i, i.quantity > 0).size() == 1000"
    assert cost_us(condition, 1000) > CONDITION_US_MAX
    await database.raw["campaigns"].update_one({"_id": campaign}, {"$set": {"condition": condition}, "$unset": {"bounded": ""}})
    archived = {"$set": {"campaign.condition": condition}, "$unset": {"campaign.bounded": "", "proof": ""}}
    await database.raw["campaign_versions"].update_one({"_id": f"{campaign}/1"}, archived)
    clock.advance(seconds=2)
    event = factory.event(items=[{"sku": "a", "quantity": 1}] * 1000)
    recorded = (await service.post("/v1/events", event, key=None)).json()
    assert recorded["decisions"][0]["outcome"] == "awarded"
    await factory.assert_books_balance()
