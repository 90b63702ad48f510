"""RT-4: kill -9 of the API between the death of a refresh token and the arrival of its successor."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.trust.deployment import Deployment, kill_worker
from tests.trust.load import report

SEED = 20_261_126
ROUNDS = 10
STEADY_SECONDS = 6.0
"""The server gives up when a worker dies twice within five seconds."""
DELAY_SECONDS_MAX = 0.012
"""A refresh takes about so long, so the kills fall before, into and after it."""
PERSON = {"email": "ada@example.com", "password": "correct horse battery"}
pytestmark = [pytest.mark.trust, pytest.mark.timeout(300)]


async def test_a_session_survives_the_death_of_the_process_that_rotates_it(tmp_path: Path) -> None:
    chance, lost = random.Random(SEED), Counter[str]()
    deployment = Deployment(tmp_path / "data", settings={"GUERDON_RATE_LIMIT": "off"})
    try:
        await deployment.start()
        async with httpx.AsyncClient(base_url=deployment.url, timeout=20) as client:
            await client.post("/v1/auth/register", json=PERSON)
            tokens = (await client.post("/v1/auth/login", json=PERSON)).json()
        for _ in range(ROUNDS):
            [worker] = deployment.workers()
            async with httpx.AsyncClient(base_url=deployment.url, timeout=20) as client:
                assert (await client.get("/v1/me", headers=bearer(tokens))).status_code == 200
                asking = asyncio.create_task(refresh(client, tokens["refresh_token"]))
                await asyncio.sleep(chance.uniform(0, DELAY_SECONDS_MAX))
                kill_worker(worker)
                answered = await asking
            lost["answer arrived" if answered else "answer lost"] += 1
            await deployment.new_worker({worker})
            await deployment.ready()
            async with httpx.AsyncClient(base_url=deployment.url, timeout=20) as client:
                # Within the grace the same token is good once more, whether it was dead already or not.
                again = await refresh(client, tokens["refresh_token"])
                assert again is not None
                assert answered is None or again["refresh_token"] == answered["refresh_token"]
                tokens = again
            await asyncio.sleep(STEADY_SECONDS)
        report("RT-4", SEED, rounds=ROUNDS, **{name.replace(" ", "_"): count for name, count in lost.items()})
        assert lost["answer lost"] > 0
        assert deployment.stop() == 0
    finally:
        deployment.kill()


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"authorization": f"Bearer {tokens['access_token']}"}


async def refresh(client: httpx.AsyncClient, token: str) -> dict[str, str] | None:
    """The next pair, or None when no answer came."""
    try:
        answer = await client.post("/v1/auth/refresh", json={"refresh_token": token})
    except httpx.TransportError:
        return None
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
