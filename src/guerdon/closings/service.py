"""Commands and queries on closed months."""

import asyncio
import re

import msgspec

from guerdon.audit_log.service import AuditLog
from guerdon.calendar import Calendar
from guerdon.clock import Clock, rfc3339
from guerdon.closings.models import (
    AssetFigures,
    ClosingFigures,
    ClosingQuery,
    LiabilityFigures,
    StoredClosing,
    TrialBalanceFigures,
)
from guerdon.closings.store import ClosingStore
from guerdon.database import Database, PyMongoError, may_try_again
from guerdon.errors import ClosingOrder, DatabaseUnavailable, MonthNotOver, NotFound, ViewsBehind
from guerdon.http.cursor import decode_text, encode_cursor
from guerdon.proofs import canonical
from guerdon.reports.accounting.estimates import month_name, month_number
from guerdon.reports.accounting.service import Accounting
from guerdon.reports.frame import ReportFrame
from guerdon.reports.money.models import BooksQuery, LiabilityQuery, RollForwardQuery
from guerdon.reports.money.service import MoneyReports
from guerdon.reports.reading import Snapshot
from guerdon.verification import checkpoints
from guerdon.verification.closings import MONTH_CLOSED, digest_of_text
from guerdon.views.models import TOTALS

SETTLED_MS = checkpoints.AGE_MS
"""Time after the end of a month until which entries of the month may still be committed, in milliseconds."""
ATTEMPTS_MAX, BACKOFF_SECONDS = 20, 0.02
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}\Z")
RETRY_SECONDS = 5
"""Seconds after which a close that the views have not reached can be tried again."""


class Closings:
    """The month close."""

    def __init__(
        self,
        store: ClosingStore,
        frame: ReportFrame,
        money: MoneyReports,
        accounting: Accounting,
        *,
        database: Database,
        audit: AuditLog,
    ) -> None:
        self._store = store
        self._frame = frame
        self._money = money
        self._accounting = accounting
        self._database = database
        self._audit = audit

    @property
    def _calendar(self) -> Calendar:
        return self._frame.calendar

    @property
    def _clock(self) -> Clock:
        return self._frame.clock

    # --- commands ---------------------------------------------------------------------------------------------------

    async def close(self, actor: str, month: str, request_id: str) -> tuple[StoredClosing, bool]:
        """Freeze the figures of a month. Return the closed month, and False if it was closed before.

        Raises:
            MonthNotOver: the month, and the 90 seconds after it, have not passed.
            ClosingOrder: another month has to be closed first.
            ViewsBehind: the views do not contain all entries of the month yet.
            ViewsNotBuilt: no version of the views is complete yet.
            DatabaseUnavailable: the database did not commit in time; nothing was closed.
        """
        closed = await self._store.get(month)
        if closed is not None:
            return closed, False
        needed_ms = self._ends_at(month) + SETTLED_MS
        if self._clock.now_ms() < needed_ms:
            raise MonthNotOver(
                f"{month} can be closed from {rfc3339(needed_ms)} on, 90 seconds after its end in {self._calendar.zone.key}",
                month=month,
                closable_at=rfc3339(needed_ms),
            )
        previous = await self._store.last()
        _require_order(month, previous)
        async with self._frame.views.open() as snapshot:
            if snapshot.as_of_ms < needed_ms:
                raise ViewsBehind(
                    f"the views contain everything up to {rfc3339(snapshot.as_of_ms)}; {month} needs {rfc3339(needed_ms)}",
                    retry_after_seconds=RETRY_SECONDS,
                    as_of=rfc3339(snapshot.as_of_ms),
                    needed=rfc3339(needed_ms),
                )
            figures = ClosingFigures(
                month=month,
                time_zone=self._calendar.zone.key,
                closed_at=rfc3339(self._clock.now_ms()),
                closed_by=actor,
                as_of=rfc3339(snapshot.as_of_ms),
                view_version=snapshot.version,
                checkpoint=await checkpoints.newest_number(self._database),
                previous=None if previous is None else previous.sha256,
                assets=[
                    figures
                    for asset in await _assets_of(snapshot)
                    if (figures := await self._figures_of(snapshot, asset, month)) is not None
                ],
            )
        return await self._store_once(figures, request_id)

    async def _insert(self, figures: ClosingFigures, content: str, sha256: str, request_id: str) -> StoredClosing:
        """Insert a closed month and its record of the audit log in one transaction.

        The record makes concurrent closes of different months conflict, so that no two of them follow the same month.

        Raises:
            ClosingOrder: another month was closed meanwhile.
        """
        async with self._database.transaction() as session:
            last = await self._store.last(session)
            _require_order(figures.month, last)
            if figures.previous != (None if last is None else last.sha256):
                raise ClosingOrder(
                    "another month was closed at the same time; try again", month=figures.month, next=_next(last, figures.month)
                )
            record = await self._audit.append_in(
                session,
                figures.closed_by,
                MONTH_CLOSED,
                {"month": figures.month},
                request_id=request_id,
                facts={"sha256": sha256},
            )
            closing = StoredClosing(id=figures.month, content=content, sha256=sha256, record=record.id)
            await self._store.closings.insert(closing, session)
            return closing

    async def _store_once(self, figures: ClosingFigures, request_id: str) -> tuple[StoredClosing, bool]:
        """Store a closed month. Return the one that was committed first, and False if that is another one."""
        content = canonical(msgspec.to_builtins(figures)).decode()
        sha256 = digest_of_text(content)
        for attempt in range(ATTEMPTS_MAX):
            try:
                return await self._insert(figures, content, sha256, request_id), True
            except (PyMongoError, ClosingOrder) as error:
                committed = await self._store.get(figures.month)
                if committed is not None:
                    # The reply to our own commit may have been lost.
                    record = await self._audit.get(committed.record)
                    return committed, record is not None and record.request_id == request_id
                if isinstance(error, ClosingOrder) or not may_try_again(error):
                    raise
                await asyncio.sleep(BACKOFF_SECONDS * (attempt + 1))
        raise DatabaseUnavailable("the database did not commit in time; nothing was closed", retry_after_seconds=1)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_closing(self, month: str) -> StoredClosing:
        """Return a closed month.

        Raises:
            NotFound: the month is not closed.
        """
        closing = await self._store.get(month)
        if closing is None:
            raise NotFound(f"{month[:20]!r} is not a closed month; POST /v1/closings closes one")
        return closing

    async def list_closings(self, query: ClosingQuery) -> tuple[list[StoredClosing], str | None]:
        """Return one page of closed months, newest first, and the cursor of the next page.

        Raises:
            Validation: the cursor was not returned by this list.
        """
        before = None if query.cursor is None else decode_text(query.cursor, _MONTH)
        found = await self._store.list_before(before, query.limit + 1)
        page = found[: query.limit]
        return page, encode_cursor(page[-1].id) if len(found) > query.limit else None

    # --- figures ----------------------------------------------------------------------------------------------------

    def _ends_at(self, month: str) -> int:
        return self._calendar.month_bounds(int(month[:4]), int(month[5:]))[1]

    async def _figures_of(self, snapshot: Snapshot, asset: str, month: str) -> AssetFigures | None:
        """Return the figures of an asset, or None if it has had no value until the end of the month.

        Entries of a month that has passed cannot change, so each report may have a snapshot of its own.
        """
        breakage = await self._accounting.compute_breakage(snapshot, asset, month)
        if not breakage.rows:
            return None
        first, after = f"{month}-01", f"{month_name(month_number(month) + 1)}-01"
        roll = await self._money.roll_forward(RollForwardQuery(asset=asset, starts=first, ends=after))
        liability = await self._money.liability(LiabilityQuery(asset=asset, at=after))
        books = await self._money.trial_balance(BooksQuery(asset=asset, at=after))
        return AssetFigures(
            asset=asset,
            scale=await self._frame.scale_of(asset),
            roll_forward=roll.rows[0],
            liability=LiabilityFigures(rows=liability.rows, total=liability.total),
            deferred_revenue=await self._accounting.compute_deferred_revenue(snapshot, asset, month),
            breakage=breakage,
            trial_balance=TrialBalanceFigures(accounts=books.accounts, sum=books.sum),
        )


async def _assets_of(snapshot: Snapshot) -> list[str]:
    """Return the assets that have had value."""
    return sorted(row["asset"] for row in await snapshot.sums(TOTALS, {}, ("asset",)))


def _require_order(month: str, last: StoredClosing | None) -> None:
    """Check that a month follows the last closed one. The first closed month may be any.

    Raises:
        ClosingOrder: another month has to be closed first, or the month is before the first closed one.
    """
    following = _next(last, month)
    if month > following:
        raise ClosingOrder(f"close {following} first: months are closed in their order", month=month, next=following)
    if month < following:
        raise ClosingOrder(
            f"{month} is before the first closed month and can no longer be closed; the next month to close is {following}",
            month=month,
            next=following,
        )


def _next(last: StoredClosing | None, first: str) -> str:
    """Return the month that can be closed next; `first` if no month is closed."""
    return first if last is None else month_name(month_number(last.id) + 1)
