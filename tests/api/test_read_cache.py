"""Wallets that are read from copies: what a reader may see, what it may ask for, and that no command believes a copy."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from pydantic import SecretStr

from guerdon.clock import rfc3339
from guerdon.config import Settings
from guerdon.ledger.jobs import sweep
from guerdon.permissions import Actor
from guerdon.read_cache.copies import AGE_MS_MAX, Copy, pack, unpack
from guerdon.read_cache.service import JITTER_MS_MAX
from guerdon.wallets.models import view_wallet
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, Log, ManualClock, problem
from tests.copies import client_of_store, key_of, settle, store_of
from tests.counter_store import Store
from tests.factories import Factory
from tests.serving import serve

ADA = {"email": "ada@example.com", "password": "correct horse battery"}
OPERATOR = Actor("key_tests", "service_key")


@pytest.fixture
def settings(cheap_settings: Settings, store: Store) -> Settings:
    return cheap_settings.model_copy(update={"cache": SecretStr(store.url)})


@pytest_asyncio.fixture
async def raw(store: Store) -> AsyncIterator[Any]:
    async with client_of_store(store) as client:
        yield client


@pytest_asyncio.fixture
async def other(
    other_services: Services, settings: Settings, clock: ManualClock, service: Caller
) -> AsyncIterator[tuple[Caller, Services]]:
    """A second process with the same cache."""
    async with serve(other_services, settings, clock) as caller:
        yield caller.with_token(str(service.token)), other_services


@pytest_asyncio.fixture
async def uncached(services: Services, cheap_settings: Settings, clock: ManualClock, service: Caller) -> AsyncIterator[Caller]:
    """A process that commits and keeps no copies, as one whose copies are lost does."""
    async with open_services(cheap_settings, clock) as others, serve(others, cheap_settings, clock) as caller:
        yield caller.with_token(str(service.token))


async def read(caller: Caller, wallet: str, at_least: str | None = None, path: str = "") -> Any:
    headers = {"authorization": f"Bearer {caller.token}", **({} if at_least is None else {"if-seq-at-least": at_least})}
    answer = await caller.client.get(f"/v1/wallets/{wallet}{path}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def in_the_ledger(services: Services, wallet: str) -> Any:
    """The wallet as it is read from the database."""
    return msgspec.to_builtins(view_wallet(await services.wallets.get_wallet(OPERATOR, wallet)))


def results(services: Services) -> dict[str, int]:
    return {name: count for name, count in services.read_cache.results.items() if count}


async def test_a_commit_leaves_a_copy_that_every_process_reads(
    service: Caller, factory: Factory, services: Services, other: tuple[Caller, Services]
) -> None:
    wallet = await factory.wallet(500)
    await settle(services.read_cache)
    expected = await in_the_ledger(services, wallet)
    assert await read(service, wallet) == expected
    assert await read(other[0], wallet) == expected
    assert (await service.get(f"/v1/wallets/{wallet}/lots")).json()["items"][0]["amount"] == 500
    assert (results(services), results(other[1])) == ({"hit": 2}, {"hit": 1})
    await factory.assert_books_balance()


async def test_every_kind_of_change_reaches_the_copy(
    service: Caller, factory: Factory, services: Services, other: tuple[Caller, Services]
) -> None:
    """Credit, debit, transfer, hold, capture, release, reversal, bulk, freeze, unfreeze, account rules: `seq` counts all of them."""
    first, second = await factory.wallet(500), await factory.wallet(100)
    post = service.post
    hold = {"wallet": first, "amount": 50, "expires_in_seconds": 900}
    steps = [
        ("/v1/transfers", {"from": first, "to": second, "amount": 20}),
        ("/v1/holds", hold),
        (f"/v1/holds/hld_{first}:3/capture", {"amount": 10}),
        (f"/v1/wallets/{first}/debit", {"amount": 5}),
        (f"/v1/transactions/txn_{first}:5/reverse", {}),
        ("/v1/bulk", {"commands": [{"type": "credit", "wallet": first, "amount": 3, "key": "b-1"}]}),
        (f"/v1/wallets/{first}/freeze", {}),
        (f"/v1/wallets/{first}/unfreeze", {}),
    ]
    for path, body in steps:
        answer = await post(path, body, key=None if path.endswith("freeze") else "")
        assert answer.status_code in {200, 201}, (path, answer.text)
        await settle(services.read_cache)
        for wallet in (first, second):
            assert await read(other[0], wallet) == await in_the_ledger(services, wallet), path
    assert (await service.put(f"/v1/wallets/{first}/terms", {"credit_limit": 7})).status_code == 200
    await settle(services.read_cache)
    assert (await read(other[0], first))["terms"]["credit_limit"] == 7
    assert results(other[1]) == {"hit": 2 * len(steps) + 1}
    await factory.assert_books_balance()


async def test_a_miss_is_filled_from_the_database(service: Caller, factory: Factory, services: Services, raw: Any) -> None:
    wallet = await factory.wallet(500)
    await settle(services.read_cache)
    await raw.flushall()
    before = await read(service, wallet)
    await settle(services.read_cache)
    assert await read(service, wallet) == before
    assert results(services) == {"miss": 1, "hit": 1}
    lives = await raw.pttl(key_of(services, wallet))
    assert AGE_MS_MAX - JITTER_MS_MAX - 5_000 < lives <= AGE_MS_MAX
    problem(await service.get(f"/v1/wallets/{await factory.member()}:PTS"), 404, "not-found")


async def test_a_reader_never_sees_a_wallet_before_the_seq_that_it_names(
    service: Caller, factory: Factory, services: Services, uncached: Caller
) -> None:
    wallet = await factory.wallet(500)
    await settle(services.read_cache)
    assert (await read(service, wallet))["seq"] == 1
    taken = (await uncached.post(f"/v1/wallets/{wallet}/debit", {"amount": 200})).json()
    assert (await read(service, wallet))["balance"] == 500, "a copy may be a minute old for a reader who asks for nothing"
    newest = f"{wallet}:{taken['seq']}"
    for path in ("", "/lots"):
        answer = await read(service, wallet, f"{wallet}:1,mem_{'0' * 32}:PTS:900 , {newest}", path)
        assert (answer["balance"] if path == "" else answer["items"][0]["amount"]) == 300
    assert results(services)["stale"] == 1, "the second read found the copy that the first one left"
    assert (await read(service, wallet))["balance"] == 300, "a process does not go back behind what it has read"
    assert (await read(service, wallet, f"{wallet}:999999999999"))["seq"] == 2, "the ledger has the last word"
    await factory.assert_books_balance()


async def test_a_process_never_reads_behind_its_own_commits(
    service: Caller, factory: Factory, services: Services, raw: Any
) -> None:
    wallet = await factory.wallet(500)
    await settle(services.read_cache)
    old = await raw.get(key_of(services, wallet))
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 200})).status_code == 201
    await settle(services.read_cache)
    await raw.set(key_of(services, wallet), old)
    assert (await read(service, wallet))["balance"] == 300
    assert results(services) == {"stale": 1}


@pytest.mark.parametrize(
    "value",
    ["", "5", "mem_1:PTS:5", "{wallet}", "{wallet}:", "{wallet}:-1", "{wallet}:1.5", "{wallet}:1;{other}:1", "{wallet}:1,", ",{wallet}:1",
     "{wallet}:1234567890123", "{wallet}:٣", "txn_{wallet}:1", "{wallet}:1 {wallet}:2", "MEM{wallet}:1"],
)  # fmt: skip
async def test_a_malformed_header_is_refused_by_name(service: Caller, factory: Factory, value: str) -> None:
    wallet = await factory.wallet(500)
    header = value.format(wallet=wallet, other=wallet)
    headers = {"authorization": f"Bearer {service.token}", "if-seq-at-least": header.encode()}
    for path in (f"/v1/wallets/{wallet}", f"/v1/wallets/{wallet}/lots"):
        refused = problem(await service.client.get(path, headers=headers), 400, "bad-request")
        assert "If-Seq-At-Least must be a wallet id, a colon and a seq" in refused["detail"]


async def test_the_header_may_be_repeated_and_is_bounded(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(500)
    pairs = [("authorization", f"Bearer {service.token}"), *[("if-seq-at-least", f"{wallet}:1")] * 100]
    assert (await service.client.get(f"/v1/wallets/{wallet}", headers=pairs)).status_code == 200
    pairs.append(("if-seq-at-least", f"{wallet}:1"))
    refused = problem(await service.client.get(f"/v1/wallets/{wallet}", headers=pairs), 400, "bad-request")
    assert "more than 100 wallets" in refused["detail"]


async def test_a_frozen_wallet_is_frozen_in_its_copy_too(
    service: Caller, factory: Factory, services: Services, other: tuple[Caller, Services], uncached: Caller
) -> None:
    """Freezing is an entry, so it raises `seq`: a copy from before is older, and a reader who knows of the freeze never sees it."""
    wallet = await factory.wallet(500)
    frozen = (await service.post(f"/v1/wallets/{wallet}/freeze", {}, key=None)).json()
    assert (frozen["status"], frozen["seq"]) == ("frozen", 2)
    await settle(services.read_cache)
    assert (await read(other[0], wallet))["status"] == "frozen"
    problem(await other[0].post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "wallet-frozen")
    opened = (await uncached.post(f"/v1/wallets/{wallet}/unfreeze", {}, key=None)).json()
    again = (await uncached.post(f"/v1/wallets/{wallet}/freeze", {}, key=None)).json()
    assert (await read(other[0], wallet, f"{wallet}:{again['seq']}"))["status"] == "frozen"
    assert opened["seq"] + 1 == again["seq"] == 4
    assert (await service.post(f"/v1/wallets/{wallet}/unfreeze", {}, key=None)).status_code == 200
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 500})).status_code == 201
    closed = (await service.post(f"/v1/wallets/{wallet}/close", {}, key=None)).json()
    await settle(services.read_cache)
    assert (await read(other[0], wallet, f"{wallet}:{closed['seq']}"))["status"] == "closed"
    await factory.assert_books_balance()


async def test_time_changes_what_a_copy_shows(
    service: Caller, factory: Factory, services: Services, other: tuple[Caller, Services], clock: ManualClock
) -> None:
    """Value that becomes available or expires, and a hold that ends, to the millisecond: as the ledger shows it at that time."""
    clock.stop()
    now = clock.now_ms()
    wallet = await factory.wallet(100)
    for body in (
        {"amount": 7, "available_at": rfc3339(now + 5_000)},
        {"amount": 11, "expires_at": rfc3339(now + 20_000)},
    ):
        assert (await service.post(f"/v1/wallets/{wallet}/credit", body)).status_code == 201
    held = await service.post("/v1/holds", {"wallet": wallet, "amount": 30, "expires_in_seconds": 10})
    assert held.status_code == 201
    await settle(services.read_cache)
    seen = []
    for later_ms in (0, 4_999, 5_000, 9_999, 10_000, 19_999, 20_000):
        clock.offset_ms = later_ms
        view = await read(other[0], wallet)
        assert view == await in_the_ledger(services, wallet), later_ms
        seen.append((view["available"], view["pending"], view["held"], view["expired"]))
        await settle(other[1].read_cache)
    assert seen == [(81, 7, 30, 0), (81, 7, 30, 0), (88, 0, 30, 0), (88, 0, 30, 0), (118, 0, 0, 0), (118, 0, 0, 0), (107, 0, 0, 11)]
    assert results(other[1]) == {"hit": 4, "expired": 3}, "from the end of the hold on, no copy was used"
    assert await sweep(services.ledger, services.database, services.clock) == 1
    await settle(services.read_cache)
    assert await read(other[0], wallet) == await in_the_ledger(services, wallet)
    assert results(other[1])["hit"] == 5, "what the sweeper booked was copied"
    await factory.assert_books_balance()


async def test_no_copy_is_used_after_a_minute_even_if_the_store_keeps_it(
    service: Caller, factory: Factory, services: Services, *, raw: Any, uncached: Caller, clock: ManualClock
) -> None:
    clock.stop()
    wallet = await factory.wallet(500)
    await settle(services.read_cache)
    await raw.persist(key_of(services, wallet))
    assert (await uncached.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).status_code == 201
    clock.advance(seconds=(AGE_MS_MAX - JITTER_MS_MAX) / 1000 - 1)
    assert (await read(service, wallet))["balance"] == 500
    clock.advance(seconds=JITTER_MS_MAX / 1000 + 1)
    assert (await read(service, wallet))["balance"] == 499
    await settle(services.read_cache)
    assert (await read(service, wallet))["balance"] == 499
    assert results(services) == {"hit": 2, "expired": 1}


async def test_the_simulated_clock_moves_copies_too(service: Caller, factory: Factory, services: Services) -> None:
    wallet = await factory.wallet(100)
    held = await service.post("/v1/holds", {"wallet": wallet, "amount": 60, "expires_in_seconds": 900})
    assert held.status_code == 201
    assert (await read(service, wallet))["available"] == 40
    assert (await service.post("/v1/test/clock/advance", {"seconds": 901}, key=None)).status_code == 200
    for _ in range(2):
        assert (await read(service, wallet))["available"] == 100
        await settle(services.read_cache)


async def test_a_copy_opens_no_wallet_to_others(service: Caller, anonymous: Caller, services: Services) -> None:
    ids = {}
    for name in ("ada", "bob"):
        body = {**ADA, "email": f"{name}@example.com"}
        assert (await anonymous.post("/v1/auth/register", body, key=None)).status_code == 201
        token = (await anonymous.post("/v1/auth/login", body, key=None)).json()["access_token"]
        ids[name] = anonymous.with_token(token)
    member = (await ids["ada"].get("/v1/me")).json()["id"]
    wallet = f"{member}:PTS"
    assert (await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 5})).status_code == 201
    await settle(services.read_cache)
    assert (await read(ids["ada"], wallet, f"{wallet}:1"))["balance"] == 5
    assert results(services) == {"hit": 1}
    problem(await ids["bob"].get(f"/v1/wallets/{wallet}"), 404, "not-found")
    problem(await anonymous.get(f"/v1/wallets/{wallet}"), 401, "unauthenticated")
    narrow = anonymous.with_token(await services.access.create_key("narrow", ["assets:read"]))
    problem(await narrow.get(f"/v1/wallets/{wallet}"), 403, "forbidden")
    assert results(services) == {"hit": 1}
    assert (await service.post(f"/v1/members/{member}/erase")).status_code == 200
    problem(await ids["ada"].get(f"/v1/wallets/{wallet}"), 401, "unauthenticated")


@pytest.mark.parametrize("kind", ["garbage", "empty", "head", "another", "list", "huge", "cut"])
async def test_a_poisoned_value_is_removed_and_the_database_answers(
    service: Caller, factory: Factory, services: Services, raw: Any, kind: str
) -> None:
    wallet, second = await factory.wallet(500), await factory.wallet(9)
    await settle(services.read_cache)
    key = key_of(services, wallet)
    own, others = await raw.get(key), await raw.get(key_of(services, second))
    await raw.delete(key)
    poison: dict[str, bytes] = {
        "garbage": b"\xff\x00{}", "empty": b"", "head": own[:29], "another": others, "huge": own + b"\xc1" * 100_000, "cut": own[:-3],
    }  # fmt: skip
    await (raw.rpush(key, "a") if kind == "list" else raw.set(key, poison[kind]))
    assert (await read(service, wallet))["balance"] == 500
    await settle(services.read_cache)
    assert (await read(service, wallet))["balance"] == 500
    found = results(services)
    assert found in ({"malformed": 1, "hit": 1}, {"malformed": 1, "miss": 1}, {"miss": 1, "hit": 1})
    await settle(services.read_cache)
    assert unpack(await raw.get(key), wallet).account.balance == 500
    assert await raw.pttl(key) > 0


async def test_no_command_believes_a_copy(service: Caller, factory: Factory, services: Services, raw: Any) -> None:
    """A well-formed copy with a false balance, limit and status: readers see it, and commands decide on the ledger."""
    wallet = await factory.wallet(10)
    await settle(services.read_cache)
    key = key_of(services, wallet)
    account = unpack(await raw.get(key), wallet).account
    false = msgspec.structs.replace(account, balance=9_000, seq=50, minimum_balance=-9_000)
    value = pack(Copy(false, services.clock.now_ms() + 30_000))
    await raw.set(key, value)
    assert (await read(service, wallet))["balance"] == 9_000
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 11}), 409, "insufficient-funds")
    problem(await service.post("/v1/holds", {"wallet": wallet, "amount": 11, "expires_in_seconds": 9}), 409, "insufficient-funds")
    problem(await service.post(f"/v1/wallets/{wallet}/debit?dry_run=true", {"amount": 11}), 409, "insufficient-funds")
    frozen = (await service.post(f"/v1/wallets/{wallet}/freeze", {}, key=None)).json()
    assert (frozen["balance"], frozen["seq"]) == (10, 2)
    problem(await service.post(f"/v1/wallets/{wallet}/close", {}, key=None), 409, "wallet-not-empty")
    member = wallet.partition(":")[0]
    assert (await service.get(f"/v1/members/{member}/wallets")).json()["items"][0]["balance"] == 10
    await raw.flushall()
    await factory.assert_books_balance()


@pytest.mark.own_app
async def test_metrics_tell_what_became_of_the_copies(service: Caller, factory: Factory, services: Services, raw: Any) -> None:
    wallet = await factory.wallet(10)
    await settle(services.read_cache)
    await read(service, wallet)
    await raw.flushall()
    await read(service, wallet)
    await settle(services.read_cache)
    text = (await service.get("/metrics")).text
    for line in (
        'guerdon_read_cache_reads_total{result="hit"} 1.0',
        'guerdon_read_cache_reads_total{result="miss"} 1.0',
        'guerdon_read_cache_reads_total{result="stale"} 0.0',
        'guerdon_read_cache_copies_total{result="written"} 2.0',
        'guerdon_read_cache_copies_total{result="dropped"} 0.0',
        "guerdon_read_cache_errors_total 0.0",
        "guerdon_read_cache_refused_total 0.0",
        "guerdon_read_cache_breaker_open 0.0",
    ):
        assert line in text


async def test_without_a_cache_every_read_is_of_the_ledger(
    uncached: Caller, factory: Factory, services: Services, raw: Any
) -> None:
    wallet = await factory.wallet(10)
    await settle(services.read_cache)
    await raw.flushall()
    assert (await uncached.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).status_code == 201
    assert (await read(uncached, wallet, f"{wallet}:2"))["balance"] == 9
    assert await raw.dbsize() == 0
    headers = {"authorization": f"Bearer {uncached.token}", "if-seq-at-least": "x"}
    problem(await uncached.client.get(f"/v1/wallets/{wallet}", headers=headers), 400, "bad-request")


async def test_copies_hold_no_personal_data_and_logs_no_address(
    service: Caller, factory: Factory, services: Services, *, settings: Settings, raw: Any, log: Log
) -> None:
    wallet = await factory.wallet(10, member=await factory.member("ada-lovelace-1815"))
    await settle(services.read_cache)
    keys = await raw.keys("*")
    assert keys == [key_of(services, wallet).encode()]
    assert b"ada-lovelace" not in await raw.get(keys[0])
    assert store_of(services.read_cache).written == 1
    assert settings.cache is not None
    assert settings.cache.get_secret_value() not in json.dumps([str(settings), repr(settings), log.getvalue()])
