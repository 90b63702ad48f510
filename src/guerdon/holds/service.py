"""Commands and queries on holds."""

from guerdon.clock import Clock
from guerdon.database import Database
from guerdon.errors import NotFound
from guerdon.holds.models import CaptureCreate, HoldCreate, HoldView, StoredHold, VoidCreate, view_stored
from guerdon.holds.rules import HoldRequest, capture_command, hold_command, void_command
from guerdon.http.idempotency import KeyedRequest
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import Command, CommandOutcome, Idempotency, parse_location
from guerdon.ledger.service import Ledger
from guerdon.permissions import MISSING_OR_FOREIGN, Actor
from guerdon.wallets.service import parse_wallet_id


class Holds:
    """Commands and queries on holds."""

    def __init__(self, ledger: Ledger, *, database: Database, clock: Clock) -> None:
        self._ledger = ledger
        self._documents = database.collection(HOLD_DOCUMENTS, StoredHold)
        self._clock = clock

    async def create(self, request: KeyedRequest, body: HoldCreate) -> CommandOutcome:
        """Create a hold. It counts against the spending limits from now on.

        Raises:
            NotFound: The wallet does not exist.
            InsufficientFunds, LimitReached, WalletFrozen, WalletClosed, IdempotencyKeyReused, ReferenceReused: See `ledger.decide`.
        """
        return await self._ledger.submit(self.create_command(request, body), dry_run=request.dry_run)

    async def capture(self, request: KeyedRequest, hold_id: str, body: CaptureCreate) -> CommandOutcome:
        """Capture a hold in part or whole.

        Raises:
            NotFound: The hold does not exist.
            InvalidState: The hold has ended.
            CaptureLimit: The amount exceeds the rest of the hold.
            WalletFrozen, WalletClosed, IdempotencyKeyReused, ReferenceReused: See `ledger.decide`.
        """
        return await self._ledger.submit(self.capture_command(request, hold_id, body), dry_run=request.dry_run)

    async def void(self, request: KeyedRequest, hold_id: str, body: VoidCreate) -> CommandOutcome:
        """Void a hold.

        Raises:
            NotFound: The hold does not exist.
            InvalidState: The hold has ended.
            WalletClosed, IdempotencyKeyReused: See `ledger.decide`.
        """
        return await self._ledger.submit(self.void_command(request, hold_id, body), dry_run=request.dry_run)

    # --- commands of single and bulk requests -----------------------------------------------------------------------

    @staticmethod
    def create_command(request: KeyedRequest, body: HoldCreate) -> Command:
        """Return the command that creates a hold.

        Raises:
            NotFound: The text is not the id of a wallet.
        """
        owner, _ = parse_wallet_id(body.wallet)
        idempotency = Idempotency(owner, request.actor.id, request.key, request.fingerprint, body.reference)
        hold_request = HoldRequest(body.wallet, request.actor.id, idempotency, body.reason, body.metadata)
        return hold_command(hold_request, body.amount, body.expires_in_seconds * 1000)

    @staticmethod
    def capture_command(request: KeyedRequest, hold_id: str, body: CaptureCreate) -> Command:
        """Return the command that captures a hold.

        Raises:
            NotFound: The text is not the id of a hold.
        """
        wallet, owner, seq = _parse(hold_id)
        idempotency = Idempotency(owner, request.actor.id, request.key, request.fingerprint, body.reference)
        hold_request = HoldRequest(wallet, request.actor.id, idempotency, body.reason, body.metadata)
        return capture_command(hold_request, seq, body.amount, final=body.final)

    @staticmethod
    def void_command(request: KeyedRequest, hold_id: str, body: VoidCreate) -> Command:
        """Return the command that voids a hold.

        Raises:
            NotFound: The text is not the id of a hold.
        """
        wallet, owner, seq = _parse(hold_id)
        idempotency = Idempotency(owner, request.actor.id, request.key, request.fingerprint)
        return void_command(HoldRequest(wallet, request.actor.id, idempotency, body.reason), seq)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_hold(self, actor: Actor, hold_id: str) -> HoldView:
        """Return a hold.

        Raises:
            NotFound: The hold does not exist or is not the caller's.
        """
        _, owner, _ = _parse(hold_id)
        actor.require_reach(owner)
        stored = await self._documents.find_one({"_id": hold_id, "owner": owner})
        if stored is None:
            raise NotFound(MISSING_OR_FOREIGN)
        return view_stored(stored, self._clock.now_ms())


def _parse(hold_id: str) -> tuple[str, str, int]:
    """Return (wallet, owner, seq).

    Raises:
        NotFound: The text is not the id of a hold.
    """
    location = parse_location(hold_id) if hold_id.startswith("hld_") else None
    if location is None:
        raise NotFound(MISSING_OR_FOREIGN)
    owner, _ = parse_wallet_id(location[0])
    return location[0], owner, location[1]
