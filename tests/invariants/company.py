"""Members, movements and answers on the real services, for tests that need two processes' worth of them."""

import itertools
from collections.abc import Iterable

import msgspec

from guerdon.app import Services
from guerdon.errors import GuerdonError
from guerdon.ledger.models import Account, Entry, Outcome
from guerdon.ledger.store import ACCOUNTS, ENTRIES, decode_account, decode_entry
from guerdon.security import ANY_SCOPE, Actor
from guerdon.wallets.models import (
    BulkCreate,
    BulkCredit,
    BulkDebit,
    BulkItem,
    BulkResult,
    BulkTransfer,
    CreditCreate,
    DebitCreate,
    TransferCreate,
)
from guerdon.wallets.service import Request, fingerprint
from tests.invariants.model import Answer, Spec

ACTOR = Actor("key_tests", "service_key", frozenset({ANY_SCOPE}))
IS_ENTRY = {"balance_after": {"$exists": True}}
"""Remembered refusals lie among the entries and are none."""
_numbers = itertools.count(1)


def fresh_key() -> str:
    return f"key-{next(_numbers)}"


async def open_wallets(services: Services, count: int, balance: int, asset: str = "PTS") -> list[str]:
    """New members, each with a wallet; with a balance of 0 the wallet does not exist yet."""
    wallets = [f"{await services.identity.ensure_member(f'shopper-{next(_numbers)}')}:{asset}" for _ in range(count)]
    if balance:
        for wallet in wallets:
            await move(services, Spec("credit", wallet, balance, fresh_key()))
    return wallets


async def move(services: Services, spec: Spec) -> Outcome:
    """One movement, as its route would ask for it."""
    request = Request(ACTOR, spec.key, fingerprint(spec.kind, repr(spec.content).encode()))
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


def bulk_item(spec: Spec) -> BulkItem:
    if spec.to is not None:
        return BulkTransfer(spec.wallet, spec.to, spec.amount, spec.key, reference=spec.reference)
    kind = BulkCredit if spec.kind == "credit" else BulkDebit
    return kind(spec.wallet, spec.amount, spec.key, reference=spec.reference)


async def bulk(services: Services, specs: Iterable[Spec], *, atomic: bool) -> list[Answer]:
    """What came of every movement of a bulk request."""
    body = BulkCreate([bulk_item(spec) for spec in specs], atomic)
    return [_bulk_answer(result) for result in await services.wallets.run_bulk(ACTOR, body)]


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
