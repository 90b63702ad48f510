"""Claims under concurrency: two clients on the same data, one winner."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from pymongo.errors import AutoReconnect

from guerdon.clock import SystemClock
from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Database, Session
from guerdon.errors import AlreadyExists
from guerdon.ids import IdSource
from guerdon.members.models import Person
from guerdon.members.passwords import PasswordHasher
from guerdon.members.service import Members
from guerdon.members.vault import Vault

RACERS = 100


@pytest.fixture
def passwords() -> Iterator[PasswordHasher]:
    hasher = PasswordHasher(2, 2 * RACERS, 19_456)
    yield hasher
    hasher.close()


@pytest_asyncio.fixture
async def both(database: Database, second_database: Database, passwords: PasswordHasher, master_keys: str) -> list[Members]:
    """Two processes that have started at the same moment."""
    clock, master = SystemClock(), MasterKeys(master_keys)
    vaults = [Vault(each, master, clock) for each in (database, second_database)]
    await asyncio.gather(*(vault.open() for vault in vaults))
    databases = (database, second_database)
    return [Members(each, vault, passwords, IdSource(clock), clock) for each, vault in zip(databases, vaults, strict=True)]


async def count(database: Database) -> tuple[int, int]:
    return await database.raw["members"].count_documents({}), await database.raw["claims"].count_documents({})


async def test_one_external_id_makes_one_member(both: list[Members], database: Database) -> None:
    found = await asyncio.gather(*(both[racer % 2].ensure_member("17850") for racer in range(RACERS)))
    assert len(set(found)) == 1
    assert await count(database) == (1, 1)
    assert (await both[0].get_person(found[0])).profile.external_id == "17850"
    assert await both[1].ensure_member("17850") == found[0]


async def test_concurrent_external_ids_create_one_member_each(both: list[Members], database: Database) -> None:
    names = [str(racer % 20) for racer in range(RACERS)]
    found = await asyncio.gather(*(both[racer // 20 % 2].ensure_member(name) for racer, name in enumerate(names)))
    assert len(set(zip(names, found, strict=True))) == len(set(found)) == 20
    assert await count(database) == (20, 20)


async def test_concurrent_registrations_of_one_address_have_one_winner(both: list[Members], database: Database) -> None:
    spellings = ["Ada@example.com", "ada@EXAMPLE.com", "ADA@example.com"]
    found = await asyncio.gather(
        *(both[racer % 2].register(spellings[racer % 3], f"password {racer}") for racer in range(30)), return_exceptions=True
    )
    winners = [member for member in found if isinstance(member, Person)]
    losers = [error for error in found if isinstance(error, AlreadyExists)]
    assert (len(winners), len(losers)) == (1, 29)
    assert {error.members["field"] for error in losers} == {"email"}
    assert await count(database) == (1, 1)
    password = f"password {found.index(winners[0])}"
    assert (await both[0].authenticate("ada@example.com", password)).id == winners[0].id


async def test_overlapping_claims_leave_no_partial_member(both: list[Members], database: Database) -> None:
    """Each of two values is wanted together with the other, and alone: whoever loses one claim keeps neither."""
    wanted = [("7", "seven@example.com"), ("7", None), (None, "seven@example.com")]
    found = await asyncio.gather(
        *(both[racer % 2].create_member(*wanted[racer % 3], None) for racer in range(60)), return_exceptions=True
    )
    winners = [member for member in found if isinstance(member, Person)]
    assert all(isinstance(each, Person | AlreadyExists) for each in found)
    owned = [value for member in winners for value in (member.profile.external_id, member.profile.email) if value is not None]
    assert sorted(owned) == ["7", "seven@example.com"]
    assert await count(database) == (len(winners), 2)


async def test_refused_claim_leaves_the_other_claim_free(both: list[Members], database: Database) -> None:
    await both[0].create_member("7", None, None)
    with pytest.raises(AlreadyExists) as taken:
        await both[1].create_member("7", "seven@example.com", None)
    assert taken.value.members == {"field": "external_id"}
    await both[0].create_member(None, "seven@example.com", None)
    assert await count(database) == (2, 2)


@pytest.mark.parametrize("committed", [True, False])
async def test_lost_commit_reply_is_resolved_by_the_claim(
    both: list[Members], database: Database, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The commit's answer is lost on the way, once after it was applied and once before: the member is made exactly once."""
    transaction, losses = database.transaction, [1]

    @asynccontextmanager
    async def losing_one_answer() -> AsyncIterator[Session]:
        async with transaction() as session:
            yield session
            if losses and not committed:
                await session.abort_transaction()
        if losses:
            losses.clear()
            lost = AutoReconnect("the answer was lost")
            lost._add_error_label("UnknownTransactionCommitResult")
            raise lost

    monkeypatch.setattr(database, "transaction", losing_one_answer)
    member = await both[0].register("ada@example.com", "correct horse")
    assert await count(database) == (1, 1)
    assert (await both[1].authenticate("ada@example.com", "correct horse")).id == member.id
    assert not losses
