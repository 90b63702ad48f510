"""Rotation of the master keys, while the service runs; and what a rotation cannot open."""

import asyncio
import json

import pytest
from pydantic import SecretStr

from guerdon.clock import SystemClock
from guerdon.collections import SEALED_FIELDS
from guerdon.config import Settings
from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.privacy.resealing import BATCH, Resealed, reseal
from guerdon.wiring.services import Services, open_services
from tests.commands import guerdon_here
from tests.invariants.retail import guerdon, places

PEOPLE = 40


def with_new_first(old: str) -> str:
    """The set of both keys with the new one in front."""
    return json.dumps({"keys": json.loads(MasterKeys.generate(beside=old))["keys"][::-1]})


def only_first(keys: str) -> str:
    return json.dumps({"keys": json.loads(keys)["keys"][:1]})


async def rotate(database: Database, keys: str) -> dict[str, Resealed]:
    return {each.collection: each for each in await reseal(database, MasterKeys(keys), SEALED_FIELDS, lambda *_: None)}


async def make_people(services: Services, count: int) -> list[str]:
    return [(await services.members.create_member(f"person-{n}", None, None)).id for n in range(count)]


async def test_master_key_rotation_under_load_replaces_the_old_key(
    services: Services, settings: Settings, database: Database, master_keys: str
) -> None:
    """One process still seals with the old key, another reads and writes all the time; afterwards the new key opens everything."""
    people = await make_people(services, PEOPLE)
    both = with_new_first(master_keys)
    stop = asyncio.Event()

    async def use(services: Services) -> int:
        done = 0
        while not stop.is_set():
            assert (await services.members.get_person(people[done % PEOPLE])).profile.external_id == f"person-{done % PEOPLE}"
            assert await services.members.find_member_id(f"person-{done % PEOPLE}") == people[done % PEOPLE]
            people.append((await services.members.create_member(f"later-{len(people)}", None, None)).id)
            done += 1
        return done

    patient = settings.model_copy(update={"master_keys": SecretStr(both)})
    async with open_services(patient, SystemClock()) as newer:
        using = asyncio.create_task(use(newer))
        first = await rotate(database, both)
        assert (first["person_keys"].resealed, first["lookup_keys"].resealed) == (PEOPLE, 1)
        late = (await services.members.create_member("late", None, None)).id
        assert (await newer.members.get_person(late)).profile.external_id == "late"
        second = await rotate(database, both)
        assert (second["person_keys"].resealed, second["lookup_keys"].resealed) == (1, 0)
        stop.set()
        assert await using > 0
    assert {each.resealed + each.unopenable for each in (await rotate(database, both)).values()} == {0}
    alone = settings.model_copy(update={"master_keys": SecretStr(only_first(both))})
    async with open_services(alone, SystemClock()) as after:
        found = [(await after.members.get_person(each)).profile.external_id for each in [*people[:PEOPLE], late]]
        assert found == [*(f"person-{n}" for n in range(PEOPLE)), "late"]
        assert await after.members.find_member_id("person-7") == people[7]
    with pytest.raises(StartupRefused, match="none of the master keys"):
        async with open_services(settings, SystemClock()):
            pytest.fail("the old key opens nothing any more")


async def test_concurrent_rotations_reseal_each_key_once(services: Services, second_database: Database, master_keys: str) -> None:
    people = await make_people(services, PEOPLE)
    both = with_new_first(master_keys)
    done = await asyncio.gather(rotate(services.database, both), rotate(second_database, both))
    assert sum(each["person_keys"].resealed for each in done) == PEOPLE
    assert (await rotate(services.database, both))["person_keys"].current == PEOPLE
    assert len(people) == PEOPLE < BATCH


async def test_key_that_cannot_be_opened_is_reported_and_unchanged(
    services: Services, database: Database, master_keys: str
) -> None:
    [known, lost] = await make_people(services, 2)
    foreign = MasterKeys(MasterKeys.generate()).seal(bytes(32), f"key of {lost}")
    await database.raw["person_keys"].update_one({"_id": lost}, {"$set": {"wrapped": foreign}})
    done = (await rotate(database, with_new_first(master_keys)))["person_keys"]
    assert (done.resealed, done.unopenable, done.unopenable_ids) == (1, 1, [lost])
    row = await database.raw["person_keys"].find_one({"_id": lost})
    assert row is not None
    assert row["wrapped"] == foreign
    assert known != lost


async def test_rotate_master_command_reports_its_progress(
    services: Services, settings: Settings, database: Database, master_keys: str
) -> None:
    people = await make_people(services, 3)
    foreign = MasterKeys(MasterKeys.generate()).seal(bytes(32), "else")
    await database.raw["person_keys"].update_one({"_id": people[0]}, {"$set": {"wrapped": foreign}})
    both = {**places(settings), "GUERDON_MASTER_KEYS": with_new_first(master_keys)}
    first = await guerdon("keys", "rotate-master", **both)
    assert (first.status, people[0] in first.out, "without them the data is lost" in first.err) == (3, True, True), first.err
    await database.raw["person_keys"].delete_one({"_id": people[0]})
    second = await guerdon_here("keys", "rotate-master", "--json", **both)
    assert (second.status, "can be removed" in second.err) == (0, True)
    said = {each["collection"]: (each["resealed"], each["current"]) for each in second.summary["places"]}
    assert (said["lookup_keys"], said["person_keys"]) == ((0, 1), (0, 2))
    log = [(record.phase, record.action) async for record in services.audit_log.read()]
    assert log[:2] == [("asked", "keys rotate-master"), ("answered", "keys rotate-master")]
