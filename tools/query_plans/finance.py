"""Queries of the settings of reports, of the reports for the accounts, and of closed months."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from guerdon.audit_log.models import AUDIT
from guerdon.database import Document
from guerdon.report_settings.models import REPORT_SETTINGS, settings_id
from guerdon.verification.checkpoints import CHECKPOINTS
from guerdon.verification.closings import CLOSINGS
from guerdon.views.models import COHORT_MONTHS, COHORTS, DECISIONS, PURCHASES, TOTALS
from tools.query_plans.notation import AFTER, DOWN, ID, IDS, RANGE, UP, Query, find, one
from tools.query_plans.shapes import AGGREGATE

Cases = Iterator[tuple[str, str, dict[str, Any]]]
_REPORTS = "GET /v1/reports/breakage, /deferred-revenue and /liability; the month close"
_DEFERRED = "GET /v1/reports/deferred-revenue; the month close"
_CLOSE = "POST /v1/closings, guerdon close"
_VERIFY = "guerdon verify"
_UP_TO: Document = {"version": ":version", "asset": ":asset", "earned_month": {"$lte": ":month"}, "month": {"$lte": ":month"}}
_AWARDED: Document = {**_UP_TO, "campaign": {"$gt": ":none"}}
_MONTHS, _VERSION = 24, 1
_ASSETS = ("A06", "A07", "A08")
"""Assets with cohorts. Each has a part of the rows, as in a programme with several assets; an index by campaign alone finds the rows of all."""
_ROWS_MAX = 20_000
"""Number of rows that a report may examine: cohorts of 24 months and their later months, 16 partitions each, and what it does not need."""


def _sums(collection: str, where: Mapping[str, Any]) -> Document:
    return {AGGREGATE: collection, "pipeline": [{"$match": where}, {"$group": {"_id": None}}], "cursor": {}}


FINANCE_QUERIES = [
    Query(
        "report_settings.versions",
        "request",
        "/v1/report-settings/{asset}; " + _REPORTS,
        find(REPORT_SETTINGS, RANGE, sort=DOWN, limit=True),
    ),
    Query("closings.get", "request", "GET, POST /v1/closings; " + _REPORTS, one(CLOSINGS, ID)),
    Query("closings.first", "request", "GET /v1/closings; " + _CLOSE, find(CLOSINGS, {}, sort=DOWN, limit=True)),
    Query("closings.next", "request", "GET /v1/closings", find(CLOSINGS, {"_id": {"$lt": ":before"}}, sort=DOWN, limit=True)),
    Query("closings.checkpoint", "request", _CLOSE, one(CHECKPOINTS, {}, sort=DOWN, fields=["_id"])),
    Query("closings.assets", "request", _CLOSE, _sums(TOTALS.collection, {"version": ":version"})),
    Query("cohort_months.sums", "request", _REPORTS, _sums(COHORT_MONTHS.collection, _UP_TO), bound=_ROWS_MAX),
    Query("cohorts.awarded", "request", _DEFERRED, _sums(COHORTS.collection, _AWARDED), bound=_ROWS_MAX),
    Query(
        "cohorts.awards", "request", _DEFERRED, _sums(COHORTS.collection, {**_AWARDED, "move": {"$in": ":moves"}}), bound=_ROWS_MAX
    ),
    Query(
        "decisions.prices",
        "request",
        _DEFERRED,
        _sums(
            DECISIONS.collection,
            {"version": ":version", "campaign": {"$in": ":campaigns"}, "day": {"$lt": ":day"}, "outcome": {"$in": ":outcomes"}},
        ),
        bound=_ROWS_MAX,
    ),
    Query(
        "purchases.prices",
        "request",
        _DEFERRED,
        _sums(
            PURCHASES.collection,
            {"version": ":version", "day": {"$lt": ":day"}, "currency": ":currency", "type": {"$in": ":types"}},
        ),
        bound=_ROWS_MAX,
    ),
    Query("verify.closings", "terminal", _VERIFY, find(CLOSINGS, AFTER, sort=UP, limit=True)),
    Query("verify.recorded_closings", "terminal", _VERIFY, find(CLOSINGS, IDS, fields=["_id"])),
    Query("verify.records_of_closings", "terminal", _VERIFY, find(AUDIT, IDS)),
]


def _month(number: int) -> str:
    return f"{2024 + number // 12}-{number % 12 + 1:02}"


def fixed_rows() -> Iterator[tuple[str, Document]]:
    """Yield the documents of the sample: two years of closed months, and rows of the views for them."""
    for number in range(_MONTHS):
        month = _month(number)
        yield CLOSINGS, {"_id": month, "content": "{}", "sha256": "0" * 64, "record": number + 1}
        yield REPORT_SETTINGS, {"_id": settings_id("A07", number + 1), "asset": "A07", "version": number + 1, "valid_from": month}
        yield from _cohorts_of(number)
        for day in (f"{month}-01", f"{month}-15"):
            for currency in ("GBP", "EUR"):
                row = {"version": _VERSION, "day": day, "currency": currency, "amount": 1}
                yield DECISIONS.collection, {"_id": f"{day}|{currency}", **row, "campaign": "cmp_1", "outcome": "awarded"}
                yield PURCHASES.collection, {"_id": f"{day}|{currency}", **row, "type": "purchase"}
    for number in range(10):
        yield TOTALS.collection, {"_id": f"{number}", "version": _VERSION, "asset": f"A{number:02}", "balance": 1}


def _cohorts_of(number: int) -> Iterator[tuple[str, Document]]:
    """Yield the rows of the cohorts of a month, of every asset."""
    month = _month(number)
    for later, asset, move in product(range(number, _MONTHS), _ASSETS, ("earned", "redeemed")):
        key = {"version": _VERSION, "asset": asset, "earned_month": month, "move": move, "month": _month(later), "amount": 1}
        name = f"{month}|{asset}|{move}|{_month(later)}"
        yield COHORT_MONTHS.collection, {"_id": name, **key}
        for campaign in ("", "cmp_1"):
            yield COHORTS.collection, {"_id": f"{name}|{campaign}", **key, "campaign": campaign}


def cases() -> Cases:
    """Yield cases of these queries."""
    for case, asset in (("found", "A07"), ("not found", "NONE")):
        yield "report_settings.versions", case, {"first": f"{asset}/", "last": f"{asset}0", "limit": 1000}
    for case, month in (("found", _month(3)), ("not found", "1999-01")):
        yield "closings.get", case, {"id": month}
    yield "closings.first", "newest page", {"limit": 51}
    yield "closings.next", "deepest page", {"before": _month(3), "limit": 51}
    yield "closings.checkpoint", "the newest", {}
    views = {"version": _VERSION, "asset": "A07", "none": ""}
    yield "closings.assets", "all", views
    for case, month in (("all months", _month(_MONTHS)), ("the first year", _month(11))):
        yield "cohort_months.sums", case, {**views, "month": month}
        yield "cohorts.awarded", case, {**views, "month": month}
        yield "cohorts.awards", case, {**views, "month": month, "moves": ["earned", "clawed_back", "adjusted"]}
        outcomes = {"campaigns": ["cmp_1"], "day": f"{month}-01", "outcomes": ["awarded", "taken_back"]}
        yield "decisions.prices", case, {**views, **outcomes}
        yield "purchases.prices", case, {**views, "day": f"{month}-01", "currency": "GBP", "types": ["purchase", "refund", "void"]}
    yield "verify.closings", "a page", {"after": "", "limit": 100}
    yield "verify.recorded_closings", "one", {"ids": [_month(3)]}
    yield "verify.records_of_closings", "one", {"ids": [1]}
