"""`python -m bench.segments`: time and memory of a run of segments over 100,000 members with a million purchases.

The members, their events and states are written in bulk on a mongod of this program's own, and one worker's runner computes the segments in this
process: first the groups alone, then with three conditions of which one reads the sealed profiles. The groups are compared with ranks that
are computed from the written purchases in memory.
"""

import argparse
import asyncio
import bisect
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from pymongo import WriteConcern

from bench.running import machine
from guerdon import embedded
from guerdon.access.token_keys import TokenKeys
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, PURCHASE, REFUNDS, Item, MemberState, PurchaseRefunds, RecordedEvent
from guerdon.clock import SystemClock
from guerdon.config import load
from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Collection, Document
from guerdon.members.models import MEMBERS, PERSON_KEYS, Member, Profile
from guerdon.members.vault import seal_profile
from guerdon.permissions import Actor
from guerdon.segments.models import RFM_GROUPS, SegmentRun, SegmentSet
from guerdon.segments.rules import Scores, group_of
from guerdon.wiring.services import Services, open_services

DAY_MS = 86_400_000
BATCH, SEED = 5_000, 20_261_201
CONDITIONS = {
    "big": "member.rfm.spent > 500000",
    "back": "member.days_since_last > 60 && member.purchases > 3",
    "home": "member.attributes.country == 'GB'",
}
ACTOR = Actor("key_bench", "service_key")


class Options(Struct, frozen=True):
    """Command line options."""

    members: int
    purchases: int


class Bought(Struct):
    """What one member has bought."""

    days: int
    purchases: int
    spent: int


async def run(options: Options) -> None:
    """Write the members, measure both runs, compare the groups, and print a table."""
    for line in machine().values():
        print(line)
    with tempfile.TemporaryDirectory(prefix="guerdon-segments-") as directory:
        lock = embedded.DataDirLock.acquire(Path(directory), command="bench")
        mongo = embedded.start(Path(directory))
        try:
            secrets = {"mongodb_url": mongo.url, "token_keys": TokenKeys.generate(), "master_keys": MasterKeys.generate()}
            settings = load({}, **secrets, mongodb_database="guerdon_segments")
            async with open_services(settings, SystemClock()) as services:
                await _measure(services, options)
        finally:
            mongo.stop()
            lock.release()


async def _measure(services: Services, options: Options) -> None:
    started = time.monotonic()
    bought = await _fill(services, options)
    print(f"wrote {options.members:,} members and {options.purchases:,} purchases in {time.monotonic() - started:.0f} s")
    print("| run | seconds | members/s | CPU of the worker, s | longest pause of the loop, ms | memory added, MiB |")
    print("|---|--:|--:|--:|--:|--:|")
    print(await _one_run(services, "of a night: the groups", options))
    for name, condition in CONDITIONS.items():
        await services.segments.set_segment(ACTOR, name, SegmentSet(condition))
    await services.segments.refresh(ACTOR, RFM_GROUPS[0])
    print(await _one_run(services, f"requested: with {len(CONDITIONS)} conditions", options))
    serving = await services.segments.get_serving_run()
    assert serving is not None
    _compare(serving, bought)


async def _one_run(services: Services, name: str, options: Options) -> str:
    """Do the worker's part until nothing is open; return the row of the table."""
    memory, started, cpu = _peak_mib(), time.monotonic(), time.process_time()
    pauses = [0.0]
    watch = asyncio.create_task(_watch(pauses))
    while await services.segment_runner.work():
        pass
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    watch.cancel()
    rate, added = options.members / seconds, _peak_mib() - memory
    return f"| {name} | {seconds:.1f} | {rate:,.0f} | {cpu:.1f} | {max(pauses) * 1000:.0f} | {added:.0f} |"


async def _watch(pauses: list[float]) -> None:
    """Keep the longest time for which the event loop did not run other tasks."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.001)
        pauses[0] = max(pauses[0], time.monotonic() - before - 0.001)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- the data -------------------------------------------------------------------------------------------------------


async def _fill(services: Services, options: Options) -> dict[str, Bought]:
    """Write members with sealed profiles, their purchases, one refund for each twentieth purchase, and their states."""
    rng, now_ms = random.Random(SEED), services.clock.now_ms()
    midnight = services.ledger.calendar.midnight(services.ledger.calendar.local(now_ms).date())
    bought: dict[str, Bought] = {}
    writer = _Writer(services)
    share = options.purchases / options.members
    for _ in range(options.members):
        member_id = services.ids.new("mem")
        for collection, document in _member(services, member_id, rng, now_ms):
            await writer.add(collection, document)
        number = min(int(rng.expovariate(1 / share)), 500)
        times = sorted(midnight - int(rng.random() ** 2 * 364 * DAY_MS) - 1 for _ in range(number))
        mine = bought[member_id] = Bought(0, 0, 0)
        for turn, at in enumerate(times):
            amount = rng.randrange(100, 20_000)
            event_id = f"{member_id}-{turn}"
            await writer.add(EVENTS, _event(event_id, member_id, at, amount))
            refund = amount if rng.random() < 0.02 else amount // 2 if rng.random() < 0.03 else 0
            if refund:
                row = PurchaseRefunds(id=f"{member_id}/{event_id}", owner=member_id, count=1, amount=refund)
                await writer.add(REFUNDS, Collection.encode(row))
            mine.purchases += refund < amount
            mine.spent += amount - refund
            mine.days = services.ledger.calendar.local(midnight).date().toordinal() - (
                services.ledger.calendar.local(at).date().toordinal()
            )
        if times:
            state = MemberState(
                id=member_id,
                owner=member_id,
                count=number,
                purchases=number,
                last_purchase_at=times[-1],
                purchase_times=tuple(times[-64:]),
            )
            await writer.add(MEMBER_STATES, Collection.encode(state))
        else:
            del bought[member_id]
    await writer.finish()
    return bought


def _member(services: Services, member_id: str, rng: random.Random, now_ms: int) -> Iterator[tuple[str, Document]]:
    row, key = services.vault.new_key(member_id)
    profile = Profile(external_id=member_id[4:], attributes={"country": rng.choice(["GB", "FR", "DE"])})
    yield PERSON_KEYS, Collection.encode(row)
    yield MEMBERS, Collection.encode(Member(id=member_id, sealed=seal_profile(member_id, profile, key), created_at=now_ms))


def _event(event_id: str, member_id: str, at: int, amount: int) -> Document:
    event = RecordedEvent(
        id=event_id,
        owner=member_id,
        type=PURCHASE,
        occurred_at=at,
        amount=amount,
        currency="GBP",
        items=[Item(sku="tea", quantity=2, unit_price=amount // 2)],
        attributes={"channel": "web"},
        fingerprint=b"0" * 16,
        recorded_at=at,
        recorded_by=ACTOR.id,
        awards=[],
        decisions=[],
    )
    return Collection.encode(event)


class _Writer:
    """Writes documents in unordered batches."""

    def __init__(self, services: Services) -> None:
        raw = services.database.raw
        self._raw = raw.client.get_database(raw.name, write_concern=WriteConcern(1))
        self._pending: dict[str, list[Document]] = {}

    async def add(self, collection: str, document: Document) -> None:
        pending = self._pending.setdefault(collection, [])
        pending.append(document)
        if len(pending) >= BATCH:
            await self._raw[collection].insert_many(self._pending.pop(collection), ordered=False)

    async def finish(self) -> None:
        for collection, documents in self._pending.items():
            await self._raw[collection].insert_many(documents, ordered=False)


def _compare(serving: SegmentRun, bought: dict[str, Bought]) -> None:
    """Compare the counts of the groups with ranks of the written purchases.

    Raises:
        SystemExit: they differ.
    """
    days, purchases, spent = (sorted(getattr(each, name) for each in bought.values()) for name in ("days", "purchases", "spent"))
    counts: dict[str, int] = dict.fromkeys(RFM_GROUPS, 0)
    for each in bought.values():
        recency = 5 - 5 * bisect.bisect_left(days, each.days) // len(days)
        frequency = 1 + 5 * bisect.bisect_left(purchases, each.purchases) // len(purchases)
        monetary = 1 + 5 * bisect.bisect_left(spent, each.spent) // len(spent)
        counts[group_of(Scores(recency, frequency, monetary))] += 1
    counts["prospects"] = serving.members - len(bought)
    found = {name: serving.counts[name] for name in RFM_GROUPS}
    if found != counts:
        raise SystemExit(f"the groups differ: {found}, expected {counts}")
    print(f"the groups equal the ranks of the written purchases: {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100_000)
    parser.add_argument("--purchases", type=int, default=1_000_000)
    asyncio.run(run(Options(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
