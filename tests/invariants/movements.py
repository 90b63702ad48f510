"""Members, movements and answers on the real services, for tests that need two processes' worth of them."""

import itertools
from collections.abc import Iterable, Mapping

import msgspec

from guerdon.bulk.models import BulkCreate, BulkResult
from guerdon.clock import to_datetime
from guerdon.errors import GuerdonError
from guerdon.exchanges.models import ExchangeCreate
from guerdon.holds.models import CaptureCreate, HoldCreate, VoidCreate
from guerdon.http.idempotency import KeyedRequest, fingerprint
from guerdon.ledger.models import Account, CommandOutcome, Entry, hold_id
from guerdon.ledger.store import ACCOUNTS, ENTRIES, decode_account, decode_entry
from guerdon.permissions import ANY_SCOPE, Actor
from guerdon.reversals.models import ReversalCreate
from guerdon.wallets.models import (
    BulkCredit,
    BulkDebit,
    BulkItem,
    BulkTransfer,
    CreditCreate,
    DebitCreate,
    StatusSet,
    TermsSet,
    TransferCreate,
)
from guerdon.wiring.services import Services
from tests.invariants.balance_model import Answer, Spec
from tests.invariants.ledger_driver import transaction_of
from tests.invariants.ledger_requests import STATUS_AFTER, Ask

ACTOR = Actor("key_tests", "service_key", frozenset({ANY_SCOPE}))
IS_ENTRY = {"balance_after": {"$exists": True}}
"""Remembered refusals lie among the entries and are none."""
_numbers = itertools.count(1)


def fresh_key() -> str:
    return f"key-{next(_numbers)}"


async def open_wallets(services: Services, count: int, balance: int, asset: str = "PTS") -> list[str]:
    """New members, each with a wallet; with a balance of 0 the wallet does not exist yet."""
    wallets = [f"{await services.members.ensure_member(f'shopper-{next(_numbers)}')}:{asset}" for _ in range(count)]
    if balance:
        for wallet in wallets:
            await move(services, Spec("credit", wallet, balance, fresh_key()))
    return wallets


async def move(services: Services, spec: Spec) -> CommandOutcome:
    """One movement, as its route would ask for it."""
    request = KeyedRequest(ACTOR, spec.key, fingerprint(spec.kind, repr(spec.content).encode()))
    if spec.kind == "credit":
        return await services.wallets.credit(request, spec.wallet, CreditCreate(spec.amount, "a reason", spec.reference))
    if spec.kind == "debit":
        return await services.wallets.debit(request, spec.wallet, DebitCreate(spec.amount, reference=spec.reference))
    assert spec.to is not None
    body = TransferCreate(spec.wallet, spec.to, spec.amount, reference=spec.reference)
    return await services.wallets.transfer(request, body)


async def answer(services: Services, spec: Spec) -> Answer:
    """What came of one movement, in the words of the model."""
    try:
        outcome = await move(services, spec)
    except GuerdonError as error:
        return Answer(error.code, None, error.replayed)
    entry = outcome.entries[0]
    return Answer(None, (entry.balance_after, entry.seq), outcome.replayed)


async def do(services: Services, ask: Ask, made: Mapping[str, CommandOutcome]) -> CommandOutcome | None:
    """One request, as its route would ask for it; None for what answers with a wallet. `made` is what earlier keys have made."""
    request = KeyedRequest(ACTOR, ask.key, fingerprint(ask.kind, repr(ask.content).encode()))
    if ask.kind in STATUS_AFTER:
        await services.wallet_administration.set_status(ACTOR, ask.wallet, ask.kind, StatusSet())
        return None
    if ask.kind == "terms":
        floor, ceiling, day, month = ask.terms
        await services.wallet_administration.set_terms(ACTOR, ask.wallet, TermsSet(-floor, ceiling, day, month))
        return None
    if ask.kind == "hold":
        assert ask.ttl_ms % 1000 == 0
        return await services.holds.create(request, HoldCreate(ask.wallet, ask.amount or 0, ask.ttl_ms // 1000))
    if ask.kind == "capture":
        return await services.holds.capture(
            request, hold_id(ask.wallet, number_of(made[ask.about])), CaptureCreate(ask.amount, ask.final)
        )
    if ask.kind == "void":
        return await services.holds.void(request, hold_id(ask.wallet, number_of(made[ask.about])), VoidCreate())
    if ask.kind == "reversal":
        about = made[ask.about].entries[0].transaction_id
        return await services.reversals.reverse(request, about, ReversalCreate(ask.amount))
    if ask.kind == "transaction":
        return await services.transactions.post(request, transaction_of(ask))
    if ask.kind == "exchange":
        owner, _, asset = (ask.to or "").partition(":")
        body = ExchangeCreate(owner, "PTS", asset, ask.amount or 0, reference=ask.reference)
        return await services.exchanges.exchange(request, body)
    if ask.kind == "credit":
        source, *dates, _ = ask.dates
        available_at, expires_at = (None if date is None else to_datetime(date) for date in dates)
        body = CreditCreate(ask.amount or 0, None, ask.reference, source, available_at, expires_at)
        return await services.wallets.credit(request, ask.wallet, body)
    if ask.kind == "debit":
        return await services.wallets.debit(request, ask.wallet, DebitCreate(ask.amount or 0, reference=ask.reference))
    assert ask.to is not None
    return await services.wallets.transfer(request, TransferCreate(ask.wallet, ask.to, ask.amount or 0, reference=ask.reference))


def number_of(made: CommandOutcome) -> int:
    """The number of the hold that a request has made."""
    change = made.entries[0].hold
    assert change is not None
    return change.seq


def bulk_item(spec: Spec) -> BulkItem:
    if spec.to is not None:
        return BulkTransfer(spec.wallet, spec.to, spec.amount, spec.key, reference=spec.reference)
    kind = BulkCredit if spec.kind == "credit" else BulkDebit
    return kind(spec.wallet, spec.amount, spec.key, reference=spec.reference)


async def bulk(services: Services, specs: Iterable[Spec], *, atomic: bool) -> list[Answer]:
    """What came of every movement of a bulk request."""
    body = BulkCreate([bulk_item(spec) for spec in specs], atomic)
    return [_bulk_answer(result) for result in await services.bulk.run(ACTOR, body)]


def _bulk_answer(result: BulkResult) -> Answer:
    if isinstance(result.problem, dict):
        return Answer(str(result.problem["code"]), None, result.replayed is True)
    view = msgspec.to_builtins(result)["transaction"]
    return Answer(None, (view["balance"], view["seq"]), result.replayed is True)


async def read_books(services: Services) -> tuple[dict[str, Account], list[Entry]]:
    """Everything that is on the ledger."""
    accounts = [decode_account(row) async for row in services.database.raw[ACCOUNTS].find({})]
    entries = [decode_entry(row) async for row in services.database.raw[ENTRIES].find(IS_ENTRY).sort("_id")]
    return {account.id: account for account in accounts}, entries
