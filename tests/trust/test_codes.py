"""A million codes, how long they take, and what a worker that is killed in the middle leaves."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from guerdon.database import Database
from guerdon.vouchers.models import POOL_CODES, VOUCHER_CODES
from tests.trust.deployment import Deployment
from tests.trust.figures import record
from tests.trust.groups import ALONE
from tests.trust.test_worker import ready_worker

CODES, SECONDS_MAX = 1_000_000, 120.0
KILLED_CODES, KILLS = 300_000, 2
IMPORTED = 50_000
WAIT_SECONDS = 300.0
OFFER = {"name": "5 pounds off", "kind": "discount", "value": {"type": "fixed", "amount": 500, "currency": "GBP"}}
pytestmark = [pytest.mark.trust, pytest.mark.timeout(1200), ALONE]


class House:
    """Asks one deployment for codes."""

    def __init__(self, deployment: Deployment, client: httpx.AsyncClient) -> None:
        self.deployment = deployment
        self.client = client

    async def post(self, path: str, body: object, key: str) -> dict[str, Any]:
        answer = await self.client.post(path, json=body, headers={"idempotency-key": key})
        assert answer.status_code < 300, answer.text
        return dict(answer.json())

    async def batch(self, batch_id: str) -> dict[str, Any]:
        return dict((await self.client.get(f"/v1/batches/{batch_id}")).json())

    async def until(self, batch_id: str, made: int) -> dict[str, Any]:
        """Return the batch as soon as it has so many codes, or is at its end."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            batch = await self.batch(batch_id)
            if batch["made"] >= made and (made < batch["wanted"] or batch["status"] != "running"):
                return batch
            assert time.monotonic() < deadline, f"{batch['made']} of {batch['wanted']} after {WAIT_SECONDS} s"
            await asyncio.sleep(0.05)

    async def kill_worker(self) -> None:
        worker = await ready_worker(self.deployment)
        os.kill(worker, signal.SIGKILL)


async def test_a_million_codes_are_generated_despite_a_killed_worker(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "data")
    try:
        await deployment.start()
        made = await deployment.command("keys", "create", "--name", "codes", "--scopes", "*")
        token = made.out.splitlines()[-1]
        async with httpx.AsyncClient(base_url=deployment.url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
            house = House(deployment, client)
            await ready_worker(deployment)
            offer = (await house.post("/v1/offers", OFFER, "offer"))["id"]

            began = time.monotonic()
            batch = (await house.post(f"/v1/offers/{offer}/codes", {"count": CODES}, "million"))["id"]
            assert (await house.until(batch, CODES))["status"] == "done"
            seconds = time.monotonic() - began
            record(f"{CODES:,} codes made", f"{seconds:.1f} s", f"<= {SECONDS_MAX:.0f} s")
            assert seconds <= SECONDS_MAX
            began = time.monotonic()
            assert len(set(await exported(client, batch))) == CODES
            export_seconds = time.monotonic() - began
            record(f"{CODES:,} codes exported", f"{export_seconds:.1f} s")

            killed = (await house.post(f"/v1/offers/{offer}/codes", {"count": KILLED_CODES}, "killed"))["id"]
            stopped_at = []
            for kill in range(KILLS):
                stopped_at.append((await house.until(killed, (kill + 1) * KILLED_CODES // (KILLS + 2)))["made"])
                await house.kill_worker()
            assert (await house.until(killed, KILLED_CODES))["status"] == "done"
            record("codes when a worker was killed", " ".join(map(str, stopped_at)), f"< {KILLED_CODES}")
            assert all(0 < each < KILLED_CODES for each in stopped_at), "it was killed too late"
            assert len(set(await exported(client, killed))) == KILLED_CODES

            imported_at = await import_and_kill(house)
            await count(deployment, batch, killed)
            issued = (await client.get(f"/v1/offers/{offer}")).json()["issued"]
            assert issued == CODES + KILLED_CODES
        verified = await deployment.command("verify", "--json")
        assert (verified.status, verified.summary["violations"]) == (0, 0), verified.out
        print(json.dumps({
            "check": "codes", "codes": CODES, "seconds": round(seconds, 1), "export_seconds": round(export_seconds, 1),
            "killed_at": stopped_at, "of": KILLED_CODES, "import_killed_at": imported_at, "result": "ok",
        }))  # fmt: skip
        assert await deployment.stopped() == 0
    finally:
        deployment.kill()


async def exported(client: httpx.AsyncClient, batch: str) -> list[str]:
    async with client.stream("GET", f"/v1/batches/{batch}/codes.csv") as answer:
        assert answer.status_code == 200
        return [line async for line in answer.aiter_lines()][1:]


async def import_and_kill(house: House) -> int:
    """Kill the worker in the middle of an import; return how far it was. Nothing can be had before all of it is there."""
    external = {"name": "a cinema's", "kind": "external_code"}
    offer = (await house.post("/v1/offers", external, "external"))["id"]
    text = "".join(f"CINEMA-{number:08d}\n" for number in range(IMPORTED))
    headers = {"content-type": "text/csv", "idempotency-key": "import"}
    answer = await house.client.post(f"/v1/offers/{offer}/codes/import", content=text, headers=headers)
    assert answer.status_code == 202, answer.text
    batch = answer.json()["id"]
    stopped_at = (await house.until(batch, 1))["made"]
    await house.kill_worker()
    if (await house.batch(batch))["status"] == "running":
        assert (await house.client.get(f"/v1/offers/{offer}")).json()["stock"] == 0
    assert (await house.until(batch, IMPORTED))["status"] == "done"
    assert (await house.client.get(f"/v1/offers/{offer}")).json()["stock"] == IMPORTED
    assert await exported(house.client, batch) == [f"{line}," for line in text.splitlines()]
    return int(stopped_at)


async def count(deployment: Deployment, *batches: str) -> None:
    """In the database itself there is neither a code too many nor one too few."""
    database = Database(deployment.mongodb_url(), "guerdon")
    try:
        counts = [await database.raw[VOUCHER_CODES].count_documents({"batch": batch}) for batch in batches]
        assert counts == [CODES, KILLED_CODES]
        assert await database.raw[POOL_CODES].count_documents({}) == IMPORTED
    finally:
        await database.close()
