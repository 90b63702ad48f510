"""KEY-3: our own secrets stand nowhere but in the one answer that gives them out; and what looks for them finds a planted one.

Every test of the suite that calls the service looks at its log and its error answers in the same way (tests/conftest.py, tests/clients.py).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from guerdon.access.service_key_format import new_key
from guerdon.access.token_keys import TokenKeys
from guerdon.cli import token_keys as commands
from guerdon.cli.audit import _export
from guerdon.config import Settings
from guerdon.crypto.redaction import PATTERNS, redacted
from guerdon.crypto.sealing import MasterKeys
from guerdon.errors import Internal
from guerdon.logs import make_logger
from guerdon.sessions.refresh import first_token
from guerdon.verification.checkpoints import CheckpointKeys, write_checkpoint
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services
from tests.access.conftest import MEMBER, SESSION
from tests.api.test_audit_log import colleague
from tests.api.test_sessions import refresh, refreshed, registered
from tests.clients import Caller, Log, ManualClock, client_of
from tests.factories import Factory
from tests.secret_leaks import assert_keeps_secrets, leaks

ROOT = Path(__file__).parents[2]


def planted(services: Services) -> dict[str, list[str]]:
    return {
        "service key": [new_key().text, new_key().text[:50]],
        "refresh token": [first_token(SESSION).text],
        "access token": [services.sessions._tokens.issue(MEMBER, "member", SESSION)],
        "private key": [TokenKeys.generate(), MasterKeys.generate(), repr(json.loads(TokenKeys.generate()))],
    }


def test_planted_secret_is_found_in_every_output(services: Services, clock: ManualClock) -> None:
    for kind, secrets in planted(services).items():
        for secret in secrets:
            log = Log()
            make_logger(clock, "debug", log).error("planted", detail=f"the call failed with {secret}!", nested={"of": [secret]})
            assert log.lines, "an error is written at once"
            assert leaks(log.getvalue()) == [kind], (kind, "in a log line")
            assert leaks(json.dumps({"detail": f"/scopes: unknown scope {secret}"})) == [kind], (kind, "in an error answer")
            assert leaks(f"12,debit,{secret},7\r\n") == [kind], (kind, "in an export")
            with pytest.raises(AssertionError, match="holds a secret"):
                assert_keeps_secrets(secret, "this")


def test_redacted_text_still_identifies_the_secret(services: Services) -> None:
    key = new_key()
    text = f"first {key.text}, then {TokenKeys.generate()}."
    shown = redacted(text)
    assert shown.startswith(f"first gk_live_{key.id}_…, then {{")
    assert leaks(shown) == []
    for secrets in planted(services).values():
        for secret in secrets:
            assert leaks(redacted(f"a {secret} b")) == []
    assert redacted("mem_01a2065ed04c3c9883c3f3771c507b7d:PTS") == "mem_01a2065ed04c3c9883c3f3771c507b7d:PTS"


async def test_error_response_with_a_secret_fails_its_test(
    anonymous: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def careless(*_: Any) -> None:
        raise Internal(f"could not register with {new_key().text}")

    monkeypatch.setattr(services.members, "register", careless)
    with pytest.raises(AssertionError, match="an error answer holds a secret"):
        await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": "correct horse battery"})


async def test_the_main_flows_leave_no_secret_behind(
    services: Services, settings: Settings, clock: ManualClock, factory: Factory, tmp_path: Path
) -> None:
    log = Log()
    async with client_of(build_app(services, settings, make_logger(clock, "debug", log))) as client:
        anonymous = Caller(client)
        _, admin = await colleague(anonymous, services, "admin")
        key = (await admin.post("/v1/keys", {"name": "till", "scopes": ["*"]})).json()
        till = anonymous.with_token(key["key"])
        wallet = await factory.wallet(10)
        for amount in (3, 300):
            await till.post(f"/v1/wallets/{wallet}/debit", {"amount": amount}, reason="an order")
        first = await registered(anonymous)
        second = await refreshed(anonymous, first["refresh_token"])
        clock.advance(seconds=11)
        assert (await refresh(anonymous, first["refresh_token"])).status_code == 401, "its session is ended for reuse"
        secrets = [key["key"], first["access_token"], second["refresh_token"]]
        for secret in secrets:  # Where they do not belong.
            answers = [
                await till.get(f"/v1/wallets/{secret}"), await till.get("/v1/members", cursor=secret), await till.get(f"/{secret}"),
                await till.post("/v1/keys", {"name": "till", "scopes": [secret]}), await till.delete(f"/v1/keys/{secret}"),
                await till.post("/v1/auth/refresh", {"refresh_token": secret}), await anonymous.with_token(secret[:-1]).get("/v1/me"),
                await till.send("POST", "/v1/assets", json.dumps({"code": secret}).encode()),
                await till.send("POST", "/v1/assets", b"{" + secret.encode()), await till.post("/v1/holds", {}, key=secret * 4),
            ]  # fmt: skip
            assert min(answer.status_code for answer in answers) >= 400
        month = f"{(await till.get(f'/v1/wallets/{wallet}/entries')).json()['items'][0]['created_at']:.7}"
        exported = [
            await till.get(f"/v1/wallets/{wallet}/statements/{month}", format="csv"), await till.get(f"/v1/wallets/{wallet}/entries"),
            await admin.get("/v1/audit"), await admin.get("/v1/keys"), await till.get("/metrics"), await anonymous.get("/openapi.json"),
            await anonymous.get("/.well-known/jwks.json"),
        ]  # fmt: skip
        assert {answer.status_code for answer in exported} == {200}
        for answer in exported:
            assert_keeps_secrets(answer.text, answer.request.url.path)
        await log.written(exported[-1])
    assert_keeps_secrets(log.getvalue(), "the log")
    checkpoints = tmp_path / "checkpoints.jsonl"
    await write_checkpoint(services.database, clock, CheckpointKeys(TokenKeys.generate()), checkpoints)
    # A checkpoint is a signed statement in the form of a token, which opens nothing.
    assert set(leaks(checkpoints.read_text())) <= {"access token"}
    await factory.assert_books_balance()


def test_the_commands_for_signing_keys_show_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token_keys.json"
    path.write_text(TokenKeys.generate())
    monkeypatch.setenv("GUERDON_TOKEN_KEYS_FILE", str(path))
    commands.rotate()
    commands.list_signing()
    commands.revoke_signing(json.loads(path.read_text())["keys"][0]["kid"])
    said = capsys.readouterr()
    assert "signing_key_revoked" in said.err
    assert_keeps_secrets(said.out + said.err, "the terminal")


async def test_the_audit_log_at_the_terminal_shows_no_secret(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    text = await services.access.create_key("till", ["*"])
    await services.audit_log.append("asked", "terminal", "keys revoke", {"key_id": text}, request_id="cmd_2")
    await services.audit_log.append("asked", "terminal", "keys create", {"name": "till", "scopes": "*"}, request_id="cmd_1")
    await _export(services, 0)
    said = capsys.readouterr()
    assert said.out
    assert_keeps_secrets(said.out + said.err, "the terminal")


def test_operations_page_lists_every_secret_pattern() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [kind for kind, pattern in PATTERNS.items() if pattern not in page] == []
