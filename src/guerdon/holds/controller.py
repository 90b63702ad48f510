"""Routes of holds."""

from typing import Any

from guerdon.errors import (
    CaptureLimit,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InsufficientFunds,
    InvalidState,
    LimitReached,
    NotFound,
    Overloaded,
    ReferenceReused,
    WalletClosed,
    WalletFrozen,
)
from guerdon.holds.models import CaptureCreate, HoldAnswer, HoldCreate, HoldView, VoidCreate, view_answer
from guerdon.holds.service import Holds
from guerdon.http.body import read, read_optional
from guerdon.http.idempotency import request_of
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.ledger.models import CommandOutcome
from guerdon.permissions import scope
from guerdon.wallets.models import TransactionView, view_transaction

_MOVES = (IdempotencyKeyMissing, IdempotencyKeyReused, NotFound, WalletFrozen, WalletClosed, Overloaded)
_WRITTEN = ("id", "transaction_id", "seq")
"""Fields that the answer to a dry run lacks."""


class HoldsResource:
    """`/v1/holds` and single holds."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds

    @operation(
        "createHold",
        scope("wallets:write"),
        tag="holds",
        body=HoldCreate,
        answers={201: HoldAnswer},
        errors=(*_MOVES, ReferenceReused, InsufficientFunds, LimitReached),
        idempotent=True,
        dry_run=_WRITTEN,
        example={"wallet": "mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS", "amount": 50, "expires_in_seconds": 900},
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Create a hold: set value aside for a later capture. Its lots do not expire while they are held."""
        body, raw = await read(req, HoldCreate)
        _send_hold(resp, await self._holds.create(request_of(req, "POST /v1/holds", raw), body))

    @operation("getHold", scope("wallets:read", own=True), tag="holds", answers={200: HoldView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, hold_id: str) -> None:
        """Return a hold. It ends at `expires_at`, whether or not that is booked yet."""
        send(resp, await self._holds.get_hold(actor_of(req), hold_id))

    @operation(
        "captureHold",
        scope("wallets:write"),
        tag="holds",
        body=CaptureCreate,
        body_optional=True,
        answers={201: TransactionView},
        errors=(*_MOVES, ReferenceReused, InvalidState, CaptureLimit),
        idempotent=True,
        dry_run=("id", "seq", "hold.id"),
        example={"amount": 20, "final": False},
    )
    async def on_post_capture(self, req: Request, resp: Response, hold_id: str) -> None:
        """Capture a hold, in part or whole. `final` releases the rest."""
        body, raw = await read_optional(req, CaptureCreate)
        outcome = await self._holds.capture(request_of(req, f"POST /v1/holds/{hold_id}/capture", raw), hold_id, body)
        send(resp, view_transaction(outcome.entries[0]), 201, replayed=outcome.replayed)

    @operation(
        "voidHold",
        scope("wallets:write"),
        tag="holds",
        body=VoidCreate,
        body_optional=True,
        answers={201: HoldAnswer},
        errors=(*_MOVES, InvalidState),
        idempotent=True,
        dry_run=_WRITTEN,
        example={"reason": "order cancelled"},
    )
    async def on_post_void(self, req: Request, resp: Response, hold_id: str) -> None:
        """Void a hold: return the rest of it to the lots that it came from."""
        body, raw = await read_optional(req, VoidCreate)
        _send_hold(resp, await self._holds.void(request_of(req, f"POST /v1/holds/{hold_id}/void", raw), hold_id, body))


def _send_hold(resp: Response, outcome: CommandOutcome) -> None:
    entry = outcome.entries[0]
    assert entry.hold is not None
    send(resp, view_answer(entry, entry.hold), 201, replayed=outcome.replayed)


def routes(holds: Holds) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = HoldsResource(holds)
    return [
        ("/v1/holds", resource, None),
        ("/v1/holds/{hold_id}", resource, "one"),
        ("/v1/holds/{hold_id}/capture", resource, "capture"),
        ("/v1/holds/{hold_id}/void", resource, "void"),
    ]
