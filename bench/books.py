"""Wallets for a run, created through the product's services, and the check afterwards that no unit was lost or created."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from pymongo import ASCENDING, MongoClient, WriteConcern

from bench import baseline
from bench.processes import BenchFailed
from bench.servers import Servers
from guerdon.bulk.models import BulkCreate
from guerdon.cli.database import local_database, local_services
from guerdon.config import load
from guerdon.members.models import Member
from guerdon.permissions import Actor
from guerdon.wallets.models import BulkCredit
from guerdon.wiring.services import Services

ASSET = "PTS"
OPENING_BALANCE = 10**12
CHUNK = 500
_SEEDER = Actor("bench", "system", frozenset({"*"}))


class Verified(Struct):
    """Result of `guerdon verify`."""

    accounts: int
    entries: int
    violations: int


def seed(servers: Servers, count: int, wallets_file: Path) -> None:
    """Create `count` wallets with a large balance and the same ids in the product and in the baseline."""

    async def within() -> list[str]:
        with local_database(load({}, data_dir=servers.data_dir), "bench") as settings:
            async with local_services(settings) as services:
                return await _open_wallets(services, count)

    wallets = asyncio.run(within())
    wallets_file.write_text("\n".join(wallets), encoding="ascii")
    with _client(servers) as client:
        database = client.get_database(baseline.DATABASE, write_concern=WriteConcern("majority", j=True))
        database["wallets"].insert_many([{"_id": wallet, "balance": OPENING_BALANCE, "seq": 0} for wallet in wallets])
        # One index serves the key's uniqueness and a wallet's history, as in the product.
        database["entries"].create_index([("wallet", ASCENDING), ("key", ASCENDING)], unique=True)


async def _open_wallets(services: Services, count: int) -> list[str]:
    """Create members in bulk, which is not measured, and credit their wallets through the ledger."""
    now = services.clock.now_ms()
    members = [Member(id=services.ids.new("mem"), created_at=now) for _ in range(count)]
    await services.database.raw["members"].insert_many([msgspec.to_builtins(member) for member in members])
    wallets = [f"{member.id}:{ASSET}" for member in members]
    for start in range(0, count, CHUNK):
        chunk = wallets[start : start + CHUNK]
        body = BulkCreate([BulkCredit(wallet, OPENING_BALANCE, f"open-{wallet}") for wallet in chunk])
        results = await services.bulk.run(_SEEDER, body)
        refused = [result for result in results if result.status != 201]
        if refused:
            raise BenchFailed(f"a wallet could not be opened: {refused[0]}")
    return wallets


def check(servers: Servers, wallets: int, acknowledged: dict[str, int]) -> Verified:
    """Check that every acknowledged debit took exactly one unit and that nothing else did, and verify the ledger.

    Raises:
        BenchFailed: The number of units or entries is wrong, or a law of the ledger is broken.
    """
    with _client(servers) as client:
        sums = {
            "product": _sum(client["guerdon"]["accounts"], "$balance"),
            "baseline": _sum(client[baseline.DATABASE]["wallets"], "$balance"),
        }
    for name, total in sums.items():
        spent = wallets * OPENING_BALANCE - total
        if spent != acknowledged[name]:
            raise BenchFailed(f"{name}: {acknowledged[name]} debits were acknowledged, the balances fell by {spent}")
    verified = msgspec.json.decode(servers.guerdon("verify", "--json"), type=Verified)
    if verified.violations:
        raise BenchFailed(f"the books of the product are broken: {verified}")
    if verified.entries != wallets + acknowledged["product"]:
        raise BenchFailed(f"{verified.entries} entries, {wallets} credits and {acknowledged['product']} debits")
    return verified


def _sum(collection: Any, field: str) -> int:
    return int(next(iter(collection.aggregate([{"$group": {"_id": None, "total": {"$sum": field}}}])))["total"])


def _client(servers: Servers) -> "MongoClient[dict[str, Any]]":
    return MongoClient(servers.mongodb_url, tz_aware=True)
