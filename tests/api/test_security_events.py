"""LOG-3: whatever somebody who looks after security wants to know leaves exactly one line, and nothing else does."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from falcon.asgi import App
from pydantic import SecretStr

from guerdon.access.service_key_format import KeyParts
from guerdon.access.token_keys import TokenKeys
from guerdon.cli.verify import EXIT_VIOLATIONS, verify_ledger
from guerdon.config import Settings
from guerdon.ledger import store
from guerdon.logs import make_logger
from guerdon.middlewares.security_events import FAILURE_EVENTS, STAFF_EVENTS, SUCCESS_EVENTS, WITH_CREDENTIALS
from guerdon.permissions import Role
from guerdon.verification.checkpoints import LedgerChanged
from guerdon.wiring.jobs import jobs_of
from guerdon.wiring.services import Services
from tests.clients import Caller, Log, ManualClock
from tests.factories import Factory
from tests.invariants.retail import places
from tests.serving import routes_of
from tests.waiting import until

PASSWORD = "correct horse battery staple"
PERSONAL = re.compile(r"@|example\.com|correct horse|gk_live|gr_|eyJ|Bearer|Mozilla")


class Watch:
    """Reads what the log says about a request."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def events(self, answer: httpx.Response) -> list[dict[str, Any]]:
        await self._log.written(answer)
        wanted = answer.headers["x-request-id"]
        return [line for line in self._log.lines if line["event"] == "security_event" and line["request_id"] == wanted]

    async def only(self, answer: httpx.Response, name: str, **facts: Any) -> dict[str, Any]:
        """Assert that there is one line, with these facts, and nothing personal in it."""
        [event] = await self.events(answer)
        assert event["name"] == name
        assert set(event) >= {"at", "level", "actor", "object", "result", "request_id", "operation", "status"}
        assert {fact: event[fact] for fact in facts} == facts
        assert event["status"] == answer.status_code
        assert not PERSONAL.search(str(event)), event
        return event


@pytest.fixture
def watch(log: Log) -> Watch:
    return Watch(log)


async def log_in(anonymous: Caller, email: str, password: str = PASSWORD) -> httpx.Response:
    return await anonymous.post("/v1/auth/login", {"email": email, "password": password})


async def employee(services: Services, anonymous: Caller, role: Role) -> tuple[str, Caller]:
    member = await services.members.create_operator(f"{role}@example.com", PASSWORD, role)
    token = (await log_in(anonymous, f"{role}@example.com")).json()["access_token"]
    return member.id, anonymous.with_token(token)


async def test_login_and_failed_login_are_logged(anonymous: Caller, watch: Watch) -> None:
    await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": PASSWORD})
    answer = await log_in(anonymous, "ada@example.com")
    member = answer.json()["member_id"]
    await watch.only(answer, "login", actor="anonymous", object={"member": member}, result="done")
    for email, password in (("ada@example.com", "another password"), ("nobody@example.com", PASSWORD)):
        failed = await log_in(anonymous, email, password)
        await watch.only(failed, "login_failed", actor="anonymous", object={}, result="refused", code="unauthenticated")


async def test_login_over_a_limit_is_logged_with_its_quota(anonymous: Caller, watch: Watch) -> None:
    await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": PASSWORD})
    for _ in range(10):
        await log_in(anonymous, "ada@example.com", "a guess of mine")
    refused = await log_in(anonymous, "ada@example.com", "a guess of mine")
    assert refused.status_code == 429
    event = await watch.only(refused, "limit_hit", operation="logIn", result="refused", code="too-many-requests")
    assert event["quota"]


async def test_password_change_is_logged(anonymous: Caller, watch: Watch) -> None:
    await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": PASSWORD})
    begun = (await log_in(anonymous, "ada@example.com")).json()
    change = {"current_password": PASSWORD, "new_password": "another horse of another battery"}
    changed = await anonymous.with_token(begun["access_token"]).put("/v1/me/password", change)
    await watch.only(changed, "password_changed", actor=begun["member_id"], result="done")


async def test_refresh_token_reuse_is_logged(anonymous: Caller, watch: Watch, clock: ManualClock) -> None:
    await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": PASSWORD})
    begun = (await log_in(anonymous, "ada@example.com")).json()
    first = begun["refresh_token"]
    assert await watch.events(await anonymous.post("/v1/auth/refresh", {"refresh_token": first})) == []
    clock.advance(seconds=11)
    reused = await anonymous.post("/v1/auth/refresh", {"refresh_token": first})
    await watch.only(reused, "token_reused", object={"about": begun["member_id"]}, result="refused")
    again = await anonymous.post("/v1/auth/refresh", {"refresh_token": first})
    await watch.only(again, "credentials_invalid", object={}, operation="refresh")


@pytest.mark.parametrize("token", ["garbage", "a.b.c", KeyParts("abcdefghijkl", "s" * 43).text, "gk_live_short"])
async def test_invalid_credentials_are_logged(anonymous: Caller, factory: Factory, watch: Watch, token: str) -> None:
    wallet = await factory.wallet(1)
    for answer in (
        await anonymous.with_token(token).get(f"/v1/wallets/{wallet}"),
        await anonymous.with_token(token).post(f"/v1/wallets/{wallet}/debit", {"amount": 1}),
    ):
        event = await watch.only(answer, "credentials_invalid", actor="anonymous", object={"wallet_id": wallet}, result="refused")
        assert token not in str(event)
    assert await watch.events(await anonymous.get(f"/v1/wallets/{wallet}")) == [], "no credentials at all"


async def test_denied_access_is_logged(anonymous: Caller, services: Services, factory: Factory, watch: Watch) -> None:
    wallet = await factory.wallet(1)
    owner = wallet.partition(":")[0]
    reader = anonymous.with_token(key := await services.access.create_key("reader", ["wallets:read"]))
    denied = await reader.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})
    name = f"key_{key.split('_')[2]}"
    await watch.only(denied, "access_denied", actor=name, object={"wallet_id": wallet}, operation="debitWallet", code="forbidden")
    await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": PASSWORD})
    begun = (await log_in(anonymous, "ada@example.com")).json()
    member = anonymous.with_token(begun["access_token"])
    foreign = await member.get(f"/v1/wallets/{wallet}")
    about = {"wallet_id": wallet, "about": owner}
    await watch.only(foreign, "access_denied", actor=begun["member_id"], object=about, code="not-found")


async def test_manual_movement_of_value_is_logged(
    anonymous: Caller, services: Services, service: Caller, factory: Factory, watch: Watch
) -> None:
    wallet, other = await factory.wallet(10), await factory.wallet(10)
    actor, operator = await employee(services, anonymous, "operator")
    transfer = {"from": wallet, "to": other, "amount": 1}
    bulk = {"commands": [{"type": "debit", "wallet": wallet, "amount": 1, "key": "by-hand"}]}
    credited = await operator.post(f"/v1/wallets/{wallet}/credit", {"amount": 5, "reason": "goodwill for ada@example.com"})
    for answer, subject in (
        (credited, {"wallet_id": wallet}),
        (await operator.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), {"wallet_id": wallet}),
        (await operator.post("/v1/transfers", transfer), {"source": wallet, "target": other}),
        (await operator.post("/v1/bulk", bulk), {"commands": "1"}),
        (await operator.post(f"/v1/transactions/{credited.json()['id']}/reverse", {"amount": 1}), None),
    ):
        event = await watch.only(answer, "manual_adjustment", actor=actor, result="done")
        assert subject is None or event["object"] == subject
    for answer in (
        await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 5}),
        await service.post("/v1/transfers", transfer),
        await operator.get(f"/v1/wallets/{wallet}"),
        await operator.post(f"/v1/wallets/{wallet}/debit", {"amount": 10_000}),
        await operator.post(f"/v1/wallets/{wallet}/debit", {"amount": 0}),
    ):
        assert await watch.events(answer) == []
    await factory.assert_books_balance()


async def test_changes_of_roles_and_member_status_are_logged(
    anonymous: Caller, services: Services, factory: Factory, watch: Watch
) -> None:
    member = await factory.member()
    actor, admin = await employee(services, anonymous, "admin")
    changed = await admin.put(f"/v1/members/{member}/role", {"role": "support"})
    await watch.only(changed, "role_changed", actor=actor, object={"member_id": member, "before": "member", "role": "support"})
    await watch.only(
        await admin.post(f"/v1/members/{member}/disable"),
        "member_disabled",
        object={"member_id": member, "before": "enabled", "after": "disabled"},
    )
    await watch.only(
        await admin.post(f"/v1/members/{member}/enable"),
        "member_enabled",
        object={"member_id": member, "before": "disabled", "after": "enabled"},
    )
    await watch.only(await admin.put(f"/v1/members/{actor}/role", {"role": "member"}), "access_denied", actor=actor)


async def test_export_and_erasure_of_members_are_logged(
    anonymous: Caller, services: Services, factory: Factory, watch: Watch
) -> None:
    member = await factory.member()
    actor, admin = await employee(services, anonymous, "admin")
    about = {"member_id": member}
    await watch.only(await admin.get(f"/v1/members/{member}/export"), "member_exported", actor=actor, object=about, result="done")
    await watch.only(await admin.post(f"/v1/members/{member}/erase"), "member_erased", actor=actor, object=about, result="done")
    await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": PASSWORD})
    token = (await log_in(anonymous, "ada@example.com")).json()
    own = anonymous.with_token(token["access_token"])
    await watch.only(await own.get("/v1/me/export"), "member_exported", actor=token["member_id"])
    await watch.only(await own.post("/v1/me/erase", {"current_password": PASSWORD}), "member_erased", actor=token["member_id"])


async def test_creation_and_revocation_of_keys_are_logged(service: Caller, watch: Watch) -> None:
    made = await service.post("/v1/keys", {"name": "the till of Ada", "scopes": ["wallets:read"]})
    key_id = made.json()["id"]
    about = {"key_id": key_id, "scopes": "wallets:read"}
    event = await watch.only(made, "key_created", object=about, result="done")
    assert "Ada" not in str(event)
    await watch.only(await service.delete(f"/v1/keys/{key_id}"), "key_revoked", object={"key_id": key_id}, result="done")


async def test_path_values_are_logged_only_when_they_are_ids(service: Caller, anonymous: Caller, watch: Watch) -> None:
    for path in (
        "/v1/wallets/ada@example.com:PTS",
        "/v1/members/ada@example.com",
        "/v1/events/ada@example.com",
        "/v1/nothing/ada@example.com",
    ):
        event = (
            await watch.only(await anonymous.with_token("garbage").get(path), "credentials_invalid")
            if "nothing" not in path
            else None
        )
        assert event is None or event["object"] == {}
    assert await watch.events(await service.get("/v1/nothing/ada@example.com")) == []


async def test_security_event_tables_name_existing_operations(app: App[Any, Any]) -> None:
    served = {route.operation.operation_id for route in routes_of(app)}
    assert {*SUCCESS_EVENTS, *STAFF_EVENTS, *FAILURE_EVENTS, *WITH_CREDENTIALS} - served == set()


async def break_books(services: Services, factory: Factory) -> str:
    wallet = await factory.wallet(5)
    await services.database.raw[store.ACCOUNTS].update_one({"_id": wallet}, {"$set": {"seq": "8"}})
    return wallet


async def test_checkpoint_refused_on_a_broken_ledger_is_logged(
    services: Services, settings: Settings, factory: Factory, clock: ManualClock
) -> None:
    await break_books(services, factory)
    clock.advance(seconds=200)
    signing, log = settings.model_copy(update={"checkpoint_key": SecretStr(TokenKeys.generate())}), Log()
    [job] = [job for job in jobs_of(services, signing, make_logger(clock, "error", log)) if job.name == "checkpoint"]
    with pytest.raises(LedgerChanged):
        await job.run()
    await until(lambda: bool(log.lines))
    [line] = log.lines
    assert (line["event"], line["name"]) == ("security_event", "verify_failed")
    assert (line["actor"], line["result"], line["object"]) == ("system:worker", "failed", {})
    assert line["request_id"]


async def test_failed_verification_is_logged(
    services: Services,
    settings: Settings,
    factory: Factory,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wallet = await break_books(services, factory)
    for name, value in places(settings).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(typer.Exit) as ended:
        await asyncio.to_thread(verify_ledger, data_dir=tmp_path)
    assert ended.value.exit_code == EXIT_VIOLATIONS
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "security_event" in line]
    assert (line["name"], line["actor"], line["result"]) == ("verify_failed", "terminal", "failed")
    assert wallet in str(line["object"])
    assert line["request_id"]
