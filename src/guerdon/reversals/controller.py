"""Routes of single transactions."""

from typing import Any

from guerdon.errors import (
    BalanceLimit,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InsufficientFunds,
    NotFound,
    NotReversible,
    Overloaded,
    ReferenceReused,
    ReversalLimit,
    WalletClosed,
    WalletFrozen,
)
from guerdon.http.body import read_optional
from guerdon.http.idempotency import request_of
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.permissions import scope
from guerdon.reversals.models import ReversalCreate, TransactionState
from guerdon.reversals.service import Reversals
from guerdon.transactions.models import TransactionDetails, view_details


class TransactionResource:
    """`/v1/transactions/{transaction_id}`"""

    def __init__(self, reversals: Reversals) -> None:
        self._reversals = reversals

    @operation(
        "getTransaction",
        scope("wallets:read", own=True),
        tag="transactions",
        answers={200: TransactionState},
        errors=(NotFound,),
    )
    async def on_get(self, req: Request, resp: Response, transaction_id: str) -> None:
        """Return a transaction, and the amount of it that was reversed."""
        send(resp, await self._reversals.get_transaction(actor_of(req), transaction_id))

    @operation(
        "reverseTransaction",
        scope("wallets:write"),
        tag="transactions",
        body=ReversalCreate,
        body_optional=True,
        answers={201: TransactionDetails},
        errors=(
            IdempotencyKeyMissing,
            IdempotencyKeyReused,
            ReferenceReused,
            NotFound,
            NotReversible,
            ReversalLimit,
            InsufficientFunds,
            BalanceLimit,
            WalletFrozen,
            WalletClosed,
            Overloaded,
        ),
        idempotent=True,
        dry_run=("id", "seq", "hold.id", "postings.seq"),
        example={"amount": None, "reason": "returned goods"},
    )
    async def on_post_reverse(self, req: Request, resp: Response, transaction_id: str) -> None:
        """Reverse a transaction, in part or whole: its value returns to the lots that it came from.

        A transaction of several postings, such as an exchange, is reversed whole: leave `amount` out.
        """
        body, raw = await read_optional(req, ReversalCreate)
        request = request_of(req, f"POST /v1/transactions/{transaction_id}/reverse", raw)
        outcome = await self._reversals.reverse(request, transaction_id, body)
        send(resp, view_details(outcome.entries, several=outcome.entries[0].sides is not None), 201, replayed=outcome.replayed)


def routes(reversals: Reversals) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = TransactionResource(reversals)
    return [
        ("/v1/transactions/{transaction_id}", resource, None),
        ("/v1/transactions/{transaction_id}/reverse", resource, "reverse"),
    ]
