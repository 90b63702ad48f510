"""Offers: drafted, versioned, activated, paused, ended. The stock is an account of the ledger, and changes in the commit of its offer."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from guerdon.campaigns.cel import compile_eligibility, require_bounded
from guerdon.clock import Clock, utc_ms
from guerdon.database import Database
from guerdon.errors import NotFound, StockBelowIssued, Validation
from guerdon.ids import IdSource
from guerdon.ledger.models import (
    RULES,
    Account,
    AccountRules,
    Command,
    Decision,
    DocumentChange,
    DocumentRef,
    Posting,
    Transaction,
    View,
)
from guerdon.ledger.service import Ledger
from guerdon.lifecycle import Definitions, version_id
from guerdon.money import BALANCE_CEILING
from guerdon.net.addresses import Resolve, UnsafeAddress, require_public, resolve_by_system
from guerdon.offers.code_patterns import parse_pattern, require_secret
from guerdon.offers.models import (
    OFFER_VERSIONS,
    OFFERS,
    OFFERS_LIVE_MAX,
    STOCK,
    FixedValue,
    ItemValue,
    Offer,
    OfferCreate,
    OfferQuery,
    OfferVersion,
    PercentValue,
)
from guerdon.permissions import Actor
from guerdon.types import DefinitionStatus
from guerdon.wallets.assets import Assets

REFRESH_SECONDS = 1.0
REMEMBERED_MAX = 10_000
OFFER_BYTES = 16_384


class OfferState(Struct, frozen=True):
    """An offer and its stock account."""

    offer: Offer
    account: Account | None


class Offers:
    """The catalogue as those see it who make it. What a commit judges is read in the commit: a pause holds at once, everywhere."""

    def __init__(
        self,
        ledger: Ledger,
        assets: Assets,
        *,
        database: Database,
        clock: Clock,
        ids: IdSource,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._ledger = ledger
        self._assets = assets
        self._definitions = Definitions(database, (OFFERS, Offer), (OFFER_VERSIONS, OfferVersion), noun="offer")
        self._clock = clock
        self._ids = ids
        self._resolve = resolve
        self._known: dict[str, tuple[float, Offer]] = {}
        self._versions: dict[str, Offer] = {}
        self._asked: set[str] = set()
        self._live: tuple[float, list[Offer]] | None = None
        self._refreshing = asyncio.Lock()

    # --- commands ---------------------------------------------------------------------------------------------------

    async def create(self, actor: Actor, body: OfferCreate, *, offer_id: str | None = None) -> OfferState:
        """Save version 1 as a draft, and open its stock.

        Raises:
            Validation: what is offered makes no sense, its eligibility does not compile, or an image is not to be shown.
        """
        now_ms = self._clock.now_ms()
        offer = await self._offer(body, offer_id or self._ids.new("off"), actor, version=1, now_ms=now_ms)
        wanted = _ceiling_of(body, 0)

        def decide(view: View) -> Decision:
            if (OFFERS, offer.id) in view.documents:
                return Decision()  # It was made by a run whose answer was lost.
            opened = Account(offer.stock_account, offer.id, STOCK, STOCK, opened_at=view.now_ms)
            return Decision(
                _terms(opened, wanted, actor.id),
                (opened,),
                ((OFFERS, self._definitions.current.encode(offer)), _archived(offer)),
            )

        return await self._submit(offer, decide)

    async def replace(self, actor: Actor, offer_id: str, body: OfferCreate) -> OfferState:
        """Make a new version, which is in force at once; vouchers keep the one that they were issued by. The status stays.

        Raises:
            NotFound: no such offer.
            Validation: as for `create`, or it would be of another kind.
            InvalidState: it has ended, or somebody else has changed it at the same moment.
            StockBelowIssued: more than the new stock was issued already.
        """
        current = await self._definitions.get(offer_id)
        self._definitions.require_replaceable(current.status)
        if body.kind != current.kind:
            raise Validation.at("/kind", f"it is {current.kind} for good; draft another offer")
        draft = await self._offer(body, offer_id, actor, version=current.version + 1, now_ms=self._clock.now_ms())
        offer = msgspec.structs.replace(
            draft, status=current.status, count=current.count + 1, created_at=current.created_at, created_by=current.created_by
        )

        def decide(view: View) -> Decision:
            account = view.accounts[offer.stock_account]
            wanted = _ceiling_of(body, account.ceiling)
            if wanted < account.balance:
                raise StockBelowIssued(
                    f"{account.balance} are issued; the stock cannot be {wanted}", issued=account.balance, stock=wanted
                )
            return Decision(
                _terms(account, wanted, actor.id), inserts=(_archived(offer),), changes=(_changed(offer, current.count),)
            )

        return await self._submit(offer, self._guarded(offer, current, decide))

    async def set_status(self, offer_id: str, status: DefinitionStatus) -> OfferState:
        """Activate, pause or end; doing it twice changes nothing, and what has ended stays so.

        Raises:
            NotFound: no such offer.
            InvalidState: a draft cannot be paused, an ended one cannot change, too many are active, or somebody else has changed it at the
                same moment.
        """
        current = await self._definitions.get(offer_id)
        if current.status == status:
            return await self.get_offer(offer_id)
        self._definitions.require_transition(current.status, status)
        await self._definitions.require_capacity(current.status, status, OFFERS_LIVE_MAX)
        offer = msgspec.structs.replace(current, status=status, count=current.count + 1, changed_at=self._clock.now_ms())
        changed = Decision(changes=(_changed(offer, current.count),))
        return await self._submit(offer, self._guarded(offer, current, lambda _: changed))

    def _guarded(self, offer: Offer, current: Offer, decide: Callable[[View], Decision]) -> Callable[[View], Decision]:
        """Decide only about what was read; what an earlier run has done whose answer was lost is done."""

        def guarded(view: View) -> Decision:
            document = view.documents[OFFERS, offer.id]
            if document["count"] != current.count:
                if self._definitions.current.decode(document) == offer:
                    return Decision()
                raise self._definitions.conflict(document["status"])
            return decide(view)

        return guarded

    async def _submit(self, offer: Offer, decide: Callable[[View], Decision]) -> OfferState:
        await self._ledger.submit(
            Command(
                owners=(offer.id,),
                accounts=(offer.stock_account,),
                decide=decide,
                documents=(DocumentRef(OFFERS, offer.id, offer.id),),
                size_bytes=OFFER_BYTES,
            )
        )
        self.forget(offer.id)
        return OfferState(offer, await self._ledger.get_account(offer.stock_account, offer.id))

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_offer(self, offer_id: str) -> OfferState:
        """
        Raises:
            NotFound: no such offer.
        """
        offer = await self._definitions.get(offer_id)
        return OfferState(offer, await self._ledger.get_account(offer.stock_account, offer.id))

    async def exists(self, offer_id: str) -> bool:
        return await self._definitions.exists(offer_id)

    async def list_offers(self, query: OfferQuery) -> tuple[list[OfferState], str | None]:
        """Return one page, newest first, and the cursor of the next.

        Raises:
            Validation: the cursor is not one of ours.
        """
        page, cursor = await self._definitions.list_page(status=query.status, cursor=query.cursor, limit=query.limit, prefix="off_")
        accounts = await self._ledger.find_accounts([offer.stock_account for offer in page])
        states = [OfferState(offer, accounts.get(offer.stock_account)) for offer in page]
        return states, cursor

    async def peek(self, offer_id: str, *, fresh: bool = False) -> Offer:
        """Return an offer as it was about a second ago; whoever commits by it compares its `count` with that of the commit.

        Raises:
            NotFound: no such offer.
        """
        now = self._clock.monotonic()
        known = self._known.get(offer_id)
        if known is not None and not fresh and now - known[0] <= REFRESH_SECONDS:
            return known[1]
        if known is not None and not fresh and offer_id in self._asked:
            return known[1]  # Thousands may want it in this moment; one of them asks.
        self._asked.add(offer_id)
        try:
            offer = await self._definitions.get(offer_id)
        finally:
            self._asked.discard(offer_id)
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[offer_id] = (now, offer)
        return offer

    async def list_live(self) -> Sequence[Offer]:
        """Return the active offers, newest first, as they were at most a second ago."""
        now = self._clock.monotonic()
        if self._live is None or now - self._live[0] > REFRESH_SECONDS:
            async with self._refreshing:
                if self._live is None or now - self._live[0] > REFRESH_SECONDS:
                    active = await self._definitions.current.find({"status": "active"}, sort=[("_id", -1)], limit=OFFERS_LIVE_MAX)
                    self._live = (now, active)
        return self._live[1]

    async def version(self, offer_id: str, version: int) -> Offer:
        """Return what a version of an offer says, which never changes.

        Raises:
            NotFound: there is no such version.
        """
        name = version_id(offer_id, version)
        known = self._versions.get(name)
        if known is None:
            archived = await self._definitions.archive.get(name)
            if archived is None:
                raise NotFound("there is no such offer")
            if len(self._versions) >= REMEMBERED_MAX:
                self._versions.clear()
            known = self._versions[name] = archived.offer
        return known

    def forget(self, offer_id: str) -> None:
        """Read an offer anew: it was changed."""
        self._known.pop(offer_id, None)
        self._live = None

    # --- what makes sense -------------------------------------------------------------------------------------------

    async def _offer(self, body: OfferCreate, offer_id: str, actor: Actor, *, version: int, now_ms: int) -> Offer:
        _require_value(body)
        require_bounded(body.eligibility, "/eligibility")
        compile_eligibility(body.eligibility, "/eligibility")
        if body.code_pattern is not None:
            require_secret(parse_pattern(body.code_pattern, "/code_pattern"), "/code_pattern")
        await self._require_assets(body)
        for number, url in enumerate(body.images):
            try:
                await require_public(url, self._resolve)
            except UnsafeAddress as error:
                raise Validation.at(f"/images/{number}", str(error)) from None
        starts_at = None if body.starts_at is None else utc_ms(body.starts_at, "/starts_at")
        ends_at = None if body.ends_at is None else utc_ms(body.ends_at, "/ends_at")
        if starts_at is not None and ends_at is not None and starts_at >= ends_at:
            raise Validation.at("/ends_at", "the end must be after the start")
        return Offer(
            id=offer_id,
            owner=offer_id,
            version=version,
            count=1,
            status="draft",
            name=body.name,
            kind=body.kind,
            value=body.value,
            price=body.price,
            per_member_limit=body.per_member_limit,
            per_member_day_limit=body.per_member_day_limit,
            per_member_month_limit=body.per_member_month_limit,
            eligibility=body.eligibility,
            tiers=list(dict.fromkeys(body.tiers)),
            starts_at=starts_at,
            ends_at=ends_at,
            voucher_valid_days=body.voucher_valid_days,
            code_pattern=body.code_pattern,
            minimum_basket=body.minimum_basket,
            description=body.description,
            images=body.images,
            cancellation=body.cancellation,
            unuse=body.unuse,
            created_at=now_ms,
            created_by=actor.id,
            changed_at=now_ms,
        )

    async def _require_assets(self, body: OfferCreate) -> None:
        named = [("/price/asset", None if body.price is None else body.price.asset)]
        if body.kind == "gift_card" and isinstance(body.value, FixedValue):
            named.append(("/value/currency", body.value.currency))
        for pointer, asset in named:
            if asset is not None and not await self._assets.exists(asset):
                raise Validation.at(pointer, f"there is no asset {asset}")


def _require_value(body: OfferCreate) -> None:
    """
    Raises:
        Validation: a voucher of this kind is not worth this, or fields contradict each other.
    """
    wanted = {"discount": FixedValue | PercentValue, "item": ItemValue, "gift_card": FixedValue, "external_code": None}[body.kind]
    if wanted is None:
        if body.value is not None:
            raise Validation.at("/value", "another house knows what an external code is worth: leave it out")
        if body.stock is not None:
            raise Validation.at("/stock", "there are as many as codes were imported: leave it out")
        if body.code_pattern is not None:
            raise Validation.at("/code_pattern", "external codes are imported: leave it out")
    elif not isinstance(body.value, wanted):
        raise Validation.at(
            "/value", {"discount": "fixed or percent", "item": "item"}.get(body.kind, "fixed") + " is what it takes"
        )
    if isinstance(body.value, PercentValue) and body.value.maximum is not None and body.value.currency is None:
        raise Validation.at("/value/currency", "a maximum needs its currency")
    if body.minimum_basket is not None:
        currency = None if body.value is None or isinstance(body.value, ItemValue) else body.value.currency
        if body.kind != "discount":
            raise Validation.at("/minimum_basket", "only discounts have one")
        if currency is not None and currency != body.minimum_basket.currency:
            raise Validation.at("/minimum_basket/currency", f"the discount is in {currency}")


def _ceiling_of(body: OfferCreate, imported: int) -> int:
    """What the stock account may count to; external codes have as many as were imported."""
    if body.kind == "external_code":
        return imported
    return BALANCE_CEILING if body.stock is None else body.stock


def _terms(account: Account, ceiling: int, actor: str) -> tuple[Transaction, ...]:
    """Set a stock; what is so already needs no entry."""
    if account.ceiling == ceiling:
        return ()
    return (Transaction("terms", (Posting(account.id, 0, RULES, terms=AccountRules(ceiling=ceiling)),), actor),)


def _archived(offer: Offer) -> tuple[str, dict[str, object]]:
    version = OfferVersion(id=version_id(offer.id, offer.version), owner=offer.id, offer=offer)
    return OFFER_VERSIONS, msgspec.to_builtins(version)


def _changed(offer: Offer, count: int) -> DocumentChange:
    """Write an offer whose `count` was this when it was read."""
    fields = msgspec.to_builtins(offer)
    return DocumentChange(OFFERS, fields.pop("_id"), fields.pop("owner"), fields, counted=True, count=count)
