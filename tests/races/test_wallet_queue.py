"""The door in front of the application: one wallet never has more than its share inside, and nobody is forgotten outside."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from falcon.asgi import App

from guerdon.middlewares.wallet_queue import Asgi, WalletQueue
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.races.test_balances import tally

SOON_SECONDS = 20.0


class Watched:
    """Counts the requests inside the application, by path, and lets none go on while it is `held`."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.held = asyncio.Event()
        self.held.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.inside[path] += 1
        self.most[path] = max(self.most[path], self.inside[path])
        try:
            await self.held.wait()
            await self._app(scope, receive, send)
        finally:
            self.inside[path] -= 1


@asynccontextmanager
async def behind_a_door(
    app: App[Any, Any], service: Caller, clock: ManualClock, *, share: int, wait_seconds: float = 60
) -> AsyncIterator[tuple[Caller, Watched, WalletQueue]]:
    watched = Watched(app)
    door = WalletQueue(watched, clock, wait_seconds=wait_seconds, share=share)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=door), base_url="http://door") as client:
        yield Caller(client, service.token), watched, door


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"
        await asyncio.sleep(0.001)


async def until_inside(watched: Watched, count: int) -> None:
    await until(lambda: watched.inside.total() >= count)


async def test_busy_wallet_has_a_bounded_share_and_others_do_not_wait(
    app: App[Any, Any], service: Caller, factory: Factory, clock: ManualClock
) -> None:
    hot, quiet = await factory.wallet(300), await factory.wallet(300)
    path = f"/v1/wallets/{hot}/debit"
    async with behind_a_door(app, service, clock, share=10) as (caller, watched, door):
        done: list[str] = []

        async def pay(wallet: str) -> httpx.Response:
            answer = await caller.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})
            done.append(wallet)
            return answer

        hots = [asyncio.ensure_future(pay(hot)) for _ in range(300)]
        await until_inside(watched, 10)
        quiets = await asyncio.gather(*(pay(quiet) for _ in range(5)))
        before = done.count(hot)
        answers = await asyncio.gather(*hots)
        assert watched.most[path] == 10
        assert before < 150
        assert tally([*answers, *quiets]) == {(201, ""): 305}
        assert [answer.json()["seq"] for answer in answers] == list(range(2, 302)), "in the order of arrival"
        assert (door._active, door._waiting) == ({}, {})
    await factory.assert_books_balance()


async def test_only_requests_that_move_value_of_one_wallet_are_queued(
    app: App[Any, Any], service: Caller, factory: Factory, clock: ManualClock
) -> None:
    wallet, other = await factory.wallet(300), await factory.wallet(0)
    async with behind_a_door(app, service, clock, share=1) as (caller, watched, _):
        watched.held.clear()
        body = {"from": wallet, "to": other, "amount": 1}
        tasks = [asyncio.ensure_future(caller.get(f"/v1/wallets/{wallet}")) for _ in range(5)]
        tasks += [asyncio.ensure_future(caller.post("/v1/transfers", body)) for _ in range(5)]
        tasks += [asyncio.ensure_future(caller.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})) for _ in range(5)]
        tasks += [asyncio.ensure_future(caller.post(f"/v1/wallets/{wallet}/credit", {"amount": 1})) for _ in range(5)]
        await until_inside(watched, 12)
        watched.held.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200, 201}
        assert watched.most[f"/v1/wallets/{wallet}/debit"] == watched.most[f"/v1/wallets/{wallet}/credit"] == 1


async def test_cancelled_request_releases_its_slot(
    app: App[Any, Any], service: Caller, factory: Factory, clock: ManualClock
) -> None:
    wallet = await factory.wallet(300)
    async with behind_a_door(app, service, clock, share=4) as (caller, watched, door):
        watched.held.clear()
        tasks = [asyncio.ensure_future(caller.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})) for _ in range(40)]
        await until_inside(watched, 4)
        await until(lambda: sum(map(len, door._waiting.values())) == 36)
        for task in tasks[::2]:
            task.cancel()
        # Places of those who gave up inside have gone to others who give up in the same moment.
        tasks[5].cancel()
        tasks[7].cancel()
        watched.held.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert tally(result for result in results if isinstance(result, httpx.Response)) == {(201, ""): 18}
        assert (door._active, door._waiting) == ({}, {})
    await factory.assert_books_balance()


async def test_request_that_waits_too_long_is_refused_without_effect(
    app: App[Any, Any], service: Caller, factory: Factory, clock: ManualClock
) -> None:
    wallet = await factory.wallet(300)
    async with behind_a_door(app, service, clock, share=1, wait_seconds=0.05) as (caller, watched, door):
        watched.held.clear()
        path = f"/v1/wallets/{wallet}/debit"
        inside = asyncio.ensure_future(caller.post(path, {"amount": 1}))
        await until_inside(watched, 1)
        late = asyncio.ensure_future(caller.post(path, {"amount": 1}, key="late"))
        await until_inside(watched, 2)
        watched.held.set()
        answer = await late
        problem(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        assert (await inside).status_code == 201
        again = await caller.post(path, {"amount": 1}, key="late")
        assert (again.status_code, again.headers.get("idempotency-replayed")) == (201, None)
        assert (door._active, door._waiting) == ({}, {})
    assert await factory.balance(wallet) == 298
