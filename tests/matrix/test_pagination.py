"""IN-5: no list gives more than a page, and no cursor leads anywhere but on in its own list. `explain` shows an index for each (docs/indexes.md)."""

import base64

import pytest_asyncio
from msgspec import inspect as mi

from guerdon.types import PAGE_MAX
from tests.clients import problem
from tests.factories import Factory
from tests.matrix.bodies import alternatives, bare
from tests.matrix.conftest import Scene
from tests.matrix.test_foreign_ids import parameters
from tests.serving import Route

LIMITS = [
    "-1",
    "0",
    "101",
    "1000000000",
    "9223372036854775808",
    "1.5",
    "1.0",
    "1e1",
    "+5",
    "05",
    "x",
    "",
    "null",
    "10,10",
    "10&limit=10",
    "５",
]
CURSORS = [
    "", "!!", "YWJj", "eyIkZ3QiOiIifQ", "é", "null", "A" * 201, "Li4vLi4", "LTE", "MC41", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "AAAA",
    base64.urlsafe_b64encode(b'{"$gt":""}').decode().rstrip("="), "MQ&cursor=MQ",
]  # fmt: skip


@pytest_asyncio.fixture
async def scene(scene: Scene, factory: Factory) -> Scene:
    """With an offer and a segment, which have lists of their own and belong to nobody."""
    ids = {**scene.ada.ids, "offer_id": await factory.offer(), "segment": "champions"}
    return scene._replace(ada=scene.ada._replace(ids=ids))


def lists(scene: Scene) -> list[Route]:
    """Lists with cursors. A report may have a `limit` too: tests/api/test_reports_money.py."""
    return [route for route in scene.routes if "limit" in parameters(route) and route.operation.tag != "reports"]


REQUIRED = {"asset": "PTS", "month": "2026-01"}
"""Good values of parameters without which a report does not answer."""


def good_parameters(route: Route, without: str) -> dict[str, str]:
    """What a route needs besides one parameter that is wrong."""
    fields = mi.type_info(route.operation.query).fields
    return {field.encode_name: REQUIRED[field.encode_name] for field in fields if field.required and field.encode_name != without}


async def test_page_size_is_bounded(scene: Scene) -> None:
    assert len(lists(scene)) >= 4
    for route in lists(scene):
        assert "cursor" in parameters(route), route.path
        caller, url = scene.caller_of(route), route.url_of(scene.ada.ids)
        for limit in LIMITS:
            answer = await caller.send(route.method, f"{url}?limit={limit}", b"")
            refused = problem(answer, 422, "validation")
            assert refused["errors"][0]["pointer"] == "limit", (route.path, limit)
        assert len((await caller.get(url, limit=1)).json()["items"]) <= 1
        largest = mi.type_info(route.operation.query).fields
        [bound] = [bare(field.type) for field in largest if field.name == "limit"]
        assert isinstance(bound, mi.IntType)
        assert (bound.ge, bound.le) == (1, PAGE_MAX), route.path


async def test_null_as_a_parameter_does_not_remove_its_filter(scene: Scene) -> None:
    """What would be no text is refused, such as a status, instead of being a filter that lets everything through."""
    tried = 0
    for route in [route for route in scene.routes if route.operation.query is not None]:
        for field in mi.type_info(route.operation.query).fields:
            if not any(isinstance(kind, mi.StrType) and kind.pattern is None for kind in alternatives(field.type)):
                good = "".join(f"&{name}={value}" for name, value in good_parameters(route, field.encode_name).items())
                answer = await scene.caller_of(route).send(
                    route.method, f"{route.url_of(scene.ada.ids)}?{field.encode_name}=null{good}", b""
                )
                if answer.status_code == 200:
                    assert answer.json()["items"] == [], (route.path, field.encode_name)
                else:
                    assert problem(answer, 422, "validation")["errors"][0]["pointer"] == field.encode_name
                tried += 1
    assert tried > 8


async def test_a_forged_cursor_is_refused_by_every_list(scene: Scene) -> None:
    for route in lists(scene):
        for cursor in CURSORS:
            answer = await scene.caller_of(route).send(route.method, f"{route.url_of(scene.ada.ids)}?cursor={cursor}", b"")
            refused = problem(answer, 422, "validation")
            assert refused["errors"][0]["pointer"] == "cursor", (route.path, cursor)


async def test_cursor_of_another_list_shows_only_items_of_the_requested_list(scene: Scene, factory: Factory) -> None:
    """It is refused, or stands for a place in the list that was asked; what comes is always of that list."""
    given: dict[str, str] = {}
    for _ in range(3):
        await factory.campaign()
    for route in lists(scene):
        following = (await scene.caller_of(route).get(route.url_of(scene.ada.ids), limit=1)).json()["next_cursor"]
        if following is not None:
            given[route.path] = following
    assert len(given) >= 3
    for route in lists(scene):
        whole = await pages(scene, route)
        for other, cursor in given.items():
            answer = await scene.caller_of(route).get(route.url_of(scene.ada.ids), cursor=cursor)
            assert answer.status_code == 422 or all(item in whole for item in answer.json()["items"]), (route.path, other)
    await factory.assert_books_balance()


async def pages(scene: Scene, route: Route) -> list[object]:
    """Everything of a list, by its own cursors: nothing twice, and it ends."""
    found: list[object] = []
    cursor: dict[str, str] = {}
    for _ in range(100):
        page = (await scene.caller_of(route).get(route.url_of(scene.ada.ids), limit=2, **cursor)).json()
        assert len(page["items"]) <= 2
        assert not [item for item in page["items"] if item in found]
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}
    raise AssertionError(f"{route.path} does not end")


FREE_TEXTS = {
    "cursor",
    "external_id",
    "from",
    "to",
    "effective_from",
    "effective_to",
    "at",
    "reference",
    "offer",
    "place",
    "asset",
    "month",
    "member_id",
    "wait_for",
}
"""Query parameters that take any text of a form. All others take one of a few values, a number, or true and false."""


async def test_a_parameter_of_a_few_values_names_them(scene: Scene) -> None:
    """`kind=nonsense` answered an empty list, as if there were no such entries."""
    seen: dict[str, set[str]] = {}
    for route in scene.routes:
        fields = [] if route.operation.query is None else mi.type_info(route.operation.query).fields
        for name, kinds in ((field.encode_name, alternatives(field.type)) for field in fields):
            literals = [str(value) for each in kinds if isinstance(each, mi.LiteralType) for value in each.values]
            if not literals:
                assert name in FREE_TEXTS or not any(isinstance(each, mi.StrType) for each in kinds), (route.path, name)
                continue
            for wrong in ("nonsense", "", literals[0].upper(), f"{literals[0]} "):
                parameters_of_route = {**good_parameters(route, name), name: wrong}
                answer = await scene.caller_of(route).get(route.url_of(scene.ada.ids), **parameters_of_route)
                [fault] = problem(answer, 422, "validation")["errors"]
                assert fault == {"pointer": name, "detail": f"must be one of: {', '.join(literals)}"}, (route.path, name)
            seen.setdefault(name, set()).add(route.path)
    assert {"/v1/wallets/{wallet_id}/entries", "/v1/me/vouchers"} <= seen["kind"]
    assert {"/v1/campaigns", "/v1/offers"} <= seen["status"]
