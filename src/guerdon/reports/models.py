"""Wire structs that all reports share: their queries, their head, and the list of reports."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from guerdon.money import AssetCode
from guerdon.types import EXPECTED

DEFINITIONS = "/docs/reports"
"""Page with the definitions of all reports; each report has an anchor of its name."""
CSV_TYPE = "text/csv; charset=utf-8"
_DAY_WORDS = "must be a date such as 2026-11-01, or the RFC 3339 time of a midnight"
Day = Annotated[
    str,
    Meta(
        max_length=40,
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9:.Zz+-]{1,29})?$(?!\n)",
        extra={EXPECTED: _DAY_WORDS},
        examples=["2026-11-01"],
    ),
]
AwaitedTransaction = Annotated[
    str,
    Meta(
        max_length=150,
        pattern=r"^txn_[^\u0000-\u0020\u007f]{1,100}:[0-9]{1,12}$(?!\n)",
        extra={EXPECTED: "must be the id of a transaction, such as txn_mem_…:PTS:3"},
        examples=["txn_mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS:3"],
    ),
]
Grouping = Literal["day", "month"]


class ReportQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of every report."""

    wait_for: AwaitedTransaction | None = None
    """Id of a transaction that the report should include. The answer waits for it up to 2 seconds, and is `stale` if it is still missing."""


class AssetQuery(ReportQuery, frozen=True, kw_only=True):
    """Parameters of a report on one asset."""

    asset: AssetCode
    """Code of the asset."""


class RangeQuery(ReportQuery, frozen=True, kw_only=True):
    """Parameters of a report on a range of days."""

    starts: Day | None = field(name="from", default=None)
    """First day: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default the first day of the month of the last day."""
    ends: Day | None = field(name="to", default=None)
    """Day after the last one: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default tomorrow, or the day after `from` if that is later."""
    group: Grouping = "month"
    """`month` or `day`: the period of a row."""


class AssetRangeQuery(AssetQuery, frozen=True, kw_only=True):
    """Parameters of a report on one asset and a range of days."""

    starts: Day | None = field(name="from", default=None)
    """First day: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default the first day of the month of the last day."""
    ends: Day | None = field(name="to", default=None)
    """Day after the last one: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default tomorrow, or the day after `from` if that is later."""
    group: Grouping = "month"
    """`month` or `day`: the period of a row."""


class ReportHead(Struct, frozen=True, kw_only=True):
    """Head of every report. A report has `rows`, and `total` where rows add up."""

    report: str
    """Name of the report."""
    asset: str | None
    """Code of the asset; null for a report that is not about one asset."""
    scale: int | None
    """Decimal places of the asset: amounts are minor units, so 699 with the scale 2 is 6.99. Null without an asset."""
    starts: str | None = field(name="from")
    """First day of the report; null for a report on the present state."""
    ends: str | None = field(name="to")
    """Day after the last one; null for a report on the present state."""
    time_zone: str
    """IANA name of the programme's time zone, in which days and months begin."""
    as_of: str
    """Time up to which every change is included, RFC 3339 in UTC."""
    behind_seconds: float
    """Seconds from `as_of` to the answer."""
    stale: bool
    """True if the transaction of `wait_for` is not included yet."""
    view_version: int
    """Version of the definition of the views that the report was read from."""
    definition: str
    """Address of the definition of the report."""


class ReportParameter(Struct, frozen=True):
    """One query parameter of a report."""

    name: str
    """Name of the parameter."""
    required: bool
    """True if the parameter must be given."""
    description: str
    """Meaning of the parameter."""
    values: list[str]
    """The values that it may have; empty if there are too many to list."""


class ReportInfo(Struct, frozen=True):
    """A report that this service offers."""

    name: str
    """Name of the report."""
    summary: str
    """Content of the report, in one sentence."""
    path: str
    """Path of the report."""
    parameters: list[ReportParameter]
    """Query parameters of the report."""
    columns: list[str]
    """Columns of its rows, in the order of the CSV."""
    definition: str
    """Address of the definition of the report."""


class ReportList(Struct, frozen=True):
    """All reports that this service offers."""

    items: list[ReportInfo]
    """Items of the list."""
    next_cursor: None = None
    """Always null: the list is complete."""
