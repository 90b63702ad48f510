"""Commands and queries on rates and exchanges."""

import re

from guerdon.clock import Clock
from guerdon.database import DUPLICATE_KEY, WRITE_CONFLICT, Database, Document, PyMongoError
from guerdon.errors import Forbidden, InvalidState, NotFound, Validation
from guerdon.exchanges.models import (
    RATE_VERSIONS,
    RATES,
    ExchangeCreate,
    QuoteCreate,
    QuoteView,
    Rate,
    RateSet,
    archived,
    view_rate,
)
from guerdon.exchanges.rules import (
    ExchangeRequest,
    converted,
    exchange_command,
    missing_rate,
    rate_id,
    require_open_to,
)
from guerdon.http.cursor import decode_text, encode_cursor
from guerdon.http.idempotency import KeyedRequest
from guerdon.ledger.models import CommandOutcome, Idempotency
from guerdon.ledger.service import Ledger
from guerdon.lifecycle import version_id
from guerdon.permissions import Actor
from guerdon.transactions.service import Transactions
from guerdon.types import PageQuery
from guerdon.wallets.assets import Assets
from guerdon.wallets.models import view_wallet
from guerdon.wallets.service import Wallets, effective_ms

WRITES_MAX = 10
"""Maximum number of attempts to store a rate that other requests change at the same time."""
_PAIR = re.compile(r"([A-Z][A-Z0-9]{1,11})-([A-Z][A-Z0-9]{1,11})\Z")


class Rates:
    """Rates between assets, and the archive of their versions."""

    def __init__(self, database: Database, assets: Assets, clock: Clock) -> None:
        self._database = database
        self._assets = assets
        self._clock = clock
        self._current = database.collection(RATES, Rate)
        self._archive = database.collection(RATE_VERSIONS, Rate)

    async def set_rate(self, actor: Actor, pair: str, body: RateSet) -> Rate:
        """Store a rate as its next version. The same content makes no new version.

        Raises:
            NotFound: The path names no two different assets that exist.
            Validation: The maximum is below the minimum.
            InvalidState: Other requests kept changing the rate.
        """
        source, target = parse_pair(pair)
        for asset in (source, target):
            if not await self._assets.exists(asset):
                raise NotFound(f"the asset {asset} does not exist")
        if body.minimum is not None and body.maximum is not None and body.maximum < body.minimum:
            raise Validation.at("/maximum", "must not be below minimum")
        for _ in range(WRITES_MAX):
            current = await self._current.get(pair)
            if current is not None and _content_of(current) == _content_of(body):
                return current
            rate = Rate(
                id=pair,
                source=source,
                target=target,
                from_amount=body.from_amount,
                to_amount=body.to_amount,
                minimum=body.minimum,
                maximum=body.maximum,
                rounding=body.rounding,
                members=body.members,
                version=1 if current is None else current.version + 1,
                created_at=self._clock.now_ms(),
                created_by=actor.id,
            )
            if await self._store(rate):
                return rate
        raise InvalidState("other requests keep changing the rate; read it and try again", status_now="active")

    async def get_rate(self, pair: str, version: int | None = None) -> Rate:
        """Return the current rate, or one of its versions.

        Raises:
            NotFound: The rate or the version does not exist.
        """
        found = await (self._current.get(pair) if version is None else self._archive.get(version_id(pair, version)))
        if found is None:
            raise missing_rate(pair if version is None else version_id(pair, version))
        return found

    async def list_rates(self, query: PageQuery) -> tuple[list[Rate], str | None]:
        """Return one page of rates, ordered by id, and the cursor of the next page.

        Raises:
            Validation: The cursor was not returned by this list.
        """
        where: Document = {} if query.cursor is None else {"_id": {"$gt": decode_text(query.cursor, _PAIR)}}
        found = await self._current.find(where, sort=[("_id", 1)], limit=query.limit + 1)
        page = found[: query.limit]
        return page, encode_cursor(page[-1].id) if len(found) > query.limit else None

    async def _store(self, rate: Rate) -> bool:
        """Store a version and make it the current one, in one transaction. Return False if another request stored it first."""
        try:
            async with self._database.transaction() as session:
                await self._archive.insert(archived(rate), session)
                where = {"_id": rate.id, "version": rate.version - 1}
                if rate.version == 1:
                    await self._current.insert(rate, session)
                elif (await self._current.raw.replace_one(where, self._current.encode(rate), session=session)).matched_count == 0:
                    await session.abort_transaction()
                    return False
        except PyMongoError as error:
            if getattr(error, "code", None) in (DUPLICATE_KEY, WRITE_CONFLICT):
                return False
            raise
        return True


class Exchanges:
    """Exchanges of a member's value, and quotes."""

    def __init__(self, ledger: Ledger, wallets: Wallets, transactions: Transactions, *, rates: Rates, clock: Clock) -> None:
        self._ledger = ledger
        self._wallets = wallets
        self._transactions = transactions
        self._rates = rates
        self._clock = clock

    async def quote(self, actor: Actor, body: QuoteCreate) -> QuoteView:
        """Return what an exchange would give now.

        Raises:
            NotFound: There is no rate, or the member does not exist or is not the caller.
            Forbidden: The rate is not open to members.
            ExchangeLimit: The amount is outside the bounds of the rate.
        """
        available = None
        if body.member_id is not None:
            wallets = [view_wallet(state) for state in await self._wallets.list_wallets(actor, body.member_id)]
            available = sum(wallet.available for wallet in wallets if wallet.asset == body.source)
        rate = await self._rates.get_rate(rate_id(body.source, body.target))
        require_open_to(actor, rate)
        amount = converted(rate, body.from_amount)
        return QuoteView(body.source, body.target, body.from_amount, amount, view_rate(rate), available)

    async def exchange(self, request: KeyedRequest, body: ExchangeCreate) -> CommandOutcome:
        """Exchange value of a member at the current rate, in one commit.

        Raises:
            NotFound: There is no rate, the wallet does not exist, or the member is not the caller.
            Forbidden: The rate is not open to members, or the caller is a member and states an effective time.
            Validation: The effective time has no offset, is in the future, or is too long ago.
            ExchangeLimit: The amount is outside the bounds of the rate.
            RateChanged: The current version is not the requested one.
            InsufficientFunds, BalanceLimit, LimitReached, WalletFrozen, WalletClosed, IdempotencyKeyReused, ReferenceReused: See
                `ledger.decide`.
        """
        request.actor.require_reach(body.member_id)
        if body.effective_at is not None and request.actor.kind == "member":
            raise Forbidden("members cannot state effective_at; leave it out")
        wallet, to = (f"{body.member_id}:{asset}" for asset in (body.source, body.target))
        opens = await self._wallets.accounts_to_open([to])
        command = exchange_command(
            ExchangeRequest(
                actor=request.actor,
                idempotency=Idempotency(body.member_id, request.actor.id, request.key, request.fingerprint, body.reference),
                rate_id=rate_id(body.source, body.target),
                wallet=wallet,
                to=to,
                amount=body.from_amount,
                rate_version=body.rate_version,
                reason=body.reason,
                metadata=body.metadata,
                effective_at=effective_ms(body.effective_at, self._clock.now_ms()),
                opens=tuple(opens.values()),
            )
        )
        return await self._transactions.complete(await self._ledger.submit(command, dry_run=request.dry_run))


def parse_pair(pair: str) -> tuple[str, str]:
    """Return the two assets of the id of a rate.

    Raises:
        NotFound: The text is not the id of a rate.
    """
    match = _PAIR.match(pair)
    if match is None or match[1] == match[2]:
        raise NotFound("a rate is named by two different asset codes, such as PTS-GBP")
    return match[1], match[2]


def _content_of(rate: Rate | RateSet) -> tuple[object, ...]:
    return (rate.from_amount, rate.to_amount, rate.minimum, rate.maximum, rate.rounding, rate.members)
