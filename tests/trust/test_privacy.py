"""GDPR-1 in every file of a real deployment, GDPR-4 and the rotation of master keys under kill -9."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bson
import httpx
import pytest
from pymongo import AsyncMongoClient

from guerdon.collections import SEALED_FIELDS
from guerdon.config import Settings
from guerdon.crypto.sealing import MasterKeys, SealingKey
from guerdon.database import Document
from guerdon.privacy.models import ERASING, ERASURES
from guerdon.wiring.services import Services
from tests.access.test_master_keys import only_first, with_new_first
from tests.api.test_privacy import PASSWORD, Subject, cut_off_erasures, dump, found, restore
from tests.clients import Caller as ApiCaller
from tests.factories import Factory
from tests.invariants.retail import environment, guerdon, places
from tests.trust.deployment import Deployment
from tests.trust.figures import record
from tests.trust.load import report

CONTROL = "control-0123456789abcdef-in-the-clear"
PEOPLE, KILLS = 40, 4
KEYS, ROTATION_KILLS = 30_000, 3
JOB_SECONDS = 60.0
"""A job's lease lasts 30 s when its holder was killed, and the job comes every 10."""
pytestmark = [pytest.mark.trust, pytest.mark.timeout(600)]


class Caller:
    """Calls a deployment with a service key."""

    def __init__(self, deployment: Deployment, key: str) -> None:
        self._client = httpx.AsyncClient(base_url=deployment.url, headers={"authorization": f"Bearer {key}"}, timeout=30)
        self._number = 0

    async def post(self, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        self._number += 1
        key = f"privacy-{self._number}"
        answer = await self._client.post(path, json=body, headers={"idempotency-key": key, **headers})
        assert answer.status_code < 300, answer.text
        return dict(answer.json()) if answer.content else {}

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self._client.get(path)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def close(self) -> None:
        await self._client.aclose()


async def service_of(deployment: Deployment) -> Caller:
    made = await deployment.command("keys", "create", "--name", "privacy", "--scopes", "*")
    assert made.status == 0, made.err
    return Caller(deployment, made.out.splitlines()[-1])


async def use_everything(deployment: Deployment, service: Caller, who: Subject) -> None:
    """Everything that there is to do with a person, over HTTP and at a terminal."""
    made = await service.post("/v1/members", {"email": who.email, "external_id": who.external_id, "attributes": who.attributes})
    who.id = made["id"]
    issued = await deployment.command("admin", "reset", "--email", who.email)
    assert issued.status == 0, issued.err
    await service.post("/v1/auth/reset", {"token": issued.out.split()[-1], "new_password": PASSWORD})
    login = await service.post("/v1/auth/login", {"email": who.email, "password": PASSWORD}, **{"user-agent": who.device})
    await service.post("/v1/auth/refresh", {"refresh_token": login["refresh_token"]}, **{"user-agent": who.device})
    await service.post("/v1/auth/forgot", {"email": who.email})
    for audience in ("size(member.attributes) > 0 && int(member.external_id) > 0", "true"):
        body = {
            "name": "points", "asset": "PTS", "event_types": ["purchase"], "audience": audience,
            "award": {"type": "per_amount", "points": 1, "per": 100, "rounding": "floor"},
        }  # fmt: skip
        campaign = await service.post("/v1/campaigns", body)
        await service.post(f"/v1/campaigns/{campaign['id']}/activate")
    event = {"type": "purchase", "occurred_at": "2026-01-31T12:00:00Z", "amount": 100_000, "currency": "GBP"}
    for number, member in enumerate(({"external_id": who.external_id}, {"id": who.id})):
        await service.post("/v1/events", {**event, "id": f"order-{number}", "member": member})
    wallet = f"{who.id}:PTS"
    hold = await service.post("/v1/holds", {"wallet": wallet, "amount": 9})
    await service.post(f"/v1/holds/{hold['id']}/capture", {"amount": 4})
    paid = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 7, "reference": "order-1"})
    await service.post(f"/v1/transactions/{paid['id']}/reverse", {"amount": 2})
    other = (await service.post("/v1/members", {"external_id": f"other-{who.id[-4:]}"}))["id"]
    await service.post(f"/v1/wallets/{other}:PTS/credit", {"amount": 1})
    await service.post("/v1/transfers", {"from": wallet, "to": f"{other}:PTS", "amount": 5})
    exported = await service.get(f"/v1/members/{who.id}/export")
    assert len(found(who.marks, json.dumps(exported).encode())) >= 43, "all that were given but one, which nobody was told"


async def everything_in(url: str) -> bytes:
    """Every collection of every database, MongoDB's own log of operations among them, as the driver reads it."""
    raw: list[bytes] = []
    async with AsyncMongoClient[Document](url) as client:
        for name in await client.list_database_names():
            database = client[name]
            for collection in await database.list_collection_names():
                raw += [bson.encode(row) async for row in database[collection].find({})]
    return b"".join(raw)


async def files(deployment: Deployment, url: str) -> dict[str, bytes]:
    """Every file that the deployment has, after the database has written all there is to write."""
    async with AsyncMongoClient[Document](url) as client:
        await client.admin.command("fsync")
    every = [*deployment.data_dir.rglob("*"), deployment.log]
    return {str(path): await asyncio.to_thread(path.read_bytes) for path in every if path.is_file()}


async def test_erasure_leaves_no_personal_marker_in_any_file(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "data", settings={"GUERDON_ACCESS_LOG": "true", "GUERDON_LOG_LEVEL": "debug"})
    service: Caller | None = None
    try:
        await deployment.start()
        url = deployment.mongodb_url()
        service, who = await service_of(deployment), Subject("ada")
        await use_everything(deployment, service, who)
        before = await service.get(f"/v1/wallets/{who.id}:PTS")
        assert (await deployment.command("verify", "--json")).summary["violations"] == 0
        async with AsyncMongoClient[Document](url) as client:
            await client["guerdon"]["control"].insert_one({"text": CONTROL})
        certificate = await service.post(f"/v1/members/{who.id}/erase")
        assert certificate["destroyed"]["profile"] == certificate["destroyed"]["key"] == 1
        assert [each["head_before"] == each["head_after"] for each in certificate["wallets"]] == [True]
        dumped, written = await everything_in(url), await files(deployment, url)
        assert CONTROL.encode() in dumped
        assert [name for name, raw in written.items() if CONTROL.encode() in raw], "the search of the files can fail"
        left = {name: marks for name, raw in written.items() if (marks := found(who.marks, raw))}
        total = len(set().union(found(who.marks, dumped), *left.values()))
        record("GDPR-1 personal values left", f"{total} of {len(who.marks)} in {len(written)} files", 0)
        assert found(who.marks, dumped) == set()
        assert left == {}
        assert await service.get(f"/v1/wallets/{who.id}:PTS") == before
        verified = await deployment.command("verify", "--json")
        assert (verified.status, verified.summary["violations"]) == (0, 0), verified.out
        report(
            "GDPR-1",
            0,
            marks=len(who.marks),
            files=len(written),
            file_bytes=sum(map(len, written.values())),
            dump_bytes=len(dumped),
        )
    finally:
        if service is not None:
            await service.close()
        deployment.stop()


async def test_killed_erasures_are_completed(tmp_path: Path) -> None:
    """GDPR-4: the whole deployment dies while it erases, several times; whoever was begun is ended, and nobody is half gone."""
    seed = random.randrange(2**32)
    chance, deployment = random.Random(seed), Deployment(tmp_path / "data")
    begun_seen = unanswered = erased_total = 0
    seconds: list[float] = []
    service: Caller | None = None
    try:
        await deployment.start()
        service = await service_of(deployment)
        for number in range(KILLS):
            made = [
                await service.post("/v1/members", {"external_id": f"p-{number}-{n}", "email": f"p{number}x{n}@example.com"})
                for n in range(PEOPLE)
            ]
            ids = [each["id"] for each in made]
            for member in ids[::4]:
                await service.post(f"/v1/wallets/{member}:PTS/credit", {"amount": 5})
            tasks = [asyncio.create_task(service.post(f"/v1/members/{member}/erase")) for member in ids]
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            deployment.kill()
            answers = dict(zip(ids, await asyncio.gather(*tasks, return_exceptions=True), strict=True))
            told = {member: answer for member, answer in answers.items() if isinstance(answer, dict)}
            await deployment.start()
            began = time.monotonic()
            begun_seen += await until_ended(deployment.mongodb_url())
            seconds.append(round(time.monotonic() - began, 1))
            for member in ids:
                shown = await service.get(f"/v1/members/{member}")
                assert shown["status"] in ("active", "erased")
                assert (shown["external_id"] is None) == (shown["email"] is None) == (shown["status"] == "erased")
                if shown["status"] == "erased":
                    unanswered += member not in told
                    assert told.get(member) in (None, await service.get(f"/v1/members/{member}/erasure"))
                assert shown["status"] == "erased" or member not in told, "what was acknowledged is done"
                again = await service.post(f"/v1/members/{member}/erase")
                assert again == await service.get(f"/v1/members/{member}/erasure")
                erased_total += 1
        await assert_nothing_is_left(deployment.mongodb_url(), erased_total)
        assert (await deployment.command("audit")).status == 0, "its chain is whole"
        verified = await deployment.command("verify", "--json")
        assert (verified.status, verified.summary["violations"]) == (0, 0), verified.out
        record("GDPR-4 erasures found half-way, and ended", begun_seen, "> 0")
        assert begun_seen > 0, "none of the kills has met an erasure half-way: the check has checked nothing"
        report(
            "GDPR-4",
            seed,
            kills=KILLS,
            erased=erased_total,
            found_half_way=begun_seen,
            unanswered=unanswered,
            ended_after_seconds=seconds,
        )
    finally:
        if service is not None:
            await service.close()
        deployment.kill()


async def until_ended(url: str) -> int:
    """Wait until no erasure is under way, with nobody asking; return how many there were."""
    async with AsyncMongoClient[Document](url) as client:
        tasks, deadline = client["guerdon"][ERASING], time.monotonic() + JOB_SECONDS
        first = await tasks.count_documents({})
        while await tasks.count_documents({}):
            assert time.monotonic() < deadline, "no worker has ended them"
            await asyncio.sleep(0.2)
        return first


async def assert_nothing_is_left(url: str, erased: int) -> None:
    async with AsyncMongoClient[Document](url) as client:
        database = client["guerdon"]
        assert await database["person_keys"].count_documents({}) == 0
        assert await database["claims"].count_documents({"expires_at": {"$exists": False}}) == 0
        assert await database["members"].count_documents({"$or": [{"sealed": {"$exists": True}}, {"erased_at": None}]}) == 0
        assert await database[ERASURES].count_documents({}) == erased
        said = [row["subject"]["member_id"] async for row in database["audit"].find({"action": "memberErased"})]
        assert len(said) == len(set(said)) == erased, "one record for each"


async def test_erasure_log_is_exported_verified_and_reapplied(
    service: ApiCaller, services: Services, settings: Settings, factory: Factory, tmp_path: Path
) -> None:
    """By the commands. A log in which anything was changed is refused whole."""
    gone, living = await factory.member(), await factory.member()
    before = await dump(services.database)
    certificate = (await service.post(f"/v1/members/{gone}/erase")).json()
    log = tmp_path / "erasures.jsonl"
    exported = await guerdon("erasures", "export", **places(settings))
    assert [json.loads(line) for line in exported.out.splitlines()] == [certificate]
    log.write_text(exported.out)
    true = await guerdon("erasures", "verify", str(log), **places(settings))
    assert (true.status, true.out.strip()) == (0, "1 certificates, 0 in doubt"), true.err
    await restore(services.database, before)
    log.write_text(f"{exported.out}{json.dumps({**certificate, 'member_id': living})}\n")
    refused = await guerdon("erasures", "reapply", str(log), **places(settings))
    assert (refused.status, "does not match its digest" in refused.err) == (2, True)
    assert {(await service.get(f"/v1/members/{each}")).json()["status"] for each in (gone, living)} == {"active"}
    log.write_text(exported.out)
    doubtful = await guerdon("erasures", "verify", str(log), **places(settings))
    assert (doubtful.status, f"{gone}: the member is not erased" in doubtful.err) == (1, True)
    record("certificates of a changed log refused", "all", "all")
    done = await guerdon("erasures", "reapply", str(log), **places(settings))
    assert (done.status, done.out.strip()) == (0, "1 certificates, 1 people erased again"), done.err
    assert (await guerdon("erasures", "verify", str(log), **places(settings))).status == 0
    assert (await service.get(f"/v1/members/{gone}/erasure")).json() == certificate
    assert (await service.get(f"/v1/members/{living}")).json()["status"] == "active"


async def test_erasure_interrupted_at_any_command_is_completed_by_a_worker(
    service: ApiCaller, services: Services, other_services: Services, factory: Factory
) -> None:
    """GDPR-4 at every single command."""
    cut = await cut_off_erasures(service, services, other_services, every=1)
    record("GDPR-4 erasures cut off at a command, and ended", cut, ">= 15")
    assert cut >= 15, "so many commands make an erasure"
    await factory.assert_books_balance()
    report("GDPR-4-COMMANDS", 0, cut_off=cut)


async def test_killed_master_key_rotation_resumes(services: Services, settings: Settings, master_keys: str) -> None:
    seed = random.randrange(2**32)
    chance, old = random.Random(seed), MasterKeys(master_keys)
    person = (await services.members.create_member("somebody", None, None)).id
    keys = services.database.raw["person_keys"]
    rows = [{"_id": f"mem_{number:032x}", "created_at": 0} for number in range(KEYS)]
    for start in range(0, KEYS, 5000):
        batch = rows[start : start + 5000]
        await keys.insert_many([{**row, "wrapped": old.seal(SealingKey.generate(), f"key of {row['_id']}")} for row in batch])
    both = with_new_first(master_keys)
    new, left = MasterKeys(both), []
    for _ in range(ROTATION_KILLS):
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, "-m", "guerdon", "keys", "rotate-master"],
            env=environment(**{**places(settings), "GUERDON_MASTER_KEYS": both}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        before = await count_old(keys, new)
        while await count_old(keys, new) == before:
            assert process.poll() is None, "it has ended before it was killed"
            await asyncio.sleep(0.01)
        await asyncio.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        left.append(await settled(keys, new))
    record("MASTER-ROTATE keys left after each kill", " ".join(map(str, left)), f"< {KEYS}, falling")
    assert KEYS > left[0] > left[-1] > 0, "it was killed half-way, and each time a little later"
    done = await guerdon("keys", "rotate-master", "--json", **{**places(settings), "GUERDON_MASTER_KEYS": both})
    assert done.status == 0, done.err
    said = {each["collection"]: each for each in done.summary["places"]}
    assert (said["person_keys"]["resealed"], said["person_keys"]["current"]) == (left[-1], KEYS + 1 - left[-1])
    alone, [place] = MasterKeys(only_first(both)), [each for each in SEALED_FIELDS if each.collection == "person_keys"]
    opened = [len(alone.open(row["wrapped"], place.context(row))) async for row in keys.find({})]
    assert opened == [32] * (KEYS + 1)
    assert (await services.database.raw["members"].count_documents({"_id": person})) == 1
    report("MASTER-ROTATE", seed, keys=KEYS + 1, kills=ROTATION_KILLS, left_after_each=left)


async def settled(keys: Any, new: MasterKeys) -> int:
    """How many are left once the server has done what a process that was killed had sent."""
    before, now = -1, await count_old(keys, new)
    while now != before:
        await asyncio.sleep(0.5)
        before, now = now, await count_old(keys, new)
    return now


async def count_old(keys: Any, new: MasterKeys) -> int:
    """How many the new key has not sealed yet: what it has sealed begins with its name, and all are of one length."""
    first, last = new.current + bytes(60), new.current + b"\xff" * 60
    return int(await keys.count_documents({}) - await keys.count_documents({"wrapped": {"$gte": first, "$lte": last}}))
