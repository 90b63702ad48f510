"""The catalogue. Each query stands here as the command that is sent, with `:names` where values go; its shape is derived from that.

A test watches what the driver sends and fails when the two differ in either direction, so this list is complete and holds nothing dead.
"""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from guerdon import outbox
from guerdon.audit.models import AUDIT
from guerdon.catalogue.shapes import AGGREGATE, DELETE, FIND, FIND_AND_MODIFY, KINDS, UPDATE, shapes_of
from guerdon.database import Document
from guerdon.factors.models import FACTORS
from guerdon.history.service import EXAMINED_MAX
from guerdon.identity import vault as identity_vault
from guerdon.identity.models import CLAIMS, LOOKUP_KEYS, MEMBERS, PERSON_KEYS, SERVICE_KEYS
from guerdon.ledger.checkpoints import CHECKPOINTS
from guerdon.ledger.due import HOLD_DOCUMENTS
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS
from guerdon.ledger.turns import TURNS
from guerdon.outbox import OUTBOX
from guerdon.recovery.models import RESETS
from guerdon.rewards.models import CAMPAIGNS, CAMPAIGNS_LIVE_MAX, EVENTS
from guerdon.sessions.models import SESSIONS
from guerdon.wallets.models import ASSETS
from guerdon.workers.models import LEASES

Path = Literal["request", "job", "terminal", "server"]
"""Who waits for it: a caller, nobody, somebody at a terminal; or MongoDB sends it itself."""
COMMANDS = "every command that moves value"


class Query(Struct, frozen=True):
    """One query of the product."""

    name: str
    path: Path
    callers: str
    """The routes, the job or the command that send it."""
    command: Document
    bound: int = 0
    """So much it may examine, whatever it returns; 0: the rule for requests and nothing else."""
    seeks: int = 1
    """How many keys it may meet on the way to one value; see docs/indexes.md where that is not 1."""
    explained: bool = True
    """False for a change stream, which reads the log of operations and no collection."""

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if kind in self.command)

    @property
    def collection(self) -> str:
        return str(self.command[self.kind])

    @property
    def shape(self) -> str:
        [shape] = shapes_of(self.command)
        return shape


# --- how a command is written down --------------------------------------------------------------------------------------


def _find(
    collection: str, where: Document, *, sort: Document | None = None, limit: bool = False, fields: Sequence[str] = ()
) -> Document:
    command: Document = {FIND: collection, "filter": where}
    if sort is not None:
        command["sort"] = sort
    if limit:
        command["limit"] = ":limit"
    if fields:
        command["projection"] = dict.fromkeys(fields, 1)
    return command


def _one(collection: str, where: Document, **more: Any) -> Document:
    return {**_find(collection, where, **more), "limit": 1}


def _read(collection: str, where: Document) -> Document:
    """A part of the one read of a batch; the parts are united by `$unionWith`, and each is planned for itself."""
    return {AGGREGATE: collection, "pipeline": [{"$match": where}], "cursor": {}}


def _update(collection: str, where: Document, *, upsert: bool = False) -> Document:
    return {UPDATE: collection, "updates": [{"q": where, "u": {"$set": {"touched": True}}, "upsert": upsert}]}


def _delete(collection: str, where: Document) -> Document:
    return {DELETE: collection, "deletes": [{"q": where, "limit": 1}]}


_ID: Document = {"_id": ":id"}
_IDS: Document = {"_id": {"$in": ":ids"}}
_OWN: Document = {"_id": ":id", "owner": ":owner"}
_AFTER: Document = {"_id": {"$gt": ":after"}}
_SPAN: Document = {"_id": {"$gte": ":first", "$lte": ":last"}, "owner": ":owner"}
_ABOUT: Document = {"_id": {"$gte": ":first", "$lt": ":last"}}
_MARKS: Document = {"owner": {"$in": ":owners"}, "once": {"$in": ":marks"}}
_UP, _DOWN = {"_id": 1}, {"_id": -1}

IDENTITY = [
    Query("claims.get", "request", "POST /v1/auth/login, GET /v1/members, POST /v1/events", _one(CLAIMS, _ID)),
    Query("claims.known", "request", "POST /v1/events, guerdon replay", _find(CLAIMS, _IDS, limit=True)),
    Query(
        "claims.taken", "request", "POST /v1/auth/register, POST /v1/members, when taken", _find(CLAIMS, _IDS, sort=_UP, limit=True)
    ),
    Query("members.get", "request", "GET /v1/me, GET /v1/members/{member_id}, most others", _one(MEMBERS, _ID)),
    Query("members.first", "request", "GET /v1/members", _find(MEMBERS, {}, sort=_DOWN, limit=True)),
    Query("members.next", "request", "GET /v1/members", _find(MEMBERS, {"_id": {"$lt": ":before"}}, sort=_DOWN, limit=True)),
    Query(
        "members.rehash",
        "request",
        "POST /v1/auth/login, for an older hash, PUT /v1/me/password",
        _update(MEMBERS, {"_id": ":id", "password_hash": ":hash"}),
    ),
    Query(
        "person_keys.get",
        "request",
        "whatever shows a member or a session; log-in; events that read the member",
        _one(PERSON_KEYS, _ID),
    ),
    Query("person_keys.page", "request", "GET /v1/members", _find(PERSON_KEYS, _IDS, limit=True)),
    Query("lookup_keys.get", "terminal", "the start of a process", _one(LOOKUP_KEYS, _ID)),
    Query("members.any", "terminal", "the start of a process", _one(MEMBERS, {}, sort=_UP, fields=["_id"])),
    Query("service_keys.get", "request", "every request with a service key, every two seconds", _one(SERVICE_KEYS, _ID)),
    Query(
        "service_keys.list",
        "terminal",
        "guerdon keys list",
        _find(SERVICE_KEYS, {}, sort={"created_at": -1, "_id": 1}, limit=True),
    ),
    Query("service_keys.page", "request", "GET /v1/keys", _find(SERVICE_KEYS, _AFTER, sort=_UP, limit=True)),
    Query(
        "service_keys.revoke",
        "request",
        "DELETE /v1/keys/{key_id}, guerdon keys revoke",
        _update(SERVICE_KEYS, {"_id": ":id", "revoked_at": None}),
    ),
    Query("service_keys.used", "job", "every process, at most every five minutes for each key in use", _update(SERVICE_KEYS, _ID)),
]

_ROTATE = "guerdon keys rotate-master"
MASTER_SEALED = [
    query
    for place in (*identity_vault.MASTER_SEALED, *outbox.MASTER_SEALED)
    for query in (
        Query(f"{place.collection}.all", "terminal", _ROTATE, _find(place.collection, _AFTER, sort=_UP, limit=True)),
        Query(f"{place.collection}.reseal", "terminal", _ROTATE, _update(place.collection, {"_id": ":id", place.field: ":sealed"})),
    )
]

SESSIONS_AND_STANDING = [
    Query("sessions.get", "request", "POST /v1/auth/refresh, every request with an access token, every 30 s", _one(SESSIONS, _ID)),
    Query(
        "sessions.list",
        "request",
        "POST /v1/auth/login, GET and DELETE /v1/me/sessions, PUT /v1/me/password",
        _find(SESSIONS, _ABOUT, limit=True),
    ),
    Query(
        "sessions.rotate",
        "request",
        "POST /v1/auth/refresh",
        {FIND_AND_MODIFY: SESSIONS, "query": {"_id": ":id", "current": ":digest"}, "update": {"$set": {"touched": True}}},
    ),
    Query("sessions.end", "request", "an older token of a session, the oldest of too many", _delete(SESSIONS, _ID)),
    Query(
        "sessions.end_own",
        "request",
        "DELETE /v1/me/sessions/{session_id}",
        _delete(SESSIONS, {"_id": ":id", "member": ":member"}),
    ),
    Query("sessions.log_out", "request", "POST /v1/auth/logout", _delete(SESSIONS, {"_id": ":id", "family": ":digest"})),
    Query(
        "sessions.expire",
        "server",
        "MongoDB's own job for indexes with an expiry",
        {DELETE: SESSIONS, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
    ),
    Query(
        "members.change", "request", "POST /v1/members/{member_id}/disable, enable, PUT …/role", _update(MEMBERS, {"_id": ":id"})
    ),
]

_FACTORS = "POST /v1/me/totp/confirm, remove, recovery-codes, POST /v1/auth/login, of those who work here"

SECOND_FACTORS = [
    Query("factors.get", "request", f"GET /v1/me/totp, {_FACTORS}", _one(FACTORS, _ID)),
    Query("factors.begin", "request", "POST /v1/me/totp", _update(FACTORS, {"_id": ":id", "confirmed_at": ":none"}, upsert=True)),
    Query(
        "factors.confirm",
        "request",
        "POST /v1/me/totp/confirm",
        _update(FACTORS, {"_id": ":id", "confirmed_at": ":none", "sealed": ":sealed"}),
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
    Query("factors.step", "request", _FACTORS, _update(FACTORS, {"_id": ":id", "last_step": {"$lt": ":step"}})),
    Query("factors.code", "request", _FACTORS, _update(FACTORS, {"_id": ":id", "codes": ":digest"})),
    Query("factors.renew", "request", "POST /v1/me/totp/recovery-codes", _update(FACTORS, _ID)),
    Query("factors.remove", "request", "POST /v1/me/totp/remove, guerdon admin remove-totp", _delete(FACTORS, _ID)),
]

RECOVERY = [
    Query("resets.get", "request", "POST /v1/auth/reset, the recovery job, the mail job", _one(RESETS, _ID)),
    Query("resets.replace", "job", "the recovery job, guerdon admin reset", _update(RESETS, _ID, upsert=True)),
    Query("resets.use", "request", "POST /v1/auth/reset", _delete(RESETS, {"_id": ":id", "secret_sha256": ":digest"})),
    Query("members.set_hash", "request", "POST /v1/auth/reset", _update(MEMBERS, {"_id": ":id", "disabled_at": None})),
    Query(
        "outbox.due",
        "job",
        "the recovery job, the mail job",
        _find(OUTBOX, {"channel": ":channel", "due_at": {"$lte": ":now"}}, sort={"due_at": 1}, limit=True),
    ),
    Query("outbox.change", "job", "the recovery job, the mail job", _update(OUTBOX, {"_id": ":id", "due_at": ":due_at"})),
    *(
        Query(
            f"{name}.expire",
            "server",
            "MongoDB's own job for indexes with an expiry",
            {DELETE: name, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
        )
        for name in (OUTBOX, RESETS)
    ),
]

AUDIT_LOG = [
    Query(
        "audit.newest",
        "request",
        "GET /v1/audit, every change by somebody who works here",
        _find(AUDIT, {}, sort=_DOWN, limit=True),
    ),
    Query("audit.next", "request", "GET /v1/audit", _find(AUDIT, {"_id": {"$lt": ":before"}}, sort=_DOWN, limit=True)),
    Query("audit.read", "terminal", "guerdon audit", _find(AUDIT, _AFTER, sort=_UP, limit=True)),
    Query("audit.get", "terminal", "guerdon audit --after", _find(AUDIT, _ID, limit=True)),
]

WALLETS = [
    Query("assets.get", "request", "the first use of an asset in a process", _one(ASSETS, _ID)),
    Query("assets.list", "request", "GET /v1/assets", _find(ASSETS, {}, sort=_UP, limit=True)),
    Query("accounts.get", "request", "GET /v1/wallets/{wallet_id} and below", _one(ACCOUNTS, _OWN)),
    Query(
        "accounts.list",
        "request",
        "GET /v1/me/wallets, GET /v1/members/{member_id}/wallets",
        _find(ACCOUNTS, {**_ABOUT, "owner": ":owner"}, sort=_UP, limit=True),
    ),
    Query(
        "accounts.exist",
        "request",
        "POST credit, transfer, bulk, for wallets not seen before",
        _find(ACCOUNTS, {**_IDS, "owner": {"$in": ":owners"}}, fields=["_id"]),
    ),
]

LEDGER = [
    Query("batch.accounts", "request", COMMANDS, _read(ACCOUNTS, {**_IDS, "owner": {"$in": ":owners"}})),
    Query("batch.marks", "request", COMMANDS, _read(ENTRIES, _MARKS), seeks=3),
    Query("batch.events", "request", "POST /v1/events", _read(EVENTS, _IDS)),
    Query("batch.holds", "request", "POST /v1/holds/{hold_id}/capture, void", _read(HOLD_DOCUMENTS, _IDS)),
    Query("batch.reversals", "request", "POST /v1/transactions/{transaction_id}/reverse", _read(REVERSALS, _IDS)),
    Query("accounts.move", "request", COMMANDS, _update(ACCOUNTS, _ID)),
    Query("accounts.move_sharded", "request", COMMANDS + ", on a sharded cluster", _update(ACCOUNTS, _OWN)),
    Query(
        "holds.change", "request", "POST /v1/holds/{hold_id}/capture, void; the sweep", _update(HOLD_DOCUMENTS, _OWN, upsert=True)
    ),
    Query("reversals.count", "request", "POST /v1/transactions/{transaction_id}/reverse", _update(REVERSALS, _OWN, upsert=True)),
    Query(
        "turns.ask",
        "request",
        COMMANDS + ", on an account that other processes move as well",
        {FIND_AND_MODIFY: TURNS, "query": _ID, "update": {"$set": {"touched": True}}, "upsert": True},
    ),
    Query(
        "turns.end",
        "request",
        COMMANDS + ", on an account that other processes move as well",
        {FIND_AND_MODIFY: TURNS, "query": {"_id": ":id", "holder": ":holder", "line": ":line"}, "remove": True},
    ),
    Query(
        "accounts.due",
        "job",
        "the sweep",
        _find(ACCOUNTS, {"due_at": {"$lte": ":now"}}, sort={"due_at": 1}, limit=True, fields=["owner"]),
    ),
    Query(
        "refusals.expire",
        "server",
        "MongoDB's own job for indexes with an expiry",
        {DELETE: ENTRIES, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
    ),
]

HISTORY = [
    Query("entries.get", "request", "balance, statements, GET /v1/transactions/{transaction_id}", _one(ENTRIES, _OWN)),
    Query("entries.page", "request", "GET /v1/wallets/{wallet_id}/entries", _find(ENTRIES, _SPAN, sort=_DOWN, limit=True)),
    Query(
        "entries.kind",
        "request",
        "GET /v1/wallets/{wallet_id}/entries?kind=",
        _find(ENTRIES, {**_SPAN, "kind": ":kind"}, sort=_DOWN, limit=True),
        bound=EXAMINED_MAX,
    ),
    Query(
        "entries.reference",
        "request",
        "GET /v1/wallets/{wallet_id}/entries?reference=",
        {**_one(ENTRIES, {"owner": ":owner", "once": ":mark"}), "hint": "once"},
    ),
    Query(
        "entries.probe",
        "request",
        "from=, to=, balance?at=, statements: one step of the search",
        _find(ENTRIES, {**_IDS, "owner": ":owner"}, fields=["at"]),
    ),
    Query(
        "entries.statement",
        "request",
        "GET /v1/wallets/{wallet_id}/statements/{month}: 200 entries",
        _find(ENTRIES, _SPAN, sort=_UP),
    ),
    Query(
        "entries.stream",
        "request",
        "GET /v1/wallets/{wallet_id}/stream",
        _find(ENTRIES, {"_id": {"$gt": ":first", "$lte": ":last"}, "owner": ":owner"}, sort=_UP, limit=True),
    ),
    Query(
        "entries.feed",
        "request",
        "GET /v1/wallets/{wallet_id}/stream: one for a process",
        {AGGREGATE: ENTRIES, "pipeline": [{"$changeStream": {}}], "cursor": {}},
        explained=False,
    ),
    Query("holds.get", "request", "GET /v1/holds/{hold_id}", _one(HOLD_DOCUMENTS, _OWN)),
    Query("reversals.get", "request", "GET /v1/transactions/{transaction_id}", _one(REVERSALS, _OWN)),
]

_COUNTED: Document = {
    AGGREGATE: CAMPAIGNS,
    "pipeline": [{"$match": {"status": ":status"}}, {"$group": {"_id": 1, "n": {"$sum": 1}}}],
    "cursor": {},
}

REWARDS = [
    Query("events.get", "request", "GET /v1/events/{event_id}, POST /v1/events for an unknown member", _one(EVENTS, _ID)),
    Query("campaigns.get", "request", "GET, PUT, activate, pause of /v1/campaigns/{campaign_id}", _one(CAMPAIGNS, _ID)),
    Query("campaigns.first", "request", "GET /v1/campaigns", _find(CAMPAIGNS, {}, sort=_DOWN, limit=True)),
    Query("campaigns.next", "request", "GET /v1/campaigns", _find(CAMPAIGNS, {"_id": {"$lt": ":before"}}, sort=_DOWN, limit=True)),
    Query(
        "campaigns.first_by_status",
        "request",
        "GET /v1/campaigns?status=",
        _find(CAMPAIGNS, {"status": ":status"}, sort=_DOWN, limit=True),
    ),
    Query(
        "campaigns.next_by_status",
        "request",
        "GET /v1/campaigns?status=",
        _find(CAMPAIGNS, {"_id": {"$lt": ":before"}, "status": ":status"}, sort=_DOWN, limit=True),
    ),
    Query(
        "campaigns.live",
        "request",
        "POST /v1/events, POST /v1/events/preview, once a second",
        _find(CAMPAIGNS, {"status": ":status"}, sort=_UP, limit=True),
    ),
    Query("campaigns.count", "request", "POST /v1/campaigns/{campaign_id}/activate", _COUNTED, bound=CAMPAIGNS_LIVE_MAX + 1),
    Query(
        "campaigns.replace",
        "request",
        "PUT, activate, pause of /v1/campaigns/{campaign_id}",
        _update(CAMPAIGNS, {"_id": ":id", "version": ":version", "changed_at": ":changed_at"}),
    ),
]

JOBS = [
    Query(
        "leases.take",
        "job",
        "every worker, for every job",
        {FIND_AND_MODIFY: LEASES, "query": _ID, "update": {"$set": {"touched": True}}, "upsert": True},
    ),
    Query("leases.keep", "job", "the worker that runs a job", _update(LEASES, {"_id": ":id", "holder": ":holder"})),
    Query("checkpoints.newest", "job", "the checkpoint job", _one(CHECKPOINTS, {}, sort=_DOWN)),
    Query("checkpoints.all", "job", "the checkpoint job, guerdon verify", _find(CHECKPOINTS, {}, sort=_UP)),
    Query("checkpoints.touch", "job", "the checkpoint job", _update(CHECKPOINTS, _ID)),
    Query(
        "checkpoints.accounts",
        "job",
        "the checkpoint job",
        _find(ACCOUNTS, {}, sort=_UP, fields=["kind", "seq", "head", "opened_at", "at"]),
    ),
    Query("checkpoints.heads", "job", "the checkpoint job", _find(ENTRIES, _IDS, fields=["at", "hash"])),
]

_LOOK = (
    "owner",
    "asset",
    "kind",
    "amount",
    "counter",
    "actor",
    "at",
    "transaction",
    "pair",
    "lots",
    "hold",
    "metadata",
    "reverses",
)
_BETWEEN: Document = {"_id": {"$gt": ":first", "$lt": ":last"}}
_VERIFY = "guerdon verify"

VERIFY = [
    Query("verify.accounts", "terminal", _VERIFY, _find(ACCOUNTS, _AFTER, sort=_UP, limit=True)),
    Query("verify.owners_rest", "terminal", _VERIFY, _find(ACCOUNTS, _BETWEEN, sort=_UP)),
    Query("verify.account", "terminal", "guerdon verify --account", _find(ACCOUNTS, _ID, sort=_UP, limit=True)),
    Query("verify.entries", "terminal", _VERIFY, _find(ENTRIES, {"_id": {"$gt": ":first", "$lte": ":last"}}, sort=_UP)),
    Query("verify.entries_rest", "terminal", _VERIFY, _find(ENTRIES, _AFTER, sort=_UP)),
    Query("verify.active_holds", "terminal", _VERIFY, _find(HOLD_DOCUMENTS, {**_ABOUT, "status": ":status"})),
    Query("verify.reversals", "terminal", _VERIFY, _find(REVERSALS, _ABOUT)),
    Query("verify.seq", "terminal", _VERIFY, _one(ACCOUNTS, _ID, fields=["seq"])),
    Query("verify.look_up", "terminal", _VERIFY, _find(ENTRIES, _IDS, fields=_LOOK)),
    Query("verify.marks", "terminal", _VERIFY, _find(ENTRIES, _MARKS, fields=["once", "owner"])),
    Query("verify.ended_holds", "terminal", _VERIFY, _find(HOLD_DOCUMENTS, _IDS)),
    Query("verify.all_events", "terminal", _VERIFY, _find(EVENTS, _AFTER, sort=_UP)),
    Query("verify.all_holds", "terminal", _VERIFY, _find(HOLD_DOCUMENTS, _AFTER, sort=_UP)),
    Query("verify.all_reversals", "terminal", _VERIFY, _find(REVERSALS, _AFTER, sort=_UP)),
    Query("verify.all_refusals", "terminal", _VERIFY, _find(ENTRIES, _BETWEEN, sort=_UP)),
    Query(
        "verify.beside_refusals",
        "terminal",
        _VERIFY,
        _find(ENTRIES, {**_MARKS, "balance_after": {"$exists": True}}, fields=["once"]),
    ),
]

QUERIES = {
    query.name: query
    for query in (
        *IDENTITY,
        *MASTER_SEALED,
        *SESSIONS_AND_STANDING,
        *SECOND_FACTORS,
        *RECOVERY,
        *AUDIT_LOG,
        *WALLETS,
        *LEDGER,
        *HISTORY,
        *REWARDS,
        *JOBS,
        *VERIFY,
    )
}
