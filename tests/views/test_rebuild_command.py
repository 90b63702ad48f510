"""`guerdon reports rebuild` as an operator runs it."""

from guerdon.views.models import DAYS
from guerdon.wiring.services import Services
from tests.commands import guerdon_here
from tests.conftest import DATABASE
from tests.factories import Factory
from tests.views.build import build_views


async def rebuild(url: str, *arguments: str) -> tuple[int, str]:
    done = await guerdon_here("reports", "rebuild", *arguments, GUERDON_MONGODB_URL=url, GUERDON_MONGODB_DATABASE=DATABASE)
    return done.status, done.out + done.err


async def test_first_build_and_rebuild(services: Services, factory: Factory, mongodb_url: str) -> None:
    await factory.wallet(100)
    assert await rebuild(mongodb_url) == (0, "version 1 is read now\n")
    status, text = await rebuild(mongodb_url, "--check")
    assert (status, text.splitlines()[-2:]) == (0, ["equal", "version 2 is read now"])
    assert (await services.views.at(2).sums(DAYS))[0]["amount"] == 100
    assert "reports rebuild" in {row["action"] async for row in services.database.raw["audit"].find()}
    await factory.assert_books_balance()


async def test_document_that_cannot_be_applied_stops_a_rebuild(services: Services, factory: Factory, mongodb_url: str) -> None:
    wallet = await factory.wallet(100)
    await build_views(services)
    entry = f"{wallet}#{1:012}"
    await services.database.raw["entries"].update_one({"_id": entry}, {"$set": {"at": "noon"}})
    status, text = await rebuild(mongodb_url)
    assert (status, "not switched" in text, entry in text) == (1, True, True)
    assert await services.views.version() == 1
    await services.database.raw["entries"].update_one({"_id": entry}, {"$set": {"at": 1}})
    assert (await rebuild(mongodb_url))[0] == 0


async def test_rebuilt_views_that_differ_are_not_read(services: Services, factory: Factory, mongodb_url: str) -> None:
    wallet = await factory.wallet(100)
    await build_views(services)
    # The fold accepts the entry, and the check compares it with the account.
    await services.database.raw["accounts"].update_one({"_id": wallet}, {"$set": {"balance": 7}})
    status, text = await rebuild(mongodb_url, "--check")
    assert (status, "the views differ" in text) == (3, True), text
    assert await services.views.version() == 1
