"""The OpenAPI document says what the service does, and the pages need nobody else's server."""

import json
import re
from typing import Any

import pytest
from falcon.asgi import App

from guerdon.http.body import decode
from guerdon.vouchers.codes.imports import read_codes
from tests.clients import Caller, problem
from tests.serving import routes_of
from tests.tidy.openapi import PATH, render


@pytest.fixture
async def document(anonymous: Caller) -> dict[str, Any]:
    answer = await anonymous.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): entry for path, item in document["paths"].items() for method, entry in item.items()}


def references(node: Any) -> set[str]:
    """Every `$ref` below a node."""
    if isinstance(node, list):
        return {ref for item in node for ref in references(item)}
    if not isinstance(node, dict):
        return set()
    below = {ref for item in node.values() for ref in references(item)}
    return below | {node["$ref"]} if isinstance(node.get("$ref"), str) else below


async def test_every_route_is_documented_and_nothing_else(app: App[Any, Any], document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    served = routes_of(app)
    assert set(operations(document)) == {(route.method, route.path) for route in served}
    ids = [entry["operationId"] for entry in operations(document).values()]
    assert len(set(ids)) == len(ids)
    assert {route.operation.operation_id for route in served} == set(ids)


async def test_every_operation_is_described(document: dict[str, Any]) -> None:
    for where, entry in operations(document).items():
        assert entry["summary"], where
        assert len(entry["tags"]) == 1, where
        assert entry["tags"][0] in {tag["name"] for tag in document["tags"]}, where
        assert entry["responses"], where
        in_path = {parameter["name"] for parameter in entry["parameters"] if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", where[1])), where


async def test_every_reference_resolves(document: dict[str, Any]) -> None:
    found = references(document)
    assert len(found) > 20
    for reference in found:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]


async def test_errors_are_problem_documents(app: App[Any, Any], document: dict[str, Any]) -> None:
    entries = operations(document)
    for route in routes_of(app):
        responses = entries[route.method, route.path]["responses"]
        failures = {int(status): answer for status, answer in responses.items() if int(status) >= 400}
        assert {error.status for error in route.operation.errors} <= set(failures), route.path
        assert {400, 408, 500, 503} <= set(failures), route.path
        assert {413, 415, 422} <= set(failures) or route.operation.body is None, route.path
        assert (401 in failures) == (
            not route.operation.policy.public or route.path in {"/v1/auth/login", "/v1/auth/refresh", "/v1/auth/reset"}
        ), route.path
        for answer in failures.values():
            assert list(answer["content"]) == ["application/problem+json"], route.path
        assert {str(status) for status in route.operation.answers} <= set(responses), route.path


async def test_non_json_responses_declare_their_media_type(document: dict[str, Any]) -> None:
    entries = operations(document)
    wanted = {
        "/metrics": {"text/plain"}, "/docs": {"text/html"}, "/openapi.json": {"application/json"}, "/problems": {"text/html"},
        "/v1/wallets/{wallet_id}/statements/{month}": {"application/json", "text/csv"},
        "/v1/wallets/{wallet_id}/stream": {"text/event-stream"},
    }  # fmt: skip
    for path, kinds in wanted.items():
        assert set(entries["GET", path]["responses"]["200"]["content"]) == kinds, path


async def test_no_documented_parameter_is_nullable(document: dict[str, Any]) -> None:
    for where, entry in operations(document).items():
        for parameter in entry["parameters"]:
            assert "null" not in json.dumps(parameter), where


async def test_security_and_idempotency_keys_are_declared_where_required(app: App[Any, Any], document: dict[str, Any]) -> None:
    entries = operations(document)
    for route in routes_of(app):
        entry = entries[route.method, route.path]
        assert entry["security"] == ([] if route.operation.policy.public else [{"bearer": []}]), route.path
        keys = [parameter for parameter in entry["parameters"] if parameter["name"] == "Idempotency-Key"]
        assert [key["required"] for key in keys] == ([True] if route.operation.idempotent else []), route.path
    assert {route.path for route in routes_of(app) if route.operation.idempotent} == {
        "/v1/wallets/{wallet_id}/credit", "/v1/wallets/{wallet_id}/debit", "/v1/transfers", "/v1/holds", "/v1/holds/{hold_id}/capture",
        "/v1/holds/{hold_id}/void", "/v1/transactions/{transaction_id}/reverse", "/v1/offers/{offer_id}/redeem",
        "/v1/offers/{offer_id}/codes", "/v1/offers/{offer_id}/codes/shared", "/v1/offers/{offer_id}/codes/import",
        "/v1/vouchers/{code}/reserve", "/v1/vouchers/{code}/release", "/v1/vouchers/{code}/use", "/v1/vouchers/{code}/unuse",
        "/v1/vouchers/{code}/cancel", "/v1/vouchers/{code}/load", "/v1/transactions", "/v1/exchanges",
    }  # fmt: skip


async def test_every_body_has_an_example_that_the_service_accepts(app: App[Any, Any], document: dict[str, Any]) -> None:
    entries = operations(document)
    checked = 0
    for route in routes_of(app):
        if route.operation.takes is not None:
            content = entries[route.method, route.path]["requestBody"]["content"]
            assert list(content) == [route.operation.takes] == ["text/csv"], route.path
            read = read_codes(content["text/csv"]["example"].encode())
            assert (len(read.codes), read.problems) == (2, []), route.path
            continue
        if route.operation.body is None:
            assert "requestBody" not in entries[route.method, route.path], route.path
            continue
        example = entries[route.method, route.path]["requestBody"]["content"]["application/json"]["example"]
        decode(json.dumps(example).encode(), route.operation.body)
        checked += 1
    assert checked >= 12


async def test_document_bounds_amounts_and_forbids_unknown_fields(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("CreditCreate", "DebitCreate", "TransferCreate", "EventCreate", "BulkCredit"):
        amount = schemas[name]["properties"]["amount"]
        # An event that is neither purchase nor refund has no amount.
        assert (amount["type"], amount["minimum"], amount["maximum"]) == ("integer", name != "EventCreate", 10**15), name
        assert schemas[name]["additionalProperties"] is False, name


async def test_documented_examples_work_in_order(service: Caller, document: dict[str, Any]) -> None:
    entries = operations(document)
    for path in ("/v1/assets", "/v1/members", "/v1/campaigns", "/v1/events", "/v1/auth/register"):
        example = entries["POST", path]["requestBody"]["content"]["application/json"]["example"]
        answer = await service.post(path, example)
        assert answer.status_code == 201, answer.text


async def test_the_committed_document_is_the_served_one(document: dict[str, Any]) -> None:
    assert PATH.exists(), "run `make docs`"
    assert PATH.read_text(encoding="utf-8") == render(document)


async def test_documentation_page_loads_nothing_from_other_servers(anonymous: Caller) -> None:
    page = await anonymous.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.findall(r"(?:https?:)?//[\w.-]+", page.text) == []
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert re.findall(r"https?:|unsafe-eval|\*|script-src[^;]*unsafe-inline", policy) == []
    local = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
    assert set(local) == {"/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js", "/openapi.json"}
    for path in local:
        answer = await anonymous.get(path)
        assert answer.status_code == 200
        assert len(answer.content) > 50
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await anonymous.get("/docs/start.js")).headers["content-type"].startswith("text/javascript")
    assert (await anonymous.get("/docs/swagger-ui.css")).headers["content-type"].startswith("text/css")
    problem(await anonymous.get("/docs/other.js"), 404, "not-found")


@pytest.mark.own_app
async def test_metrics_count_requests_by_route_and_name_no_ids(service: Caller) -> None:
    member = (await service.post("/v1/members", {"external_id": "metric-canary"})).json()["id"]
    for _ in range(3):
        await service.get(f"/v1/members/{member}")
    await service.get("/v1/members", external_id="metric-canary")
    await service.get("/no/such/route-canary")
    rendered = (await service.get("/metrics")).text
    assert 'guerdon_http_requests_total{method="GET",route="/v1/members/{member_id}",status="200"} 3.0' in rendered
    assert 'guerdon_http_requests_total{method="ANY",route="unmatched",status="404"} 1.0' in rendered
    assert [word for word in (member, "canary", "gk_live") if word in rendered] == []
