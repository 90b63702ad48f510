"""KILL-1 and KILL-2: kill -9 under load. What was acknowledged is there, once; what was refused is not; no key is stuck."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from tests.trust.deployment import Deployment

CLIENTS, WALLETS, BALANCE = 8, 6, 1000
STUCK_SECONDS = 60.0
SEED = 20_261_123
RETRY_SECONDS = 0.05
CRASH_LOOP_SECONDS = 6.0
"""Granian gives up, and ends, when a worker dies within 5.5 s of its start."""
pytestmark = [pytest.mark.trust, pytest.mark.timeout(600)]


class Load:
    """Clients that repeat a request with the same key until the answer is definite, and remember every answer."""

    def __init__(self, deployment: Deployment, token: str) -> None:
        self._deployment = deployment
        self._headers = {"authorization": f"Bearer {token}"}
        self._numbers = itertools.count(1)
        self.wallets: list[str] = []
        self.acknowledged: dict[str, str] = {}
        self.refused: set[str] = set()
        self.retries = 0
        self.slowest = 0.0
        self.stop = False

    async def post(self, client: httpx.AsyncClient, path: str, body: dict[str, Any], key: str) -> httpx.Response:
        """A definite answer, whatever happens in between."""
        began = time.monotonic()
        while True:
            assert time.monotonic() - began < STUCK_SECONDS, f"key {key} is stuck"
            try:
                answer = await client.post(path, json=body, headers={**self._headers, "idempotency-key": key})
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code < 500:
                self.slowest = max(self.slowest, time.monotonic() - began)
                return answer
            self.retries += 1
            await asyncio.sleep(RETRY_SECONDS)

    async def open_wallets(self) -> None:
        async with httpx.AsyncClient(base_url=self._deployment.url, timeout=15) as client:
            for number in range(WALLETS):
                member = await client.post("/v1/members", json={"external_id": f"m-{number}"}, headers=self._headers)
                assert member.status_code == 201, member.text
                wallet = f"{member.json()['id']}:PTS"
                answer = await self.post(client, f"/v1/wallets/{wallet}/credit", {"amount": BALANCE}, f"open-{number}")
                assert answer.status_code == 201, answer.text
                self.acknowledged[f"open-{number}"] = answer.json()["id"]
                self.wallets.append(wallet)

    async def client(self, number: int) -> None:
        rng = random.Random(SEED + number)
        async with httpx.AsyncClient(base_url=self._deployment.url, timeout=15) as client:
            while not self.stop:
                key = f"load-{next(self._numbers)}"
                wallet, other = rng.sample(self.wallets, 2)
                body: dict[str, Any] = {"amount": rng.randint(1, 40)}
                path = f"/v1/wallets/{wallet}/{rng.choice(['credit', 'debit'])}"
                if rng.random() < 0.4:
                    path, body = "/v1/transfers", {"from": wallet, "to": other, **body}
                answer = await self.post(client, path, body, key)
                if answer.status_code == 201:
                    self.acknowledged[key] = answer.json()["id"]
                else:  # The amounts are random, so a wallet may be empty; nothing else may be said.
                    assert (answer.status_code, answer.json()["code"]) == (409, "insufficient-funds"), answer.text
                    self.refused.add(key)

    async def more(self, count: int) -> None:
        """Return when so many more were acknowledged."""
        goal, deadline = len(self.acknowledged) + count, time.monotonic() + STUCK_SECONDS
        while len(self.acknowledged) < goal:
            assert time.monotonic() < deadline, "the load stands still"
            await asyncio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def loaded(tmp_path: Path) -> AsyncIterator[tuple[Deployment, Load]]:
    """A running deployment under load; at the end the load runs dry, and everything that was promised is looked up."""
    deployment = Deployment(tmp_path / "data")
    try:
        await deployment.start()
        made = await deployment.command("keys", "create", "--name", "load", "--scopes", "*")
        assert made.status == 0, made.err
        load = Load(deployment, made.out.splitlines()[-1])
        await load.open_wallets()
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(load.client(number))
            await load.more(100)
            yield deployment, load
            await load.more(100)
            load.stop = True
        await assert_promises(deployment, load)
        assert deployment.stop() == 0
    finally:
        deployment.kill()


async def assert_promises(deployment: Deployment, load: Load) -> None:
    """L4 and L5 against what the clients were told, and all laws by `guerdon verify`."""
    found: dict[str, list[str]] = {}
    async with AsyncMongoClient[dict[str, Any]](deployment.mongodb_url()) as client:
        async for row in client["guerdon"]["entries"].find({"key": {"$exists": True}}):
            found.setdefault(row["key"], []).append(row["transaction"])
    assert found == {key: [transaction] for key, transaction in load.acknowledged.items()}
    assert not load.refused & set(found)
    report = await deployment.command("verify", "--json")
    assert (report.status, report.summary["violations"]) == (0, 0), report.out


def summarise(check: str, deployment: Deployment, load: Load, back: list[float]) -> None:
    print(json.dumps({
        "check": check, "seed": SEED, "rounds": len(back), "acknowledged": len(load.acknowledged), "refused": len(load.refused),
        "retries": load.retries, "slowest_key_seconds": round(load.slowest, 1), "back_after_seconds": [round(each, 1) for each in back],
        "refused_starts": deployment.refusals, "result": "ok",
    }))  # fmt: skip


async def test_kill_worker(tmp_path: Path) -> None:
    """KILL-1: the API process, five times; another takes its place by itself."""
    back = []
    async with loaded(tmp_path) as (deployment, load):
        for _ in range(5):
            began = time.monotonic()
            await deployment.new_worker(deployment.kill_worker())
            back.append(time.monotonic() - began)
            await load.more(60)
            while time.monotonic() < began + back[-1] + CRASH_LOOP_SECONDS:
                await load.more(10)
    assert max(back) < 15
    assert load.slowest < 20
    summarise("KILL-1 worker", deployment, load, back)


@pytest.mark.parametrize("what", ["up", "mongod"])
async def test_kill_and_start_again(tmp_path: Path, what: str) -> None:
    """KILL-1 for the whole of `guerdon up`, KILL-2 for its mongod: four times, started again on the same data each time."""
    back = []
    async with loaded(tmp_path) as (deployment, load):
        victims: dict[str, Callable[[], None]] = {"up": deployment.kill, "mongod": deployment.kill_mongod}
        for _ in range(4):
            victims[what]()
            deployment.kill()
            back.append(await deployment.start())
            await load.more(60)
    assert max(back) < 15
    summarise(f"KILL-{'1' if what == 'up' else '2'} {what}", deployment, load, back)
