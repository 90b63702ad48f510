"""Quotas that several processes count together in a real store, and what each kind of request meets when the store is down."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.rate_limits.rules import Quota, QuotaCounter, advance
from guerdon.rate_limits.shared import TIMEOUT_SECONDS, SharedCounters
from guerdon.wiring.services import open_services
from tests.clients import Caller, ManualClock, problem
from tests.counter_store import Store
from tests.factories import Factory
from tests.serving import serve

ADA = {"email": "ada@example.com", "password": "correct horse battery"}
SEED = 4_027


@pytest.fixture
def shared(settings: Settings, store: Store, database: Database) -> Settings:
    """Settings of processes that share the store, on the emptied database."""
    return settings.model_copy(update={"rate_limit_store": SecretStr(store.url)})


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def processes(stack: AsyncExitStack, settings: Settings, clock: ManualClock, count: int, **changes: Any) -> list[Caller]:
    """Callers with one service key, each of another process."""
    own = settings.model_copy(update=changes)
    services = [await stack.enter_async_context(open_services(own, clock)) for _ in range(count)]
    key = await services[0].access.create_key("shared", ["*"])
    return [(await stack.enter_async_context(serve(one, own, clock))).with_token(key) for one in services]


async def test_shared_store_counts_like_the_model(store: Store) -> None:
    chance = random.Random(SEED)
    counters = SharedCounters(store.url, "test")
    quota = Quota("q", 7, 1)
    model: QuotaCounter | None = None
    for _ in range(120):
        cost = chance.choice([1, 1, 1, 1, 2, -1, 0])
        found = await counters.spend(quota, "ada", cost)
        raw = await counters._client.hmget("test:q:ada", "i", "c", "p")
        now_ms = int((await counters._client.time())[0]) * 1000
        # The store's own time is not told; the window that it counted in is.
        index = int(raw[0]) if raw[0] is not None else now_ms // quota.window_ms
        if model is None:
            model = QuotaCounter(index)
        advance(model, index * quota.window_ms, quota)
        if found.granted:
            model.current = max(model.current + cost, 0)
        assert (index, int(raw[1] or 0), int(raw[2] or 0)) == (model.index, model.current, model.previous)
        await asyncio.sleep(chance.choice([0, 0, 0, 0.02, 0.3]))
    await counters.close()


async def test_reading_a_quota_from_the_store_spends_nothing(store: Store) -> None:
    counters, quota = SharedCounters(store.url, "test"), Quota("q", 2, 600)
    costs = [0, 0, 1, 0, 0, 1, 0, 1, -1, 0, 1]
    granted = [(await counters.spend(quota, "ada", cost)).granted for cost in costs]
    assert granted == [True, True, True, True, True, True, False, False, True, True, True]
    await counters.close()


async def test_processes_share_one_quota(stack: AsyncExitStack, shared: Settings, clock: ManualClock) -> None:
    callers = await processes(stack, shared, clock, 3, rate_key="60/60")
    answers = await asyncio.gather(*(callers[n % 3].get("/v1/assets") for n in range(180)))
    statuses = [answer.status_code for answer in answers]
    # A window of the clock may have begun in the middle; then a part of the older one still counts.
    assert 60 <= statuses.count(200) <= 61
    assert statuses.count(200) + statuses.count(429) == 180
    for answer in answers:
        if answer.status_code == 429:
            problem(answer, 429, "too-many-requests")
            assert int(answer.headers["retry-after"]) >= int(answer.headers["ratelimit"].rpartition("t=")[2])


async def test_caller_that_waits_for_retry_after_is_accepted(stack: AsyncExitStack, shared: Settings, clock: ManualClock) -> None:
    [caller] = await processes(stack, shared, clock, 1, rate_key="3/1")
    for _ in range(3):
        answers = [await caller.get("/v1/assets") for _ in range(5)]
        late = [answer for answer in answers if answer.status_code == 429]
        assert late
        await asyncio.sleep(int(late[-1].headers["retry-after"]))
        assert (await caller.get("/v1/assets")).status_code == 200


@pytest.mark.parametrize(("without", "status"), [("local", 201), ("open", 201), ("closed", 503)])
async def test_requests_without_the_store_follow_the_setting(
    stack: AsyncExitStack, shared: Settings, store: Store, clock: ManualClock, *, without: str, status: int
) -> None:
    """RATE-3: log-ins are refused, reading goes on, and what moves value follows the setting."""
    [caller] = await processes(stack, shared, clock, 1, rate_limit_without_store=without)
    services = await stack.enter_async_context(open_services(shared, clock))
    factory = Factory(caller, services)
    wallet = await factory.wallet(10)
    assert (await caller.post("/v1/auth/register", ADA)).status_code == 201
    store.kill()
    for path in ("/v1/auth/login", "/v1/auth/register"):
        refused = await caller.post(path, ADA)
        problem(refused, 503, "temporary-reduced-capacity")
        assert int(refused.headers["retry-after"]) >= 1
    assert (await caller.get(f"/v1/wallets/{wallet}")).status_code == 200
    answers, seconds = [], []
    for _ in range(3):
        began = time.monotonic()
        answers.append(await caller.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}))
        seconds.append(time.monotonic() - began)
    assert [answer.status_code for answer in answers] == [status] * 3
    assert ["ratelimit" in answer.headers for answer in answers] == [without == "local"] * 3
    assert min(seconds) < TIMEOUT_SECONDS, "each request waited for the store"
    store.start()
    clock.advance(seconds=2)
    assert (await caller.post("/v1/auth/login", ADA)).status_code == 200
    assert (await caller.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).headers["ratelimit-policy"].startswith('"key"')
    assert await factory.balance(wallet) == (9 if status == 503 else 6)
    await factory.assert_books_balance()


async def test_hanging_store_is_treated_like_a_missing_one(
    stack: AsyncExitStack, shared: Settings, clock: ManualClock, tmp_path: Path
) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    [caller] = await processes(stack, shared, clock, 1, rate_limit_store=SecretStr(f"valkey://127.0.0.1:{port}"))
    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*(caller.get("/v1/assets") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert asyncio.get_running_loop().time() - began < 50 * TIMEOUT_SECONDS, "the requests waited one after the other"
    problem(await caller.post("/v1/auth/login", ADA), 503, "temporary-reduced-capacity")
    server.close()


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "127.0.0.1:6379", "valkey//x"])
def test_invalid_store_url_is_refused_at_startup(url: str) -> None:
    with pytest.raises(StartupRefused, match="GUERDON_RATE_LIMIT_STORE"):
        SharedCounters(url, "test")
