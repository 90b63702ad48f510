"""A small view group: it counts the entries of each account and the events of each member."""

from typing import Any

from msgspec import Struct, field

from guerdon.campaigns.domain import MEMBER_STATES
from guerdon.database import Document
from guerdon.ledger.store import ACCOUNTS
from guerdon.projections.models import Aggregate, Folded, Increment, Source, Target, ViewGroup
from guerdon.projections.reading import Views
from guerdon.views.sources import entry_feed, event_feed, void_feed
from guerdon.wiring.services import Services
from tests.views import poisoned

ENTRY_COUNTS = Aggregate("test_entry_counts", ("asset", "kind"), ("count", "amount"))
EVENT_COUNTS = Aggregate("test_event_counts", ("type",), ("count",))


class AccountCount(Struct, frozen=True):
    id: str = field(name="_id")
    version: int
    part: int
    seq: int = 0
    balance: int = 0


class MemberCount(Struct, frozen=True):
    id: str = field(name="_id")
    version: int
    part: int
    number: int = 0
    events: int = 0


def count_entry(state: AccountCount | None, row: Document, target: Target) -> Folded[AccountCount]:
    poisoned.check(row["_id"])
    account, _, number = row["_id"].rpartition("#")
    before = state or AccountCount(f"{target.version}|{account}", target.version, target.part)
    after = AccountCount(before.id, before.version, before.part, int(number), before.balance + row["amount"])
    assert after.balance == row["balance_after"]
    return Folded(after, [Increment(ENTRY_COUNTS, (row["asset"], row["kind"]), {"count": 1, "amount": row["amount"]})])


def count_event(state: MemberCount | None, row: Document, target: Target) -> Folded[MemberCount]:
    before = state or MemberCount(f"{target.version}|{row['owner']}", target.version, target.part)
    number = int((row.get("proof") or {}).get("number") or before.number)
    after = MemberCount(before.id, before.version, before.part, number, before.events + 1)
    return Folded(after, [Increment(EVENT_COUNTS, (row.get("type", "void"),), {"count": 1})])


def _as_read(row: Document) -> Any:
    return row


ENTRY_SOURCE = Source(
    "entries",
    ACCOUNTS,
    "seq",
    (entry_feed(_as_read, ("asset", "kind", "amount", "balance_after")),),
    "test_account_counts",
    AccountCount,
    "seq",
    count_entry,
)
EVENT_SOURCE = Source(
    "events",
    MEMBER_STATES,
    "links",
    (event_feed(_as_read, ("type", "proof")), void_feed(_as_read)),
    "test_member_counts",
    MemberCount,
    "number",
    count_event,
    dense=False,
)
COUNTING = ViewGroup("counting", 1, (ENTRY_SOURCE, EVENT_SOURCE), (ENTRY_COUNTS, EVENT_COUNTS))
COLLECTIONS = ("test_entry_counts", "test_event_counts", "test_account_counts", "test_member_counts")


def counting_views(services: Services) -> Views:
    return Views(services.database, services.clock, COUNTING)


async def assert_equal_to_documents(services: Services, version: int) -> int:
    """The views count exactly what is stored, each document once; return how many entries that is."""
    database, views = services.database.raw, counting_views(services)
    assert await views.version() == version
    counted = {
        (row["asset"], row["kind"]): (row["count"], row["amount"]) for row in await views.sums(ENTRY_COUNTS, by=("asset", "kind"))
    }
    group = {"_id": {"asset": "$asset", "kind": "$kind"}, "count": {"$sum": 1}, "amount": {"$sum": "$amount"}}
    stored = [
        row async for row in await database["entries"].aggregate([{"$match": {"amount": {"$exists": True}}}, {"$group": group}])
    ]
    assert counted == {(row["_id"]["asset"], row["_id"]["kind"]): (row["count"], row["amount"]) for row in stored}
    states = {row["_id"]: (row["seq"], row["balance"]) async for row in database["test_account_counts"].find({"version": version})}
    accounts = {f"{version}|{row['_id']}": (row["seq"], row["balance"]) async for row in database[ACCOUNTS].find()}
    assert states == accounts
    events = {row["type"]: row["count"] for row in await views.sums(EVENT_COUNTS, by=("type",))}
    types = [row async for row in await database["events"].aggregate([{"$group": {"_id": "$type", "count": {"$sum": 1}}}])]
    voids = await database["event_voids"].count_documents({})
    assert events == {row["_id"]: row["count"] for row in types} | ({"void": voids} if voids else {})
    return sum(row["count"] for row in stored)
