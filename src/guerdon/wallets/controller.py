"""Routes of wallets and assets."""

from typing import Any

from guerdon.errors import (
    AlreadyExists,
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
    WalletNotEmpty,
)
from guerdon.http.body import read, read_optional
from guerdon.http.idempotency import request_of
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.ledger.models import CommandOutcome
from guerdon.permissions import OWN, scope
from guerdon.wallets.administration import StatusChange, WalletAdministration
from guerdon.wallets.assets import Assets
from guerdon.wallets.models import (
    AssetCreate,
    AssetList,
    AssetView,
    CreditCreate,
    DebitCreate,
    LotList,
    StatusSet,
    TermsSet,
    TransactionView,
    TransferCreate,
    WalletList,
    WalletView,
    lots_of,
    terms_text,
    view_lot,
    view_terms,
    view_transaction,
    view_wallet,
)
from guerdon.wallets.reading import WalletReads, at_least_of
from guerdon.wallets.service import Wallets

_MOVES = (IdempotencyKeyMissing, IdempotencyKeyReused, ReferenceReused, NotFound, WalletFrozen, WalletClosed, Overloaded)
_EXAMPLE_WALLET = "mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS"


def _send_transaction(resp: Response, outcome: CommandOutcome) -> None:
    send(resp, view_transaction(outcome.entries[0]), 201, replayed=outcome.replayed)


class AssetsResource:
    """`/v1/assets`"""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets

    @operation(
        "createAsset",
        scope("assets:write"),
        tag="assets",
        body=AssetCreate,
        answers={201: AssetView},
        errors=(AlreadyExists,),
        example={"code": "STARS", "scale": 0},
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Create an asset. Its code and number of decimal places never change."""
        body, _ = await read(req, AssetCreate)
        asset = await self._assets.create(body)
        send(resp, AssetView(asset.code, asset.scale), 201)

    @operation("listAssets", scope("assets:read", own=True), tag="assets", answers={200: AssetList})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List all assets."""
        assets = await self._assets.list_assets()
        send(resp, AssetList([AssetView(asset.code, asset.scale) for asset in assets]))


class WalletResource:
    """`/v1/wallets/{wallet_id}`, its lots, credits and debits."""

    def __init__(self, wallets: Wallets, reads: WalletReads) -> None:
        self._wallets = wallets
        self._reads = reads

    @operation(
        "getWallet",
        scope("wallets:read", own=True),
        tag="wallets",
        answers={200: WalletView},
        errors=(NotFound,),
        reads_copies=True,
    )
    async def on_get(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Return a wallet with its balance."""
        send(resp, view_wallet(await self._reads.get_wallet(actor_of(req), wallet_id, at_least_of(req))))

    @operation(
        "listLots", scope("wallets:read", own=True), tag="wallets", answers={200: LotList}, errors=(NotFound,), reads_copies=True
    )
    async def on_get_lots(self, req: Request, resp: Response, wallet_id: str) -> None:
        """List the lots of a wallet in the order in which they are spent. Held value is not included."""
        state = await self._reads.get_wallet(actor_of(req), wallet_id, at_least_of(req))
        send(resp, LotList([view_lot(lot) for lot in lots_of(state.present)]))

    @operation(
        "creditWallet",
        scope("wallets:write"),
        tag="wallets",
        body=CreditCreate,
        answers={201: TransactionView},
        errors=(*_MOVES, BalanceLimit, LimitReached),
        idempotent=True,
        dry_run=("id", "seq", "hold.id"),
        example={"amount": 500, "reason": "welcome", "reference": "signup-17850", "expires_at": None},
    )
    async def on_post_credit(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Credit a wallet. The first credit opens it."""
        body, raw = await read(req, CreditCreate)
        request = request_of(req, f"POST /v1/wallets/{wallet_id}/credit", raw)
        _send_transaction(resp, await self._wallets.credit(request, wallet_id, body))

    @operation(
        "debitWallet",
        scope("wallets:write"),
        tag="wallets",
        body=DebitCreate,
        answers={201: TransactionView},
        errors=(*_MOVES, InsufficientFunds, LimitReached),
        idempotent=True,
        dry_run=("id", "seq", "hold.id"),
        example={"amount": 500, "reference": "order-1001"},
    )
    async def on_post_debit(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Debit a wallet. The amount may not exceed the available value."""
        body, raw = await read(req, DebitCreate)
        request = request_of(req, f"POST /v1/wallets/{wallet_id}/debit", raw)
        _send_transaction(resp, await self._wallets.debit(request, wallet_id, body))


class TermsResource:
    """`/v1/wallets/{wallet_id}/freeze | unfreeze | close | terms`"""

    def __init__(self, terms: WalletAdministration) -> None:
        self._terms = terms

    async def _set_status(self, req: Request, resp: Response, wallet_id: str, kind: StatusChange) -> None:
        body, _ = await read_optional(req, StatusSet)
        change = await self._terms.set_status(actor_of(req), wallet_id, kind, body)
        note(req, before=change.before.status, after=change.after.status or "")
        send(resp, view_wallet(change.wallet))

    @operation(
        "freezeWallet",
        scope("wallets:freeze"),
        tag="wallets",
        body=StatusSet,
        body_optional=True,
        answers={200: WalletView},
        errors=(NotFound, WalletClosed, Overloaded),
        example={"reason": "card reported stolen"},
    )
    async def on_post_freeze(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Freeze a wallet: no value moves in or out until it is unfrozen. A frozen wallet stays frozen."""
        await self._set_status(req, resp, wallet_id, "freeze")

    @operation(
        "unfreezeWallet",
        scope("wallets:freeze"),
        tag="wallets",
        body=StatusSet,
        body_optional=True,
        answers={200: WalletView},
        errors=(NotFound, WalletClosed, Overloaded),
        example={"reason": "identity confirmed"},
    )
    async def on_post_unfreeze(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Unfreeze a wallet."""
        await self._set_status(req, resp, wallet_id, "unfreeze")

    @operation(
        "closeWallet",
        scope("wallets:manage"),
        tag="wallets",
        body=StatusSet,
        body_optional=True,
        answers={200: WalletView},
        errors=(NotFound, WalletClosed, WalletNotEmpty, Overloaded),
        example={"reason": "member has left"},
    )
    async def on_post_close(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Close a wallet permanently. It must have a balance of zero and no active hold."""
        await self._set_status(req, resp, wallet_id, "close")

    @operation(
        "setTerms",
        scope("wallets:manage"),
        tag="wallets",
        body=TermsSet,
        answers={200: WalletView},
        errors=(NotFound, WalletClosed, Overloaded),
        example={"credit_limit": 0, "ceiling": None, "day_limit": 10000, "month_limit": None},
    )
    async def on_put_terms(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Replace the account rules of a wallet: credit limit, ceiling, and spending limits per day and month."""
        body, _ = await read(req, TermsSet)
        change = await self._terms.set_terms(actor_of(req), wallet_id, body)
        note(req, before=terms_text(view_terms(change.before)), after=terms_text(body))
        send(resp, view_wallet(change.wallet))


class TransfersResource:
    """`/v1/transfers`"""

    def __init__(self, wallets: Wallets) -> None:
        self._wallets = wallets

    @operation(
        "createTransfer",
        scope("wallets:write"),
        tag="wallets",
        body=TransferCreate,
        answers={201: TransactionView},
        errors=(*_MOVES, InsufficientFunds, BalanceLimit, LimitReached),
        idempotent=True,
        dry_run=("id", "seq", "hold.id"),
        example={"from": _EXAMPLE_WALLET, "to": "mem_019a7f3c2d1e00000000000000000001:PTS", "amount": 1},
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Transfer value between two wallets of the same asset, atomically."""
        body, raw = await read(req, TransferCreate)
        note(req, source=body.source, target=body.target)
        request = request_of(req, "POST /v1/transfers", raw)
        _send_transaction(resp, await self._wallets.transfer(request, body))


class MemberWalletsResource:
    """`/v1/members/{member_id}/wallets` and `/v1/me/wallets`"""

    def __init__(self, wallets: Wallets) -> None:
        self._wallets = wallets

    @operation("listMemberWallets", scope("wallets:read", own=True), tag="wallets", answers={200: WalletList}, errors=(NotFound,))
    async def on_get(self, req: Request, resp: Response, member_id: str) -> None:
        """List a member's wallets."""
        wallets = await self._wallets.list_wallets(actor_of(req), member_id)
        send(resp, WalletList([view_wallet(wallet) for wallet in wallets]))

    @operation("listMyWallets", OWN, tag="wallets", answers={200: WalletList})
    async def on_get_mine(self, req: Request, resp: Response) -> None:
        """List the caller's own wallets."""
        actor = actor_of(req)
        wallets = await self._wallets.list_wallets(actor, actor.id)
        send(resp, WalletList([view_wallet(wallet) for wallet in wallets]))


def routes(wallets: Wallets, reads: WalletReads, terms: WalletAdministration, assets: Assets) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    wallet, members, rules = WalletResource(wallets, reads), MemberWalletsResource(wallets), TermsResource(terms)
    return [
        ("/v1/assets", AssetsResource(assets), None),
        ("/v1/wallets/{wallet_id}", wallet, None),
        ("/v1/wallets/{wallet_id}/credit", wallet, "credit"),
        ("/v1/wallets/{wallet_id}/debit", wallet, "debit"),
        ("/v1/wallets/{wallet_id}/lots", wallet, "lots"),
        *((f"/v1/wallets/{{wallet_id}}/{name}", rules, name) for name in ("freeze", "unfreeze", "close", "terms")),
        ("/v1/transfers", TransfersResource(wallets), None),
        ("/v1/members/{member_id}/wallets", members, None),
        ("/v1/me/wallets", members, "mine"),
    ]
