"""Reading of closed months."""

import msgspec

from guerdon.closings.models import AssetFigures, ClosingFigures, ClosingSummary, ClosingView, StoredClosing
from guerdon.database import Database, Document, Session
from guerdon.reports.accounting.models import BreakageFigures, DeferredFigures
from guerdon.verification.closings import CLOSINGS


class ClosingStore:
    """Closed months as they were stored. Reports read the figures of closed months here."""

    def __init__(self, database: Database) -> None:
        self.closings = database.collection(CLOSINGS, StoredClosing)

    async def get(self, month: str) -> StoredClosing | None:
        """Return a closed month, or None."""
        return await self.closings.get(month)

    async def last(self, session: Session | None = None) -> StoredClosing | None:
        """Return the last closed month, or None if no month is closed."""
        found = await self.closings.raw.find({}, session=session, limit=1).sort("_id", -1).to_list()
        return self.closings.decode(found[0]) if found else None

    async def last_closed(self) -> str | None:
        """Return the name of the last closed month, or None."""
        last = await self.last()
        return None if last is None else last.id

    async def list_before(self, month: str | None, limit: int) -> list[StoredClosing]:
        """Return up to `limit` closed months before `month`, newest first."""
        where: Document = {} if month is None else {"_id": {"$lt": month}}
        return await self.closings.find(where, sort=[("_id", -1)], limit=limit)

    async def breakage_of(self, month: str, asset: str) -> BreakageFigures | None:
        """Return the breakage of an asset as it was closed, or None."""
        figures = await self._asset(month, asset)
        return None if figures is None else figures.breakage

    async def deferred_revenue_of(self, month: str, asset: str) -> DeferredFigures | None:
        """Return the deferred revenue of an asset as it was closed, or None."""
        figures = await self._asset(month, asset)
        return None if figures is None else figures.deferred_revenue

    async def _asset(self, month: str, asset: str) -> AssetFigures | None:
        closing = await self.get(month)
        if closing is None:
            return None
        return next((each for each in figures_of(closing).assets if each.asset == asset), None)


def figures_of(closing: StoredClosing) -> ClosingFigures:
    """Return the figures of a closed month."""
    return msgspec.json.decode(closing.content, type=ClosingFigures)


def view_closing(closing: StoredClosing) -> ClosingView:
    """Return a closed month as the API shows it."""
    figures = figures_of(closing)
    return ClosingView(**msgspec.structs.asdict(figures), sha256=closing.sha256)


def summarise(closing: StoredClosing) -> ClosingSummary:
    figures = figures_of(closing)
    return ClosingSummary(
        month=figures.month,
        closed_at=figures.closed_at,
        closed_by=figures.closed_by,
        view_version=figures.view_version,
        checkpoint=figures.checkpoint,
        previous=figures.previous,
        sha256=closing.sha256,
    )
