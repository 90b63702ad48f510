"""Allocation of awards: evaluations, limited by stacking groups, caps, budgets and wallets. Pure: equal inputs give equal allocations."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.caps import BUDGET, CapAccount, cap_accounts, limit_by_caps
from guerdon.campaigns.domain import REFERRERS, REFUND, AwardWallet, EvaluationInputs, PurchaseRefunds, ShopEvent
from guerdon.campaigns.evaluation import Evaluation
from guerdon.campaigns.models import Campaign, Clawback, PendingEvent
from guerdon.campaigns.periods import dates_of
from guerdon.ledger.models import LOTS_MAX, Account, Lot
from guerdon.money import BALANCE_CEILING


class Allocation(Struct, frozen=True):
    """Amount that one campaign pays for an event, negative for a clawback, and the reasons."""

    campaign: Campaign
    outcome: Literal["awarded", "capped", "refused", "not_matched"]
    amount: int
    reasons: list[str]
    lot: Lot | None = None
    """Lot in which the award arrives."""
    counters: tuple[CapAccount, ...] = ()
    """Caps and budget that the award counts against, or gives back to."""
    to: str | None = None
    """Id of the referrer, if the award is paid to the referrer and not to the member."""


class AwardAllocator:
    """Allocates the awards of one event one after another, each on the state that the ones before it leave."""

    def __init__(self, event: ShopEvent, owner: str, inputs: EvaluationInputs, calendar: Calendar) -> None:
        self.event = event
        self._owner = owner
        self._inputs = inputs
        self._calendar = calendar
        self._wallets = dict(inputs.wallets)
        self._used = dict(inputs.used)

    def offer(self, evaluation: Evaluation) -> Allocation:
        """Return what the campaign would pay on the present state, which stays as it is."""
        campaign = evaluation.campaign
        to = payee(campaign, self._owner, self._inputs.referrer)
        caps = cap_accounts(campaign, to, self.event.occurred_at, self._calendar)
        if self.event.type == REFUND:
            return self._take_back(evaluation, [cap for cap in caps if cap.kind == BUDGET])
        amount, reasons = limit_by_caps(campaign, evaluation.amount, caps, self._used)
        reasons = [evaluation.reason, *reasons]
        if amount == 0:
            return Allocation(campaign, "capped", 0, reasons)
        pending = campaign.pending
        confirmed = None if self._inputs.before is None else _confirming_event(campaign, self._inputs.before)
        if confirmed is not None:
            reasons = [*reasons, f"{confirmed} had confirmed it before it arrived: it waits for nothing"]
            pending = None
        lot = Lot(amount, "promotional", *dates_of(pending, campaign.expiry, self._inputs.decided_at, self._calendar))
        rejection = rejection_reason(self._wallets.get(wallet_name(campaign), AwardWallet()), lot)
        if rejection is not None:
            return Allocation(campaign, "refused", 0, [*reasons, rejection])
        return Allocation(campaign, "awarded", amount, reasons, lot, tuple(caps), None if to == self._owner else to)

    def _take_back(self, evaluation: Evaluation, budget: list[CapAccount]) -> Allocation:
        campaign = evaluation.campaign
        amount, reasons = limit_by_caps(campaign, evaluation.amount, [], {})
        reasons = [evaluation.reason, *reasons]
        taken, note = clawed_back(campaign.clawback, amount, self._wallets.get(campaign.asset, AwardWallet()))
        if note is not None:
            reasons.append(note)
        outcome = "awarded" if taken else "refused"
        return Allocation(campaign, outcome, -taken, reasons, None, tuple(budget) if taken else ())

    def take(self, allocation: Allocation) -> None:
        """Apply an allocation to the state of wallets, caps and budgets."""
        apply_allocation(self._wallets, allocation)
        for cap in allocation.counters:
            self._used[cap.account] = max(0, self._used.get(cap.account, 0) + allocation.amount)


def _confirming_event(campaign: Campaign, before: PurchaseRefunds) -> str | None:
    """Return the id of the event that confirmed the purchase already, if the campaign's awards wait for its type."""
    pending = campaign.pending
    return before.confirmed.get(pending.event_type) if isinstance(pending, PendingEvent) else None


def payee(campaign: Campaign, owner: str, referrer: str | None) -> str:
    """Return the id of the member whom the campaign pays, or an empty text if the referrer is paid and does not exist."""
    return referrer or "" if campaign.pays == "referrer" else owner


def wallet_name(campaign: Campaign) -> str:
    """Return the key of the campaign's wallet in `EvaluationInputs.wallets`."""
    return f"{REFERRERS}{campaign.asset}" if campaign.pays == "referrer" else campaign.asset


def apply_allocation(wallets: dict[str, AwardWallet], allocation: Allocation) -> None:
    """Apply what an allocation pays to the wallets. A pending award does not add to what is available."""
    name = wallet_name(allocation.campaign)
    pending = allocation.lot is not None and allocation.lot.available_at is not None
    wallets[name] = wallet_after(wallets.get(name, AwardWallet()), allocation.amount, allocation.amount if pending else 0)


def wallet_after(wallet: AwardWallet, amount: int, pending: int = 0) -> AwardWallet:
    """Return the wallet after a movement of `amount`, of which `pending` is not available. A credit first pays what is owed."""
    available = wallet.available - wallet.owed + amount - pending
    return msgspec.structs.replace(wallet, balance=wallet.balance + amount, available=max(available, 0), owed=max(-available, 0))


def allocate(
    event: ShopEvent, owner: str, evaluations: Sequence[Evaluation], inputs: EvaluationInputs, calendar: Calendar
) -> list[Allocation]:
    """Allocate the awards of the campaigns, in their order, as far as groups, caps, budgets and wallets allow.

    In a stacking group with the policy `best` or `first` (that of its first campaign with an award) only one campaign pays. It is chosen by
    what each could pay on the present state, so that an exhausted campaign does not exclude another.
    """
    allocator = AwardAllocator(event, owner, inputs, calendar)
    chosen: dict[str, Allocation | None] = {}
    allocations: list[Allocation] = []
    for evaluation in evaluations:
        campaign = evaluation.campaign
        if evaluation.outcome != "awarded":
            allocations.append(Allocation(campaign, evaluation.outcome, 0, [evaluation.reason]))
            continue
        allocation, group = allocator.offer(evaluation), campaign.stacking.group
        if group is not None:
            if group not in chosen:
                chosen[group] = _choose(allocator, group, evaluations)
            winner = chosen[group]
            if winner is not None and winner.campaign.id != campaign.id and allocation.amount:
                reason = f"in group {group}, {winner.campaign.id} pays {abs(winner.amount)}"
                allocation = Allocation(campaign, "refused", 0, [*allocation.reasons, reason])
        if allocation.amount:
            allocator.take(allocation)
        allocations.append(allocation)
    return allocations


def _choose(allocator: AwardAllocator, group: str, evaluations: Sequence[Evaluation]) -> Allocation | None:
    """Return the allocation of the one campaign of a group that pays, or None if all of them pay or none can."""
    rivals = [each for each in evaluations if each.outcome == "awarded" and each.campaign.stacking.group == group]
    policy = rivals[0].campaign.stacking.policy
    if policy == "all":
        return None
    offers = [offer for offer in map(allocator.offer, rivals) if offer.amount]
    if not offers:
        return None
    return offers[0] if policy == "first" else max(offers, key=lambda offer: abs(offer.amount))


def wallet_state(account: Account | None) -> AwardWallet:
    """Return the state of a wallet as far as awards depend on it. A wallet that does not exist is empty and open."""
    if account is None:
        return AwardWallet()
    lots = account.lots or ()
    available = account.spendable + min(account.minimum_balance, 0)
    return AwardWallet(
        balance=account.balance,
        available=max(available, 0),
        owed=max(-available, 0),
        status=account.status,
        ceiling=account.ceiling,
        full=tuple(lot.dates[:3] for lot in lots if lot.first_expires_at is None) if len(lots) >= LOTS_MAX else None,
    )


def rejection_reason(wallet: AwardWallet, lot: Lot) -> str | None:
    """Return why the wallet cannot take the lot, or None if it can."""
    if wallet.status != "open":
        return f"the wallet is {wallet.status}"
    if wallet.balance + lot.amount > wallet.ceiling:
        return f"the balance would pass its limit of {wallet.ceiling}"
    if wallet.full is not None and lot.dates[:3] not in wallet.full:
        return f"the wallet already holds {LOTS_MAX} lots of different dates"
    if (
        lot.expires_at is not None
        and lot.available_at is not None
        and not lot.awaits_confirmation
        and lot.expires_at <= lot.available_at
    ):
        return "the award would lapse before it could be spent"
    return None


def clawed_back(policy: Clawback, amount: int, wallet: AwardWallet, own: int = 0) -> tuple[int, str | None]:
    """Return the amount that a refund takes back, and a note if it is not `amount`. `own` is the part of the award that is still pending.

    In the ledger a pending part first covers what is owed, so it cannot be taken back in addition to a debt.
    """
    if wallet.status != "open":
        return 0, f"the wallet is {wallet.status}"
    if policy == "none":
        return 0, "this campaign takes nothing back on refunds"
    if policy == "up_to_balance":
        # A credit limit is not balance: taking from it would make the debt that this policy excludes.
        taken = min(amount, max(0, wallet.available - wallet.owed + own))
        return taken, None if taken == amount else f"{amount} to take back, {taken} available"
    if wallet.balance - amount < -BALANCE_CEILING:
        return 0, "the debt would pass the limit of the account"
    return amount, None
