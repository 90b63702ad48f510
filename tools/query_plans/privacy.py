"""Queries of erasures, exports and the rotation of master keys."""

from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, REFUNDS
from guerdon.collections import SEALED_FIELDS
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.store import ACCOUNTS
from guerdon.members.models import CLAIMS, MEMBERS, PERSON_KEYS
from guerdon.outbox import OUTBOX
from guerdon.password_reset.models import RESETS
from guerdon.privacy.models import ERASING, ERASURES, EXPORTS
from guerdon.second_factor.models import FACTORS
from guerdon.sessions.models import SESSIONS
from tools.query_plans.notation import AFTER, ID, RANGE, UP, Query, delete, find, one, update

_ERASE = "POST /v1/members/{member_id}/erase, POST /v1/me/erase, the erasures job"
_EXPORT = "GET /v1/me/export, GET /v1/members/{member_id}/export"
_ROTATE = "guerdon keys rotate-master"
_VOID = "POST /v1/events/{event_id}/void, if the member state is of an early version"
_PAGE = {**AFTER, "owner": ":owner"}

PRIVACY_QUERIES = [
    Query("erasing.get", "request", "a repeated erasure", one(ERASING, ID)),
    Query("erasing.list", "job", "the erasures job", find(ERASING, {}, sort=UP, limit=True)),
    Query("erasing.end", "request", _ERASE, delete(ERASING, ID)),
    Query("erasures.get", "request", f"{_ERASE}, GET /v1/members/{{member_id}}/erasure", one(ERASURES, ID)),
    Query("erasures.list", "terminal", "guerdon erasures export", find(ERASURES, AFTER, sort=UP, limit=True)),
    Query("members.begin_erasure", "request", _ERASE, update(MEMBERS, {"_id": ":id", "role": ":role", "erasing_at": None})),
    Query("members.erase", "request", _ERASE, update(MEMBERS, ID)),
    Query("person_keys.destroy", "request", _ERASE, delete(PERSON_KEYS, ID)),
    Query("claims.give_up", "request", _ERASE, delete(CLAIMS, {"_id": {"$in": ":ids"}, "member": ":member"})),
    Query("claims.limit", "request", _ERASE, update(CLAIMS, {"_id": {"$in": ":ids"}, "member": ":member"})),
    Query(
        "claims.expire",
        "server",
        "MongoDB, for indexes with an expiry",
        {"delete": CLAIMS, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
    ),
    *(
        Query(f"{collection}.count", "request", _ERASE, find(collection, where, fields=["_id"]))
        for collection, where in ((SESSIONS, RANGE), (OUTBOX, RANGE), (FACTORS, ID), (RESETS, ID), (EXPORTS, ID))
    ),
    *(
        Query(f"{collection}.erase", "request", _ERASE, delete(collection, where))
        for collection, where in ((SESSIONS, RANGE), (OUTBOX, RANGE), (RESETS, ID), (EXPORTS, ID))
    ),
    Query(
        "exports.begin",
        "request",
        "GET /v1/me/export",
        update(EXPORTS, {"_id": ":id", "not_before": {"$lte": ":now"}}, upsert=True),
    ),
    Query("exports.get", "request", "GET /v1/me/export, when refused", one(EXPORTS, ID)),
    Query("exports.end", "request", "GET /v1/me/export", update(EXPORTS, ID)),
    Query(
        "holds.export",
        "request",
        _EXPORT,
        find(HOLD_DOCUMENTS, {"_id": {"$gt": ":after", "$lt": ":last"}, "owner": ":owner"}, sort=UP, limit=True),
    ),
    Query(
        "refunds.export",
        "request",
        f"{_EXPORT}, {_VOID}",
        find(REFUNDS, {"_id": {"$gt": ":after", "$lt": ":last"}, "owner": ":owner"}, sort=UP, limit=True),
    ),
    Query(
        "accounts.export",
        "request",
        _EXPORT,
        find(ACCOUNTS, {"_id": {"$gt": ":after", "$lt": ":last"}, "owner": ":owner"}, sort=UP, limit=True),
    ),
    Query("standings.export", "request", _EXPORT, one(MEMBER_STATES, ID)),
    Query("events.export", "request", f"{_EXPORT}, {_VOID}", find(EVENTS, _PAGE, sort=UP, limit=True)),
    Query("audit.export", "request", _EXPORT, find(AUDIT, {**AFTER, "about": ":member"}, sort=UP, limit=True)),
    *(
        query
        for sealed in SEALED_FIELDS
        for query in (
            Query(f"{sealed.collection}.all", "terminal", _ROTATE, find(sealed.collection, AFTER, sort=UP, limit=True)),
            Query(
                f"{sealed.collection}.reseal",
                "terminal",
                _ROTATE,
                update(sealed.collection, {"_id": ":id", sealed.field: ":sealed"}),
            ),
        )
    ),
]
