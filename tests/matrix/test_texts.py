"""NOSQL-1: what an injection would need, in every text of every body, every parameter and every header: refused, or kept as text."""

import json
import time
from typing import Any
from urllib.parse import quote

import httpx
from msgspec import inspect as mi

from guerdon.database import Database
from tests.clients import Caller
from tests.factories import Factory
from tests.matrix.bodies import NOWHERE, Sample, alternatives, bodied, samples_of
from tests.matrix.conftest import Scene, rows
from tests.matrix.test_foreign_ids import REFERENCES, everything, parameters
from tests.serving import NOBODY, Route

OBJECTS: list[Any] = [{"$gt": ""}, {"$ne": None}, {"$regex": ".*"}, {"$where": "sleep(5000)"}]
TEXTS = [
    '{"$gt":""}', '{"$ne":null}', '{"$regex":".*"}', '{"$where":"sleep(5000)"}', "';sleep(5000);'", "a[$gt]=", "$where", "a.b",
    "__proto__", "' || '1'=='1",
]  # fmt: skip
NAMES = ["$gt", "$where", "a.b", "$a.$b", "__proto__", "a\u0000", "", "."]
"""Names that a free mapping could take."""
HEADERS = ["authorization", "content-encoding", "idempotency-key", "if-none-match", "last-event-id", "origin", "user-agent", "x-forwarded-for", "x-request-id"]  # fmt: skip
CONTROL = [
    '"a\\u0000b"', '"a\\nb"', '"a\\r\\nb"', '"a\\u001b[31mb"', '"\\u007f"', '"a\\u202eb"', '"a\\u2066b"', '"line\\n"', '"\\ud800"', '"\\udc00\\ud800"',
]  # fmt: skip
"""As JSON: what is no text at all cannot be written by a test either."""
AS_TYPED = {
    "eligibility",
    "password",
    "current_password",
    "new_password",
    "refresh_token",
    "device_token",
    "token",
    "audience",
    "condition",
    "expression",
}
"""Secrets are compared as they are, and never shown; conditions are programs of several lines, which their compiler reads."""
SECONDS_MAX = 1.0


async def timely(caller: Caller, route: Route, url: str, content: bytes, **headers: str) -> httpx.Response:
    """The answer, which comes within a second. A machine that is busy may be slow once; a server that sleeps does it again."""
    for _ in range(2):
        began = time.monotonic()
        answer = await caller.send(route.method, url, content, **headers)
        if time.monotonic() - began < SECONDS_MAX:
            break
    else:
        raise AssertionError(f"{route.path} took longer than a second twice")
    assert answer.status_code < 500, (route.path, answer.text)
    return answer


def filled(node: Any, scene: Scene, number: int) -> Any:
    """A sample body that names what exists, with keys of its own."""
    mine, theirs = scene.ada.ids["wallet_id"], scene.bob.ids["wallet_id"]
    if isinstance(node, list):
        return [filled(each, scene, number * 10 + place) for place, each in enumerate(node)]
    if not isinstance(node, dict):
        return mine if node == NOWHERE else node
    found = {name: filled(value, scene, number) for name, value in node.items()}
    if "to" in found and "from_amount" not in found:  # Those of an exchange are assets.
        found["to"] = theirs
    found |= {name: f"{name}-{number}" for name in ("key", "external_id", "reference") if name in found}
    if "email" in found:
        found["email"] = f"person-{number}@example.com"
    if found.get("id") == NOBODY:
        found.pop("external_id", None)
        found["id"] = scene.ada.ids["member_id"]
    return found


def inert(node: Any) -> bool:
    """Nothing below is named like an operator or like a path."""
    if isinstance(node, list):
        return all(inert(each) for each in node)
    return not isinstance(node, dict) or all(
        not name.startswith("$") and "." not in name and inert(value) for name, value in node.items()
    )


def in_turn(values: list[Any], place: int, share: int) -> list[Any]:
    """One of each `share` values, others at the next place, so that a few places have seen all."""
    return values[place % share :: share]


async def test_every_text_of_every_body_is_refused_or_kept_as_text(scene: Scene, factory: Factory, database: Database) -> None:
    """Each place is given every fifth value, places with texts are many; tests/trust gives each of them all."""
    await try_bodies(scene, database, share=5)
    await factory.assert_books_balance()


async def try_bodies(scene: Scene, database: Database, *, share: int) -> int:
    """Return how many bodies were sent."""
    kept, number, place = 0, 0, 0
    for route in bodied(scene.routes):
        for sample in samples_of(route.operation.body):
            for leaf in [leaf for leaf in sample.leaves if leaf.of(mi.StrType)]:
                place += 1
                for value in in_turn([*OBJECTS, *TEXTS], place, share):
                    number += 1
                    whole = Sample(filled(sample.body, scene, number), [], [])
                    content = (
                        whole.with_value(leaf.pointer, value)
                        if has(whole.body, leaf.pointer)
                        else sample.with_value(leaf.pointer, value)
                    )
                    answer = await timely(scene.caller_of(route), route, route.url_of(scene.ada.ids), content)
                    if isinstance(value, str):
                        kept += answer.is_success
                    else:
                        assert (answer.status_code, answer.json()["code"]) == (422, "validation"), (route.path, leaf.pointer, value)
                        assert answer.json()["errors"][0]["pointer"].startswith(leaf.pointer), (route.path, leaf.pointer, value)
    assert kept > 100 / share, "hardly any text was taken, so that nothing was shown about keeping it"
    assert inert(await everything(database))
    return number


async def test_no_text_takes_control_characters(scene: Scene, factory: Factory, database: Database) -> None:
    """They would change what a console or a log shows: line ends, escapes, NUL, overrides of the direction, lone surrogates."""
    before, refused = await rows(database), 0
    for route in bodied(scene.routes):
        for sample in samples_of(route.operation.body):
            for leaf in [leaf for leaf in sample.leaves if leaf.of(mi.StrType) and leaf.name not in AS_TYPED]:
                for value in CONTROL:
                    answer = await timely(scene.caller_of(route), route, route.url, sample.with_raw(leaf.pointer, value))
                    told = answer.json()
                    if leaf.name in REFERENCES or leaf.name == "id":
                        assert told.get("status", 404) in (400, 404, 422), (route.path, leaf.pointer, value)
                        assert not {result["status"] for result in told.get("results", [])} & {200, 201}
                        continue
                    assert answer.status_code in (400, 422), (route.path, leaf.pointer, value, answer.text)
                    if told["code"] != "malformed-json":
                        pointer = told["errors"][0]["pointer"]
                        assert pointer.startswith(leaf.pointer) or leaf.pointer.startswith(f"{pointer}/"), (route.path, value)
                    refused += 1
    assert refused > 300
    assert await rows(database) == before
    await factory.assert_books_balance()


def has(body: Any, pointer: str) -> bool:
    for name in pointer[1:].split("/"):
        if isinstance(body, list) and int(name) < len(body):
            body = body[int(name)]
        elif isinstance(body, dict) and name in body:
            body = body[name]
        else:
            return False
    return True


def may_be_a_mapping(kind: mi.Type) -> bool:
    return any(isinstance(each, mi.DictType) and each.max_length != 0 for each in alternatives(kind))


async def test_no_key_of_a_free_mapping_acts_as_an_operator(scene: Scene, database: Database) -> None:
    tried = 0
    for route in bodied(scene.routes):
        for sample in samples_of(route.operation.body):
            for pointer, struct in sample.objects:
                for field in [field for field in struct.fields if may_be_a_mapping(field.type)]:
                    for name in NAMES:
                        content = sample.with_value(f"{pointer}/{field.encode_name}", {name: "x"})
                        answer = await timely(scene.caller_of(route), route, route.url_of(scene.ada.ids), content)
                        assert answer.status_code == 422 or name == "__proto__", (route.path, field.name, name, answer.text)
                        tried += 1
    assert tried > 50
    assert inert(await everything(database))


async def test_no_query_parameter_matches_more_than_its_value(scene: Scene) -> None:
    tried = 0
    for route in [route for route in scene.routes if route.operation.query is not None]:
        caller, url = scene.caller_of(route), route.url_of(scene.ada.ids)
        whole = await caller.send(route.method, url, b"")
        for name in sorted(parameters(route)):
            for text in TEXTS:
                for asked in (f"{name}={quote(text, safe='')}", f"{name}[$ne]={quote(text, safe='')}", f"{name}.$gt=1"):
                    answer = await timely(caller, route, f"{url}?{asked}", b"")
                    # A filter that nothing fits, or one that says nothing, such as a format.
                    assert answer.status_code == 422 or answer.json().get("items") in ([], whole.json().get("items")), (
                        route.path,
                        asked,
                    )
                    assert (
                        answer.status_code == 422
                        or name not in ("external_id", "reference", "kind")
                        or answer.json()["items"] == []
                    )
                    tried += 1
    assert tried > 200


async def test_no_path_parameter_matches_more_than_its_value(scene: Scene, database: Database) -> None:
    before = await everything(database)
    for route in [route for route in scene.routes if route.parameters]:
        for name in route.parameters:
            for text in TEXTS:
                url = route.url_of({**scene.ada.ids, name: quote(text, safe="")})
                body = json.dumps(route.operation.example or {}).encode()
                media = {"content_type": route.operation.takes} if route.operation.takes else {}
                answer = await timely(scene.caller_of(route), route, url, body, **media)
                assert answer.status_code in (404, 422), (route.path, name, text, answer.status_code)
    audited = {"audit"}
    assert {name: found for name, found in (await everything(database)).items() if name not in audited} == {
        name: found for name, found in before.items() if name not in audited
    }


async def test_every_header_is_refused_or_kept_as_text(scene: Scene, database: Database) -> None:
    """On one route of each kind: what reads headers stands before the routes, or is the same function for all of them.
    Each is given every fourth text; tests/trust gives each all."""
    await try_headers(scene, database, share=4)


async def try_headers(scene: Scene, database: Database, *, share: int) -> int:
    """Return how many requests were sent."""
    place, number = 0, 0
    kinds = {"listEntries", "creditWallet", "freezeWallet", "getMe", "logIn", "registerMember", "getOpenapi"}
    routes = [route for route in scene.routes if route.operation.operation_id in kinds]
    assert len(routes) == len(kinds)
    for route in routes:
        for name in HEADERS:
            place += 1
            for text in in_turn(TEXTS, place, share):
                number += 1
                headers = {name.replace("-", "_"): text}
                answer = await timely(scene.caller_of(route), route, route.url_of(scene.ada.ids), b"{}", **headers)
                if name == "authorization" and not route.operation.policy.public:
                    assert answer.status_code == 401, route.path
    assert inert(await everything(database))
    return number
