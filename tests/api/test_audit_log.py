"""The audit log over HTTP and at the terminal: who asked for what, how it was answered, and a chain that shows every change."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from guerdon.audit_log.models import AUDIT, Record
from guerdon.audit_log.rules import find_faults
from guerdon.database import Database
from guerdon.wiring.services import Services
from tests.api.test_sessions import logged_in
from tests.clients import Caller, problem
from tests.commands import guerdon_here
from tests.factories import Factory
from tests.invariants.retail import Run, guerdon

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
        ("answered", admin_id, "setRole", {"member_id": owner}, 200, {"role": "support"}),
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
