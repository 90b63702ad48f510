"""The life cycle of versioned definitions: transitions, versions that never change, and writes that meet."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import Struct, field
from msgspec.structs import replace

from guerdon.database import Database, DuplicateKeyError
from guerdon.errors import InvalidState, NotFound, Validation
from guerdon.lifecycle import TRANSITIONS, Definitions, version_id
from guerdon.types import DefinitionStatus


class Definition(Struct, frozen=True, kw_only=True):
    id: str = field(name="_id")
    version: int = 1
    count: int = 1
    status: DefinitionStatus = "draft"


class DefinitionVersion(Struct, frozen=True, kw_only=True):
    id: str = field(name="_id")
    definition: Definition


Pages = Definitions[Definition, DefinitionVersion]


@pytest.fixture
async def pages(database: Database) -> AsyncIterator[Pages]:
    """Definitions in two collections of this test, which exist before a transaction writes to them."""
    names = ("pages", "page_versions")
    for name in names:
        await database.raw.create_collection(name)
    yield Definitions(database, ("pages", Definition), ("page_versions", DefinitionVersion), noun="page")
    for name in names:
        await database.raw.drop_collection(name)


def archived(definition: Definition) -> DefinitionVersion:
    return DefinitionVersion(id=version_id(definition.id, definition.version), definition=definition)


def after(definition: Definition, status: DefinitionStatus | None = None) -> Definition:
    """The definition with the next version."""
    return replace(definition, version=definition.version + 1, count=definition.count + 1, status=status or definition.status)


@pytest.mark.parametrize(
    ("status", "allowed"),
    [("draft", {"active", "ended"}), ("active", {"paused", "ended"}), ("paused", {"active", "ended"}), ("ended", set())],
)
async def test_transitions(pages: Pages, status: DefinitionStatus, allowed: set[DefinitionStatus]) -> None:
    for target in TRANSITIONS:
        if target in allowed:
            pages.require_transition(status, target)
            continue
        with pytest.raises(InvalidState) as refused:
            pages.require_transition(status, target)
        assert refused.value.members == {"status_now": status}


async def test_only_an_ended_definition_takes_no_new_version(pages: Pages) -> None:
    for status in TRANSITIONS:
        if status == "ended":
            with pytest.raises(InvalidState, match="the page has ended; create another one"):
                pages.require_replaceable(status)
        else:
            pages.require_replaceable(status)


async def test_the_number_of_active_definitions_is_bounded(pages: Pages) -> None:
    for name in "ab":
        page = Definition(id=f"pag_{name}", status="active")
        await pages.insert(page, archived(page))
    await pages.require_capacity("draft", "active", 3)
    await pages.require_capacity("active", "paused", 2)
    with pytest.raises(InvalidState, match="2 pages are active already"):
        await pages.require_capacity("draft", "active", 2)


async def test_a_version_is_archived_with_the_change_that_makes_it(pages: Pages) -> None:
    first = Definition(id="pag_a")
    await pages.insert(first, archived(first))
    second = after(first, "active")
    await pages.replace(second, archived(second), unchanged={"_id": first.id, "count": first.count}, status_now=first.status)
    paused = replace(second, status="paused", count=second.count + 1)
    await pages.replace(paused, None, unchanged={"_id": first.id, "count": second.count}, status_now=second.status)
    assert await pages.get(first.id) == paused
    found = await pages.find_versions([(first.id, 2), (first.id, 1), (first.id, 3)])
    assert sorted(each.definition.version for each in found) == [1, 2]
    assert {each.id: each.definition for each in found} == {"pag_a/1": first, "pag_a/2": second}


async def test_a_stale_change_writes_neither_definition_nor_version(pages: Pages) -> None:
    first = Definition(id="pag_a")
    await pages.insert(first, archived(first))
    second = after(first, "active")
    await pages.replace(second, archived(second), unchanged={"_id": first.id, "count": first.count}, status_now="draft")
    stale = replace(after(first, "ended"), version=3)
    with pytest.raises(InvalidState, match="another request changed the page; read it again") as refused:
        await pages.replace(stale, archived(stale), unchanged={"_id": first.id, "count": first.count}, status_now="draft")
    assert refused.value.members == {"status_now": "draft"}
    assert await pages.get(first.id) == second
    assert await pages.find_versions([(first.id, 3)]) == []


async def test_an_archived_version_never_changes(pages: Pages) -> None:
    first = Definition(id="pag_a")
    await pages.insert(first, archived(first))
    changed = replace(first, status="active", count=2)
    with pytest.raises(InvalidState):
        await pages.replace(changed, archived(changed), unchanged={"_id": first.id, "count": 1}, status_now="draft")
    assert await pages.get(first.id) == first
    assert [each.definition for each in await pages.find_versions([(first.id, 1)])] == [first]


async def test_changes_at_the_same_moment_make_one_version(pages: Pages) -> None:
    first = Definition(id="pag_a")
    await pages.insert(first, archived(first))

    async def change() -> bool:
        second = after(first)
        try:
            await pages.replace(second, archived(second), unchanged={"_id": first.id, "count": 1}, status_now="draft")
        except InvalidState:
            return False
        return True

    assert sorted(await asyncio.gather(*(change() for _ in range(8)))) == [False] * 7 + [True]
    assert (await pages.get(first.id)).version == 2


async def test_inserts_at_the_same_moment_make_one_definition(pages: Pages) -> None:
    async def insert() -> bool:
        page = Definition(id="pag_a")
        try:
            await pages.insert(page, archived(page))
        except DuplicateKeyError:
            return False
        return True

    assert sorted(await asyncio.gather(*(insert() for _ in range(8)))) == [False] * 7 + [True]


async def test_a_definition_that_does_not_exist(pages: Pages) -> None:
    assert not await pages.exists("pag_a")
    with pytest.raises(NotFound, match="there is no such page"):
        await pages.get("pag_a")
    assert await pages.find_versions([]) == []


async def test_pages_are_listed_by_status_newest_first(pages: Pages) -> None:
    for number in range(5):
        page = Definition(id=f"pag_{number}", status="draft" if number == 2 else "active")
        await pages.insert(page, archived(page))
    listed, cursor = await pages.list_page(status="active", cursor=None, limit=2, prefix="pag_")
    assert [page.id for page in listed] == ["pag_4", "pag_3"]
    listed, cursor = await pages.list_page(status="active", cursor=cursor, limit=2, prefix="pag_")
    assert [page.id for page in listed] == ["pag_1", "pag_0"]
    assert cursor is None
    listed, _ = await pages.list_page(status=None, cursor=None, limit=5, prefix="pag_")
    assert len(listed) == 5
    _, cursor = await pages.list_page(status=None, cursor=None, limit=1, prefix="pag_")
    with pytest.raises(Validation):
        await pages.list_page(status=None, cursor=cursor, limit=1, prefix="off_")
