"""How the database answers a query: its own account of it, and the rule that every query of a request has to keep."""

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
    """What `explain("executionStats")` says. `returned` counts documents: found, or for a write matched."""

    index: str
    keys: int
    docs: int
    returned: int
    ms: int
    sorts: bool = False
    """The found documents are sorted in memory, because no index has their order."""


class Finding(Struct, frozen=True):
    """One query with one set of parameters, how it was answered, and what is wrong with that."""

    query: str
    path: str
    case: str
    plan: Plan
    fault: str | None = None


async def explain(database: Database, query: Query, case: str, parameters: Parameters) -> Finding:
    """Have the database run a query with its plan counted; a write is not applied.

    Raises:
        StartupRefused: the server is a mongos, whose shards each answer with a plan of their own.
    """
    command = filled(query.command, parameters)
    plan = read_plan(await database.raw.command({"explain": command, "verbosity": "executionStats"}))
    return Finding(query.name, query.path, case, plan, fault_of(query, points_of(command), plan))


def fault_of(query: Query, points: int, plan: Plan) -> str | None:
    """Say how a query of a request breaks the rule, or None. `points` is for how many single values it asks.

    It may examine the documents that it returns and one more, and as many keys and one more for each value. A query with a bound of its
    own may examine that much. Jobs and commands at a terminal read whole collections, in pages, on purpose.
    """
    if query.path != "request":
        return None
    if plan.index == SCAN:
        return "no index serves it"
    for what, examined, allowed in (
        ("documents", plan.docs, plan.returned + 1),
        ("keys", plan.keys, plan.returned + query.seeks * points),
    ):
        if examined > max(allowed, query.bound):
            return f"examined {examined:,} {what}, may examine {max(allowed, query.bound):,}"
    return None


def idle_indexes(
    findings: Sequence[Finding], queries: Mapping[str, Query], indexes: Mapping[str, Sequence[IndexModel]]
) -> list[str]:
    """Return the secondary indexes, as `collection.index`, that no query was answered by."""
    used = {f"{queries[finding.query].collection}.{finding.plan.index}" for finding in findings}
    return sorted(set(names_of(indexes)) - used)


def names_of(indexes: Mapping[str, Sequence[IndexModel]]) -> list[str]:
    return [f"{collection}.{index.document['name']}" for collection, models in indexes.items() for index in models]


def filled(template: Any, parameters: Parameters) -> Any:
    """Return a command with its parameters (texts that begin with a colon) put in.

    Raises:
        KeyError: one of them is missing.
    """
    if isinstance(template, Mapping):
        return {name: filled(value, parameters) for name, value in template.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(template, list):
        return [filled(each, parameters) for each in template]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(template, str) and template.startswith(":"):
        return parameters[template[1:]]
    return template


def points_of(command: Document) -> int:
    """Return for how many single values a command asks: the longest of its lists, and at least one."""
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
    """Read the answer of MongoDB 6 to 8 to `explain`.

    Raises:
        StartupRefused: it comes from a mongos.
    """
    if "shards" in reply:
        raise StartupRefused("`guerdon explain` needs a replica set; on a sharded cluster run it on one like a shard")
    found = reply if "executionStats" in reply else reply["stages"][0]["$cursor"]
    stats: Document = found["executionStats"]
    planned: Document = found["queryPlanner"]["winningPlan"]
    stages = list(_stages(planned.get("queryPlan", planned)))
    names = [str(stage["indexName"]) for stage in stages if "indexName" in stage]
    names += [BUILT_IN for stage in stages if stage["stage"] == "IDHACK"]
    names += [SCAN for stage in stages if stage["stage"] == "COLLSCAN"]
    ran = list(_stages(stats["executionStages"]))
    changed = [int(stage[count]) for stage in ran for count in ("nMatched", "nWouldDelete") if count in stage]
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
