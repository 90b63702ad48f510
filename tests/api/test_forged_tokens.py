"""JWT-1 and JWKS-3: every forged token gets the same 401 and nothing is fetched for it; a key that nobody knows costs next to nothing."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pymongo import monitoring

from guerdon.access import tokens as identity_tokens
from guerdon.access.key_file import KeyFile
from guerdon.access.token_keys import TokenKeys
from guerdon.config import Settings
from guerdon.errors import Unauthenticated
from guerdon.logs import make_logger
from guerdon.wiring.services import Services
from tests.access.forged_tokens import Forger, forged_rows
from tests.api.test_sessions import registered
from tests.clients import Caller, Log, ManualClock, problem
from tests.invariants.test_mongodb_commands import Recorder

ROWS_MIN = 40
STRANGERS = 1000
_recorder = Recorder()
monitoring.register(_recorder)


@pytest.fixture
def recording() -> Iterator[None]:
    _recorder.on = True
    yield
    _recorder.on = False


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """So many refusals from one address would be held up otherwise."""
    return settings.model_copy(update={"rate_invalid": "10000/60"})


class Canary:
    """An address that a token may name: it would hand out the forger's keys, and counts who comes."""

    def __init__(self) -> None:
        self.url = ""
        self.visits = 0
        self.keys: list[dict[str, Any]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"keys": self.keys}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def canary() -> AsyncIterator[Canary]:
    canary = Canary()
    server = await asyncio.start_server(canary.answer, "127.0.0.1", 0)
    canary.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield canary


async def sent(anonymous: Caller, token: str) -> httpx.Response:
    """Ask who one is, with the very bytes of a token, which a client would not let through."""
    return await anonymous.client.get("/v1/me", headers=[(b"authorization", b"Bearer " + token.encode())])


async def test_every_forged_token_gets_the_same_refusal_without_a_fetch(
    anonymous: Caller, canary: Canary, clock: ManualClock, token_keys: str, log: Log
) -> None:
    clock.stop()  # Some are wrong by one second.
    ada = await registered(anonymous)
    forger = Forger(token_keys, now=clock.now_ms() // 1000, session=ada["session_id"], canary=canary.url)
    canary.keys = [{**forger.other.as_dict(private=False), "kid": forger.other.thumbprint()}]
    rows = forged_rows(forger)
    assert len(rows) >= ROWS_MIN
    assert (await sent(anonymous, forger.sign(forger.header(), forger.claims()))).status_code == 200, "without a fault it is let in"
    details: set[str] = set()
    for name, token in rows.items():
        answer = await sent(anonymous, token)
        assert answer.status_code == 401, name
        details.add(problem(answer, 401, "unauthenticated")["detail"])
        assert answer.headers["www-authenticate"] == 'Bearer realm="guerdon"'
    assert details - {"the access token is not valid or has expired"} == {
        "send `Authorization: Bearer` with a service key or an access token"
    }, "the second one for the empty token"
    last = await log.written(answer)
    assert [line["status"] for line in log.lines if line["event"] == "request" and line["route"] == "/v1/me"] == [200] + [
        401
    ] * len(rows)
    assert last["actor"] == "anonymous"
    events = [line for line in log.lines if line["event"] == "security_event" and line["operation"] == "getMe"]
    told = {(line["name"], line["actor"], line["result"], line["status"]) for line in events}
    assert told == {("credentials_invalid", "anonymous", "refused", 401)}
    assert len({line["request_id"] for line in events}) == len(events) == len(rows), "one line each"
    assert canary.visits == 0
    async with httpx.AsyncClient() as visitor:
        assert (await visitor.get(f"{canary.url}/jwks.json")).json() == {"keys": canary.keys}
    assert canary.visits == 1, "the canary counts"


@pytest.mark.usefixtures("recording")
async def test_unknown_token_keys_cost_no_query_no_signature_and_no_file_read(
    services: Services, clock: ManualClock, token_keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    forger = Forger(token_keys, now=clock.now_ms() // 1000)
    # The file knows a key that this process has not seen yet: whoever read it for an unknown kid would believe its tokens.
    later = Forger(TokenKeys.generate(), now=forger.now)
    path = tmp_path / "token_keys.json"
    path.write_text(json.dumps({"keys": [forger.jwk, later.jwk]}))
    strangers = [forger.sign(forger.header(kid=chance.randbytes(32).hex()), forger.claims()) for _ in range(STRANGERS - 1)]
    strangers.append(later.sign(later.header(), later.claims()))
    checks: list[str] = []
    check = identity_tokens.deserialize_compact
    monkeypatch.setattr(
        identity_tokens, "deserialize_compact", lambda token, *a, **kw: checks.append(token) or check(token, *a, **kw)
    )

    async def refuse(tokens: list[str]) -> None:
        for token in tokens:
            with pytest.raises(Unauthenticated):
                await services.access.authenticate(f"Bearer {token}")

    _recorder.commands.clear()
    await refuse(strangers)
    assert (checks, _recorder.commands) == ([], [])
    await refuse([forger.sign(forger.header(), forger.claims(), forger.other) for _ in range(STRANGERS)])
    assert len(checks) == STRANGERS, "a known kid is what costs a signature check"
    await KeyFile(path, services.token_keys, clock, make_logger(clock, "info", Log())).check()
    with pytest.raises(Unauthenticated):
        await services.access.authenticate(f"Bearer {strangers[0]}")
    assert (await services.access.authenticate(f"Bearer {strangers[-1]}")).id == later.member


def test_forged_tokens_are_distinct() -> None:
    rows = forged_rows(Forger(TokenKeys.generate()))
    assert len(set(rows.values())) == len(rows)
