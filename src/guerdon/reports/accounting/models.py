"""Wire structs of the reports for the accounts. Rates are decimals in text."""

from typing import Literal

from msgspec import Struct

from guerdon.report_settings.models import Month
from guerdon.reports.models import AssetQuery, ReportHead

MonthStatus = Literal["closed", "open"]


class AccountingQuery(AssetQuery, frozen=True, kw_only=True):
    """Parameters of a report on one asset at the end of a month."""

    month: Month | None = None
    """Month at whose end the figures are taken; for the present month, as they are now. By default the present month."""


class DevelopmentView(Struct, frozen=True, kw_only=True):
    """Growth of redeemed value from one age to the next, over the cohorts that are old enough."""

    age: int
    """Age in months from which the value grows; 0 is the month in which it was earned."""
    earlier: int
    """Value that these cohorts had redeemed at this age."""
    later: int
    """Value that the same cohorts had redeemed one month later."""


class TriangleRow(Struct, frozen=True, kw_only=True):
    """Redeemed value of one cohort by age."""

    month: str
    """Month in which the value was earned."""
    redeemed: list[int]
    """Value that was redeemed up to the end of each age in months: the month of earning first."""


class BreakageRow(Struct, frozen=True, kw_only=True):
    """Value that was earned in one month, and the share of it that is expected to be redeemed."""

    month: str
    """Month in which the value was earned."""
    issued: int
    """Value that was earned, less what was taken back, adjusted or went to other wallets."""
    redeemed: int
    """Value that was redeemed, less what was restored."""
    expired: int
    """Value that expired."""
    outstanding: int
    """Value that is left."""
    redemption_rate: str
    """`redeemed / issued` to date."""
    chain_ladder_rate: str | None
    """Ultimate redemption rate by chain ladder; null while there is nothing to estimate from."""
    ultimate_rate: str
    """Ultimate redemption rate that the reports use: that of the settings, else the one by chain ladder, else all that has not expired."""
    breakage_rate: str
    """1 - `ultimate_rate`: the share that is expected never to be redeemed."""
    realised_breakage: str | None
    """`expired / issued` if nothing is left; null for other cohorts."""
    expected_redemption: int
    """Part of `outstanding` that is expected to be redeemed."""


class BreakageTotal(Struct, frozen=True, kw_only=True):
    """All cohorts together."""

    issued: int = 0
    """Value that was earned."""
    redeemed: int = 0
    """Value that was redeemed."""
    expired: int = 0
    """Value that expired."""
    outstanding: int = 0
    """Value that is left."""
    expected_redemption: int = 0
    """Part of `outstanding` that is expected to be redeemed."""
    ultimate_rate: str = "0"
    """(`redeemed` + `expected_redemption`) / `issued`."""


class BreakageFigures(Struct, frozen=True, kw_only=True):
    """Figures of the breakage of an asset at the end of a month."""

    rows: list[BreakageRow]
    """One row per cohort, oldest first."""
    total: BreakageTotal
    """All cohorts together."""
    triangle: list[TriangleRow]
    """Redemption triangle: one row per cohort, one column per age."""
    factors: list[DevelopmentView]
    """Development factors `later / earlier` by age."""
    override: str | None
    """Ultimate redemption rate of the settings, which replaces the estimate; null without one."""
    settings_version: int | None
    """Version of the settings that apply to the month; null without settings."""


class Breakage(ReportHead, frozen=True, kw_only=True):
    """Cohorts of an asset, their redemption triangle and the ultimate redemption rate by chain ladder."""

    month: str
    """Month at whose end the figures are taken."""
    status: MonthStatus
    """`closed`: the figures are those of the month close. `open`: they may change."""
    rows: list[BreakageRow]
    """One row per cohort, oldest first."""
    total: BreakageTotal
    """All cohorts together."""
    triangle: list[TriangleRow]
    """Redemption triangle: one row per cohort, one column per age."""
    factors: list[DevelopmentView]
    """Development factors `later / earlier` by age."""
    override: str | None
    """Ultimate redemption rate of the settings, which replaces the estimate; null without one."""
    settings_version: int | None
    """Version of the settings that apply to the month; null without settings."""


class DeferredTotal(Struct, frozen=True, kw_only=True):
    """Roll-forward: closing = opening + deferred - reversed - recognised_by_redemption - recognised_by_expiry + change_of_estimate."""

    opening: int = 0
    """Contract liability at the beginning of the month, in minor units of the currency."""
    deferred: int = 0
    """Price that was allocated to awarded value, and later corrections of it."""
    reversed: int = 0
    """Part of it that was allocated to value which was taken back."""
    recognised_by_redemption: int = 0
    """Revenue of what was redeemed, with its share of breakage."""
    recognised_by_expiry: int = 0
    """Revenue of what expired beyond the estimate."""
    change_of_estimate: int = 0
    """Change of the liability because more (positive) or less (negative) is expected to be redeemed of what was redeemed before: the
    cumulative catch-up."""
    closing: int = 0
    """Contract liability at the end of the month."""


class DeferredRow(DeferredTotal, frozen=True, kw_only=True):
    """Deferred revenue of the value that was awarded in one month."""

    month: str
    """Month in which the value was awarded."""
    points: int
    """Awarded value, less what was taken back."""
    redeemed: int
    """Value that was redeemed."""
    expired: int
    """Value that expired."""
    transferred: int
    """Value that went to other wallets or was exchanged. It is expected to be redeemed as the rest is."""
    ultimate_rate: str
    """Share of it that is expected to be redeemed in total."""
    expected: int
    """Value, without what was transferred, that is expected to be redeemed in total."""
    goods: int
    """Amount of the purchases that earned this value, in minor units of the currency."""
    priced_points: int
    """Value that was awarded in that month for these purchases."""
    free_points: int
    """Value that was awarded in that month without a purchase in the currency. No price is allocated to it."""
    initial_points: int
    """Awarded value at the end of that month."""
    initial_rate: str
    """Ultimate redemption rate at the end of that month."""
    allocated: int
    """Price that was allocated at the end of that month: goods * P / (goods + P), with P = priced_points * value per point * initial_rate."""


class DeferredFigures(Struct, frozen=True, kw_only=True):
    """Figures of the deferred revenue of an asset in a month."""

    currency: str | None
    """Currency of all amounts of money; null without settings."""
    settings_version: int | None
    """Version of the settings that apply to the month; null without settings: then nothing is deferred."""
    rows: list[DeferredRow]
    """One row per month of award, oldest first."""
    total: DeferredTotal
    """All of them together."""


class DeferredRevenue(ReportHead, frozen=True, kw_only=True):
    """Roll-forward of deferred revenue by IFRS 15 and ASC 606."""

    month: str
    """Month of the roll-forward."""
    status: MonthStatus
    """`closed`: the figures are those of the month close. `open`: they may change."""
    currency: str | None
    """Currency of all amounts of money; null without settings."""
    settings_version: int | None
    """Version of the settings that apply to the month; null without settings: then nothing is deferred."""
    rows: list[DeferredRow]
    """One row per month of award, oldest first; one row of zeros if nothing was awarded."""
    total: DeferredTotal
    """All of them together."""
