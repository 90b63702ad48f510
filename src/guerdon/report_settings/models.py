"""Stored and wire structs of the settings of reports."""

from fractions import Fraction
from typing import Annotated

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.campaigns.models import Decimal
from guerdon.clock import rfc3339
from guerdon.events.models import Currency
from guerdon.types import EXPECTED

REPORT_SETTINGS = "report_settings"
INDEXES: dict[str, list[IndexModel]] = {REPORT_SETTINGS: []}
"""No secondary index: the versions of an asset have consecutive ids."""
VERSIONS_MAX = 1000
"""Maximum number of versions of the settings of one asset."""
NUMBER_DIGITS = 4

Month = Annotated[
    str,
    Meta(
        pattern=r"^(?:19[7-9][0-9]|[2-8][0-9]{3})-(?:0[1-9]|1[0-2])$(?!\n)",
        extra={EXPECTED: "must be a month of the years 1970 to 8999, such as 2026-11"},
        description="Month of the programme's time zone.",
        examples=["2026-11"],
    ),
]
RedemptionRate = Annotated[
    str,
    Meta(
        max_length=8,
        pattern=r"^(?:0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?)$(?!\n)",
        extra={EXPECTED: 'must be a decimal from 0 to 1 with at most six places, such as "0.97"'},
        description="Share from 0 to 1.",
        examples=["0.97"],
    ),
]


# --- stored ---------------------------------------------------------------------------------------------------------


class ReportSettings(Struct, frozen=True, kw_only=True):
    """One version of the settings of an asset."""

    id: str = field(name="_id")
    """`{asset}/{version}`, with the version in four digits."""
    asset: str
    version: int
    valid_from: str
    """First month that the version applies to."""
    currency: str
    value_per_point: str
    cost_per_point: str
    redemption_rate: str | None
    created_at: int
    created_by: str

    @property
    def value(self) -> Fraction:
        """Stand-alone value of one minor unit of the asset in minor units of the currency."""
        return Fraction(self.value_per_point)

    @property
    def cost(self) -> Fraction:
        """Cost of one minor unit of the asset in minor units of the currency."""
        return Fraction(self.cost_per_point)


# --- wire -----------------------------------------------------------------------------------------------------------


class ReportSettingsSet(Struct, frozen=True, forbid_unknown_fields=True):
    """Value and cost of a minor unit of an asset in the reports, from a month on."""

    currency: Currency
    """Currency of the value, the cost and of the purchases that the price is allocated from: three letters."""
    value_per_point: Decimal
    """Stand-alone selling price of one minor unit of the asset if it is certain to be redeemed, in minor units of the currency: what a customer would
    pay for what it buys. The reports multiply it by the expected redemption rate."""
    cost_per_point: Decimal
    """Cost of redeeming one minor unit of the asset, in minor units of the currency."""
    redemption_rate: RedemptionRate | None = None
    """Share of the issued value that is expected to be redeemed in total. It replaces the estimate by chain ladder; null uses the estimate."""
    valid_from: Month | None = None
    """First month that these settings apply to, by default the present one. It must not be closed."""


class ReportSettingsView(Struct, frozen=True, kw_only=True):
    """Settings of the reports on an asset."""

    asset: str
    """Code of the asset."""
    version: int
    """Number of the version, from 1. Every change makes a new one."""
    valid_from: str
    """First month that this version applies to. For a month, the version with the latest `valid_from` applies; of several, the newest."""
    currency: str
    """Currency of the value and the cost."""
    value_per_point: str
    """Stand-alone selling price of one minor unit of the asset, in minor units of the currency."""
    cost_per_point: str
    """Cost of redeeming one minor unit of the asset, in minor units of the currency."""
    redemption_rate: str | None
    """Share of the issued value that is expected to be redeemed in total; null if the reports estimate it."""
    created_at: str
    """Time of this version, RFC 3339 in UTC."""
    created_by: str
    """Id of the caller who set it."""


class ReportSettingsList(Struct, frozen=True):
    """All versions of the settings of an asset, newest first."""

    items: list[ReportSettingsView]
    """Versions."""
    next_cursor: None = None
    """Always null: the list is complete."""


class ReportSettingsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Month of the settings."""

    month: Month | None = None
    """Month that the settings apply to, by default the present one."""


def settings_id(asset: str, version: int) -> str:
    return f"{asset}/{version:0{NUMBER_DIGITS}}"


def view_settings(settings: ReportSettings) -> ReportSettingsView:
    return ReportSettingsView(
        asset=settings.asset,
        version=settings.version,
        valid_from=settings.valid_from,
        currency=settings.currency,
        value_per_point=settings.value_per_point,
        cost_per_point=settings.cost_per_point,
        redemption_rate=settings.redemption_rate,
        created_at=rfc3339(settings.created_at),
        created_by=settings.created_by,
    )
