"""Offers and their life cycle. The stock of an offer is a ledger account, which changes in the commit of its offer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import msgspec
from msgspec import Struct

from guerdon.campaigns.cel import compile_eligibility, require_bounded
from guerdon.campaigns.warnings import ReadKnownNames, warnings_of_member_rules
from guerdon.clock import Clock, optional_utc_ms
from guerdon.database import Database
from guerdon.errors import NotFound, StockBelowIssued, Validation, collect
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
from guerdon.types import DefinitionStatus, DefinitionWarning
from guerdon.wallets.assets import Assets

REFRESH_SECONDS = 1.0
"""Maximum age of a cached offer."""
CACHED_MAX = 10_000
OFFER_BYTES = 16_384
VALUE_TYPES = {"discount": "fixed or percent", "item": "item", "gift_card": "fixed"}


class OfferState(Struct, frozen=True):
    """An offer and its stock account."""

    offer: Offer
    account: Account | None


class OfferChange(Struct, frozen=True):
    """An offer and its stock before and after a change."""

    before: Offer
    after: OfferState
    stock: tuple[int | None, int | None] = (None, None)
    """Number of vouchers that could and can be issued in total; None for no limit."""


class Offers:
    """The offers of the programme. A commit reads the offer again, so a pause takes effect at once in every process."""

    def __init__(
        self,
        ledger: Ledger,
        assets: Assets,
        *,
        database: Database,
        clock: Clock,
        ids: IdSource,
        known: ReadKnownNames,
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._ledger = ledger
        self._assets = assets
        self._definitions = Definitions(database, (OFFERS, Offer), (OFFER_VERSIONS, OfferVersion), noun="offer")
        self._clock = clock
        self._ids = ids
        self._known = known
        self._resolve = resolve
        self._cached: dict[str, tuple[float, Offer]] = {}
        self._versions: dict[str, Offer] = {}
        self._loading: set[str] = set()
        self._live: tuple[float, list[Offer]] | None = None
        self._refreshing = asyncio.Lock()

    async def find_warnings(self, body: OfferCreate) -> list[DefinitionWarning]:
        """Return what is valid in an offer and probably not meant."""
        tiers = [(f"/tiers/{number}", code) for number, code in enumerate(body.tiers)]
        return warnings_of_member_rules([("/eligibility", body.eligibility)], tiers, await self._known())

    # --- commands ---------------------------------------------------------------------------------------------------

    async def create(self, actor: Actor, body: OfferCreate, *, offer_id: str | None = None) -> OfferState:
        """Create version 1 as a draft, and open its stock account.

        Raises:
            Validation: fields contradict each other, an asset does not exist, the eligibility does not compile, or the address of an image
                is not public.
        """
        now_ms = self._clock.now_ms()
        offer = await self._make(body, offer_id or self._ids.new("off"), actor, version=1, now_ms=now_ms)
        stock = _ceiling_of(body, 0)
        archived = await self._archived(offer)

        def decide(view: View) -> Decision:
            if (OFFERS, offer.id) in view.documents:
                return Decision()  # An earlier run of this command created it, and its result was lost.
            opened = Account(offer.stock_account, offer.id, STOCK, STOCK, opened_at=view.now_ms)
            return Decision(
                _set_stock(opened, stock, actor.id),
                (opened,),
                ((OFFERS, self._definitions.current.encode(offer)), archived),
            )

        return await self._submit(offer, decide)

    async def replace(self, actor: Actor, offer_id: str, body: OfferCreate) -> OfferChange:
        """Create a version that replaces the current one at once. Vouchers keep the version that issued them; the status stays.

        Raises:
            NotFound: the offer does not exist.
            Validation: as for `create`, or the kind differs.
            InvalidState: the offer has ended, or another request changed it at the same time.
            StockBelowIssued: more vouchers are issued than the new stock allows.
        """
        current = await self._definitions.get(offer_id)
        self._definitions.require_replaceable(current.status)
        if body.kind != current.kind:
            raise Validation.at("/kind", f"the kind of the offer is {current.kind} and cannot change; create another offer")
        draft = await self._make(body, offer_id, actor, version=current.version + 1, now_ms=self._clock.now_ms())
        offer = msgspec.structs.replace(
            draft, status=current.status, count=current.count + 1, created_at=current.created_at, created_by=current.created_by
        )

        archived = await self._archived(offer)
        ceiling = BALANCE_CEILING

        def decide(view: View) -> Decision:
            nonlocal ceiling
            account = view.accounts[offer.stock_account]
            ceiling = account.ceiling
            stock = _ceiling_of(body, account.ceiling)
            if stock < account.balance:
                raise StockBelowIssued(
                    f"{account.balance} vouchers are issued; the stock cannot be {stock}", issued=account.balance, stock=stock
                )
            return Decision(_set_stock(account, stock, actor.id), inserts=(archived,), changes=(_changed(offer, current.count),))

        state = await self._submit(offer, self._guarded(offer, current, decide))
        return OfferChange(current, state, (None if ceiling == BALANCE_CEILING else ceiling, body.stock))

    async def _archived(self, offer: Offer) -> tuple[str, dict[str, object]]:
        """Return the version for the archive, chained to the one before it."""
        proof = await self._definitions.proof_of(offer, version_id(offer.id, offer.version - 1))
        version = OfferVersion(id=version_id(offer.id, offer.version), owner=offer.id, offer=offer, proof=proof)
        return OFFER_VERSIONS, msgspec.to_builtins(version)

    async def set_status(self, offer_id: str, status: DefinitionStatus) -> OfferChange:
        """Activate, pause or end an offer. A repeated call changes nothing.

        Raises:
            NotFound: the offer does not exist.
            InvalidState: the status cannot follow the current one, too many offers are active, or another request changed the offer at the
                same time.
        """
        current = await self._definitions.get(offer_id)
        if current.status == status:
            return OfferChange(current, await self.get_offer(offer_id))
        self._definitions.require_transition(current.status, status)
        await self._definitions.require_capacity(current.status, status, OFFERS_LIVE_MAX)
        offer = msgspec.structs.replace(current, status=status, count=current.count + 1, changed_at=self._clock.now_ms())
        changed = Decision(changes=(_changed(offer, current.count),))
        return OfferChange(current, await self._submit(offer, self._guarded(offer, current, lambda _: changed)))

    def _guarded(self, offer: Offer, current: Offer, decide: Callable[[View], Decision]) -> Callable[[View], Decision]:
        """Wrap `decide` so that it applies only to the offer as it was read. An earlier run whose result was lost counts as done."""

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
            NotFound: the offer does not exist.
        """
        offer = await self._definitions.get(offer_id)
        return OfferState(offer, await self._ledger.get_account(offer.stock_account, offer.id))

    async def exists(self, offer_id: str) -> bool:
        return await self._definitions.exists(offer_id)

    async def list_offers(self, query: OfferQuery) -> tuple[list[OfferState], str | None]:
        """Return one page, newest first, and the cursor of the next page.

        Raises:
            Validation: the cursor was not returned by this list.
        """
        page, cursor = await self._definitions.list_page(status=query.status, cursor=query.cursor, limit=query.limit, prefix="off_")
        accounts = await self._ledger.find_accounts([offer.stock_account for offer in page])
        states = [OfferState(offer, accounts.get(offer.stock_account)) for offer in page]
        return states, cursor

    async def list_past_drafts(self, status: DefinitionStatus | None, limit: int) -> list[OfferState]:
        """Return the offers with a status, by default all that are no drafts, newest first."""
        where = {"status": {"$in": ["active", "ended", "paused"]} if status is None else status}
        offers = await self._definitions.current.find(where, sort=[("_id", -1)], limit=limit)
        accounts = await self._ledger.find_accounts([offer.stock_account for offer in offers]) if offers else {}
        return [OfferState(offer, accounts.get(offer.stock_account)) for offer in offers]

    async def peek(self, offer_id: str, *, fresh: bool = False) -> Offer:
        """Return an offer from a cache of about one second. A command that uses it compares its `count` with the one in the commit.

        Raises:
            NotFound: the offer does not exist.
        """
        now = self._clock.monotonic()
        cached = self._cached.get(offer_id)
        # Of many concurrent requests for an expired offer one loads it; the others use the old one.
        if cached is not None and not fresh and (now - cached[0] <= REFRESH_SECONDS or offer_id in self._loading):
            return cached[1]
        self._loading.add(offer_id)
        try:
            offer = await self._definitions.get(offer_id)
        finally:
            self._loading.discard(offer_id)
        if len(self._cached) >= CACHED_MAX:
            self._cached.clear()
        self._cached[offer_id] = (now, offer)
        return offer

    async def list_live(self) -> Sequence[Offer]:
        """Return the active offers, newest first, at most one second old."""
        now = self._clock.monotonic()
        if self._live is None or now - self._live[0] > REFRESH_SECONDS:
            async with self._refreshing:
                if self._live is None or now - self._live[0] > REFRESH_SECONDS:
                    active = await self._definitions.current.find({"status": "active"}, sort=[("_id", -1)], limit=OFFERS_LIVE_MAX)
                    self._live = (now, active)
        return self._live[1]

    async def version(self, offer_id: str, version: int) -> Offer:
        """Return a version of an offer, which never changes.

        Raises:
            NotFound: the version does not exist.
        """
        name = version_id(offer_id, version)
        offer = self._versions.get(name)
        if offer is None:
            archived = await self._definitions.archive.get(name)
            if archived is None:
                raise NotFound("there is no such offer")
            if len(self._versions) >= CACHED_MAX:
                self._versions.clear()
            offer = self._versions[name] = archived.offer
        return offer

    def forget(self, offer_id: str) -> None:
        """Drop an offer that was changed from the caches."""
        self._cached.pop(offer_id, None)
        self._live = None

    # --- validation -------------------------------------------------------------------------------------------------

    async def _make(self, body: OfferCreate, offer_id: str, actor: Actor, *, version: int, now_ms: int) -> Offer:
        faults = list(_contradictions_of(body))
        with collect(faults):
            require_bounded(body.eligibility, "/eligibility")
            compile_eligibility(body.eligibility, "/eligibility")
        if body.code_pattern is not None and body.kind != "external_code":
            with collect(faults):
                require_secret(parse_pattern(body.code_pattern, "/code_pattern"), "/code_pattern")
        faults += [fault async for fault in self._unknown_assets_of(body)]
        faults += [fault async for fault in self._unsafe_images_of(body)]
        starts_at = optional_utc_ms(body.starts_at, "/starts_at", faults)
        ends_at = optional_utc_ms(body.ends_at, "/ends_at", faults)
        if starts_at is not None and ends_at is not None and starts_at >= ends_at:
            faults.append(Validation.at("/ends_at", "the end must be after the start"))
        if faults:
            raise Validation.all_of(faults)
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

    async def _unknown_assets_of(self, body: OfferCreate) -> AsyncIterator[Validation]:
        assets = [("/price/asset", None if body.price is None else body.price.asset)]
        if body.kind == "gift_card" and isinstance(body.value, FixedValue):
            assets.append(("/value/currency", body.value.currency))
        for pointer, asset in assets:
            if asset is not None and not await self._assets.exists(asset):
                yield Validation.at(pointer, f"the asset {asset} does not exist")

    async def _unsafe_images_of(self, body: OfferCreate) -> AsyncIterator[Validation]:
        for number, url in enumerate(body.images):
            try:
                await require_public(url, self._resolve)
            except UnsafeAddress as error:
                yield Validation.at(f"/images/{number}", str(error))


def _contradictions_of(body: OfferCreate) -> Iterator[Validation]:
    """Yield the faults of fields that do not fit together."""
    value_type = {"discount": FixedValue | PercentValue, "item": ItemValue, "gift_card": FixedValue, "external_code": None}[
        body.kind
    ]
    if value_type is None:
        if body.value is not None:
            yield Validation.at("/value", "the issuer of external codes defines their value; omit the field")
        if body.stock is not None:
            yield Validation.at("/stock", "the stock of external codes is the number of imported codes; omit the field")
        if body.code_pattern is not None:
            yield Validation.at("/code_pattern", "external codes are imported, not generated; omit the field")
    elif not isinstance(body.value, value_type):
        yield Validation.at("/value", f"the kind {body.kind} takes a value of type {VALUE_TYPES[body.kind]}")
    if isinstance(body.value, PercentValue) and body.value.maximum is not None and body.value.currency is None:
        yield Validation.at("/value/currency", "the maximum needs a currency")
    if body.minimum_basket is not None:
        currency = None if body.value is None or isinstance(body.value, ItemValue) else body.value.currency
        if body.kind != "discount":
            yield Validation.at("/minimum_basket", "only a discount has a minimum basket")
        elif currency is not None and currency != body.minimum_basket.currency:
            yield Validation.at("/minimum_basket/currency", f"the currency must be {currency}, that of the discount")


def _ceiling_of(body: OfferCreate, imported: int) -> int:
    """Return the ceiling of the stock account. For external codes it is the number of imported codes."""
    if body.kind == "external_code":
        return imported
    return BALANCE_CEILING if body.stock is None else body.stock


def _set_stock(account: Account, ceiling: int, actor: str) -> tuple[Transaction, ...]:
    """Return the transaction that sets the stock, or none when it does not change."""
    if account.ceiling == ceiling:
        return ()
    return (Transaction("terms", (Posting(account.id, 0, RULES, terms=AccountRules(ceiling=ceiling)),), actor),)


def _changed(offer: Offer, count: int) -> DocumentChange:
    """Return the change that writes an offer, if its stored `count` is still `count`."""
    fields = msgspec.to_builtins(offer)
    return DocumentChange(OFFERS, fields.pop("_id"), fields.pop("owner"), fields, counted=True, count=count)
