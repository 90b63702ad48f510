"""Reports on value. Each is read from one snapshot of the views."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, timedelta
from typing import Literal, NamedTuple

from guerdon.clock import rfc3339
from guerdon.errors import NotFound, Validation
from guerdon.ledger.models import BREAKAGE, CASH, EXCHANGE, ISSUER, MERCHANT
from guerdon.money import is_currency
from guerdon.reports.frame import ReportFrame
from guerdon.reports.money.flows import (
    FLOW_NAMES,
    WALLETS,
    FlowRow,
    Roll,
    SourceSums,
    flow_reader,
    read_before,
    read_roll_forward,
    system_balances,
    total_of,
)
from guerdon.reports.money.lots import AWAITING, read_expired, read_expiring_accounts, read_lots
from guerdon.reports.money.models import (
    BookAccount,
    BookBalance,
    BookMovement,
    BooksQuery,
    BooksTrialBalance,
    Expiring,
    ExpiringMember,
    ExpiringQuery,
    ExpiringRow,
    ExpiringTotal,
    Leaderboard,
    LeaderboardQuery,
    LeaderboardRow,
    Liability,
    LiabilityQuery,
    LiabilityRow,
    LiabilityTotal,
    RollForward,
    RollForwardCheck,
    RollForwardQuery,
    RollForwardRow,
)
from guerdon.reports.periods import DayRange, day_of, name_of
from guerdon.reports.reading import Snapshot
from guerdon.views.models import COHORT_MONTHS, RANKINGS, TOTALS

BOOK_ACCOUNTS = (ISSUER, MERCHANT, CASH, BREAKAGE, EXCHANGE, WALLETS)
"""Accounts of the books that can be read one by one."""


class ValueCost(NamedTuple):
    """Cost of outstanding value of an asset."""

    currency: str
    cost_of: Callable[[int], int]
    """Function that returns the cost of an amount if all of it is redeemed, in minor units of the currency."""
    expected: int | None
    """Cost of the part of all outstanding value that is expected to be redeemed; None without an estimate."""


CostOf = Callable[[Snapshot, str, str, int], Awaitable[ValueCost | None]]
"""Returns the cost of an asset at the end of a month for its outstanding value, or None if its points have no value."""


async def face_value(_snapshot: Snapshot, asset: str, _month: str, outstanding: int) -> ValueCost | None:
    """Return the cost of money: what is outstanding, all of which is expected to be spent. Points have no value without a setting."""
    return ValueCost(asset, int, outstanding) if is_currency(asset) else None


class MoneyReports:
    """Roll-forward, liability, expiring value, leaderboard and books."""

    def __init__(self, frame: ReportFrame, cost_of: CostOf = face_value) -> None:
        self._frame = frame
        self._cost_of = cost_of

    async def roll_forward(self, query: RollForwardQuery) -> RollForward:
        """Return what entered and left the wallets, by period.

        Raises:
            NotFound: The asset does not exist.
            Validation: The range is not acceptable.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        days = self._frame.range_of(query)
        async with self._frame.open("roll-forward", asset=query.asset, days=days, wait_for=query.wait_for) as report:
            read = flow_reader(report.snapshot, query.asset)
            rolls, before = await read_roll_forward(read, days), await read_before(read, days.after)
            is_open = days.after > self._frame.today
            totals = await _totals(report.snapshot, query.asset) if is_open else None
        closing, systems = rolls[-1].closing.amount, sum(system_balances(before).values())
        wallets = None if totals is None else totals.balance
        check = RollForwardCheck(
            closing=closing,
            system_accounts=systems,
            wallets=wallets,
            debt=None if totals is None else totals.debt,
            difference=closing + systems if wallets is None else closing - wallets,
        )
        rows = [_roll_row(roll, query.source) for roll in rolls]
        return RollForward(**report.head, rows=rows, total=_roll_total(rows), check=check)

    async def liability(self, query: LiabilityQuery) -> Liability:
        """Return outstanding value by earning month and by expiry month.

        Raises:
            NotFound: The asset does not exist.
            Validation: The day is not the first of a month, or does not exist.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        at = self._past_day(query.at)
        if at is not None and at.day != 1:
            raise Validation.at("at", "value by earning month is kept by month: send the first day of a month, or leave it out")
        async with self._frame.open("liability", asset=query.asset, wait_for=query.wait_for) as report:
            if at is not None:
                rows, total = await self._past_liability(report.snapshot, query.asset, at)
            else:
                rows, total = await self._present_liability(report.snapshot, query.asset)
        return Liability(**report.head, at=self._at_text(at, report.snapshot), rows=rows, total=total)

    async def expiring(self, query: ExpiringQuery) -> Expiring:
        """Return value that expires in the coming days, and one page of the members who have it.

        Raises:
            NotFound: The asset does not exist.
            Validation: The cursor is invalid.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        today, now_ms, calendar = self._frame.today, self._frame.clock.now_ms(), self._frame.calendar
        after = today + timedelta(days=query.days)
        times = (now_ms, calendar.midnight(after))
        days = DayRange(today, after, "day")
        async with self._frame.open("expiring", asset=query.asset, days=days, wait_for=query.wait_for) as report:
            snapshot = report.snapshot
            where = {"expires_on": {"$gte": today.isoformat(), "$lt": after.isoformat()}}
            lots = await read_lots(snapshot, query.asset, where)
            expired = await read_expired(snapshot, query.asset, now_ms)
            accounts, cursor = await read_expiring_accounts(snapshot, query.asset, times, query.limit, query.cursor)
        sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        for lot in lots:
            sums[lot.expires_on, lot.source] += lot.amount - lot.held
        for each in expired:
            day = calendar.names(each.expires_at)[0]
            if day == today.isoformat():
                sums[day, each.source] -= each.amount
        rows = [
            ExpiringRow(day=day, amount=paid + promotional, paid=paid, promotional=promotional)
            for day in sorted({day for day, _ in sums})
            if (paid := sums[day, "paid"]) + (promotional := sums[day, "promotional"]) > 0
        ]
        members = [
            ExpiringMember(member_id=each.owner, wallet=each.account, amount=each.amount, expires_at=rfc3339(each.expires_at))
            for each in accounts
        ]
        paid, promotional = sum(row.paid for row in rows), sum(row.promotional for row in rows)
        total = ExpiringTotal(amount=paid + promotional, paid=paid, promotional=promotional)
        return Expiring(**report.head, days=query.days, rows=rows, total=total, members=members, next_cursor=cursor)

    async def leaderboard(self, query: LeaderboardQuery) -> Leaderboard:
        """Return the members who earned or spent most in a period.

        Raises:
            NotFound: The asset does not exist.
            Validation: The day does not exist.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        day = self._frame.today if query.at is None else day_of(query.at, "at", self._frame.calendar)
        period = {"month": day.isoformat()[:7], "year": day.isoformat()[:4], "all": "all"}[query.period]
        async with self._frame.open("leaderboard", asset=query.asset, wait_for=query.wait_for) as report:
            where = {"version": report.snapshot.version, "asset": query.asset, "period": period, query.by: {"$gt": 0}}
            found = await (
                report.snapshot.database.raw[RANKINGS.collection]
                .find(where, session=report.snapshot.session)
                .sort([(query.by, -1), ("owner", 1)])
                .limit(query.limit)
                .to_list()
            )
        rows: list[LeaderboardRow] = []
        for place, each in enumerate(found, start=1):
            rank = rows[-1].rank if place > 1 and each[query.by] == found[place - 2][query.by] else place
            rows.append(LeaderboardRow(rank=rank, member_id=each["owner"], earned=each["earned"], spent=each["spent"]))
        return Leaderboard(**report.head, period=period, by=query.by, rows=rows)

    # --- books ------------------------------------------------------------------------------------------------------

    async def trial_balance(self, query: BooksQuery) -> BooksTrialBalance:
        """Return the balances of the system accounts and of all wallets.

        Raises:
            NotFound: The asset does not exist.
            Validation: The time is not the beginning of a day, or does not exist.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        at = self._past_day(query.at)
        async with self._frame.open("trial-balance", asset=query.asset, wait_for=query.wait_for) as report:
            rows = await self._flows_at(report.snapshot, query.asset, at)
            wallets = total_of(rows).amount if at else (await _totals(report.snapshot, query.asset)).balance
        balances = {**system_balances(rows), WALLETS: wallets}
        accounts = [BookBalance(account=name, balance=balance) for name, balance in balances.items()]
        return BooksTrialBalance(
            **report.head, at=self._at_text(at, report.snapshot), accounts=accounts, sum=sum(balances.values())
        )

    async def book_account(self, account: str, query: BooksQuery) -> BookAccount:
        """Return the balance of a system account, or of all wallets.

        Raises:
            NotFound: The account or the asset does not exist.
            Validation: The time is not the beginning of a day, or does not exist.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        if account not in BOOK_ACCOUNTS:
            raise NotFound(f"the books have no such account; there are {', '.join(BOOK_ACCOUNTS)}")
        at = self._past_day(query.at)
        async with self._frame.open("trial-balance", asset=query.asset, wait_for=query.wait_for) as report:
            rows = await self._flows_at(report.snapshot, query.asset, at)
        sign = 1 if account == WALLETS else -1
        sums = dict.fromkeys(FLOW_NAMES, 0)
        for row in rows:
            if account in (row.counterparty, WALLETS):
                sums[row.flow] += sign * row.sums.amount
        movements = [BookMovement(flow=flow, amount=amount) for flow, amount in sums.items() if amount]
        return BookAccount(
            **report.head,
            account=account,
            at=self._at_text(at, report.snapshot),
            balance=sum(sums.values()),
            rows=movements,
        )

    # --- inside -----------------------------------------------------------------------------------------------------

    def _past_day(self, text: str | None) -> date | None:
        """Return the day of a parameter `at`, or None for the present and the future."""
        day = None if text is None else day_of(text, "at", self._frame.calendar)
        return None if day is None or day > self._frame.today else day

    def _at_text(self, day: date | None, snapshot: Snapshot) -> str:
        return rfc3339(snapshot.as_of_ms if day is None else self._frame.calendar.midnight(day))

    async def _flows_at(self, snapshot: Snapshot, asset: str, day: date | None) -> list[FlowRow]:
        """Return all flows before a day, or up to the present."""
        return await read_before(flow_reader(snapshot, asset), date.max if day is None else day)

    async def _past_liability(self, snapshot: Snapshot, asset: str, at: date) -> tuple[list[LiabilityRow], LiabilityTotal]:
        balance = total_of(await read_before(flow_reader(snapshot, asset), at)).amount
        cost = await self._cost_of(snapshot, asset, name_of(at - timedelta(days=1), "month"), balance)
        months = await snapshot.sums(
            COHORT_MONTHS, {"asset": asset, "month": {"$lt": at.isoformat()[:7]}}, ("source", "earned_month")
        )
        left = {(row["earned_month"], row["source"]): int(row["amount"]) for row in months}
        total = LiabilityTotal(
            outstanding=balance,
            spendable=None,
            pending=None,
            waiting=None,
            held=None,
            expired=None,
            debt=None,
            balance=balance,
            maximum_cost=None if cost is None else cost.cost_of(balance),
            expected_cost=None if cost is None else cost.expected,
            cost_currency=None if cost is None else cost.currency,
        )
        return _liability_rows("earning_month", left, cost), total

    async def _present_liability(self, snapshot: Snapshot, asset: str) -> tuple[list[LiabilityRow], LiabilityTotal]:
        calendar, today = self._frame.calendar, self._frame.today.isoformat()
        totals = await _totals(snapshot, asset)
        lots = await read_lots(snapshot, asset)
        expired = await read_expired(snapshot, asset, self._frame.clock.now_ms())
        months = await snapshot.sums(COHORT_MONTHS, {"asset": asset}, ("source", "earned_month"))
        earned: defaultdict[tuple[str | None, str], int] = defaultdict(int)
        expiring: defaultdict[tuple[str | None, str], int] = defaultdict(int)
        for row in months:
            earned[row["earned_month"], row["source"]] += int(row["amount"])
        for lot in lots:
            expiring[lot.expires_on[:7] or None, lot.source] += lot.amount
        for each in expired:
            earned[each.month, each.source] -= each.amount
            expiring[calendar.names(each.expires_at)[1], each.source] -= each.amount
        written = sum(each.amount for each in expired)
        outstanding = totals.balance - totals.debt - written
        cost = await self._cost_of(snapshot, asset, today[:7], outstanding)
        waiting = sum(lot.amount for lot in lots if lot.available_on == AWAITING)
        pending = sum(lot.amount for lot in lots if lot.available_on != AWAITING and lot.available_on > today)
        total = LiabilityTotal(
            outstanding=outstanding,
            spendable=outstanding - pending - waiting - totals.held,
            pending=pending,
            waiting=waiting,
            held=totals.held,
            expired=written,
            debt=totals.debt,
            balance=totals.balance,
            maximum_cost=None if cost is None else cost.cost_of(outstanding),
            expected_cost=None if cost is None else cost.expected,
            cost_currency=None if cost is None else cost.currency,
        )
        return [*_liability_rows("earning_month", earned, cost), *_liability_rows("expiry_month", expiring, cost)], total


class Totals(NamedTuple):
    """Present state of all wallets of an asset."""

    balance: int = 0
    held: int = 0
    debt: int = 0


async def _totals(snapshot: Snapshot, asset: str) -> Totals:
    rows = await snapshot.sums(TOTALS, {"asset": asset}, ("asset",))
    return Totals(*(rows[0][name] for name in Totals._fields)) if rows else Totals()


def _roll_row(roll: Roll, source: str | None) -> RollForwardRow:
    return RollForwardRow(
        period=roll.period,
        opening=_of(roll.opening, source),
        earned=_of(roll.flows["earned"], source),
        loaded=_of(roll.flows["loaded"], source),
        restored=_of(roll.flows["restored"], source),
        redeemed=-_of(roll.flows["redeemed"], source),
        expired=-_of(roll.flows["expired"], source),
        clawed_back=-_of(roll.flows["clawed_back"], source),
        adjusted=_of(roll.flows["adjusted"], source),
        transferred=_of(roll.flows["transferred"], source),
        closing=_of(roll.closing, source),
        closing_paid=0 if source == "promotional" else roll.closing.paid,
        closing_promotional=0 if source == "paid" else roll.closing.promotional,
    )


def _of(sums: SourceSums, source: str | None) -> int:
    return sums.paid if source == "paid" else sums.promotional if source == "promotional" else sums.amount


def _roll_total(rows: list[RollForwardRow]) -> RollForwardRow:
    return RollForwardRow(
        period="total",
        opening=rows[0].opening,
        earned=sum(row.earned for row in rows),
        loaded=sum(row.loaded for row in rows),
        restored=sum(row.restored for row in rows),
        redeemed=sum(row.redeemed for row in rows),
        expired=sum(row.expired for row in rows),
        clawed_back=sum(row.clawed_back for row in rows),
        adjusted=sum(row.adjusted for row in rows),
        transferred=sum(row.transferred for row in rows),
        closing=rows[-1].closing,
        closing_paid=rows[-1].closing_paid,
        closing_promotional=rows[-1].closing_promotional,
    )


def _liability_rows(
    by: Literal["earning_month", "expiry_month"], left: Mapping[tuple[str | None, str], int], cost: ValueCost | None
) -> list[LiabilityRow]:
    """Return a row for each month with value that is left, in order; value that does not expire comes last."""
    months = {month for (month, _), amount in left.items() if amount}
    rows: list[LiabilityRow] = []
    for month in sorted(months, key=lambda name: (name is None, name)):
        paid, promotional = left.get((month, "paid"), 0), left.get((month, "promotional"), 0)
        maximum = None if cost is None else cost.cost_of(paid + promotional)
        rows.append(
            LiabilityRow(
                by=by, month=month, outstanding=paid + promotional, paid=paid, promotional=promotional, maximum_cost=maximum
            )
        )
    return rows
