"""Wire structs of the reports on value. All amounts are minor units of the asset."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from guerdon.ledger.models import Source
from guerdon.reports.models import AssetQuery, AssetRangeQuery, Day, ReportHead
from guerdon.types import PAGE_MAX

EXPIRING_DAYS_MAX = 366
Limit = Annotated[int, Meta(ge=1, le=PAGE_MAX)]

# --- roll-forward ---------------------------------------------------------------------------------------------------


class RollForwardQuery(AssetRangeQuery, frozen=True, kw_only=True):
    """Parameters of the roll-forward."""

    source: Source | None = None
    """`paid` or `promotional`, to report on value of this source only. By default all value."""


class RollForwardRow(Struct, frozen=True, kw_only=True):
    """Change of all wallets in a period: closing = opening + earned + loaded + restored - redeemed - expired - clawed_back + adjusted + transferred."""

    period: str
    """Month (`2026-11`) or day (`2026-11-22`), or `total`. At the ends of the range a month has only the days of the range."""
    opening: int
    """Sum of the balances at the beginning."""
    earned: int
    """Value that was awarded: awards of campaigns, and promotional credits."""
    loaded: int
    """Paid value that was credited."""
    restored: int
    """Spent value that returned, by a reversal or a refund."""
    redeemed: int
    """Value that was spent. Positive for value that left."""
    expired: int
    """Value that was written off at its expiry, less what returned. Positive for value that left."""
    clawed_back: int
    """Awards that were taken back because of a refund. Positive for value that left."""
    adjusted: int
    """Corrections: reversed credits and awards, and debits against other accounts than the merchant's. Negative for value that left."""
    transferred: int
    """Value from other wallets less value to them, and exchanges with other assets. Without exchanges it is 0."""
    closing: int
    """Sum of the balances at the end."""
    closing_paid: int
    """Part of `closing` that is paid value. Debts are paid value below zero."""
    closing_promotional: int
    """Part of `closing` that was awarded."""


class RollForwardCheck(Struct, frozen=True, kw_only=True):
    """Proof that the roll-forward ties to the books, over value of all sources."""

    closing: int
    """Opening plus the changes of the range, of value of all sources."""
    system_accounts: int
    """Sum of the balances of all system accounts at the end. It is minus `closing`."""
    wallets: int | None
    """Sum of the present balances of all wallets, counted by itself; null if the range ends before the present."""
    debt: int | None
    """Part of `wallets` below zero, as a negative number; null if the range ends before the present."""
    difference: int
    """`closing` less `wallets`, or plus `system_accounts` in the past. It is 0."""


class RollForward(ReportHead, frozen=True, kw_only=True):
    """Value that entered and left the wallets of an asset, by period."""

    rows: list[RollForwardRow]
    """One row per period, oldest first."""
    total: RollForwardRow
    """The whole range."""
    check: RollForwardCheck
    """Proof that the figures tie to the balances."""


# --- liability ------------------------------------------------------------------------------------------------------


class LiabilityQuery(AssetQuery, frozen=True, kw_only=True):
    """Parameters of the report on the liability."""

    at: Day | None = None
    """First day of a past month, for the liability at its beginning by earning month. By default the present."""


class LiabilityRow(Struct, frozen=True, kw_only=True):
    """Outstanding value of one month."""

    by: Literal["earning_month", "expiry_month"]
    """Meaning of `month`: the month in which the value was earned, or the month in which it expires."""
    month: str | None
    """Month; null for value that does not expire."""
    outstanding: int
    """Value that is left. A debt lowers the month in which it was made."""
    paid: int
    """Paid part of `outstanding`."""
    promotional: int
    """Awarded part of `outstanding`."""
    maximum_cost: int | None
    """Cost if all of it is redeemed, in minor units of `cost_currency`; null without a value per point."""


class LiabilityTotal(Struct, frozen=True, kw_only=True):
    """Outstanding value: outstanding = spendable + pending + waiting + held; balance = outstanding + expired + debt."""

    outstanding: int
    """Value that members hold."""
    spendable: int | None
    """Value that can be spent now; null in the past."""
    pending: int | None
    """Value that is not available before a later day; null in the past."""
    waiting: int | None
    """Value that awaits a confirmation; null in the past."""
    held: int | None
    """Value that is set aside by holds; null in the past."""
    expired: int | None
    """Value past its expiry that is not written off yet. It is no part of `outstanding`; null in the past."""
    debt: int | None
    """Balances below zero, as a negative number. They are no part of `outstanding`; null in the past, where `outstanding` includes them."""
    balance: int
    """Sum of the balances of all wallets."""
    maximum_cost: int | None
    """Cost if all outstanding value is redeemed, in minor units of `cost_currency`; null without a value per point."""
    expected_cost: int | None
    """Cost of the part that is expected to be redeemed; null without a value per point or an estimate."""
    cost_currency: str | None
    """Currency of the costs; null without a value per point."""


class Liability(ReportHead, frozen=True, kw_only=True):
    """Outstanding value of an asset, by earning month and by expiry month."""

    at: str
    """Time at which the value was outstanding, RFC 3339 in UTC."""
    rows: list[LiabilityRow]
    """Outstanding value by earning month, then by expiry month. Both add up to outstanding plus debt."""
    total: LiabilityTotal
    """All outstanding value by its state."""


# --- expiring value -------------------------------------------------------------------------------------------------


class ExpiringQuery(AssetQuery, frozen=True, kw_only=True):
    """Parameters of the report on expiring value."""

    days: Annotated[int, Meta(ge=1, le=EXPIRING_DAYS_MAX)] = 30
    """Number of days to look ahead, the present day included."""
    limit: Limit = 50
    """Maximum number of members of the answer."""
    cursor: Annotated[str, Meta(max_length=200)] | None = None
    """`next_cursor` of the page of members before. Leave it out for the first page."""


class ExpiringRow(Struct, frozen=True, kw_only=True):
    """Value that expires on one day."""

    day: str
    """Day of the programme's time zone in which the value expires. What expires at a midnight expires on the day that begins with it."""
    amount: int
    """Value that expires on this day. Held value is not counted, because it does not expire while it is held."""
    paid: int
    """Paid part of `amount`."""
    promotional: int
    """Awarded part of `amount`."""


class ExpiringTotal(Struct, frozen=True, kw_only=True):
    """All value that expires in the range."""

    amount: int
    """Value that expires in the range."""
    paid: int
    """Paid part of `amount`."""
    promotional: int
    """Awarded part of `amount`."""


class ExpiringMember(Struct, frozen=True, kw_only=True):
    """Value of one wallet that expires in the range."""

    member_id: str
    """Id of the member, or of the voucher for the balance of a gift card."""
    wallet: str
    """Id of the wallet."""
    amount: int
    """Value that expires in the range."""
    expires_at: str
    """Time at which the first part of it expires, RFC 3339 in UTC."""


class Expiring(ReportHead, frozen=True, kw_only=True):
    """Value that expires in the coming days, and the members who have it."""

    days: int
    """Number of days that the report looks ahead."""
    rows: list[ExpiringRow]
    """One row per day on which value expires, the earliest first."""
    total: ExpiringTotal
    """All value that expires in the range."""
    members: list[ExpiringMember]
    """Members by the time of their first expiry. A page may be shorter than `limit` and still have a `next_cursor`."""
    next_cursor: str | None
    """Cursor of the next page of members; null at the end."""


# --- leaderboard ----------------------------------------------------------------------------------------------------


class LeaderboardQuery(AssetQuery, frozen=True, kw_only=True):
    """Parameters of the leaderboard."""

    period: Literal["month", "year", "all"] = "month"
    """`month`, `year` or `all`: the present month, the present year, or all time."""
    at: Day | None = None
    """A day of the month or year to report on. By default today."""
    by: Literal["earned", "spent"] = "earned"
    """`earned`: awards less what was taken back. `spent`: redemptions less what returned."""
    limit: Limit = 10
    """Maximum number of members."""


class LeaderboardRow(Struct, frozen=True, kw_only=True):
    """One member of a leaderboard."""

    rank: int
    """Place, from 1. Members with the same amount have the same place."""
    member_id: str
    """Id of the member. The report has no names."""
    earned: int
    """Value that the member earned in the period."""
    spent: int
    """Value that the member spent in the period."""


class Leaderboard(ReportHead, frozen=True, kw_only=True):
    """The members who earned or spent most."""

    period: str
    """Month (`2026-11`), year (`2026`) or `all`."""
    by: Literal["earned", "spent"]
    """Amount by which the members are ordered."""
    rows: list[LeaderboardRow]
    """Members, the highest amount first. Members without a positive amount are left out."""


# --- books ----------------------------------------------------------------------------------------------------------


class BooksQuery(AssetQuery, frozen=True, kw_only=True):
    """Parameters of the trial balance and of a system account."""

    at: Day | None = None
    """Day at whose beginning the balances are taken: a date, or the RFC 3339 time of its midnight. By default the present."""


class BookBalance(Struct, frozen=True, kw_only=True):
    """Balance of one account of the books."""

    account: str
    """System account such as `system:issuer`, or `wallets` for the sum of all wallets."""
    balance: int
    """Balance. That of a system account is minus what the wallets received from it."""


class BooksTrialBalance(ReportHead, frozen=True, kw_only=True):
    """Balances of the system accounts and of all wallets together. They add up to 0."""

    at: str
    """Time before which every entry is included, RFC 3339 in UTC."""
    accounts: list[BookBalance]
    """System accounts by name, then `wallets`."""
    sum: int
    """Sum of all balances. It is 0."""


class BookMovement(Struct, frozen=True, kw_only=True):
    """Signed sum of the movements of a system account that belong to one column of the roll-forward."""

    flow: str
    """Column of the roll-forward, such as `earned`."""
    amount: int
    """Signed change of the account."""


class BookAccount(ReportHead, frozen=True, kw_only=True):
    """Balance of one system account."""

    account: str
    """Name of the account."""
    at: str
    """Time before which every entry is included, RFC 3339 in UTC."""
    balance: int
    """Balance of the account."""
    rows: list[BookMovement]
    """Parts of the balance, by column of the roll-forward."""
