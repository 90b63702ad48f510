"""Clients that repeat a request with the same key until the answer is definite, remember every answer, and are asked for it at the end."""

import asyncio
import itertools
import json
import random
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import httpx
import pymongo
from pymongo import AsyncMongoClient

import guerdon
from guerdon.ledger.store import ENTRIES, decode_entry

BALANCE = 1000
AMOUNT_MAX = 40
STUCK_SECONDS = 60.0
RETRY_SECONDS = 0.05
CLIENT_SECONDS = 30.0
"""How long a client waits for one answer: longer than the service may take, so that a late answer is seen to be late."""
_TLS = ssl.create_default_context()
"""Made once, and never used: each client would make its own, and the loop with all that runs in it would stand still meanwhile."""
UNAVAILABLE = frozenset({"503 outcome-unknown", "503 database-unavailable", "503 overloaded"})
MIXED = ("credit", "debit", "credit", "debit", "debit", "transfer", "transfer", "transfer")


class Answer(NamedTuple):
    """What came of one attempt. Times are those of the monotonic clock, in seconds."""

    server: int
    key: str
    first_sent: float
    sent: float
    answered: float
    said: str
    """`201`, the status and code of a problem, or the name of the client's exception."""

    @property
    def seconds(self) -> float:
        return self.answered - self.sent


class Load:
    """Movements between a few wallets, from many clients. Client n talks to the server n modulo their number."""

    def __init__(self, urls: Sequence[str], token: str, seed: int, *, kinds: Sequence[str] = MIXED) -> None:
        self.urls = list(urls)
        self.seed = seed
        self._kinds = kinds
        self._headers = {"authorization": f"Bearer {token}"}
        self._numbers = itertools.count(1)
        self.wallets: list[str] = []
        self.acknowledged: dict[str, str] = {}
        self.refused: set[str] = set()
        self.answers: list[Answer] = []
        self._first_sent: dict[str, float] = {}
        self.slowest_key_seconds = 0.0
        self.replays = 0
        self.stop = False
        self.mongod = ""

    def session(self, server: int) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.urls[server], timeout=CLIENT_SECONDS, headers=self._headers, verify=_TLS)

    async def post(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any], key: str, *, server: int = 0
    ) -> httpx.Response:
        """A definite answer, whatever happens in between."""
        began = time.monotonic()
        first_sent = self._first_sent.setdefault(key, began)
        while True:
            sent = time.monotonic()
            assert sent - began < STUCK_SECONDS, f"key {key} is stuck"
            try:
                answer = await client.post(path, json=body, headers={"idempotency-key": key})
                said = _said(answer)
            except httpx.HTTPError as error:
                answer, said = None, type(error).__name__
            self.answers.append(Answer(server, key, first_sent, sent, time.monotonic(), said))
            if answer is not None and answer.status_code < 500:
                self.slowest_key_seconds = max(self.slowest_key_seconds, time.monotonic() - began)
                return answer
            assert answer is None or said in UNAVAILABLE, answer.text
            await asyncio.sleep(RETRY_SECONDS)

    async def open_wallets(self, count: int, balance: int = BALANCE) -> list[str]:
        opened: list[str] = []
        async with self.session(0) as client:
            for number in itertools.islice(self._numbers, count):
                member = await client.post("/v1/members", json={"external_id": f"m-{number}"})
                assert member.status_code == 201, member.text
                wallet = f"{member.json()['id']}:PTS"
                assert await self.move(client, f"/v1/wallets/{wallet}/credit", {"amount": balance}, f"open-{number}")
                opened.append(wallet)
        return opened

    async def probe(self, wallet: str, *, server: int = 0, delay_seconds: float = 0.0) -> float:
        """Return the seconds until a wallet, one that the load leaves alone, could be credited."""
        await asyncio.sleep(delay_seconds)
        began, path, key = time.monotonic(), f"/v1/wallets/{wallet}/credit", f"probe-{next(self._numbers)}"
        async with self.session(server) as client:
            assert await self.move(client, path, {"amount": 1}, key, server=server)
        return time.monotonic() - began

    async def move(self, client: httpx.AsyncClient, path: str, body: dict[str, Any], key: str, *, server: int = 0) -> bool:
        """One movement, remembered; true when it was done. The amounts are random, so a wallet may be empty; nothing else may be said."""
        answer = await self.post(client, path, body, key, server=server)
        if answer.status_code == 201:
            told = self.acknowledged.setdefault(key, answer.json()["id"])
            assert told == answer.json()["id"], f"key {key} has two transactions"
            return True
        assert (answer.status_code, answer.json()["code"]) == (409, "insufficient-funds"), answer.text
        self.refused.add(key)
        return False

    async def client(self, number: int) -> None:
        """Move value until the load is stopped; one movement in ten is asked for again, and must be told the same."""
        rng = random.Random(self.seed + number)
        server = number % len(self.urls)
        async with self.session(server) as client:
            while not self.stop:
                key, kind = f"load-{next(self._numbers)}", rng.choice(self._kinds)
                wallet, other = rng.sample(self.wallets, 2)
                body: dict[str, Any] = {"amount": rng.randint(1, AMOUNT_MAX)}
                path = f"/v1/wallets/{wallet}/{kind}"
                if kind == "transfer":
                    path, body = "/v1/transfers", {"from": wallet, "to": other, **body}
                done = await self.move(client, path, body, key, server=server)
                if rng.random() < 0.1:
                    assert await self.move(client, path, body, key, server=server) == done
                    self.replays += 1

    async def more(self, count: int, *, server: int | None = None) -> float:
        """Return the seconds until so many more were acknowledged that were first sent from now on (by one server, if it is named)."""
        began, seen, missing = time.monotonic(), len(self.answers), count
        while True:
            fresh = self.answers[seen:]
            seen += len(fresh)
            missing -= sum(each.said == "201" and each.first_sent >= began and server in (None, each.server) for each in fresh)
            if missing <= 0:
                return time.monotonic() - began
            assert time.monotonic() - began < STUCK_SECONDS, "the load stands still"
            await asyncio.sleep(RETRY_SECONDS)

    async def readable(self, *, server: int = 0) -> float:
        """Return the seconds until a balance can be read."""
        began = time.monotonic()
        async with self.session(server) as client:
            while time.monotonic() - began < STUCK_SECONDS:
                try:
                    if (await client.get(f"/v1/wallets/{self.wallets[0]}", timeout=2)).status_code == 200:
                        return time.monotonic() - began
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(RETRY_SECONDS)
        raise AssertionError("no balance can be read")

    async def status(self, path: str, *, server: int = 0) -> int:
        """What a health check answers."""
        async with self.session(server) as client:
            return (await client.get(path)).status_code

    def said(self) -> dict[str, int]:
        return dict(Counter(answer.said for answer in self.answers))

    def slowest_answer_seconds(self) -> float:
        return max(answer.seconds for answer in self.answers)

    async def assert_promises(self, database_url: str) -> None:
        """L4 and L5: what was acknowledged is in the ledger, once, and nothing else is: no refused request, and no forgotten one."""
        assert not self.refused & set(self.acknowledged)
        found: dict[str, list[str]] = {}
        async with AsyncMongoClient[dict[str, Any]](database_url, readConcernLevel="majority") as client:
            self.mongod = str((await client.server_info())["version"])
            async for row in client["guerdon"][ENTRIES].find({"key": {"$exists": True}}):
                found.setdefault(row["key"], []).append(decode_entry(row).transaction_id)
        assert found == {key: [transaction] for key, transaction in self.acknowledged.items()}

    def facts(self) -> dict[str, Any]:
        """What a check says about its load."""
        return {
            "mongod": self.mongod,
            "acknowledged": len(self.acknowledged),
            "refused": len(self.refused),
            "asked_twice": self.replays,
            "answers": self.said(),
            "slowest_answer_seconds": round(self.slowest_answer_seconds(), 1),
            "slowest_key_seconds": round(self.slowest_key_seconds, 1),
        }


def _said(answer: httpx.Response) -> str:
    if answer.status_code < 400:
        return str(answer.status_code)
    return f"{answer.status_code} {answer.json()['code']}"


def report(check: str, seed: int, **facts: Any) -> None:
    """One JSON line for a check that has passed."""
    versions = {"guerdon": guerdon.__version__, "pymongo": pymongo.version, "granian": version("granian")}
    print(json.dumps({"check": check, "seed": seed, "versions": versions, **facts, "result": "ok"}))
