"""Rows of the lists, read page by page with one cursor each.

A list is read in the order of an index whose keys never change, so that a change during the export neither repeats nor omits a row. What
is newer than the beginning of the export is left out.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pymongo.asynchronous.database import AsyncDatabase

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, REFUNDS, MemberState, PurchaseRefunds, RecordedEvent
from guerdon.campaigns.models import CAMPAIGNS, Campaign, in_force
from guerdon.database import Document, Session, decode_document
from guerdon.events.views import view_award
from guerdon.exports.filters import (
    CampaignsFilter,
    EntriesFilter,
    EventsFilter,
    TimeFilter,
    VouchersFilter,
    WalletsFilter,
    bounds_of,
)
from guerdon.exports.tables import Pages, Row
from guerdon.ids import MEMBER_ID
from guerdon.ledger.expiry import bring_up_to
from guerdon.ledger.models import Entry, hold_id
from guerdon.ledger.store import ACCOUNTS, ENTRIES, decode_account, decode_entry
from guerdon.members.models import MEMBERS, Member
from guerdon.members.vault import Vault, open_profile
from guerdon.offers.models import FixedValue
from guerdon.tiers.models import PROGRAMME, TIER_SETS, TierSets
from guerdon.tiers.rules import view_tier
from guerdon.vouchers.models import VOUCHERS, Voucher, view_voucher
from guerdon.wallets.assets import Assets
from guerdon.wallets.models import WALLET, WalletState, view_lot, view_wallet

PAGE_ROWS = 500


class ListReader:
    """Reads the lists of one export, in one session of the database."""

    def __init__(
        self, database: AsyncDatabase[Document], session: Session, *, vault: Vault, assets: Assets, calendar: Calendar, as_of: int
    ) -> None:
        self._database = database
        self._session = session
        self._vault = vault
        self._assets = assets
        self._calendar = calendar
        self._as_of = as_of
        self._scales: dict[str, int] = {}

    async def entries(self, wanted: EntriesFilter) -> Pages:
        """Yield the entries of wallets and gift cards, in the order of accounts and numbers. Counters of caps and stocks are no money."""
        await self._read_scales()
        assets = sorted(self._scales) if wanted.asset is None else [wanted.asset]
        where: Document = {"asset": {"$in": assets}, "at": self._times(wanted)}
        if wanted.wallet is not None:
            where["_id"] = {"$gt": f"{wanted.wallet}#", "$lt": f"{wanted.wallet}$"}
        async for documents in self._pages(ENTRIES, where, [("_id", 1)]):
            yield [self._entry_row(decode_entry(document)) for document in documents]

    async def wallets(self, wanted: WalletsFilter) -> Pages:
        """Yield the wallets that exist, in the order of their ids, each in its state when it is read."""
        await self._read_scales()
        where: Document = {"kind": WALLET, "opened_at": {"$lte": self._as_of}}
        if wanted.asset is not None:
            where["asset"] = wanted.asset
        async for documents in self._pages(ACCOUNTS, where, [("_id", 1)]):
            yield [self._wallet_row(document) for document in documents]

    async def events(self, wanted: EventsFilter) -> Pages:
        """Yield the recorded events, in the order of their times."""
        await self._read_scales()
        since, until = bounds_of(wanted)
        where: Document = {
            "occurred_at": {"$gte": _EARLIEST if since is None else since, "$lt": _LATEST if until is None else until},
            "recorded_at": {"$lte": self._as_of},
        }
        if wanted.type is not None:
            where["type"] = wanted.type
        async for documents in self._pages(EVENTS, where, [("occurred_at", 1), ("recorded_at", 1)]):
            page = [decode_document(document, RecordedEvent) for document in documents]
            refunds = await self._by_id(REFUNDS, [f"{event.owner}/{event.id}" for event in page], PurchaseRefunds)
            yield [self._event_row(event, refunds.get(f"{event.owner}/{event.id}")) for event in page]

    async def vouchers(self, wanted: VouchersFilter) -> Pages:
        """Yield the vouchers, in the order of their issue. Codes are left out, because a reader of the file could use them."""
        await self._read_scales()
        where: Document = {"issued_at": self._times(wanted)}
        if wanted.offer is not None:
            where["offer"] = wanted.offer
        async for documents in self._pages(VOUCHERS, where, [("_id", 1)]):
            page = [decode_document(document, Voucher) for document in documents]
            names = [voucher.account for voucher in page]
            accounts = {row["_id"]: row async for row in self._find(ACCOUNTS, {"_id": {"$in": names}})}
            yield [self._voucher_row(voucher, accounts.get(voucher.account)) for voucher in page]

    async def members(self, wanted: TimeFilter, *, personal: bool) -> Pages:
        """Yield members and staff, in the order of their creation. Of erased members only the id, the status and the time remain."""
        sets = await self._find_one(TIER_SETS, PROGRAMME, TierSets)
        async for documents in self._pages(MEMBERS, {"created_at": self._times(wanted)}, [("_id", 1)]):
            page = [decode_document(document, Member) for document in documents]
            keys = await self._vault.get_keys([member.id for member in page])
            states = await self._by_id(MEMBER_STATES, [member.id for member in page], MemberState)
            rows: list[Row] = []
            for member in page:
                profile = open_profile(member, keys.get(member.id))
                state = states.get(member.id) or MemberState(id=member.id, owner=member.id)
                tier = view_tier(sets, state, self._as_of, self._calendar).tier
                row: Row = [member.id, profile.external_id, member.role, member.status, tier, member.created_at]
                rows.append([*row, profile.email, _json(profile.attributes)] if personal else row)
            yield rows

    async def campaigns(self, wanted: CampaignsFilter) -> Pages:
        """Yield the campaigns, in the order of their creation, each in the version that is in force."""
        await self._read_scales()
        where: Document = {} if wanted.status is None else {"status": wanted.status}
        async for documents in self._pages(CAMPAIGNS, where, [("_id", 1)]):
            stored = [decode_document(document, Campaign) for document in documents]
            yield [self._campaign_row(each) for each in stored if each.created_at <= self._as_of]

    # --- rows -------------------------------------------------------------------------------------------------------

    def _entry_row(self, entry: Entry) -> Row:
        return [
            entry.id, entry.account, entry.owner if MEMBER_ID.match(entry.owner) else None, entry.seq, entry.at, entry.kind,
            entry.asset, self._scales.get(entry.asset), entry.amount, entry.balance_after, entry.held_after, entry.counterparty,
            entry.transaction_id, entry.reference, entry.reason,
            None if entry.hold is None else hold_id(entry.account, entry.hold.seq), entry.reverses, entry.effective_at, entry.rate,
            _json([replace(view_lot(lot), amount=lot.amount) for lot in entry.lots or ()]), _json(entry.metadata), entry.hash.hex(),
        ]  # fmt: skip

    def _wallet_row(self, document: Document) -> Row:
        account = decode_account(document)
        present = bring_up_to(account, self._as_of, self._calendar).account
        view = view_wallet(WalletState(account, present))
        return [
            view.id, view.member_id, view.asset, self._scales.get(view.asset), view.balance, view.held, view.available, view.pending,
            view.expired, view.status, view.seq, account.opened_at, account.at,
        ]  # fmt: skip

    def _event_row(self, event: RecordedEvent, since: PurchaseRefunds | None) -> Row:
        released = {} if since is None else since.released
        voided = since is not None and since.voided is not None
        awards = [view_award(award, released.get(award.campaign), preview=False) for award in event.awards]
        return [
            event.id, event.owner, event.type, event.occurred_at, event.recorded_at, event.amount, event.currency or None,
            self._scales.get(event.currency), event.refund_of, event.confirms, "voided" if voided else "recorded", _json(awards),
            event.note,
        ]  # fmt: skip

    def _voucher_row(self, voucher: Voucher, document: Document | None) -> Row:
        account = None if document is None else bring_up_to(decode_account(document), self._as_of, self._calendar).account
        view = view_voucher(voucher, account, self._as_of)
        card = voucher.value if voucher.kind == "gift_card" and isinstance(voucher.value, FixedValue) else None
        price = voucher.price
        return [
            view.id, view.member_id, view.offer, view.offer_version, view.kind, view.name, view.status, voucher.issued_at,
            voucher.expires_at, voucher.reserved_until if view.status == "reserved" else None, view.uses_left, view.balance,
            None if card is None else card.currency, None if card is None else self._scales.get(card.currency),
            None if price is None else price.asset, None if price is None else price.amount,
            None if price is None else self._scales.get(price.asset), view.transaction_id, _json(view.value),
        ]  # fmt: skip

    def _campaign_row(self, stored: Campaign) -> Row:
        campaign = in_force(stored, self._as_of)
        return [
            campaign.id, campaign.version, stored.status, campaign.name, campaign.asset, self._scales.get(campaign.asset),
            _json(campaign.event_types), _json(campaign.award), campaign.budget, campaign.starts_at, campaign.ends_at,
            campaign.created_at, campaign.changed_at,
        ]  # fmt: skip

    # --- queries ----------------------------------------------------------------------------------------------------

    def _times(self, wanted: TimeFilter) -> Document:
        """Return the condition on the time of a row: within the filter, and not after the beginning of the export."""
        since, until = bounds_of(wanted)
        before = self._as_of + 1 if until is None else min(until, self._as_of + 1)
        return {"$gte": _EARLIEST if since is None else since, "$lt": before}

    async def _read_scales(self) -> None:
        self._scales = {asset.code: asset.scale for asset in await self._assets.list_assets()}

    async def _pages(self, collection: str, where: Document, order: list[tuple[str, int]]) -> AsyncGenerator[Sequence[Document]]:
        page: list[Document] = []
        cursor = self._database[collection].find(where, session=self._session, batch_size=PAGE_ROWS).sort(order)
        async with cursor:
            async for document in cursor:
                page.append(document)
                if len(page) == PAGE_ROWS:
                    yield page
                    page = []
        if page:
            yield page

    def _find(self, collection: str, where: Document) -> AsyncGenerator[Document]:
        return _each(self._database[collection].find(where, session=self._session))

    async def _by_id(self, collection: str, ids: Sequence[str], kind: type[Any]) -> dict[str, Any]:
        return {row["_id"]: decode_document(row, kind) async for row in self._find(collection, {"_id": {"$in": list(ids)}})}

    async def _find_one(self, collection: str, row_id: str, kind: type[Any]) -> Any:
        document = await self._database[collection].find_one({"_id": row_id}, session=self._session)
        return None if document is None else decode_document(document, kind)


_EARLIEST, _LATEST = -(1 << 53), 1 << 53


async def _each(cursor: Any) -> AsyncGenerator[Document]:
    async for document in cursor:
        yield document


def _json(value: Struct | list[Any] | dict[str, Any] | None) -> str | None:
    """Return a structured value as JSON, or None if it is empty."""
    return msgspec.json.encode(value).decode() if value else None
