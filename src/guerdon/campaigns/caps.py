"""Caps and budgets: accounts that hold no value and only count. Pure.

The balance of such an account is what has been paid against it. An award moves it in the commit that moves the wallet, so it is judged on
the very state that is committed, and every use of a cap or a budget is an entry with a hash like any other. A member's caps belong to the
member, a budget to its campaign. A cap has an account for each calendar period, named after the period in which the event occurred:
nothing has to be reset, late events count where they belong, and a refund gives back to the period that its purchase counted in.
"""

from collections.abc import Mapping

from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.models import Campaign, Period
from guerdon.campaigns.periods import window_name
from guerdon.ledger.models import Account

CAP, BUDGET = "cap", "budget"


class CapAccount(Struct, frozen=True):
    """An account that counts, and how far it may."""

    account: str
    owner: str
    kind: str
    limit: int
    says: str
    """Whose limit it is, in a reason."""

    def opened(self, now_ms: int) -> Account:
        """The account as it begins."""
        asset = self.account.rpartition(":")[2]
        return Account(id=self.account, owner=self.owner, asset=asset, kind=self.kind, opened_at=now_ms)


def cap_accounts(campaign: Campaign, owner: str, occurred_at: int, calendar: Calendar) -> list[CapAccount]:
    """Everything that an award of this campaign to this member counts against; several caps of one period are the smallest of them."""
    limits: dict[Period, int] = {}
    for cap in campaign.caps:
        if cap.scope == "member" and cap.period is not None:
            limits[cap.period] = min(cap.limit, limits.get(cap.period, cap.limit))
    counters = [
        CapAccount(f"{owner}:{window_name(period, occurred_at, calendar)}.{campaign.id}", owner, CAP, limit, _SAYS[period])
        for period, limit in limits.items()
    ]
    if campaign.budget is not None:
        counters.append(CapAccount(f"{campaign.id}:budget", campaign.id, BUDGET, campaign.budget, "in the budget"))
    return counters


_SAYS: dict[Period, str] = {
    "day": "for this member on that day",
    "week": "for this member in that week",
    "month": "for this member in that month",
    "year": "for this member in that year",
    "ever": "for this member",
}


def limit_by_caps(campaign: Campaign, amount: int, counters: list[CapAccount], used: Mapping[str, int]) -> tuple[int, list[str]]:
    """Return what of an award the caps and the budget leave, and a reason for every one that is in its way."""
    allowed = amount
    reasons: list[str] = []
    per_event = min((cap.limit for cap in campaign.caps if cap.scope == "event"), default=amount)
    if per_event < amount:
        allowed = per_event
        reasons.append(f"at most {per_event} for one event")
    for counter in counters:
        left = max(0, counter.limit - used.get(counter.account, 0))
        if left < allowed:
            allowed = left
            reasons.append(f"{left} of {counter.limit} are left {counter.says}")
    if allowed < amount and not campaign.partial_award:
        return 0, [*reasons, "a part is not awarded"]
    return allowed, reasons
