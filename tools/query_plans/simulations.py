"""Queries of simulations."""

from guerdon.campaigns.domain import EVENTS, REFUNDS
from guerdon.database import Document
from guerdon.simulations.models import OPEN_MAX, SIMULATED_MEMBERS, SIMULATED_PURCHASES, SIMULATIONS
from guerdon.tiers.models import TIER_SET_VERSIONS
from tools.query_plans.notation import ID, IDS, Query, delete, find, one, update
from tools.query_plans.shapes import AGGREGATE, FIND_AND_MODIFY

_JOB = "the simulation jobs"
_PERIOD: Document = {"occurred_at": {"$gte": ":since", "$lt": ":until"}, "recorded_at": {"$lte": ":requested_at"}}
_OF_SIMULATION: Document = {"_id": {"$gte": ":first", "$lt": ":last"}}
_CHANGED: Document = {"$set": {"touched": True}}


def _count(collection: str, where: Document) -> Document:
    return {AGGREGATE: collection, "pipeline": [{"$match": where}, {"$group": {"_id": 1, "n": {"$sum": 1}}}], "cursor": {}}


SIMULATION_QUERIES = [
    Query("simulations.get", "request", "GET /v1/simulations/{simulation_id}", one(SIMULATIONS, ID)),
    Query(
        "simulations.open",
        "request",
        "POST /v1/campaigns/{campaign_id}/simulate",
        _count(SIMULATIONS, {"lane": {"$gte": ":free"}}),
        bound=OPEN_MAX + 1,
    ),
    Query(
        "simulations.cancel",
        "request",
        "POST /v1/simulations/{simulation_id}/cancel",
        {FIND_AND_MODIFY: SIMULATIONS, "query": {"_id": ":id", "status": {"$in": ":statuses"}}, "update": _CHANGED},
    ),
    Query(
        "simulations.take",
        "job",
        _JOB,
        {FIND_AND_MODIFY: SIMULATIONS, "query": {"lane": ":lane"}, "sort": {"_id": 1}, "update": _CHANGED},
    ),
    Query(
        "simulations.move",
        "job",
        _JOB,
        update(SIMULATIONS, {"_id": ":id", "page": ":page", "status": {"$in": ":statuses"}}),
    ),
    Query("simulations.clear", "job", _JOB, update(SIMULATIONS, ID)),
    Query(
        "simulations.expire",
        "server",
        "MongoDB, for indexes with an expiry",
        {"delete": SIMULATIONS, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
    ),
    Query("events.past", "job", _JOB, find(EVENTS, _PERIOD, sort={"occurred_at": 1, "recorded_at": 1})),
    Query("events.past_count", "job", _JOB, _count(EVENTS, _PERIOD)),
    Query("events.refunded", "job", _JOB, find(EVENTS, IDS, limit=True)),
    Query("refunds.known", "job", _JOB, find(REFUNDS, IDS, fields=["voided.at"])),
    Query("tier_set_versions.known", "job", _JOB, find(TIER_SET_VERSIONS, IDS, limit=True)),
    Query("simulated_members.known", "job", _JOB, find(SIMULATED_MEMBERS, IDS, limit=True)),
    Query("simulated_members.replace", "job", _JOB, update(SIMULATED_MEMBERS, ID, upsert=True)),
    Query("simulated_members.all", "job", _JOB, find(SIMULATED_MEMBERS, _OF_SIMULATION, fields=["got"])),
    Query("simulated_members.clear", "job", _JOB, delete(SIMULATED_MEMBERS, _OF_SIMULATION)),
    Query("simulated_purchases.known", "job", _JOB, find(SIMULATED_PURCHASES, IDS, limit=True)),
    Query("simulated_purchases.replace", "job", _JOB, update(SIMULATED_PURCHASES, ID, upsert=True)),
    Query("simulated_purchases.clear", "job", _JOB, delete(SIMULATED_PURCHASES, _OF_SIMULATION)),
]
