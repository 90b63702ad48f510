"""Service keys over HTTP: who may make and revoke them, what refusing one costs, and when it was last used."""

from collections.abc import Iterator
from typing import Any

import pytest
from falcon.asgi import App
from pymongo import monitoring
from pymongo.errors import AutoReconnect

from guerdon.access.models import SERVICE_KEYS
from guerdon.access.service import LAST_USE_MS
from guerdon.access.service_key_format import KeyParts, new_key
from guerdon.audit_log.rules import find_faults
from guerdon.config import Settings
from guerdon.logs import make_logger
from guerdon.permissions import SCOPES
from guerdon.server import run_beside_requests
from guerdon.wiring.services import Services
from tests.api.test_audit_log import colleague, records
from tests.clients import Caller, Log, ManualClock, problem
from tests.invariants.test_mongodb_commands import Recorder
from tests.secret_leaks import assert_keeps_secrets

TILL = {"name": "point of sale 4", "scopes": ["members:read"], "expires_in_days": 90}
_recorder = Recorder()
monitoring.register(_recorder)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Off until a test puts it on."""
    _recorder.commands.clear()
    yield _recorder
    _recorder.on = False


async def listed(caller: Caller, key_id: str) -> dict[str, Any]:
    [found] = [item for item in (await caller.get("/v1/keys")).json()["items"] if item["id"] == key_id]
    return dict(found)


# --- managing -----------------------------------------------------------------------------------------------------------


async def test_an_admin_makes_lists_and_revokes_keys(anonymous: Caller, services: Services, clock: ManualClock) -> None:
    _, admin = await colleague(anonymous, services, "admin")
    answer = await admin.post("/v1/keys", TILL, key=None)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    text = made.pop("key")
    assert text.split("_")[2] == made["id"]
    assert (made["scopes"], made["status"], made["name"], made["last_used_at"]) == (
        ["members:read"],
        "live",
        "point of sale 4",
        None,
    )
    assert await listed(admin, made["id"]) == made, "the same again, without the key"
    till = anonymous.with_token(text)
    assert (await till.get("/v1/members")).status_code == 200
    problem(await till.get("/v1/assets"), 403, "forbidden")
    assert (await admin.delete(f"/v1/keys/{made['id']}")).json()["status"] == "revoked"
    problem(await till.get("/v1/members"), 401, "unauthenticated")
    first = await listed(admin, made["id"])
    clock.advance(seconds=5)
    assert (await admin.delete(f"/v1/keys/{made['id']}")).json() == first, "revoking twice changes nothing"
    for nobodys in ("nothing", "0" * 12, "$gt", "a" * 500):
        problem(await admin.delete(f"/v1/keys/{nobodys}"), 404, "not-found")


async def test_keys_come_in_pages(service: Caller) -> None:
    made = {(await service.post("/v1/keys", TILL)).json()["id"] for _ in range(4)}
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await service.get("/v1/keys", limit=2, **cursor)).json()
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == sorted(found)
    assert made < set(found)
    assert len(found) == 5
    problem(await service.get("/v1/keys", cursor="é"), 422, "validation")


async def test_caller_cannot_grant_a_scope_that_they_lack(anonymous: Caller, services: Services) -> None:
    mine = ["keys:manage", "wallets:read"]
    manager = anonymous.with_token(await services.access.create_key("manager", mine))
    for scopes in (mine, mine[:1], mine[1:]):
        made = await manager.post("/v1/keys", {"name": "another", "scopes": scopes})
        assert (made.status_code, made.json()["scopes"]) == (201, scopes)
    before = await services.database.raw[SERVICE_KEYS].count_documents({})
    for scope in sorted((SCOPES | {"*"}) - set(mine)):
        problem(await manager.post("/v1/keys", {"name": "more", "scopes": [*mine, scope]}), 403, "forbidden")
    everything = anonymous.with_token(await services.access.create_key("all but the star", sorted(SCOPES)))
    problem(await everything.post("/v1/keys", {"name": "more", "scopes": ["*"]}), 403, "forbidden")
    for role in ("support", "operator"):
        _, person = await colleague(anonymous, services, role)
        problem(await person.post("/v1/keys", {"name": "more", "scopes": ["wallets:read"]}), 403, "forbidden")
    assert await services.database.raw[SERVICE_KEYS].count_documents({}) == before + 1


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": []}, {"scopes": ["wallets"]}, {"scopes": ["wallets:read", "gk_live_" + "a" * 61]}, {"scopes": "*"}, {"scopes": [{"$gt": ""}]},
        {"scopes": ["wallets:read"] * 51}, {"name": ""}, {"name": "   "}, {"name": "a\nb"}, {"name": "a" * 101}, {"name": {"$ne": 1}},
        {"expires_in_days": 0}, {"expires_in_days": 3651}, {"expires_in_days": "1"}, {"expires_in_days": 1.5},
        {"id": "a" * 12}, {"secret_sha256": ""}, {"created_at": 1}, {"last_used_at": 1}, {"revoked_at": None}, {"status": "live"},
    ],
)  # fmt: skip
async def test_invalid_key_request_creates_no_key(service: Caller, services: Services, change: dict[str, Any]) -> None:
    problem(await service.post("/v1/keys", {**TILL, **change}), 422, "validation")
    assert await services.database.raw[SERVICE_KEYS].count_documents({}) == 1


async def test_creation_and_revocation_of_keys_are_audited(anonymous: Caller, services: Services) -> None:
    admin_id, admin = await colleague(anonymous, services, "admin")
    manager_text = await services.access.create_key("manager", ["keys:manage", "members:read"])
    manager, manager_id = anonymous.with_token(manager_text), f"key_{manager_text.split('_')[2]}"
    made = [(await caller.post("/v1/keys", TILL)).json() for caller in (admin, manager)]
    problem(await manager.post("/v1/keys", {"name": "more", "scopes": ["*"]}), 403, "forbidden")
    assert (await manager.delete(f"/v1/keys/{made[0]['id']}")).status_code == 200
    assert (await manager.get("/v1/keys")).status_code == 200
    assert (await manager.get("/v1/members")).status_code == 200
    found = await records(services)
    facts = [{"key_id": key["id"], "scopes": "members:read"} for key in made]
    assert [(r.actor, r.action, r.subject, r.status, r.facts) for r in found if r.phase == "answered"] == [
        (admin_id, "createKey", {}, 201, facts[0]),
        (manager_id, "createKey", {}, 201, facts[1]),
        (manager_id, "createKey", {}, 403, {}),
        (manager_id, "revokeKey", {"key_id": made[0]["id"]}, 200, {}),
    ]
    assert [record.phase for record in found] == ["asked", "answered"] * 4
    assert list(find_faults(found)) == []
    assert_keeps_secrets(repr(found), "the audit log")


# --- refusing -----------------------------------------------------------------------------------------------------------


async def test_wrong_checksum_costs_no_query_and_other_refusals_cost_one(
    anonymous: Caller, service: Caller, services: Services, clock: ManualClock, recorder: Recorder
) -> None:
    """KEY-1."""
    live, revoked, expired = [(await service.post("/v1/keys", {**TILL, "expires_in_days": 1})).json() for _ in range(3)]
    await services.access.revoke_key(revoked["id"])
    good = live["key"]
    unread = [
        good[:-1] + ("a" if good[-1] != "a" else "b"),
        good[:30] + ("a" if good[30] != "a" else "b") + good[31:],
        good[:-1],
        "gk_live_",
    ]
    read = [
        KeyParts(live["id"], new_key().secret).text, KeyParts(revoked["id"], new_key().secret).text, new_key().text, revoked["key"],
    ]  # fmt: skip
    answers: list[dict[str, Any]] = []
    commands: list[list[tuple[Any, ...]]] = []

    async def refuse(text: str) -> None:
        clock.advance(seconds=2)  # No row is remembered any more.
        recorder.commands.clear()
        recorder.on = True
        answers.append({**problem(await anonymous.with_token(text).get("/v1/members"), 401, "unauthenticated"), "request_id": ""})
        recorder.on = False
        commands.append([(command["$name"], command.get("find"), list(command.get("filter", ()))) for command in recorder.commands])

    for text in [*unread, *read]:
        await refuse(text)
    clock.advance(days=1)
    await refuse(expired["key"])
    assert [answer == answers[0] for answer in answers] == [True] * 9
    assert commands == [[]] * 4 + [[("find", SERVICE_KEYS, ["_id"])]] * 5


# --- last use -----------------------------------------------------------------------------------------------------------


async def test_last_use_is_written_in_the_background_and_rarely(
    anonymous: Caller, service: Caller, services: Services, clock: ManualClock, recorder: Recorder
) -> None:
    clock.stop()
    made = (await service.post("/v1/keys", TILL)).json()
    till, access = anonymous.with_token(made["key"]), services.access
    problem(await anonymous.with_token(KeyParts(made["id"], new_key().secret).text).get("/v1/members"), 401, "unauthenticated")
    await access.write_last_uses()
    assert (await listed(service, made["id"]))["last_used_at"] is None, "a wrong secret is no use of a key"
    recorder.on = True
    for _ in range(3):
        assert (await till.get("/v1/members")).status_code == 200
    assert recorder.named("update") == [], "no request writes"
    first_use = clock.now_ms()
    await access.write_last_uses()
    for _ in range(10):
        clock.advance(seconds=LAST_USE_MS / 1000 / 11)
        assert (await till.get("/v1/members")).status_code == 200
        await access.write_last_uses()
    assert len([update for command in recorder.named("update") for update in command["updates"]]) == 1
    row = await services.database.raw[SERVICE_KEYS].find_one({"_id": made["id"]})
    assert row is not None
    assert row["last_used_at"] == first_use
    clock.advance(seconds=LAST_USE_MS / 1000)
    assert (await till.get("/v1/members")).status_code == 200
    await access.write_last_uses()
    row = await services.database.raw[SERVICE_KEYS].find_one({"_id": made["id"]})
    assert row is not None
    assert row["last_used_at"] == clock.now_ms()
    assert (await listed(service, made["id"]))["last_used_at"] is not None


async def test_a_last_use_that_cannot_be_written_is_written_later(
    anonymous: Caller, service: Caller, services: Services, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await service.post("/v1/keys", TILL)).json()
    assert (await anonymous.with_token(made["key"]).get("/v1/members")).status_code == 200

    async def lost(*_: Any, **__: Any) -> None:
        raise AutoReconnect("the server is gone")

    with monkeypatch.context() as patch:
        patch.setattr(services.access._keys.raw, "bulk_write", lost)
        with pytest.raises(AutoReconnect):
            await services.access.write_last_uses()
    assert (await anonymous.with_token(made["key"]).get("/v1/members")).status_code == 200
    await services.access.write_last_uses()
    assert (await listed(service, made["id"]))["last_used_at"] is not None


async def test_stopping_process_writes_pending_last_uses(
    app: App[Any, Any], service: Caller, services: Services, settings: Settings, clock: ManualClock
) -> None:
    log = Log()
    made = (await service.post("/v1/keys", TILL)).json()
    async with run_beside_requests(services, settings, make_logger(clock, "info", log)):
        assert (await service.with_token(made["key"]).get("/v1/members")).status_code == 200
    assert (await listed(service, made["id"]))["last_used_at"] is not None
    assert log.getvalue() == ""
