"""AZ-2: nobody sets what the server says (mass assignment), and nothing is answered that is not declared."""

from typing import Any

from falcon.asgi import App
from msgspec import inspect as mi

from guerdon.database import Database
from guerdon.http.operation import Operation
from tests.clients import problem
from tests.matrix.bodies import alternatives, bare, bodied, samples_of
from tests.matrix.conftest import Scene, rows
from tests.serving import routes_of

SERVERS = [
    "_id", "id", "actor", "at", "available", "balance", "balance_after", "captured", "ceiling", "created_at", "created_by", "disabled_at",
    "expires_at", "floor", "hash", "head", "held", "id_", "kind", "left", "member_id", "owner", "password_hash", "points_rate", "prev",
    "recorded_at", "role", "scopes", "seq", "session", "status", "tenant_id", "tier", "transaction_id", "version", "$set", "__proto__",
]  # fmt: skip
"""What the server alone says, under the names that it has or could have."""
NESTED = ["balance", "status", "_id"]
EXTENSIBLE = {("BulkResult", "problem"), ("EventResult", "problem"), ("ValidateAnswer", "problem")}
"""A problem document inside an answer: each type of problem may have members of its own (RFC 9457, 3.2)."""


async def test_no_body_accepts_a_server_controlled_field(scene: Scene, database: Database) -> None:
    before, tried = await rows(database), 0
    for route in bodied(scene.routes):
        for sample in samples_of(route.operation.body):
            for pointer, struct in sample.objects:
                declared = {field.encode_name for field in struct.fields} | {struct.tag_field}
                for name in NESTED if pointer else SERVERS:
                    if name in declared:
                        continue
                    answer = await scene.send(route, sample.with_value(f"{pointer}/{name}", 1))
                    refused = problem(answer, 422, "validation")
                    assert refused["errors"] == [{"pointer": f"{pointer}/{name}", "detail": "is not a known field"}], route.path
                    tried += 1
    assert tried > 500
    assert await rows(database) == before


async def test_no_route_accepts_an_undeclared_parameter(scene: Scene) -> None:
    for route in scene.routes:
        if route.operation.policy.public and route.operation.body is None and route.operation.query is None:
            continue  # A page: whoever links to it may have added something.
        for name in ("owner", "role", "member_id[$ne]", "external_id.$ne", "$where", "filter", "limit[]", "_id", "__proto__"):
            answer = await scene.send(route, b"", url=f"{route.url}?{name}=1")
            assert (answer.status_code, answer.json()["code"]) == (422, "validation"), route.path


def structs_below(kind: mi.Type, seen: dict[type, mi.StructType] | None = None) -> dict[type, mi.StructType]:
    """Every struct that can occur in a value of this kind; whatever may hold anything at all is an error."""
    seen = {} if seen is None else seen
    for each in alternatives(kind):
        match each:
            case mi.StructType() if each.cls not in seen:
                seen[each.cls] = each
                for field in each.fields:
                    if (each.cls.__name__, field.name) not in EXTENSIBLE:
                        structs_below(field.type, seen)
            case mi.ListType() | mi.VarTupleType():
                structs_below(each.item_type, seen)
            case mi.DictType():
                assert isinstance(bare(each.key_type), mi.StrType)
                structs_below(each.value_type, seen)
            case mi.AnyType() | mi.RawType() | mi.CustomType():
                raise AssertionError("it may hold anything")
    return seen


def declared(app: App[Any, Any]) -> list[tuple[str, Operation]]:
    return [(f"{route.method} {route.path}", route.operation) for route in routes_of(app)]


async def test_every_request_struct_refuses_unknown_fields(app: App[Any, Any]) -> None:
    for where, operation in declared(app):
        for kind in filter(None, (operation.body, operation.query)):
            for cls, struct in structs_below(mi.type_info(kind)).items():
                assert struct.forbid_unknown_fields, (where, cls)


async def test_every_answer_is_a_closed_struct(app: App[Any, Any]) -> None:
    for where, operation in declared(app):
        for kind in filter(None, operation.answers.values()):
            structs = structs_below(mi.type_info(kind))
            assert structs, where
            # What is stored is a type of its own: a stored field cannot leak by being added.
            assert not [cls for cls, struct in structs.items() if any(field.encode_name == "_id" for field in struct.fields)], where
