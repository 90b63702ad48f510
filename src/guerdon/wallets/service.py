"""Commands and queries on wallets. Only the ledger writes balances."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from guerdon.calendar import Calendar
from guerdon.clock import Clock, optional_utc_ms, utc_ms
from guerdon.errors import GuerdonError, NotFound, Validation, collect
from guerdon.http.idempotency import KeyedRequest
from guerdon.ledger.expiry import bring_up_to
from guerdon.ledger.lots import is_undated
from guerdon.ledger.models import (
    AWAITING_CONFIRMATION,
    Account,
    Command,
    CommandOutcome,
    EntryKind,
    Idempotency,
    Lot,
    Transaction,
)
from guerdon.ledger.service import Ledger
from guerdon.members.service import Members
from guerdon.permissions import Actor
from guerdon.wallets.assets import Assets
from guerdon.wallets.models import (
    WALLET,
    WALLET_ID,
    BulkCredit,
    BulkDebit,
    BulkItem,
    BulkTransfer,
    CreditCreate,
    DebitCreate,
    TransferCreate,
    WalletState,
)
from guerdon.wallets.rules import Movement, command_of, missing_wallet, postings_of, require_effective

KNOWN_WALLETS_MAX = 50_000
_BULK_KINDS: dict[type[BulkItem], EntryKind] = {BulkCredit: "credit", BulkDebit: "debit", BulkTransfer: "transfer"}


class Wallets:
    """Commands and queries on the wallets of members."""

    def __init__(self, ledger: Ledger, members: Members, assets: Assets, clock: Clock) -> None:
        self._ledger = ledger
        self._members = members
        self._assets = assets
        self._clock = clock
        self._known_ids: set[str] = set()

    # --- commands ---------------------------------------------------------------------------------------------------

    async def credit(self, request: KeyedRequest, wallet_id: str, body: CreditCreate) -> CommandOutcome:
        """Credit a wallet. The first credit opens it.

        Raises:
            NotFound: The member or the asset does not exist.
            BalanceLimit, WalletFrozen, IdempotencyKeyReused, ReferenceReused: See `ledger.decide`.
        """
        return await self._submit(request, "credit", wallet_id, body)

    async def debit(self, request: KeyedRequest, wallet_id: str, body: DebitCreate) -> CommandOutcome:
        """Debit a wallet.

        Raises:
            NotFound: The wallet does not exist.
            InsufficientFunds, WalletFrozen, IdempotencyKeyReused, ReferenceReused: See `ledger.decide`.
        """
        return await self._submit(request, "debit", wallet_id, body)

    async def transfer(self, request: KeyedRequest, body: TransferCreate) -> CommandOutcome:
        """Transfer value between two wallets of the same asset. The first transfer to a wallet opens it.

        Raises:
            NotFound: The source wallet or the member of the target wallet does not exist.
            Validation: The wallets are the same, or have different assets.
            InsufficientFunds, BalanceLimit, WalletFrozen, IdempotencyKeyReused, ReferenceReused: See `ledger.decide`.
        """
        return await self._submit(request, "transfer", body.source, body, to=body.target)

    async def prepare(self, items: Sequence[tuple[KeyedRequest, BulkItem]]) -> list[Command | GuerdonError]:
        """Return the command of each item of a bulk request, or the error of its validation."""
        kinds: list[EntryKind] = [_BULK_KINDS[type(item)] for _, item in items]
        targets = [item.to if isinstance(item, BulkTransfer) else item.wallet for _, item in items]
        opens = await self._accounts_to_open(t for t, kind in zip(targets, kinds, strict=True) if kind != "debit")
        prepared: list[Command | GuerdonError] = []
        for (request, item), kind in zip(items, kinds, strict=True):
            to = item.to if isinstance(item, BulkTransfer) else None
            try:
                _check_pair(item.wallet, to)
                movement = self._movement(request, kind, item.wallet, item, to=to, opens=opens)
                prepared.append(command_of(movement, _owners(movement.accounts)))
            except GuerdonError as error:
                prepared.append(error)
        return prepared

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_wallet(self, actor: Actor, wallet_id: str) -> WalletState:
        """Return a wallet as booked and at the present time.

        Raises:
            NotFound: The wallet does not exist or is not the caller's.
        """
        return self.state_of(await self.get_account(actor, wallet_id))

    async def get_account(self, actor: Actor, wallet_id: str) -> Account:
        """Return the account as booked.

        Raises:
            NotFound: The wallet does not exist or is not the caller's.
        """
        member_id, _ = parse_wallet_id(wallet_id)
        actor.require_reach(member_id)
        account = await self._ledger.get_account(wallet_id, member_id)
        if account is None:
            raise missing_wallet(wallet_id)
        return account

    def state_of(self, account: Account) -> WalletState:
        """Return an account as booked and with all expiry up to now applied."""
        return WalletState(account, bring_up_to(account, self._clock.now_ms(), self._ledger.calendar).account)

    async def list_wallets(self, actor: Actor, member_id: str) -> list[WalletState]:
        """Return the wallets of a member, ordered by asset.

        Raises:
            NotFound: The member does not exist or is not the caller.
        """
        actor.require_reach(member_id)
        await self._members.get_member(member_id)
        return [self.state_of(account) for account in await self._ledger.list_accounts(member_id)]

    async def accounts_to_open(self, wallet_ids: Iterable[str]) -> dict[str, Account]:
        """Return new accounts for those wallets that do not exist and whose member and asset exist."""
        return await self._accounts_to_open(wallet_ids)

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _submit(
        self,
        request: KeyedRequest,
        kind: EntryKind,
        wallet_id: str,
        body: CreditCreate | DebitCreate | TransferCreate,
        to: str | None = None,
    ) -> CommandOutcome:
        _check_pair(wallet_id, to)
        opens = await self._accounts_to_open([wallet_id if kind == "credit" else to])
        movement = self._movement(request, kind, wallet_id, body, to=to, opens=opens)
        return await self._ledger.submit(command_of(movement, _owners(movement.accounts)), dry_run=request.dry_run)

    def _movement(
        self,
        request: KeyedRequest,
        kind: EntryKind,
        wallet_id: str,
        body: CreditCreate | DebitCreate | TransferCreate | BulkItem,
        *,
        to: str | None,
        opens: dict[str, Account],
    ) -> Movement:
        owner, _ = parse_wallet_id(wallet_id)
        idempotency = Idempotency(owner, request.actor.id, request.key, request.fingerprint, body.reference)
        transaction = Transaction(
            kind=kind,
            postings=postings_of(kind, wallet_id, body.amount, to, self._lot_of(body)),
            actor=request.actor.id,
            idempotency=idempotency,
            reason=body.reason,
            metadata=body.metadata,
            effective_at=effective_ms(body.effective_at, self._clock.now_ms()),
        )
        target = None if kind == "debit" else opens.get(wallet_id if to is None else to)
        return Movement(
            transaction, idempotency, (wallet_id,) if to is None else (wallet_id, to), () if target is None else (target,)
        )

    def _lot_of(self, body: CreditCreate | DebitCreate | TransferCreate | BulkItem) -> Lot | None:
        return lot_of(body, self._ledger.calendar, self._clock.now_ms())

    async def _accounts_to_open(self, wallet_ids: Iterable[str | None]) -> dict[str, Account]:
        """Return new accounts for those wallets that do not exist and whose member and asset exist.

        Accounts are never deleted, so existing ids are cached.
        """
        wanted = {wallet for wallet in wallet_ids if wallet is not None and wallet not in self._known_ids}
        wanted = {wallet for wallet in wanted if WALLET_ID.match(wallet)}
        if not wanted:
            return {}
        existing = await self._ledger.find_existing_ids(wanted)
        if len(self._known_ids) > KNOWN_WALLETS_MAX:
            self._known_ids.clear()
        self._known_ids |= existing
        return {account.id: account for wallet in wanted - existing if (account := await self._new_account(wallet)) is not None}

    async def _new_account(self, wallet_id: str) -> Account | None:
        member_id, asset = parse_wallet_id(wallet_id)
        if not await self._assets.exists(asset) or not await self._members.exists(member_id):
            return None
        return new_account(member_id, asset, self._clock.now_ms())


def new_account(member_id: str, asset: str, now_ms: int) -> Account:
    """Return an empty wallet, which the ledger opens with its first entry."""
    return Account(id=f"{member_id}:{asset}", owner=member_id, asset=asset, kind=WALLET, opened_at=now_ms)


def effective_ms(moment: datetime | None, now_ms: int) -> int | None:
    """Return a stated effective time in milliseconds, or None.

    Raises:
        Validation: The time has no offset, is in the future, or is too long ago.
    """
    effective_at = None if moment is None else utc_ms(moment, "/effective_at")
    require_effective(effective_at, now_ms)
    return effective_at


def lot_of(body: CreditCreate | DebitCreate | TransferCreate | BulkItem, calendar: Calendar, now_ms: int) -> Lot | None:
    """Return the lot of a credit; None for undated paid value, and for debits and transfers.

    Raises:
        Validation: A time has no offset, the value would expire before it is available, or it has expired since its effective time.
    """
    if not isinstance(body, CreditCreate | BulkCredit):
        return None
    faults: list[Validation] = []
    available_at = optional_utc_ms(body.available_at, "/available_at", faults)
    expires_at = optional_utc_ms(body.expires_at, "/expires_at", faults)
    if body.expires_in_days is not None:
        with collect(faults):
            if expires_at is not None:
                raise Validation.at("/expires_in_days", "send expires_at or expires_in_days, not both")
            effective_at = effective_ms(body.effective_at, now_ms)
            expires_at = calendar.end_of_day(now_ms if effective_at is None else effective_at, body.expires_in_days)
            if expires_at <= now_ms:
                raise Validation.at("/expires_in_days", "the value has expired since effective_at; send a larger number of days")
    if available_at == AWAITING_CONFIRMATION:
        faults.append(
            Validation.at("/available_at", "this time is reserved for value that awaits confirmation; use an earlier one")
        )
    elif available_at is not None and expires_at is not None and expires_at <= available_at:
        faults.append(Validation.at("/expires_at", "expires_at must be after available_at"))
    if faults:
        raise Validation.all_of(faults)
    lot = Lot(body.amount, body.source, available_at, expires_at)
    return None if is_undated(lot) else lot


def parse_wallet_id(wallet_id: str) -> tuple[str, str]:
    """Return (member id, asset).

    Raises:
        NotFound: The text is not a wallet id.
    """
    match = WALLET_ID.match(wallet_id)
    if match is None:
        raise NotFound("the wallet does not exist")
    return match[1], match[2]


def _check_pair(wallet_id: str, to: str | None) -> None:
    _, asset = parse_wallet_id(wallet_id)
    if to is None:
        return
    _, other = parse_wallet_id(to)
    if wallet_id == to:
        raise Validation.at("/to", "a transfer needs two different wallets")
    if asset != other:
        raise Validation.at("/to", f"both wallets must have the same asset, not {asset} and {other}")


def _owners(accounts: Iterable[str]) -> tuple[str, ...]:
    return tuple({account.partition(":")[0] for account in accounts})
