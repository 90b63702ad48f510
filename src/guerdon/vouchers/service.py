"""Vouchers: redeemed from offers, listed, and found by their codes."""

import msgspec
from msgspec import Struct

from guerdon.campaigns.evaluation import Subject
from guerdon.campaigns.profiles import Profiles
from guerdon.clock import Clock
from guerdon.database import Database
from guerdon.errors import NotFound, Overloaded, Retry, SoldOut, Validation
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.http.idempotency import KeyedRequest
from guerdon.ids import IdSource
from guerdon.ledger.expiry import bring_up_to
from guerdon.ledger.models import Account, CommandOutcome, Entry, Idempotency
from guerdon.ledger.service import Ledger
from guerdon.offers.code_patterns import DEFAULT_PATTERN, normalise, parse_pattern
from guerdon.offers.models import CatalogueItem, Offer
from guerdon.offers.refusals import RefusalCounts
from guerdon.offers.service import Offers
from guerdon.outbox import Outbox
from guerdon.permissions import MISSING_OR_FOREIGN, Actor
from guerdon.vouchers.catalog import catalog_command, on_sale
from guerdon.vouchers.codes.models import CODE_BATCHES, CodeBatch
from guerdon.vouchers.codes.unissued_codes import FoundVoucher, open_voucher
from guerdon.vouchers.models import (
    DEALT_CODES,
    ISSUED_EVENT,
    POOL_CODES,
    VOUCHER_CODES,
    VOUCHERS,
    CodeRow,
    DealtCode,
    PoolCode,
    RedeemCreate,
    Redeemed,
    Voucher,
    VoucherQuery,
    VoucherView,
    pool_id,
    status_of,
    view_voucher,
)
from guerdon.vouchers.redeem import PreparedVoucher, RedeemRequest, reads_member, redeem_command
from guerdon.wallets.models import view_transaction

ATTEMPTS_MAX = 5
"""Attempts of a redemption while its offer changes."""
EXAMINED_MAX = 500
"""Vouchers that one page of a filtered list examines. The cursor continues after the last of them."""
SOLD_OUT_MAX = 10_000
CHANNEL = "webhooks"
OUTBOX_SECONDS = 30 * 86_400
"""Time for which an outbox event is kept."""


class OwnedVoucher(Struct, frozen=True):
    """A voucher with its current view."""

    voucher: Voucher
    view: VoucherView

    @property
    def id(self) -> str:
        return self.voucher.id


class Vouchers:
    """Redemption, lists and lookup of vouchers."""

    def __init__(
        self,
        ledger: Ledger,
        offers: Offers,
        profiles: Profiles,
        *,
        refusals: RefusalCounts,
        outbox: Outbox,
        database: Database,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._ledger = ledger
        self._offers = offers
        self._profiles = profiles
        self._refusals = refusals
        self._outbox = outbox
        self._vouchers = database.collection(VOUCHERS, Voucher)
        self._codes = database.collection(VOUCHER_CODES, CodeRow)
        self._dealt = database.collection(DEALT_CODES, DealtCode)
        self._pool = database.collection(POOL_CODES, PoolCode)
        self._batches = database.collection(CODE_BATCHES, CodeBatch)
        self._clock = clock
        self._ids = ids
        self._sold_out: set[str] = set()
        """Offers whose last redemption found no stock. The next one prepares no voucher; a wrong guess costs one more attempt."""

    # --- commands ---------------------------------------------------------------------------------------------------

    async def redeem(self, request: KeyedRequest, offer_id: str, body: RedeemCreate) -> tuple[Redeemed, bool]:
        """Issue a voucher to a member and take its price in one commit. Return it, and whether an earlier request issued it.

        Raises:
            NotFound: the offer or the member does not exist, or the caller is another member.
            Validation: a service key did not name the member.
            OfferUnavailable, NotEligible, LimitReached, SoldOut, InsufficientFunds: the first rejection reason that applies.
            WalletFrozen, WalletClosed, IdempotencyKeyReused, ReferenceReused: see the rules of the ledger.
            Overloaded: the offer changed during every attempt.
        """
        await self._offers.peek(offer_id)
        with self._refusals.counting(offer_id, "redeem", dry_run=request.dry_run):
            return await self._redeem(request, offer_id, body)

    async def _redeem(self, request: KeyedRequest, offer_id: str, body: RedeemCreate) -> tuple[Redeemed, bool]:
        if body.member_id is not None:
            request.actor.require_reach(body.member_id)
        elif request.actor.kind != "member":
            raise Validation.at("/member_id", "name the member who redeems")
        member = body.member_id or request.actor.id
        idempotency = Idempotency(member, request.actor.id, request.key, request.fingerprint, body.reference)
        if len(self._sold_out) > SOLD_OUT_MAX:
            self._sold_out.clear()
        for attempt in range(ATTEMPTS_MAX):
            # The first attempt leaves out what it is not expected to need: in a rush for the last voucher most requests get none.
            complete = attempt > 0
            offer = await self._offers.peek(offer_id, fresh=complete)
            subject = await self._profiles.read(member, seal_for=None) if reads_member(offer) else Subject(member)
            redemption = RedeemRequest(
                offer=offer,
                subject=subject,
                idempotency=idempotency,
                calendar=self._ledger.calendar,
                now_ms=self._clock.now_ms(),
                prepared=self._prepare(offer, member) if complete or offer.id not in self._sold_out else None,
                checks_member=complete or offer.price is None,
            )
            try:
                outcome = await self._ledger.submit(redeem_command(redemption), dry_run=request.dry_run)
            except SoldOut:
                self._sold_out.add(offer_id)
                raise
            except Retry:
                self._sold_out.discard(offer_id)
                continue
            return await self._result(outcome), outcome.replayed
        raise Overloaded("the offer is being changed; nothing was done", retry_after_seconds=1)

    def _prepare(self, offer: Offer, member: str) -> PreparedVoucher:
        voucher_id, code, code_id = self._ids.new("vch"), None, None
        event = {"voucher": voucher_id, "offer": offer.id, "member": member}
        if offer.kind != "external_code":
            pattern = parse_pattern(offer.code_pattern or DEFAULT_PATTERN)
            [code_id] = pattern.draw(1)
            code = event["code"] = pattern.shown(code_id)
        row = self._outbox.row_of(ISSUED_EVENT, member, event, channel=CHANNEL, ttl_seconds=OUTBOX_SECONDS)
        return PreparedVoucher(voucher_id, code, code_id, row)

    async def _result(self, outcome: CommandOutcome[Voucher | None]) -> Redeemed:
        """Return the result, made from the first entry and from fields that never change, so that a replay returns the first result."""
        paid: Entry = outcome.entries[0]
        voucher = outcome.value or await self._vouchers.get(paid.metadata["voucher"])
        assert voucher is not None
        issued = msgspec.structs.replace(voucher, state="issued", reserved_until=None)
        view = view_voucher(issued, None, voucher.issued_at, code=await self.pool_code(voucher))
        return Redeemed(view, view_transaction(paid) if paid.kind == "redeem" else None)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def list_catalog(self, actor: Actor) -> list[CatalogueItem]:
        """Return the catalog of the calling member, from one snapshot.

        Raises:
            NotFound: the member does not exist any more.
        """
        now_ms = self._clock.now_ms()
        offers = on_sale(await self._offers.list_live(), now_ms)
        reads = any(map(reads_member, offers))
        subject = await self._profiles.read(actor.id, seal_for=None) if reads else Subject(actor.id)
        outcome = await self._ledger.preview(catalog_command(offers, subject, self._ledger.calendar, now_ms))
        return outcome.value

    async def list_vouchers(self, actor: Actor, member_id: str, query: VoucherQuery) -> tuple[list[VoucherView], str | None]:
        """Return one page of a member's vouchers, newest first, and the cursor of the next page.

        Raises:
            NotFound: the member does not exist, or the caller is another member.
            Validation: the cursor was not returned by this list.
        """
        actor.require_reach(member_id)
        await self._profiles.require(member_id)
        where: dict[str, object] = {"owner": member_id}
        if query.cursor is not None:
            where["_id"] = {"$lt": decode_cursor(query.cursor, "vch_")}
        filtered = (query.status, query.offer, query.kind) != (None, None, None)
        limit = EXAMINED_MAX if filtered else query.limit
        found = await self._vouchers.find(where, sort=[("_id", -1)], limit=limit + 1)
        now_ms = self._clock.now_ms()
        matching = [voucher for voucher in found[:limit] if _matches(voucher, query, now_ms)]
        page = matching[: query.limit]
        views = await self._views(page, now_ms)
        if len(matching) > query.limit:
            return views, encode_cursor(page[-1].id)
        return views, encode_cursor(found[limit - 1].id) if len(found) > limit else None

    async def list_after(self, member_id: str, after: str, limit: int) -> list[OwnedVoucher]:
        """Return a member's vouchers after an id, oldest first, for a data export."""
        where = {"owner": member_id, "_id": {"$gt": after}}
        vouchers = await self._vouchers.find(where, sort=[("_id", 1)], limit=limit)
        views = await self._views(vouchers, self._clock.now_ms())
        return [OwnedVoucher(voucher, view) for voucher, view in zip(vouchers, views, strict=True)]

    async def list_before(self, member_id: str, before: str | None, limit: int) -> list[Voucher]:
        """Return a member's stored vouchers before an id, newest first; without an id the newest ones."""
        where: dict[str, object] = {"owner": member_id}
        if before is not None:
            where["_id"] = {"$lt": before}
        return await self._vouchers.find(where, sort=[("_id", -1)], limit=limit)

    async def view_all(self, vouchers: list[Voucher]) -> list[VoucherView]:
        """Return the current views of stored vouchers."""
        return await self._views(vouchers, self._clock.now_ms())

    async def get_voucher(self, actor: Actor, code: str) -> VoucherView:
        """
        Raises:
            NotFound: the code does not exist, or the voucher is not the calling member's.
        """
        found = await self.look(code, actor.id)
        if found is None or (actor.kind == "member" and found.voucher.member != actor.id):
            raise NotFound(MISSING_OR_FOREIGN)
        return await self.view(found)

    async def find(self, code: str) -> Voucher | None:
        """Return the stored voucher of a code. None for a code that does not exist or has had no step."""
        row = await self._codes.get(normalise(code))
        return None if row is None else await self._voucher_of(row)

    async def look(self, code: str, actor: str) -> FoundVoucher | None:
        """Return the voucher of a code, stored or to be opened by `actor`. None for a code that does not exist or is not active yet."""
        row = await self._codes.get(normalise(code))
        voucher = None if row is None else await self._voucher_of(row)
        if row is None or voucher is not None:
            return None if voucher is None else FoundVoucher(voucher)
        batch = None if row.batch is None or row.number is not None else await self._batches.get(row.batch)
        if batch is None or batch.status != "done":
            return None
        offer = await self._offers.version(batch.owner, batch.offer_version)
        return open_voucher(row, batch, offer, actor=actor, now_ms=self._clock.now_ms())

    async def _voucher_of(self, row: CodeRow) -> Voucher | None:
        if row.number is not None and row.voucher is None:
            dealt = await self._dealt.get(pool_id(row.offer, row.number))
            return None if dealt is None else await self._vouchers.get(dealt.voucher)
        return None if row.voucher is None else await self._vouchers.get(row.voucher)

    async def view(self, found: FoundVoucher) -> VoucherView:
        """Return the current view of a voucher."""
        now_ms = self._clock.now_ms()
        if found.opening is not None:
            return view_voucher(found.voucher, self._present(found.opening.account), now_ms)
        [view] = await self._views([found.voucher], now_ms)
        return view

    async def _views(self, vouchers: list[Voucher], now_ms: int) -> list[VoucherView]:
        accounts = await self._ledger.find_accounts([voucher.account for voucher in vouchers]) if vouchers else {}
        views: list[VoucherView] = []
        for voucher in vouchers:
            account = accounts.get(voucher.account)
            present = None if account is None else self._present(account)
            views.append(view_voucher(voucher, present, now_ms, code=await self.pool_code(voucher)))
        return views

    def _present(self, account: Account) -> Account:
        """Return a voucher's account as of now, with expiries that no entry records yet."""
        return bring_up_to(account, self._clock.now_ms(), self._ledger.calendar).account

    async def pool_code(self, voucher: Voucher) -> str | None:
        """Return the code that a voucher has from its offer's pool, or None if it has its own code or the pool has none for it."""
        code = None if voucher.number is None else await self._pool.get(pool_id(voucher.offer, voucher.number))
        return None if code is None else code.code


def _matches(voucher: Voucher, query: VoucherQuery, now_ms: int) -> bool:
    return (
        (query.status is None or status_of(voucher, now_ms) == query.status)
        and (query.offer is None or voucher.offer == query.offer)
        and (query.kind is None or voucher.kind == query.kind)
    )
