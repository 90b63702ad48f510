"""Sources of a spend, computed from the entries of its wallet."""

import asyncio
from collections.abc import Sequence

from guerdon.calendar import Calendar
from guerdon.clock import rfc3339
from guerdon.database import Database
from guerdon.errors import HistoryTooLong
from guerdon.ledger.models import Entry, entry_id, transaction_id
from guerdon.ledger.store import ENTRIES
from guerdon.permissions import Actor
from guerdon.reports.sources.models import SpendSource, SpendSources
from guerdon.reversals.service import Reversals
from guerdon.views.entries import FOLDED_FIELDS, FoldedEntry
from guerdon.views.group import decode_entry
from guerdon.views.traced import Piece, Tracer

ENTRIES_MAX = 20_000
"""Maximum number of entries of a wallet from which the sources of a spend are computed; that takes about a second."""
BATCH = 500
"""Entries between two turns of other requests."""


class Sources:
    """Queries for the sources of spends."""

    def __init__(self, reversals: Reversals, database: Database, calendar: Calendar) -> None:
        self._reversals = reversals
        self._entries = database.raw[ENTRIES]
        self._calendar = calendar

    async def of_transaction(self, actor: Actor, wanted: str) -> SpendSources:
        """Return the transactions that brought the value which a transaction took.

        Raises:
            NotFound: The transaction does not exist or changes no wallet of the caller.
            HistoryTooLong: A wallet had more than `ENTRIES_MAX` entries before.
        """
        sides = [side for side in await self._reversals.find_sides(actor, wanted) if side.amount < 0]
        parts: list[SpendSource] = []
        for account in dict.fromkeys(side.account for side in sides):
            parts += await self._of_account(account, [side for side in sides if side.account == account])
        return SpendSources(wanted, -sum(side.amount for side in sides), parts)

    async def _of_account(self, account: str, sides: Sequence[Entry]) -> list[SpendSource]:
        seqs = {side.seq for side in sides}
        last = max(seqs)
        if last > ENTRIES_MAX:
            detail = f"the wallet had {last - 1} entries before; the sources of a spend are computed from at most {ENTRIES_MAX - 1}"
            raise HistoryTooLong(detail, entries=last - 1, limit=ENTRIES_MAX - 1)
        tracer, pieces = Tracer(self._calendar), list[Piece]()
        known: dict[int, FoldedEntry] = {}
        where = {"_id": {"$gte": entry_id(account, 1), "$lte": entry_id(account, last)}, "owner": sides[0].owner}
        fields = dict.fromkeys(FOLDED_FIELDS, 1)
        async for row in self._entries.find(where, {**fields, "owner": 1}, sort=[("_id", 1)], batch_size=BATCH):
            entry = decode_entry(row)
            taken = tracer.follow(entry)
            if entry.amount > 0:
                known[entry.seq] = entry
            if entry.seq in seqs:
                pieces += taken
            if entry.seq % BATCH == 0:
                await asyncio.sleep(0)
        return [_view(account, piece, None if piece.seq is None else known[piece.seq]) for piece in pieces]


def _view(account: str, piece: Piece, entry: FoldedEntry | None) -> SpendSource:
    return SpendSource(
        wallet=account,
        transaction_id=None if entry is None else entry.transaction or transaction_id(account, entry.seq),
        kind=None if entry is None else entry.kind,
        amount=piece.amount,
        source=piece.source,
        campaign=piece.campaign or None,
        version=piece.version or None,
        month=piece.month,
        earned_at=None if entry is None else rfc3339(entry.at),
    )
