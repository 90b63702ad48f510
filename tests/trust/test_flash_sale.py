"""A flash sale through four processes, one of which is killed with -9 in the middle: exact counts, and nobody else has lost a point."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from pymongo import AsyncMongoClient

from guerdon.clock import SystemClock
from guerdon.ids import IdSource
from guerdon.members.models import Member
from tests.trust.concurrent_callers import Caller, callers
from tests.trust.deployment import Deployment, kill_worker
from tests.trust.figures import record

WORKERS, MEMBERS, UNITS, CONNECTIONS = 4, 10_000, 100, 500
PRICE, FUNDS, BULK = 100, 150, 250
FINISH_SECONDS = 240.0
pytestmark = [pytest.mark.trust, pytest.mark.timeout(600)]


async def open_members(client: httpx.AsyncClient, database: Any) -> list[str]:
    """Members with enough for one voucher. They are written in bulk, since they are not what is tested; every point goes through the ledger."""
    ids = IdSource(SystemClock())
    members = [Member(id=ids.new("mem"), created_at=1) for _ in range(MEMBERS)]
    await database["members"].insert_many([msgspec.to_builtins(member) for member in members])
    for start in range(0, MEMBERS, BULK):
        chunk = [member.id for member in members[start : start + BULK]]
        commands = [{"type": "credit", "wallet": f"{member}:PTS", "amount": FUNDS, "key": member} for member in chunk]
        answer = await client.post("/v1/bulk", json={"commands": commands})
        assert answer.status_code == 200, answer.text
        assert {result["status"] for result in answer.json()["results"]} == {201}, answer.text
    return [member.id for member in members]


class Sale:
    """Everybody asks until the answer is definite, always with the same key."""

    def __init__(self, port: int, token: str, offer: str, members: list[str]) -> None:
        self._port = port
        self._head = f"POST /v1/offers/{offer}/redeem HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self._offer = offer
        self._waiting = list(enumerate(members))
        self.definite: dict[str, str] = {}
        self.again: Counter[str] = Counter()
        self.begun = asyncio.Event()
        """Somebody has an answer, and thousands have not."""

    async def serve(self, caller: Caller) -> None:
        """One connection: takes the next member until nobody is left."""
        while self._waiting:
            number, member = self._waiting.pop()
            body = f'{{"member_id":"{member}"}}'
            request = f"{self._head}Idempotency-Key: {self._offer}-{number}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            while True:
                answer = await caller.send(request)
                if answer.status not in (0, 503):
                    break
                self.again[f"{answer.status} {answer.code}"] += 1
                await asyncio.sleep(0.05)
                if answer.status == 0:
                    [caller] = await callers(self._port, 1)
            self.begun.set()
            # The voucher's own code stands in a good answer.
            self.definite[member] = "201" if answer.status == 201 else f"{answer.status} {answer.code}"
        caller.close()


@pytest.mark.parametrize("kill", [False, True], ids=["four processes", "one of them killed"])
async def test_ten_thousand_callers_race_for_a_hundred_vouchers(tmp_path: Path, kill: bool) -> None:
    deployment = Deployment(tmp_path / "data", workers=WORKERS)
    try:
        await deployment.start()
        made = await deployment.command("keys", "create", "--name", "flash", "--scopes", "*")
        token = made.out.splitlines()[-1]
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx.AsyncClient(base_url=deployment.url, timeout=60, headers=headers) as client,
            AsyncMongoClient[dict[str, Any]](deployment.mongodb_url(), readConcernLevel="majority") as mongo,
        ):
            database = mongo["guerdon"]
            members = await open_members(client, database)
            value, price = {"type": "item", "sku": "FLASH"}, {"asset": "PTS", "amount": PRICE}
            body = {"name": "flash", "kind": "item", "value": value, "price": price, "stock": UNITS, "per_member_limit": 1}
            offer = (await client.post("/v1/offers", json=body)).json()["id"]
            assert (await client.post(f"/v1/offers/{offer}/activate")).status_code == 200
            sale = Sale(deployment.port, token, offer, members)
            crowd = await callers(deployment.port, CONNECTIONS)
            began = time.monotonic()
            asking = [asyncio.ensure_future(sale.serve(caller)) for caller in crowd]
            if kill:
                await sale.begun.wait()
                kill_worker(min(deployment.workers()))
            async with asyncio.timeout(FINISH_SECONDS):
                await asyncio.gather(*asking)
            seconds = time.monotonic() - began
            record(
                f"flash sale{', one process killed' if kill else ''}: won of {MEMBERS:,}",
                Counter(sale.definite.values())["201"],
                UNITS,
            )
            record("flash sale: last answer", f"{seconds:.1f} s", f"< {FINISH_SECONDS:.0f} s")
            assert Counter(sale.definite.values()) == {"201": UNITS, "409 sold-out": MEMBERS - UNITS}
            assert set(sale.again) <= {"0 connection lost", "503 outcome-unknown", "503 overloaded", "503 database-unavailable"}
            assert bool(sale.again) >= kill
            winners = {member for member, said in sale.definite.items() if said == "201"}
            holders = [row["member"] async for row in database["vouchers"].find({"offer": offer})]
            assert sorted(holders) == sorted(winners)
            async for wallet in database["accounts"].find({"kind": "wallet"}):
                assert wallet["balance"] == FUNDS - PRICE * (wallet["owner"] in winners), wallet["_id"]
            assert (await database["accounts"].find_one({"_id": f"{offer}:stock"}) or {})["balance"] == UNITS
            assert await database["outbox"].count_documents({"kind": "voucher.issued"}) == UNITS
        report = await deployment.command("verify", "--json")
        assert (report.status, report.summary["violations"]) == (0, 0), report.out
        print(
            json.dumps(
                {"check": "flash sale", "workers": WORKERS, "killed": kill, "seconds": round(seconds, 1), "again": dict(sale.again)}
            )
        )
        assert deployment.stop() == 0
    finally:
        deployment.kill()
