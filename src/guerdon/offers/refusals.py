"""Counts of refused redemptions and uses, by offer, day and reason.

The ledger keeps a refusal under the key of its request and does not say which offer it was about. Counts are collected in memory and written every
few seconds, outside of every commit: a redemption is as fast as without them, and a process that is killed loses the last seconds. They serve
reports only.
"""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct, field
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from guerdon.calendar import Calendar
from guerdon.clock import Clock
from guerdon.database import Database, Document
from guerdon.errors import BusinessError, ReferenceReused
from guerdon.offers.models import OFFER_REFUSALS

WRITE_SECONDS = 5.0
COUNTS_MAX = 10_000
"""Maximum number of counts in memory. Further offers, days and reasons are not counted until the next write."""
RefusedStep = Literal["redeem", "reserve", "use", "load"]
REFUSED_STEPS: tuple[RefusedStep, ...] = ("redeem", "reserve", "use", "load")
_Key = tuple[str, str, str, str]


class OfferRefusals(Struct, frozen=True, kw_only=True):
    """Number of refusals of one step for one reason on one day, as stored."""

    id: str = field(name="_id")
    """`{offer}|{day}|{step}|{reason}`"""
    offer: str
    day: str
    step: str
    reason: str
    """Code of the problem."""
    count: int


class RefusalCounts:
    """Counts of this process that are not written yet, and queries on those that are."""

    def __init__(self, database: Database, clock: Clock, calendar: Calendar) -> None:
        self._collection = database.raw[OFFER_REFUSALS]
        self._clock = clock
        self._calendar = calendar
        self._counts: dict[_Key, int] = {}

    @contextmanager
    def counting(self, offer_id: str, step: str, *, dry_run: bool) -> Generator[None]:
        """Count the refusal that ends the block, if there is one. A reused reference is no refusal of the offer."""
        try:
            yield
        except ReferenceReused:
            raise
        except BusinessError as error:
            if step in REFUSED_STEPS and not dry_run:
                self._count((offer_id, self._calendar.names(self._clock.now_ms())[0], step, error.code))
            raise

    def _count(self, key: _Key) -> None:
        if key in self._counts or len(self._counts) < COUNTS_MAX:
            self._counts[key] = self._counts.get(key, 0) + 1

    async def write(self) -> None:
        """Write the counts since the previous call. No request depends on it."""
        counts, self._counts = self._counts, {}
        if not counts:
            return
        updates = [
            UpdateOne(
                {"_id": "|".join(key)},
                {
                    "$inc": {"count": count},
                    "$setOnInsert": dict(zip(("offer", "day", "step", "reason"), key, strict=True)),
                },
                upsert=True,
            )
            for key, count in sorted(counts.items())
        ]
        try:
            await self._collection.bulk_write(updates, ordered=False)
        except PyMongoError:
            for key, count in counts.items():
                self._counts[key] = self._counts.get(key, 0) + count
            raise

    async def sums(self, offer_ids: Collection[str], first_day: str, after_day: str) -> list[Document]:
        """Return `offer`, `day`, `step`, `reason` and `count` of the refusals from a day to before another."""
        where = {"offer": {"$in": sorted(offer_ids)}, "day": {"$gte": first_day, "$lt": after_day}}
        return [row async for row in self._collection.find(where)]
