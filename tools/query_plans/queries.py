"""Catalogue of the queries of the product. A query is the command that is sent, with `:names` in place of values; its shape is derived from it.

A test compares the catalogue with the commands that the driver sends, so the catalogue is complete and has no unused query.
"""

from guerdon.access.models import SERVICE_KEYS
from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENTS, EXPIRED_LOTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS, CAMPAIGNS_LIVE_MAX
from guerdon.database import Document
from guerdon.exchanges.models import RATE_VERSIONS, RATES
from guerdon.history.service import EXAMINED_MAX
from guerdon.ledger.contention import CONTENTION_LEASES
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.references import ATTEMPTS_MAX
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS
from guerdon.members.models import CLAIMS, LOOKUP_KEYS, MEMBERS, PERSON_KEYS
from guerdon.outbox import OUTBOX
from guerdon.password_reset.models import RESETS
from guerdon.second_factor.models import FACTORS
from guerdon.sessions.models import SESSIONS
from guerdon.simulated_clock.models import CLOCKS
from guerdon.verification.checkpoints import CHECKPOINTS
from guerdon.verification.rows import ENTRY_ROW_FIELDS
from guerdon.views.entries import FOLDED_FIELDS
from guerdon.wallets.models import ASSETS
from guerdon.workers.models import LEASES
from tools.query_plans.activity import ACTIVITY_QUERIES
from tools.query_plans.codes import CODE_QUERIES
from tools.query_plans.exports import EXPORT_QUERIES
from tools.query_plans.finance import FINANCE_QUERIES
from tools.query_plans.money import MONEY_QUERIES
from tools.query_plans.notation import (
    AFTER,
    DOWN,
    ID,
    IDS,
    OWN,
    RANGE,
    SPAN,
    UNIQUE_KEYS,
    UP,
    Query,
    delete,
    find,
    one,
    read,
    update,
)
from tools.query_plans.pos import POS_QUERIES
from tools.query_plans.privacy import PRIVACY_QUERIES
from tools.query_plans.proofs import PROOF_QUERIES
from tools.query_plans.segments import SEGMENT_QUERIES
from tools.query_plans.shapes import AGGREGATE, DELETE, FIND_AND_MODIFY
from tools.query_plans.simulations import SIMULATION_QUERIES
from tools.query_plans.tiers import TIER_QUERIES
from tools.query_plans.timeline import TIMELINE_QUERIES
from tools.query_plans.views import VIEW_QUERIES
from tools.query_plans.vouchers import VOUCHER_QUERIES

_SPAN_OF_TIME = {"$gte": ":since_ms", "$lt": ":until_ms"}
EFFECTIVE = [{"effective_at": _SPAN_OF_TIME}, {"effective_at": {"$exists": False}, "at": _SPAN_OF_TIME}]
COMMANDS = "every command that moves value"
ATTEMPTS = COMMANDS + ", with a reference that another transaction has"

IDENTITY = [
    Query("claims.get", "request", "POST /v1/auth/login, GET /v1/members, POST /v1/events", one(CLAIMS, ID)),
    Query("claims.known", "request", "POST /v1/events, guerdon replay", find(CLAIMS, IDS, limit=True)),
    Query(
        "claims.taken", "request", "POST /v1/auth/register, POST /v1/members, on a conflict", find(CLAIMS, IDS, sort=UP, limit=True)
    ),
    Query("members.get", "request", "GET /v1/me, GET /v1/members/{member_id}, most others", one(MEMBERS, ID)),
    Query("members.first", "request", "GET /v1/members", find(MEMBERS, {}, sort=DOWN, limit=True)),
    Query("members.next", "request", "GET /v1/members", find(MEMBERS, {"_id": {"$lt": ":before"}}, sort=DOWN, limit=True)),
    Query(
        "members.rehash",
        "request",
        "POST /v1/auth/login, for an older hash, PUT /v1/me/password",
        update(MEMBERS, {"_id": ":id", "password_hash": ":hash"}),
    ),
    Query(
        "person_keys.get",
        "request",
        "all routes that show a member or a session; log-in; events that read the member",
        one(PERSON_KEYS, ID),
    ),
    Query("person_keys.page", "request", "GET /v1/members", find(PERSON_KEYS, IDS, limit=True)),
    Query("lookup_keys.get", "terminal", "the start of a process", one(LOOKUP_KEYS, ID)),
    Query("members.any", "terminal", "the start of a process", one(MEMBERS, {}, sort=UP)),
    Query("service_keys.get", "request", "every request with a service key, every two seconds", one(SERVICE_KEYS, ID)),
    Query(
        "service_keys.list",
        "terminal",
        "guerdon keys list",
        find(SERVICE_KEYS, {}, sort={"created_at": -1, "_id": 1}, limit=True),
    ),
    Query("service_keys.page", "request", "GET /v1/keys", find(SERVICE_KEYS, AFTER, sort=UP, limit=True)),
    Query(
        "service_keys.revoke",
        "request",
        "DELETE /v1/keys/{key_id}, guerdon keys revoke",
        update(SERVICE_KEYS, {"_id": ":id", "revoked_at": None}),
    ),
    Query("service_keys.used", "job", "every process, at most every five minutes for each key in use", update(SERVICE_KEYS, ID)),
]

SESSION_QUERIES = [
    Query("sessions.get", "request", "POST /v1/auth/refresh, every request with an access token, every 30 s", one(SESSIONS, ID)),
    Query(
        "sessions.list",
        "request",
        "POST /v1/auth/login, GET and DELETE /v1/me/sessions, PUT /v1/me/password",
        find(SESSIONS, RANGE, limit=True),
    ),
    Query(
        "sessions.rotate",
        "request",
        "POST /v1/auth/refresh",
        {FIND_AND_MODIFY: SESSIONS, "query": {"_id": ":id", "current": ":digest"}, "update": {"$set": {"touched": True}}},
    ),
    Query(
        "sessions.end",
        "request",
        "reuse of an older refresh token; a log-in above the maximum number of sessions",
        delete(SESSIONS, ID),
    ),
    Query(
        "sessions.end_own",
        "request",
        "DELETE /v1/me/sessions/{session_id}",
        delete(SESSIONS, {"_id": ":id", "member": ":member"}),
    ),
    Query("sessions.log_out", "request", "POST /v1/auth/logout", delete(SESSIONS, {"_id": ":id", "family": ":digest"})),
    Query(
        "sessions.expire",
        "server",
        "MongoDB, for indexes with an expiry",
        {DELETE: SESSIONS, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
    ),
    Query(
        "members.change",
        "request",
        "POST /v1/members/{member_id}/disable, enable, PUT …/role",
        update(MEMBERS, {"_id": ":id", "erasing_at": None}),
    ),
]

_FACTORS = "POST /v1/me/totp/confirm, remove, recovery-codes, POST /v1/auth/login, of staff"

SECOND_FACTORS = [
    Query("factors.get", "request", f"GET /v1/me/totp, {_FACTORS}", one(FACTORS, ID)),
    Query("factors.begin", "request", "POST /v1/me/totp", update(FACTORS, {"_id": ":id", "confirmed_at": ":none"}, upsert=True)),
    Query(
        "factors.confirm",
        "request",
        "POST /v1/me/totp/confirm",
        update(FACTORS, {"_id": ":id", "confirmed_at": ":none", "sealed": ":sealed"}),
    ),
    Query(
        "factors.try",
        "request",
        _FACTORS,
        {
            FIND_AND_MODIFY: FACTORS,
            "query": {"_id": ":id", "$or": [{"tries": {"$lt": ":most"}}, {"tries_end_at": {"$lte": ":now"}}]},
            "update": {"$set": {"touched": True}},
        },
    ),
    Query("factors.step", "request", _FACTORS, update(FACTORS, {"_id": ":id", "last_step": {"$lt": ":step"}})),
    Query("factors.code", "request", _FACTORS, update(FACTORS, {"_id": ":id", "codes": ":digest"})),
    Query("factors.renew", "request", "POST /v1/me/totp/recovery-codes", update(FACTORS, ID)),
    Query("factors.remove", "request", "POST /v1/me/totp/remove, guerdon admin remove-totp", delete(FACTORS, ID)),
]

PASSWORD_RESETS = [
    Query("resets.get", "job", "the password reset job", one(RESETS, ID)),
    Query("resets.check", "request", "POST /v1/auth/reset, the mail job", one(RESETS, {"_id": ":id", "secret_sha256": ":digest"})),
    Query("resets.replace", "job", "the password reset job, guerdon admin reset", update(RESETS, ID, upsert=True)),
    Query("resets.use", "request", "POST /v1/auth/reset", delete(RESETS, {"_id": ":id", "secret_sha256": ":digest"})),
    Query("members.set_hash", "request", "POST /v1/auth/reset", update(MEMBERS, {"_id": ":id", "disabled_at": None})),
    Query(
        "outbox.due",
        "job",
        "the password reset job, the mail job",
        find(OUTBOX, {"channel": ":channel", "due_at": {"$lte": ":now"}}, sort={"due_at": 1}, limit=True),
    ),
    Query("outbox.change", "job", "the password reset job, the mail job", update(OUTBOX, {"_id": ":id", "due_at": ":due_at"})),
    *(
        Query(
            f"{name}.expire",
            "server",
            "MongoDB, for indexes with an expiry",
            {DELETE: name, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
        )
        for name in (OUTBOX, RESETS)
    ),
]

AUDIT_LOG = [
    Query(
        "audit.newest",
        "request",
        "GET /v1/audit, every change by staff",
        find(AUDIT, {}, sort=DOWN, limit=True),
    ),
    Query("audit.next", "request", "GET /v1/audit", find(AUDIT, {"_id": {"$lt": ":before"}}, sort=DOWN, limit=True)),
    Query("audit.read", "terminal", "guerdon audit", find(AUDIT, AFTER, sort=UP, limit=True)),
    Query("audit.get", "terminal", "guerdon audit --after", find(AUDIT, ID, limit=True)),
]

WALLETS = [
    Query("assets.get", "request", "the first use of an asset in a process", one(ASSETS, ID)),
    Query("rates.get", "request", "GET and PUT /v1/rates/{pair}, POST /v1/exchanges/quote", one(RATES, ID)),
    Query("rates.first", "request", "GET /v1/rates", find(RATES, {}, sort=UP, limit=True)),
    Query("rates.next", "request", "GET /v1/rates", find(RATES, AFTER, sort=UP, limit=True)),
    Query("rates.replace", "request", "PUT /v1/rates/{pair}", update(RATES, {"_id": ":id", "version": ":version"})),
    Query("rate_versions.get", "request", "GET /v1/rates/{pair}?version=", one(RATE_VERSIONS, ID)),
    Query("rate_versions.some", "terminal", "guerdon verify", find(RATE_VERSIONS, IDS)),
    Query("assets.list", "request", "GET /v1/assets", find(ASSETS, {}, sort=UP, limit=True)),
    Query("accounts.get", "request", "GET /v1/wallets/{wallet_id} and below", one(ACCOUNTS, OWN)),
    Query(
        "accounts.list",
        "request",
        "GET /v1/me/wallets, GET /v1/members/{member_id}/wallets",
        find(ACCOUNTS, {**RANGE, "owner": ":owner"}, sort=UP, limit=True),
    ),
    Query(
        "accounts.exist",
        "request",
        "POST credit, transfer, bulk, for wallets not seen before",
        find(ACCOUNTS, {**IDS, "owner": {"$in": ":owners"}}, fields=["_id"]),
    ),
]

_LATE_REFUNDS = "POST /v1/events, for a refund of an award that has expired"
LEDGER = [
    Query("batch.accounts", "request", COMMANDS, read(ACCOUNTS, {**IDS, "owner": {"$in": ":owners"}})),
    Query("batch.unique_keys", "request", COMMANDS, read(ENTRIES, UNIQUE_KEYS), seeks=3),
    Query("batch.events", "request", "POST /v1/events", read(EVENTS, IDS)),
    Query("batch.refunds", "request", "POST /v1/events", read(REFUNDS, IDS)),
    Query("batch.expired_lots", "request", _LATE_REFUNDS, read(EXPIRED_LOTS, IDS)),
    Query("batch.standings", "request", "POST /v1/events", read(MEMBER_STATES, IDS)),
    Query("batch.rates", "request", "POST /v1/exchanges", read(RATES, IDS)),
    Query("batch.holds", "request", "POST /v1/holds/{hold_id}/capture, void", read(HOLD_DOCUMENTS, IDS)),
    Query("batch.reversals", "request", "POST /v1/transactions/{transaction_id}/reverse", read(REVERSALS, IDS)),
    Query("attempts.later", "request", ATTEMPTS, {**find(ENTRIES, UNIQUE_KEYS), "hint": "once"}),
    Query("accounts.move", "request", COMMANDS, update(ACCOUNTS, ID)),
    Query("accounts.move_sharded", "request", COMMANDS + ", on a sharded cluster", update(ACCOUNTS, OWN)),
    Query("holds.change", "request", "POST /v1/holds/{hold_id}/capture, void; the sweep", update(HOLD_DOCUMENTS, OWN, upsert=True)),
    Query("reversals.count", "request", "POST /v1/transactions/{transaction_id}/reverse", update(REVERSALS, OWN, upsert=True)),
    Query(
        "turns.ask",
        "request",
        COMMANDS + ", on an account that other processes change too",
        {FIND_AND_MODIFY: CONTENTION_LEASES, "query": ID, "update": {"$set": {"touched": True}}, "upsert": True},
    ),
    Query(
        "turns.look",
        "request",
        COMMANDS + ", on an account that other processes change too",
        one(CONTENTION_LEASES, ID, fields=("line", "now", "took_ms")),
    ),
    Query(
        "accounts.due",
        "job",
        "the sweep",
        find(ACCOUNTS, {"due_at": {"$lte": ":now"}}, sort={"due_at": 1}, limit=True, fields=["owner"]),
    ),
    Query(
        "refusals.expire",
        "server",
        "MongoDB, for indexes with an expiry",
        {DELETE: ENTRIES, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
    ),
]

HISTORY = [
    Query("entries.get", "request", "balance, vouchers, certificates", one(ENTRIES, OWN)),
    Query(
        "entries.find",
        "request",
        "GET /v1/transactions/{transaction_id}, reverse, bulk",
        find(ENTRIES, {**IDS, "owner": {"$in": ":owners"}}),
    ),
    Query(
        "entries.sources",
        "request",
        "GET /v1/transactions/{transaction_id}/sources",
        find(ENTRIES, SPAN, sort=UP, fields=[*FOLDED_FIELDS, "owner"]),
    ),
    Query("entries.page", "request", "GET /v1/wallets/{wallet_id}/entries", find(ENTRIES, SPAN, sort=DOWN, limit=True)),
    Query(
        "entries.kind",
        "request",
        "GET /v1/wallets/{wallet_id}/entries?kind=",
        find(ENTRIES, {**SPAN, "kind": ":kind"}, sort=DOWN, limit=True),
        bound=EXAMINED_MAX,
    ),
    Query(
        "entries.effective",
        "request",
        "GET /v1/wallets/{wallet_id}/entries?effective_from=&effective_to=",
        find(ENTRIES, {**SPAN, "$or": EFFECTIVE}, sort=DOWN, limit=True),
        bound=EXAMINED_MAX,
    ),
    Query(
        "entries.kind_effective",
        "request",
        "GET /v1/wallets/{wallet_id}/entries?kind=&effective_from=&effective_to=",
        find(ENTRIES, {**SPAN, "kind": ":kind", "$or": EFFECTIVE}, sort=DOWN, limit=True),
        bound=EXAMINED_MAX,
    ),
    Query(
        "entries.reference",
        "request",
        "GET /v1/wallets/{wallet_id}/entries?reference=",
        {**find(ENTRIES, {"owner": ":owner", "once": {"$in": ":unique_keys"}}), "limit": ATTEMPTS_MAX, "hint": "once"},
    ),
    Query(
        "entries.probe",
        "request",
        "from=, to=, balance?at=, statements: one step of the search by time",
        find(ENTRIES, {**IDS, "owner": ":owner"}, fields=["at"]),
    ),
    Query(
        "entries.statement",
        "request",
        "GET /v1/wallets/{wallet_id}/statements/{month}: 200 entries",
        find(ENTRIES, SPAN, sort=UP),
    ),
    Query(
        "entries.stream",
        "request",
        "GET /v1/wallets/{wallet_id}/stream",
        find(ENTRIES, {"_id": {"$gt": ":first", "$lte": ":last"}, "owner": ":owner"}, sort=UP, limit=True),
    ),
    Query(
        "entries.watch",
        "request",
        "GET /v1/wallets/{wallet_id}/stream: one for each process",
        {AGGREGATE: ENTRIES, "pipeline": [{"$changeStream": {}}], "cursor": {}},
        explained=False,
    ),
    Query("holds.get", "request", "GET /v1/holds/{hold_id}", one(HOLD_DOCUMENTS, OWN)),
    Query(
        "entries.expired",
        "request",
        _LATE_REFUNDS,
        {
            **find(
                ENTRIES,
                {
                    "owner": ":owner",
                    "kind": "expiry",
                    "at": {"$gte": ":since"},
                    "_id": {"$gt": ":first", "$lte": ":last"},
                },
                fields=["lots"],
            ),
            "hint": "expired",
        },
    ),
    Query("reversals.of_expiries", "request", _LATE_REFUNDS, find(REVERSALS, {**IDS, "owner": ":owner"}, fields=["reversed"])),
    Query("reversals.get", "request", "GET /v1/transactions/{transaction_id}", one(REVERSALS, OWN)),
]

_COUNTED: Document = {
    AGGREGATE: CAMPAIGNS,
    "pipeline": [{"$match": {"status": ":status"}}, {"$group": {"_id": 1, "n": {"$sum": 1}}}],
    "cursor": {},
}

CLOCK = [
    Query("clocks.get", "request", "every quarter of a second in each process, in development", one(CLOCKS, ID)),
    Query("clocks.make", "request", "POST /v1/test/clock/advance", update(CLOCKS, ID, upsert=True)),
    Query(
        "clocks.advance",
        "request",
        "POST /v1/test/clock/advance",
        {
            FIND_AND_MODIFY: CLOCKS,
            "query": {"_id": ":id", "offset_ms": {"$lte": ":most"}},
            "update": {"$set": {"touched": True}},
        },
    ),
]

CAMPAIGNS_AND_EVENTS = [
    Query(
        "events.get",
        "request",
        "GET /v1/events/{event_id}, POST …/replay, POST /v1/events for an unknown member, guerdon replay-decision",
        one(EVENTS, ID),
    ),
    Query(
        "campaign_versions.known",
        "request",
        "POST /v1/events/{event_id}/replay, guerdon replay-decision",
        find(CAMPAIGN_VERSIONS, IDS, limit=True),
    ),
    Query("refunds.get", "request", "GET /v1/events/{event_id}", one(REFUNDS, OWN)),
    Query("refunds.change", "request", "POST /v1/events", update(REFUNDS, {**OWN, "count": ":count"}, upsert=True)),
    Query("expired_lots.change", "request", _LATE_REFUNDS, update(EXPIRED_LOTS, {**OWN, "count": ":count"}, upsert=True)),
    Query("standings.change", "request", "POST /v1/events", update(MEMBER_STATES, {**OWN, "count": ":count"}, upsert=True)),
    Query("events.recorded", "request", "POST /v1/events/bulk", find(EVENTS, IDS, fields=["_id"])),
    Query(
        "events.newest",
        "request",
        "POST /v1/campaigns, PUT /v1/campaigns/{campaign_id}, the same of offers, for their warnings",
        find(EVENTS, {}, sort={"occurred_at": -1, "recorded_at": -1}, limit=True, fields=["type"]),
    ),
    Query("campaigns.get", "request", "GET, PUT, activate, pause of /v1/campaigns/{campaign_id}", one(CAMPAIGNS, ID)),
    Query("campaigns.first", "request", "GET /v1/campaigns", find(CAMPAIGNS, {}, sort=DOWN, limit=True)),
    Query("campaigns.next", "request", "GET /v1/campaigns", find(CAMPAIGNS, {"_id": {"$lt": ":before"}}, sort=DOWN, limit=True)),
    Query(
        "campaigns.first_by_status",
        "request",
        "GET /v1/campaigns?status=",
        find(CAMPAIGNS, {"status": ":status"}, sort=DOWN, limit=True),
    ),
    Query(
        "campaigns.next_by_status",
        "request",
        "GET /v1/campaigns?status=",
        find(CAMPAIGNS, {"_id": {"$lt": ":before"}, "status": ":status"}, sort=DOWN, limit=True),
    ),
    Query(
        "campaigns.live",
        "request",
        "POST /v1/events, POST /v1/events/preview, once a second",
        find(CAMPAIGNS, {"status": ":status"}, sort=UP, limit=True),
    ),
    Query("campaigns.count", "request", "POST /v1/campaigns/{campaign_id}/activate", _COUNTED, bound=CAMPAIGNS_LIVE_MAX + 1),
    Query(
        "campaigns.replace",
        "request",
        "PUT, activate, pause of /v1/campaigns/{campaign_id}",
        update(CAMPAIGNS, {"_id": ":id", "version": ":version", "changed_at": ":changed_at"}),
    ),
]

JOBS = [
    Query(
        "leases.take",
        "job",
        "every worker, for every job",
        {FIND_AND_MODIFY: LEASES, "query": ID, "update": {"$set": {"touched": True}}, "upsert": True},
    ),
    Query("leases.keep", "job", "the worker that runs a job", update(LEASES, {"_id": ":id", "holder": ":holder"})),
    Query("checkpoints.newest", "job", "the checkpoint job", one(CHECKPOINTS, {}, sort=DOWN)),
    Query("checkpoints.all", "job", "the checkpoint job, guerdon verify", find(CHECKPOINTS, {}, sort=UP)),
    Query("checkpoints.touch", "job", "the checkpoint job", update(CHECKPOINTS, ID)),
    Query(
        "checkpoints.accounts",
        "job",
        "the checkpoint job",
        find(ACCOUNTS, {}, sort=UP, fields=["kind", "seq", "head", "opened_at", "at"]),
    ),
    Query("checkpoints.heads", "job", "the checkpoint job", find(ENTRIES, IDS, fields=["at", "hash"])),
]

_BETWEEN: Document = {"_id": {"$gt": ":first", "$lt": ":last"}}
_VERIFY = "guerdon verify"

VERIFY = [
    Query("verify.accounts", "terminal", _VERIFY, find(ACCOUNTS, AFTER, sort=UP, limit=True)),
    Query("verify.owners_rest", "terminal", _VERIFY, find(ACCOUNTS, _BETWEEN, sort=UP)),
    Query("verify.account", "terminal", "guerdon verify --account", find(ACCOUNTS, ID, sort=UP, limit=True)),
    Query("verify.entries", "terminal", _VERIFY, find(ENTRIES, {"_id": {"$gt": ":first", "$lte": ":last"}}, sort=UP)),
    Query("verify.entries_rest", "terminal", _VERIFY, find(ENTRIES, AFTER, sort=UP)),
    Query("verify.active_holds", "terminal", _VERIFY, find(HOLD_DOCUMENTS, {**RANGE, "status": ":status"})),
    Query("verify.reversals", "terminal", _VERIFY, find(REVERSALS, RANGE)),
    Query("verify.seq", "terminal", _VERIFY, one(ACCOUNTS, ID, fields=["seq"])),
    Query("verify.references", "terminal", _VERIFY, find(ENTRIES, IDS, fields=ENTRY_ROW_FIELDS)),
    Query("verify.unique_keys", "terminal", _VERIFY, find(ENTRIES, UNIQUE_KEYS, fields=["once", "owner"])),
    Query("verify.ended_holds", "terminal", _VERIFY, find(HOLD_DOCUMENTS, IDS)),
    Query("verify.all_events", "terminal", _VERIFY, find(EVENTS, AFTER, sort=UP)),
    Query("verify.all_holds", "terminal", _VERIFY, find(HOLD_DOCUMENTS, AFTER, sort=UP)),
    Query("verify.all_reversals", "terminal", _VERIFY, find(REVERSALS, AFTER, sort=UP)),
    Query("verify.expired_lots", "terminal", _VERIFY, find(EXPIRED_LOTS, AFTER, sort=UP, limit=True)),
    Query(
        "verify.lots_of_wallets",
        "terminal",
        _VERIFY,
        find(ACCOUNTS, {**IDS, "owner": {"$in": ":owners"}}, fields=["lots", "holds"]),
    ),
    Query(
        "verify.expiries",
        "terminal",
        _VERIFY,
        {**find(ENTRIES, {"owner": {"$in": ":owners"}, "kind": "expiry"}, fields=["lots"]), "hint": "expired"},
    ),
    Query("verify.all_refusals", "terminal", _VERIFY, find(ENTRIES, _BETWEEN, sort=UP)),
    Query(
        "verify.refused_keys",
        "terminal",
        _VERIFY,
        find(ENTRIES, {**UNIQUE_KEYS, "balance_after": {"$exists": True}}, fields=["once"]),
    ),
]

QUERIES = {
    query.name: query
    for query in (
        *IDENTITY,
        *SESSION_QUERIES,
        *SECOND_FACTORS,
        *PRIVACY_QUERIES,
        *PASSWORD_RESETS,
        *AUDIT_LOG,
        *WALLETS,
        *LEDGER,
        *HISTORY,
        *CLOCK,
        *CAMPAIGNS_AND_EVENTS,
        *TIER_QUERIES,
        *VOUCHER_QUERIES,
        *POS_QUERIES,
        *CODE_QUERIES,
        *SEGMENT_QUERIES,
        *FINANCE_QUERIES,
        *MONEY_QUERIES,
        *VIEW_QUERIES,
        *SIMULATION_QUERIES,
        *EXPORT_QUERIES,
        *TIMELINE_QUERIES,
        *ACTIVITY_QUERIES,
        *JOBS,
        *VERIFY,
        *PROOF_QUERIES,
    )
}
