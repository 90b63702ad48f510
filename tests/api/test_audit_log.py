"""The audit log over HTTP and at the terminal: who asked for what, how it was answered, and a chain that shows every change."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from falcon.asgi import App
from pymongo.errors import AutoReconnect

from guerdon.audit_log.models import AUDIT, Record
from guerdon.audit_log.rules import find_faults
from guerdon.clock import rfc3339
from guerdon.database import Database
from guerdon.http.operation import SAFE_METHODS
from guerdon.wiring.services import Services
from tests.api.test_sessions import logged_in
from tests.clients import Caller, problem
from tests.commands import guerdon_here
from tests.factories import Factory
from tests.invariants.retail import Run, guerdon
from tests.serving import routes_of

PASSWORD = "operator's password"


async def colleague(anonymous: Caller, services: Services, role: Any) -> tuple[str, Caller]:
    person = {"email": f"{role}@example.com", "password": PASSWORD}
    member = await services.members.create_operator(person["email"], PASSWORD, role)
    return member.id, anonymous.with_token((await logged_in(anonymous, person))["access_token"])


async def records(services: Services) -> list[Record]:
    return [record async for record in services.audit_log.read()]


async def test_changes_by_staff_are_recorded_as_request_and_result(
    anonymous: Caller, service: Caller, services: Services, factory: Factory
) -> None:
    admin_id, admin = await colleague(anonymous, services, "admin")
    operator_id, operator = await colleague(anonymous, services, "operator")
    wallet = await factory.wallet(10)
    owner = wallet.partition(":")[0]
    assert (await operator.post(f"/v1/wallets/{wallet}/debit", {"amount": 3})).status_code == 201
    problem(await operator.post(f"/v1/wallets/{wallet}/debit", {"amount": 300}), 409, "insufficient-funds")
    assert (await operator.get(f"/v1/wallets/{wallet}")).status_code == 200
    assert (await admin.put(f"/v1/members/{owner}/role", {"role": "support"})).status_code == 200
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).status_code == 201
    found = await records(services)
    told = [(record.phase, record.actor, record.action, record.subject, record.status, record.facts) for record in found]
    assert told == [
        ("asked", operator_id, "debitWallet", {"wallet_id": wallet}, None, {}),
        ("answered", operator_id, "debitWallet", {"wallet_id": wallet}, 201, {}),
        ("asked", operator_id, "debitWallet", {"wallet_id": wallet}, None, {}),
        ("answered", operator_id, "debitWallet", {"wallet_id": wallet}, 409, {}),
        ("asked", admin_id, "setRole", {"member_id": owner}, None, {}),
        ("answered", admin_id, "setRole", {"member_id": owner}, 200, {"before": "member", "role": "support"}),
    ]
    assert [found[n].request_id == found[n + 1].request_id for n in (0, 2, 4)] == [True] * 3
    assert list(find_faults(found)) == []
    page = (await admin.get("/v1/audit", limit=4)).json()
    assert [item["seq"] for item in page["items"]] == [6, 5, 4, 3]
    rest = (await admin.get("/v1/audit", limit=4, cursor=page["next_cursor"])).json()
    assert ([item["seq"] for item in rest["items"]], rest["next_cursor"]) == ([2, 1], None)
    problem(await operator.get("/v1/audit"), 403, "forbidden")
    problem(await admin.get("/v1/audit", cursor="eA"), 422, "validation")
    await factory.assert_books_balance()


async def test_change_is_refused_when_the_audit_log_is_unavailable(
    anonymous: Caller, services: Services, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, operator = await colleague(anonymous, services, "operator")
    wallet = await factory.wallet(10)

    async def lost(*_: Any, **__: Any) -> None:
        raise AutoReconnect("the log's server is gone")

    with monkeypatch.context() as patch:
        patch.setattr(services.audit_log, "append", lost)
        problem(await operator.post(f"/v1/wallets/{wallet}/debit", {"amount": 3}), 503, "database-unavailable")
    assert await factory.balance(wallet) == 10
    await factory.assert_books_balance()


async def test_concurrent_audit_records_form_one_chain(services: Services, other_services: Services) -> None:
    both = [services.audit_log, other_services.audit_log]
    await asyncio.gather(
        *(both[n % 2].append("asked", "terminal", "test", {"n": str(n)}, request_id=f"req_{n}") for n in range(20))
    )
    found = await records(services)
    assert sorted(int(record.subject["n"]) for record in found) == list(range(20))
    assert list(find_faults(found)) == []


@pytest.mark.parametrize("change", [{"actor": "somebody"}, {"at": 1}, {"facts": {"role": "admin"}}, {"prev": bytes(32)}, None])
async def test_tampering_with_the_audit_log_is_detected(
    services: Services, database: Database, change: dict[str, Any] | None
) -> None:
    for n in range(4):
        await services.audit_log.append("asked", "terminal", "test", {"n": str(n)}, request_id="req_1")
    if change is None:
        await database.raw[AUDIT].delete_one({"_id": 3})
    else:
        await database.raw[AUDIT].update_one({"_id": 3}, {"$set": change})
    assert len(list(find_faults(await records(services)))) == 1


async def test_audit_command_prints_records_and_reports_broken_ones(mongodb_url: str, database: Database, tmp_path: Path) -> None:
    where = {"GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": database.raw.name}

    async def command(*arguments: str, run: Callable[..., Awaitable[Run]] = guerdon_here) -> tuple[int, list[str], str]:
        ended = await run(*arguments, **where)
        return ended.status, ended.out.splitlines(), ended.err

    status, key, _ = await command("keys", "create", "--name", "till", "--scopes", "wallets:read", run=guerdon)
    assert status == 0
    assert (await command("keys", "revoke", key[-1].split("_")[2], run=guerdon))[0] == 0
    status, lines, err = await command("audit", run=guerdon)
    told = [json.loads(line) for line in lines]
    assert (status, err) == (0, "")
    assert [(each["phase"], each["action"]) for each in told] == [
        ("asked", "keys create"), ("answered", "keys create"), ("asked", "keys revoke"), ("answered", "keys revoke"),
    ]  # fmt: skip
    assert told[0]["subject"] == {"name": "till", "scopes": "wallets:read"}
    assert key[-1] not in "".join(lines)
    assert [json.loads(line)["seq"] for line in (await command("audit", "--after", "2"))[1]] == [3, 4]
    await database.raw[AUDIT].update_one({"_id": 2}, {"$set": {"action": "nothing"}})
    status, lines, err = await command("audit")
    assert (status, len(lines), err.strip()) == (1, 4, "record 2 was changed after it was written")
    assert (await command("audit", "--after", "9"))[0] == 2


NOT_CONFIGURATION = {
    # Members and what they earn and spend: the ledger, events and vouchers record it.
    "createMember", "creditWallet", "debitWallet", "createTransfer", "runBulk", "createHold", "captureHold", "voidHold",
    "reverseTransaction", "createTransaction", "createExchange", "recordEvent", "previewEvent", "recordEvents", "recordReferral", "redeemOffer", "validateVoucher", "reserveVoucher",
    "useVoucher", "releaseVoucher", "unuseVoucher", "cancelVoucher", "loadGiftCard",
    # It reads and computes.
    "replayEvent", "quoteExchange",
}  # fmt: skip
"""Operations that change something and that a service key may call without a record. Add a new one on purpose."""


async def test_every_change_of_the_configuration_by_a_service_is_recorded(
    app: App[Any, Any], service: Caller, services: Services
) -> None:
    """Every route that needs a scope and is not safe: with a key, on things that do not exist."""
    told = set[str]()
    for route in routes_of(app):
        if route.method in SAFE_METHODS or route.operation.policy.scope is None:
            continue
        before = len(await records(services))
        await service.send(route.method, route.url, b"{}")
        added = (await records(services))[before:]
        if route.operation.operation_id in NOT_CONFIGURATION:
            assert added == [], route.operation.operation_id
        else:
            assert [(each.phase, each.action) for each in added] == [
                ("asked", route.operation.operation_id), ("answered", route.operation.operation_id),
            ]  # fmt: skip
            assert {each.actor for each in added} == {"key_" + str(service.token).split("_")[2]}
        told.add(route.operation.operation_id)
    assert told > NOT_CONFIGURATION
    assert told - NOT_CONFIGURATION >= {
        "createAsset", "freezeWallet", "unfreezeWallet", "closeWallet", "setTerms", "createCampaign", "replaceCampaign", "approveCampaign",
        "activateCampaign", "pauseCampaign", "endCampaign", "replaceTiers", "createOffer", "replaceOffer", "activateOffer", "pauseOffer",
        "endOffer", "generateCodes", "shareCode", "importCodes", "cancelBatch", "disableMember", "enableMember", "setRole", "createKey",
        "revokeKey", "eraseMember", "simulateCampaign", "cancelSimulation",
    }  # fmt: skip
    assert list(find_faults(await records(services))) == []


async def test_freeze_and_account_rules_are_recorded_with_the_values_before(
    anonymous: Caller, service: Caller, services: Services, factory: Factory
) -> None:
    wallet = await factory.wallet(10)
    _, admin = await colleague(anonymous, services, "admin")
    await service.put(f"/v1/wallets/{wallet}/terms", {"credit_limit": 50, "day_limit": 100})
    await admin.put(f"/v1/wallets/{wallet}/terms", {"credit_limit": 0, "ceiling": 900})
    for step in ("freeze", "freeze", "unfreeze"):
        assert (await service.post(f"/v1/wallets/{wallet}/{step}", {"reason": "card lost"})).status_code == 200
    problem(await service.post(f"/v1/wallets/{wallet}/close"), 409, "wallet-not-empty")
    await admin.put(f"/v1/members/{wallet.partition(':')[0]}/role", {"role": "support"})
    answered = [each for each in await records(services) if each.phase == "answered"]
    told = [(each.action, each.status, each.facts) for each in answered]
    first = {"credit_limit": 0, "ceiling": None, "day_limit": None, "month_limit": None}
    second = {"credit_limit": 50, "ceiling": None, "day_limit": 100, "month_limit": None}
    third = {"credit_limit": 0, "ceiling": 900, "day_limit": None, "month_limit": None}
    terms = [
        (action, status, {name: json.loads(text) for name, text in facts.items()})
        for action, status, facts in told
        if action == "setTerms"
    ]
    assert terms == [
        ("setTerms", 200, {"before": first, "after": second}),
        ("setTerms", 200, {"before": second, "after": third}),
    ]
    assert [each for each in told if each[0] != "setTerms"] == [
        ("freezeWallet", 200, {"before": "open", "after": "frozen"}),
        ("freezeWallet", 200, {"before": "frozen", "after": "frozen"}),
        ("unfreezeWallet", 200, {"before": "frozen", "after": "open"}),
        ("closeWallet", 409, {}),
        ("setRole", 200, {"before": "member", "role": "support"}),
    ]
    await factory.assert_books_balance()


async def facts_of(services: Services, action: str) -> list[dict[str, Any]]:
    """The facts of the answered requests of one action, with their JSON objects decoded."""
    found = [each.facts for each in await records(services) if each.phase == "answered" and each.action == action]
    return [{name: json.loads(text) if text.startswith("{") else text for name, text in facts.items()} for facts in found]


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


async def test_changes_of_a_campaign_are_recorded_with_the_values_before(
    service: Caller, services: Services, factory: Factory
) -> None:
    """Only what differs. What people write freely is a digest, because it could name a person and a record is permanent."""
    campaign = await factory.campaign(active=False, name="Ada's birthday", budget=1000)
    content = {
        "name": "Bob's birthday",
        "asset": "PTS",
        "event_types": ["purchase", "refund"],
        "award": {"type": "per_amount", "points": 2, "per": 100, "rounding": "floor"},
        "condition": 'event.attributes.email == "bob@example.com"',
        "budget": 1000,
    }
    assert (await service.put(f"/v1/campaigns/{campaign}", content)).status_code == 200
    for step in ("activate", "activate", "pause", "end"):
        assert (await service.post(f"/v1/campaigns/{campaign}/{step}")).status_code == 200
    problem(await service.post(f"/v1/campaigns/{campaign}/activate"), 409, "invalid-state")
    assert await facts_of(services, "createCampaign") == [{"campaign": campaign}]
    assert await facts_of(services, "replaceCampaign") == [
        {
            "version": "2",
            "before": {
                "award": {"type": "per_amount", "points": 1, "per": 100, "rounding": "floor"},
                "condition": digest_of("true"),
                "name": digest_of("Ada's birthday"),
            },
            "after": {
                "award": content["award"], "condition": digest_of(str(content["condition"])), "name": digest_of("Bob's birthday"),
            },
        }
    ]  # fmt: skip
    assert await facts_of(services, "activateCampaign") == [
        {"before": "draft", "after": "active"}, {"before": "active", "after": "active"}, {},
    ]  # fmt: skip
    assert await facts_of(services, "pauseCampaign") == [{"before": "active", "after": "paused"}]
    assert await facts_of(services, "endCampaign") == [{"before": "paused", "after": "ended"}]
    stored = str([each.facts for each in await records(services)])
    assert "birthday" not in stored
    assert "bob@example.com" not in stored
    assert list(find_faults(await records(services))) == []


async def test_coming_version_of_a_campaign_is_recorded_with_its_start(
    service: Caller, services: Services, factory: Factory
) -> None:
    campaign = await factory.campaign(budget=1000)
    view = (await service.get(f"/v1/campaigns/{campaign}")).json()
    content = {name: view[name] for name in ("name", "asset", "event_types", "award")} | {"budget": 500}
    start = rfc3339(services.clock.now_ms() + 86_400_000)
    answer = await service.put(f"/v1/campaigns/{campaign}", {**content, "effective_at": start})
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    [facts] = await facts_of(services, "replaceCampaign")
    assert (facts["version"], facts["before"]["budget"], facts["after"]["budget"]) == ("2", 1000, 500)
    assert rfc3339(facts["after"]["effective_at"]) == start
    assert facts["before"]["effective_at"] is None


async def test_changes_of_an_offer_and_its_stock_are_recorded(service: Caller, services: Services, factory: Factory) -> None:
    offer = await factory.offer(active=False, stock=10, description="for Ada only")
    value = {"type": "fixed", "amount": 700, "currency": "GBP"}
    body = {"name": "5 pounds off", "kind": "discount", "value": value, "description": "for all"}
    assert (await service.put(f"/v1/offers/{offer}", {**body, "stock": 25})).status_code == 200
    assert (await service.put(f"/v1/offers/{offer}", body)).status_code == 200
    for step in ("activate", "pause", "pause", "end"):
        assert (await service.post(f"/v1/offers/{offer}/{step}")).status_code == 200
    assert await facts_of(services, "createOffer") == [{"offer": offer}]
    first, second = await facts_of(services, "replaceOffer")
    assert first == {
        "version": "2",
        "before": {"description": digest_of("for Ada only"), "stock": 10, "value": {**value, "amount": 500}},
        "after": {"description": digest_of("for all"), "stock": 25, "value": value},
    }
    assert second == {"version": "3", "before": {"stock": 25}, "after": {"stock": None}}
    assert await facts_of(services, "activateOffer") == [{"before": "draft", "after": "active"}]
    assert await facts_of(services, "pauseOffer") == [
        {"before": "active", "after": "paused"}, {"before": "paused", "after": "paused"},
    ]  # fmt: skip
    assert await facts_of(services, "endOffer") == [{"before": "paused", "after": "ended"}]
    await factory.assert_books_balance()


async def test_changes_of_the_tier_set_are_recorded(service: Caller, services: Services) -> None:
    tiers = [{"code": "silver", "name": "Silver", "points": 1000}]
    body = {"asset": "PTS", "window": {"type": "rolling", "months": 12}, "tiers": tiers, "grace_months": 1, "grace_days": 2}
    assert (await service.put("/v1/tiers", body)).status_code == 200
    raised = [{"code": "silver", "name": "Silver", "points": 1500}]
    assert (await service.put("/v1/tiers", {**body, "tiers": raised, "grace_days": 5})).status_code == 200
    first, second = await facts_of(services, "replaceTiers")
    silver = {"code": "silver", "name": digest_of("Silver"), "points": 1000}
    assert (first["version"], first["before"]) == ("1", {})
    assert first["after"]["tiers"] == [silver]
    assert first["after"]["asset"] == "PTS"
    assert second["version"] == "2"
    assert (second["before"]["tiers"], second["before"]["grace_days"]) == ([silver], 2)
    assert (second["after"]["tiers"], second["after"]["grace_days"]) == ([{**silver, "points": 1500}], 5)
    assert "asset" not in second["after"]


async def test_disabling_a_member_is_recorded_with_the_state_before(service: Caller, services: Services, factory: Factory) -> None:
    member = await factory.member()
    for step in ("disable", "disable", "enable"):
        assert (await service.post(f"/v1/members/{member}/{step}")).status_code == 200
    assert await facts_of(services, "disableMember") == [
        {"before": "enabled", "after": "disabled"}, {"before": "disabled", "after": "disabled"},
    ]  # fmt: skip
    assert await facts_of(services, "enableMember") == [{"before": "disabled", "after": "enabled"}]
