"""Queries of code batches."""

from guerdon.database import Document
from guerdon.offers.models import OFFER_VERSIONS
from guerdon.vouchers.codes.models import CODE_BATCHES, STAGED_CODES
from guerdon.vouchers.models import POOL_CODES, VOUCHER_CODES
from tools.query_plans.notation import DOWN, ID, IDS, UP, Query, delete, find, one, read, update

_LIST = "GET /v1/offers/{offer_id}/batches"
_PAGE = "GET /v1/batches/{batch_id}/codes.csv, GET /v1/batches/{batch_id}/sheet"
_JOB = "the codes job"
_BATCH: Document = {"_id": ":id", "owner": ":owner"}
_AS_READ: Document = {**_BATCH, "status": ":status", "made": ":made"}
_FROM: Document = {"_id": {"$gte": ":first", "$lt": ":last"}, "owner": ":owner"}

CODE_QUERIES = [
    Query("batches.get", "request", "GET /v1/batches/{batch_id} and below, pictures of codes", one(CODE_BATCHES, ID)),
    Query("batches.first", "request", _LIST, find(CODE_BATCHES, {"owner": ":owner"}, sort=DOWN, limit=True)),
    Query(
        "batches.next", "request", _LIST, find(CODE_BATCHES, {"owner": ":owner", "_id": {"$lt": ":before"}}, sort=DOWN, limit=True)
    ),
    Query("batches.cancel", "request", "POST /v1/batches/{batch_id}/cancel", update(CODE_BATCHES, {**_BATCH, "status": ":status"})),
    Query("batches.open", "job", _JOB, find(CODE_BATCHES, {"open": True}, sort=UP, limit=True)),
    Query("batches.move", "job", _JOB, update(CODE_BATCHES, _AS_READ)),
    Query("batches.number", "job", _JOB, update(CODE_BATCHES, {**_AS_READ, "first_number": ":none"})),
    Query("batches.close", "job", _JOB, update(CODE_BATCHES, _BATCH)),
    Query("batch.batches", "job", _JOB, read(CODE_BATCHES, IDS)),
    Query("batches.decide", "job", _JOB, update(CODE_BATCHES, {**_BATCH, "count": ":count"}, upsert=True)),
    Query("offer_versions.get", "request", f"{_PAGE}; {_JOB}", one(OFFER_VERSIONS, ID)),
    Query(
        "voucher_codes.taken",
        "request",
        f"POST /v1/offers/{{offer_id}}/codes/import; {_JOB}",
        find(VOUCHER_CODES, IDS, fields=["_id"]),
    ),
    Query(
        "voucher_codes.page",
        "request",
        _PAGE,
        find(VOUCHER_CODES, {"batch": ":batch", "_id": {"$gt": ":after"}}, sort=UP, limit=True),
    ),
    Query("voucher_codes.left", "job", _JOB, find(VOUCHER_CODES, {"batch": ":batch"}, sort=UP, limit=True, fields=["_id"])),
    Query("voucher_codes.remove", "job", _JOB, delete(VOUCHER_CODES, IDS)),
    Query("pool_codes.first", "request", _PAGE, find(POOL_CODES, _FROM, sort=UP, limit=True)),
    Query(
        "pool_codes.next",
        "request",
        _PAGE,
        find(POOL_CODES, {"_id": {"$gt": ":after", "$lt": ":last"}, "owner": ":owner"}, sort=UP, limit=True),
    ),
    Query("pool_codes.remove", "job", _JOB, delete(POOL_CODES, _FROM)),
    Query("staged_codes.get", "job", _JOB, one(STAGED_CODES, ID)),
    Query("staged_codes.remove", "job", _JOB, delete(STAGED_CODES, {"_id": {"$gte": ":first", "$lte": ":last"}})),
]
