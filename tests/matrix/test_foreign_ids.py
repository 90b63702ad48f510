"""AZ-1: what belongs to another member answers like what does not exist, on every route and wherever its id may stand, and stays as it is.

One deployment serves one operator, so a service key and those who work here see all members; there is nobody else's for them but what is
missing.
"""

import json
from typing import Any

import httpx
import pytest
from msgspec import inspect as mi

from guerdon.clock import SystemClock, rfc3339
from guerdon.collections import INDEXES
from guerdon.database import Database
from tests.clients import problem
from tests.factories import Factory
from tests.matrix.bodies import bodied, samples_of
from tests.matrix.conftest import Scene
from tests.serving import MISSING, OWNED, Route

REFERENCES = {
    "wallet": "wallet_id",
    "from": "wallet_id",
    "to": "wallet_id",
    "member/id": "member_id",
    "member_id": "member_id",
    "hold": "hold_id",
    "transaction": "transaction_id",
}
"""Fields of bodies that name what belongs to a member."""
PLAIN = {
    "account", "asset", "attributes", "audience", "categories", "category", "code", "code_pattern", "condition", "currency", "current_password", "description", "device_token", "email",
    "eligibility", "images", "tiers", "query", "report", "value_per_point", "cost_per_point", "redemption_rate", "valid_from", "month",
    "event_type", "event_types", "expression", "external_id", "group", "id", "key", "kind", "metadata", "name", "new_password", "password", "reason", "ends", "percent", "quantity", "reference", "refresh_token", "refund_of", "confirms", "scopes", "sku", "skus", "starts",
    "tier_multipliers", "to", "token", "type", "unit_cost",
    "pattern", "reservation", "use",  # the last two of the voucher in the path, and looked for on its account alone
}  # fmt: skip
"""Texts that name nothing of a member's, or are secrets of the caller's own. A new field is put here or above on purpose."""
EXCHANGES = "/v1/exchanges"
"""Where `from` and `to` are assets."""
ITS_OWN = {"x-request-id", "ratelimit", "ratelimit-policy", "content-length"}
"""Headers that differ between any two answers, or do with the digits of an id that the answer repeats."""


def told(answer: httpx.Response) -> tuple[int, dict[str, Any], dict[str, str]]:
    """All that somebody could tell two answers apart by."""
    headers = {name: value for name, value in answer.headers.items() if name not in ITS_OWN}
    return answer.status_code, {**answer.json(), "request_id": ""}, headers


async def everything(database: Database) -> dict[str, list[Any]]:
    return {name: await database.raw[name].find({}).sort("_id", 1).to_list() for name in sorted(INDEXES)}


def reference_of(pointer: str) -> str | None:
    """The kind of thing that a field of a body names; None for a plain one."""
    names = [name for name in pointer.split("/") if not name.isdigit()]
    kind = REFERENCES.get("/".join(names[-2:])) or REFERENCES.get(names[-1])
    assert kind or names[-1] in PLAIN or names[-2] in PLAIN, f"say in this file whether {pointer} names what belongs to a member"
    return kind


async def test_foreign_id_in_a_path_is_treated_like_a_missing_one(scene: Scene, factory: Factory, database: Database) -> None:
    before, tried = await everything(database), 0
    for route in scene.routes:
        mine = [name for name in route.parameters if name in OWNED]
        for content in [b"{}", *([json.dumps(route.operation.example).encode()] if route.operation.example else [])]:
            if not mine or route.operation.policy.public:
                continue
            send = scene.ada.caller.send
            foreign, missing = [await send(route.method, url, content, key="k") for url in (route.url_of(scene.bob.ids), route.url)]
            assert foreign.status_code == (404 if route.operation.policy.own else 403), route.path
            assert told(foreign) == told(missing), route.path
            tried += 1
    assert tried >= 20
    assert await everything(database) == before
    await factory.assert_books_balance()


async def test_owner_can_read_the_same_ids(scene: Scene) -> None:
    """Otherwise the test before would say nothing."""
    for route in [route for route in scene.routes if route.operation.policy.own and set(route.parameters) & set(OWNED)]:
        if route.method == "GET" and "text/event-stream" not in route.operation.media:
            assert (await scene.bob.caller.get(route.url_of(scene.bob.ids))).status_code == 200, route.path


async def test_a_missing_id_in_a_body_is_not_found_and_changes_nothing(scene: Scene, factory: Factory, database: Database) -> None:
    """Whoever may name other people's things in a body is told as little about missing ones."""
    before, tried = await everything(database), 0
    for route in bodied(scene.routes):
        for sample in samples_of(route.operation.body):
            for leaf in [leaf for leaf in sample.leaves if leaf.of(mi.StrType)]:
                kind = reference_of(leaf.pointer)
                if kind is None or (route.path.startswith(EXCHANGES) and leaf.pointer in {"/from", "/to"}):
                    continue
                if route.operation.policy.own:
                    await assert_told_alike(scene, route, leaf.pointer, kind)
                body = naming(scene, route, leaf.pointer, MISSING[kind])
                answer = await scene.caller_of(route).send(route.method, route.url_of(scene.ada.ids), json.dumps(body).encode())
                if "results" in answer.json():
                    assert [result["problem"]["code"] for result in answer.json()["results"]] == ["not-found"], leaf.pointer
                else:
                    problem(answer, 404, "not-found")
                tried += 1
    assert tried >= 9
    assert await everything(database) == before
    await factory.assert_books_balance()


async def assert_told_alike(scene: Scene, route: Route, pointer: str, kind: str) -> None:
    """A member who names somebody else's thing in a body is told what they are told of a missing one."""
    bodies = [naming(scene, route, pointer, thing) for thing in (scene.bob.ids[kind], MISSING[kind])]
    url = route.url_of(scene.ada.ids)
    foreign, missing = [await scene.ada.caller.send(route.method, url, json.dumps(body).encode(), key="k") for body in bodies]
    assert foreign.status_code == 404, route.path
    assert told(foreign) == told(missing), route.path


def naming(scene: Scene, route: Route, pointer: str, thing: str) -> dict[str, Any]:
    """A good body in which one place names a thing, and all others what exists."""
    mine, theirs = scene.ada.ids["wallet_id"], scene.bob.ids["wallet_id"]
    if route.path == "/v1/bulk":
        name = pointer.rpartition("/")[2]
        if name in {"hold", "transaction"}:
            return {"commands": [{"type": "void" if name == "hold" else "reverse", name: thing, "key": "k"}]}
        command = {"type": "transfer", "wallet": mine, "to": theirs, "amount": 1, "key": "k"}
        return {"commands": [{**command, name: thing}]}
    if pointer == "/events/0/member/id":
        [event] = (route.operation.example or {})["events"]
        return {"events": [{**event, "member": {"id": thing}}]}
    if route.path.startswith(EXCHANGES):
        return {**(route.operation.example or {}), pointer[1:]: thing}
    if route.path == "/v1/transactions":
        return {"postings": [{"wallet": mine, "amount": -1}, {"wallet": thing, "amount": 1}]}
    if pointer == "/member/id":
        return {**(route.operation.example or {}), "member": {"id": thing}}
    whole = {**(route.operation.example or {}), "from": mine, "to": theirs, "wallet": mine}
    return {name: value for name, value in {**whole, pointer[1:]: thing}.items() if name in accepted(route)}


def accepted(route: Route) -> set[str]:
    assert route.operation.body is not None
    return {field.encode_name for field in mi.type_info(route.operation.body).fields}


async def test_cursor_of_another_member_shows_only_own_items(scene: Scene, factory: Factory) -> None:
    lists = [r for r in scene.routes if r.operation.policy.own and r.operation.policy.scope and "cursor" in parameters(r)]
    assert lists
    await rise(scene, factory)
    for pair in ("PTS-GBP", "GBP-PTS", "PTS-STARS"):
        await scene.service.post("/v1/assets", {"code": "STARS", "scale": 0})
        assert (await scene.service.put(f"/v1/rates/{pair}", {"from_amount": 1, "to_amount": 1})).status_code == 200
    for route in lists:
        for person in (scene.ada, scene.bob):
            for _ in range(3):
                await factory.wallet(1, member=person.ids["member_id"])
                await factory.voucher(person.ids["offer_id"], person.ids["member_id"])
            code = person.ids["code"]
            assert (await scene.service.post(f"/v1/vouchers/{code}/reserve", {"amount": 100, "currency": "GBP"})).status_code == 200
            assert (await scene.service.post(f"/v1/vouchers/{code}/release", {})).status_code == 200
        cursor = (await scene.service.get(route.url_of(scene.bob.ids), limit=2)).json()["next_cursor"]
        assert cursor
        if route.parameters:
            problem(await scene.ada.caller.get(route.url_of(scene.bob.ids), cursor=cursor), 404, "not-found")
        answer = await scene.ada.caller.get(route.url_of(scene.ada.ids), cursor=cursor)
        own = (await scene.ada.caller.get(route.url_of(scene.ada.ids), limit=100)).json()["items"]
        assert answer.status_code == 422 or all(item in own for item in answer.json()["items"])
    await factory.assert_books_balance()


async def rise(scene: Scene, factory: Factory) -> None:
    """Both members through three tiers, a purchase each."""
    tiers = [{"code": f"tier{number}", "name": "A tier", "points": number} for number in (1, 2, 3)]
    body = {"asset": "GBP", "window": {"type": "rolling", "months": 36}, "tiers": tiers}
    assert (await scene.service.put("/v1/tiers", body)).status_code == 200
    await factory.campaign(asset="GBP", award={"type": "fixed", "amount": 1}, condition="has(event.attributes.rises)")
    now = rfc3339(SystemClock().now_ms())
    for person in (scene.ada, scene.bob):
        for _ in range(3):
            event = factory.event(member={"id": person.ids["member_id"]}, occurred_at=now, attributes={"rises": True})
            assert (await scene.service.post("/v1/events", event, key=None)).status_code == 201


def parameters(route: Route) -> set[str]:
    query = route.operation.query
    return set() if query is None else {field.encode_name for field in mi.type_info(query).fields}


@pytest.mark.parametrize("name", ["reference", "kind", "from", "to"])
async def test_filter_shows_nothing_of_another_member(scene: Scene, factory: Factory, name: str) -> None:
    value = {"reference": "bobs", "kind": "credit"}.get(name, "2026-01-01T00:00:00Z")
    await scene.service.post(f"/v1/wallets/{scene.bob.ids['wallet_id']}/credit", {"amount": 1, "reference": "bobs"})
    path = f"/v1/wallets/{scene.ada.ids['wallet_id']}/entries"
    own = (await scene.ada.caller.get(path, limit=100)).json()["items"]
    assert all(item in own for item in (await scene.ada.caller.get(path, **{name: value})).json()["items"])
    problem(await scene.ada.caller.get(f"/v1/wallets/{scene.bob.ids['wallet_id']}/entries", **{name: value}), 404, "not-found")
    await factory.assert_books_balance()
