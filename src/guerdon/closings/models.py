"""Stored and wire structs of closed months."""

from msgspec import Struct, field
from pymongo import IndexModel

from guerdon.report_settings.models import Month
from guerdon.reports.accounting.models import BreakageFigures, DeferredFigures
from guerdon.reports.money.models import BookBalance, LiabilityRow, LiabilityTotal, RollForwardRow
from guerdon.types import PageQuery
from guerdon.verification.closings import CLOSINGS

INDEXES: dict[str, list[IndexModel]] = {CLOSINGS: []}
"""No secondary index: closed months are read by month."""


# --- stored ---------------------------------------------------------------------------------------------------------


class StoredClosing(Struct, frozen=True, kw_only=True):
    """A closed month. It is inserted once and never changed."""

    id: str = field(name="_id")
    """Month, such as `2026-11`."""
    content: str
    """Canonical JSON of `ClosingFigures`: the text that the digest is made from."""
    sha256: str
    record: int
    """Number of the record of the audit log that has the digest."""


# --- wire -----------------------------------------------------------------------------------------------------------


class ClosingCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A month to close."""

    month: Month
    """Month that has ended."""


class TrialBalanceFigures(Struct, frozen=True, kw_only=True):
    """Balances at the end of the month."""

    accounts: list[BookBalance]
    """System accounts by name, then `wallets`."""
    sum: int
    """Sum of all balances. It is 0."""


class LiabilityFigures(Struct, frozen=True, kw_only=True):
    """Outstanding value at the end of the month."""

    rows: list[LiabilityRow]
    """Outstanding value by earning month."""
    total: LiabilityTotal
    """All outstanding value."""


class AssetFigures(Struct, frozen=True, kw_only=True):
    """Figures of one asset."""

    asset: str
    """Code of the asset."""
    scale: int
    """Decimal places of the asset: amounts are minor units."""
    roll_forward: RollForwardRow
    """Roll-forward of the month."""
    liability: LiabilityFigures
    """Outstanding value at the end of the month."""
    deferred_revenue: DeferredFigures
    """Roll-forward of the deferred revenue of the month."""
    breakage: BreakageFigures
    """Cohorts and redemption rates at the end of the month."""
    trial_balance: TrialBalanceFigures
    """Balances of the books at the end of the month."""


class ClosingFigures(Struct, frozen=True, kw_only=True):
    """A closed month without its digest."""

    month: str
    """Month."""
    time_zone: str
    """IANA name of the programme's time zone, in which the month began and ended."""
    closed_at: str
    """Time of the close, RFC 3339 in UTC."""
    closed_by: str
    """Id of the caller who closed it."""
    as_of: str
    """Time up to which every change was included, RFC 3339 in UTC. It is at least 90 seconds after the end of the month."""
    view_version: int
    """Version of the views that the figures were read from."""
    checkpoint: int | None
    """Number of the newest checkpoint of the ledger; null without checkpoints."""
    previous: str | None
    """Digest of the month before; null for the first closed month."""
    assets: list[AssetFigures]
    """Figures of each asset that had value until the end of the month, by code."""


class ClosingView(ClosingFigures, frozen=True, kw_only=True):
    """A closed month. Its figures never change."""

    sha256: str
    """SHA-256 over the JSON of all other members, with sorted keys and without white space, hexadecimal. The audit log contains it."""


class ClosingSummary(Struct, frozen=True, kw_only=True):
    """A closed month in the list."""

    month: str
    """Month."""
    closed_at: str
    """Time of the close, RFC 3339 in UTC."""
    closed_by: str
    """Id of the caller who closed it."""
    view_version: int
    """Version of the views that the figures were read from."""
    checkpoint: int | None
    """Number of the newest checkpoint of the ledger; null without checkpoints."""
    previous: str | None
    """Digest of the month before; null for the first closed month."""
    sha256: str
    """Digest of the figures, hexadecimal."""


class ClosingList(Struct, frozen=True):
    """One page of closed months, newest first."""

    items: list[ClosingSummary]
    """Closed months."""
    next_cursor: str | None
    """Cursor of the next page; null on the last page."""


class ClosingQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of closed months, newest first."""
