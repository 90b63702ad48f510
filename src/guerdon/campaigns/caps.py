"""Caps and budgets, kept as accounts that hold no value and only count. Pure.

The balance of such an account is the amount paid against it. An award changes it in the commit that changes the wallet, so caps are checked
on the state that is committed, and every use of a cap or a budget is a hashed entry like any other. The caps of a member belong to the
member, a budget belongs to its campaign. A cap has one account for each calendar period, named after the period in which the event
occurred: nothing has to be reset, a late event counts in its own period, and a refund gives back to the period of its purchase.
"""

from collections.abc import Mapping

from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.models import Campaign, Period
from guerdon.campaigns.periods import window_name
from guerdon.ledger.models import Account

CAP, BUDGET = "cap", "budget"


class CapAccount(Struct, frozen=True):
    """The account of a cap or a budget, and its limit in minor units."""

    account: str
    owner: str
    kind: str
    limit: int
    says: str
    """Scope of the limit, as worded in a reason."""

    def opened(self, now_ms: int) -> Account:
        """Return the account in its first state."""
        asset = self.account.rpartition(":")[2]
        return Account(id=self.account, owner=self.owner, asset=asset, kind=self.kind, opened_at=now_ms)


def cap_accounts(campaign: Campaign, owner: str, occurred_at: int, calendar: Calendar) -> list[CapAccount]:
    """Return the accounts that an award of this campaign to this member counts against. Of several caps of one period the smallest counts."""
    limits: dict[Period, int] = {}
    for cap in campaign.caps:
        if cap.scope == "member" and cap.period is not None:
            limits[cap.period] = min(cap.limit, limits.get(cap.period, cap.limit))
    counters = [
        CapAccount(cap_account(campaign.id, owner, window_name(period, occurred_at, calendar)), owner, CAP, limit, _SAYS[period])
        for period, limit in limits.items()
    ]
    if campaign.budget is not None:
        counters.append(CapAccount(budget_account(campaign.id), campaign.id, BUDGET, campaign.budget, "in the budget"))
    return counters


def cap_account(campaign_id: str, owner: str, window: str) -> str:
    """Return the id of the account that counts the awards of a campaign to a member in a calendar period."""
    return f"{owner}:{window}.{campaign_id}"


def budget_account(campaign_id: str) -> str:
    """Return the id of the account that counts all awards of a campaign."""
    return f"{campaign_id}:budget"


_SAYS: dict[Period, str] = {
    "day": "for this member on that day",
    "week": "for this member in that week",
    "month": "for this member in that month",
    "year": "for this member in that year",
    "ever": "for this member",
}


def limit_by_caps(campaign: Campaign, amount: int, counters: list[CapAccount], used: Mapping[str, int]) -> tuple[int, list[str]]:
    """Return the amount that caps and budget leave of an award, and a reason for each limit that reduces it."""
    allowed = amount
    reasons: list[str] = []
    for cap in campaign.caps:
        if cap.scope == "event":
            allowed = min(allowed, cap.limit)
    if allowed < amount:
        reasons.append(f"at most {allowed} for one event")
    for counter in counters:
        left = max(0, counter.limit - used.get(counter.account, 0))
        if left < allowed:
            allowed = left
            reasons.append(f"{left} of {counter.limit} are left {counter.says}")
    if allowed < amount and not campaign.partial_award:
        return 0, [*reasons, "a part is not awarded"]
    return allowed, reasons
