"""RT-4: kill -9 of the API between the death of a refresh token and the arrival of its successor."""

import asyncio
import random
import statistics
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from pymongo import AsyncMongoClient

from tests.trust.deployment import Deployment, kill_worker
from tests.trust.figures import record
from tests.trust.load import report

SEED = 20_261_126
ROUNDS, ROUNDS_MAX = 10, 30
"""More than `ROUNDS` only until a kill has met the moment between the rotation and the answer."""
STEADY_SECONDS = 6.0
"""How old a worker must be before it is killed: the server gives up when one dies within five seconds of its start."""
SHARES = 0.4, 1.5
"""The kill comes after so much of the time that a refresh takes: before, within and after the rotation."""
PERSON = {"email": "ada@example.com", "password": "correct horse battery"}
pytestmark = [pytest.mark.trust, pytest.mark.timeout(600)]


async def test_a_session_survives_the_death_of_the_process_that_rotates_it(tmp_path: Path) -> None:
    chance, ends = random.Random(SEED), Counter[str]()
    deployment = Deployment(tmp_path / "data", settings={"GUERDON_RATE_LIMIT": "off"})
    try:
        await deployment.start()
        async with client_of(deployment) as client:
            await client.post("/v1/auth/register", json=PERSON)
            tokens = (await client.post("/v1/auth/login", json=PERSON)).json()
        while ends.total() < ROUNDS or (not ends["rotated_and_lost"] and ends.total() < ROUNDS_MAX):
            [worker] = deployment.workers()
            async with client_of(deployment) as client:
                tokens, takes_seconds = await refreshed_calmly(client, tokens)
                before = await rotations(deployment)
                asking = asyncio.create_task(refresh(client, tokens["refresh_token"]))
                await asyncio.sleep(chance.uniform(*SHARES) * takes_seconds)
                kill_worker(worker)
                answered = await asking
            ends[end_of(before != await rotations(deployment), answered is not None)] += 1
            await deployment.new_worker({worker})
            born = time.monotonic()
            await deployment.ready()
            async with client_of(deployment) as client:
                # Within the grace the same token is good once more, whether it was dead already or not.
                again = await refresh(client, tokens["refresh_token"])
                assert again is not None
                assert answered is None or again["refresh_token"] == answered["refresh_token"]
                bearer = {"authorization": f"Bearer {again['access_token']}"}
                assert (await client.get("/v1/me", headers=bearer)).status_code == 200
                tokens = again
            await asyncio.sleep(max(0.0, born + STEADY_SECONDS - time.monotonic()))
        report("RT-4", SEED, rounds=ends.total(), **ends)
        record("RT-4 sessions that survived", f"{ends.total()} of {ends.total()}", "all")
        record("RT-4 kills between rotation and answer", ends["rotated_and_lost"], "> 0")
        assert ends["rotated_and_lost"] > 0, ends
        assert deployment.stop() == 0
    finally:
        deployment.kill()


def client_of(deployment: Deployment) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=deployment.url, timeout=20)


async def refreshed_calmly(client: httpx.AsyncClient, tokens: dict[str, str]) -> tuple[dict[str, str], float]:
    """Refresh a few times, as the round begins with a process that has just started; return the tokens and what the last times took."""
    seconds: list[float] = []
    for _ in range(8):
        began = time.monotonic()
        made = await refresh(client, tokens["refresh_token"])
        seconds.append(time.monotonic() - began)
        assert made is not None
        tokens = made
    return tokens, statistics.median(seconds[4:])


async def rotations(deployment: Deployment) -> bytes:
    """What stands in the database for the living token: another one after each rotation."""
    async with AsyncMongoClient(deployment.mongodb_url()) as mongo:
        [row] = await mongo["guerdon"]["sessions"].find({}, {"current": 1}).to_list()
        return bytes(row["current"])


def end_of(rotated: bool, answered: bool) -> str:
    return "answered" if answered else "rotated_and_lost" if rotated else "not_rotated"


async def refresh(client: httpx.AsyncClient, token: str) -> dict[str, str] | None:
    """The next pair, or None when no answer came."""
    try:
        answer = await client.post("/v1/auth/refresh", json={"refresh_token": token})
    except httpx.TransportError:
        return None
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
