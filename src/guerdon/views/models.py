"""Rows of the view group `books`. Amounts are minor units of `asset`; days and months are those of the programme's time zone.

Accounts that count (`system:counted`) have a state, as every account has, and appear in no aggregate of money.
"""

from typing import Literal

from msgspec import Struct, field
from pymongo import IndexModel

from guerdon.ledger.models import Lot, LotDates, Source
from guerdon.projections.models import Aggregate, KeyPart, Rollup

BOOKS, BOOKS_VERSION = "books", 1
"""Name of the view group, and the version of its definition. A change of what is derived needs a new version."""
ACCOUNT_STATES, MEMBER_STATES = "read_accounts", "read_members"

Flow = Literal["earned", "loaded", "restored", "redeemed", "expired", "clawed_back", "adjusted", "transferred"]
"""Column of the roll-forward that a change of a wallet belongs to. The signed amounts of all flows add up to the change of the balances."""
CohortMove = Literal["earned", "redeemed", "expired", "clawed_back", "adjusted", "transferred"]
"""Way in which value entered or left a cohort. Amounts are signed: what enters is positive, and value that returns cancels the move that it undoes."""


class Cohort(Struct, frozen=True, omit_defaults=True):
    """Value in one lot that was earned in one month by one version of a campaign."""

    month: str
    """Month of the first arrival in the programme, such as `2026-11`. A transfer, a hold or a confirmation keeps it."""
    amount: int
    """Minor units that are left."""
    campaign: str = ""
    version: int = 0
    """Campaign and version that awarded it; "" and 0 for other value."""
    debt: CohortMove | None = None
    """For a debt, whose amount is negative: the move that made it. None for value."""

    def is_same(self, other: "Cohort") -> bool:
        return (
            self.month == other.month
            and self.campaign == other.campaign
            and self.version == other.version
            and self.debt == other.debt
        )

    def with_amount(self, amount: int) -> "Cohort":
        """Return the same cohort with another amount."""
        return Cohort(self.month, amount, self.campaign, self.version, self.debt)

    def of_amount(self, amount: int) -> "Cohort":
        """Return the first `amount` of it."""
        return Cohort(self.month, amount, self.campaign, self.version, self.debt)

    def without(self, amount: int) -> "Cohort":
        """Return the rest of it after the first `amount`."""
        return Cohort(self.month, self.amount - amount, self.campaign, self.version, self.debt)

    def joined(self, other: "Cohort") -> "Cohort":
        """Return both together; `other` comes after it, and is the same cohort."""
        return Cohort(self.month, self.amount + other.amount, self.campaign, self.version, self.debt)


class ConsumedCohort(Struct, frozen=True, omit_defaults=True):
    """Value that left an account, kept so that value that returns goes back to its cohort."""

    cohort: Cohort
    source: Source
    move: CohortMove
    granted_until: int | None = None
    """Expiry date that the value was granted with."""


class HeldLots(Struct, frozen=True, omit_defaults=True):
    """Dated value of one hold."""

    seq: int
    lots: tuple[Lot, ...]


class CohortQueue(Struct, frozen=True, omit_defaults=True):
    """The cohorts of one lot of one account, first in first out. They add up to the lot; those of undated paid value to the rest of the balance.

    Value that is on hold stays in its cohort until it is captured. A queue has either value or debts, and only undated paid value has debts.
    """

    source: Source
    available_at: int | None = None
    expires_at: int | None = None
    first_expires_at: int | None = None
    cohorts: tuple[Cohort, ...] = ()

    @property
    def dates(self) -> LotDates:
        return (self.source, self.available_at, self.expires_at, self.first_expires_at)


class AccountReadModel(Struct, frozen=True, omit_defaults=True):
    """State that is derived of one account. `seq` is the watermark: the number of the last entry that was applied."""

    id: str = field(name="_id")
    """`{version}|{account}`"""
    version: int
    part: int
    account: str
    owner: str
    asset: str
    kind: str = ""
    """`wallet` or `gift_card`; of accounts that count: `voucher`, `stock`, `redemptions`, `cap` or `budget`."""
    offer: str = ""
    offer_version: int = 0
    """Offer of a gift card or voucher, and its version if the entry of its issue names it."""
    seq: int = 0
    at: int = 0
    """Time of the last entry that was applied."""
    balance: int = 0
    held: int = 0
    counts_money: bool = True
    """False for accounts of `system:counted`."""
    queues: tuple[CohortQueue, ...] = ()
    consumed: tuple[ConsumedCohort, ...] = ()
    """Value that left last, newest last. Bounded."""
    holds: tuple[HeldLots, ...] = ()
    """Active holds with dated value."""
    next_expires_at: int | None = None
    """Earliest expiry of value in the account; None if nothing expires."""
    last_activity_at: int | None = None
    """Time of the last entry that the holder caused: an award, a credit or a spend, but no expiry."""


class MemberReadModel(Struct, frozen=True, omit_defaults=True):
    """State that is derived of one member's events. `number` is the watermark: the position in the member's chain."""

    id: str = field(name="_id")
    """`{version}|{member}`"""
    version: int
    part: int
    owner: str
    number: int = 0
    purchases: int = 0
    """Purchases that were not voided."""
    first_purchase_at: int | None = None
    last_purchase_at: int | None = None
    last_event_at: int | None = None
    months: tuple[str, ...] = ()
    """Months with at least one purchase, in order."""
    purchases_by_month: dict[str, int] = {}
    earliest: tuple[int, ...] = ()
    latest: tuple[int, ...] = ()
    """Times of the first and the last purchases, in order. Bounded: they replace a first or last purchase that is voided."""
    spent: dict[str, int] = {}
    """By currency: amount of the purchases less refunds, in minor units."""
    campaigns: tuple[str, ...] = ()
    """Campaigns that have awarded an event of the member at least once."""


def _index(*names: str) -> IndexModel:
    return IndexModel([(name, 1) for name in names], name="_".join(names))


FLOWS = Aggregate(
    "read_flows",
    ("asset", "unit", "period", "flow", "counterparty"),
    ("amount", "paid", "promotional", "count"),
    (_index("version", "asset", "unit", "period"),),
)
"""The same as `DAYS` in two sizes: `unit` is `day` or `month`, and `period` such as `2026-11-22` or `2026-11`. A report over years reads months."""


def _flow_keys(key: tuple[KeyPart, ...]) -> tuple[tuple[KeyPart, ...], ...]:
    day, asset, flow, _, counterparty, _, _ = key
    return (asset, "day", day, flow, counterparty), (asset, "month", str(day)[:7], flow, counterparty)


DAYS = Aggregate(
    "read_days",
    ("day", "asset", "flow", "kind", "counterparty", "campaign", "offer"),
    ("amount", "paid", "promotional", "count"),
    (_index("version", "asset", "day"), _index("version", "campaign", "day"), _index("version", "offer", "day")),
    (Rollup(FLOWS, _flow_keys),),
)
"""Signed change of all wallets by day, flow and kind of entry. `counterparty` is a system account, or `wallets` for value from another
wallet. `amount` is `paid + promotional`. The balance of a system account is minus the sum of the rows that name it."""
TOTALS = Aggregate("read_totals", ("asset",), ("wallets", "balance", "held", "debt"), (_index("version", "asset"),))
"""Present state by asset: number of wallets, sum of balances, of held value, and of balances below zero (as a negative number)."""
LOTS = Aggregate(
    "read_lots", ("asset", "source", "available_on", "expires_on"), ("amount", "held"), (_index("version", "asset", "expires_on"),)
)
"""Value that is left by its dates. `available_on` is a day, `awaiting` until a confirmation, or ""; `expires_on` is a day or "".
`held` is the part of `amount` that is on hold, which does not expire."""
COHORT_MONTHS = Aggregate(
    "read_cohort_months",
    ("asset", "source", "earned_month", "move", "month"),
    ("amount", "count"),
    (_index("version", "asset", "earned_month"),),
)
"""The same as `COHORTS` without campaigns."""


def _cohort_month_keys(key: tuple[KeyPart, ...]) -> tuple[tuple[KeyPart, ...], ...]:
    return ((*key[:3], *key[5:]),)


COHORTS = Aggregate(
    "read_cohorts",
    ("asset", "source", "earned_month", "campaign", "campaign_version", "move", "month"),
    ("amount", "count"),
    (_index("version", "asset", "earned_month"), _index("version", "campaign")),
    (Rollup(COHORT_MONTHS, _cohort_month_keys),),
)
"""Ways in which the value that was earned in a month entered and left, by the month in which it did. First in, first out within a lot. The rules are
those of `guerdon.views.cohorts`."""
OFFERS = Aggregate(
    "read_offers", ("day", "offer", "offer_version", "move"), ("count", "amount"), (_index("version", "offer", "day"),)
)
"""Vouchers of an offer by day: `issued`, `reserved`, `released`, `used`, `unused`, `loaded`, `cancelled`, `expired`."""
DECISIONS = Aggregate(
    "read_decisions",
    ("day", "campaign", "campaign_version", "outcome", "currency"),
    ("count", "amount", "revenue"),
    (_index("version", "campaign", "day"),),
)
"""Decisions of a campaign on events by day of the event. `outcome` is `awarded`, `capped`, `refused` or `not_matched` for an event that was
evaluated; `taken_back`, with a negative amount, for a refund or void, by its own day for a void; `released` for value that waited for an event.
`amount` was awarded, `revenue` is the amount of the awarded purchases less refunds: both are sums of `awarded` and `taken_back`."""
CAMPAIGN_MEMBERS = Aggregate("read_campaign_members", ("campaign",), ("members",), (_index("version", "campaign"),))
"""Number of members whose events a campaign has awarded at least once."""
PURCHASES = Aggregate("read_purchases", ("day", "currency", "type"), ("count", "amount"), (_index("version", "day"),))
"""Events by day of occurrence. `type` is `purchase`, `refund`, `void` or another type; refunds and voids have negative amounts.
A void counts on its own day, with what earlier refunds have left of its purchase, or 0 for an event of another type."""
MEMBER_MONTHS = Aggregate(
    "read_member_months", ("first_month", "month"), ("members",), (_index("version", "month"), _index("version", "first_month"))
)
"""Number of members with a purchase in `month`, by the month of their first purchase: equal for new members, earlier for returning ones."""
TIER_STEPS = Aggregate("read_tier_steps", ("day", "tier_before", "tier_after"), ("members",), (_index("version", "day"),))
"""Changes of tier by the day of the change. A tier is "" for none. The members of a tier are those who came to it less those who left it."""
RANKINGS = Aggregate(
    "read_rankings",
    ("period", "asset", "owner"),
    ("earned", "spent"),
    (
        IndexModel([("version", 1), ("asset", 1), ("period", 1), ("earned", -1), ("owner", 1)], name="earned"),
        IndexModel([("version", 1), ("asset", 1), ("period", 1), ("spent", -1), ("owner", 1)], name="spent"),
    ),
)
"""Value that each member earned, less what was clawed back, and spent, less what was restored, in a month (`2026-11`), a year (`2026`) and in `all` time, so that an index finds the highest. `spent`
is positive."""

AGGREGATES = (
    DAYS,
    FLOWS,
    TOTALS,
    LOTS,
    COHORTS,
    COHORT_MONTHS,
    OFFERS,
    DECISIONS,
    CAMPAIGN_MEMBERS,
    PURCHASES,
    MEMBER_MONTHS,
    TIER_STEPS,
    RANKINGS,
)
INDEXES: dict[str, list[IndexModel]] = {
    ACCOUNT_STATES: [_index("version", "asset", "next_expires_at", "account")],
    MEMBER_STATES: [_index("version", "last_event_at")],
    **{each.collection: list(each.indexes) for each in AGGREGATES},
}
