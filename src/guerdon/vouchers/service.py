"""Vouchers: redeemed from offers, listed, and found by their codes."""

import msgspec
from msgspec import Struct

from guerdon.campaigns.evaluation import Subject
from guerdon.campaigns.profiles import Profiles
from guerdon.clock import Clock
from guerdon.database import Database
from guerdon.errors import NotFound, Overloaded, Retry, SoldOut, Validation
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.ids import IdSource
from guerdon.ledger.expiry import bring_up_to
from guerdon.ledger.models import Account, CommandOutcome, Entry, Idempotency
from guerdon.ledger.service import Ledger
from guerdon.offers.code_patterns import DEFAULT_PATTERN, new_code, normalise, parse_pattern
from guerdon.offers.models import CatalogueItem, Offer
from guerdon.offers.service import Offers
from guerdon.outbox import Outbox
from guerdon.permissions import NOBODYS, Actor
from guerdon.vouchers.catalog import catalogue_command, on_sale
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
from guerdon.vouchers.redeem import NewVoucher, RedeemRequest, reads_member, redeem_command
from guerdon.wallets.models import view_transaction
from guerdon.wallets.service import Request

LOOKS_MAX = 5
"""How often a redemption looks at an offer that is being changed."""
EXAMINED_MAX = 500
"""A page with a filter looks at so many vouchers, and says where to go on."""
SOLD_OUT_MAX = 10_000
CHANNEL = "webhooks"
TOLD_SECONDS = 30 * 86_400


class Owned(Struct, frozen=True):
    """A voucher, and how it is shown now."""

    voucher: Voucher
    view: VoucherView

    @property
    def id(self) -> str:
        return self.voucher.id


class Vouchers:
    """Everything that was issued."""

    def __init__(
        self, ledger: Ledger, offers: Offers, people: Profiles, *, outbox: Outbox, database: Database, clock: Clock, ids: IdSource
    ) -> None:
        self._ledger = ledger
        self._offers = offers
        self._people = people
        self._outbox = outbox
        self._vouchers = database.collection(VOUCHERS, Voucher)
        self._codes = database.collection(VOUCHER_CODES, CodeRow)
        self._dealt = database.collection(DEALT_CODES, DealtCode)
        self._pool = database.collection(POOL_CODES, PoolCode)
        self._batches = database.collection(CODE_BATCHES, CodeBatch)
        self._clock = clock
        self._ids = ids
        self._sold_out: set[str] = set()
        """Offers that were sold out when somebody last asked: only a guess at what it is worth to prepare."""

    # --- commands ---------------------------------------------------------------------------------------------------

    async def redeem(self, request: Request, offer_id: str, body: RedeemCreate) -> tuple[Redeemed, bool]:
        """Issue a voucher to a member and take its price in one commit; return it and whether it was issued before.

        Raises:
            NotFound: no such offer or member, or the caller is another member.
            Validation: a service did not say for whom.
            OfferUnavailable, NotEligible, LimitReached, SoldOut, InsufficientFunds: it is refused, for the first reason that there is.
            WalletFrozen, WalletClosed, IdempotencyKeyReused, ReferenceReused: see the ledger's rules.
        """
        await self._offers.peek(offer_id)
        member = _member_of(request.actor, body)
        idempotency = Idempotency(member, request.actor.id, request.key, request.fingerprint, body.reference)
        for look in range(LOOKS_MAX):
            offer = await self._offers.peek(offer_id, fresh=look > 0)
            subject = await self._subject(member, reads=reads_member(offer))
            asked = self._redemption(offer, subject, idempotency, whole=look > 0)
            try:
                outcome = await self._ledger.submit(redeem_command(asked))
            except SoldOut:
                self._sold_out.add(offer_id)
                raise
            except Retry:
                self._sold_out.discard(offer_id)
                continue
            return await self._answer(outcome), outcome.replayed
        raise Overloaded("the offer is being changed; nothing was done", retry_after_seconds=1)

    def _redemption(self, offer: Offer, subject: Subject, idempotency: Idempotency, *, whole: bool) -> RedeemRequest:
        """What is not expected to be needed is neither made nor read: most of those who race for the last voucher get none."""
        if len(self._sold_out) > SOLD_OUT_MAX:
            self._sold_out.clear()
        return RedeemRequest(
            offer=offer,
            subject=subject,
            idempotency=idempotency,
            calendar=self._ledger.calendar,
            now_ms=self._clock.now_ms(),
            blank=self._blank(offer, idempotency.owner) if whole or offer.id not in self._sold_out else None,
            thorough=whole or offer.price is None,
        )

    def _blank(self, offer: Offer, member: str) -> NewVoucher:
        voucher_id, code = self._ids.new("vch"), None
        if offer.kind != "external_code":
            code = new_code(parse_pattern(offer.code_pattern or DEFAULT_PATTERN))
        said = {"voucher": voucher_id, "offer": offer.id, "member": member, **({} if code is None else {"code": code})}
        row = self._outbox.row_of(ISSUED_EVENT, member, said, channel=CHANNEL, ttl_seconds=TOLD_SECONDS)
        return NewVoucher(voucher_id, code, None if code is None else normalise(code), row)

    async def _answer(self, outcome: CommandOutcome[Voucher | None]) -> Redeemed:
        """The answer is made from the first entry and from what never changes, so a replay is the first answer again."""
        paid: Entry = outcome.entries[0]
        voucher = outcome.value or await self._vouchers.get(paid.metadata["voucher"])
        assert voucher is not None
        issued = msgspec.structs.replace(voucher, state="issued", reserved_until=None)
        view = view_voucher(issued, None, voucher.issued_at, code=await self.code_of(voucher))
        return Redeemed(view, view_transaction(paid) if paid.kind == "redeem" else None)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def list_catalogue(self, actor: Actor) -> list[CatalogueItem]:
        """Return what is on sale as the caller sees it, from one read of the database.

        Raises:
            NotFound: the caller is no member any more.
        """
        now_ms = self._clock.now_ms()
        offers = on_sale(await self._offers.list_live(), now_ms)
        subject = await self._subject(actor.id, reads=any(map(reads_member, offers)))
        outcome = await self._ledger.preview(catalogue_command(offers, subject, self._ledger.calendar, now_ms))
        return outcome.value

    async def list_vouchers(self, actor: Actor, member_id: str, query: VoucherQuery) -> tuple[list[VoucherView], str | None]:
        """Return one page of a member's vouchers, newest first, and the cursor of the next.

        Raises:
            NotFound: the caller is another member.
            Validation: the cursor is not one of this list.
        """
        actor.require_reach(member_id)
        await self._people.require(member_id)
        where: dict[str, object] = {"owner": member_id}
        if query.cursor is not None:
            where["_id"] = {"$lt": decode_cursor(query.cursor, "vch_")}
        filtered = (query.status, query.offer, query.kind) != (None, None, None)
        limit = EXAMINED_MAX if filtered else query.limit
        found = await self._vouchers.find(where, sort=[("_id", -1)], limit=limit + 1)
        now_ms = self._clock.now_ms()
        fitting = [voucher for voucher in found[:limit] if _fits(voucher, query, now_ms)]
        page = fitting[: query.limit]
        views = await self._views(page, now_ms)
        if len(fitting) > query.limit:
            return views, encode_cursor(page[-1].id)
        return views, encode_cursor(found[limit - 1].id) if len(found) > limit else None

    async def list_after(self, member_id: str, after: str, limit: int) -> list[Owned]:
        """Return a member's vouchers behind an id, the oldest first; for an export."""
        where = {"owner": member_id, "_id": {"$gt": after}}
        vouchers = await self._vouchers.find(where, sort=[("_id", 1)], limit=limit)
        views = await self._views(vouchers, self._clock.now_ms())
        return [Owned(voucher, view) for voucher, view in zip(vouchers, views, strict=True)]

    async def get_voucher(self, actor: Actor, code: str) -> VoucherView:
        """
        Raises:
            NotFound: no such code, or a member asks for one that is not theirs.
        """
        found = await self.look(code, actor.id)
        if found is None or (actor.kind == "member" and found.voucher.member != actor.id):
            raise NotFound(NOBODYS)
        return await self.view(found)

    async def find(self, code: str) -> Voucher | None:
        """Return the voucher that a code stands for; None for a code that is none, or that nobody has opened yet."""
        row = await self._codes.get(normalise(code))
        return None if row is None else await self._voucher_of(row)

    async def look(self, code: str, actor: str) -> FoundVoucher | None:
        """Return what a code stands for, whether or not anybody has opened it; None for one that is none, or not good yet."""
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

    def present(self, account: Account) -> Account:
        """What time has made of a voucher's account, booked or not."""
        return bring_up_to(account, self._clock.now_ms(), self._ledger.calendar).account

    async def view(self, found: FoundVoucher) -> VoucherView:
        """Show what a code stands for as it is now."""
        now_ms = self._clock.now_ms()
        if found.opening is not None:
            return view_voucher(found.voucher, self.present(found.opening.account), now_ms)
        [view] = await self._views([found.voucher], now_ms)
        return view

    async def _views(self, vouchers: list[Voucher], now_ms: int) -> list[VoucherView]:
        accounts = await self._ledger.find_accounts([voucher.account for voucher in vouchers]) if vouchers else {}
        codes = {voucher.id: await self.code_of(voucher) for voucher in vouchers if voucher.number is not None}
        return [
            view_voucher(
                voucher,
                None if (account := accounts.get(voucher.account)) is None else self.present(account),
                now_ms,
                code=codes.get(voucher.id),
            )
            for voucher in vouchers
        ]

    async def code_of(self, voucher: Voucher) -> str | None:
        """The code of the pool that a voucher has got; others have their own."""
        if voucher.number is None:
            return None
        dealt = await self._pool.get(pool_id(voucher.offer, voucher.number))
        return None if dealt is None else dealt.code

    async def _subject(self, member_id: str, *, reads: bool) -> Subject:
        return await self._people.read(member_id, seal_for=None) if reads else Subject(member_id)


def _member_of(actor: Actor, body: RedeemCreate) -> str:
    if body.member_id is None:
        if actor.kind != "member":
            raise Validation.at("/member_id", "say who redeems")
        return actor.id
    actor.require_reach(body.member_id)
    return body.member_id


def _fits(voucher: Voucher, query: VoucherQuery, now_ms: int) -> bool:
    return (
        (query.status is None or status_of(voucher, now_ms) == query.status)
        and (query.offer is None or voucher.offer == query.offer)
        and (query.kind is None or voucher.kind == query.kind)
    )
