"""The path as it was sent, the Host header, and HEAD: over sockets, because a client library would normalise them."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from falcon.asgi import App
from granian.server.embed import Server as EmbeddedServer

from guerdon.config import Settings
from guerdon.logs import make_logger
from guerdon.system.controller import HealthResource
from guerdon.wiring.routes import with_limits
from tests.clients import Caller, Log, ManualClock, problem
from tests.factories import Factory
from tests.serving import Route, routes_of

HOST = "Host: wallets.example\r\n"


@pytest.fixture
async def port(app: App[Any, Any], settings: Settings, clock: ManualClock, log: Log) -> AsyncIterator[int]:
    """The application behind the real HTTP server."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        free = int(probe.getsockname()[1])
    whole = with_limits(app, settings, clock, make_logger(clock, "info", log))
    server = EmbeddedServer(whole, address="127.0.0.1", port=free, interface="asginl", log_enabled=False)
    serving = asyncio.create_task(server.serve())
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", free)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.02)
    yield free
    server.stop()
    await serving


async def ask(port: int, line: str, headers: str = HOST) -> tuple[int, str]:
    """The status and the rest of the answer to a request as it stands here."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line}\r\n{headers}Connection: close\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    return int(answer.split(" ", 2)[1]), answer


async def test_path_must_be_sent_as_it_is_documented(port: int) -> None:
    """Siblings of `//metrics`: every other spelling of a fixed part that a gateway might let through."""
    assert (await ask(port, "GET /health/live HTTP/1.1"))[0] == 200
    for path in (
        "//health/live", "///health/live", "/health//live", "/%68ealth/live", "/health/%6cive", "/health%2Flive", "/health%2flive",
        "/./health/live", "/health/../health/live", "/health/live/", "/health/live;x", "/HEALTH/live", "//metrics", "/%6detrics",
        "/%6Detrics", "/metrics%00", "/metrics%20", "http://wallets.example//metrics", "http://wallets.example/%6detrics",
        "/v1//offers", "/%761/offers", "/v1/vouchers%2FABC/history", "/v1/%6de/offers",
    ):  # fmt: skip
        status, answer = await ask(port, f"GET {path} HTTP/1.1")
        assert (status, '"code":"not-found"' in answer) == (404, True), (path, answer)
    assert (await ask(port, "GET /v1/offers?a=%2F%2F//x HTTP/1.1"))[0] == 401, "a query has any characters"
    assert (await ask(port, "GET /v1/vouchers/%41BC%2DX HTTP/1.1"))[0] == 401, "a parameter may be percent-encoded"
    assert (await ask(port, "GET /v1/vouchers/ABC%2Fhistory HTTP/1.1"))[0] == 401, "a slash that belongs to a parameter is encoded"


async def test_every_route_refuses_an_encoded_letter_of_its_name(app: App[Any, Any], port: int, service: Caller) -> None:
    def encoded(route: Route) -> str:
        return re.sub(r"[a-z](?=[a-z]*(/|$))", lambda found: f"%{ord(found[0]):02x}", route.url, count=1)

    tried = 0
    for route in routes_of(app):
        if route.path != "/":
            line = f"{route.method} {encoded(route)} HTTP/1.1"
            status, answer = await ask(port, line, f"{HOST}Authorization: Bearer {service.token}\r\nContent-Length: 0\r\n")
            assert status == 404, (route.path, answer)
            tried += 1
    assert tried > 100


async def test_request_needs_exactly_one_host(port: int) -> None:
    for headers in ("", "Host:\r\n", HOST * 2, f"{HOST}Host: other.example\r\n", f"Host: other.example\r\n{HOST}"):
        status, answer = await ask(port, "GET /health/live HTTP/1.1", headers)
        assert (status, '"code":"bad-request"' in answer) == (400, True), (headers, answer)
    assert (await ask(port, "GET /health/live HTTP/1.0", ""))[0] == 200, "HTTP/1.0 has no such header"
    assert (await ask(port, "POST /v1/auth/login HTTP/1.1", f"Content-Length: 0\r\n{HOST * 2}"))[0] == 400


async def test_absolute_address_stands_for_a_missing_host(port: int) -> None:
    """RFC 9112, section 3.2, asks for 400. The server adds the authority of the address as `Host` before the application sees the request.

    No answer depends on it: nothing here reads the header. An empty or a second one is refused in this form too.
    """
    for name in ("wallets.example", "other.example"):
        status, answer = await ask(port, f"GET http://{name}/health/live HTTP/1.1", "")
        assert (status, name in answer) == (200, False), answer
    for headers in ("Host:\r\n", HOST * 2):
        status, answer = await ask(port, "GET http://wallets.example/health/live HTTP/1.1", headers)
        assert (status, '"code":"bad-request"' in answer) == (400, True), (headers, answer)


async def test_head_on_the_health_routes(port: int, anonymous: Caller) -> None:
    names = sorted(name for name in vars(HealthResource) if name.startswith("on_"))
    assert names == ["on_get_live", "on_get_ready", "on_head_live", "on_head_ready"]
    for path in ("/health/live", "/health/ready"):
        status, answer = await ask(port, f"HEAD {path} HTTP/1.1")
        assert (status, answer.partition("\r\n\r\n")[2]) == (200, ""), answer
        got, head = await anonymous.get(path), await anonymous.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))
    options: httpx.Response = await anonymous.client.options("/health/live")
    assert "HEAD" in options.headers["allow"]


async def test_literal_path_does_not_depend_on_the_caller(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    encoded = wallet.replace(":", "%3A")
    assert (await service.post(f"/v1/wallets/{encoded}/debit", {"amount": 1})).status_code == 201
    problem(await service.post(f"/v1/wallets/{encoded}/%64ebit", {"amount": 1}), 404, "not-found")
    problem(await service.post(f"/v1//wallets/{wallet}/debit", {"amount": 1}), 404, "not-found")
    assert await factory.balance(wallet) == 9
    await factory.assert_books_balance()
