"""Queries of vouchers at the point of sale, and of their verification."""

from guerdon.database import Document
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS
from guerdon.offers.models import OFFER_VERSIONS
from guerdon.verification.vouchers import BATCHED, ISSUED
from guerdon.vouchers.codes.models import CODE_BATCHES
from guerdon.vouchers.models import DEALT_CODES, VOUCHER_CODES, VOUCHERS
from tools.query_plans.notation import AFTER, DOWN, IDS, OWN, RANGE, UP, Query, find, read, update
from tools.query_plans.shapes import AGGREGATE

_STEPS = "POST /v1/vouchers/{code}/reserve, use, release, unuse, cancel, load"
_VERIFY = "guerdon verify"
_BEFORE: Document = {"_id": {"$gt": ":first", "$lt": ":last"}}

POS_QUERIES = [
    Query("batch.vouchers", "request", _STEPS, read(VOUCHERS, IDS)),
    Query("vouchers.change", "request", _STEPS, update(VOUCHERS, OWN, upsert=True)),
    Query("entries.steps", "request", "GET /v1/vouchers/{code}/history", find(ENTRIES, _BEFORE, sort=DOWN, limit=True)),
    Query("verify.vouchers", "terminal", _VERIFY, find(VOUCHERS, AFTER, sort=UP, limit=True)),
    Query("verify.voucher_accounts", "terminal", _VERIFY, find(ACCOUNTS, IDS)),
    Query("verify.voucher_codes", "terminal", _VERIFY, find(VOUCHER_CODES, IDS)),
    Query("verify.dealt_codes", "terminal", _VERIFY, find(DEALT_CODES, IDS)),
    Query("verify.offer_versions", "terminal", _VERIFY, find(OFFER_VERSIONS, IDS)),
    Query("verify.prices_back", "terminal", _VERIFY, find(REVERSALS, IDS)),
    Query("verify.stocks", "terminal", _VERIFY, find(ACCOUNTS, {**RANGE, "kind": ":kind"}, fields=["balance"])),
    Query("verify.issued", "terminal", _VERIFY, {AGGREGATE: VOUCHERS, "pipeline": ISSUED, "cursor": {}}),
    Query("verify.batched", "terminal", _VERIFY, {AGGREGATE: CODE_BATCHES, "pipeline": BATCHED, "cursor": {}}),
]
