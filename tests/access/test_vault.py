"""What is known about people lies sealed, and the keys to it are theirs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import bson
import pytest
import pytest_asyncio
from pydantic import SecretStr

from guerdon.clock import SystemClock
from guerdon.collections import INDEXES
from guerdon.config import Settings
from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Database
from guerdon.errors import Internal, StartupRefused
from guerdon.members.models import Member, Profile
from guerdon.members.vault import Vault
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller

PERSON = {"external_id": "marker-external", "email": "Marker@Example.com", "attributes": {"name": "marker-name"}}
PASSWORD = "correct horse battery"


async def stored(database: Database) -> bytes:
    """Every document of the database, as bytes."""
    names = await database.raw.list_collection_names()
    return b"".join([bson.encode(row) for name in names async for row in database.raw[name].find({})])


@pytest_asyncio.fixture
async def vaults(database: Database, second_database: Database, master_keys: str) -> AsyncIterator[list[Vault]]:
    master = MasterKeys(master_keys)
    yield [Vault(each, master, SystemClock()) for each in (database, second_database)]


async def test_nothing_personal_is_stored_in_the_clear(service: Caller, anonymous: Caller, database: Database) -> None:
    made = (await service.post("/v1/members", PERSON)).json()
    await anonymous.post("/v1/auth/register", {"email": "marker@example.org", "password": PASSWORD})
    login = {"email": "marker@example.org", "password": PASSWORD}
    tokens = (await anonymous.post("/v1/auth/login", login, **{"user-agent": "marker-device"})).json()
    raw = (await stored(database)).lower()
    assert b"marker" not in raw
    assert made["id"].encode() in raw
    member = anonymous.with_token(tokens["access_token"])
    assert [each["device"] for each in (await member.get("/v1/me/sessions")).json()["items"]] == ["marker-device"]
    assert (await member.get("/v1/me")).json()["email"] == "marker@example.org"
    assert (await service.get(f"/v1/members/{made['id']}")).json() == made
    assert made in (await service.get("/v1/members")).json()["items"]
    assert (await service.get("/v1/members", external_id="marker-external")).json()["items"] == [made]


async def test_processes_that_start_together_agree_on_one_lookup_key(vaults: list[Vault], database: Database) -> None:
    await asyncio.gather(*(vault.open() for vault in vaults))
    claims = {vault.email_claim(address) for vault in vaults for address in ("Ada@example.com", "ada@EXAMPLE.com")}
    assert len(claims) == 1
    assert vaults[0].external_id_claim("ada@example.com") not in claims
    assert await database.raw["lookup_keys"].count_documents({}) == 1


async def test_keys_are_bound_to_their_person(service: Caller, services: Services, database: Database) -> None:
    one, two = [(await service.post("/v1/members", {"external_id": name})).json()["id"] for name in ("one", "two")]
    other = await database.raw["person_keys"].find_one({"_id": two})
    assert other is not None
    await database.raw["person_keys"].update_one({"_id": one}, {"$set": {"wrapped": other["wrapped"]}})
    with pytest.raises(Internal):
        await services.members.get_person(one)


@pytest.mark.parametrize("shift", ["members", "both"])
async def test_a_profile_is_bound_to_its_person(service: Caller, services: Services, database: Database, shift: str) -> None:
    """Not even together with its key does it open under another name."""
    one, two = [(await service.post("/v1/members", {"external_id": name})).json()["id"] for name in ("one", "two")]
    row = await database.raw["members"].find_one({"_id": two})
    assert row is not None
    await database.raw["members"].update_one({"_id": one}, {"$set": {"sealed": row["sealed"]}})
    if shift == "both":
        raw = services.vault.master.open(
            (await database.raw["person_keys"].find_one({"_id": two}) or {})["wrapped"], f"key of {two}"
        )
        wrapped = services.vault.master.seal(raw, f"key of {one}")
        await database.raw["person_keys"].update_one({"_id": one}, {"$set": {"wrapped": wrapped}})
    with pytest.raises(Internal):
        await services.members.get_person(one)


async def test_person_without_a_key_has_no_personal_data(service: Caller, database: Database) -> None:
    made = (await service.post("/v1/members", PERSON)).json()
    await database.raw["person_keys"].delete_one({"_id": made["id"]})
    empty = {"external_id": None, "email": None, "attributes": {}}
    assert (await service.get(f"/v1/members/{made['id']}")).json() == {**made, **empty}
    assert {**made, **empty} in (await service.get("/v1/members")).json()["items"]


async def test_the_master_keys_of_another_database_are_refused(services: Services, settings: Settings) -> None:
    other = settings.model_copy(update={"master_keys": SecretStr(MasterKeys.generate())})
    with pytest.raises(StartupRefused, match="none of the master keys opens this database"):
        async with open_services(other, SystemClock()):
            pytest.fail("it must not start")


async def test_personal_data_is_unavailable_without_master_keys(services: Services, settings: Settings) -> None:
    """Commands that have nothing to do with people run; the others say what is missing."""
    async with open_services(settings.model_copy(update={"master_keys": None}), SystemClock()) as keyless:
        assert await keyless.access.list_keys() == []
        for attempt in (
            keyless.members.create_member("17850", None, None),
            keyless.members.ensure_member("17850"),
            keyless.members.find_member_id("17850"),
        ):
            with pytest.raises(StartupRefused, match="GUERDON_MASTER_KEYS_FILE"):
                await attempt


async def test_unsealed_database_is_refused_with_an_explanation(database: Database, settings: Settings) -> None:
    row: dict[str, Any] = {
        "_id": "mem_" + "1" * 32,
        "external_id": None,
        "email": "ada@example.com",
        "role": "member",
        "created_at": 1,
    }
    await database.raw["members"].insert_one(row)
    with pytest.raises(StartupRefused, match=r"stored personal data unsealed.*--data-dir"):
        async with open_services(settings, SystemClock()):
            pytest.fail("it must not start")
    assert await database.raw["lookup_keys"].count_documents({}) == 0
    assert {"person_keys", "lookup_keys"} <= set(INDEXES)


async def test_a_database_without_its_lookup_key_is_refused(
    service: Caller, services: Services, database: Database, settings: Settings
) -> None:
    """With a new one nobody would be found, and everybody would be made anew."""
    made = (await service.post("/v1/members", PERSON)).json()
    for step in ("sealed", "erased"):
        if step == "erased":
            await service.post(f"/v1/members/{made['id']}/erase")
        await database.raw["lookup_keys"].delete_many({})
        with pytest.raises(StartupRefused, match="lookup_keys is missing"):
            async with open_services(settings, SystemClock()):
                pytest.fail("it must not start")


async def test_members_without_personal_data_do_not_prevent_startup(database: Database, settings: Settings) -> None:
    """As a bench writes them."""
    await database.raw["members"].insert_one(
        database.collection("members", Member).encode(Member(id="mem_" + "1" * 32, created_at=1))
    )
    async with open_services(settings, SystemClock()) as services:
        assert (await services.members.get_person("mem_" + "1" * 32)).profile == Profile()
