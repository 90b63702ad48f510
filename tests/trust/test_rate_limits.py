"""RATE-1: one quota, four processes, fifty connections, three times as many requests. LOGIN-3: one password, a thousand accounts.
LOGIN-1: one account, a thousand passwords."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.counter_store import running_store
from tests.trust.deployment import Deployment
from tests.trust.figures import record
from tests.trust.load import report

SEED = 0
"""Nothing here is drawn by chance."""
QUOTA, WINDOW_SECONDS, CONNECTIONS, WORKERS = 1_000, 120, 50, 4
ROOM_SECONDS = 60
"""So much of a window must be left for the burst: across its end, a part of the next one's quota would be granted too."""
ACCOUNTS, ADDRESSES, FAILURES = 1_000, 50, 500
"""So many log-ins may fail in a quarter of an hour by default (`GUERDON_RATE_FAILURES`)."""
GUESSES, GUESSED = 1_000, 10
"""So many of them may reach the hash in a quarter of an hour by default (`GUERDON_RATE_GUESSES`)."""
pytestmark = [pytest.mark.trust, pytest.mark.timeout(400)]


async def test_a_burst_through_four_processes_gets_one_quota(tmp_path: Path) -> None:
    with running_store(tmp_path) as store:
        settings = {"GUERDON_RATE_LIMIT_STORE": store.url, "GUERDON_RATE_KEY": f"{QUOTA}/{WINDOW_SECONDS}"}
        deployment = Deployment(tmp_path / "data", workers=WORKERS, settings=settings)
        try:
            await deployment.start()
            made = await deployment.command("keys", "create", "--name", "burst", "--scopes", "assets:read")
            headers = {"authorization": f"Bearer {made.out.splitlines()[-1]}"}
            left = WINDOW_SECONDS - time.time() % WINDOW_SECONDS
            await asyncio.sleep(left if left < ROOM_SECONDS else 0)
            began = time.monotonic()
            answers = await burst(deployment.url, headers)
            seconds = time.monotonic() - began
            statuses = Counter(answer.status_code for answer in answers)
            assert set(statuses) == {200, 429}
            record("RATE-1 granted by four processes", statuses[200], f"{QUOTA} +- 2 %")
            assert abs(statuses[200] - QUOTA) <= 0.02 * QUOTA, statuses
            late = [answer for answer in answers if answer.status_code == 429]
            for answer in late:
                assert answer.headers["ratelimit-policy"] == f'"key";q={QUOTA};w={WINDOW_SECONDS}'
                assert int(answer.headers["retry-after"]) >= int(answer.headers["ratelimit"].rpartition("t=")[2])
            wait_seconds = int(late[-1].headers["retry-after"])
            await asyncio.sleep(wait_seconds)
            async with httpx.AsyncClient(base_url=deployment.url, headers=headers) as client:
                assert (await client.get("/v1/assets")).status_code == 200
            report(
                "RATE-1", SEED, granted=statuses[200], refused=statuses[429], seconds=round(seconds, 1), waited_seconds=wait_seconds
            )
            assert deployment.stop() == 0
        finally:
            deployment.kill()


async def burst(url: str, headers: dict[str, str]) -> list[httpx.Response]:
    """Three times the quota, as fast as fifty connections go."""
    todo = iter(range(3 * QUOTA))
    answers: list[httpx.Response] = []
    limits = httpx.Limits(max_connections=1)

    async def connection() -> None:
        async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=30) as client:
            answers.extend([await client.get("/v1/assets") for _ in todo])

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return answers


async def test_a_thousand_guesses_at_one_account_are_limited(tmp_path: Path) -> None:
    """With the quotas as they are shipped, from five hundred addresses; whether or not there is such an account."""
    deployment = Deployment(tmp_path / "data", settings={"GUERDON_TRUSTED_PROXIES": "127.0.0.1/32"})
    owner = {"email": "ada@example.com", "password": "correct horse battery"}
    told: dict[str, Counter[str]] = {}
    try:
        await deployment.start()
        left = 900 - time.time() % 900
        await asyncio.sleep(left if left < ROOM_SECONDS * 2 else 0)
        async with httpx.AsyncClient(base_url=deployment.url, timeout=60) as client:
            assert (await client.post("/v1/auth/register", json=owner)).status_code == 201
            device = (await client.post("/v1/auth/login", json=owner)).json()["device_token"]
            for email in (owner["email"], "nobody@example.com"):
                spent, guesses = Counter[str](), iter(range(GUESSES))

                async def bot(email: str, spent: Counter[str], guesses: Iterator[int]) -> None:
                    for guess in guesses:
                        body = {"email": email, "password": f"guess number {guess}"}
                        answer = await client.post(
                            "/v1/auth/login", json=body, headers=at(f"198.51.{guess % 2}.{guess % 500 // 2}")
                        )
                        spent["401" if answer.status_code == 401 else answer.json()["violated-policies"][0]] += 1

                await asyncio.gather(*(bot(email, spent, guesses) for _ in range(8)))
                record("LOGIN-1 guesses that reached the hash", spent["401"], GUESSED)
                assert spent == {"401": GUESSED, "account": GUESSES - GUESSED}
                told[email] = spent
            locked = await client.post("/v1/auth/login", json=owner, headers=at("192.0.2.1"))
            assert (locked.status_code, locked.json()["violated-policies"]) == (429, ["account"])
            known = {**owner, "device_token": device}
            assert (await client.post("/v1/auth/login", json=known, headers=at("192.0.2.1"))).status_code == 200
        report(
            "LOGIN-1", SEED, guesses=GUESSES, addresses=500, reached_the_hash={email: each["401"] for email, each in told.items()}
        )
        assert deployment.stop() == 0
    finally:
        deployment.kill()


async def test_one_password_sprayed_over_a_thousand_accounts(tmp_path: Path) -> None:
    """With the quotas as they are shipped, and a gateway that tells the addresses. Every account is tried once, so none of them notices."""
    deployment = Deployment(tmp_path / "data", settings={"GUERDON_TRUSTED_PROXIES": "127.0.0.1/32"})
    owner = {"email": "ada@example.com", "password": "correct horse battery"}
    try:
        await deployment.start()
        left = 900 - time.time() % 900
        await asyncio.sleep(left if left < ROOM_SECONDS * 2 else 0)
        async with httpx.AsyncClient(base_url=deployment.url, timeout=60) as client:
            assert (await client.post("/v1/auth/register", json=owner)).status_code == 201
            accounts, spent = iter(range(ACCOUNTS)), Counter[str]()

            async def bot() -> None:
                for account in accounts:
                    body = {"email": f"member-{account}@example.com", "password": "Password1!"}
                    answer = await client.post("/v1/auth/login", json=body, headers=at(f"198.51.100.{account % ADDRESSES}"))
                    spent["401" if answer.status_code == 401 else answer.json()["violated-policies"][0]] += 1

            began = time.monotonic()
            await asyncio.gather(*(bot() for _ in range(8)))
            seconds = time.monotonic() - began
            # Every address has one more try by then, and whoever knows the password needs no second one.
            record("LOGIN-3 guesses that reached the hash", spent["401"], FAILURES + ADDRESSES)
            assert spent == {"401": FAILURES + ADDRESSES, "spray": ACCOUNTS - FAILURES - ADDRESSES}
            assert (await client.post("/v1/auth/login", json=owner, headers=at("192.0.2.1"))).status_code == 200
        report("LOGIN-3", SEED, accounts=ACCOUNTS, addresses=ADDRESSES, seconds=round(seconds, 1), **spent)
        assert deployment.stop() == 0
    finally:
        deployment.kill()


def at(address: str) -> dict[str, str]:
    return {"x-forwarded-for": address}
