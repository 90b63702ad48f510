"""The pure ledger with a counter in front of it: it turns what is asked into commands and remembers what each request has made."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from guerdon.calendar import Calendar
from guerdon.errors import GuerdonError
from guerdon.exchanges.models import RATES, Rate
from guerdon.exchanges.rules import ExchangeRequest, exchange_command
from guerdon.holds.rules import HoldRequest, capture_command, hold_command, void_command
from guerdon.http.idempotency import fingerprint
from guerdon.ledger import expiry as due
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import (
    ISSUER,
    RULES,
    Account,
    AccountRules,
    Command,
    CommandOutcome,
    CommandResult,
    Confirmation,
    Decision,
    Idempotency,
    Limits,
    Lot,
    Posting,
    Transaction,
    View,
)
from guerdon.permissions import Actor
from guerdon.reversals.rules import Reversal, reversal_command
from guerdon.transactions.models import PostingCreate, TransactionCreate
from guerdon.transactions.rules import pair
from guerdon.wallets.rules import Movement, command_of, postings_of
from tests.invariants.balance_model import Bounds
from tests.invariants.in_memory_ledger import ACTOR, Store, account_of
from tests.invariants.ledger_requests import PLAIN, RATE, STATUS_AFTER, Answer, Ask


class Till:
    """Books in memory. What a request is about is named by the key of the earlier request."""

    def __init__(self, zone: str = "UTC") -> None:
        self.calendar = Calendar(zone)
        self.store = Store(self.calendar)
        self.made: dict[str, CommandOutcome] = {}

    def ask(self, asks: Sequence[Ask], now_ms: int) -> list[CommandResult]:
        """Decide one batch."""
        verdicts = self.store.commit([self.command(ask) for ask in asks], now_ms)
        for ask, verdict in zip(asks, verdicts, strict=True):
            if isinstance(verdict, CommandOutcome) and not verdict.replayed:
                self.made[ask.key] = verdict
        return verdicts

    def do(self, ask: Ask, now_ms: int) -> CommandOutcome:
        """Decide one request.

        Raises:
            GuerdonError: its refusal.
        """
        [verdict] = self.ask([ask], now_ms)
        if isinstance(verdict, GuerdonError):
            raise verdict
        return verdict

    def sweep(self, wallets: Iterable[str], now_ms: int) -> None:
        """Book what time has done."""
        self.store.commit([self._booking(wallet) for wallet in wallets], now_ms)

    def present(self, wallet: str, now_ms: int) -> Account:
        """The account as it is at this moment, whatever has been booked."""
        return due.bring_up_to(self.store.accounts[wallet], now_ms, self.calendar).account

    def hold_of(self, key: str) -> int:
        """The number of the hold that a request has made."""
        change = self.made[key].entries[0].hold
        assert change is not None
        return change.seq

    def command(self, ask: Ask) -> Command:
        if ask.kind in STATUS_AFTER or ask.kind == "terms":
            return self._terms_command(ask)
        idempotency = Idempotency(ask.owner, ACTOR, ask.key, fingerprint(ask.kind, repr(ask.content).encode()), ask.reference)
        wish = HoldRequest(ask.wallet, ACTOR, idempotency)
        if ask.kind == "hold":
            return hold_command(wish, ask.amount or 0, ask.ttl_ms)
        if ask.kind == "capture":
            return capture_command(wish, self.hold_of(ask.about), ask.amount, final=ask.final)
        if ask.kind == "void":
            return void_command(wish, self.hold_of(ask.about))
        if ask.kind == "reversal":
            entries = self.made[ask.about].entries
            # The rest of a hold that a final capture releases is no side of it.
            sides = [entry for entry in entries if entry.amount]
            return reversal_command(Reversal(sides, ask.amount, idempotency), self.calendar)
        if ask.kind in ("award", "confirmation"):
            return award_command(ask, self.made)
        if ask.kind == "transaction":
            return self._transaction_command(ask, idempotency)
        if ask.kind == "exchange":
            opens = (account_of(ask.to or "", Bounds()),)
            actor = Actor(ACTOR, "service_key")
            self.store.documents[RATES, "PTS-GBP"] = msgspec.to_builtins(rate_of_world())
            wish = ExchangeRequest(actor, idempotency, "PTS-GBP", ask.wallet, ask.to or "", ask.amount or 0, opens=opens)
            return exchange_command(wish)
        return self._movement_command(ask, idempotency)

    def _movement_command(self, ask: Ask, idempotency: Idempotency) -> Command:
        lot = None if ask.dates == PLAIN else lot_of(ask)
        transaction = Transaction(ask.kind, postings_of(ask.kind, ask.wallet, ask.amount or 0, ask.to, lot), ACTOR, idempotency)
        opens = () if ask.kind == "debit" else (account_of(ask.to or ask.wallet, Bounds()),)
        accounts = tuple(posting.account for posting in transaction.postings)
        owners = tuple({account.partition(":")[0] for account in accounts})
        return command_of(Movement(transaction, idempotency, accounts, opens), owners)

    @staticmethod
    def _transaction_command(ask: Ask, idempotency: Idempotency) -> Command:
        paired = pair(transaction_of(ask))
        transaction = Transaction("transaction", paired.postings, ACTOR, idempotency, lists_sides=True)
        accounts = tuple(dict.fromkeys(posting.account for posting in paired.postings))
        assert accounts[0] == ask.wallet
        opens = tuple(account_of(wallet, Bounds()) for wallet in paired.credited)
        owners = tuple({account.partition(":")[0] for account in accounts})
        return command_of(Movement(transaction, idempotency, accounts, opens, paired.totals), owners)

    @staticmethod
    def _terms_command(ask: Ask) -> Command:
        floor, ceiling, day, month = ask.terms
        terms = (
            AccountRules(None, floor, ceiling, Limits(day, month)) if ask.kind == "terms" else AccountRules(STATUS_AFTER[ask.kind])
        )
        transaction = Transaction(ask.kind, (Posting(ask.wallet, 0, RULES, terms=terms),), ACTOR)
        return Command((ask.owner,), (ask.wallet,), lambda view: Decision((transaction,)))

    @staticmethod
    def _booking(wallet: str) -> Command:
        return Command((wallet.partition(":")[0],), (wallet,), lambda view: Decision(accounts_to_expire=(wallet,)))


def transaction_of(ask: Ask) -> TransactionCreate:
    """The body of a transaction; what its parts leave over is breakage."""
    left = -sum(amount for _, amount in ask.parts)
    rest = [PostingCreate(left, account="system:breakage", asset="PTS")] if left else []
    return TransactionCreate([*(PostingCreate(amount, wallet) for wallet, amount in ask.parts), *rest], reference=ask.reference)


def rate_of_world() -> Rate:
    return Rate(
        id="PTS-GBP", source="PTS", target="GBP", from_amount=RATE[0], to_amount=RATE[1], minimum=None, maximum=None,
        rounding="floor", members=False, version=1, created_at=0, created_by=ACTOR,
    )  # fmt: skip


def lot_of(ask: Ask) -> Lot:
    return Lot(ask.amount or 0, *ask.dates)


def award_command(ask: Ask, made: Mapping[str, CommandOutcome]) -> Command:
    """An award that waits, or its confirmation: what events make of wallets, asked for by itself. `made` is what earlier keys have made."""
    idempotency = Idempotency(ask.owner, ACTOR, ask.key, fingerprint(ask.kind, repr(ask.content).encode()), ask.reference)
    lot = lot_of(ask)
    if ask.kind == "award":
        posting = Posting(ask.wallet, lot.amount, ISSUER, lots=(lot,))
    else:
        # It waits in the lot that its award has made; nothing of that can have paid a debt.
        waiting = made[ask.about].entries[0].lots
        assert waiting is not None
        posting = Posting(
            ask.wallet, 0, ISSUER, confirms=Confirmation(msgspec.structs.replace(waiting[0], amount=lot.amount), lot.expires_at)
        )
    transaction = Transaction(ask.kind, (posting,), ACTOR, idempotency)
    opens = (account_of(ask.wallet, Bounds()),) if ask.kind == "award" else ()

    def decide(view: View) -> Decision:
        earlier = find_replay(view, idempotency)
        return Decision((transaction,), opens) if earlier is None else Decision(replayed=(earlier,))

    return Command((ask.owner,), (ask.wallet,), decide, idempotency.unique_keys, idempotency=idempotency)


def answer_of(verdict: CommandResult) -> Answer:
    """A verdict in the words of the model."""
    if isinstance(verdict, CommandOutcome):
        entry = verdict.entries[0]
        return Answer(None, (entry.balance_after, entry.held_after), verdict.replayed)
    return Answer(verdict.code, None, verdict.replayed)
