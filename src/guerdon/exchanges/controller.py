"""Routes of rates and exchanges."""

from typing import Any

from guerdon.errors import (
    BalanceLimit,
    ExchangeLimit,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InsufficientFunds,
    InvalidState,
    LimitReached,
    NotFound,
    Overloaded,
    RateChanged,
    ReferenceReused,
    WalletClosed,
    WalletFrozen,
)
from guerdon.exchanges.models import (
    ExchangeCreate,
    ExchangeView,
    QuoteCreate,
    QuoteView,
    RateList,
    RateQuery,
    RateSet,
    RateView,
    view_exchange,
    view_rate,
)
from guerdon.exchanges.service import Exchanges, Rates
from guerdon.http.body import read
from guerdon.http.idempotency import request_of
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.types import PageQuery

_EXAMPLE: dict[str, Any] = {"member_id": "mem_019a7f3c2d1e4b5a69788796a5b4c3d2", "from": "PTS", "to": "GBP", "from_amount": 500}


class RatesResource:
    """`/v1/rates` and `/v1/rates/{pair}`"""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates

    @operation("listRates", scope("rates:read", own=True), tag="exchanges", query=PageQuery, answers={200: RateList})
    async def on_get_all(self, req: Request, resp: Response) -> None:
        """List the current rates, ordered by id."""
        rates, cursor = await self._rates.list_rates(read_query(req, PageQuery))
        send(resp, RateList([view_rate(rate) for rate in rates], cursor))

    @operation(
        "getRate",
        scope("rates:read", own=True),
        tag="exchanges",
        query=RateQuery,
        answers={200: RateView},
        errors=(NotFound,),
    )
    async def on_get(self, req: Request, resp: Response, pair: str) -> None:
        """Return a rate such as `PTS-GBP`: the current version, or an earlier one."""
        send(resp, view_rate(await self._rates.get_rate(pair, read_query(req, RateQuery).version)))

    @operation(
        "setRate",
        scope("rates:write"),
        tag="exchanges",
        body=RateSet,
        answers={200: RateView},
        errors=(NotFound, InvalidState),
        example={"from_amount": 100, "to_amount": 1, "minimum": 500, "maximum": None, "rounding": "floor"},
        audited=True,
    )
    async def on_put(self, req: Request, resp: Response, pair: str) -> None:
        """Set the rate from one asset to another, such as `PTS-GBP`. Each change is a new version; the same content makes none."""
        body, _ = await read(req, RateSet)
        rate = await self._rates.set_rate(actor_of(req), pair, body)
        note(req, version=str(rate.version), from_amount=str(rate.from_amount), to_amount=str(rate.to_amount))
        send(resp, view_rate(rate))


class ExchangesResource:
    """`/v1/exchanges` and `/v1/exchanges/quote`"""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    @operation(
        "quoteExchange",
        scope("rates:read", own=True),
        tag="exchanges",
        body=QuoteCreate,
        answers={200: QuoteView},
        errors=(NotFound, ExchangeLimit),
        example=_EXAMPLE,
    )
    async def on_post_quote(self, req: Request, resp: Response) -> None:
        """Return what an exchange would give at the current rate. Nothing is reserved."""
        body, _ = await read(req, QuoteCreate)
        send(resp, await self._exchanges.quote(actor_of(req), body))

    @operation(
        "createExchange",
        scope("wallets:write", own=True),
        tag="exchanges",
        body=ExchangeCreate,
        answers={201: ExchangeView},
        errors=(
            IdempotencyKeyMissing,
            IdempotencyKeyReused,
            ReferenceReused,
            NotFound,
            ExchangeLimit,
            RateChanged,
            InsufficientFunds,
            BalanceLimit,
            LimitReached,
            WalletFrozen,
            WalletClosed,
            Overloaded,
        ),
        idempotent=True,
        dry_run=("id", "postings.seq"),
        example={**_EXAMPLE, "reference": "order-1001"},
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Exchange value of a member for another asset at the current rate, in one commit.

        Members may exchange value of their own wallets at rates with `members`.
        """
        body, raw = await read(req, ExchangeCreate)
        note(req, member=body.member_id)
        outcome = await self._exchanges.exchange(request_of(req, "POST /v1/exchanges", raw), body)
        send(resp, view_exchange(outcome.entries), 201, replayed=outcome.replayed)


def routes(rates: Rates, exchanges: Exchanges) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    table, resource = RatesResource(rates), ExchangesResource(exchanges)
    return [
        ("/v1/rates", table, "all"),
        ("/v1/rates/{pair}", table, None),
        ("/v1/exchanges", resource, None),
        ("/v1/exchanges/quote", resource, "quote"),
    ]
