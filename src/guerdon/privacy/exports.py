"""The export of all data about a member, as one JSON document that is streamed in batches, so that it needs the memory of one batch."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from guerdon.audit_log.models import view_record
from guerdon.audit_log.service import AuditLog
from guerdon.campaigns.caps import CAP
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, REFUNDS, MemberState, PurchaseRefunds, RecordedEvent
from guerdon.campaigns.evaluation import Subject
from guerdon.campaigns.profiles import Profiles
from guerdon.clock import Clock, rfc3339
from guerdon.database import Database, Document, DuplicateKeyError
from guerdon.errors import TooManyRequests
from guerdon.history.models import view_entry
from guerdon.history.stream_slots import StreamSlots
from guerdon.holds.models import StoredHold, view_stored
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import Account, Entry, entry_id
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import ACCOUNTS, ENTRIES, decode_account, decode_entry
from guerdon.members.models import view_member
from guerdon.members.service import Members
from guerdon.permissions import Actor
from guerdon.privacy.models import (
    EXPORTS,
    EventExport,
    ExportHead,
    ExportLimit,
    view_counter,
    view_event_export,
    view_member_state,
    view_refund,
)
from guerdon.second_factor.models import view_factor
from guerdon.second_factor.service import SecondFactors
from guerdon.segments.service import Segments
from guerdon.sessions.models import view_session
from guerdon.sessions.service import Sessions
from guerdon.tiers.models import PROGRAMME, TIER_CHANGES, TIER_SETS, TierChange, TierSets, view_change
from guerdon.tiers.rules import view_tier
from guerdon.vouchers.models import REDEMPTIONS
from guerdon.vouchers.pos.views import step_of
from guerdon.vouchers.service import Vouchers
from guerdon.wallets.models import lots_of, view_lot, view_wallet
from guerdon.wallets.service import Wallets

FORMAT = "guerdon-export-1"
BATCH = 100
EXPORTS_MAX = 8
"""Maximum number of exports that one process sends at a time."""
EXPORT_SECONDS = 900
WALLETS_MAX = 1000
AGAIN_MS = 86_400_000
"""Minimum time between two complete exports of a member."""
RETRY_MS = 600_000
"""Minimum time between an incomplete export and the next one."""
_encode = msgspec.json.Encoder().encode
Pieces = AsyncGenerator[bytes]


class Exports:
    """The exports of this deployment."""

    def __init__(
        self,
        database: Database,
        members: Members,
        sessions: Sessions,
        factors: SecondFactors,
        *,
        profiles: Profiles,
        wallets: Wallets,
        vouchers: Vouchers,
        segments: Segments,
        ledger: Ledger,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._entries = database.raw[ENTRIES]
        self._holds = database.collection(HOLD_DOCUMENTS, StoredHold)
        self._events = database.collection(EVENTS, RecordedEvent)
        self._member_states = database.collection(MEMBER_STATES, MemberState)
        self._refunds = database.collection(REFUNDS, PurchaseRefunds)
        self._accounts = database.raw[ACCOUNTS]
        self._limits = database.collection(EXPORTS, ExportLimit)
        self._members = members
        self._sessions = sessions
        self._factors = factors
        self._profiles = profiles
        self._wallets = wallets
        self._vouchers = vouchers
        self._segments = segments
        self._ledger = ledger
        self._audit = audit
        self._clock = clock
        self._tier_sets = database.collection(TIER_SETS, TierSets)
        self._tier_changes = database.collection(TIER_CHANGES, TierChange)
        self._slots = StreamSlots(EXPORTS_MAX, EXPORT_SECONDS)

    async def export(self, member_id: str) -> Pieces:
        """Return the export of a member, in pieces.

        Raises:
            NotFound: the member does not exist.
            Overloaded: too many exports are being sent by this process.
        """
        head = await self._head(member_id)
        accounts = await self._ledger.list_accounts(member_id, limit=WALLETS_MAX)
        return self._slots.take(self._write(head, accounts))

    async def export_own(self, actor: Actor) -> Pieces:
        """Return the export of the caller, in pieces.

        Raises:
            TooManyRequests: an export was completed less than a day ago, or began less than ten minutes ago.
            Overloaded: too many exports are being sent by this process.
        """
        await self._admit(actor.id)
        return self._record_completion(actor.id, await self.export(actor.id))

    # --- once a day -------------------------------------------------------------------------------------------------

    async def _admit(self, member_id: str) -> None:
        now = self._clock.now_ms()
        allowed = {"_id": member_id, "not_before": {"$lte": now}}
        try:
            await self._limits.raw.update_one(allowed, {"$set": {"not_before": now + RETRY_MS}}, upsert=True)
        except DuplicateKeyError:
            limit = await self._limits.get(member_id)
            left_ms = RETRY_MS if limit is None else max(limit.not_before - now, 1000)
            detail = "a member can export once a day"
            raise TooManyRequests.of("export", detail, retry_after_seconds=-(-left_ms // 1000)) from None

    async def _record_completion(self, member_id: str, pieces: Pieces) -> Pieces:
        """Yield the pieces, and record the completion after the last one. An incomplete export does not count for the day."""
        async for piece in pieces:
            yield piece
        change = {"$set": {"not_before": self._clock.now_ms() + AGAIN_MS}}
        await self._limits.raw.update_one({"_id": member_id}, change)

    # --- the document -----------------------------------------------------------------------------------------------

    async def _head(self, member_id: str) -> ExportHead:
        person = await self._members.get_person(member_id)
        sessions = await self._sessions.list_of(member_id)
        state, tier_sets = await self._member_states.get(member_id), await self._tier_sets.get(PROGRAMME)
        now_ms, segments = self._clock.now_ms(), await self._segments.find_member_rows(member_id)
        return ExportHead(
            format=FORMAT,
            exported_at=rfc3339(now_ms),
            member=view_member(person, [name for row in segments for name in row.segments]),
            second_factor=view_factor(await self._factors.get(member_id)),
            tier=view_tier(tier_sets, state or MemberState(id=member_id, owner=member_id), now_ms, self._ledger.calendar),
            sessions=[view_session(session, device, current=False) for session, device in sessions],
            standing=view_member_state(state),
            segments=segments,
        )

    async def _write(self, head: ExportHead, accounts: Sequence[Account]) -> Pieces:
        member_id, now = head.member.id, self._clock.now_ms()
        yield _encode(head)[:-1] + b',"wallets":['
        for number, account in enumerate(accounts):
            state = self._wallets.state_of(account)
            lots = [view_lot(lot) for lot in lots_of(state.present)]
            wallet = _encode({"wallet": view_wallet(state), "lots": lots})
            yield (b"," if number else b"") + wallet[:-1] + b',"entries":['
            async for piece in _items(self._entries_of(account), view_entry):
                yield piece
            yield b"]}"
        yield b'],"holds":['
        async for piece in _items(self._holds_of(member_id), lambda hold: view_stored(hold, now)):
            yield piece
        yield b'],"events":['
        async for piece in _items(self._events_of(member_id), lambda event: event):
            yield piece
        yield b'],"refunds":['
        async for piece in _items(self._refunds_of(member_id), view_refund):
            yield piece
        yield b'],"counters":['
        async for piece in _items(self._counters_of(member_id), view_counter):
            yield piece
        yield b'],"tier_changes":['
        async for piece in _items(self._tier_changes_of(member_id), view_change):
            yield piece
        yield b'],"vouchers":['
        async for piece in self._vouchers_of(member_id):
            yield piece
        yield b'],"audit":['
        async for piece in _items(_pages(lambda after: self._audit.list_about(member_id, after, BATCH), 0), view_record):
            yield piece
        yield b'],"complete":true}'

    async def _vouchers_of(self, member_id: str) -> Pieces:
        comma = b""
        async for page in _pages(lambda after: self._vouchers.list_after(member_id, after, BATCH), ""):
            accounts = await self._ledger.find_accounts([item.voucher.account for item in page])
            for item in page:
                yield comma + _encode({"voucher": item.view})[:-1] + b',"steps":['
                async for piece in _items(self._entries_of(accounts[item.voucher.account]), partial(step_of, item.voucher)):
                    yield piece
                yield b"]}"
                comma = b","

    async def _entries_of(self, account: Account) -> AsyncGenerator[Sequence[Entry]]:
        # Each batch is a separate read, so that a slow client keeps no cursor open.
        for first in range(1, account.seq + 1, BATCH):
            last = min(first + BATCH - 1, account.seq)
            where = {
                "_id": {"$gte": entry_id(account.id, first), "$lte": entry_id(account.id, last)},
                "owner": account.owner,
            }
            yield [decode_entry(row) async for row in self._entries.find(where, batch_size=BATCH + 1).sort("_id", 1)]

    # The ids of holds, tier changes, refunds and counters begin with the id of their member, so that a range of ids selects them.

    def _holds_of(self, member_id: str) -> AsyncGenerator[Sequence[StoredHold]]:

        async def read(after: str) -> list[StoredHold]:
            where: Document = {"_id": {"$gt": after, "$lt": f"hld_{member_id};"}, "owner": member_id}
            return await self._holds.find(where, sort=[("_id", 1)], limit=BATCH)

        return _pages(read, f"hld_{member_id}:")

    def _tier_changes_of(self, member_id: str) -> AsyncGenerator[Sequence[TierChange]]:
        async def read(after: str) -> list[TierChange]:
            where: Document = {"_id": {"$gt": after, "$lt": f"{member_id}#~"}, "owner": member_id}
            return await self._tier_changes.find(where, sort=[("_id", 1)], limit=BATCH)

        return _pages(read, f"{member_id}#")

    def _events_of(self, member_id: str) -> AsyncGenerator[Sequence[EventExport]]:
        async def read(after: str) -> list[EventExport]:
            page = await self._events.find({"owner": member_id, "_id": {"$gt": after}}, sort=[("_id", 1)], limit=BATCH)
            return [view_event_export(event, await self._person_of(event)) for event in page]

        return _pages(read, "")

    async def _person_of(self, event: RecordedEvent) -> Subject | None:
        """Return the member's data that the conditions of the event have read, or None. It cannot be read after its key was deleted."""
        return None if event.inputs is None or event.inputs.person is None else await self._profiles.read_sealed(event)

    def _refunds_of(self, member_id: str) -> AsyncGenerator[Sequence[PurchaseRefunds]]:
        async def read(after: str) -> list[PurchaseRefunds]:
            where: Document = {"_id": {"$gt": after, "$lt": f"{member_id}0"}, "owner": member_id}
            return await self._refunds.find(where, sort=[("_id", 1)], limit=BATCH)

        return _pages(read, f"{member_id}/")

    async def _counters_of(self, member_id: str) -> AsyncGenerator[Sequence[Account]]:
        """Yield the caps and redemption counters of a member. There may be one for each day."""

        async def read(after: str) -> list[Account]:
            where: Document = {"_id": {"$gt": after, "$lt": f"{member_id};"}, "owner": member_id}
            return [decode_account(row) async for row in self._accounts.find(where, limit=BATCH).sort("_id", 1)]

        async for page in _pages(read, f"{member_id}:"):
            yield [account for account in page if account.kind in (CAP, REDEMPTIONS)]


async def _pages(read: Callable[[Any], Awaitable[list[Any]]], after: str | int) -> AsyncGenerator[Sequence[Any]]:
    while page := await read(after):
        yield page
        after = page[-1].id


async def _items(batches: AsyncIterator[Sequence[Any]], view: Callable[[Any], object]) -> Pieces:
    """Yield the elements of a JSON array, one batch at a time."""
    comma = b""
    async for batch in batches:
        if batch:
            yield comma + b",".join(_encode(view(item)) for item in batch)
            comma = b","
