"""Wire structs of the reports on offers."""

from msgspec import Struct, field

from guerdon.offers.models import OfferKind
from guerdon.reports.models import Day, Grouping, RangeQuery, ReportHead, ReportQuery
from guerdon.types import DefinitionStatus


class OffersReportQuery(ReportQuery, frozen=True, kw_only=True):
    """Parameters of the report on all offers."""

    starts: Day | None = field(name="from", default=None)
    """First day: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default the first day of the month of the last day."""
    ends: Day | None = field(name="to", default=None)
    """Day after the last one: a date, or the RFC 3339 time of its midnight in the programme's time zone. By default tomorrow."""
    status: DefinitionStatus | None = None
    """Only offers with this status. By default all that were ever active."""

    @property
    def group(self) -> Grouping:
        """Period of the range: the report has no periods, so months allow the longest range."""
        return "month"


class OfferReportQuery(RangeQuery, frozen=True, kw_only=True):
    """Parameters of the report on one offer."""


class OfferFigures(Struct, frozen=True, kw_only=True):
    """Steps of the vouchers of an offer in a range, by the day of each step. A code with several uses counts each of them."""

    issued: int
    """Vouchers that were issued, with the codes of batches."""
    reserved: int
    """Uses that were reserved; a reservation of a gift card counts 1."""
    released: int
    """Reserved uses that were released, or whose reservation ended."""
    used: int
    """Uses. A use of a gift card in part counts 1."""
    unused: int
    """Uses that were undone."""
    loaded: int
    """Transfers from gift cards to wallets."""
    cancelled: int
    """Uses that were left on vouchers when they were cancelled; a gift card counts 1."""
    expired: int
    """Uses that were left on vouchers when they expired; a gift card counts 1."""
    use_share: float | None
    """`used` less `unused`, divided by `issued`. Null if nothing was issued. A voucher may be used after the range in which it was issued."""
    issued_amount: int
    """Money on the gift cards that were issued, in minor units of `currency`."""
    used_amount: int
    """Discounts of the uses, or money used from gift cards, in minor units of `currency`, with uses that were undone."""
    price_paid: dict[str, int]
    """By asset: amount that members paid for vouchers. The returned prices of cancelled vouchers are not subtracted."""
    refusals: dict[str, int]
    """By problem code: redemptions that were refused."""
    use_refusals: dict[str, int]
    """By problem code: reservations, uses and transfers of vouchers of the offer that were refused."""


class OfferRow(OfferFigures, frozen=True, kw_only=True):
    """One offer in a range."""

    offer: str
    """Id of the offer."""
    name: str
    """Name of the current version."""
    kind: OfferKind
    """Kind of the vouchers."""
    status: DefinitionStatus
    """Status of the offer."""
    version: int
    """Number of the current version."""
    currency: str | None
    """Currency of the amounts. Null where the value of a voucher has none."""
    stock: int | None
    """Number of vouchers that can be issued in total. Null for no limit."""
    left: int | None
    """Number of vouchers that can still be issued, now. Null for no limit."""


class OffersReport(ReportHead, frozen=True, kw_only=True):
    """All offers in a range, newest first."""

    rows: list[OfferRow]
    """One row for each offer that was ever active, also if nothing happened in the range."""
    complete: bool
    """False if there are more offers than rows; filter by `status` then."""


class OfferPeriodRow(OfferFigures, frozen=True, kw_only=True):
    """One period of an offer."""

    period: str
    """Month (`2026-11`) or day (`2026-11-22`). At the ends of the range a month has only the days of the range."""


class OfferReport(ReportHead, frozen=True, kw_only=True):
    """One offer in a range, by period."""

    offer: str
    """Id of the offer."""
    name: str
    """Name of the current version."""
    kind: OfferKind
    """Kind of the vouchers."""
    status: DefinitionStatus
    """Status of the offer."""
    version: int
    """Number of the current version."""
    currency: str | None
    """Currency of the amounts. Null where the value of a voucher has none."""
    stock: int | None
    """Number of vouchers that can be issued in total. Null for no limit."""
    left: int | None
    """Number of vouchers that can still be issued, now. Null for no limit."""
    rows: list[OfferPeriodRow]
    """One row per period, oldest first."""
    total: OfferFigures
    """The whole range."""
