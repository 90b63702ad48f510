"""Clawback of awards when their purchase is refunded. Pure.

A member keeps the share of each award that is not refunded, rounded down: of an award of 139 for £139.12, 69 are kept when half of the
purchase is refunded, in any number of refunds. Together the refunds of a purchase count for at most its amount. A clawback takes from the lot
of the award first, and gives back to the caps and the budget that the award counted against.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from guerdon.campaigns.allocation import clawed_back, wallet_after
from guerdon.campaigns.award_types import taken_back
from guerdon.campaigns.domain import (
    REFERRERS,
    AchievementReached,
    Award,
    AwardWallet,
    DecisionView,
    PurchaseRefunds,
    Refundable,
    ReturnedItem,
)
from guerdon.campaigns.line_items import merged
from guerdon.ledger.models import Lot

_RESTS = "it was paid for several events, and stays as long as less than half of each of them is refunded"


class AwardClawback(Struct, frozen=True):
    """Part of an award to take back. `amount` is positive."""

    award: Award
    amount: int
    lot: Lot
    """Lot to take from first, with the maximum to take from it."""


class RefundOutcome(Struct, frozen=True):
    """Outcome of a linked refund."""

    refunded: PurchaseRefunds
    decisions: list[DecisionView]
    taken: list[AwardClawback]
    wallets: Mapping[str, AwardWallet]
    """Wallets after the refund."""


class RefundRequest(Struct, frozen=True):
    """One refund, or all refunds that came before their purchase.

    `itemised` is the part of the amount that is for the returned items.
    """

    amount: int
    itemised: int = 0
    items: tuple[ReturnedItem, ...] = ()
    without_items: bool = False
    """True if a refund names no items."""


def award_wallet_name(award: Award) -> str:
    """Return the key of the award's wallet in `EvaluationInputs.wallets`."""
    return award.asset if award.to is None else f"{REFERRERS}{award.asset}"


def wallet_of(award: Award, owner: str) -> str:
    return f"{award.to or owner}:{award.asset}"


def take_whole(reached: AchievementReached, reason: str, outcome: RefundOutcome, now_ms: int) -> RefundOutcome:
    """Add to a refund the clawback of the award of an achievement that no longer holds."""
    award = reached.award
    if award is None:
        return outcome
    wallet = outcome.wallets.get(award.asset, AwardWallet())
    pending = award.amount if award.available_at is not None and award.available_at > now_ms else 0
    part, note = clawed_back(award.clawback, award.amount, wallet, pending)
    reasons = [reason] if note is None else [reason, note]
    decision = DecisionView(award.campaign, award.version, "awarded" if part else "refused", -part, reasons)
    taken = outcome.taken
    if part:
        taken = [*taken, AwardClawback(award, part, Lot(award.amount, "promotional", award.available_at, award.expires_at))]
    left = wallet_after(wallet, -part, -min(part, pending))
    return RefundOutcome(outcome.refunded, [*outcome.decisions, decision], taken, {**outcome.wallets, award.asset: left})


def refund(
    known: PurchaseRefunds, request: RefundRequest, purchase: Refundable, wallets: Mapping[str, AwardWallet], now_ms: int
) -> RefundOutcome:
    """Return the outcome of a further refund of a purchase. `known` holds the earlier ones."""
    whole = purchase.amount
    now_refunded = min(known.amount + request.amount, whole)
    beyond = known.amount + request.amount - now_refunded
    refunded = msgspec.structs.replace(
        known,
        count=known.count + 1,
        amount=now_refunded,
        itemised=known.itemised + min(request.itemised, now_refunded - known.amount),
        items=merged(known.items, request.items),
        without_items=known.without_items or request.without_items,
    )
    balances = dict(wallets)
    decisions: list[DecisionView] = []
    taken: list[AwardClawback] = []
    done, spared = dict(known.taken), dict(known.spared)
    for award in (current_award(award, known) for award in purchase.awards):
        if award.amount <= 0:
            continue
        if award.achievement:
            decisions.append(DecisionView(award.campaign, award.version, "not_matched", 0, [_RESTS]))
            continue
        due = taken_back(award, refunded, purchase) - done.get(award.campaign, 0)
        reasons = [f"{now_refunded} of {whole} are refunded: {due} of {award.amount} to take back now"]
        if beyond:
            reasons.append(f"{beyond} more than the purchase are left out")
        name = award_wallet_name(award)
        wallet = balances.get(name, AwardWallet())
        pending = due if award.available_at is not None and award.available_at > now_ms else 0
        if has_expired(award, now_ms):
            part, note = 0, "it has lapsed before anybody could spend it"
        else:
            part, note = clawed_back(award.clawback, due, wallet, pending) if due else (0, None)
        if note is not None:
            reasons.append(note)
        if due:
            done[award.campaign] = done.get(award.campaign, 0) + due
        if part < due:
            spared[award.campaign] = spared.get(award.campaign, 0) + due - part
        if part:
            balances[name] = wallet_after(wallet, -part, -min(part, pending))
            taken.append(AwardClawback(award, part, Lot(due, "promotional", award.available_at, award.expires_at)))
        outcome = "awarded" if part else "refused" if due else "not_matched"
        decisions.append(DecisionView(award.campaign, award.version, outcome, -part, reasons))
    return RefundOutcome(msgspec.structs.replace(refunded, taken=done, spared=spared), decisions, taken, balances)


def current_award(award: Award, known: PurchaseRefunds) -> Award:
    """Return the award with the dates that it has since its release."""
    released = known.released.get(award.campaign) if award.waits is not None else None
    return (
        award if released is None else msgspec.structs.replace(award, available_at=None, expires_at=released.expires_at, waits=None)
    )


def has_expired(award: Award, now_ms: int) -> bool:
    """Return whether a waiting award has expired without its event."""
    return award.waits is not None and award.expires_at is not None and award.expires_at <= now_ms
