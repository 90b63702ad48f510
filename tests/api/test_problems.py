"""Every error is one problem document that says what to do and nothing about our insides."""

import re
from pathlib import Path
from typing import Any

import pytest
from falcon.asgi import App

from guerdon.access.service_key_format import new_key
from guerdon.errors import GuerdonError, Retry, registry
from guerdon.http.operation import Request, Response
from guerdon.wiring.services import Services
from tests.clients import Caller, Log, problem
from tests.factories import Factory
from tests.serving import routes_of

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT")
SECRET = "mongodb://root:hunter2@db.internal:27017 in /srv/app/secret.py"
INSIDES = re.compile(
    r"Traceback|\.py\b|pymongo|Mongo|mongodb|localhost|127\.0\.0\.1|hunter2|/srv/|File \"|errmsg|E11000|"
    + re.escape(str(Path(__file__).parents[2])),
    re.IGNORECASE,
)


class Broken:
    """A route that fails in a way nobody has foreseen."""

    async def on_get(self, _req: Request, _resp: Response) -> None:
        raise RuntimeError(SECRET)


async def test_every_route_refuses_every_other_method(app: App[Any, Any], service: Caller) -> None:
    allowed: dict[str, set[str]] = {}
    urls: dict[str, str] = {}
    for route in routes_of(app):
        allowed.setdefault(route.path, {"OPTIONS"}).add(route.method)
        urls[route.path] = route.url
    assert len(allowed) > 25
    for path, methods in allowed.items():
        for method in set(METHODS) - methods:
            answer = await service.send(method, urls[path], b"")
            assert answer.status_code == 405
            if method != "HEAD":
                problem(answer, 405, "method-not-allowed")
            assert set(answer.headers["allow"].split(", ")) == methods, path


async def test_options_names_the_methods(service: Caller) -> None:
    answer = await service.client.options("/v1/members")
    assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (200, {"GET", "POST"})


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/nothing", "/v2/members", "//v1/members", "/v1/members/a/b/c", "/V1/members"]
)
async def test_an_unknown_route_is_a_problem(anonymous: Caller, service: Caller, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        problem(await anonymous.send(method, path, b"{}"), 404, "not-found")
        problem(await service.send(method, path, b"{}"), 404, "not-found")


async def test_an_unknown_method_is_a_problem_and_makes_no_metric(service: Caller) -> None:
    for method in ("SMUGGLED", "X-1"):
        answer = await service.send(method, "/v1/members", b"")
        problem(answer, 405, "method-not-allowed")
        assert set(answer.headers["allow"].split(", ")) == {"OPTIONS", "GET", "POST"}
    rendered = (await service.get("/metrics")).text
    assert [method for method in ("SMUGGLED", "X-1") if method in rendered] == []


@pytest.mark.own_app
async def test_unexpected_error_discloses_only_its_request_id(app: App[Any, Any], service: Caller, log: Log) -> None:
    app.add_route("/broken", Broken())
    answer = await service.get("/broken")
    body = problem(answer, 500, "internal-error")
    assert "RuntimeError" not in answer.text
    assert INSIDES.search(answer.text) is None
    [fault] = [line for line in log.lines if line["event"] == "unhandled"]
    assert fault["request_id"] == body["request_id"]
    assert "RuntimeError" in fault["exception"]


async def test_every_response_without_a_database_is_a_retryable_problem(
    service: Caller, factory: Factory, services: Services
) -> None:
    wallet, event = await factory.wallet(5), factory.event()
    await services.database.close()
    answers = [
        await service.get("/health/ready"),
        await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1}),
        await service.post(
            "/v1/bulk", {"commands": [{"type": "debit", "wallet": wallet, "amount": 1, "key": "k"}], "atomic": True}
        ),
        await service.get(f"/v1/wallets/{wallet}"),
        await service.get("/v1/members"),
        await service.get("/v1/campaigns"),
        await service.post("/v1/events", event),
        await service.post("/v1/events/preview", event),
        await service.post("/v1/members", {"external_id": "late"}),
        await service.post("/v1/auth/login", {"email": "ada@example.com", "password": "correct horse"}),
        await service.with_token(new_key().text).get("/v1/members"),
    ]
    assert [answer.status_code for answer in answers] == [503] * len(answers)
    for answer in answers:
        problem(answer, 503, "database-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert INSIDES.search(answer.text) is None
    assert (await service.get("/health/live")).json() == {"status": "ok"}


async def test_failed_bulk_reports_the_failure_in_every_result(service: Caller, factory: Factory, services: Services) -> None:
    wallet = await factory.wallet(5)
    await services.database.close()
    answer = await service.post("/v1/bulk", {"commands": [{"type": "debit", "wallet": wallet, "amount": 1, "key": "k"}]})
    assert answer.status_code == 200
    [result] = answer.json()["results"]
    assert (result["status"], result["problem"]["code"]) == (503, "database-unavailable")


def test_error_registry_contains_every_error_class() -> None:
    def leaves(cls: type[GuerdonError]) -> list[type[GuerdonError]]:
        return [cls] if not cls.__subclasses__() else [leaf for child in cls.__subclasses__() for leaf in leaves(child)]

    known = registry()
    assert "code" not in vars(Retry), "it stays between a command and the service that made it"
    for leaf in set(leaves(GuerdonError)) - {Retry}:
        assert known[leaf.code] is leaf
        assert 400 <= leaf.status < 600
        assert leaf.title
        assert leaf.page.endswith(".")


@pytest.mark.parametrize("code", registry())
async def test_every_problem_type_has_a_page(anonymous: Caller, code: str) -> None:
    answer = await anonymous.get(f"/problems/{code}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"<code>{code}</code>" in answer.text
    assert f'href="/problems/{code}"' in (await anonymous.get("/problems")).text


async def test_the_type_of_a_problem_resolves(service: Caller, anonymous: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1)
    answers = [
        await anonymous.get("/v1/me"),
        await service.get("/v1/me"),
        await service.get("/v1/nothing"),
        await service.put("/v1/me", {}),
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 2}),
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 0}),
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}, key=None),
        await service.send("POST", "/v1/transfers", b"{"),
        await service.send("POST", "/v1/transfers", b"{}", content_type="text/plain"),
        await service.send("POST", "/v1/transfers", b" " * 300_000),
    ]
    assert [answer.status_code for answer in answers] == [401, 403, 404, 405, 409, 422, 400, 400, 415, 413]
    for answer in answers:
        page = await anonymous.get(answer.json()["type"])
        assert page.status_code == 200
        assert INSIDES.search(answer.text) is None


@pytest.mark.parametrize("given", ["abcdefgh", "A-1.b_2.C" * 7, "x" * 64])
async def test_a_good_request_id_is_kept(service: Caller, log: Log, given: str) -> None:
    answer = await service.client.get("/v1/nothing", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == given
    assert (await log.written(answer))["route"] == "unmatched"


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"short",
        b"x" * 65,
        b"a b c d e f",
        b'{"$gt":""}',
        b"<script>alert(1)</script>",
        b"caf\xe9cafe",
        b"abcdefgh\n",
        b"abcd\x1b[31m",
    ],
)
async def test_a_hostile_request_id_is_replaced(service: Caller, log: Log, given: bytes) -> None:
    answer = await service.client.get("/v1/nothing", headers={b"x-request-id": given})
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert (await log.written(answer))["route"] == "unmatched"


@pytest.mark.own_app
async def test_the_log_holds_no_secret_and_no_personal_data(
    app: App[Any, Any], service: Caller, anonymous: Caller, log: Log
) -> None:
    app.add_route("/broken", Broken())
    person = {"email": "canary-7f3@example.com", "password": "canary-password-1"}
    await anonymous.post("/v1/auth/register", person)
    await anonymous.post("/v1/auth/register", person)
    await anonymous.post("/v1/auth/login", {**person, "password": "canary-password-2"})
    token = (await anonymous.post("/v1/auth/login", person)).json()["access_token"]
    member = (await anonymous.with_token(token).get("/v1/me")).json()["id"]
    await anonymous.with_token(token + "x").get("/v1/me")
    await service.get("/v1/members", external_id="canary-external")
    body = {"amount": 5, "reason": "canary-reason", "reference": "canary-reference"}
    await service.post(f"/v1/wallets/{member}:PTS/credit", body, key="canary-key")
    await service.send("POST", "/v1/transfers", b'{"canary-body"')
    await log.written(await service.get("/v1/events/canary-event"))
    written = log.getvalue()
    assert [line.get("route") for line in log.lines].count("/v1/auth/login") == 2
    assert service.token is not None
    assert [
        word for word in ("canary", token, token.rpartition(".")[2], service.token, service.token[21:]) if word in written
    ] == []


async def test_every_request_makes_one_line(service: Caller, log: Log, factory: Factory) -> None:
    wallet = await factory.wallet(5)
    wallets = await service.get(f"/v1/wallets/{wallet}")
    await service.get("/no/such/route")
    await log.written(await service.send("DELETE", "/v1/me", b""))
    first = log.lines.index(await log.written(wallets))
    lines = log.lines[first:]
    assert [(line["route"], line["method"], line["status"]) for line in lines] == [
        ("/v1/wallets/{wallet_id}", "GET", 200), ("unmatched", "ANY", 404), ("/v1/me", "DELETE", 405),
    ]  # fmt: skip
    assert all(line["event"] == "request" and line["ms"] >= 0 for line in lines)


async def test_every_response_carries_the_default_headers(service: Caller, anonymous: Caller) -> None:
    for answer in (await service.get("/v1/members"), await anonymous.get("/v1/me"), await anonymous.get("/nothing")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"]
        assert answer.headers["server"] == "guerdon"
        assert "access-control-allow-origin" not in answer.headers
    assert (await anonymous.get("/v1/me")).headers["www-authenticate"] == 'Bearer realm="guerdon"'


def test_status_429_has_one_problem_code() -> None:
    assert [code for code, kind in registry().items() if kind.status == 429] == ["too-many-requests"]
