"""Queries on the history of a wallet. Times are found by a search over the numbers of entries, without a scan."""

import asyncio
from collections.abc import AsyncGenerator

from guerdon.clock import Clock, rfc3339
from guerdon.database import Database, Document
from guerdon.errors import DatabaseUnavailable, NotFound, Validation
from guerdon.history import statements
from guerdon.history.models import BalanceView, EntryQuery, Statement, moment_ms
from guerdon.history.rules import narrow, parse_month, probes
from guerdon.history.stream_slots import StreamSlots
from guerdon.http.cursor import decode_number, encode_cursor
from guerdon.ledger.models import SEQ_DIGITS, Account, Entry, entry_id
from guerdon.ledger.references import reference_keys
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import ENTRIES, decode_entry
from guerdon.permissions import Actor
from guerdon.wallets.service import Wallets

EXAMINED_MAX = 1000
"""Maximum number of entries that one page filtered by kind or effective time examines."""
BATCH = 100
"""Entries of a statement in memory at a time; reading and encoding them takes 4 ms of the event loop."""
STATEMENTS_MAX = 16
STATEMENT_SECONDS = 900
FIRST_MS, LAST_MS = -(1 << 53), 1 << 53
"""Times before and after all others, for a filter with one bound."""
SETTLED_MS = 60_000
"""Time after which no entry with an earlier time can be committed: the time is set at the decision, and a commit takes at most a minute."""


class History:
    """Queries on the history of wallets."""

    def __init__(self, wallets: Wallets, ledger: Ledger, *, database: Database, clock: Clock) -> None:
        self._wallets = wallets
        self._ledger = ledger
        self._entries = database.raw[ENTRIES]
        self._clock = clock
        self._slots = StreamSlots(STATEMENTS_MAX, STATEMENT_SECONDS)

    async def list_entries(self, actor: Actor, wallet_id: str, query: EntryQuery) -> tuple[list[Entry], str | None]:
        """Return one page of entries, newest first, and the cursor of the next page.

        Raises:
            NotFound: The wallet does not exist or is not the caller's.
            Validation: The cursor or a time is invalid.
        """
        account = await self._wallets.get_account(actor, wallet_id)
        effective_from = None if query.effective_from is None else moment_ms(query.effective_from, "effective_from")
        effective_to = None if query.effective_to is None else moment_ms(query.effective_to, "effective_to")
        first, last = await self._between(account, query.since, query.until)
        if effective_from is not None:
            # An effective time is never after the entry's own time.
            first = max(first, await self.count_before(account, effective_from) + 1)
        if query.cursor is not None:
            last = min(last, decode_number(query.cursor, SEQ_DIGITS) - 1)
        if query.reference is not None:
            return await self._find_reference(account, query, (first, last), (effective_from, effective_to)), None
        filtered = query.kind is not None or effective_from is not None or effective_to is not None
        lowest = max(first, last - (EXAMINED_MAX if filtered else query.limit) + 1)
        where: Document = _range_filter(account, lowest, last)
        if query.kind is not None:
            where["kind"] = query.kind
        if effective_from is not None or effective_to is not None:
            where["$or"] = _effective_filter(effective_from, effective_to)
        entries = await self._ledger.list_entries(where, limit=query.limit)
        position = entries[-1].seq if len(entries) == query.limit else lowest
        return entries, encode_cursor(str(position)) if position > first else None

    async def balance_at(self, actor: Actor, wallet_id: str, moment: str | None) -> BalanceView:
        """Return the booked balance at a time, including entries at that time.

        Raises:
            NotFound: The wallet does not exist or is not the caller's.
            Validation: The time does not exist or is in the future.
        """
        account = await self._wallets.get_account(actor, wallet_id)
        now_ms = self._clock.now_ms()
        at_ms = now_ms if moment is None else moment_ms(moment, "at")
        if at_ms > now_ms:
            raise Validation.at("at", "the time must not be in the future")
        seq = account.seq if moment is None else await self.count_before(account, at_ms + 1)
        entry = await self._entry(account, seq)
        return BalanceView(
            wallet=account.id,
            asset=account.asset,
            at=rfc3339(at_ms),
            balance=0 if entry is None else entry.balance_after,
            held=0 if entry is None else entry.held_after,
            seq=seq,
            entry_created_at=None if entry is None else rfc3339(entry.at),
        )

    async def statement(self, actor: Actor, wallet_id: str, month: str) -> Statement:
        """Return the data of the statement of a month in the programme's time zone.

        Raises:
            NotFound: The wallet does not exist or is not the caller's, or the month is invalid or has not begun.
        """
        account = await self._wallets.get_account(actor, wallet_id)
        parsed = parse_month(month)
        now_ms = self._clock.now_ms()
        starts_ms, ends_ms = (0, 0) if parsed is None else self._ledger.calendar.month_bounds(*parsed)
        if parsed is None or starts_ms > now_ms:
            raise NotFound("the statement does not exist; give a month that has begun, for example 2026-01")
        before, last = await asyncio.gather(self.count_before(account, starts_ms), self.count_before(account, ends_ms))
        opening, closing = await asyncio.gather(self._entry(account, before), self._entry(account, last))
        return Statement(
            wallet=account.id,
            owner=account.owner,
            asset=account.asset,
            month=month,
            time_zone=self._ledger.calendar.zone.key,
            starts_ms=starts_ms,
            ends_ms=ends_ms,
            complete=now_ms >= ends_ms + SETTLED_MS,
            first=before + 1,
            last=last,
            opening=opening,
            closing=closing,
        )

    async def count_before(self, account: Account, at_ms: int) -> int:
        """Return the number of entries before `at_ms`. It is the `seq` of the newest of them, because times never decrease in an account.

        Raises:
            DatabaseUnavailable: An entry that must exist cannot be read now.
        """
        low, high = 0, account.seq + 1
        while seqs := probes(low, high):
            where = {"_id": {"$in": [entry_id(account.id, seq) for seq in seqs]}, "owner": account.owner}
            rows = self._entries.find(where, {"at": 1})
            times = {int(row["_id"][len(account.id) + 1 :]): int(row["at"]) async for row in rows}
            if len(times) != len(seqs):
                raise _unreadable()
            low, high = narrow(low, high, times, at_ms)
        return low

    async def list_back(self, account: Account, last: int, limit: int) -> list[Entry]:
        """Return the entries of an account up to the number `last`, newest first."""
        return await self._ledger.list_entries(_range_filter(account, last - limit + 1, last), limit=limit)

    def write(self, statement: Statement, form: str) -> AsyncGenerator[bytes]:
        """Return the chunks of a statement in the format `json` or `csv`.

        Raises:
            Overloaded: This process is sending too many statements.
        """
        make = statements.as_csv if form == "csv" else statements.as_json
        return self._slots.take(make(statement, self._batches(statement)))

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _between(self, account: Account, since: str | None, until: str | None) -> tuple[int, int]:
        """Return the first and the last `seq` from `since` to before `until`."""
        from_ms = None if since is None else moment_ms(since, "from")
        to_ms = None if until is None else moment_ms(until, "to")
        before, last = await asyncio.gather(
            _value(0) if from_ms is None else self.count_before(account, from_ms),
            _value(account.seq) if to_ms is None else self.count_before(account, to_ms),
        )
        return before + 1, last

    async def _entry(self, account: Account, seq: int) -> Entry | None:
        """Return the entry number `seq`, or None for 0.

        Raises:
            DatabaseUnavailable: The entry cannot be read now.
        """
        if seq == 0:
            return None
        entry = await self._ledger.get_entry(account.id, seq, account.owner)
        if entry is None:
            raise _unreadable()
        return entry

    async def _find_reference(
        self, account: Account, query: EntryQuery, seqs: tuple[int, int], effective: tuple[int | None, int | None]
    ) -> list[Entry]:
        """Return the entries with the reference that match the other filters, newest first. The unique index finds them."""
        assert query.reference is not None
        unique_keys = reference_keys(account.owner, query.reference)
        cursor = self._entries.find({"owner": account.owner, "once": {"$in": unique_keys}}, limit=len(unique_keys), hint="once")
        entries = [decode_entry(row) async for row in cursor if "balance_after" in row]
        fitting = [entry for entry in entries if entry.account == account.id and _fits(entry, query.kind, seqs, effective)]
        return sorted(fitting, key=lambda entry: -entry.seq)

    async def _batches(self, statement: Statement) -> AsyncGenerator[list[Entry]]:
        """Yield the entries of a statement, oldest first. Each batch is a separate read, so a slow client holds no cursor open."""
        for first in range(statement.first, statement.last + 1, BATCH):
            last = min(first + BATCH - 1, statement.last)
            where = {
                "_id": {"$gte": entry_id(statement.wallet, first), "$lte": entry_id(statement.wallet, last)},
                "owner": statement.owner,
            }
            yield [decode_entry(row) async for row in self._entries.find(where, batch_size=BATCH + 1).sort("_id", 1)]


def _range_filter(account: Account, first: int, last: int) -> Document:
    return {"_id": {"$gte": entry_id(account.id, first), "$lte": entry_id(account.id, max(last, 0))}, "owner": account.owner}


def _fits(entry: Entry, kind: str | None, seqs: tuple[int, int], effective: tuple[int | None, int | None]) -> bool:
    """Return True if an entry matches the filters by kind, number and effective time."""
    at, (since, until) = entry.at if entry.effective_at is None else entry.effective_at, effective
    in_time = (since is None or at >= since) and (until is None or at < until)
    return in_time and seqs[0] <= entry.seq <= seqs[1] and kind in (None, entry.kind)


def _effective_filter(since: int | None, until: int | None) -> list[Document]:
    """Return the alternatives of a filter by effective time. An entry without one is effective at its own time."""
    times: Document = {"$gte": FIRST_MS if since is None else since, "$lt": LAST_MS if until is None else until}
    return [{"effective_at": times}, {"effective_at": {"$exists": False}, "at": times}]


async def _value(seq: int) -> int:
    return seq


def _unreadable() -> DatabaseUnavailable:
    return DatabaseUnavailable("a part of the history cannot be read now; try again", retry_after_seconds=1)
