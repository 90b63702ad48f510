"""`python -m bench.events`: purchases per second with twenty active campaigns, single and in bulk requests of 250, through one process.

The campaigns are typical: about a third of them match a purchase, and two of those have a cap or a budget. Afterwards the ledger is
verified, and the awards in the events are compared with the entries.
"""

import argparse
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec
from msgspec import Struct
from pymongo import MongoClient

from bench import books
from bench.load import Plan
from bench.processes import BenchFailed, load
from bench.running import machine, run_in
from bench.servers import Servers

WALLETS, BULK = 10_000, 250


class Row(Struct, frozen=True):
    """A load: the request, the number of connections, and the target rate."""

    kind: Literal["event", "events"]
    connections: int
    target: int


ROWS = (Row("event", 64, 1500), Row("event", 256, 1500), Row("events", 4, 5000))
POINTS = {"type": "per_amount", "points": 1, "per": 100, "rounding": "floor"}


def fixed(amount: int) -> dict[str, Any]:
    return {"type": "fixed", "amount": amount}


CAMPAIGNS: list[dict[str, Any]] = [
    {"award": POINTS},
    {"award": {"type": "percent", "percent": "5"}, "asset": "GBP", "caps": [{"scope": "member", "period": "month", "limit": 2000}]},
    {"award": fixed(50), "condition": "event.items.exists(item, item.category == 'tea')", "budget": 10**12},
    {"award": fixed(25), "condition": "event.amount >= 25000"},
    {"award": fixed(500), "condition": "member.first_purchase"},
    {"award": fixed(40), "condition": "member.days_since_last >= 60"},
    {"award": POINTS, "schedule": [{"days": ["sat", "sun"]}]},
    {"award": fixed(5), "schedule": [{"days": ["fri"], "starts": "17:00", "ends": "19:00"}]},
    *({"award": fixed(10), "condition": f"event.attributes.channel == 'shop-{n}'"} for n in range(4)),
    *({"award": fixed(10), "condition": f"event.items.exists(item, item.sku == 'NEW-{n}')"} for n in range(4)),
    *({"award": fixed(10), "event_types": [name]} for name in ("signup", "review", "visit", "survey")),
]


class Options(Struct, frozen=True):
    """Command line options."""

    seconds: float
    rounds: int


def run(options: Options) -> None:
    """Measure, verify, and print a table."""
    for line in machine().values():
        print(line)

    def within(directory: Path) -> None:
        with Servers(directory) as servers:
            wallets_file = directory / "wallets.txt"
            books.seed(servers, WALLETS, wallets_file)
            token = (
                servers.guerdon("keys", "create", "--name", "events", "--scopes", "events:write,campaigns:write")
                .strip()
                .splitlines()[-1]
            )
            _activate(servers.product.port, token)
            done = 0
            print(
                f"| requests, connections | events/s (median of {options.rounds}) | target | p50 ms | p99 ms | CPU us/event: API | mongod |"
            )
            print("|---|---|---|---|---|---|---|")
            for row in ROWS:
                plan = Plan(
                    port=servers.product.port,
                    token=token,
                    wallets_file=str(wallets_file),
                    kind=row.kind,
                    connections=row.connections,
                    seconds=options.seconds,
                    tag="",
                    bulk_size=BULK,
                    watch={"API": servers.product.pids, "mongod": servers.mongod_pids},
                )
                done += _measure(row, plan, options.rounds)
            _check(servers, done)

    run_in(None, within)


def _measure(row: Row, plan: Plan, rounds: int) -> int:
    """Measure and print one row; return the number of acknowledged events."""
    samples = [load(msgspec.structs.replace(plan, tag=f"{row.kind}-{row.connections}-{turn}")) for turn in range(rounds)]
    errors = {name: count for sample in samples for name, count in sample.errors.items()}
    if errors:
        raise BenchFailed(f"{row.kind}: {errors}")
    middle = sorted(samples, key=lambda sample: sample.units / sample.seconds)[len(samples) // 2]
    if not middle.latencies_us:
        raise BenchFailed(f"{row.kind}: nothing was answered within the window; take longer --seconds")
    waits, rate = sorted(middle.latencies_us), middle.units / middle.seconds
    name = "`POST /v1/events`" if row.kind == "event" else f"`POST /v1/events/bulk`, {BULK} in a request"
    print(
        f"| {name}, {row.connections} | {rate:,.0f} | {row.target:,} | {waits[len(waits) // 2] / 1000:.1f} "
        f"| {waits[int(len(waits) * 0.99)] / 1000:.1f} | {middle.cpu['API'] * 1e6 / rate:.0f} | {middle.cpu['mongod'] * 1e6 / rate:.0f} |"
    )
    return sum(sample.done for sample in samples)


def _activate(port: int, token: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}) as client:
        for number, campaign in enumerate(CAMPAIGNS):
            body = {"name": f"campaign {number}", "asset": "PTS", "event_types": ["purchase"], **campaign}
            made = client.post("/v1/campaigns", json=body)
            if made.status_code != 201 or client.post(f"/v1/campaigns/{made.json()['id']}/activate").status_code != 200:
                raise BenchFailed(made.text)


def _check(servers: Servers, done: int) -> None:
    """Check that every acknowledged event is recorded once, that awards and entries agree, and that the ledger verifies."""
    with MongoClient[dict[str, Any]](servers.mongodb_url) as client:
        database = client["guerdon"]
        recorded = database["events"].count_documents({})
        steps = [{"$unwind": "$awards"}, {"$group": {"_id": None, "total": {"$sum": "$awards.amount"}, "count": {"$sum": 1}}}]
        paid = next(iter(database["events"].aggregate(steps)))
        entries = [
            {"$match": {"kind": "award", "counter": "system:issuer"}},
            {"$group": {"_id": None, "total": {"$sum": "$amount"}}},
        ]
        booked = next(iter(database["entries"].aggregate(entries)))["total"]
    if recorded != done or paid["total"] != booked:
        raise BenchFailed(
            f"{done} events were acknowledged, {recorded} are recorded; they paid {paid['total']}, {booked} are booked"
        )
    verified = msgspec.json.decode(servers.guerdon("verify", "--json"), type=books.Verified)
    if verified.violations:
        raise BenchFailed(f"the books are broken: {verified}")
    print(f"{recorded:,} events, {paid['count']:,} awards of {booked:,} together, {verified.entries:,} entries, 0 violations")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.events", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    run(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
