"""Reports on offers. Steps come from the views, the stock from the ledger, and refusals from their counts."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from guerdon.database import Document
from guerdon.offers.models import left_of, stock_of
from guerdon.offers.refusals import RefusalCounts
from guerdon.offers.service import Offers
from guerdon.reports.frame import ReportFrame
from guerdon.reports.offers.figures import OfferTally, currency_of
from guerdon.reports.offers.models import (
    OfferFigures,
    OfferPeriodRow,
    OfferReport,
    OfferReportQuery,
    OfferRow,
    OffersReport,
    OffersReportQuery,
)
from guerdon.reports.periods import DayRange
from guerdon.reports.reading import Snapshot
from guerdon.views.models import DAYS, OFFERS

ROWS_MAX = 1000
"""Maximum number of offers of a report."""


class OfferReports:
    """The report on all offers, and that on one."""

    def __init__(self, frame: ReportFrame, offers: Offers, refusals: RefusalCounts) -> None:
        self._frame = frame
        self._offers = offers
        self._refusals = refusals

    async def offers(self, query: OffersReportQuery) -> OffersReport:
        """Return all offers that were ever active, newest first.

        Raises:
            Validation: The range is not acceptable.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        days = self._frame.range_of(query)
        stored = await self._offers.list_past_drafts(query.status, ROWS_MAX + 1)
        shown = stored[:ROWS_MAX]
        ids = [state.offer.id for state in shown]
        async with self._frame.open("offers", days=days, wait_for=query.wait_for) as report:
            moves, prices = await _moves(report.snapshot, ids, days), await _prices(report.snapshot, ids, days)
        found = _tallies(moves, prices, await self._refused(ids, days), "offer")
        rows = [
            OfferRow(
                offer=state.offer.id,
                name=state.offer.name,
                kind=state.offer.kind,
                status=state.offer.status,
                version=state.offer.version,
                currency=currency_of(state.offer),
                stock=stock_of(state.account),
                left=left_of(state.account),
                **found[state.offer.id].figures(),
            )
            for state in shown
        ]
        return OffersReport(**report.head, rows=rows, complete=len(stored) <= ROWS_MAX)

    async def offer(self, offer_id: str, query: OfferReportQuery) -> OfferReport:
        """Return one offer by period.

        Raises:
            NotFound: The offer does not exist.
            Validation: The range is not acceptable.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        days = self._frame.range_of(query)
        state = await self._offers.get_offer(offer_id)
        offer, account = state.offer, state.account
        async with self._frame.open("offers", days=days, wait_for=query.wait_for) as report:
            moves, prices = await _moves(report.snapshot, [offer_id], days), await _prices(report.snapshot, [offer_id], days)
        refused = await self._refused([offer_id], days)
        for row in (*moves, *prices, *refused):
            row["period"] = row["day"] if days.is_by_day else row["day"][:7]
        found, total = _tallies(moves, prices, refused, "period"), _tallies(moves, prices, refused, "offer")[offer_id]
        return OfferReport(
            **report.head,
            offer=offer.id,
            name=offer.name,
            kind=offer.kind,
            status=offer.status,
            version=offer.version,
            currency=currency_of(offer),
            stock=stock_of(account),
            left=left_of(account),
            rows=[OfferPeriodRow(period=period, **found[period].figures()) for period in days.periods],
            total=OfferFigures(**total.figures()),
        )

    async def _refused(self, ids: Sequence[str], days: DayRange) -> list[Document]:
        return await self._refusals.sums(ids, days.first.isoformat(), days.after.isoformat())


async def _moves(snapshot: Snapshot, ids: Sequence[str], days: DayRange) -> list[Document]:
    return await snapshot.sums(OFFERS, _where(ids, days), ("offer", "day", "move"))


async def _prices(snapshot: Snapshot, ids: Sequence[str], days: DayRange) -> list[Document]:
    return await snapshot.sums(DAYS, {**_where(ids, days), "kind": "redeem"}, ("offer", "day", "asset"))


def _where(ids: Sequence[str], days: DayRange) -> Document:
    return {"offer": {"$in": list(ids)}, "day": {"$gte": days.first.isoformat(), "$lt": days.after.isoformat()}}


def _tallies(
    moves: Iterable[Document], prices: Iterable[Document], refused: Iterable[Document], by: str
) -> defaultdict[str, OfferTally]:
    found: defaultdict[str, OfferTally] = defaultdict(OfferTally)
    for row in moves:
        found[row[by]].add_move(row)
    for row in prices:
        found[row[by]].add_price(row)
    for row in refused:
        found[row[by]].add_refusal(row)
    return found
