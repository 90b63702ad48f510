"""State of the views over HTTP, and the request for a rebuild."""

from guerdon.wiring.services import Services
from tests.clients import Caller, problem
from tests.factories import Factory
from tests.views.build import build_views


async def test_views_of_an_empty_database(service: Caller) -> None:
    [group] = (await service.get("/v1/views")).json()["items"]
    assert (group["name"], group["state"], group["view_version"], group["as_of"]) == ("books", "behind", 0, None)
    assert (group["workers"], group["generations"]) == (0, [])


async def test_state_of_built_views(service: Caller, services: Services, factory: Factory) -> None:
    await factory.wallet(5)
    version = await build_views(services)
    [group] = (await service.get("/v1/views")).json()["items"]
    assert (group["state"], group["view_version"]) == ("current", version)
    assert group["oplog_window_seconds"] >= 0
    [generation] = group["generations"]
    assert (generation["state"], generation["applied"], len(generation["partitions"])) == ("serving", 1, 16)
    assert {each["phase"] for each in generation["partitions"]} == {"stream"}
    await factory.assert_books_balance()


async def test_rebuild_is_asked_for_once(service: Caller, services: Services) -> None:
    await build_views(services)
    first = await service.post("/v1/views/books/rebuild", key=None)
    assert (first.status_code, first.json()["view_version"]) == (202, 2)
    again = await service.post("/v1/views/books/rebuild", key=None)
    assert again.json() == first.json()
    [group] = (await service.get("/v1/views")).json()["items"]
    assert [each["state"] for each in group["generations"]] == ["serving", "building"]
    assert {each["phase"] for each in group["generations"][1]["partitions"]} == {"missing"}
    assert await build_views(services) == 2
    problem(await service.post("/v1/views/shelves/rebuild", key=None), 404, "not-found")


async def test_views_need_their_scopes(services: Services, anonymous: Caller) -> None:
    reader = anonymous.with_token(await services.access.create_key("reader", ["reports:read"]))
    assert (await reader.get("/v1/views")).status_code == 200
    problem(await reader.post("/v1/views/books/rebuild", key=None), 403, "forbidden")
    problem(await anonymous.get("/v1/views"), 401, "unauthenticated")


async def test_rebuild_is_in_the_audit_log(service: Caller) -> None:
    await service.post("/v1/views/books/rebuild", key=None)
    records = (await service.get("/v1/audit")).json()["items"]
    assert {record["action"] for record in records} & {"rebuildViews"}


async def test_metrics_show_the_views(service: Caller, services: Services, factory: Factory) -> None:
    await factory.wallet(5)
    await build_views(services)
    await services.view_status.refresh()
    text = (await service.get("/metrics")).text
    assert 'guerdon_view_state{state="current",view="books"} 1.0' in text
    assert 'guerdon_view_applied_total{version="1",view="books"} 1.0' in text
    assert 'guerdon_view_partitions{phase="stream",view="books"} 16.0' in text
