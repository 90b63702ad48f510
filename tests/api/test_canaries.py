"""LOG-1 inside a process, at DEBUG: no secret and nothing personal in logs, metrics, the audit log or in what an error tells of our insides."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from falcon.asgi import App
from pymongo.errors import OperationFailure

from guerdon.access.service import Access
from guerdon.audit_log.models import view_record
from guerdon.audit_log.service import AuditLog
from guerdon.config import Settings
from guerdon.database import Collection
from guerdon.ledger.service import Ledger
from guerdon.logs import adopt_libraries, make_logger
from guerdon.members.passwords import PasswordHasher
from guerdon.members.service import Members
from guerdon.sessions.service import Sessions
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services
from tests.canaries import MARK, Flows, canary, found_in
from tests.clients import Log, ManualClock

LAYERS: list[tuple[Any, str]] = [
    (Access, "find_recent"), (Access, "authenticate"), (Sessions, "current_actor"), (Sessions, "log_in"), (Sessions, "refresh"),
    (Members, "create_member"), (Members, "get_member"), (PasswordHasher, "verify"), (AuditLog, "append"), (Ledger, "submit"), (Collection, "find_one"),
    (Collection, "insert"),
]  # fmt: skip
ADMIN_PASSWORD = canary("admin-password")


@pytest.fixture
def libraries(log: Log, clock: ManualClock) -> Iterator[None]:
    """Everything that libraries log goes where ours goes, as in a process that serves."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(capture=False)


@pytest.fixture
async def flows(services: Services, settings: Settings, log: Log, clock: ManualClock, libraries: None) -> Any:
    logger = make_logger(clock, "debug", log)
    adopt_libraries(logger)
    app: App[Any, Any] = build_app(services, settings, logger)
    key = await services.access.create_key("canaries", ["*"])
    await services.members.create_operator(f"{MARK}admin@example.com", ADMIN_PASSWORD, "admin")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield Flows(client, key)
    asyncio.get_running_loop().set_exception_handler(None)


async def written(flows: Flows, log: Log, services: Services, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Whatever has left the process: log, metrics, both outputs, the audit log, and the 5xx answers."""
    metrics = await flows.by_service("GET", "/metrics")
    await log.written(metrics)
    records = [str(view_record(record)) async for record in services.audit_log.read()]
    faults = [answer.text for answer in flows.answers if answer.status_code >= 500]
    texts = ["\n".join(records), log.getvalue(), metrics.text, *capfd.readouterr(), *faults]
    return found_in("\n".join(texts), flows.secrets)


async def test_secrets_and_personal_data_of_callers_are_written_nowhere(
    flows: Flows, log: Log, services: Services, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    await flows.run(ADMIN_PASSWORD)
    statuses = {answer.status_code for answer in flows.answers}
    assert {200, 201, 400, 401, 404, 409, 422} <= statuses
    assert max(statuses) < 500
    for secret in (settings.token_keys, settings.master_keys):
        assert secret is not None
        flows.secrets.add(secret.get_secret_value().rpartition('":"')[2][:43])
    assert await written(flows, log, services, capfd) == []
    assert len([line for line in log.lines if line["event"] == "request"]) > 35
    assert {line["event"] for line in log.lines} >= {"request", "security_event"}


@pytest.mark.parametrize("error", [RuntimeError, OperationFailure], ids=lambda error: error.__name__)
async def test_exception_messages_are_written_nowhere(
    flows: Flows,
    log: Log,
    services: Services,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    error: type[Exception],
) -> None:
    """At every layer in turn; the message holds the URL of the database with its password, as a driver's might."""
    told = f"mongodb://guerdon:{canary('database')}@db.internal/ {{email: '{flows.person['email']}'}}"

    def fail(*_given: object, **_named: object) -> Any:
        raise error(told)

    member = {"authorization": f"Bearer {await flows.be_somebody()}"}
    wallet = await flows.move_value()
    admin = {"email": f"{MARK}admin@example.com", "password": ADMIN_PASSWORD}
    begun = (await flows.send("POST", "/v1/auth/login", admin)).json()
    by_admin = {"authorization": f"Bearer {begun['access_token']}"}
    failed: list[str] = []
    for where, name in LAYERS:
        first = len(flows.answers)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fail)
            await flows.send("POST", "/v1/auth/login", flows.person)
            await flows.send("POST", "/v1/auth/refresh", {"refresh_token": begun["refresh_token"]})
            await flows.send("GET", "/v1/me", **member)
            await flows.send("PUT", f"/v1/members/{wallet.partition(':')[0]}/role", {"role": "member"}, **by_admin)
            await flows.by_service("POST", "/v1/members", {"external_id": canary("external")})
            await flows.by_service("POST", f"/v1/wallets/{wallet}/credit", {"amount": 1})
        failed += [name] if any(answer.status_code >= 500 for answer in flows.answers[first:]) else []
    assert failed == [name for _, name in LAYERS]
    assert await written(flows, log, services, capfd) == []
    assert any(line["event"] in ("unhandled", "operations_error") for line in log.lines)
