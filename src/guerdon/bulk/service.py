"""Bulk requests. The packages of wallets, holds and reversals make the commands; this one runs them together."""

from collections.abc import Sequence

import msgspec

from guerdon.bulk.models import BulkCapture, BulkCommand, BulkCreate, BulkHold, BulkResult, BulkReverse, BulkVoid
from guerdon.errors import GuerdonError, NotApplied
from guerdon.holds.models import CaptureCreate, HoldCreate, VoidCreate
from guerdon.holds.service import Holds
from guerdon.http.idempotency import KeyedRequest, fingerprint
from guerdon.http.operation import problem_of
from guerdon.ledger.atomic import atomic_command
from guerdon.ledger.models import Command, CommandOutcome, CommandResult
from guerdon.ledger.service import Ledger
from guerdon.permissions import Actor
from guerdon.reversals.models import ReversalCreate
from guerdon.reversals.service import RequestedReversal, Reversals
from guerdon.wallets.models import BulkItem, view_transaction
from guerdon.wallets.service import Wallets

Prepared = Command | GuerdonError
"""The command of one item, or the error that refused it before the ledger."""
_canonical = msgspec.json.Encoder()


class Bulk:
    """Runs many commands together."""

    def __init__(self, ledger: Ledger, wallets: Wallets, holds: Holds, reversals: Reversals) -> None:
        self._ledger = ledger
        self._wallets = wallets
        self._holds = holds
        self._reversals = reversals

    async def run(self, actor: Actor, body: BulkCreate, *, dry_run: bool = False) -> list[BulkResult]:
        """Run up to 1,000 commands and return one result each. A refused command stops the others only if the request is atomic.

        Raises:
            Overloaded: The queue has no room for all of them; nothing was done.
        """
        prepared = await self._prepare(actor, body.commands)
        if body.atomic:
            return await self._run_atomic(prepared, dry_run=dry_run)
        commands = [item for item in prepared if isinstance(item, Command)]
        results = iter(await self._ledger.submit_all(commands, dry_run=dry_run))
        return [_result(next(results) if isinstance(item, Command) else item, dry_run=dry_run) for item in prepared]

    async def _prepare(self, actor: Actor, items: Sequence[BulkCommand]) -> list[Prepared]:
        """Return the command of each item, or the error of its validation."""
        requests = [KeyedRequest(actor, item.key, fingerprint("POST /v1/bulk", _canonical.encode(item))) for item in items]
        movements: list[tuple[KeyedRequest, BulkItem]] = []
        reversals: list[RequestedReversal] = []
        for request, item in zip(requests, items, strict=True):
            if isinstance(item, BulkItem):
                movements.append((request, item))
            elif isinstance(item, BulkReverse):
                body = ReversalCreate(item.amount, item.reason, item.reference, item.metadata)
                reversals.append(RequestedReversal(request, item.transaction, body))
        moved = iter(await self._wallets.prepare(movements))
        reversing = iter(await self._reversals.prepare(reversals))
        prepared: list[Prepared] = []
        for request, item in zip(requests, items, strict=True):
            if isinstance(item, BulkHold | BulkCapture | BulkVoid):
                prepared.append(self._hold_command(request, item))
            else:
                prepared.append(next(reversing if isinstance(item, BulkReverse) else moved))
        return prepared

    def _hold_command(self, request: KeyedRequest, item: BulkHold | BulkCapture | BulkVoid) -> Prepared:
        try:
            match item:
                case BulkHold(wallet=wallet, amount=amount, expires_in_seconds=seconds):
                    hold = HoldCreate(wallet, amount, seconds, item.reason, item.reference, item.metadata)
                    return self._holds.create_command(request, hold)
                case BulkCapture(amount=amount, final=final):
                    capture = CaptureCreate(amount, final, item.reason, item.reference, item.metadata)
                    return self._holds.capture_command(request, item.hold, capture)
                case BulkVoid():
                    return self._holds.void_command(request, item.hold, VoidCreate(item.reason))
        except GuerdonError as error:
            return error

    async def _run_atomic(self, prepared: Sequence[Prepared], *, dry_run: bool) -> list[BulkResult]:
        """Run all commands as one. If one is refused, its result has the problem, and the others are `not-applied`."""
        commands = [item for item in prepared if isinstance(item, Command)]
        if len(commands) < len(prepared):
            return [_result(_not_applied() if isinstance(item, Command) else item) for item in prepared]
        [result] = await self._ledger.submit_all([atomic_command(commands, self._ledger.calendar)], dry_run=dry_run)
        if isinstance(result, CommandOutcome):
            # The first entry of a transaction carries its key.
            first = [entry for entry in result.entries if entry.key is not None]
            return [_result(CommandOutcome((entry,), replayed=result.replayed), dry_run=dry_run) for entry in first]
        if not any(command is result.subject for command in commands):
            raise result
        return [_result(result if command is result.subject else _not_applied()) for command in commands]


def _not_applied() -> GuerdonError:
    return NotApplied("another command of this atomic request was refused")


def _result(result: CommandResult, *, dry_run: bool = False) -> BulkResult:
    if isinstance(result, CommandOutcome):
        return BulkResult(200 if dry_run else 201, view_transaction(result.entries[0]), replayed=result.replayed)
    return BulkResult(result.status, problem=problem_of(result), replayed=result.replayed)
