"""Routes of vouchers at the point of sale."""

from typing import Any

from guerdon.errors import (
    AgainstPolicy,
    BalanceLimit,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InsufficientFunds,
    InvalidState,
    LimitReached,
    NotApplicable,
    NotFound,
    Overloaded,
    ReferenceReused,
    WalletClosed,
    WalletFrozen,
)
from guerdon.http.body import read, read_optional
from guerdon.http.idempotency import KeyedRequest, request_of
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.http.query import read_query
from guerdon.offers.code_patterns import normalise
from guerdon.permissions import scope
from guerdon.vouchers.pos.models import (
    CancelCreate,
    LoadCreate,
    ReleaseCreate,
    ReserveCreate,
    StepAnswer,
    StepPage,
    StepQuery,
    UnuseCreate,
    UseCreate,
    ValidateAnswer,
    ValidateCreate,
)
from guerdon.vouchers.pos.service import PointOfSale

_STEP = (IdempotencyKeyMissing, IdempotencyKeyReused, NotFound, InvalidState, Overloaded)
_BASKET = {"amount": 2000, "currency": "GBP"}


class PointOfSaleResource:
    """`/v1/vouchers/{code}/…`"""

    def __init__(self, pos: PointOfSale) -> None:
        self._pos = pos

    @operation(
        "validateVoucher",
        scope("vouchers:use", own=True),
        tag="vouchers",
        body=ValidateCreate,
        body_optional=True,
        answers={200: ValidateAnswer},
        errors=(NotFound,),
        example=_BASKET,
        guesses=True,
    )
    async def on_post_validate(self, req: Request, resp: Response, code: str) -> None:
        """Validate a use without making it: return the discount, or the problem that the use would return."""
        body, _ = await read_optional(req, ValidateCreate)
        send(resp, await self._pos.validate(actor_of(req), code, body))

    @operation(
        "reserveVoucher",
        scope("vouchers:use"),
        tag="vouchers",
        body=ReserveCreate,
        body_optional=True,
        answers={200: StepAnswer},
        errors=(*_STEP, NotApplicable, LimitReached),
        idempotent=True,
        dry_run=("transaction_id",),
        example={**_BASKET, "expires_in_seconds": 900, "reference": "order-7"},
        guesses=True,
    )
    async def on_post_reserve(self, req: Request, resp: Response, code: str) -> None:
        """Reserve a voucher for a checkout. Until the reservation ends, the voucher can be used only with it."""
        body, raw = await read_optional(req, ReserveCreate)
        answer, replayed = await self._pos.reserve(_request(req, code, "reserve", raw), code, body)
        send(resp, answer, replayed=replayed)

    @operation(
        "useVoucher",
        scope("vouchers:use"),
        tag="vouchers",
        body=UseCreate,
        body_optional=True,
        answers={200: StepAnswer},
        errors=(*_STEP, NotApplicable, LimitReached, ReferenceReused),
        idempotent=True,
        dry_run=("transaction_id",),
        example={**_BASKET, "reference": "order-7"},
        guesses=True,
    )
    async def on_post_use(self, req: Request, resp: Response, code: str) -> None:
        """Use a voucher on a basket. A gift card keeps the money that the basket does not need."""
        body, raw = await read_optional(req, UseCreate)
        answer, replayed = await self._pos.use(_request(req, code, "use", raw), code, body)
        send(resp, answer, replayed=replayed)

    @operation(
        "releaseVoucher",
        scope("vouchers:use"),
        tag="vouchers",
        body=ReleaseCreate,
        body_optional=True,
        answers={200: StepAnswer},
        errors=_STEP,
        idempotent=True,
        dry_run=("transaction_id",),
        example={"reason": "payment failed"},
        guesses=True,
    )
    async def on_post_release(self, req: Request, resp: Response, code: str) -> None:
        """Release a reservation."""
        body, raw = await read_optional(req, ReleaseCreate)
        answer, replayed = await self._pos.release(_request(req, code, "release", raw), code, body)
        send(resp, answer, replayed=replayed)

    @operation(
        "unuseVoucher",
        scope("vouchers:use"),
        tag="vouchers",
        body=UnuseCreate,
        body_optional=True,
        answers={200: StepAnswer},
        errors=(*_STEP, AgainstPolicy),
        idempotent=True,
        dry_run=("transaction_id",),
        example={"reason": "order cancelled"},
        guesses=True,
    )
    async def on_post_unuse(self, req: Request, resp: Response, code: str) -> None:
        """Undo a use, if the offer allows it."""
        body, raw = await read_optional(req, UnuseCreate)
        answer, replayed = await self._pos.unuse(_request(req, code, "unuse", raw), code, body)
        send(resp, answer, replayed=replayed)

    @operation(
        "cancelVoucher",
        scope("vouchers:write", own=True),
        tag="vouchers",
        body=CancelCreate,
        body_optional=True,
        answers={200: StepAnswer},
        errors=(*_STEP, AgainstPolicy, BalanceLimit, WalletFrozen, WalletClosed),
        idempotent=True,
        dry_run=("transaction_id",),
        example={"reason": "changed their mind"},
        guesses=True,
    )
    async def on_post_cancel(self, req: Request, resp: Response, code: str) -> None:
        """Cancel a voucher, if the offer allows it. Its price returns to the lots that it was taken from."""
        body, raw = await read_optional(req, CancelCreate)
        answer, replayed = await self._pos.cancel(_request(req, code, "cancel", raw), code, body)
        send(resp, answer, replayed=replayed)

    @operation(
        "loadGiftCard",
        scope("vouchers:use", own=True),
        tag="vouchers",
        body=LoadCreate,
        answers={200: StepAnswer},
        errors=(
            *_STEP,
            NotApplicable,
            InsufficientFunds,
            LimitReached,
            BalanceLimit,
            WalletFrozen,
            WalletClosed,
            ReferenceReused,
        ),
        idempotent=True,
        dry_run=("transaction_id",),
        example={"member_id": "mem_019a7f3c2d1e4b5a69788796a5b4c3d2", "amount": 500},
        guesses=True,
    )
    async def on_post_load(self, req: Request, resp: Response, code: str) -> None:
        """Move money from a gift card to a wallet. It keeps its expiry."""
        body, raw = await read(req, LoadCreate)
        answer, replayed = await self._pos.load(_request(req, code, "load", raw), code, body)
        send(resp, answer, replayed=replayed)

    @operation(
        "listVoucherHistory",
        scope("vouchers:read", own=True),
        tag="vouchers",
        query=StepQuery,
        answers={200: StepPage},
        errors=(NotFound,),
        guesses=True,
    )
    async def on_get_history(self, req: Request, resp: Response, code: str) -> None:
        """List the history of a voucher, newest first."""
        send(resp, StepPage(*await self._pos.list_history(actor_of(req), code, read_query(req, StepQuery))))


def _request(req: Request, code: str, step: str, raw: bytes) -> KeyedRequest:
    """Return the request with a path of the normalised code, so that every spelling of the code is the same request."""
    return request_of(req, f"POST /v1/vouchers/{normalise(code)}/{step}", raw)


def routes(pos: PointOfSale) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of vouchers at the point of sale."""
    resource = PointOfSaleResource(pos)
    steps = ("validate", "reserve", "use", "release", "unuse", "cancel", "load", "history")
    return [(f"/v1/vouchers/{{code}}/{step}", resource, step) for step in steps]
