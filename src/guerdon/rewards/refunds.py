"""What a refund takes back of the awards of its purchase. Pure.

A member keeps of each award the share that is not refunded, rounded down: of an award of 139 for 139.12 pounds, 69 are kept when half of it
is refunded, however many refunds the half came in. Together all refunds of a purchase count for at most its amount. What is taken goes out
of the very lot that the award made, and back to the caps and the budget it counted against.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from guerdon.ledger.models import Lot
from guerdon.rewards.deciding import clawed_back
from guerdon.rewards.models import Award, DecisionView, Refunded, WalletState


class TakenBack(Struct, frozen=True):
    """What is taken back of one award; `amount` is positive."""

    award: Award
    amount: int
    lot: Lot
    """What is taken first."""


class RefundOutcome(Struct, frozen=True):
    """What a linked refund does."""

    refunded: Refunded
    decisions: list[DecisionView]
    taken: list[TakenBack]


def share(award_amount: int, refunded: int, whole: int) -> int:
    """Return what has to be taken back of an award when so much of the whole is refunded."""
    return award_amount - award_amount * (whole - refunded) // whole


class Refundable(Struct, frozen=True):
    """A purchase, as far as a refund takes it back."""

    amount: int
    awards: Sequence[Award]


def refund(known: Refunded, amount: int, purchase: Refundable, wallets: Mapping[str, WalletState], now_ms: int) -> RefundOutcome:
    """Refund `amount` more of a purchase, of which `known` says what was refunded before."""
    whole = purchase.amount
    now_refunded = min(known.amount + amount, whole)
    beyond = known.amount + amount - now_refunded
    balances = dict(wallets)
    decisions: list[DecisionView] = []
    taken: list[TakenBack] = []
    done = dict(known.taken)
    for award in purchase.awards:
        if award.amount <= 0:
            continue
        due = share(award.amount, now_refunded, whole) - done.get(award.campaign, 0)
        reasons = [f"{now_refunded} of {whole} are refunded: {due} of {award.amount} to take back now"]
        if beyond:
            reasons.append(f"{beyond} more than the purchase are left out")
        wallet = balances.get(award.asset, WalletState())
        pending = due if award.available_at is not None and award.available_at > now_ms else 0
        part, note = clawed_back(award.clawback, due, wallet, pending) if due else (0, None)
        if note is not None:
            reasons.append(note)
        if due:
            done[award.campaign] = done.get(award.campaign, 0) + due
        if part:
            balances[award.asset] = msgspec.structs.replace(
                wallet, balance=wallet.balance - part, available=max(0, wallet.available - part)
            )
            taken.append(TakenBack(award, part, Lot(part, "promotional", award.available_at, award.expires_at)))
        outcome = "awarded" if part else "refused" if due else "not_matched"
        decisions.append(DecisionView(award.campaign, award.version, outcome, -part, reasons))
    refunded = msgspec.structs.replace(known, count=known.count + 1, amount=known.amount + amount - beyond, taken=done)
    return RefundOutcome(refunded, decisions, taken)
