"""Campaigns and offers that are valid and probably not meant are saved with warnings."""

from typing import Any

import pytest

from tests.clients import Caller, problem
from tests.factories import Factory

BODY = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 1}}
TIERS = {
    "asset": "PTS",
    "window": {"type": "rolling", "months": 12},
    "tiers": [{"code": "silver", "name": "Silver", "points": 1}, {"code": "gold", "name": "Gold", "points": 250}],
}


async def warnings(service: Caller, **changes: Any) -> dict[str, str]:
    """The warnings after a creation, by pointer, which are also those after a replacement."""
    answer = await service.post("/v1/campaigns", {**BODY, **changes}, key=None)
    assert answer.status_code == 201, answer.text
    path = f"/v1/campaigns/{answer.json()['id']}"
    replaced = await service.put(path, {**BODY, **changes})
    assert (replaced.status_code, replaced.json()["warnings"]) == (200, answer.json()["warnings"])
    assert "warnings" not in (await service.get(path)).json()
    found = {warning["pointer"]: warning["detail"] for warning in answer.json()["warnings"]}
    assert len(found) == len(answer.json()["warnings"])
    return found


async def test_usual_campaigns_and_offers_have_no_warnings(service: Caller, factory: Factory) -> None:
    await service.put("/v1/tiers", TIERS)
    assert (await service.post("/v1/events", factory.event(type="visit", amount=0, currency=None), key=None)).status_code == 201
    conditions = (
        "true", "event.amount > 0", "event.amount >= 100 && event.amount <= 100", 'event.type == "purchase" || event.amount < 0',
        'has(event.attributes.channel) && event.attributes.channel == "web"', "!member.first_purchase && member.days_since_last > 30",
        'member.tier == "gold" || member.tier == ""', 'event.currency in ["GBP", "EUR"] && event.currency == "EUR"',
        'event.id == "false" // && false', "!(event.amount < 0)", "event.items.exists(i, i.quantity < 0) || 1 == 1",
        "event.amount < 10 ? false : true", 'event.type != "visit"', "timestamp(event.occurred_at) < now", "-1 <= member.days_since_last",
    )  # fmt: skip
    for condition in conditions:
        assert await warnings(service, condition=condition, event_types=["purchase", "refund", "visit"]) == {}, condition
    assert await warnings(service, tier_multipliers={"gold": "2"}) == {}
    made = await service.post("/v1/offers", {"name": "o", "kind": "discount", "value": {"type": "percent", "percent": "10"}})
    assert (made.status_code, made.json()["warnings"]) == (201, [])


@pytest.mark.parametrize(
    ("expressions", "pointer", "reason"),
    [
        ({"condition": "false"}, "/condition", "false is false"),
        ({"audience": "1 > 2"}, "/audience", "1 > 2 is false"),
        ({"condition": "event.amount > 0 && (event.amount < 0)"}, "/condition", "event.amount is never below 0"),
        ({"condition": "event.amount > 100 && event.amount < 50"}, "/condition", "event.amount cannot be what the conditions ask"),
        (
            {"condition": "100 < event.amount && 100 >= event.amount"},
            "/condition",
            "event.amount cannot be what the conditions ask",
        ),
        ({"condition": "event.amount < 0"}, "/condition", "event.amount is never below 0"),
        ({"condition": "member.days_since_last < -1"}, "/condition", "member.days_since_last is never below -1"),
        ({"condition": 'event.type == "visit"'}, "/condition", "event.type is purchase where the other conditions hold"),
        ({"condition": "event.type in ['visit', 'signup']"}, "/condition", "event.type is purchase where"),
        (
            {"condition": "event.currency == 'GBP' && event.currency == 'EUR'"},
            "/condition",
            "event.currency is GBP where the other conditions hold",
        ),
        ({"audience": "member.referred", "condition": "!member.referred"}, "/condition", "member.referred cannot be both"),
        ({"audience": "event.amount > 9", "condition": "(true && (event.amount == 9))"}, "/condition", "event.amount cannot be"),
    ],
)
async def test_condition_that_is_never_true_is_saved_with_a_warning(
    service: Caller, expressions: dict[str, str], pointer: str, reason: str
) -> None:
    found = await warnings(service, **expressions)
    assert list(found) == [pointer]
    assert found[pointer].startswith(f"it is never true: {reason}")


async def test_names_that_do_not_exist_have_warnings(service: Caller, factory: Factory) -> None:
    assert await warnings(service, tier_multipliers={"gold": "2"}) == {
        "/tier_multipliers/gold": "no tier has the code gold: there are no tiers"
    }
    await service.put("/v1/tiers", TIERS)
    await service.post("/v1/events", factory.event(type="store_visit", amount=0, currency=None), key=None)
    found = await warnings(
        service,
        tier_multipliers={"gold": "2", "glod": "3"},
        event_types=["purchase", "purchse", "store_visit", "astronomy"],
        audience='member.tier != "platinum"',
        pending=None,
    )
    assert found == {
        "/tier_multipliers/glod": "no tier has the code glod: the tiers are gold, silver; did you mean gold?",
        "/event_types/1": "no recent event has the type purchse; did you mean purchase?",
        "/event_types/3": "no recent event has the type astronomy",
        "/audience": "no tier has the code platinum: the tiers are gold, silver",
    }
    waits = await warnings(service, pending={"type": "event", "event_type": "stor_visit", "within_days": 3})
    assert waits == {"/pending/event_type": "no recent event has the type stor_visit; did you mean store_visit?"}


async def test_offers_have_warnings(service: Caller) -> None:
    await service.put("/v1/tiers", TIERS)
    body = {"name": "o", "kind": "discount", "value": {"type": "percent", "percent": "10"}}
    changes = {"tiers": ["gold", "silber"], "eligibility": 'member.tier == "bronze" && member.tier == "gold"'}
    made = await service.post("/v1/offers", {**body, **changes})
    assert {each["pointer"]: each["detail"] for each in made.json()["warnings"]} == {
        "/tiers/1": "no tier has the code silber: the tiers are gold, silver; did you mean silver?",
        "/eligibility": "it is never true: member.tier is bronze where the other conditions hold",
    }
    path = f"/v1/offers/{made.json()['id']}"
    assert (await service.put(path, {**body, **changes})).json()["warnings"] == made.json()["warnings"]
    assert (await service.put(path, body)).json()["warnings"] == []
    assert "warnings" not in (await service.get(path)).json()


async def test_a_refused_definition_has_faults_and_no_warnings(service: Caller) -> None:
    answer = await service.post("/v1/campaigns", {**BODY, "condition": "false && ", "tier_multipliers": {"gold": "2"}})
    refused = problem(answer, 422, "validation")
    assert [fault["pointer"] for fault in refused["errors"]] == ["/condition"]
    many = [f"type_{number}" for number in range(20)]
    answer = await service.post("/v1/campaigns", {**BODY, "event_types": many, "condition": "false"})
    assert len(answer.json()["warnings"]) == 20
