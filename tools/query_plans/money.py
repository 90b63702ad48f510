"""Queries of the reports on value and of the books. They read rows of the views, of which a report needs whole ranges."""

from collections.abc import Iterator
from typing import Any

from guerdon.database import Document
from guerdon.views.models import ACCOUNT_STATES, COHORT_MONTHS, FLOWS, LOTS, RANKINGS, TOTALS
from tools.query_plans.notation import Query, find
from tools.query_plans.shapes import AGGREGATE

Cases = Iterator[tuple[str, str, dict[str, Any]]]
ROWS_MAX = 20_000
"""Number of rows that a report may examine: months of years, or days of a year, in 16 partitions each."""
_VERSION, _ASSET = 1, "A07"
_OWN: Document = {"version": ":version", "asset": ":asset"}
_EXPIRED: Document = {**_OWN, "next_expires_at": {"$lte": ":now"}}
_UNWOUND: list[Document] = [
    {"$unwind": "$queues"},
    {"$match": {}},
    {"$unwind": "$queues.cohorts"},
    {"$group": {"_id": None}},
    {"$sort": {"_id": 1}},
]
_HELD: list[Document] = [{"$unwind": "$holds"}, {"$unwind": "$holds.lots"}, {"$match": {}}, {"$group": {"_id": None}}]
_AFTER: Document = {"$or": [{"next_expires_at": {"$gt": ":at"}}, {"next_expires_at": ":at", "account": {"$gt": ":account"}}]}
_EXPIRING: Document = {**_OWN, "next_expires_at": {"$lt": ":before"}}
_FIELDS = ("account", "owner", "next_expires_at", "queues", "holds")
_ROLL, _LIABILITY = "GET /v1/reports/roll-forward, /liability; /v1/books", "GET /v1/reports/liability"
_EXPIRY, _BOARD = "GET /v1/reports/expiring", "GET /v1/reports/leaderboard"


def _aggregate(collection: str, where: Document, *stages: Document) -> Document:
    return {AGGREGATE: collection, "pipeline": [{"$match": where}, *(stages or ({"$group": {"_id": None}},))], "cursor": {}}


def _sums(name: str, callers: str, collection: str, where: Document) -> Query:
    return Query(name, "request", callers, _aggregate(collection, {**_OWN, **where}), bound=ROWS_MAX)


def _board(by: str) -> Query:
    where: Document = {**_OWN, "period": ":period", by: {"$gt": 0}}
    return Query(f"rankings.{by}", "request", _BOARD, find(RANKINGS.collection, where, sort={by: -1, "owner": 1}, limit=True))


def _accounts(name: str, where: Document) -> Query:
    sort = {"next_expires_at": 1, "account": 1}
    return Query(name, "request", _EXPIRY, find(ACCOUNT_STATES, where, sort=sort, limit=True, fields=_FIELDS), seeks=3)


MONEY_QUERIES = [
    _sums("flows.sums", _ROLL, FLOWS.collection, {"unit": ":unit", "period": {"$gte": ":first", "$lt": ":last"}}),
    _sums("totals.sums", _ROLL, TOTALS.collection, {}),
    _sums("lots.sums", _LIABILITY, LOTS.collection, {}),
    _sums("lots.expiring", _EXPIRY, LOTS.collection, {"expires_on": {"$gte": ":first", "$lt": ":last"}}),
    _sums("cohort_months.left", _LIABILITY, COHORT_MONTHS.collection, {}),
    _sums("cohort_months.left_at", _LIABILITY, COHORT_MONTHS.collection, {"month": {"$lt": ":month"}}),
    Query(
        "accounts.expired",
        "request",
        f"{_LIABILITY}, /expiring",
        _aggregate(ACCOUNT_STATES, _EXPIRED, *_UNWOUND),
        bound=ROWS_MAX,
    ),
    Query(
        "accounts.expired_held",
        "request",
        f"{_LIABILITY}, /expiring",
        _aggregate(ACCOUNT_STATES, {**_EXPIRED, "holds": {"$exists": True}}, *_HELD),
        bound=ROWS_MAX,
    ),
    _accounts("accounts.expiring", _EXPIRING),
    _accounts("accounts.expiring_after", {"$and": [_EXPIRING, _AFTER]}),
    _board("earned"),
    _board("spent"),
]


def fixed_rows() -> Iterator[tuple[str, Document]]:
    """Yield the documents of the sample: rows of the views of two assets."""
    for asset in (_ASSET, "A08"):
        own = {"version": _VERSION, "asset": asset}
        for month in range(1, 13):
            for day in range(1, 29):
                name = f"2026-{month:02}-{day:02}"
                row = {**own, "unit": "day", "period": name, "flow": "earned", "counterparty": "system:issuer", "amount": 1}
                yield FLOWS.collection, {"_id": f"{asset}|{name}", **row}
                dates = {"source": "promotional", "available_on": "", "expires_on": name, "amount": 1, "held": 0}
                yield LOTS.collection, {"_id": f"{asset}|{name}", **own, **dates}
            name = f"2026-{month:02}"
            row = {**own, "unit": "month", "period": name, "flow": "earned", "counterparty": "system:issuer", "amount": 1}
            yield FLOWS.collection, {"_id": f"{asset}|{name}", **row}
        for number in range(500):
            account = f"mem_{number:04}:{asset}"
            queue = {"source": "promotional", "expires_at": number, "cohorts": [{"month": "2026-01", "amount": 1}]}
            state: Document = {"account": account, "owner": account[:8], "next_expires_at": number, "queues": [queue]}
            if number % 10 == 0:
                state["holds"] = [{"seq": 1, "lots": [{"source": "promotional", "amount": 1, "expires_at": number}]}]
            yield ACCOUNT_STATES, {"_id": f"{_VERSION}|{account}", **own, **state}
            ranking = {"period": "2026", "owner": account[:8], "earned": number, "spent": 500 - number}
            yield RANKINGS.collection, {"_id": f"{asset}|{number}", **own, **ranking}


def cases() -> Cases:
    """Yield cases of these queries."""
    for case, asset in (("found", _ASSET), ("not found", "NONE")):
        own = {"version": _VERSION, "asset": asset}
        yield "flows.sums", f"months, {case}", {**own, "unit": "month", "first": "", "last": "2026-12"}
        yield "flows.sums", f"days, {case}", {**own, "unit": "day", "first": "2026-02-01", "last": "2026-02-20"}
        for name in ("totals.sums", "lots.sums", "cohort_months.left"):
            yield name, case, own
        yield "lots.expiring", case, {**own, "first": "2026-03-01", "last": "2026-04-01"}
        yield "cohort_months.left_at", case, {**own, "month": "2026-02"}
        for name in ("accounts.expired", "accounts.expired_held"):
            yield name, case, {**own, "now": 20}
        yield "accounts.expiring", f"first page, {case}", {**own, "before": 400, "limit": 50}
        after = {"at": 200, "account": f"mem_0200:{asset}"}
        yield "accounts.expiring_after", f"deep page, {case}", {**own, **after, "before": 400, "limit": 50}
        for name in ("rankings.earned", "rankings.spent"):
            yield name, case, {**own, "period": "2026", "limit": 10}
