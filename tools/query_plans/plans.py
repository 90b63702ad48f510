"""Query plans, as `explain` returns them, and the rule for queries of requests."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from pymongo import IndexModel

from guerdon.database import Database, Document
from guerdon.errors import StartupRefused
from tools.query_plans.notation import Query
from tools.query_plans.shapes import AGGREGATE, FIND, FIND_AND_MODIFY, UPDATE

SCAN = "none: whole collection"
BUILT_IN = "_id_"
Parameters = Mapping[str, Any]


class Plan(Struct, frozen=True):
    """Result of `explain("executionStats")`. `returned` is the number of documents that were found or, for a write, matched."""

    index: str
    keys: int
    docs: int
    returned: int
    ms: int
    sorts: bool = False
    """True if the documents are sorted in memory, because no index has their order."""


class Finding(Struct, frozen=True):
    """Plan of a query with one set of parameters, and its violation of the rule, if any."""

    query: str
    path: str
    case: str
    plan: Plan
    fault: str | None = None


async def explain(database: Database, query: Query, case: str, parameters: Parameters) -> Finding:
    """Explain a query with the given parameters. A write is not applied.

    Raises:
        StartupRefused: the server is a mongos, where each shard has its own plan.
    """
    command = filled(query.command, parameters)
    plan = read_plan(await database.raw.command({"explain": command, "verbosity": "executionStats"}))
    return Finding(query.name, query.path, case, plan, fault_of(query, points_of(command), plan))


def fault_of(query: Query, points: int, plan: Plan) -> str | None:
    """Return a description of how a query of a request violates the rule, or None. `points` is the number of single values that it asks for.

    A query may examine the documents that it returns plus one, and as many keys plus `seeks` for each value. A query with a `bound` may examine that
    number. Jobs and commands at a terminal read whole collections in pages, so the rule does not apply to them.
    """
    if query.path != "request":
        return None
    if plan.index == SCAN:
        return "no index serves it"
    for name, examined, allowed in (
        ("documents", plan.docs, plan.returned + 1),
        ("keys", plan.keys, plan.returned + query.seeks * points),
    ):
        if examined > max(allowed, query.bound):
            return f"examined {examined:,} {name}, may examine {max(allowed, query.bound):,}"
    return None


def idle_indexes(
    findings: Sequence[Finding], queries: Mapping[str, Query], indexes: Mapping[str, Sequence[IndexModel]]
) -> list[str]:
    """Return the secondary indexes that serve no query, as `collection.index`."""
    used = {f"{queries[finding.query].collection}.{finding.plan.index}" for finding in findings}
    return sorted(set(names_of(indexes)) - used)


def names_of(indexes: Mapping[str, Sequence[IndexModel]]) -> list[str]:
    return [f"{collection}.{index.document['name']}" for collection, models in indexes.items() for index in models]


def filled(template: Any, parameters: Parameters) -> Any:
    """Return a command with its parameters (texts that begin with a colon) replaced by values.

    Raises:
        KeyError: a parameter is missing.
    """
    if isinstance(template, Mapping):
        return {name: filled(value, parameters) for name, value in template.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(template, list):
        return [filled(each, parameters) for each in template]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(template, str) and template.startswith(":"):
        return parameters[template[1:]]
    return template


def points_of(command: Document) -> int:
    """Return the number of single values that a command asks for: the length of its longest list, at least 1."""
    return max([1, *(len(values) for values in _lists(where_of(command)))])


def where_of(command: Document) -> Document:
    """Return the filter of a command."""
    if FIND in command:
        return command["filter"]
    if AGGREGATE in command:
        return command["pipeline"][0]["$match"]
    if FIND_AND_MODIFY in command:
        return command["query"]
    return command["updates" if UPDATE in command else "deletes"][0]["q"]


def _lists(where: Document) -> Iterator[list[Any]]:
    for value in where.values():
        if isinstance(value, dict) and "$in" in value:
            yield value["$in"]


def read_plan(reply: Document) -> Plan:
    """Read a reply of MongoDB 6 to 8 to `explain`.

    Raises:
        StartupRefused: the reply comes from a mongos.
    """
    if "shards" in reply:
        raise StartupRefused("query plans need a replica set; for a sharded cluster, use a replica set like one of its shards")
    found = reply if "executionStats" in reply else reply["stages"][0]["$cursor"]
    stats: Document = found["executionStats"]
    planned: Document = found["queryPlanner"]["winningPlan"]
    stages = list(_stages(planned.get("queryPlan", planned)))
    names = [str(stage["indexName"]) for stage in stages if "indexName" in stage]
    names += [BUILT_IN for stage in stages if stage["stage"] == "IDHACK"]
    names += [SCAN for stage in stages if stage["stage"] == "COLLSCAN"]
    executed = list(_stages(stats["executionStages"]))
    changed = [int(stage[count]) for stage in executed for count in ("nMatched", "nWouldDelete") if count in stage]
    return Plan(
        index=" and ".join(dict.fromkeys(names)) or BUILT_IN,
        keys=stats["totalKeysExamined"],
        docs=stats["totalDocsExamined"],
        returned=changed[0] if changed else stats["nReturned"],
        ms=stats["executionTimeMillis"],
        sorts=any(stage["stage"] == "SORT" for stage in stages),
    )


def _stages(stage: Document) -> Iterator[Document]:
    yield stage
    for name in ("inputStage", "outerStage", "innerStage"):
        if name in stage:
            yield from _stages(stage[name])
    for each in stage.get("inputStages", ()):
        yield from _stages(each)
