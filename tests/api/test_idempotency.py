"""A retry never changes money twice and tells the truth about the first attempt."""

import asyncio
import itertools
import json

import httpx
import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import count_rows, serve


async def post_with_keys(caller: Caller, path: str, keys: list[bytes]) -> httpx.Response:
    """Credit 1 with exactly these Idempotency-Key headers."""
    headers = [(b"authorization", f"Bearer {caller.token}".encode()), (b"content-type", b"application/json")]
    headers += [(b"idempotency-key", key) for key in keys]
    return await caller.client.post(path, content=b'{"amount":1}', headers=headers)


async def test_a_missing_key_is_refused_on_every_route_that_moves_value(
    service: Caller, factory: Factory, database: Database
) -> None:
    wallet, other = await factory.wallet(5), await factory.wallet(5)
    before = await count_rows(database)
    bodies = {
        f"/v1/wallets/{wallet}/credit": {"amount": 1},
        f"/v1/wallets/{wallet}/debit": {"amount": 1},
        "/v1/transfers": {"from": wallet, "to": other, "amount": 1},
    }
    for path, body in bodies.items():
        problem(await service.post(path, body, key=None), 400, "idempotency-key-missing")
    assert await count_rows(database) == before
    await factory.assert_books_balance()


async def test_a_replay_is_byte_for_byte_the_first_answer(service: Caller, factory: Factory, clock: ManualClock) -> None:
    wallet, other = await factory.wallet(50), await factory.wallet(5)
    requests = {
        "credit": (f"/v1/wallets/{wallet}/credit", {"amount": 3, "metadata": {"a": "b"}}),
        "debit": (f"/v1/wallets/{wallet}/debit", {"amount": 2, "reference": "r"}),
        "transfer": ("/v1/transfers", {"from": wallet, "to": other, "amount": 1}),
    }
    firsts = {key: await service.post(path, body, key=key) for key, (path, body) in requests.items()}
    clock.advance(days=400)
    for key, (path, body) in requests.items():
        again = await service.post(path, body, key=key)
        assert (again.status_code, again.content) == (201, firsts[key].content)
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in firsts[key].headers
    assert (await factory.balance(wallet), await factory.balance(other)) == (50, 6)
    await factory.assert_books_balance()


async def test_the_same_key_for_another_request_is_refused(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    wallet, pounds, other = (
        await factory.wallet(50, member=member),
        await factory.wallet(50, "GBP", member),
        await factory.wallet(1),
    )
    first = b'{"amount":3,"reason":"x"}'
    assert (await service.send("POST", f"/v1/wallets/{wallet}/debit", first, key="k")).status_code == 201
    others = [
        (f"/v1/wallets/{wallet}/debit", b'{"amount":4,"reason":"x"}'),
        (f"/v1/wallets/{wallet}/debit", b'{"amount":3, "reason":"x"}'),
        (f"/v1/wallets/{wallet}/debit", b'{"reason":"x","amount":3}'),
        (f"/v1/wallets/{pounds}/debit", first),
        (f"/v1/wallets/{wallet}/credit", first),
        ("/v1/transfers", json.dumps({"from": wallet, "to": other, "amount": 3}).encode()),
    ]
    for path, raw in others:
        problem(await service.send("POST", path, raw, key="k"), 422, "idempotency-key-reused")
    assert [await factory.balance(w) for w in (wallet, pounds, other)] == [47, 50, 1]
    assert (await service.send("POST", f"/v1/wallets/{wallet}/debit", first, key="k")).headers["idempotency-replayed"] == "true"
    await factory.assert_books_balance()


async def test_quotes_around_a_key_are_optional(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(5)
    bare = await post_with_keys(service, f"/v1/wallets/{wallet}/credit", [b"k-1"])
    quoted = await post_with_keys(service, f"/v1/wallets/{wallet}/credit", [b'"k-1"'])
    assert (quoted.status_code, quoted.content, quoted.headers["idempotency-replayed"]) == (201, bare.content, "true")
    assert await factory.balance(wallet) == 6
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "keys",
    [
        [b""], [b'""'], [b" "], [b"a" * 256], [b"a b"], [b"caf\xc3\xa9"], [b"caf\xe9"], [b"a\tb"], [b"a\x00b"], [b"a\r\nb"],
        [b"a\x7f"], [b"one", b"two"], [b"same", b"same"], [],
    ],
)  # fmt: skip
async def test_invalid_idempotency_key_is_refused(service: Caller, factory: Factory, database: Database, keys: list[bytes]) -> None:
    wallet = await factory.wallet(5)
    before = await count_rows(database)
    problem(await post_with_keys(service, f"/v1/wallets/{wallet}/credit", keys), 400, "idempotency-key-missing")
    assert await count_rows(database) == before
    await factory.assert_books_balance()


@pytest.mark.parametrize("key", [b"a", b"a" * 255, b'"', b'{"$gt":""}', b"../../etc/passwd", b"!~"])
async def test_any_visible_ascii_key_is_accepted_and_inert(service: Caller, factory: Factory, key: bytes) -> None:
    wallet = await factory.wallet(5)
    assert (await post_with_keys(service, f"/v1/wallets/{wallet}/credit", [key])).status_code == 201
    assert (await post_with_keys(service, f"/v1/wallets/{wallet}/credit", [key])).headers["idempotency-replayed"] == "true"
    assert await factory.balance(wallet) == 6
    await factory.assert_books_balance()


async def test_a_refusal_is_replayed_even_after_the_funds_have_come(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(50)
    first = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 51}, key="k")
    refused = problem(first, 409, "insufficient-funds")
    assert "idempotency-replayed" not in first.headers
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 100})
    again = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 51}, key="k")
    repeated = problem(again, 409, "insufficient-funds")
    assert again.headers["idempotency-replayed"] == "true"
    assert {**repeated, "request_id": ""} == {**refused, "request_id": ""}
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 52}, key="k"), 422, "idempotency-key-reused")
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 51})).status_code == 201
    assert await factory.balance(wallet) == 99
    await factory.assert_books_balance()


async def test_a_request_that_never_reached_the_ledger_does_not_use_up_its_key(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(50)
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 0}, key="k"), 422, "validation")
    problem(await service.post(f"/v1/wallets/{wallet[:-3]}ZZZ/credit", {"amount": 1}, key="k"), 404, "not-found")
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}, key="k")).status_code == 201
    await factory.assert_books_balance()


async def test_another_callers_same_key_is_another_request(service: Caller, factory: Factory, services: Services) -> None:
    wallet = await factory.wallet(50)
    stranger = service.with_token(await services.access.create_key("till", ["wallets:write"]))
    first = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}, key="k")
    second = await stranger.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}, key="k")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
    assert await factory.balance(wallet) == 48
    await factory.assert_books_balance()


async def test_a_hundred_parallel_posts_with_one_key_make_one_entry(service: Caller, factory: Factory, database: Database) -> None:
    wallet = await factory.wallet(500)
    path = f"/v1/wallets/{wallet}/debit"
    answers = await asyncio.gather(*(service.post(path, {"amount": 3}, key="k") for _ in range(100)))
    assert [answer.status_code for answer in answers] == [201] * 100
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert await factory.balance(wallet) == 497
    assert await database.raw["entries"].count_documents({}) == 2
    await factory.assert_books_balance()


async def test_two_processes_with_one_key_make_one_entry(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    wallet = await factory.wallet(500)
    path = f"/v1/wallets/{wallet}/debit"
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        other = anonymous.with_token(service.token)
        for amount in range(1, 11):
            callers = itertools.chain(*zip([service] * 20, [other] * 20, strict=True))
            answers = await asyncio.gather(*(caller.post(path, {"amount": amount}, key=f"k{amount}") for caller in callers))
            assert [answer.status_code for answer in answers] == [201] * 40
            assert len({answer.content for answer in answers}) == 1
            assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert await factory.balance(wallet) == 500 - 55
    await factory.assert_books_balance()


async def test_two_processes_opening_one_wallet_open_it_once(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    wallet = f"{await factory.member()}:PTS"
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        answers = await asyncio.gather(
            *(caller.post(f"/v1/wallets/{wallet}/credit", {"amount": 1}) for _ in range(20) for caller in callers)
        )
    assert sorted(answer.json()["seq"] for answer in answers) == list(range(1, 41))
    assert await factory.balance(wallet) == 40
    await factory.assert_books_balance()
