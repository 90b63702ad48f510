"""Queries on the timeline of a member. Each source is read newest first from its own index, and the results are merged."""

import asyncio
from collections.abc import Sequence

from guerdon.campaigns.domain import RecordedEvent
from guerdon.campaigns.service import Campaigns
from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.errors import Forbidden, Validation
from guerdon.events.recorded import RecordedEvents
from guerdon.events.views import view_award
from guerdon.history.models import view_entry
from guerdon.history.service import History
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.ledger.models import Account, Entry
from guerdon.ledger.service import Ledger
from guerdon.members.service import Members
from guerdon.permissions import Actor
from guerdon.tiers.models import view_change
from guerdon.tiers.service import Tiers
from guerdon.timeline.models import (
    EntryItem,
    EventItem,
    Item,
    ItemType,
    TierItem,
    TimelineEvent,
    TimelineQuery,
    VoucherItem,
)
from guerdon.timeline.rules import (
    RANKS,
    Document,
    Placed,
    TimelinePosition,
    below,
    campaigns_of,
    newest,
    parse_position,
    place_entry,
    place_event,
    place_tier_change,
    place_voucher,
    position_text,
    voucher_ms,
    why_entry,
    why_event,
    why_tier_change,
    why_voucher,
)
from guerdon.vouchers.models import Voucher, VoucherView
from guerdon.vouchers.service import Vouchers

SCOPES: dict[ItemType, str] = {
    "entry": "wallets:read",
    "event": "events:read",
    "voucher": "vouchers:read",
    "tier": "members:read",
}
"""Scope that a caller needs for the items of a type, besides that of the route."""


class Timelines:
    """Queries on timelines."""

    def __init__(
        self,
        members: Members,
        ledger: Ledger,
        history: History,
        *,
        events: RecordedEvents,
        vouchers: Vouchers,
        tiers: Tiers,
        campaigns: Campaigns,
    ) -> None:
        self._members = members
        self._ledger = ledger
        self._history = history
        self._events = events
        self._vouchers = vouchers
        self._tiers = tiers
        self._campaigns = campaigns

    async def list_items(self, actor: Actor, member_id: str, query: TimelineQuery) -> tuple[list[Item], str | None]:
        """Return one page of a member's timeline, newest first, and the cursor of the next page.

        Raises:
            NotFound: the member does not exist, or is not the caller.
            Forbidden: the caller lacks the scope for a type of items.
            Validation: the cursor was not returned by this list.
        """
        actor.require_reach(member_id)
        types: list[ItemType] = list(SCOPES) if query.type is None else [query.type]
        _require_scopes(actor, types)
        await self._members.get_member(member_id)
        before = None if query.cursor is None else _position_of(query.cursor)
        reads = {
            "entry": self._entries,
            "event": self._recorded_events,
            "voucher": self._issued_vouchers,
            "tier": self._tier_changes,
        }
        found = await asyncio.gather(*(reads[each](member_id, before, query.limit + 1) for each in types))
        page, following = newest((placed for source in found for placed in source), before, query.limit)
        items = await self._items(actor, member_id, page)
        return items, None if following is None else encode_cursor(position_text(following))

    # --- sources ----------------------------------------------------------------------------------------------------

    async def _entries(self, member_id: str, before: TimelinePosition | None, limit: int) -> list[Placed]:
        accounts = await self._ledger.list_accounts(member_id)
        found = await asyncio.gather(*(self._entries_of(account, before, limit) for account in accounts))
        return [place_entry(entry) for entries in found for entry in entries]

    async def _entries_of(self, account: Account, before: TimelinePosition | None, limit: int) -> list[Entry]:
        last = account.seq
        if before is not None:
            if (before.rank, before.name) == (RANKS["entry"], account.asset):
                last = min(last, before.number - 1)
            else:
                included = (RANKS["entry"], account.asset) < (before.rank, before.name)
                last = await self._history.count_before(account, before.at + 1 if included else before.at)
        return await self._history.list_back(account, last, limit) if last else []

    async def _recorded_events(self, member_id: str, before: TimelinePosition | None, limit: int) -> list[Placed]:
        rank = RANKS["event"]
        if before is None:
            found = await self._events.list_back(member_id, None, limit)
        else:
            found = await self._events.list_back(member_id, below(rank, before), limit)
            if before.rank == rank:
                found += await self._events.list_same_time(member_id, before.at, before.number, limit)
        return [place_event(event) for event in found]

    async def _issued_vouchers(self, member_id: str, before: TimelinePosition | None, limit: int) -> list[Placed]:
        first_id = None
        if before is not None:
            at_ms = below(RANKS["voucher"], before)
            first_id = before.name if before.rank == RANKS["voucher"] else f"vch_{at_ms:012x}"
        return [place_voucher(voucher) for voucher in await self._vouchers.list_before(member_id, first_id, limit)]

    async def _tier_changes(self, member_id: str, before: TimelinePosition | None, limit: int) -> list[Placed]:
        return [place_tier_change(change) for change in await self._tiers.list_recorded(member_id)]

    # --- items ------------------------------------------------------------------------------------------------------

    async def _items(self, actor: Actor, member_id: str, page: Sequence[Placed]) -> list[Item]:
        documents = [placed.document for placed in page]
        vouchers = [document for document in documents if isinstance(document, Voucher)]
        events = [document.id for document in documents if isinstance(document, RecordedEvent)]
        wanted = campaigns_of(page) if actor.kind != "member" else set[tuple[str, int]]()
        views, voided, versions = await asyncio.gather(
            self._vouchers.view_all(vouchers), self._events.voided_at(member_id, events), self._campaigns.get_versions(wanted)
        )
        by_id = {view.id: view for view in views}
        names = {key: campaign.name for key, campaign in versions.items()}
        return [_item(document, by_id, voided, names) for document in documents]


def _item(document: Document, vouchers: dict[str, VoucherView], voided: dict[str, int], names: dict[tuple[str, int], str]) -> Item:
    match document:
        case Entry():
            return EntryItem(
                at=rfc3339(document.at),
                wallet=document.account,
                asset=document.asset,
                why=why_entry(document, names),
                entry=view_entry(document),
            )
        case RecordedEvent():
            event = _view_event(document, voided.get(document.id))
            return EventItem(at=rfc3339(document.recorded_at), why=why_event(document), event=event)
        case Voucher():
            at = rfc3339(voucher_ms(document.id))
            return VoucherItem(at=at, why=why_voucher(document), voucher=vouchers[document.id])
        case _:
            return TierItem(at=rfc3339(document.recorded_at), why=why_tier_change(document), change=view_change(document))


def _view_event(event: RecordedEvent, voided_at: int | None) -> TimelineEvent:
    return TimelineEvent(
        id=event.id,
        type=event.type,
        amount=event.amount,
        currency=event.currency or None,
        occurred_at=rfc3339(event.occurred_at),
        refund_of=event.refund_of,
        confirms=event.confirms,
        awards=[view_award(award) for award in event.awards],
        decisions=[decision for decision in event.decisions if decision.outcome != "not_matched"],
        voided_at=optional_rfc3339(voided_at),
    )


def _require_scopes(actor: Actor, types: Sequence[ItemType]) -> None:
    if actor.kind == "member":
        return
    for each in types:
        if not actor.may(SCOPES[each]):
            raise Forbidden(f"items of the type {each} need the scope {SCOPES[each]}; ask for another `type`")


def _position_of(cursor: str) -> TimelinePosition:
    position = parse_position(decode_cursor(cursor))
    if position is None:
        raise Validation.at("cursor", "not a cursor of this list; use a next_cursor that it returned")
    return position
