"""What every answer carries, what other origins may read, what is switched off, and what arrives too slowly or not at all."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from falcon.asgi import App

from guerdon.config import Settings, load
from guerdon.errors import StartupRefused
from guerdon.logs import make_logger
from guerdon.middlewares.kept_connections import IDLE_SECONDS
from guerdon.middlewares.request_body import BUFFERED_BYTES_MAX, BUFFERED_BYTES_TOTAL_MAX, RequestBody
from guerdon.wiring.routes import build_app, with_limits
from guerdon.wiring.services import Services
from tests.clients import Caller, Log, ManualClock, problem
from tests.factories import Factory

SHOP, STRANGER = "https://shop.example", "https://evil.example"
FIXED = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "referrer-policy": "no-referrer",
    "server": "guerdon",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
BODY = b'{"amount":1}'


@asynccontextmanager
async def served(services: Services, settings: Settings, clock: ManualClock, **changes: Any) -> AsyncIterator[Caller]:
    """The application with other settings, as the network reaches it."""
    changed = settings.model_copy(update=changes)
    log = make_logger(clock, "info", Log())
    app = with_limits(build_app(services, changed, log), changed, clock, log)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        yield Caller(client)


async def test_every_kind_of_response_carries_the_security_headers(anonymous: Caller, service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1)
    answers = [
        await anonymous.get("/health/live"),
        await anonymous.get("/v1/me"),
        await anonymous.get("/nothing"),
        await anonymous.send("TRACE", "/v1/members", b""),
        await anonymous.send("FROBNICATE", "/v1/members", b""),
        await anonymous.client.options("/v1/members"),
        await service.get(f"/v1/wallets/{wallet}"),
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}),
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}),
        await service.send("POST", "/v1/transfers", b"{"),
        await service.get("/metrics"),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 405, 405, 200, 200, 201, 409, 400, 200]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in FIXED} == FIXED
        assert "strict-transport-security" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control") or name in ("x-powered-by", "via")]
    await factory.assert_books_balance()


async def test_pages_have_their_own_policy_and_cannot_be_framed(anonymous: Caller) -> None:
    for path in ("/docs", "/problems", "/problems/not-found"):
        answer = await anonymous.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'self' 'unsafe" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
    kept = await anonymous.get("/docs/start.js")
    assert kept.headers["cache-control"] == "public, max-age=86400"


async def test_responses_behind_tls_carry_strict_transport_security(
    services: Services, settings: Settings, clock: ManualClock
) -> None:
    async with served(services, settings, clock, behind_tls=True) as caller:
        for path in ("/health/live", "/nothing", "/problems"):
            assert (await caller.get(path)).headers["strict-transport-security"] == "max-age=31536000"


# --- other origins --------------------------------------------------------------------------------------------------


async def test_a_listed_origin_may_read_answers_and_errors(services: Services, settings: Settings, clock: ManualClock) -> None:
    async with served(services, settings, clock, cors_origins=f"{SHOP},http://localhost:3000") as caller:
        for path, status in (("/health/live", 200), ("/v1/me", 401), ("/nothing", 404)):
            answer = await caller.client.get(path, headers={"origin": SHOP})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == SHOP
            exposed = set(answer.headers["access-control-expose-headers"].split(", "))
            assert exposed >= {"RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "Idempotency-Replayed", "ETag"}
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-credentials" not in answer.headers


async def test_preflight_names_the_methods_and_headers_of_the_route(
    services: Services, settings: Settings, clock: ManualClock
) -> None:
    asked = {"origin": SHOP, "access-control-request-method": "POST", "access-control-request-headers": "x-anything"}
    async with served(services, settings, clock, cors_origins=SHOP) as caller:
        answer = await caller.client.options("/v1/transfers", headers=asked)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert answer.headers["access-control-allow-methods"] == "POST"
        allowed = {name.lower() for name in answer.headers["access-control-allow-headers"].split(", ")}
        assert allowed >= {"authorization", "content-type", "idempotency-key", "if-match"}
        assert "x-anything" not in allowed
        assert answer.headers["access-control-max-age"] == "600"
        private = await caller.client.options("/v1/transfers", headers={**asked, "access-control-request-private-network": "true"})
        assert "access-control-allow-private-network" not in private.headers
        unknown = await caller.client.options("/v1/nothing", headers=asked)
        problem(unknown, 404, "not-found")
        assert "access-control-allow-methods" not in unknown.headers


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", f"{SHOP}.evil.example", "https://SHOP.example", "http://shop.example", "*", ""]
)
async def test_unlisted_origin_receives_no_cors_headers(
    services: Services, settings: Settings, clock: ManualClock, origin: str
) -> None:
    asked = {"origin": origin, "access-control-request-method": "GET"}
    async with served(services, settings, clock, cors_origins=SHOP) as caller:
        for answer in (
            await caller.client.get("/health/live", headers={"origin": origin}),
            await caller.client.options("/health/live", headers=asked),
        ):
            assert answer.status_code == 200
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.headers["vary"] == "Origin"


async def test_no_origin_receives_cors_headers_without_the_setting(anonymous: Caller) -> None:
    answer = await anonymous.client.get("/health/live", headers={"origin": SHOP})
    assert not [name for name in answer.headers if name.startswith("access-control") or name == "vary"]


@pytest.mark.parametrize(
    "text",
    ["*", "null", "https://*.shop.example", "https://shop.example/", "shop.example", "ftp://shop.example", "https://a,https://b/c"],
)
def test_invalid_cors_origin_is_refused(text: str) -> None:
    with pytest.raises(StartupRefused, match="GUERDON_CORS_ORIGINS"):
        load({"GUERDON_CORS_ORIGINS": text})
    assert load({"GUERDON_CORS_ORIGINS": f" {SHOP} , http://localhost:3000"}).origins == [SHOP, "http://localhost:3000"]


# --- what is switched off -------------------------------------------------------------------------------------------


async def test_the_documentation_can_be_switched_off(services: Services, settings: Settings, clock: ManualClock) -> None:
    async with served(services, settings, clock, docs="off") as caller:
        for path in ("/docs", "/docs/", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json"):
            problem(await caller.get(path), 404, "not-found")
        assert (await caller.get("/problems/not-found")).status_code == 200


async def test_metrics_are_open_or_need_a_key(services: Services, settings: Settings, clock: ManualClock) -> None:
    reader = await services.access.create_key("prometheus", ["metrics:read"])
    other = await services.access.create_key("other", ["wallets:read"])
    async with served(services, settings, clock, metrics="key") as caller:
        problem(await caller.get("/metrics"), 401, "unauthenticated")
        problem(await caller.with_token(other).get("/metrics"), 403, "forbidden")
        assert "guerdon_ledger_queued" in (await caller.with_token(reader).get("/metrics")).text
    async with served(services, settings, clock, metrics="open") as caller:
        assert "guerdon_ledger_queued" in (await caller.get("/metrics")).text


def test_profile_sets_the_defaults_for_docs_and_metrics() -> None:
    trying, production = load({}), load({"GUERDON_PROFILE": "production"})
    assert (trying.serves_docs, trying.opens_metrics) == (True, True)
    assert (production.serves_docs, production.opens_metrics) == (False, False)
    told = load({"GUERDON_PROFILE": "production", "GUERDON_DOCS": "on", "GUERDON_METRICS": "open"})
    assert (told.serves_docs, told.opens_metrics) == (True, True)


# --- arriving -------------------------------------------------------------------------------------------------------


class Sender:
    """An ASGI server with one request: its body comes in these pieces, `None` for a pause without end."""

    def __init__(self, pieces: list[bytes | None], *, ends: str = "http.request") -> None:
        self._pieces = pieces
        self._ends = ends
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def receive(self) -> dict[str, Any]:
        if not self._pieces:
            return {"type": self._ends, "body": b"", "more_body": False} if self._ends == "http.request" else {"type": self._ends}
        piece = self._pieces.pop(0)
        if piece is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.headers |= dict(message.get("headers", []))
        self.body += message.get("body", b"")


def scope_of(path: str, token: str, *, version: str = "1.1", method: str = "POST", **headers: str) -> dict[str, Any]:
    given = {"host": "test", "authorization": f"Bearer {token}", "content-type": "application/json", **headers}
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": version, "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("test", 80),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip


async def say(app: Any, sender: Sender, scope: dict[str, Any]) -> Sender:
    await asyncio.wait_for(app(scope, sender.receive, sender.send), 60)
    return sender


Opens = Callable[[int], RequestBody]


@pytest.fixture
def opens(app: App[Any, Any], settings: Settings, clock: ManualClock, log: Log) -> Opens:
    """The application as the network reaches it, with so many seconds for a body."""

    def opened(seconds: int) -> RequestBody:
        limited = settings.model_copy(update={"body_timeout_seconds": seconds})
        door = with_limits(app, limited, clock, make_logger(clock, "info", log))
        assert isinstance(door, RequestBody)
        return door

    return opened


@pytest.fixture
def door(opens: Opens) -> RequestBody:
    return opens(1)


@pytest.fixture
def patient_door(opens: Opens) -> RequestBody:
    return opens(5)


@pytest.mark.parametrize("pieces", [[BODY], [b"", BODY], [BODY[:3], b"", BODY[3:]], [bytes([each]) for each in BODY]])
async def test_body_in_pieces_is_read_like_a_whole_one(
    door: RequestBody, service: Caller, factory: Factory, pieces: list[bytes | None]
) -> None:
    wallet = await factory.wallet(5)
    scope = scope_of(f"/v1/wallets/{wallet}/debit", str(service.token), idempotency_key="pieces")
    assert (await say(door, Sender(pieces), scope)).status == 201
    assert await factory.balance(wallet) == 4
    await factory.assert_books_balance()


@pytest.mark.parametrize("pieces", [[None], [b"", None], [BODY, None], [b" " * BUFFERED_BYTES_MAX, None]])
async def test_late_body_is_refused_and_has_no_effect(
    door: RequestBody, service: Caller, factory: Factory, pieces: list[bytes | None]
) -> None:
    wallet = await factory.wallet(5)
    scope = scope_of(f"/v1/wallets/{wallet}/debit", str(service.token), idempotency_key="late")
    answer = await say(door, Sender(pieces), scope)
    assert (answer.status, b'"code":"request-timeout"' in answer.body) == (408, True)
    assert await factory.balance(wallet) == 5


@pytest.mark.parametrize("pieces", [[], [BODY], [BODY, b" " * BUFFERED_BYTES_MAX]])
async def test_truncated_body_is_refused_and_has_no_effect(
    door: RequestBody, service: Caller, factory: Factory, pieces: list[bytes | None]
) -> None:
    """All of the document may be there; only the sender knows whether it is all of the body."""
    wallet = await factory.wallet(5)
    scope = scope_of(f"/v1/wallets/{wallet}/debit", str(service.token), idempotency_key="broken")
    answer = await say(door, Sender(pieces, ends="http.disconnect"), scope)
    assert (answer.status, b'"code":"bad-request"' in answer.body) == (400, True)
    assert await factory.balance(wallet) == 5


async def test_slow_bodies_do_not_block_a_wallet(patient_door: RequestBody, service: Caller, factory: Factory) -> None:
    """Two hundred strangers who never finish, more than a wallet's share of a worker: its owner does not wait for them."""
    door = patient_door
    wallet = await factory.wallet(5)
    path = f"/v1/wallets/{wallet}/debit"
    slow = [
        asyncio.ensure_future(say(door, Sender(list(pieces)), scope_of(path, "nobody")))
        for pieces in ([None], [b"{", None]) * 100
    ]  # fmt: skip
    large = [
        asyncio.ensure_future(
            say(door, Sender([b" " * BUFFERED_BYTES_MAX, None]), scope_of(path, str(service.token), idempotency_key="x"))
        )
        for _ in range(150)
    ]
    await asyncio.sleep(0.1)
    assert (await say(door, Sender([BODY]), scope_of(path, str(service.token), idempotency_key="mine"))).status == 201
    assert not any(task.done() for task in (*slow, *large)), "the owner has waited for somebody"
    assert {answer.status for answer in await asyncio.gather(*slow, *large)} == {408}
    assert await factory.balance(wallet) == 4
    await factory.assert_books_balance()


async def test_memory_for_unfinished_bodies_is_bounded(door: RequestBody) -> None:
    piece = b" " * (BUFFERED_BYTES_MAX - 1)
    count = BUFFERED_BYTES_TOTAL_MAX // len(piece) + 100
    scopes = [scope_of("/v1/auth/login", "nobody") for _ in range(count)]
    answers = await asyncio.gather(*(say(door, Sender([piece, None]), scope) for scope in scopes))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {408, 503}
    assert statuses.count(408) <= count - 99
    assert (await say(door, Sender([b"{}"]), scope_of("/v1/auth/login", "nobody"))).status == 422


@pytest.mark.parametrize("encoding", ["gzip, chunked", "chunked, chunked", "identity", "xchunked"])
async def test_ambiguous_transfer_encoding_is_refused(door: RequestBody, encoding: str) -> None:
    answer = await say(door, Sender([b"{}"]), scope_of("/v1/auth/login", "nobody", transfer_encoding=encoding))
    assert (answer.status, b'"code":"bad-request"' in answer.body) == (400, True)


@pytest.mark.parametrize(
    ("version", "method"), [("1", "GET"), ("1.0", "GET"), ("1.1", "WEBSOCKET"), ("1.1", "CONNECT"), ("1.1", "get")]
)
async def test_unusual_http_versions_and_methods_are_handled(door: RequestBody, version: str, method: str) -> None:
    answer = await say(door, Sender([]), scope_of("/health/live", "nobody", version=version, method=method))
    assert answer.status == (200 if method == "GET" else 405)


async def test_number_of_kept_connections_is_bounded(app: App[Any, Any], clock: ManualClock, log: Log) -> None:
    """Whoever is known stays, and a new one is served and closed while there is no room."""
    door = RequestBody(app, clock, make_logger(clock, "info", log), body_seconds=1, kept_max=2)

    async def stays(port: int) -> bool:
        answer = await say(door, Sender([]), {**scope_of("/health/live", "nobody", method="GET"), "client": ("127.0.0.1", port)})
        assert answer.status == 200
        return answer.headers.get(b"connection") != b"close"

    assert [await stays(port) for port in (1, 2, 3, 1, 3, 2)] == [True, True, False, True, False, True]
    clock.advance(seconds=IDLE_SECONDS)
    assert [await stays(port) for port in (2, 4)] == [True, False], "the first one may still be there"
    clock.advance(seconds=IDLE_SECONDS)
    assert [await stays(port) for port in (5, 6, 2)] == [True, False, True]
    clock.advance(seconds=2 * IDLE_SECONDS)
    assert [await stays(port) for port in (7, 8, 9)] == [True, True, False], "the others have been closed"


async def test_framework_error_is_logged_by_its_type_only(clock: ManualClock, log: Log) -> None:
    """The server would log the message, and answers 500 by itself when nothing was sent."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("mongodb://root:hunter2@db.internal")

    door = RequestBody(broken, clock, make_logger(clock, "info", log), body_seconds=1)
    assert (await say(door, Sender([]), scope_of("/health/live", "nobody"))).status == 0
    [line] = log.lines
    assert (line["event"], "RuntimeError" in line["exception"], "hunter2" in str(line)) == ("unhandled", True, False)


async def test_refused_request_is_freed_after_its_response(door: RequestBody, service: Caller, factory: Factory) -> None:
    """What an error keeps alive keeps the connection open: no cycle may be left for the collector, which runs seldom."""

    class Server(Sender):
        pass

    known, wallet = str(service.token), await factory.wallet(5)
    offer = await factory.offer(price={"asset": "PTS", "amount": 6})
    kept: list[weakref.ref[Server]] = []
    gc.collect()
    gc.disable()
    try:
        for pieces, path, token in (
            ([None], "/v1/auth/login", "garbage"),
            ([b"{"], "/v1/auth/login", "garbage"),
            ([b"{}"], "/v1/me", "garbage"),
            ([b"{}"], "/v1/transfers", "garbage"),
            ([b'{"amount":6}'], f"/v1/wallets/{wallet}/debit", known),
            ([f'{{"member_id":"{wallet.partition(":")[0]}"}}'.encode()], f"/v1/offers/{offer}/redeem", known),
        ):
            sender = Server(list(pieces))
            await say(door, sender, scope_of(path, token, idempotency_key="refused"))
            assert sender.status >= 400
            kept.append(weakref.ref(sender))
            del sender
        await asyncio.sleep(0)
        assert [ref() for ref in kept] == [None] * len(kept)
    finally:
        gc.enable()
    await factory.assert_books_balance()
