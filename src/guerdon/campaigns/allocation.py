"""What is paid: judgements, cut by groups, caps, budgets and wallets. Pure: the same inputs give the same verdicts, byte for byte."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns import periods
from guerdon.campaigns.caps import BUDGET, CapAccount, cap_accounts, limit_by_caps
from guerdon.campaigns.domain import REFERRERS, REFUND, AwardWallet, EvaluationInputs, ShopEvent
from guerdon.campaigns.evaluation import Evaluation
from guerdon.campaigns.models import Campaign, Clawback, Expiry, Pending, PendingEvent
from guerdon.ledger.models import LOTS_MAX, Account, Lot
from guerdon.money import BALANCE_CEILING


class Allocation(Struct, frozen=True):
    """What one campaign pays (or takes back, negative), and why."""

    campaign: Campaign
    outcome: Literal["awarded", "capped", "refused", "not_matched"]
    amount: int
    reasons: list[str]
    lot: Lot | None = None
    """What the award arrives as."""
    counters: tuple[CapAccount, ...] = ()
    """What it counts against, or gives back to."""
    to: str | None = None
    """Whoever is paid instead of the member: their referrer."""


class AwardAllocator:
    """Pays one event's awards one after another, each on the state that the ones before it leave."""

    def __init__(self, event: ShopEvent, owner: str, inputs: EvaluationInputs, calendar: Calendar) -> None:
        self.event = event
        self._owner = owner
        self._inputs = inputs
        self._calendar = calendar
        self._wallets = dict(inputs.wallets)
        self._used = dict(inputs.used)

    def offer(self, judgement: Evaluation) -> Allocation:
        """Say what the campaign would pay now; nothing is taken yet."""
        to = payee(judgement.campaign, self._owner, self._inputs.referrer)
        counters = cap_accounts(judgement.campaign, to, self.event.occurred_at, self._calendar)
        if self.event.type == REFUND:
            return self._take_back(judgement, [counter for counter in counters if counter.kind == BUDGET])
        campaign = judgement.campaign
        amount, reasons = limit_by_caps(campaign, judgement.amount, counters, self._used)
        reasons = [judgement.reason, *reasons]
        if amount == 0:
            return Allocation(campaign, "capped", 0, reasons)
        confirmed = self._confirmed(campaign)
        if confirmed is not None:
            reasons = [*reasons, f"{confirmed} had confirmed it before it arrived: it waits for nothing"]
        pending = campaign.pending if confirmed is None else None
        lot = award_lot(pending, campaign.expiry, amount, self._inputs.decided_at, self._calendar)
        hindrance = rejection_reason(self._wallets.get(wallet_name(campaign), AwardWallet()), lot)
        if hindrance is not None:
            return Allocation(campaign, "refused", 0, [*reasons, hindrance])
        return Allocation(campaign, "awarded", amount, reasons, lot, tuple(counters), None if to == self._owner else to)

    def _confirmed(self, campaign: Campaign) -> str | None:
        """Which event has confirmed the purchase already, of the type that the award is to wait for."""
        before, pending = self._inputs.before, campaign.pending
        if before is None or not isinstance(pending, PendingEvent):
            return None
        return before.confirmed.get(pending.event_type)

    def _take_back(self, judgement: Evaluation, budget: list[CapAccount]) -> Allocation:
        campaign = judgement.campaign
        amount, reasons = limit_by_caps(campaign, judgement.amount, [], {})
        reasons = [judgement.reason, *reasons]
        taken, note = clawed_back(campaign.clawback, amount, self._wallets.get(campaign.asset, AwardWallet()))
        if note is not None:
            reasons.append(note)
        outcome = "awarded" if taken else "refused"
        return Allocation(campaign, outcome, -taken, reasons, None, tuple(budget) if taken else ())

    def take(self, verdict: Allocation) -> None:
        """Move the state on by what a verdict pays."""
        apply_allocation(self._wallets, verdict)
        for counter in verdict.counters:
            self._used[counter.account] = max(0, self._used.get(counter.account, 0) + verdict.amount)


def payee(campaign: Campaign, owner: str, referrer: str | None) -> str:
    """Whom the campaign pays; without a referrer it wants to pay nobody."""
    return referrer or "" if campaign.pays == "referrer" else owner


def wallet_name(campaign: Campaign) -> str:
    """Under which name the wallet that it pays into stands among the wallets of a decision."""
    return f"{REFERRERS}{campaign.asset}" if campaign.pays == "referrer" else campaign.asset


def apply_allocation(wallets: dict[str, AwardWallet], verdict: Allocation) -> None:
    """Move the wallets on by what a verdict pays; what is still pending is not available."""
    asset = wallet_name(verdict.campaign)
    wallet = wallets.get(asset, AwardWallet())
    pending = verdict.lot is not None and verdict.lot.available_at is not None
    wallets[asset] = wallet_after(wallet, verdict.amount, verdict.amount if pending else 0)


def wallet_after(wallet: AwardWallet, amount: int, pending: int = 0) -> AwardWallet:
    """The wallet after a movement, of which `pending` is of value that is not available. What arrives pays first what is owed."""
    there = wallet.available - wallet.owed + amount - pending
    return msgspec.structs.replace(wallet, balance=wallet.balance + amount, available=max(there, 0), owed=max(-there, 0))


def allocate(
    event: ShopEvent, owner: str, judgements: Sequence[Evaluation], inputs: EvaluationInputs, calendar: Calendar
) -> list[Allocation]:
    """Pay what the campaigns want, in their order, as far as groups, caps, budgets and wallets let them.

    In a group only one pays when the policy of its first campaign that wants to is `best` or `first`; which one is settled by what each
    could really pay, so that an exhausted campaign does not stand in the way of another.
    """
    desk = AwardAllocator(event, owner, inputs, calendar)
    chosen: dict[str, Allocation | None] = {}
    verdicts: list[Allocation] = []
    for judgement in judgements:
        campaign = judgement.campaign
        if judgement.outcome != "awarded":
            verdicts.append(Allocation(campaign, judgement.outcome, 0, [judgement.reason]))
            continue
        verdict, group = desk.offer(judgement), campaign.stacking.group
        if group is not None:
            if group not in chosen:
                chosen[group] = _choose(desk, group, judgements)
            winner = chosen[group]
            if winner is not None and winner.campaign.id != campaign.id and verdict.amount:
                why = f"in group {group}, {winner.campaign.id} pays {abs(winner.amount)}"
                verdict = Allocation(campaign, "refused", 0, [*verdict.reasons, why])
        if verdict.amount:
            desk.take(verdict)
        verdicts.append(verdict)
    return verdicts


def _choose(desk: AwardAllocator, group: str, judgements: Sequence[Evaluation]) -> Allocation | None:
    """Return what the only campaign of a group that pays would pay, or None where all of them do or nobody can."""
    rivals = [each for each in judgements if each.outcome == "awarded" and each.campaign.stacking.group == group]
    policy = rivals[0].campaign.stacking.policy
    if policy == "all":
        return None
    offers = [offer for offer in map(desk.offer, rivals) if offer.amount]
    if not offers:
        return None
    return offers[0] if policy == "first" else max(offers, key=lambda offer: abs(offer.amount))


def award_lot(pending: Pending | None, expiry: Expiry | None, amount: int, now_ms: int, calendar: Calendar) -> Lot:
    """What an award arrives as."""
    return Lot(amount, "promotional", *periods.dates_of(pending, expiry, now_ms, calendar))


def wallet_state(account: Account | None) -> AwardWallet:
    """What matters of a wallet; one that does not exist yet is empty and open."""
    if account is None:
        return AwardWallet()
    own = account.lots or ()
    there = account.spendable + min(account.minimum_balance, 0)
    return AwardWallet(
        balance=account.balance,
        available=max(there, 0),
        owed=max(-there, 0),
        status=account.status,
        ceiling=account.ceiling,
        full=tuple(lot.dates for lot in own) if len(own) >= LOTS_MAX else None,
    )


def rejection_reason(wallet: AwardWallet, lot: Lot) -> str | None:
    if wallet.status != "open":
        return f"the wallet is {wallet.status}"
    if wallet.balance + lot.amount > wallet.ceiling:
        return f"the balance would pass its limit of {wallet.ceiling}"
    if wallet.full is not None and lot.dates not in wallet.full:
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
    """Return what is really taken back, and a note when that is not `amount`; `own` of it is still pending and only waits to be taken.

    What is pending is needed for what is owed, as far as the ledger is concerned, so that it cannot be taken beside a debt.
    """
    if wallet.status != "open":
        return 0, f"the wallet is {wallet.status}"
    if policy == "none":
        return 0, "this campaign takes nothing back on refunds"
    if policy == "up_to_balance":
        # The credit line is no balance: taking from it would make the debt that this policy rules out.
        taken = min(amount, max(0, wallet.available - wallet.owed + own))
        return taken, None if taken == amount else f"{amount} to take back, {taken} available"
    if wallet.balance - amount < -BALANCE_CEILING:
        return 0, "the debt would pass the limit of the account"
    return amount, None
