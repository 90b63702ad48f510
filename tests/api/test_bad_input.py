"""Hostile bodies: refused with a definite code before anything is written."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from guerdon.database import Database
from tests.clients import Caller, problem
from tests.factories import Factory
from tests.serving import count_rows

MALFORMED, INVALID = (400, "malformed-json"), (422, "validation")
HOSTILE = {
    "0": INVALID, "-0": INVALID, "-1": INVALID, "1.0": INVALID, "1.5": INVALID, "1e3": INVALID, "1e400": INVALID, "-1e400": INVALID,
    '"5"': INVALID, '" 5"': INVALID, '"５"': INVALID, "true": INVALID, "false": INVALID, "null": INVALID, "[]": INVALID, "{}": INVALID,
    '{"$gt":0}': INVALID, "[5]": INVALID, str(2**63): INVALID, str(2**64): INVALID, str(-(2**63)): INVALID, str(10**15 + 1): INVALID,
    "9" * 5000: INVALID, "NaN": MALFORMED, "Infinity": MALFORMED, "-Infinity": MALFORMED, "0x10": MALFORMED, "1_000": MALFORMED,
    "01": MALFORMED, "+1": MALFORMED, "1.": MALFORMED, ".5": MALFORMED, "５": MALFORMED, "": MALFORMED, "undefined": MALFORMED,
}  # fmt: skip
"""Raw JSON text in the place of an amount, and the answer it earns: what is JSON but no amount is invalid, the rest is malformed."""

EVENT = (
    '{"id":"e-1","type":"purchase","member":{"external_id":"x-1"},"occurred_at":"2026-01-31T12:00:00Z","currency":"GBP",'
    '"amount":%s,"items":[{"sku":"a","quantity":1,"unit_price":%s}]}'
)
CAMPAIGN = '{"name":"n","asset":"PTS","event_types":["purchase"],"award":%s}'
COMMANDS = '{"commands":[{"type":"%s","wallet":"{wallet}","amount":@,"key":"k"%s}]}'
MONEY = {
    "credit": ("/v1/wallets/{wallet}/credit", '{"amount":@}', "/amount"),
    "debit": ("/v1/wallets/{wallet}/debit", '{"amount":@}', "/amount"),
    "transfer": ("/v1/transfers", '{"from":"{wallet}","to":"{other}","amount":@}', "/amount"),
    "bulk credit": ("/v1/bulk", COMMANDS % ("credit", ""), "/commands/0/amount"),
    "bulk debit": ("/v1/bulk", COMMANDS % ("debit", ""), "/commands/0/amount"),
    "bulk transfer": ("/v1/bulk", COMMANDS % ("transfer", ',"to":"{other}"'), "/commands/0/amount"),
    "event amount": ("/v1/events", EVENT % ("@", "1"), "/amount"),
    "event price": ("/v1/events", EVENT % ("1", "@"), "/items/0/unit_price"),
    "preview amount": ("/v1/events/preview", EVENT % ("@", "1"), "/amount"),
    "preview price": ("/v1/events/preview", EVENT % ("1", "@"), "/items/0/unit_price"),
    "fixed award": ("/v1/campaigns", CAMPAIGN % '{"type":"fixed","amount":@}', "/award/amount"),
    "award points": ("/v1/campaigns", CAMPAIGN % '{"type":"per_amount","points":@,"per":100}', "/award/points"),
    "award per": ("/v1/campaigns", CAMPAIGN % '{"type":"per_amount","points":1,"per":@}', "/award/per"),
}


class Pair:
    """Two wallets, to fill into paths and bodies."""

    def __init__(self, wallet: str, other: str) -> None:
        self.wallet, self.other = wallet, other

    def fill(self, text: str) -> str:
        return text.replace("{wallet}", self.wallet).replace("{other}", self.other)


@pytest.fixture
async def pair(factory: Factory) -> Pair:
    return Pair(await factory.wallet(100), await factory.wallet(100))


@pytest.mark.parametrize("field", MONEY)
async def test_no_money_field_takes_anything_but_an_amount(
    service: Caller, factory: Factory, database: Database, pair: Pair, field: str
) -> None:
    path, body, pointer = MONEY[field]
    before = await count_rows(database)
    answers: dict[str, tuple[int, str]] = {}
    for text, expected in HOSTILE.items():
        answer = await service.send("POST", pair.fill(path), pair.fill(body).replace("@", text).encode())
        answers[text] = (answer.status_code, answer.json().get("code", ""))
        if answers[text] == INVALID == expected:
            assert answer.json()["errors"][0]["pointer"] == pointer, text
    assert answers == HOSTILE
    assert await count_rows(database) == before
    accepted = await service.send("POST", pair.fill(path), pair.fill(body).replace("@", "1").encode())
    assert accepted.is_success, accepted.text
    await factory.assert_books_balance()


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "credit": ("/v1/wallets/{wallet}/credit", {"amount": 1}),
    "debit": ("/v1/wallets/{wallet}/debit", {"amount": 1}),
    "transfer": ("/v1/transfers", {"from": "{wallet}", "to": "{other}", "amount": 1}),
    "bulk": ("/v1/bulk", {"commands": [{"type": "debit", "wallet": "{wallet}", "amount": 1, "key": "k"}]}),
    "asset": ("/v1/assets", {"code": "NEW", "scale": 0}),
    "member": ("/v1/members", {"external_id": "m-1"}),
    "register": ("/v1/auth/register", {"email": "ada@example.com", "password": "correct horse battery"}),
    "login": ("/v1/auth/login", {"email": "ada@example.com", "password": "correct horse battery"}),
    "event": ("/v1/events", json.loads(EVENT % (1, 1))),
    "preview": ("/v1/events/preview", json.loads(EVENT % (1, 1))),
    "campaign": ("/v1/campaigns", json.loads(CAMPAIGN % '{"type":"fixed","amount":1}')),
}
"""A good body for every route that takes one."""


@pytest.fixture(params=BODIES)
async def good(request: pytest.FixtureRequest, pair: Pair, database: Database) -> AsyncIterator[tuple[str, str]]:
    """The path and the good body of each route; whatever a test sends there must leave no trace."""
    path, body = BODIES[request.param]
    before = await count_rows(database)
    yield pair.fill(path), pair.fill(json.dumps(body))
    assert await count_rows(database) == before


async def test_an_unknown_field_is_refused_and_named(service: Caller, good: tuple[str, str]) -> None:
    path, body = good
    for name in ("extra", "balance", "role", "status", "id_", "created_at", "$gt", "__proto__"):
        raw = body[:-1] + f', "{name}": 1}}'
        refused = problem(await service.send("POST", path, raw.encode()), 422, "validation")
        assert refused["errors"] == [{"pointer": f"/{name}", "detail": "unknown field"}]


async def test_a_repeated_key_is_refused_at_any_depth(service: Caller, good: tuple[str, str]) -> None:
    path, body = good
    key, _, value = body[1:].partition(":")
    for raw in (
        f"{{{key}:{value[:-1]}, {key}:{value}",
        body[:-1] + ', "metadata": {"a": "1", "a": "2"}}',
        body[:-1] + ', "x": [{"b":1,"\\u0062":2}]}',
    ):
        problem(await service.send("POST", path, raw.encode()), 400, "malformed-json")


async def test_nesting_is_bounded(service: Caller, good: tuple[str, str]) -> None:
    path, body = good
    for depth, code in ((31, INVALID), (32, MALFORMED), (1000, MALFORMED), (100_000, MALFORMED)):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            raw = body[:-1] + f', "x": {opening * depth}1{closing * depth}}}'
            expected = (413, "body-too-large") if len(raw) > 256 * 1024 and path != "/v1/bulk" else code
            problem(await service.send("POST", path, raw.encode()), *expected)
    problem(await service.send("POST", path, b"[" * 100_000), *MALFORMED)


async def test_brackets_inside_text_are_not_nesting(service: Caller, factory: Factory, pair: Pair) -> None:
    body = json.dumps({"amount": 1, "reason": "[{" * 90 + '\\"'})
    answer = await service.send("POST", f"/v1/wallets/{pair.wallet}/credit", body.encode())
    assert (answer.status_code, answer.json()["reason"]) == (201, "[{" * 90 + '\\"')
    await factory.assert_books_balance()


NOT_JSON = [
    b"", b" ", b"{", b"}", b"nonsense", b'{"amount":1}{"amount":1}', b'{"amount":1},', b"{'amount':1}", b'{"amount":1,}', b"\xff\xfe",
    b'{"amount":1,"reason":"\xff"}', b'{"amount":1,"reason":"\xed\xa0\x80"}', b'{"amount":1,"reason":"\xc0\xaf"}', b"\xef\xbb\xbf{}",
    '{"amount":1}'.encode("utf-16"), b'{"amount":1,"reason":"\\ud800"}', b'{"amount":1,"reason":"\\udc00\\ud800"}',
    b'{"amount":1,"reason":"\\x41"}', b'{"amount":1,"reason":"a\nb"}', b'{"amount":1,"reason":"a\x00b"}', b"/**/{}", b"\x00",
]  # fmt: skip


async def test_what_is_not_json_is_malformed(service: Caller, database: Database, pair: Pair) -> None:
    before = await count_rows(database)
    for raw in NOT_JSON:
        problem(await service.send("POST", f"/v1/wallets/{pair.wallet}/credit", raw), *MALFORMED)
    assert await count_rows(database) == before


async def test_what_is_json_but_no_such_object_is_invalid(service: Caller, good: tuple[str, str]) -> None:
    path, _ = good
    for raw in (b"null", b"1", b'"amount"', b"[]", b'[{"amount":1}]', b"true", b"{}"):
        problem(await service.send("POST", path, raw), *INVALID)


async def test_an_object_with_too_many_keys_is_refused(service: Caller, pair: Pair) -> None:
    body = json.dumps({"amount": 1, **{f"k{n}": 1 for n in range(200)}})
    problem(await service.send("POST", f"/v1/wallets/{pair.wallet}/credit", body.encode()), *MALFORMED)


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(service: Caller, good: tuple[str, str]) -> None:
    path, body = good
    limit = (2 if path == "/v1/bulk" else 0.25) * 1024 * 1024
    raw = body.encode().ljust(int(limit) + 1)
    refused = problem(await service.send("POST", path, raw), 413, "body-too-large")
    assert refused["limit_bytes"] == limit

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), 65_536):
            yield raw[start : start + 65_536]

    headers = {"content-type": "application/json", "authorization": f"Bearer {service.token}", "idempotency-key": "chunked"}
    answer = await service.client.post(path, content=chunks(), headers=headers)
    assert "content-length" not in answer.request.headers
    problem(answer, 413, "body-too-large")


async def test_a_body_of_exactly_the_limit_is_read(service: Caller, factory: Factory, pair: Pair) -> None:
    answer = await service.send("POST", f"/v1/wallets/{pair.wallet}/credit", b'{"amount":1}'.ljust(256 * 1024))
    assert answer.status_code == 201
    await factory.assert_books_balance()


async def test_another_media_type_is_refused(service: Caller, good: tuple[str, str]) -> None:
    path, body = good
    for content_type in ("", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/jsonx", "*/*"):
        answer = await service.send("POST", path, body.encode(), content_type=content_type)
        problem(answer, 415, "unsupported-media-type")


async def test_a_missing_media_type_and_a_compressed_body_are_refused(service: Caller, good: tuple[str, str]) -> None:
    path, body = good
    headers = {"authorization": f"Bearer {service.token}", "idempotency-key": "k"}
    problem(await service.client.post(path, content=body.encode(), headers=headers), 415, "unsupported-media-type")
    for coding in ("gzip", "br", "deflate"):
        answer = await service.send("POST", path, body.encode(), content_encoding=coding)
        problem(answer, 415, "unsupported-media-type")


async def test_a_charset_parameter_and_capitals_are_allowed(service: Caller, factory: Factory, pair: Pair) -> None:
    for content_type in ("application/json; charset=utf-8", "Application/JSON"):
        answer = await service.send("POST", f"/v1/wallets/{pair.wallet}/credit", b'{"amount":1}', content_type=content_type)
        assert answer.status_code == 201
    await factory.assert_books_balance()


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "9" * 30])
async def test_a_length_that_is_no_length_is_refused(service: Caller, database: Database, pair: Pair, length: str) -> None:
    before = await count_rows(database)
    answer = await service.send("POST", f"/v1/wallets/{pair.wallet}/credit", b'{"amount":1}', content_length=length)
    problem(answer, *((413, "body-too-large") if length == "9" * 30 else (400, "bad-request")))
    assert await count_rows(database) == before
