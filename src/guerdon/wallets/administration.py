"""Administration of wallets: freeze, unfreeze, close, and set account rules. Each change is an entry in the wallet's chain."""

from typing import Literal

from msgspec import Struct

from guerdon.ledger.models import (
    RULES,
    Account,
    AccountRules,
    Command,
    Decision,
    EntryKind,
    Limits,
    Posting,
    Status,
    Transaction,
    View,
)
from guerdon.ledger.service import Ledger
from guerdon.money import BALANCE_CEILING
from guerdon.permissions import Actor
from guerdon.wallets.models import StatusSet, TermsSet, WalletState
from guerdon.wallets.rules import COMMAND_BYTES, missing_wallet
from guerdon.wallets.service import Wallets, parse_wallet_id

StatusChange = Literal["freeze", "unfreeze", "close"]
STATUS_OF: dict[StatusChange, Status] = {"freeze": "frozen", "unfreeze": "open", "close": "closed"}


class RulesChange(Struct, frozen=True):
    """A wallet before and after a change of its status or its account rules."""

    before: Account
    after: AccountRules
    """The rules that the change has set."""
    wallet: WalletState
    """The wallet at the present time, which a later change may have moved on."""


class WalletAdministration:
    """Commands that change the status and the account rules of wallets."""

    def __init__(self, ledger: Ledger, wallets: Wallets) -> None:
        self._ledger = ledger
        self._wallets = wallets

    async def set_status(self, actor: Actor, wallet_id: str, kind: StatusChange, body: StatusSet) -> RulesChange:
        """Freeze, unfreeze or close a wallet. If it has that status already, nothing is written.

        Raises:
            NotFound: The wallet does not exist.
            WalletNotEmpty: The wallet is to be closed and is not empty.
            WalletClosed: The wallet is closed.
        """
        terms = AccountRules(status=STATUS_OF[kind])
        return await self._change(actor, wallet_id, kind, terms, body.reason)

    async def set_terms(self, actor: Actor, wallet_id: str, body: TermsSet) -> RulesChange:
        """Replace the credit limit, ceiling and spending limits. A limit counts spending from the time it is first set.

        Raises:
            NotFound: The wallet does not exist.
            WalletClosed: The wallet is closed.
        """
        terms = AccountRules(
            minimum_balance=-body.credit_limit,
            ceiling=BALANCE_CEILING if body.ceiling is None else body.ceiling,
            limits=Limits(body.day_limit, body.month_limit),
        )
        return await self._change(actor, wallet_id, "terms", terms, body.reason)

    async def _change(self, actor: Actor, wallet_id: str, kind: EntryKind, terms: AccountRules, reason: str | None) -> RulesChange:
        owner, _ = parse_wallet_id(wallet_id)
        transaction = Transaction(kind, (Posting(wallet_id, 0, RULES, terms=terms),), actor.id, reason=reason)

        def decide(view: View) -> Decision[Account]:
            account = view.accounts.get(wallet_id)
            if account is None:
                raise missing_wallet(wallet_id)
            if terms.status is not None and account.status == terms.status:
                return Decision(value=account)
            if (
                account.lots is not None
                and account.status != "closed"
                and terms == AccountRules(None, account.minimum_balance, account.ceiling, account.limits or Limits())
            ):
                return Decision(value=account)
            return Decision((transaction,), value=account)

        outcome = await self._ledger.submit(Command((owner,), (wallet_id,), decide, size_bytes=COMMAND_BYTES))
        return RulesChange(outcome.value, terms, await self._wallets.get_wallet(actor, wallet_id))
