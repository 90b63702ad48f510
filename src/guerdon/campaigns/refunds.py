"""Clawback of awards when their purchase is refunded. Pure.

A member keeps the share of each award that is not refunded, rounded down: of an award of 139 for £139.12, 69 are kept when half of the
purchase is refunded, in any number of refunds. Together the refunds of a purchase count for at most its amount. A clawback takes from the lot
of the award first, and gives back to the caps and the budget that the award counted against.

Value that has expired is lost to the member already. What a clawback would have taken from the lot of the award counts as taken if it has
expired there, so a refund takes the same from other value whether it comes before the expiry or after it. Awards of one wallet with the same
expiry share their lot; each unit that has expired counts for one refund only.
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
    expired: Mapping[str, int] = {}
    """By lot name: expired value that is left for later refunds."""


class RefundRequest(Struct, frozen=True):
    """One refund, or all refunds that came before their purchase.

    `itemised` is the part of the amount that is for the returned items.
    """

    amount: int
    itemised: int = 0
    items: tuple[ReturnedItem, ...] = ()
    without_items: bool = False
    """True if a refund names no items."""
    void: bool = False
    """True to take back all that is left of each award."""


def award_wallet_name(award: Award) -> str:
    """Return the key of the award's wallet in `EvaluationInputs.wallets`."""
    return award.asset if award.to is None else f"{REFERRERS}{award.asset}"


def wallet_of(award: Award, owner: str) -> str:
    return f"{award.to or owner}:{award.asset}"


def lot_name(award: Award) -> str:
    """Return the key in `EvaluationInputs.waiting` and `.expired` of the lot of an award."""
    return f"{award_wallet_name(award)}/{award.expires_at}"


class _Part(Struct, frozen=True):
    """Part of an award that is taken back now, the part that has expired, and the notes on both."""

    amount: int
    expired: int
    notes: list[str]


def _take(award: Award, due: int, wallet: AwardWallet, expired: Mapping[str, int], now_ms: int) -> _Part:
    """Return how an award is reduced by `due`: value that has expired in its lot counts as taken."""
    if has_expired(award, now_ms):
        return _Part(0, 0, ["it has lapsed before anybody could spend it"])
    if not due:
        return _Part(0, 0, [])
    gone = 0
    if award.clawback != "none" and wallet.status == "open":
        gone = min(due, expired.get(lot_name(award), 0))
    notes = [f"{gone} of it have expired and are not taken again"] if gone else []
    if gone == due:
        return _Part(0, gone, notes)
    pending = due - gone if award.available_at is not None and award.available_at > now_ms else 0
    amount, note = clawed_back(award.clawback, due - gone, wallet, pending)
    return _Part(amount, gone, notes if note is None else [*notes, note])


def take_whole(reached: AchievementReached, reason: str, outcome: RefundOutcome, now_ms: int) -> RefundOutcome:
    """Add to a refund the clawback of the award of an achievement that no longer holds."""
    award = reached.award
    if award is None:
        return outcome
    name = award_wallet_name(award)
    wallet = outcome.wallets.get(name, AwardWallet())
    part = _take(award, award.amount, wallet, outcome.expired, now_ms)
    decision = DecisionView(
        award.campaign, award.version, "awarded" if part.amount else "refused", -part.amount, [reason, *part.notes]
    )
    taken = outcome.taken
    if part.amount:
        taken = [*taken, AwardClawback(award, part.amount, Lot(award.amount, "promotional", award.available_at, award.expires_at))]
    return RefundOutcome(
        outcome.refunded,
        [*outcome.decisions, decision],
        taken,
        {**outcome.wallets, name: _wallet_without(award, part, wallet, now_ms)},
        _without(outcome.expired, award, part),
    )


def _wallet_without(award: Award, part: _Part, wallet: AwardWallet, now_ms: int) -> AwardWallet:
    pending = part.amount if award.available_at is not None and award.available_at > now_ms else 0
    return wallet_after(wallet, -part.amount, -pending)


def _without(expired: Mapping[str, int], award: Award, part: _Part) -> Mapping[str, int]:
    name = lot_name(award)
    return {**expired, name: expired[name] - part.expired} if part.expired else expired


def refund(
    known: PurchaseRefunds,
    request: RefundRequest,
    purchase: Refundable,
    wallets: Mapping[str, AwardWallet],
    now_ms: int,
    *,
    expired: Mapping[str, int] | None = None,
) -> RefundOutcome:
    """Return the outcome of a further refund of a purchase. `known` holds the earlier ones, `expired` the expired value of its awards' lots."""
    left = expired or {}
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
        due = (award.amount if request.void else taken_back(award, refunded, purchase)) - done.get(award.campaign, 0)
        why = "the event was voided" if request.void else f"{now_refunded} of {whole} are refunded"
        reasons = [f"{why}: {due} of {award.amount} to take back now"]
        if beyond:
            reasons.append(f"{beyond} more than the purchase are left out")
        name = award_wallet_name(award)
        wallet = balances.get(name, AwardWallet())
        part = _take(award, due, wallet, left, now_ms)
        left = _without(left, award, part)
        reasons += part.notes
        if due:
            done[award.campaign] = done.get(award.campaign, 0) + due
        if part.amount + part.expired < due:
            spared[award.campaign] = spared.get(award.campaign, 0) + due - part.amount - part.expired
        if part.amount:
            balances[name] = _wallet_without(award, part, wallet, now_ms)
            taken.append(AwardClawback(award, part.amount, Lot(due, "promotional", award.available_at, award.expires_at)))
        outcome = "awarded" if part.amount else "refused" if due else "not_matched"
        decisions.append(DecisionView(award.campaign, award.version, outcome, -part.amount, reasons))
    return RefundOutcome(msgspec.structs.replace(refunded, taken=done, spared=spared), decisions, taken, balances, left)


def current_award(award: Award, known: PurchaseRefunds) -> Award:
    """Return the award with the dates that it has since its release."""
    released = known.released.get(award.campaign) if award.waits is not None else None
    return (
        award if released is None else msgspec.structs.replace(award, available_at=None, expires_at=released.expires_at, waits=None)
    )


def has_expired(award: Award, now_ms: int) -> bool:
    """Return whether a waiting award has expired without its event."""
    return award.waits is not None and award.expires_at is not None and award.expires_at <= now_ms
