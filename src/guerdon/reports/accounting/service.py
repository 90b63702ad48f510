"""Queries for the accounts: breakage, deferred revenue, and the costs of what is outstanding."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import asdict

from guerdon.report_settings.models import ReportSettings
from guerdon.report_settings.service import ReportSettingsService, settings_of
from guerdon.reports.accounting.cohorts import CohortTable, read_awarded_cohorts, read_cohorts
from guerdon.reports.accounting.deferrals import (
    Deferral,
    DeferredChange,
    allocated,
    roll_forward,
    stand_alone_price,
    total_of,
)
from guerdon.reports.accounting.estimates import (
    RATE_ONE,
    CohortHistory,
    DevelopmentFactor,
    Estimate,
    cost_of,
    development_factors,
    expected_value,
    month_name,
    month_number,
    rate_of,
    rate_text,
    realised_breakage,
    share,
    ultimate_estimates,
)
from guerdon.reports.accounting.models import (
    AccountingQuery,
    Breakage,
    BreakageFigures,
    BreakageRow,
    BreakageTotal,
    DeferredFigures,
    DeferredRevenue,
    DeferredRow,
    DeferredTotal,
    DevelopmentView,
    TriangleRow,
)
from guerdon.reports.accounting.prices import Priced, read_priced_months
from guerdon.reports.frame import ReportFrame
from guerdon.reports.periods import DayRange, month_range
from guerdon.reports.reading import Snapshot


class ClosedMonths(Protocol):
    """Figures of closed months."""

    async def breakage_of(self, month: str, asset: str) -> BreakageFigures | None:
        """Return the breakage of an asset as it was closed; None if the month is not closed, or closed without the asset."""
        ...

    async def deferred_revenue_of(self, month: str, asset: str) -> DeferredFigures | None:
        """Return the deferred revenue of an asset as it was closed, or None."""
        ...


class OutstandingCosts(Struct, frozen=True):
    """Cost of the value that is outstanding, by the month in which it was earned."""

    settings: ReportSettings | None
    """Settings that apply to the month, or None."""
    expected: Mapping[str, int]
    """Cost of the part that is expected to be redeemed, in minor units of the currency of the settings."""


class Accounting:
    """Reports for the accounts."""

    def __init__(self, frame: ReportFrame, settings: ReportSettingsService, closed: ClosedMonths) -> None:
        self._frame = frame
        self._settings = settings
        self._closed = closed

    # --- reports ----------------------------------------------------------------------------------------------------

    async def report_breakage(self, query: AccountingQuery) -> Breakage:
        """Return the breakage of an asset at the end of a month.

        Raises:
            NotFound: the asset does not exist.
            ViewsNotBuilt: no version of the views is complete yet.
        """
        month, days = self._month_of(query)
        async with self._frame.open("breakage", asset=query.asset, days=days, wait_for=query.wait_for) as report:
            figures = await self._closed.breakage_of(month, query.asset)
            status = "open" if figures is None else "closed"
            if figures is None:
                figures = await self.compute_breakage(report.snapshot, query.asset, month)
            return Breakage(**report.head, month=month, status=status, **asdict(figures))

    async def report_deferred_revenue(self, query: AccountingQuery) -> DeferredRevenue:
        """Return the roll-forward of the deferred revenue of an asset in a month.

        Raises:
            NotFound: the asset does not exist.
            ViewsNotBuilt: no version of the views is complete yet.
        """
        month, days = self._month_of(query)
        async with self._frame.open("deferred-revenue", asset=query.asset, days=days, wait_for=query.wait_for) as report:
            figures = await self._closed.deferred_revenue_of(month, query.asset)
            status = "open" if figures is None else "closed"
            if figures is None:
                figures = await self.compute_deferred_revenue(report.snapshot, query.asset, month)
            return DeferredRevenue(
                **report.head,
                month=month,
                status=status,
                currency=figures.currency,
                settings_version=figures.settings_version,
                rows=figures.rows or [_no_row(month)],
                total=figures.total,
            )

    def _month_of(self, query: AccountingQuery) -> tuple[str, DayRange]:
        month = query.month or self._present_month
        return month, month_range(month)

    @property
    def _present_month(self) -> str:
        return self._frame.today.isoformat()[:7]

    # --- figures ----------------------------------------------------------------------------------------------------

    async def compute_breakage(self, snapshot: Snapshot, asset: str, month: str) -> BreakageFigures:
        """Return the breakage of an asset at the end of a month, from the views."""
        settings = settings_of(await self._settings.list_versions(asset), month)
        table = await read_cohorts(snapshot, asset, month)
        histories = table.histories(min(month, self._present_month))
        factors = development_factors(histories)
        estimates = ultimate_estimates(histories, factors)
        override = None if settings is None or settings.redemption_rate is None else rate_of(settings.redemption_rate)
        rows = [_breakage_row(each, estimate, override) for each, estimate in zip(histories, estimates, strict=True)]
        return BreakageFigures(
            rows=rows,
            total=_breakage_total(rows),
            triangle=[TriangleRow(month=each.month, redeemed=list(each.redeemed)) for each in histories],
            factors=[_view_factor(factor) for factor in factors],
            override=None if override is None else rate_text(override),
            settings_version=None if settings is None else settings.version,
        )

    async def compute_deferred_revenue(self, snapshot: Snapshot, asset: str, month: str) -> DeferredFigures:
        """Return the deferred revenue of an asset in a month, from the views and the month close before it.

        The figures of every month of award are derived again. What differs from the close of the month before, such as purchases that were
        recorded late, is part of this month.
        """
        versions = await self._settings.list_versions(asset)
        settings = settings_of(versions, month)
        if settings is None:
            return DeferredFigures(currency=None, settings_version=None, rows=[], total=DeferredTotal())
        previous = month_name(month_number(month) - 1)
        closed = await self._closed.deferred_revenue_of(previous, asset)
        books = _DeferralBook(
            await read_cohorts(snapshot, asset, month),
            await read_awarded_cohorts(snapshot, asset, month),
            await read_priced_months(snapshot, asset, month, settings.currency),
            versions=versions,
            present=self._present_month,
        )
        before = {row.month: _deferral_of(row) for row in closed.rows} if closed is not None else books.deferrals(previous)
        rows = [
            _deferred_row(deferral, roll_forward(before.get(earned), deferral), books.priced_of(earned), books.rate(earned, earned))
            for earned, deferral in books.deferrals(month).items()
        ]
        return DeferredFigures(
            currency=settings.currency,
            settings_version=settings.version,
            rows=rows,
            total=DeferredTotal(**{name: sum(getattr(row, name) for row in rows) for name in DeferredTotal.__struct_fields__}),
        )

    async def compute_costs(self, snapshot: Snapshot, asset: str, month: str) -> OutstandingCosts:
        """Return the expected cost of what is outstanding at the end of a month."""
        versions = await self._settings.list_versions(asset)
        settings = settings_of(versions, month)
        if settings is None:
            return OutstandingCosts(None, {})
        at = min(month, self._present_month)
        histories = (await read_cohorts(snapshot, asset, month)).histories(at)
        rates = _rates(histories, settings)
        return OutstandingCosts(
            settings,
            {each.month: cost_of(expected_value(each, rates[each.month]), settings.cost) for each in histories},
        )


# --- deferred revenue -----------------------------------------------------------------------------------------------


class _DeferralBook:
    """Deferred revenue of every month of award, at the end of any month."""

    def __init__(
        self,
        cohorts: CohortTable,
        awarded: CohortTable,
        priced: Mapping[str, Priced],
        *,
        versions: Sequence[ReportSettings],
        present: str,
    ) -> None:
        self._cohorts = cohorts
        self._awarded = awarded
        self._priced = priced
        self._versions = versions
        self._present = present
        self._rates: dict[str, Mapping[str, int]] = {}

    def priced_of(self, earned: str) -> Priced:
        return self._priced.get(earned, Priced())

    def rate(self, earned: str, month: str) -> int:
        """Return the ultimate redemption rate of the value of the month `earned`, as it was estimated at the end of `month`."""
        rates = self._rates.get(month)
        if rates is None:
            histories = self._cohorts.histories(min(month, self._present))
            rates = self._rates[month] = _rates(histories, settings_of(self._versions, month))
        return rates.get(earned, 0)

    def deferrals(self, month: str) -> dict[str, Deferral]:
        """Return the deferred revenue of each month of award up to `month`, as it was at the end of it."""
        at = min(month, self._present)
        return {earned: self._deferral(earned, month, at) for earned in self._awarded.months if earned <= at}

    def _deferral(self, earned: str, month: str, at: str) -> Deferral:
        first, state, settings = (
            self._awarded.state(earned, earned),
            self._awarded.state(earned, at),
            settings_of(self._versions, earned),
        )
        initial, priced = 0, self.priced_of(earned)
        if settings is not None:
            price = stand_alone_price(priced.points, settings.value, self.rate(earned, earned))
            initial = allocated(priced.goods, price)
        return Deferral(
            month=earned,
            initial_points=first.issued,
            initial=initial,
            points=state.issued,
            redeemed=state.redeemed,
            expired=state.expired,
            transferred=state.transferred,
            rate=self.rate(earned, month),
        )


def _rates(histories: Sequence[CohortHistory], settings: ReportSettings | None) -> dict[str, int]:
    """Return the ultimate redemption rate of each cohort: that of the settings, or the estimate."""
    if settings is not None and settings.redemption_rate is not None:
        return {each.month: rate_of(settings.redemption_rate) for each in histories}
    estimates = ultimate_estimates(histories, development_factors(histories))
    return {each.month: estimate.rate for each, estimate in zip(histories, estimates, strict=True)}


def _deferred_row(deferral: Deferral, change: DeferredChange, priced: Priced, initial_rate: int) -> DeferredRow:
    return DeferredRow(
        **asdict(change),
        month=deferral.month,
        points=deferral.points,
        redeemed=deferral.redeemed,
        expired=deferral.expired,
        transferred=deferral.transferred,
        ultimate_rate=rate_text(deferral.rate),
        expected=deferral.expected,
        goods=priced.goods,
        priced_points=priced.points,
        free_points=priced.free_points,
        initial_points=deferral.initial_points,
        initial_rate=rate_text(initial_rate),
        allocated=deferral.initial,
    )


def _deferral_of(row: DeferredRow) -> Deferral:
    """Return the state that a closed row was made from."""
    return Deferral(
        month=row.month,
        initial_points=row.initial_points,
        initial=row.allocated,
        points=row.points,
        redeemed=row.redeemed,
        expired=row.expired,
        transferred=row.transferred,
        rate=rate_of(row.ultimate_rate),
    )


def _no_row(month: str) -> DeferredRow:
    empty = Deferral(month=month, initial_points=0, initial=0, points=0, redeemed=0, expired=0, rate=0)
    return _deferred_row(empty, total_of([]), Priced(), 0)


# --- breakage -------------------------------------------------------------------------------------------------------


def _breakage_row(history: CohortHistory, estimate: Estimate, override: int | None) -> BreakageRow:
    rate = estimate.rate if override is None else override
    realised = realised_breakage(history)
    return BreakageRow(
        month=history.month,
        issued=history.issued,
        redeemed=history.redeemed_to_date,
        expired=history.expired,
        outstanding=history.outstanding,
        redemption_rate=rate_text(share(history.redeemed_to_date, history.issued)),
        chain_ladder_rate=rate_text(estimate.rate) if estimate.by_chain_ladder else None,
        ultimate_rate=rate_text(rate),
        breakage_rate=rate_text(RATE_ONE - rate),
        realised_breakage=None if realised is None else rate_text(realised),
        expected_redemption=expected_value(history, rate),
    )


def _breakage_total(rows: Sequence[BreakageRow]) -> BreakageTotal:
    issued, redeemed, expired, outstanding, expected = (
        sum(getattr(row, name) for row in rows) for name in BreakageTotal.__struct_fields__[:-1]
    )
    return BreakageTotal(
        issued=issued,
        redeemed=redeemed,
        expired=expired,
        outstanding=outstanding,
        expected_redemption=expected,
        ultimate_rate=rate_text(share(redeemed + expected, issued)),
    )


def _view_factor(factor: DevelopmentFactor) -> DevelopmentView:
    return DevelopmentView(age=factor.age, earlier=factor.earlier, later=factor.later)
