"""Purchases of pages of members, added up by the database. Refunds and voids are subtracted as far as they are known when a page is read."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, PURCHASE, REFUND, REFUNDS, Item, MemberState, PurchaseRefunds
from guerdon.database import Database, Document
from guerdon.members.models import MEMBERS
from guerdon.segments.models import MemberPurchases
from guerdon.segments.rules import RefundedPurchase, bounded, correction_of, last_purchase_day

REFUNDS_READ = 500
"""Number of refunded purchases that are read at a time."""
_Totals = tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]
"""Number of purchases and spend, by (member, currency)."""


class MemberSpan(NamedTuple):
    """Members of a page, and the ids between which the page lies. Staff and erased members are in no segment."""

    members: list[str]
    first: str
    last: str


class Measured(NamedTuple):
    """Purchases by member, and the number of counted purchases by currency."""

    members: dict[str, MemberPurchases]
    currencies: dict[str, int]


class PurchaseMeter:
    """Reads what members have bought."""

    def __init__(self, database: Database, calendar: Calendar) -> None:
        self._members = database.raw[MEMBERS]
        self._events = database.raw[EVENTS]
        self._refunds = database.collection(REFUNDS, PurchaseRefunds)
        self._member_states = database.collection(MEMBER_STATES, MemberState)
        self._calendar = calendar

    async def members_after(self, after: str, limit: int) -> MemberSpan | None:
        """Return the next page of members, ordered by id, or None after the last."""
        found = self._members.find({"_id": {"$gt": after}}, {"role": 1, "erasing_at": 1}, limit=limit).sort("_id", 1)
        rows = [row async for row in found]
        if not rows:
            return None
        members = [str(row["_id"]) for row in rows if row["role"] == "member" and row.get("erasing_at") is None]
        return MemberSpan(members, str(rows[0]["_id"]), str(rows[-1]["_id"]))

    async def find_erased(self, after: str, last: str) -> list[str]:
        """Return the members with ids above `after` up to `last` who were erased, or whose erasure has begun."""
        found = self._members.find({"_id": {"$gt": after, "$lte": last}, "erasing_at": {"$ne": None}}, {"_id": 1})
        return [str(row["_id"]) async for row in found]

    async def measure(self, span: MemberSpan, since: int, at: int) -> Measured:
        """Return the purchases of the members from `since` until before `at`. Their number is the only one that needs memory."""
        purchases, spent = await self._gross(span, since, at)
        async for owner, refunded in self._refunded(span, since, at):
            fewer, less = correction_of(refunded)
            purchases[owner, refunded.currency] += fewer
            spent[owner, refunded.currency] += less
        days = await self._days(span.members, at)
        by_member: dict[str, dict[str, int]] = {}
        for (owner, currency), amount in spent.items():
            if amount:
                by_member.setdefault(owner, {})[currency] = bounded(amount)
        numbers: Counter[str] = Counter()
        currencies: Counter[str] = Counter()
        wanted = set(span.members)
        for (owner, currency), number in purchases.items():
            if owner in wanted and number:
                numbers[owner] += number
                currencies[currency] += number
        members = {
            member: MemberPurchases(days=days.get(member), purchases=numbers[member], spent=by_member.get(member, {}))
            for member in span.members
        }
        return Measured(members, dict(currencies))

    async def _gross(self, span: MemberSpan, since: int, at: int) -> _Totals:
        """Return the purchases before refunds, less refunds that name no purchase. The database adds them up by member and currency."""
        purchase: Document = {"$eq": ["$type", PURCHASE]}
        unlinked: Document = {"$eq": [{"$ifNull": ["$refund_of", ""]}, ""]}
        counted: Document = {"$cond": [{"$and": [purchase, {"$gte": ["$amount", 0]}]}, 1, 0]}
        net: Document = {"$cond": [purchase, "$amount", {"$cond": [unlinked, {"$multiply": ["$amount", -1]}, 0]}]}
        pipeline: list[Document] = [
            {
                "$match": {
                    "owner": {"$gte": span.first, "$lte": span.last},
                    "type": {"$in": [PURCHASE, REFUND]},
                    "occurred_at": {"$gte": since, "$lt": at},
                }
            },
            {
                "$group": {
                    "_id": {"owner": "$owner", "currency": "$currency"},
                    "purchases": {"$sum": counted},
                    "spent": {"$sum": net},
                }
            },
        ]
        purchases: Counter[tuple[str, str]] = Counter()
        spent: Counter[tuple[str, str]] = Counter()
        async for row in await self._events.aggregate(pipeline, hint="owner"):
            key = (str(row["_id"]["owner"]), str(row["_id"]["currency"]))
            purchases[key], spent[key] = int(row["purchases"]), int(row["spent"])
        return purchases, spent

    async def _refunded(self, span: MemberSpan, since: int, at: int) -> AsyncIterator[tuple[str, RefundedPurchase]]:
        """Yield the purchases of the page that have refunds or a void, each with its member."""
        batch: list[PurchaseRefunds] = []
        # The ids of refunds begin with the id of their member.
        where = {"_id": {"$gte": f"{span.first}/", "$lt": f"{span.last}0"}}
        async for row in self._refunds.raw.find(where, batch_size=REFUNDS_READ):
            batch.append(self._refunds.decode(row))
            if len(batch) == REFUNDS_READ:
                async for each in self._with_purchases(batch, since, at):
                    yield each
                batch = []
        async for each in self._with_purchases(batch, since, at):
            yield each

    async def _with_purchases(
        self, batch: list[PurchaseRefunds], since: int, at: int
    ) -> AsyncIterator[tuple[str, RefundedPurchase]]:
        refunds = {each.id.partition("/")[2]: each for each in batch}
        if not refunds:
            return
        where = {"_id": {"$in": sorted(refunds)}, "type": PURCHASE, "occurred_at": {"$gte": since, "$lt": at}}
        async for row in self._events.find(where, {"owner": 1, "amount": 1, "currency": 1, "items": 1}):
            known = refunds[str(row["_id"])]
            if known.owner == row["owner"]:
                items = tuple(_item(each) for each in row["items"])
                yield known.owner, RefundedPurchase(int(row["amount"]), str(row["currency"]), items, known)

    async def _days(self, members: list[str], at: int) -> dict[str, int]:
        """Return the days since the last purchase of the members who have one."""
        fields = {"purchases": 1, "last_purchase_at": 1, "purchase_times": 1}
        days: dict[str, int] = {}
        async for row in self._member_states.raw.find({"_id": {"$in": members}}, fields):
            since_last = last_purchase_day(self._member_states.decode(row), at, self._calendar)
            if since_last is not None:
                days[str(row["_id"])] = since_last
        return days


def _item(row: Document) -> Item:
    return Item(sku=row["sku"], quantity=row["quantity"], unit_price=row.get("unit_price", 0), category=row.get("category"))
