"""The catalogue of queries: it holds what is sent and nothing else, each query of a request keeps the rule, each index serves."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import bson
import pytest
import pytest_asyncio
from falcon.asgi import App
from pymongo import IndexModel, monitoring
from tools.personal_data import PEOPLE
from tools.query_plans.cases import cases_of
from tools.query_plans.explain import explain_all
from tools.query_plans.notation import Query
from tools.query_plans.plans import SCAN, Plan, explain, fault_of, idle_indexes, names_of
from tools.query_plans.queries import QUERIES
from tools.query_plans.sample import SUFFIX, Sample, fill, scratch_database
from tools.query_plans.shapes import shapes_of
from tools.query_plans.write_cost import CONTROL, WRITES, Cost, Write, measure

from guerdon.campaigns.models import CAMPAIGNS
from guerdon.collections import INDEXES
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.conftest import DATABASE
from tests.factories import Factory
from tests.invariants import use_all_routes
from tests.invariants.test_mongodb_commands import Recorder
from tests.invariants.use_codes import use_codes
from tests.invariants.use_point_of_sale import use_till
from tests.serving import routes_of

SMALL = 5000
Explained = tuple[Database, Sample]
_recorder = Recorder()
monitoring.register(_recorder)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    _recorder.commands.clear()
    _recorder.on = True
    yield _recorder
    _recorder.on = False


# --- what is sent -------------------------------------------------------------------------------------------------------


class House(NamedTuple):
    """Who uses the service."""

    anonymous: Caller
    service: Caller
    factory: Factory
    clock: ManualClock
    master_keys: str


@pytest.fixture
def house(anonymous: Caller, service: Caller, factory: Factory, clock: ManualClock, master_keys: str) -> House:
    return House(anonymous, service, factory, clock, master_keys)


@pytest.mark.own_app
async def test_listed_queries_are_exactly_those_that_are_sent(
    app: App[Any, Any], services: Services, house: House, recorder: Recorder
) -> None:
    anonymous, service, factory, clock, master_keys = house
    await use_all_routes.use_identity(anonymous, service, services, factory, recorder)
    await use_all_routes.use_factors(anonymous, services, factory)
    await use_all_routes.use_recovery(anonymous, services)
    wallet = await use_all_routes.use_wallets(service, services, factory)
    await use_all_routes.use_history(app, service, clock, wallet)
    await use_all_routes.use_rewards(service, services, factory, clock)
    await use_all_routes.use_tiers(service, factory)
    await use_all_routes.use_vouchers(service, factory)
    await use_all_routes.use_segments(service, services, factory)
    await use_all_routes.use_simulations(service, services, factory)
    await use_codes(service, services, factory)
    await use_till(service, factory)
    await use_all_routes.use_finance(service, services)
    await use_all_routes.use_reports(service, services, factory)
    await use_all_routes.use_privacy(anonymous, service, services, factory)
    await use_all_routes.use_operations(anonymous, service, services)
    await use_all_routes.run_jobs(services, clock, wallet)
    await use_all_routes.use_exports(service, services, factory, clock)
    with pytest.MonkeyPatch.context() as monkeypatch:
        await use_all_routes.run_proofs(services, monkeypatch, recorder, wallet)
    await use_all_routes.rotate_master_keys(services, master_keys)
    recorder.on = False
    served = {f"{route.method} {route.path}" for route in routes_of(app)}
    assert served - await used(service) == set(), "not used above"
    sent = {shape for command in recorder.commands for shape in shapes_of(command)}
    ours = {query.shape for query in QUERIES.values() if query.path != "server"}
    assert sent - ours == set(), "sent, and not in the catalogue"
    assert ours - sent == set(), "in the catalogue, and never sent"
    assert await undeclared(services) == set(), "these say something of people, and tools/personal_data.py does not know"


async def undeclared(services: Services) -> set[str]:
    """The collections in which a member stands although nobody is said to be named there."""
    names = {name for name in await services.database.raw.list_collection_names() if PEOPLE.get(name) is None}
    return {name for name in names if b"mem_" in b"".join([bson.encode(row) async for row in services.database.raw[name].find({})])}


async def used(service: Caller) -> set[str]:
    """Routes that have answered well, as the service itself has counted them."""
    text = (await service.get("/metrics")).text
    counted = re.findall(r'guerdon_http_requests_total\{method="(\w+)",route="([^"]+)",status="2..?"\}', text)
    return {f"{method} {route}" for method, route in counted}


def test_shapes_are_distinct() -> None:
    shapes = [query.shape for query in QUERIES.values()]
    assert sorted(shapes) == sorted(set(shapes))


@pytest.mark.parametrize(
    ("command", "shape"),
    [
        ({"find": "c", "filter": {"b": {"$in": [1]}, "a": None}, "limit": 5}, "find c {a, b: {$in}} limit"),
        ({"find": "c", "filter": {"a": {"x": 1}}, "sort": {"_id": -1}}, "find c {a} sort {_id: -1}"),
        ({"find": "c", "projection": {"z": 1, "y": 1}, "hint": "i"}, "find c {} fields {y, z} hint i"),
        ({"update": "c", "updates": [{"q": {"_id": 1}, "u": {}, "upsert": True}]}, "update c {_id} or insert"),
        ({"delete": "c", "deletes": [{"q": {"a": {"$lte": 1}}, "limit": 0}]}, "delete c {a: {$lte}}"),
        ({"findAndModify": "c", "query": {"_id": 1}, "update": {}}, "findAndModify c {_id}"),
        ({"aggregate": "c", "pipeline": [{"$match": {"a": 1}}, {"$group": {}}]}, "aggregate c {a} $group"),
    ],
)
def test_a_shape_has_no_values(command: dict[str, Any], shape: str) -> None:
    assert list(shapes_of(command)) == [shape]


def test_a_read_of_several_collections_has_several_shapes() -> None:
    union = {"$unionWith": {"coll": "d", "pipeline": [{"$match": {"b": {"$in": []}}}, {"$addFields": {"t": "d"}}]}}
    command = {"aggregate": "c", "pipeline": [{"$match": {"a": 1}}, union]}
    assert sorted(shapes_of(command)) == ["aggregate c {a}", "aggregate d {b: {$in}}"]


# --- how it is answered -------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module")
async def explained(mongodb_url: str) -> AsyncIterator[Explained]:
    async with scratch_database(mongodb_url, DATABASE) as database:
        yield database, await fill(database, SMALL, lambda _: None)


async def test_every_request_query_keeps_its_bound_and_every_index_is_used(explained: Explained) -> None:
    findings = await explain_all(*explained)
    assert [(each.query, each.case, each.fault) for each in findings if each.fault] == []
    assert idle_indexes(findings, QUERIES, INDEXES) == []
    assert {each.query for each in findings} == {name for name, query in QUERIES.items() if query.explained}
    found = {each.query for each in findings if each.plan.returned}
    assert set(QUERIES) - found == {
        "entries.watch",
        "refusals.expire",
        "sessions.expire",
        "claims.expire",
        "outbox.expire",
        "resets.expire",
        "simulations.expire",
        "export_jobs.expire",
        "view_workers.expire",
        "checkpoints.touch",
        "verify.refused_keys",
    }
    assert {each.query for each in findings if each.plan.index == SCAN} == {"service_keys.list", "verify.issued"}


async def test_a_query_without_an_index_is_caught(explained: Explained) -> None:
    database, _ = explained
    wanted = Query("by reference", "request", "nobody", {"find": ENTRIES, "filter": {"reference": ":reference"}, "limit": 1})
    finding = await explain(database, wanted, "miss", {"reference": "none"})
    assert (finding.plan.index, finding.plan.docs >= SMALL, finding.fault) == (SCAN, True, "no index serves it")


async def test_a_query_that_filters_behind_its_index_is_caught(explained: Explained) -> None:
    database, sample = explained
    where = {"_id": {"$gte": ":first", "$lt": ":last"}, "balance": {"$lt": 0}}
    wanted = Query("debts", "request", "nobody", {"find": ACCOUNTS, "filter": where})
    finding = await explain(database, wanted, "100 wallets", {"first": f"{sample.collector}:", "last": f"{sample.collector};"})
    assert finding.plan == Plan("_id_", 100, 100, 0, finding.plan.ms)
    assert finding.fault == "examined 100 documents, may examine 1"


async def test_a_dropped_index_and_an_idle_one_are_caught(explained: Explained) -> None:
    database, sample = explained
    findings = await explain_all(database, sample)
    more = {**INDEXES, ENTRIES: [*INDEXES[ENTRIES], IndexModel([("at", 1)], name="at")]}
    assert idle_indexes(findings, QUERIES, more) == ["entries.at"]
    await database.raw[CAMPAIGNS].drop_index("status")
    try:
        broken = {each.query for each in await explain_all(database, sample) if each.fault}
    finally:
        await database.sync_indexes(INDEXES)
    assert broken >= {"campaigns.live", "campaigns.first_by_status", "campaigns.count"}


def test_number_of_examined_keys_and_documents_is_bounded() -> None:
    query, command = QUERIES["accounts.get"], QUERIES["entries.kind"]
    assert fault_of(query, 1, Plan("_id_", 2, 2, 1, 0)) is None
    assert fault_of(query, 1, Plan("_id_", 3, 2, 1, 0)) == "examined 3 keys, may examine 2"
    assert fault_of(query, 1, Plan("_id_", 2, 3, 1, 0)) == "examined 3 documents, may examine 2"
    assert fault_of(command, 1, Plan("_id_", 1000, 1000, 0, 0)) is None
    assert fault_of(command, 1, Plan("_id_", 1001, 1001, 0, 0)) == "examined 1,001 documents, may examine 1,000"
    assert fault_of(QUERIES["verify.accounts"], 1, Plan(SCAN, 0, 10**6, 0, 0)) is None


# --- the command --------------------------------------------------------------------------------------------------------


async def test_database_not_created_by_explain_is_left_alone(mongodb_url: str) -> None:
    name = "precious"
    database = Database(mongodb_url, name + SUFFIX)
    try:
        await database.raw["books"].insert_one({"_id": 1})
        with pytest.raises(StartupRefused, match="was not created by this command"):
            async with scratch_database(mongodb_url, name):
                pytest.fail("it must not be opened")
        assert await database.raw["books"].count_documents({}) == 1
        await database.client.drop_database(name + SUFFIX)
        with pytest.raises(ZeroDivisionError):
            async with scratch_database(mongodb_url, name):
                assert name + SUFFIX in await database.client.list_database_names()
                raise ZeroDivisionError
        assert name + SUFFIX not in await database.client.list_database_names()
    finally:
        await database.client.drop_database(name + SUFFIX)
        await database.close()


async def test_explain_command_prints_its_report_as_json(mongodb_url: str) -> None:
    environment = {**os.environ, "GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": "explained"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.query_plans", "--entries", "2000", "--json",
        env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    said = json.loads(out)
    assert (said["entries"], said["idle_indexes"]) == (2000, [])
    assert len(said["findings"]) > len(QUERIES)


def test_every_index_has_its_cost_measured() -> None:
    assert sorted(WRITES) == sorted(names_of(INDEXES))


async def test_the_cost_of_writes_is_measured(explained: Explained, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every fifth index; tests/trust/test_write_cost.py measures them all."""
    some = dict(list(WRITES.items())[::5])
    monkeypatch.setattr(sys.modules[measure.__module__], "WRITES", some)
    await check_costs(explained, some, rounds=2)


async def check_costs(explained: Explained, writes_of: Mapping[str, Sequence[Write]], *, rounds: int) -> list[Cost]:
    """Measure; each figure is above zero, whatever else runs: the server has used the processor for each batch."""
    database, _ = explained
    costs = await measure(database, INDEXES, lambda done, total: None, rounds=rounds)
    wanted = [(name, write.name) for name, writes in writes_of.items() for write in writes]
    assert [(each.index, each.write) for each in costs] == [*wanted, (CONTROL, "insert an entry")]
    assert all(each.ratio == each.with_us / each.without_us > 0 for each in costs)
    assert not [name for name in await database.raw.list_collection_names() if name.endswith(("_with", "_without"))]
    return costs


def test_every_case_has_all_its_parameters(explained: Explained) -> None:
    names = {name for name, _, _ in cases_of(explained[1])}
    assert names == {name for name, query in QUERIES.items() if query.explained}
