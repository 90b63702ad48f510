"""Pairing of postings. Pure.

An entry has one counterparty, so that the balance of a system account is the sum of the entries that name it and each value that moves
between two wallets keeps its dates. The postings of a request are therefore paired, asset by asset: each wallet that is debited with the
wallets that are credited, in the order of the request, and what is left with the system accounts.
"""

from collections.abc import Sequence

from msgspec import Struct

from guerdon.errors import Validation, collect
from guerdon.ledger.models import EXCHANGE, Posting
from guerdon.transactions.models import PostingCreate, TransactionCreate


class _Unpaired(Struct):
    """Rest of a posting that is not paired yet."""

    account: str
    left: int
    """Signed minor units."""
    pointer: str


class PairedPostings(Struct, frozen=True):
    """Postings of the ledger, and the debits of wallets that several of them debit."""

    postings: tuple[Posting, ...]
    totals: tuple[Posting, ...]
    credited: tuple[str, ...]
    """Wallets that are credited, and opened if they do not exist."""


def pair(body: TransactionCreate) -> PairedPostings:
    """Return the postings of a request, paired by asset.

    Raises:
        Validation: A posting is invalid, or an asset does not balance.
    """
    faults: list[Validation] = []
    wallets: dict[str, dict[str, _Unpaired]] = {}
    systems: dict[str, list[_Unpaired]] = {}
    for index, posting in enumerate(body.postings):
        with collect(faults):
            _add(posting, f"/postings/{index}", wallets, systems)
    if faults:
        raise Validation.all_of(faults)
    postings: list[Posting] = []
    for asset in dict.fromkeys((*wallets, *systems)):
        with collect(faults):
            postings.extend(_pair_asset(asset, list(wallets.get(asset, {}).values()), systems.get(asset, [])))
    if faults:
        raise Validation.all_of(faults)
    return PairedPostings(tuple(postings), tuple(_totals(postings)), tuple({p.account: 0 for p in postings if p.amount > 0}))


def _add(
    posting: PostingCreate, pointer: str, wallets: dict[str, dict[str, _Unpaired]], systems: dict[str, list[_Unpaired]]
) -> None:
    if posting.amount == 0:
        raise Validation.at(f"{pointer}/amount", "must not be 0")
    if (posting.wallet is None) == (posting.account is None):
        raise Validation.at(pointer, "needs a wallet or a system account, and not both")
    if posting.account is not None:
        if posting.asset is None:
            raise Validation.at(f"{pointer}/asset", "is required for a system account")
        systems.setdefault(posting.asset, []).append(_Unpaired(posting.account, posting.amount, pointer))
        return
    wallet = posting.wallet or ""
    asset = wallet.partition(":")[2]
    if posting.asset not in (None, asset):
        raise Validation.at(f"{pointer}/asset", f"is not the asset of the wallet, {asset}")
    if wallet in wallets.setdefault(asset, {}):
        raise Validation.at(f"{pointer}/wallet", "occurs twice; send one posting for each wallet")
    wallets[asset][wallet] = _Unpaired(wallet, posting.amount, pointer)


def _pair_asset(asset: str, wallets: Sequence[_Unpaired], systems: list[_Unpaired]) -> list[Posting]:
    sides = [*wallets, *systems]
    total = sum(side.left for side in sides)
    if not wallets:
        raise Validation.at(systems[0].pointer, f"no wallet has a posting of {asset}; system accounts move value with wallets only")
    if all(side.left > 0 for side in sides) or all(side.left < 0 for side in sides):
        systems = [*systems, _Unpaired(EXCHANGE, -total, "")]
    elif total:
        raise Validation.at(
            "/postings",
            f"the postings of {asset} add up to {total}; they must add up to 0, or all have the same sign and be balanced "
            f"against {EXCHANGE}",
        )
    postings: list[Posting] = []
    for debit in (side for side in wallets if side.left < 0):
        for credit in (side for side in wallets if side.left > 0):
            amount = min(-debit.left, credit.left)
            if amount > 0:
                debit.left += amount
                credit.left -= amount
                postings.append(Posting(debit.account, -amount, credit.account, spends=True))
                postings.append(Posting(credit.account, amount, debit.account, keeps_dates=True))
    for wallet in wallets:
        for system in systems:
            amount = min(abs(wallet.left), abs(system.left)) if wallet.left * system.left < 0 else 0
            if amount:
                change = amount if wallet.left > 0 else -amount
                wallet.left -= change
                system.left += change
                postings.append(Posting(wallet.account, change, system.account, spends=change < 0))
    for system in systems:
        if system.left and system.pointer:
            raise Validation.at(
                system.pointer, f"{abs(system.left)} {asset} of it has no wallet; system accounts move value with wallets only"
            )
    return postings


def _totals(postings: Sequence[Posting]) -> list[Posting]:
    """Return the sum of the debits of each wallet that several postings debit."""
    debits: dict[str, list[Posting]] = {}
    for posting in postings:
        if posting.amount < 0:
            debits.setdefault(posting.account, []).append(posting)
    return [
        Posting(account, sum(part.amount for part in parts), EXCHANGE, spends=True)
        for account, parts in debits.items()
        if len(parts) > 1
    ]
