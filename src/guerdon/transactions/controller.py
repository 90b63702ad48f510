"""Routes of transactions of several postings."""

from typing import Any

from guerdon.errors import (
    BalanceLimit,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InsufficientFunds,
    LimitReached,
    NotFound,
    Overloaded,
    ReferenceReused,
    WalletClosed,
    WalletFrozen,
)
from guerdon.http.body import read
from guerdon.http.idempotency import request_of
from guerdon.http.operation import Request, Response, note, operation, send
from guerdon.permissions import scope
from guerdon.transactions.models import PostedTransaction, TransactionCreate, view_posted
from guerdon.transactions.service import Transactions

_EXAMPLE_MEMBER = "mem_019a7f3c2d1e4b5a69788796a5b4c3d2"


class TransactionsResource:
    """`/v1/transactions`"""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    @operation(
        "createTransaction",
        scope("wallets:write"),
        tag="transactions",
        body=TransactionCreate,
        answers={201: PostedTransaction},
        errors=(
            IdempotencyKeyMissing,
            IdempotencyKeyReused,
            ReferenceReused,
            NotFound,
            InsufficientFunds,
            BalanceLimit,
            LimitReached,
            WalletFrozen,
            WalletClosed,
            Overloaded,
        ),
        idempotent=True,
        dry_run=("id", "postings.seq"),
        example={
            "kind": "exchange",
            "postings": [
                {"wallet": f"{_EXAMPLE_MEMBER}:PTS", "amount": -500},
                {"wallet": f"{_EXAMPLE_MEMBER}:GBP", "amount": 500},
            ],
            "reference": "order-1001",
        },
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Apply 2 to 20 postings over wallets and system accounts in one commit, or none of them.

        The postings of each asset add up to 0. An asset whose postings all have the same sign is balanced against `system:exchange`.
        """
        body, raw = await read(req, TransactionCreate)
        note(req, kind=body.kind, wallets=" ".join(posting.wallet for posting in body.postings if posting.wallet is not None))
        outcome = await self._transactions.post(request_of(req, "POST /v1/transactions", raw), body)
        wallets = [posting.wallet for posting in body.postings if posting.wallet is not None]
        send(resp, view_posted(outcome.entries, wallets), 201, replayed=outcome.replayed)


def routes(transactions: Transactions) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    return [("/v1/transactions", TransactionsResource(transactions), None)]
