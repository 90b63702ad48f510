"""Hostile bodies on every route that takes one: refused with a definite code before anything is written."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from guerdon.database import Database
from tests.clients import Caller, problem
from tests.factories import Factory
from tests.matrix.bodies import bodied, samples_of
from tests.matrix.conftest import Scene, rows
from tests.serving import Route

MALFORMED, INVALID = (400, "malformed-json"), (422, "validation")
LIMITS = {"/v1/bulk": 2 * 1024 * 1024, "/v1/events/bulk": 2 * 1024 * 1024}
LIMIT = 256 * 1024
Bodied = list[tuple[Route, str]]


@pytest_asyncio.fixture
async def good(scene: Scene, database: Database) -> AsyncIterator[Bodied]:
    """Every route that takes a body, with a good one; whatever a test sends must leave no trace."""
    before = await rows(database)
    found = [(route, json.dumps(samples_of(route.operation.body)[0].body)) for route in bodied(scene.routes)]
    assert len(found) >= 20
    yield found
    assert await rows(database) == before


async def test_a_repeated_key_is_refused_at_any_depth(scene: Scene, good: Bodied) -> None:
    for route, body in good:
        key, _, value = body[1:].partition(":")
        for raw in (
            f"{{{key}:{value[:-1]}, {key}:{value}",
            body[:-1] + ', "metadata": {"a": "1", "a": "2"}}',
            body[:-1] + ', "x": [{"b":1,"\\u0062":2}]}',
        ):
            problem(await scene.send(route, raw.encode()), *MALFORMED)


async def test_nesting_is_bounded(scene: Scene, good: Bodied) -> None:
    for route, body in good:
        for depth, code in ((31, INVALID), (32, MALFORMED), (100_000, MALFORMED)):
            for opening, closing in (("[", "]"), ('{"a":', "}")):
                raw = body[:-1] + f', "x": {opening * depth}1{closing * depth}}}'
                too_large = len(raw) > LIMITS.get(route.path, LIMIT)
                problem(await scene.send(route, raw.encode()), *((413, "body-too-large") if too_large else code))
        problem(await scene.send(route, b"[" * 100_000), *MALFORMED)


async def test_json_that_is_not_an_object_is_invalid(scene: Scene, good: Bodied) -> None:
    for route, _ in good:
        for raw in (b"null", b"1", b'"amount"', b"[]", b'[{"amount":1}]', b"true"):
            problem(await scene.send(route, raw), *INVALID)


async def test_oversized_object_or_list_is_refused(scene: Scene, good: Bodied) -> None:
    for route, body in good:
        keys = body[:-1] + "".join(f', "k{n}": 1' for n in range(200)) + "}"
        problem(await scene.send(route, keys.encode()), *MALFORMED)
        items = body[:-1] + f', "x": [{"1," * 1_000_000}1]}}'
        assert (await scene.send(route, items.encode())).status_code in (413, 422), route.path


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(scene: Scene, good: Bodied) -> None:
    for route, body in good:
        limit = LIMITS.get(route.path, LIMIT)
        raw = body.encode().ljust(limit + 1)
        refused = problem(await scene.send(route, raw), 413, "body-too-large")
        assert refused["limit_bytes"] == limit
        answer = await in_pieces(scene.caller_of(route), route, raw)
        assert "content-length" not in answer.request.headers
        problem(answer, 413, "body-too-large")


async def in_pieces(caller: Caller, route: Route, raw: bytes) -> httpx.Response:
    """Send a body without saying how long it is."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), 65_536):
            yield raw[start : start + 65_536]

    headers = {"content-type": "application/json", **caller._headers("pieces")}
    return await caller.client.request(route.method, route.url, content=pieces(), headers=headers)


async def test_another_media_type_is_refused(scene: Scene, good: Bodied) -> None:
    for route, body in good:
        for kind in ("", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/jsonx", "*/*"):
            problem(await scene.send(route, body.encode(), content_type=kind), 415, "unsupported-media-type")


async def test_a_missing_media_type_and_a_compressed_body_are_refused(scene: Scene, good: Bodied) -> None:
    for route, body in good:
        caller = scene.caller_of(route)
        bare = await caller.client.request(route.method, route.url, content=body.encode(), headers=caller._headers("k"))
        problem(bare, 415, "unsupported-media-type")
        for coding in ("gzip", "br", "deflate"):
            answer = await caller.send(route.method, route.url, body.encode(), content_encoding=coding)
            problem(answer, 415, "unsupported-media-type")


# --- on one route for all: every body is read by the same function ------------------------------------------------------

NOT_JSON = [
    b"", b" ", b"{", b"}", b"nonsense", b'{"amount":1}{"amount":1}', b'{"amount":1},', b"{'amount':1}", b'{"amount":1,}', b"\xff\xfe",
    b'{"amount":1,"reason":"\xff"}', b'{"amount":1,"reason":"\xed\xa0\x80"}', b'{"amount":1,"reason":"\xc0\xaf"}', b"\xef\xbb\xbf{}",
    '{"amount":1}'.encode("utf-16"), b'{"amount":1,"reason":"\\ud800"}', b'{"amount":1,"reason":"\\udc00\\ud800"}',
    b'{"amount":1,"reason":"\\x41"}', b'{"amount":1,"reason":"a\nb"}', b'{"amount":1,"reason":"a\x00b"}', b"/**/{}", b"\x00",
]  # fmt: skip


async def test_body_that_is_not_json_is_malformed(service: Caller, database: Database, factory: Factory) -> None:
    path = f"/v1/wallets/{await factory.wallet(100)}/credit"
    before = await rows(database)
    for raw in NOT_JSON:
        problem(await service.send("POST", path, raw), *MALFORMED)
    assert await rows(database) == before


async def test_brackets_inside_text_are_not_nesting(service: Caller, factory: Factory) -> None:
    body = json.dumps({"amount": 1, "reason": "[{" * 90 + '\\"'})
    answer = await service.send("POST", f"/v1/wallets/{await factory.wallet(100)}/credit", body.encode())
    assert (answer.status_code, answer.json()["reason"]) == (201, "[{" * 90 + '\\"')
    await factory.assert_books_balance()


async def test_a_body_of_exactly_the_limit_is_read(service: Caller, factory: Factory) -> None:
    answer = await service.send("POST", f"/v1/wallets/{await factory.wallet(100)}/credit", b'{"amount":1}'.ljust(LIMIT))
    assert answer.status_code == 201
    await factory.assert_books_balance()


async def test_a_charset_parameter_and_capitals_are_allowed(service: Caller, factory: Factory) -> None:
    path = f"/v1/wallets/{await factory.wallet(100)}/credit"
    for content_type in ("application/json; charset=utf-8", "Application/JSON"):
        assert (await service.send("POST", path, b'{"amount":1}', content_type=content_type)).status_code == 201
    await factory.assert_books_balance()


async def test_invalid_content_length_is_refused(service: Caller, database: Database, factory: Factory) -> None:
    path = f"/v1/wallets/{await factory.wallet(100)}/credit"
    before = await rows(database)
    for length in ("-1", "x", "1.5", "9" * 30):
        answer = await service.send("POST", path, b'{"amount":1}', content_length=length)
        problem(answer, *((413, "body-too-large") if length == "9" * 30 else (400, "bad-request")))
    assert await rows(database) == before


async def test_a_route_without_a_body_refuses_what_it_would_ignore(scene: Scene, database: Database) -> None:
    """A caller who sends a body expects it to matter. Nothing, an empty body and `{}` pass this check."""
    routes = [route for route in scene.routes if route.operation.refuses_body]
    assert len(routes) >= 15
    assert all(route.method in ("POST", "DELETE", "PUT") and route.operation.body is None for route in routes)
    assert not [route for route in scene.routes if route.operation.refuses_body and route.operation.takes]
    before = await rows(database)
    for route in routes:
        refused = problem(await scene.send(route, b'{"reason":"why","a":1}'), *INVALID)
        assert [fault["pointer"] for fault in refused["errors"]] == ["/reason", "/a"], route.path
        for raw, code in ((b"[]", INVALID), (b"null", INVALID), (b"{", MALFORMED), (b'{"a":1,"a":1}', MALFORMED)):
            problem(await scene.send(route, raw), *code)
        problem(await scene.send(route, b"a=1", content_type="text/plain"), 415, "unsupported-media-type")
        problem(await scene.send(route, b" " * (LIMIT + 1)), 413, "body-too-large")
        problem(await in_pieces(scene.caller_of(route), route, b'{"x":1}'), *INVALID)
    assert await rows(database) == before


async def test_a_route_without_a_body_accepts_an_empty_one(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(active=False)
    assert (await service.send("POST", f"/v1/campaigns/{campaign}/activate", b"{}")).status_code == 200
    assert (await service.send("POST", f"/v1/campaigns/{campaign}/pause", b"")).status_code == 200

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    chunked = await service.client.post(
        f"/v1/campaigns/{campaign}/activate", content=nothing(), headers={"Authorization": f"Bearer {service.token}"}
    )
    assert chunked.status_code == 200, chunked.text
