"""FUZZ-1, the short form: what every operation answers to its own example, to nothing and to nonsense is in the document.

tests/trust/test_fuzz.py makes up requests for as long as you like.
"""

import json
from collections.abc import Iterator

import schemathesis

from tests.clients import Caller
from tests.factories import Factory
from tests.matrix.conftest import Scene
from tests.serving import Route

NONSENSE = [b"{}", b'{"no such field": []}', b"[", b""]


def requests_of(scene: Scene, route: Route) -> Iterator[tuple[Caller, str, bytes]]:
    """As it is meant, without something, with something more, and by those who may not."""
    example = b"" if route.operation.body is None else json.dumps(route.operation.example or {}).encode()
    caller, mine, missing = scene.caller_of(route), route.url_of(scene.ada.ids), route.url
    if "text/event-stream" not in route.operation.media:  # A stream has no end to wait for, and tests of its own.
        yield caller, mine, example
    for content in NONSENSE if example else ():
        yield caller, mine, content
    yield caller, missing, example
    yield caller, f"{mine}?no_such=parameter", example
    for other in (scene.anonymous, scene.bob.caller, scene.olga):
        yield other, missing, example


async def test_every_response_is_documented(scene: Scene, factory: Factory) -> None:
    document = schemathesis.openapi.from_dict((await scene.anonymous.get("/openapi.json")).json())
    good, answers = set[str](), 0
    for route in scene.routes:
        operation = document[route.path][route.method]
        for caller, url, content in requests_of(scene, route):
            answer = await caller.send(route.method, url, content)
            assert str(answer.status_code) in operation.definition.raw["responses"], (route.path, answer.text)
            operation.validate_response(answer)
            answers += 1
            good |= {route.operation.operation_id} if answer.is_success else set()
    assert len(good) > 40
    assert answers > 400
    await factory.assert_books_balance()
