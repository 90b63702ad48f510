"""Routes of the reports on value, and of the books."""

from typing import Any

from guerdon.errors import NotFound, ViewsNotBuilt
from guerdon.http.operation import Request, Response, operation
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.reports.frame import send_report
from guerdon.reports.money.models import (
    BookAccount,
    BooksQuery,
    BooksTrialBalance,
    Expiring,
    ExpiringQuery,
    Leaderboard,
    LeaderboardQuery,
    Liability,
    LiabilityQuery,
    RollForward,
    RollForwardQuery,
)
from guerdon.reports.money.service import MoneyReports
from guerdon.reports.registry import ReportDefinition

_ERRORS = (NotFound, ViewsNotBuilt)
_READ = scope("reports:read")
_ROLL_CSV = (
    "period,opening,earned,loaded,restored,redeemed,expired,clawed_back,adjusted,transferred,closing,closing_paid,closing_promotional,"
    "asset,scale\r\n2026-11,0,500,0,0,300,0,0,0,0,200,0,200,PTS,0\r\n"
)
_LIABILITY_CSV = "by,month,outstanding,paid,promotional,maximum_cost,asset,scale\r\nearning_month,2026-11,200,0,200,,PTS,0\r\n"
_EXPIRING_CSV = "day,amount,paid,promotional,asset,scale\r\n2026-12-31,200,0,200,PTS,0\r\n"
_LEADERBOARD_CSV = "rank,member_id,earned,spent,asset,scale\r\n1,mem_019a7f3c2d1e4b5a69788796a5b4c3d2,500,300,PTS,0\r\n"
_BOOKS_CSV = "account,balance,asset,scale\r\nsystem:issuer,-500,PTS,0\r\nsystem:merchant,300,PTS,0\r\nwallets,200,PTS,0\r\n"
_ACCOUNT_CSV = "flow,amount,asset,scale\r\nearned,-500,PTS,0\r\n"


class MoneyReportsResource:
    """`/v1/reports/roll-forward | liability | expiring | leaderboard`"""

    def __init__(self, reports: MoneyReports) -> None:
        self._reports = reports

    @operation(
        "getRollForward",
        _READ,
        tag="reports",
        query=RollForwardQuery,
        answers={200: RollForward},
        media={"text/csv": _ROLL_CSV},
        errors=_ERRORS,
    )
    async def on_get_roll_forward(self, req: Request, resp: Response) -> None:
        """Report what entered and left the wallets of an asset, by month or day. It ties to the balances to the unit.

        A report has at most 366 days or 600 months.
        """
        send_report(req, resp, await self._reports.roll_forward(read_query(req, RollForwardQuery)))

    @operation(
        "getLiability",
        _READ,
        tag="reports",
        query=LiabilityQuery,
        answers={200: Liability},
        media={"text/csv": _LIABILITY_CSV},
        errors=_ERRORS,
    )
    async def on_get_liability(self, req: Request, resp: Response) -> None:
        """Report outstanding value by earning month and by expiry month, and what it can cost."""
        send_report(req, resp, await self._reports.liability(read_query(req, LiabilityQuery)))

    @operation(
        "getExpiring",
        _READ,
        tag="reports",
        query=ExpiringQuery,
        answers={200: Expiring},
        media={"text/csv": _EXPIRING_CSV},
        errors=_ERRORS,
    )
    async def on_get_expiring(self, req: Request, resp: Response) -> None:
        """Report value that expires in the coming days by day, and the members who have it, one page at a time."""
        send_report(req, resp, await self._reports.expiring(read_query(req, ExpiringQuery)))

    @operation(
        "getLeaderboard",
        _READ,
        tag="reports",
        query=LeaderboardQuery,
        answers={200: Leaderboard},
        media={"text/csv": _LEADERBOARD_CSV},
        errors=_ERRORS,
    )
    async def on_get_leaderboard(self, req: Request, resp: Response) -> None:
        """Report the members who earned or spent most in a month, in a year or in all time. It has ids and no names."""
        send_report(req, resp, await self._reports.leaderboard(read_query(req, LeaderboardQuery)))


class BooksResource:
    """`/v1/books/trial-balance` and `/v1/books/accounts/{account}`"""

    def __init__(self, reports: MoneyReports) -> None:
        self._reports = reports

    @operation(
        "getTrialBalance",
        _READ,
        tag="reports",
        query=BooksQuery,
        answers={200: BooksTrialBalance},
        media={"text/csv": _BOOKS_CSV},
        errors=_ERRORS,
    )
    async def on_get_trial_balance(self, req: Request, resp: Response) -> None:
        """Return the balances of all system accounts and of all wallets together, which add up to 0."""
        send_report(req, resp, await self._reports.trial_balance(read_query(req, BooksQuery)))

    @operation(
        "getBookAccount",
        _READ,
        tag="reports",
        query=BooksQuery,
        answers={200: BookAccount},
        media={"text/csv": _ACCOUNT_CSV},
        errors=_ERRORS,
    )
    async def on_get_account(self, req: Request, resp: Response, account: str) -> None:
        """Return the balance of a system account such as `system:issuer`, or of `wallets`, and what it consists of."""
        send_report(req, resp, await self._reports.book_account(account, read_query(req, BooksQuery)))


def definitions(reports: MoneyReports) -> list[ReportDefinition]:
    """Return the reports on value for the registry."""
    return [
        ReportDefinition(
            "roll-forward",
            "What entered and left the wallets, by period; it ties to the balances.",
            RollForwardQuery,
            RollForward,
            reports.roll_forward,
        ),
        ReportDefinition(
            "liability",
            "Outstanding value by earning month and by expiry month, with its maximum and expected cost.",
            LiabilityQuery,
            Liability,
            reports.liability,
        ),
        ReportDefinition(
            "expiring",
            "Value that expires in the coming days, and the members who have it.",
            ExpiringQuery,
            Expiring,
            reports.expiring,
        ),
        ReportDefinition(
            "leaderboard",
            "Members who earned or spent most in a period.",
            LeaderboardQuery,
            Leaderboard,
            reports.leaderboard,
        ),
        ReportDefinition(
            "trial-balance",
            "Balances of the system accounts and of all wallets, which add up to 0.",
            BooksQuery,
            BooksTrialBalance,
            reports.trial_balance,
            path="/v1/books/trial-balance",
        ),
    ]


def routes(reports: MoneyReports) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of the reports on value."""
    resource, books = MoneyReportsResource(reports), BooksResource(reports)
    return [
        ("/v1/reports/roll-forward", resource, "roll_forward"),
        ("/v1/reports/liability", resource, "liability"),
        ("/v1/reports/expiring", resource, "expiring"),
        ("/v1/reports/leaderboard", resource, "leaderboard"),
        ("/v1/books/trial-balance", books, "trial_balance"),
        ("/v1/books/accounts/{account}", books, "account"),
    ]
