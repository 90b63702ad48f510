"""`python -m bench.flash`: 10,000 members race for 100 vouchers over HTTP, with one process, four, and four of which one is killed.

Checked in the database against the responses: exactly 100 vouchers, a definite response for every member, and no points taken from the
others. The ledger is verified.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
from msgspec import Struct
from pymongo import MongoClient

from bench import books
from bench.processes import BenchFailed, Target, environment
from bench.running import machine, run_in
from bench.rush import GIVE_UP_SECONDS, Result, Rush
from bench.servers import Servers

PRICE, TARGET = 100, 2000


class Options(Struct, frozen=True):
    """Command line options."""

    members: int
    units: int
    connections: int
    rounds: int


def run(options: Options) -> None:
    """Measure, count, verify, and print a table."""
    for line in machine().values():
        print(line)

    def within(directory: Path) -> None:
        with Servers(directory) as servers:
            wallets_file, members_file = directory / "wallets.txt", directory / "members.txt"
            books.seed(servers, options.members, wallets_file)
            wallets = wallets_file.read_text(encoding="ascii").split()
            members_file.write_text("\n".join(wallet.partition(":")[0] for wallet in wallets), encoding="ascii")
            made = servers.guerdon("keys", "create", "--name", "flash", "--scopes", "offers:write,vouchers:write")
            token = made.strip().splitlines()[-1]
            print(
                "| API processes | attempts/s | target | p50 ms | p99 ms | API, mongod CPU us/attempt | issued | refused | asked again |"
            )
            print("|---|---|---|---|---|---|---|---|---|")
            sale = Sale(servers, options, token, members_file)
            for turn in range(options.rounds):
                sale.hold(f"1, round {turn + 1}", servers.product)
            for turn in range(options.rounds):
                sale.hold(f"4, round {turn + 1}", servers.four)
            sale.hold("4, one killed with -9", servers.four, kill_after=options.members // 100)
            sale.hold("4, one killed with -9 in the middle", servers.four, kill_after=options.members // 2)
            verified = msgspec.json.decode(servers.guerdon("verify", "--json"), type=books.Verified)
            if verified.violations:
                raise BenchFailed(f"the books are broken: {verified}")
            print(f"{verified.entries:,} entries, 0 violations")

    run_in(None, within)


class Sale:
    """Flash sales to the same members, one after another, each with its own offer."""

    def __init__(self, servers: Servers, options: Options, token: str, members_file: Path) -> None:
        self._servers = servers
        self._options = options
        self._token = token
        self._members_file = members_file
        self._sold: dict[str, int] = {}
        """Number of redemptions by member."""

    def hold(self, name: str, target: Target, *, kill_after: int = 0) -> None:
        """Run one sale and print its row."""
        options, offer = self._options, self._offer(target.port)
        rush = Rush(
            port=target.port,
            token=self._token,
            members_file=str(self._members_file),
            offer=offer,
            connections=options.connections,
            watch={"API": target.pids, "mongod": self._servers.mongod_pids},
            kill_after=kill_after,
        )
        result = _run(rush)
        self._check(offer, result)
        again = sum(count for name, count in result.answers.items() if name.endswith("asked again"))
        waits = sorted(result.latencies_ms)
        # The CPU time of a killed process is unknown.
        watched = () if kill_after else ("API", "mongod")
        cpu = ", ".join(f"{result.cpu[each] * 1e6 / options.members:.0f}" for each in watched)
        print(
            f"| {name} | {options.members / result.seconds:,.0f} | {TARGET:,} | {waits[len(waits) // 2]:.0f} "
            f"| {waits[int(len(waits) * 0.99)]:.0f} | {cpu} | {len(result.winners)} | {result.answers['409 sold-out']:,} | {again} |",
            flush=True,
        )

    def _offer(self, port: int) -> str:
        body = {
            "name": "flash sale",
            "kind": "item",
            "value": {"type": "item", "sku": "FLASH"},
            "price": {"asset": books.ASSET, "amount": PRICE},
            "stock": self._options.units,
            "per_member_limit": 1,
        }
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {self._token}"}) as client:
            made = client.post("/v1/offers", json=body)
            if made.status_code != 201 or client.post(f"/v1/offers/{made.json()['id']}/activate").status_code != 200:
                raise BenchFailed(made.text)
            return str(made.json()["id"])

    def _check(self, offer: str, result: Result) -> None:
        """
        Raises:
            BenchFailed: a voucher or a point too many or too few, or an answer that is not definite.
        """
        members, units = self._options.members, self._options.units
        definite = {name: count for name, count in result.answers.items() if not name.endswith("asked again")}
        if definite != {"201": units, "409 sold-out": members - units}:
            raise BenchFailed(f"{result.answers}")
        with MongoClient[dict[str, Any]](self._servers.mongodb_url) as client:
            database = client["guerdon"]
            holders = [str(row["member"]) for row in database["vouchers"].find({"offer": offer})]
            stock = database["accounts"].find_one({"_id": f"{offer}:stock"}) or {}
            told = database["outbox"].count_documents({"channel": "webhooks"})
            if sorted(holders) != sorted(result.winners) or stock["balance"] != units:
                raise BenchFailed(f"{len(holders)} vouchers of {stock}; {len(result.winners)} were told that they have one")
            for member in holders:
                self._sold[member] = self._sold.get(member, 0) + 1
            if told != sum(self._sold.values()):
                raise BenchFailed(f"{told} events are to be told of {sum(self._sold.values())} vouchers")
            for wallet in database["accounts"].find({"kind": "wallet"}):
                expected = books.OPENING_BALANCE - PRICE * self._sold.get(wallet["owner"], 0)
                if wallet["balance"] != expected:
                    raise BenchFailed(f"{wallet['_id']} holds {wallet['balance']}, not {expected}")


def _run(rush: Rush) -> Result:
    """Run the members in their own process."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.rush"],
        input=msgspec.json.encode(rush),
        env=environment(),
        capture_output=True,
        timeout=GIVE_UP_SECONDS + 60,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"the crowd has failed\n{done.stderr[-2000:].decode('utf-8', 'replace')}")
    return msgspec.json.decode(done.stdout, type=Result)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.flash", description=__doc__)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    run(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
